"""What is wrong with my agent? Its own values say so: here a time limit is taken for an end.

python examples/diagnose_a_learner.py
"""

import gymnasium
import numpy as np

from dodona.checks import diagnose
from dodona.mdp import MDP

GAMMA, LIMIT = 0.9, 10
env = gymnasium.make("FrozenLake-v1", is_slippery=False, max_episode_steps=LIMIT)
rng = np.random.default_rng(0)
q, visits = np.zeros((16, 4)), np.zeros((16, 4))
for episode in range(20_000):
    s, _ = env.reset(seed=episode)
    done = False
    while not done:
        a = int(rng.integers(4))
        s2, r, terminated, truncated, _ = env.step(a)
        done = terminated or truncated
        visits[s, a] += 1
        target = (
            r + GAMMA * (not done) * q[s2].max()
        )  # the bug: a lake has no time limit, s2 goes on
        q[s, a] += (target - q[s, a]) / visits[s, a] ** 0.6
        s = s2

mdp = MDP.from_gymnasium(env, gamma=GAMMA)
print(diagnose(q, mdp, limit=LIMIT, visits=visits))
