"""Four algorithms that the learning code stands on: search, matching, sampling, trees.

Short names repeat between them, so they are imported by file: ``from dodona.algorithms import kmp``.
"""
