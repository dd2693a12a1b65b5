"""Returns over time: by forward sums, in every layout, and what they refuse."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dodona import objectives
from dodona.errors import InputError, NonFiniteError, ShapeError
from dodona.objectives import _time_kernels as kernels
from dodona.objectives._lanes import lanes
from dodona.oracles.returns import returns_by_definition, vtrace_by_definition

NAMES = ("discounted_returns", "n_step_returns", "lambda_returns", "vtrace")


def case(seed: int, T: int = 9, B: int = 3, truncations: bool = True):
    """Random lanes; the critic is one, so v' inside an episode is the value of the next counted row."""
    rng = np.random.default_rng(seed)
    x = {
        "r": rng.normal(size=(T, B)), "v": rng.normal(size=(T, B)), "end": rng.random((T, B)) < 0.2,
        "cut": (rng.random((T, B)) < 0.2) & truncations, "mask": rng.random((T, B)) < 0.75,
        "after": rng.normal(size=(T, B)), "log_ratio": rng.normal(size=(T, B)),
    }  # fmt: skip
    for b in range(B):
        rows = np.flatnonzero(x["mask"][:, b])
        for t, below in zip(rows[:-1], rows[1:], strict=True):
            if not (x["end"][t, b] or x["cut"][t, b]):
                x["after"][t, b] = x["v"][below, b]
    return x


def call(name, x, **options):
    how = {
        "discounted_returns": {}, "n_step_returns": {"num_steps": 3}, "lambda_returns": {"gae_lambda": 0.7},
        "vtrace": {"log_ratio": x["log_ratio"], "rho_max": 1.4, "c_max": 0.9},
    }[name]  # fmt: skip
    arrays = [x["r"], x["v"], x["end"], x["cut"]]
    if name == "discounted_returns":
        del arrays[1]
    options = {"gamma": 0.9, "next_values": x["after"], "mask": x["mask"], **how, **options}
    got = getattr(objectives, name)(*arrays, **options)
    return torch.stack(got) if name == "vtrace" and isinstance(got[0], torch.Tensor) else np.stack(got) if name == "vtrace" else got  # fmt: skip


def by_definition(name, x):
    critic = {"gamma": 0.9, "next_values": x["after"], "mask": x["mask"]}
    given = (x["r"], x["v"], x["end"], x["cut"])
    if name == "vtrace":
        return np.stack(vtrace_by_definition(*given, log_ratio=x["log_ratio"], rho_max=1.4, c_max=0.9, **critic))  # fmt: skip
    how = {"n_step_returns": {"num_steps": 3}, "lambda_returns": {"gae_lambda": 0.7}}.get(name, {})
    return returns_by_definition(*given, **how, **critic)


