"""Is the reward threshold of a tabular Gymnasium environment attainable? Ask its exact optimum.

python examples/audit_an_environment.py
"""

from dodona.mdp.audit import audit

for env_id in ("FrozenLake-v1", "Taxi-v4"):
    print(audit(env_id).text(), end="\n\n")
