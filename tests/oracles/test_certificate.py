"""One pass over the rows proves how far any values are: the oracle's certificate and the library's."""

import os
from fractions import Fraction

import numpy as np
import pytest
import scipy.sparse as sparse
from hypothesis import given
from hypothesis import strategies as st

from dodona import mdp as planning
from dodona.checks.compare import as_mdp
from dodona.oracles import certificate, fixtures
from dodona.oracles import mdp as oracles
from dodona.oracles.strategies import st_mdp

NUM_MODELS = 500 if os.environ.get("DODONA_HYPOTHESIS") == "nightly" else 25
NUM_GUESSES = 20


def doors(case):
    return {"terminal": case.terminal, "action_mask": case.action_mask}


def holds(lower, upper, truth) -> bool:
    return all(
        Fraction(float(a)) <= v <= Fraction(float(b))
        for a, v, b in zip(lower, truth, upper, strict=True)
    )


@pytest.mark.parametrize("seed", range(NUM_MODELS))
def test_no_certificate_of_random_values_is_ever_violated(seed):
    rng = np.random.default_rng(seed)
    case = fixtures.random_mdp(
        rng, 4, 3, terminal=seed % 2, masked=seed % 3 == 0, gamma=(0.5, 0.9, 0.99)[seed % 3]
    )
    if seed % 5 == 0:
        case.R[:] = -np.abs(case.R)
    model = as_mdp(case)
    truth, _ = oracles.optimal_rational(case.P, case.R, case.gamma, **doors(case))
    for _ in range(NUM_GUESSES):
        guess = 10.0 ** rng.integers(-6, 6) * (
            rng.normal() + 10.0 ** -rng.integers(4) * rng.normal(size=4)
        )
        ours = planning.certify(model, guess)
        theirs = oracles.certify(case.P, case.R, case.gamma, guess, **doors(case))
        assert holds(ours.lower, ours.upper, truth)
        assert holds(theirs.lower, theirs.upper, truth)


@given(st_mdp(), st.data())
def test_certificates_hold_at_the_extremes(case, data):
    one = st.floats(-1e12, 1e12, allow_subnormal=False)
    guess = np.array(data.draw(st.lists(one, min_size=len(case.P), max_size=len(case.P))))
    truth, _ = oracles.optimal_rational(case.P, case.R, case.gamma, **doors(case))
    ours = planning.certify(as_mdp(case), guess)
    theirs = oracles.certify(case.P, case.R, case.gamma, guess, **doors(case))
    assert holds(ours.lower, ours.upper, truth)
    assert holds(theirs.lower, theirs.upper, truth)
    for proof in (ours, theirs):
        own = oracles.policy_value_rational(
            case.P, case.R, case.gamma, np.maximum(proof.policy, 0), terminal=case.terminal
        )
        assert holds(proof.lower, proof.upper, own)


def test_blocks_and_sparse_matrices_prove_the_same(monkeypatch):
    case = fixtures.random_mdp(np.random.default_rng(1), 30, 3, terminal=2, masked=True)
    guess = np.random.default_rng(2).normal(size=30)
    whole = oracles.certify(case.P, case.R, case.gamma, guess, **doors(case))
    monkeypatch.setattr(certificate, "BLOCK_BYTES", 8 * 30 * 3 * 7)
    parts = oracles.certify(case.P, case.R, case.gamma, guess, **doors(case))
    matrices = [sparse.csr_array(case.P[:, a]) for a in range(3)]
    thin = oracles.certify(matrices, case.R, case.gamma, guess, **doors(case))
    for other in (parts, thin):
        assert np.allclose(other.lower, whole.lower, atol=1e-12)
        assert np.allclose(other.upper, whole.upper, atol=1e-12)
        assert np.array_equal(other.policy, whole.policy)


def test_rows_that_lost_their_terminal_columns_prove_the_same():
    case = fixtures.random_mdp(np.random.default_rng(3), 6, 2, terminal=2)
    guess = np.arange(6.0)
    whole = oracles.certify(case.P, case.R, case.gamma, guess, terminal=case.terminal)
    inner = oracles.certify(case.P[:4, :, :4], case.R[:4], case.gamma, guess[:4])
    assert np.allclose(inner.lower, whole.lower[:4], atol=1e-12)
    assert np.allclose(inner.upper, whole.upper[:4], atol=1e-12)
    assert whole.lower[4:].tolist() == whole.upper[4:].tolist() == [0, 0]


def test_without_discount_losing_mass_in_every_row_is_enough():
    # both rows end with a tenth: gamma 1 proves as a discount would
    P = np.array([[[0.0, 0.9]], [[0.9, 0.0]]])
    proof = oracles.certify(P, [[1.0], [1.0]], 1.0, [0.0, 0.0])
    assert proof.lower == pytest.approx([10, 10]) and proof.gap <= 1e-12


@pytest.mark.parametrize(
    "change, message",
    [
        ({"v": [np.nan, 0.0]}, "v must be 2 finite numbers"),
        ({"v": [0.0]}, "v must be 2 finite numbers"),
        ({"gamma": 1.0}, "state 0, action 0: a row that keeps all its discounted mass"),
        ({"P": np.full((2, 1, 2), 0.7)}, "state 0, action 0: no row of probabilities"),
        ({"P": [[[1.5, -0.5]], [[0.5, 0.5]]]}, "state 0, action 0: no row of probabilities"),
        ({"R": [[0.0], [np.nan]]}, "state 1, action 0: no row .* with a finite reward"),
    ],
)
def test_what_proves_nothing_is_refused(change, message):
    good = {"P": np.full((2, 1, 2), 0.5), "R": np.zeros((2, 1)), "gamma": 0.9, "v": [0.0, 0.0]}
    with pytest.raises(ValueError, match=message):
        oracles.certify(**{**good, **change})


def test_nothing_is_left_to_prove_where_everything_ended():
    proof = oracles.certify(np.zeros((1, 1, 1)), [[0.0]], 0.9, [7.0], terminal=[True])
    assert proof.lower.tolist() == proof.upper.tolist() == [0] and proof.policy.tolist() == [-1]