@pytest.mark.parametrize("name", NAMES)
@given(seed=st.integers(0, 10**6), T=st.integers(1, 9), B=st.integers(0, 3))
def test_every_return_is_its_forward_sum(name, seed, T, B):
    x = case(seed, T, B)
    np.testing.assert_allclose(call(name, x), by_definition(name, x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_tensors_give_tensors_with_the_same_numbers(name):
    x = case(1)
    got = call(name, {k: torch.as_tensor(a) for k, a in x.items()})
    assert isinstance(got, torch.Tensor) and got.dtype == torch.float64
    np.testing.assert_array_equal(got.numpy(), call(name, x))


@pytest.mark.parametrize("name", NAMES)
def test_float32_stays_float32_and_half_becomes_it(name):
    x = case(2)
    single = {k: a.astype(np.float32) if a.dtype == float else a for k, a in x.items()}
    assert call(name, single).dtype == np.float32
    np.testing.assert_allclose(call(name, single), call(name, x), rtol=2e-6, atol=2e-6)
    half = {k: torch.as_tensor(a).to(torch.bfloat16) if a.dtype == float else torch.as_tensor(a) for k, a in x.items()}  # fmt: skip
    assert call(name, half).dtype == torch.float32


@pytest.mark.parametrize("name", NAMES)
def test_time_may_be_any_axis_and_lanes_any_shape(name):
    x = case(3, T=5, B=6)
    whole = call(name, x)
    rows = call(name, {k: a.T for k, a in x.items()}, time_dim=1)
    np.testing.assert_array_equal(np.swapaxes(rows, -1, -2), whole)
    deep = {k: np.moveaxis(a.reshape(5, 2, 3), 0, -1) for k, a in x.items()}
    got = np.moveaxis(call(name, deep, time_dim=-1), -1, -3)
    np.testing.assert_array_equal(got.reshape(whole.shape), whole)


@pytest.mark.parametrize("name", NAMES)
def test_a_lane_alone_is_the_lane_among_others(name):
    x = case(4)
    alone = call(name, {k: a[:, 1] for k, a in x.items()})
    np.testing.assert_array_equal(alone, call(name, x)[..., 1])


@pytest.mark.parametrize("name", NAMES)
def test_masked_rows_are_as_good_as_deleted(name):
    x = case(5)
    keep = x["mask"][:, 0]
    short = call(name, {k: a[keep, 0] for k, a in x.items()})
    whole = call(name, x)[..., 0]
    np.testing.assert_allclose(whole[..., keep], short, rtol=1e-13)
    assert not whole[..., ~keep].any()


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_read_under_the_mask_or_after_an_end(name):
    x = case(6)
    truth = call(name, x)
    for key in ("r", "v", "after", "log_ratio"):
        x[key][~x["mask"]] = np.nan
    x["after"][x["end"]] = np.inf
    np.testing.assert_array_equal(call(name, x), truth)
    x["mask"] = x["mask"].astype(np.float32)
    np.testing.assert_array_equal(call(name, x), truth)


@pytest.mark.parametrize("name", NAMES)
def test_the_loops_for_other_devices_give_the_same(name, monkeypatch):
    """The loop runs on the host here: the same tensors, past the conversion to NumPy."""
    x = case(7)
    truth = call(name, x)
    kernel = {
        "discounted_returns": "_discounted", "n_step_returns": "_n_step", "lambda_returns": "_gae", "vtrace": "_vtrace",
    }[name]  # fmt: skip
    loop = getattr(kernels, f"{kernel}_loop")

    def run(compiled, _, rows, arrays, numbers, num_answers):
        given = [torch.as_tensor(np.ascontiguousarray(a)) for a in (*rows, *arrays)]
        answers = loop(*given, *numbers)
        assert len(answers) == num_answers
        return [a.numpy() for a in answers]

    monkeypatch.setattr(kernels, "_run", run)
    np.testing.assert_allclose(call(name, x), truth, rtol=1e-12, atol=1e-12)


def test_the_next_counted_row_is_found_in_either_kind():
    counts = np.array([[True, False], [False, False], [True, True]])
    np.testing.assert_array_equal(kernels.next_counted(counts), [[2, 2], [2, 2], [3, 3]])
    np.testing.assert_array_equal(kernels.next_counted(torch.as_tensor(counts)), [[2, 2], [2, 2], [3, 3]])  # fmt: skip


def test_values_of_t_plus_one_rows_hold_the_value_of_what_follows():
    x = case(8, truncations=False)
    v = np.concatenate([x["v"], np.ones((1, 3))])
    for mask in (None, x["mask"]):
        given = (x["r"], v, x["end"], x["cut"])
        got = objectives.lambda_returns(*given, gamma=0.9, gae_lambda=0.7, mask=mask)
        truth = returns_by_definition(*given, gamma=0.9, gae_lambda=0.7, mask=mask)
        np.testing.assert_allclose(got, truth, rtol=1e-12)
        tensors = [torch.as_tensor(a) for a in given]
        got = objectives.lambda_returns(
            *tensors,
            gamma=0.9,
            gae_lambda=0.7,
            mask=None if mask is None else torch.as_tensor(mask),
        )
        np.testing.assert_allclose(got.numpy(), truth, rtol=1e-12)


def test_truncation_still_bootstraps_and_termination_does_not():
    one, none, yes = np.ones(1), np.array([False]), np.array([True])
    values = np.array([0.0, 10.0])
    for end, cut, expected in ((none, yes, 6.0), (yes, none, 1.0), (yes, yes, 1.0), (none, none, 6.0)):  # fmt: skip
        got = objectives.n_step_returns(one, values, end, cut, num_steps=4, gamma=0.5)
        assert got.item() == expected
        got = objectives.discounted_returns(one, end, cut, gamma=0.5, final_values=10.0)
        assert got.item() == expected


def test_a_cut_followed_by_its_reset_row_needs_no_next_values():
    r, cut = np.array([1.0, np.nan, 1.0]), np.array([True, False, False])
    values, counts = np.array([0.0, 4.0, 0.0, 8.0]), np.array([True, False, True])
    none = np.zeros(3, bool)
    got = objectives.lambda_returns(r, values, none, cut, gamma=0.5, gae_lambda=1.0, mask=counts)
    np.testing.assert_array_equal(got, [3.0, 0.0, 5.0])


def test_last_values_may_differ_from_lane_to_lane():
    none = np.zeros((2, 3), bool)
    got = objectives.discounted_returns(
        np.ones((2, 3)), none, none, gamma=0.5, final_values=np.array([0.0, 4.0, 8.0])
    )
    np.testing.assert_array_equal(got, [[1.5, 2.5, 3.5], [1.0, 3.0, 5.0]])
    flags = torch.zeros(3, 2, dtype=torch.bool)
    got = objectives.discounted_returns(
        torch.ones(3, 2),
        flags,
        flags,
        gamma=0.5,
        final_values=torch.tensor([0.0, 4.0, 8.0]),
        time_dim=1,
    )
    np.testing.assert_array_equal(got.numpy(), [[1.5, 1.0], [2.5, 3.0], [3.5, 5.0]])


def test_an_answer_cut_by_length_takes_the_last_value_past_its_pads():
    """Rows of a batch of answers: what follows the last counted token is final_values, not a pad."""
    cut = np.array([[False, True, False], [False, False, False]])
    mask = np.array([[True, True, False], [True, True, True]])
    none = np.zeros((2, 3), bool)
    got = objectives.discounted_returns(
        np.ones((2, 3)), none, cut, gamma=1.0, final_values=2.0, mask=mask, time_dim=1
    )
    np.testing.assert_array_equal(got, [[4.0, 3.0, 0.0], [5.0, 4.0, 3.0]])


def test_whole_rewards_are_numbers_too():
    none = np.zeros(2, bool)
    got = objectives.discounted_returns(np.array([1, 2]), none, none, gamma=0.5)
    assert got.dtype == np.float64 and got.tolist() == [2.0, 2.0]
    got = objectives.lambda_returns(np.array([1, 2]), np.zeros(3, np.float32), none, none, gamma=0.5, gae_lambda=0.0)  # fmt: skip
    assert got.dtype == np.float32


def test_no_rows_have_no_returns():
    none = np.zeros((0, 2), bool)
    assert objectives.discounted_returns(np.zeros((0, 2)), none, none, gamma=0.9).shape == (0, 2)


@given(seed=st.integers(0, 10**6))
def test_returns_are_linear_in_rewards_and_values(seed):
    x, y = case(seed), case(seed + 1)
    both = {**x, **{k: 2.0 * x[k] + y[k] for k in ("r", "v", "after")}}
    y = {**x, **{k: y[k] for k in ("r", "v", "after")}}
    for name in NAMES:
        np.testing.assert_allclose(
            call(name, both), 2.0 * call(name, x) + call(name, y), atol=1e-12
        )


@given(seed=st.integers(0, 10**6))
def test_vtrace_on_policy_is_monte_carlo_and_with_tight_traces_one_step(seed):
    x = case(seed)
    given_ = (x["r"], x["v"], x["end"], x["cut"])
    how = {"gamma": 0.9, "next_values": x["after"], "mask": x["mask"]}
    even = np.zeros_like(x["r"])
    targets, advantages = objectives.vtrace(*given_, log_ratio=even, **how)
    np.testing.assert_allclose(targets, call("discounted_returns", x), atol=1e-12)
    gae = objectives.gae(*given_, gae_lambda=1.0, **how)
    np.testing.assert_allclose(advantages, gae, atol=1e-12)
    far = np.full_like(even, -1e3)  # an action that the policy never takes is not learnt from
    targets, advantages = objectives.vtrace(*given_, log_ratio=far, **how)
    np.testing.assert_array_equal(targets, np.where(x["mask"], x["v"], 0.0))
    assert not advantages.any()


def test_wrong_arguments_are_named():
    r, v, none = np.ones((3, 2)), np.ones((4, 2)), np.zeros((3, 2), bool)
    f, how = objectives.lambda_returns, {"gamma": 0.9, "gae_lambda": 0.9}
    with pytest.raises(InputError, match=r"gamma must be in \[0, 1\], got 1.5"):
        f(r, v, none, none, gamma=1.5, gae_lambda=0.9)
    with pytest.raises(InputError, match=r"gae_lambda must be in \[0, 1\], got -0.1"):
        f(r, v, none, none, gamma=0.9, gae_lambda=-0.1)
    with pytest.raises(InputError, match="num_steps must be at least 1, got 0"):
        objectives.n_step_returns(r, v, none, none, num_steps=0, gamma=0.9)
    with pytest.raises(ShapeError, match=r"values has shape \(3, 2\).*\(4, 2\) is expected.*give next_values"):  # fmt: skip
        f(r, v[:3], none, none, **how)
    with pytest.raises(ShapeError, match=r"values has shape \(4, 2\).*Leave the last row out"):
        f(r, v, none, none, next_values=v[:3], **how)
    with pytest.raises(ShapeError, match=r"truncated has shape \(2, 3\)"):
        f(r, v, none, none.T, **how)
    with pytest.raises(ShapeError, match=r"rewards has shape \(3, 2\) and no axis 2"):
        f(r, v, none, none, time_dim=2, **how)
    with pytest.raises(ShapeError, match=r"mask has shape \(2,\)"):
        f(r, v, none, none, mask=np.ones(2), **how)
    with pytest.raises(ShapeError, match=r"final_values has shape \(3,\), expected \(2,\)"):
        objectives.discounted_returns(r, none, none, gamma=0.9, final_values=np.ones(3))
    with pytest.raises(InputError, match="both given.*Leave final_values out"):
        objectives.discounted_returns(r, none, none, gamma=0.9, final_values=1.0, next_values=r)
    with pytest.raises(TypeError, match="NumPy arrays and torch tensors together"):
        f(torch.ones(3, 2), v, none, none, **how)
    with pytest.raises(TypeError, match="values requires grad"):
        tensors = [torch.as_tensor(x) for x in (r, v, none, none)]
        f(tensors[0], tensors[1].requires_grad_(), *tensors[2:], **how)
    with pytest.raises(InputError, match=r"rho_max must be in \(0, inf\], got 0"):
        objectives.vtrace(r, v, none, none, log_ratio=r, gamma=0.9, rho_max=0)
    with pytest.raises(InputError, match="c_max must be at most rho_max, got c_max=2.0 and rho_max=1.0"):  # fmt: skip
        objectives.vtrace(r, v, none, none, log_ratio=r, gamma=0.9, c_max=2.0)


def test_flags_that_are_not_bool_are_refused():
    none = np.zeros(3, bool)
    # the public annotations, which the test run checks, refuse them first
    with pytest.raises(TypeError, match="truncated must be bool, got float64.*both flags"):
        lanes(np.ones(3), none, np.zeros(3), gamma=0.9, next_values=None, mask=None, time_dim=0)


def test_a_cut_with_an_unknown_successor_is_refused():
    r, cut, none = np.ones((3, 2)), np.zeros((3, 2), bool), np.zeros((3, 2), bool)
    cut[1, 1] = True
    with pytest.raises(InputError, match="row 1, lane 1 is truncated.*Give next_values"):
        objectives.lambda_returns(r, np.ones((4, 2)), none, cut, gamma=0.9, gae_lambda=0.9)
    with pytest.raises(InputError, match="row 1 is truncated"):
        objectives.discounted_returns(r[:, 1], none[:, 1], cut[:, 1], gamma=0.9)
    reset = np.ones((3, 2), bool)
    reset[2, 1] = False
    objectives.lambda_returns(r, np.ones((4, 2)), none, cut, gamma=0.9, gae_lambda=0.9, mask=reset)
    objectives.lambda_returns(r, np.ones((4, 2)), cut, cut, gamma=0.9, gae_lambda=0.9)  # an end


def test_numbers_that_are_not_finite_are_named():
    r, v, none = np.ones((3, 2)), np.ones((4, 2)), np.zeros((3, 2), bool)
    bad = r.copy()
    bad[2, 1] = np.nan
    how = {"gamma": 0.9, "gae_lambda": 0.9}
    with pytest.raises(NonFiniteError, match=r"rewards must be finite, got nan at index \(2, 1\)"):
        objectives.lambda_returns(bad, v, none, none, **how)
    with pytest.raises(NonFiniteError, match=r"rewards must be finite, got nan at index \(1, 2\)"):
        objectives.lambda_returns(bad.T, v.T, none.T, none.T, time_dim=1, **how)
    with pytest.raises(NonFiniteError, match=r"value after a row must be finite, got nan at index \(2, 1\)"):  # fmt: skip
        objectives.lambda_returns(r, r, none, none, next_values=bad, **how)
    with pytest.raises(NonFiniteError, match="final_values must be finite, got inf"):
        objectives.discounted_returns(r, none, none, gamma=0.9, final_values=float("inf"))
    with pytest.raises(NonFiniteError, match="log_ratio must be finite"):
        objectives.vtrace(r, v, none, none, log_ratio=bad, gamma=0.9)
    with pytest.raises(NonFiniteError, match="more than float64 can hold out of finite numbers"):
        objectives.vtrace(r, v, none, none, log_ratio=1e3 * r, gamma=0.9, rho_max=float("inf"))
