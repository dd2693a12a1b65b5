"""Solve a model of your own with a proof: a machine that wears out, kept going or replaced.

python examples/solve_my_mdp.py
"""

from dodona.mdp import MDP, solve

WORN = 10  # ages 0 .. 10; at 10 the machine is worn out and earns nothing


def step(age: int, action: int):
    """(probability, next age, reward) of keeping (0) or replacing (1) a machine of this age."""
    if action == 1:
        return [(1.0, 0, -30.0)]
    earned = 10.0 - age
    older = min(age + 1, WORN)
    return [(0.7, older, earned), (0.3, min(age + 2, WORN), earned)]


mdp = MDP.from_function(step, WORN + 1, 2, gamma=0.95)
solution = solve(mdp, tol=1e-8)
print(f"every value is proven to within {solution.gap:.1e}")
for age, (low, high, action) in enumerate(
    zip(solution.lower, solution.upper, solution.policy, strict=True)
):
    print(f"age {age:2}: {low:.6f} .. {high:.6f}  {('keep', 'replace')[action]}")
