"""Every check: what it lets through, what it says, and that it works without torch."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dodona.core.inputs import (
    as_numpy,
    check_choice,
    check_count,
    check_detached,
    check_finite,
    check_mask,
    check_range,
    check_shapes,
    dtype_kind,
    namespace,
)
from dodona.errors import InputError, NonFiniteError, ShapeError


def test_a_shape_error_names_both_arrays_and_both_shapes():
    with pytest.raises(ShapeError, match=r"mask has shape \(2, 4\) and logp has shape \(2, 3\)"):
        check_shapes(logp=torch.zeros(2, 3), logp_ref=None, mask=np.zeros((2, 4)))
    check_shapes(a=torch.zeros(2, 3), b=np.zeros((2, 3)), c=[[1, 2, 3], [4, 5, 6]], d=None)
    check_shapes()


def test_nothing_is_broadcast():
    with pytest.raises(ShapeError, match="Write any broadcast out"):
        check_shapes(a=np.zeros((2, 3)), b=np.zeros((2, 1)))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("make", [np.array, torch.tensor, lambda x: x])
def test_a_number_that_is_not_finite_is_named_with_its_place(bad, make):
    with pytest.raises(
        NonFiniteError, match=rf"rewards must be finite, got {bad} at index \(1, 0\)"
    ):
        check_finite(values=make([1.0]), rewards=make([[1.0, 2.0], [bad, bad]]))
    with pytest.raises(NonFiniteError, match=r"row must be finite, got .* at index 2"):
        check_finite(row=make([0.0, 0.0, bad]))
    with pytest.raises(NonFiniteError, match=r"x must be finite, got [a-z-]+\. Look"):
        check_finite(x=bad)


def test_finite_numbers_pass_in_every_type():
    check_finite(a=1, b=None, c=np.arange(3), d=torch.ones(2, dtype=torch.bfloat16), e=[])


@pytest.mark.parametrize(
    "interval, inside, outside",
    [
        ("[0, 1]", [0, 1, 0.5], [-1e-9, 1 + 1e-9, float("nan")]),
        ("(0, 1)", [1e-12, 0.999], [0, 1]),
        ("[1, inf)", [1, 1e300], [0.99, float("inf")]),
        ("(-inf, 0]", [0, -5], [1e-300]),
    ],
)
def test_an_interval_means_what_it_says(interval, inside, outside):
    for x in inside:
        check_range(
            interval, x=x, array=np.array([x, x]), tensor=torch.tensor(x, dtype=torch.float64)
        )
    for x in outside:
        for given_as in (
            x,
            np.float64(x),
            np.array([inside[0], x]),
            torch.tensor([inside[0], x], dtype=torch.float64),
        ):
            with pytest.raises(InputError, match="x must be in"):
                check_range(interval, x=given_as)


def test_a_range_error_gives_advice_and_the_index():
    with pytest.raises(InputError, match=r"clip_eps must be in \(0, 1\), got 1.5. PPO uses 0.2."):
        check_range("(0, 1)", "PPO uses 0.2.", clip_eps=1.5)
    with pytest.raises(InputError, match=r"std must be in \(0, inf\), got -2.0 at index \(0, 1\)."):
        check_range("(0, inf)", std=torch.tensor([[1.0, -2.0]]))
    with pytest.raises(TypeError, match="gamma must be a number in .*, got '0.9'"):
        check_range("[0, 1]", gamma="0.9")
    check_range("[0, 1]", gamma=None)


def test_a_count_is_a_whole_number():
    check_count(n=1, m=np.int64(5), k=None)
    check_count(0, n=0)
    for wrong in (1.0, True, "3", np.float64(2)):
        with pytest.raises(TypeError, match="n must be a whole number"):
            check_count(n=wrong)
    with pytest.raises(InputError, match="n must be at least 1, got 0"):
        check_count(n=0)


def test_a_wrong_choice_hears_the_nearest():
    check_choice(("token", "sequence"), reduction="token")
    with pytest.raises(
        InputError, match="one of 'token', 'sequence', got 'tokens'. Did you mean 'token'"
    ):
        check_choice(("token", "sequence"), reduction="tokens")
    with pytest.raises(InputError, match="one of 'token', 'sequence', got 3.$"):
        check_choice(("token", "sequence"), reduction=3)


def test_a_constant_must_not_require_grad():
    live = torch.ones(2, requires_grad=True)
    with pytest.raises(TypeError, match=r"advantages requires grad.*Pass advantages.detach\(\)"):
        check_detached(logp_old=live.detach(), advantages=live)
    with torch.no_grad():
        check_detached(advantages=live)  # nothing can flow
    check_detached(a=None, b=np.ones(2))


@pytest.mark.parametrize("make", [np.array, torch.tensor])
def test_a_mask_is_bool_or_float_of_the_same_shape(make):
    x = make([1.0, 2.0])
    check_mask(None, x)
    check_mask(make([True, False]), x)
    check_mask(make([1.0, 0.5]), x)
    with pytest.raises(
        TypeError, match=r"mask must be bool or float.*int64. Use mask\.(bool|astype)"
    ):
        check_mask(make([1, 0]), x)
    with pytest.raises(
        ShapeError, match=r"reward_mask has shape \(3,\), what it masks has shape \(2,\)"
    ):
        check_mask(make([1.0, 0.0, 1.0]), x, name="reward_mask")


def test_a_mask_is_of_the_kind_of_its_array_and_is_not_learned():
    with pytest.raises(TypeError, match="NumPy arrays and torch tensors together"):
        check_mask(np.ones(2), torch.ones(2))
    with pytest.raises(TypeError, match="mask requires grad"):
        check_mask(torch.ones(2, requires_grad=True), torch.ones(2))


def test_the_namespace_is_that_of_the_arrays():
    assert namespace(np.ones(1), None, 3.0) is np and namespace() is np
    assert namespace(torch.ones(1), None) is torch


@given(st.sampled_from(["bool", "uint8", "int64", "float16", "float32", "float64", "complex64"]))
def test_the_kind_of_a_dtype_is_the_same_for_tensors(dtype):
    kind = np.dtype(dtype).kind.replace("u", "i")
    assert dtype_kind(torch.zeros(1, dtype=getattr(torch, dtype))) == kind
    assert dtype_kind(np.zeros(1, dtype=dtype)).replace("u", "i") == kind


def test_a_tensor_leaves_graph_and_half_precision_for_numpy():
    x = torch.tensor([1.5, 2.5], dtype=torch.bfloat16, requires_grad=True)
    assert as_numpy(x).tolist() == [1.5, 2.5] and as_numpy(3.0).shape == ()


def test_value_free_checks_survive_vmap():
    def loss(x, m):
        check_shapes(x=x, m=m)
        check_mask(m, x)
        check_detached(m=m)
        return (x * m).sum()

    torch.vmap(torch.func.grad(loss))(torch.ones(3, 2), torch.ones(3, 2))


def test_the_numpy_half_of_core_never_imports_torch():
    code = """
import sys
import numpy as np
import dodona
from dodona.core import inputs, rng, schedules, statistics
inputs.check_shapes(a=np.ones(2), b=np.ones(2)); inputs.check_finite(a=np.ones(2))
inputs.check_mask(np.ones(2), np.ones(2)); inputs.check_detached(a=np.ones(2))
schedules.cosine(1.0, 0.1, 10)(np.arange(3)); schedules.inverse_visits()(3)
moments = statistics.RunningMoments(); moments.update(np.arange(4.0), np.ones(4)); moments.std
scores = np.random.default_rng(0).normal(size=(4, 2))
statistics.bootstrap_interval(scores, statistics.iqm, num_samples=10, rng=rng.Streams(0).numpy("b"))
rng.counter_uniform(0, np.arange(3))
assert "torch" not in sys.modules, "torch was imported"
"""
    subprocess.run([sys.executable, "-c", code], check=True)
