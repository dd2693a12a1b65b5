"""The strategies make valid models, reach their extremes, and shrink to almost nothing."""

import hypothesis
import numpy as np
from hypothesis import Phase, given, settings

from dodona.checks.compare import as_mdp
from dodona.mdp.chain import policy_pairs
from dodona.oracles.strategies import st_features, st_mdp, st_policy

QUICK = settings(max_examples=50, derandomize=True, deadline=None, database=None)
EXTREMES = {
    "no discount left": lambda m: m.gamma == 0.0 and len(m.P) > 1,
    "patience": lambda m: m.gamma == 0.999999,
    "huge rewards": lambda m: np.abs(m.R).max() > 1e9,
    "tiny rewards": lambda m: 0 < np.abs(m.R).max() < 1e-250,
    "losses only": lambda m: m.R.size > 1 and np.all(m.R[m.mask] < 0),
    "constant rewards": lambda m: m.R.size > 2 and np.ptp(m.R) == 0 and m.R.flat[0] != 0,
    "one action": lambda m: m.R.shape[1] == 1 and len(m.P) > 2,
    "an end": lambda m: m.terminal.any(),
    "an infeasible action": lambda m: m.action_mask is not None and not m.action_mask.all(),
    "an absorbing state": lambda m: len(m.P) > 1 and (m.P[0, :, 0] == 1).all(),
    "twin actions": lambda m: m.R.shape[1] > 1 and len(m.P) > 1 and np.array_equal(m.P[0, 0], m.P[0, 1]) and m.R[0, 0] == m.R[0, 1] != 0,
    "a near tie": lambda m: ((0 < np.abs(m.R[:, -1] - m.R[:, 0])) & (np.abs(m.R[:, -1] - m.R[:, 0]) < 1.1e-12) & (np.abs(m.R[:, 0]) > 0.5)).any(),
    "an unreachable state": lambda m: len(m.P) > 2 and (m.P[:, :, 1].sum() == 0),
    "mass that ends": lambda m: m.terminal.any() and 0 < m.P[0, 0][m.terminal].sum() < 1,
}  # fmt: skip


@given(st_mdp())
def test_every_draw_is_a_model_the_library_accepts(case):
    model = as_mdp(case)
    assert np.array_equal(model.action_mask, case.mask)
    assert case.mask[~case.terminal].any(axis=1).all() and not case.terminal.all()


@given(st_mdp().flatmap(lambda case: st_policy(case).map(lambda policy: (case, policy))))
def test_every_policy_is_one(drawn):
    case, policy = drawn
    pairs, share = policy_pairs(as_mdp(case), policy)
    assert len(pairs) >= (~case.terminal).sum() and (share is None) == (policy.ndim == 1)


def test_every_extreme_is_met():
    missing = set(EXTREMES)

    @settings(max_examples=500, derandomize=True, database=None, phases=[Phase.generate])
    @given(st_mdp())
    def look(case):
        missing.difference_update([name for name, is_met in EXTREMES.items() if is_met(case)])

    look()
    assert missing == set()


def test_models_shrink_to_one_state_and_one_action():
    smallest = hypothesis.find(st_mdp(), lambda case: True, settings=QUICK)
    assert smallest.P.tolist() == [[[1.0]]] and smallest.R.tolist() == [[0.0]]
    assert smallest.gamma == 0.0 and not smallest.terminal.any() and smallest.action_mask is None


@given(st_features(4))
def test_features_have_a_row_per_state(features):
    assert features.shape[0] == 4 and features.shape[1] >= 1 and np.all(np.abs(features) <= 2)


def test_features_shrink_to_a_constant_and_can_lose_rank():
    smallest = hypothesis.find(st_features(3), lambda f: True, settings=QUICK)
    assert smallest.tolist() == [[1.0], [1.0], [1.0]]
    lost = hypothesis.find(
        st_features(3), lambda f: np.linalg.matrix_rank(f) < f.shape[1], settings=QUICK
    )
    assert lost.shape[1] >= 1
