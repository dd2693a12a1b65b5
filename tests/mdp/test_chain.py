"""Chains: the classes that are never left, against the stationary laws that they carry."""

import numpy as np
import pytest
import scipy.sparse as sparse
from hypothesis import given
from hypothesis import strategies as st

from dodona.errors import MDPError
from dodona.mdp import MDP, average_reward, relative_value_iteration
from dodona.mdp.chain import closed_classes


@given(st.integers(0, 10_000))
def test_there_are_as_many_closed_classes_as_stationary_laws(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 9))
    P = np.zeros((n, n))
    for s in range(n):
        to = rng.choice(n, size=rng.integers(1, min(n, 2) + 1), replace=False)
        P[s, to] = rng.dirichlet(np.ones(len(to)))
    classes = closed_classes(sparse.csr_array(P))
    assert len(classes) == n - np.linalg.matrix_rank(np.eye(n) - P, tol=1e-9)
    for members in classes:
        assert P[np.ix_(members, members)].sum(axis=1) == pytest.approx(np.ones(len(members)))
        assert np.all(np.diff(members) > 0)
        inside = np.linalg.matrix_power(np.eye(n) + P, n)[np.ix_(members, members)]
        assert np.all(inside > 0)  # each reaches each


def test_a_way_that_is_never_taken_connects_nothing():
    # state 0 could go to 1 with probability 0: still two classes
    P = np.array([[[1.0, 0.0]], [[0.0, 1.0]]])
    stored = MDP(
        sa_indptr=np.array([0, 1, 2]), actions=np.zeros(2, dtype=int), indptr=np.array([0, 2, 4]),
        indices=np.array([0, 1, 0, 1]), probs=P.ravel(), rewards=np.array([0.0, 1.0]), gamma=1.0,
        terminal=np.zeros(2, dtype=bool),
    )  # fmt: skip
    with pytest.raises(MDPError, match="states 0 and 1 lie in different closed classes"):
        relative_value_iteration(stored)
    with pytest.raises(MDPError, match="2 closed classes .states 0 and 1"):
        average_reward(stored, [0, 0])
