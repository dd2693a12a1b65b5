"""The truth, computed another way. NumPy, SciPy, fractions and the standard library only.

Public, because users want to check their own code with it. Everything takes plain arrays: P [S, A, S],
R [S, A], gamma, ``terminal`` [S] bool, ``action_mask`` [S, A] bool. Import by file, one idea each:
``from dodona.oracles.rational import optimal_rational``; all of planning is in ``dodona.oracles.mdp``.
"""
