"""Models from elsewhere and back: dense arrays, matrices, tables, functions, samples, Gymnasium.

Users meet them as ``MDP.from_dense``, ``MDP.from_table``, ``mdp.to_scipy``, ...
"""
