"""How far are my values from the optimum? One sweep tells, whoever computed them.

python examples/certify_my_values.py
"""

import numpy as np

from dodona.mdp import MDP, certify

mdp = MDP.from_gymnasium("FrozenLake-v1", gamma=0.95)
mine = np.linspace(0.0, 0.5, mdp.num_states)  # say, from a network
proof = certify(mdp, mine)
print(f"the true optimum lies within {proof.gap:.3f} of my values' bracket")
print(f"acting greedily on them loses at most {proof.policy_loss_bound:.3f} anywhere")
