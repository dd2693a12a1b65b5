"""Returns over time and the supply of experience, against worked numbers, sums and closed forms.

Of returns, worked numbers first, among them a published table. Then random lanes with both ends, cuts, masked rows and
a critic, against forward sums; then what must be equal without an oracle: limits of lambda and n, two ways to
write one reset, rows that are masked and rows that are not there. Last a ring on which forgetting that a
time limit is no end has a closed form of its own. Seeds are fixed.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from dodona import objectives, rl
from dodona.checks import environment_bugs, native_bugs, native_rollouts, rollout_bugs, rollouts
from dodona.checks.compare import each
from dodona.core.protocols import Check
from dodona.oracles import returns as oracle
from dodona.rl.native.finite_worlds import WorldEnv
from dodona.rl.native.fused_rollout import FusedCollector
from dodona.rl.native.lqr_env import LQREnv

RETURNS = ("discounted_returns", "n_step_returns", "lambda_returns", "gae", "vtrace")
EXPERIENCE = ("mdp_env", "GymnasiumEnv", "collect", "evaluate", "Normalizer", "make_env")
SUBJECTS: Mapping[str, Callable[..., Any]] = {
    **{name: getattr(objectives, name) for name in RETURNS},
    **{name: getattr(rl, name) for name in EXPERIENCE},
    "WorldEnv": WorldEnv,
    "LQREnv": LQREnv,
    "FusedCollector": FusedCollector,
}
MUTANTS = (*environment_bugs.MUTANTS, *rollout_bugs.MUTANTS, *native_bugs.MUTANTS)
__all__ = ["MUTANTS", "SUBJECTS", "run"]
T, LANES = 14, 4
GAMMA, LAMBDA = 0.9, 0.8
EXACT, SINGLE = 1e-12, 2e-6
INF = float("inf")
CARD = "card environments-and-rollouts, 4.3"


def run(subjects: Mapping[str, Callable[..., Any]], *, full: bool = False) -> Iterator[Check]:
    """Every check of the method; ``full`` takes twenty times as many random lanes and more states.

    Where a subject is replaced, only what plays a part in its checks is run.
    """
    replaced = {name for name, f in SUBJECTS.items() if subjects[name] is not f}
    if not replaced or replaced & set(RETURNS):
        yield from _returns(subjects, full=full)
    for case, (checks, tested) in (rollouts.SECTIONS | native_rollouts.SECTIONS).items():
        if not replaced or replaced & tested:
            options = {"full": full} if case == "native" else {}
            yield from each(case, checks(subjects, **options))


def _returns(subjects, *, full: bool) -> Iterator[Check]:
    yield from each("six rows", _six_rows(subjects))
    yield from each("published table", _published(subjects))
    yield from each("by hand", _by_hand(subjects))
    for seed in range(40 if full else 2):
        yield from each(f"lanes {seed}", _lanes(subjects, seed))
        yield from each(f"lanes {seed}", _limits(subjects, seed))
        yield from each(f"lanes {seed}", _layouts(subjects, seed))
    yield from each("ring", _ring(subjects))


def _six_rows(subjects) -> Iterator[Any]:
    """The card's golden table, in the two ways to write a reset, and with the time limit taken for an end."""
    r = np.array([1.0, 0.0, -1.0, 2.0, 0.0, 1.0])
    v = np.array([0.5, 0.2, -0.3, 0.4, 0.1, 0.6])
    after = np.array([0.2, -0.3, np.nan, 0.1, 0.9, 0.7])
    ends, cuts = np.arange(6) == 2, np.arange(6) == 4
    expected = np.array([-0.02128, -0.974, -0.7, 2.2012, 0.71, 1.03])
    factors = {"gamma": GAMMA, "gae_lambda": LAMBDA}
    got = subjects["gae"](r, v, ends, cuts, next_values=after, **factors)
    yield "gae, reset within the step", got, expected, EXACT, CARD
    got = subjects["lambda_returns"](r, v, ends, cuts, next_values=after, **factors)
    yield "lambda_returns, reset within the step", got, expected + v, EXACT, CARD
    as_ends = subjects["gae"](r, v, ends | cuts, cuts, next_values=after, **factors)
    yield "gae, the time limit taken for an end", as_ends[3:5], [1.618, -0.1], EXACT, CARD
    # a reset row below each cut: no reward, and the value of the observation that was left behind
    row = np.array([0, 1, 2, 2, 3, 4, 4, 5])
    counts = np.array([1, 1, 1, 0, 1, 1, 0, 1], dtype=bool)
    wide = np.where(counts, v[row], [0, 0, 0, 7.0, 0, 0, 0.9, 0])
    got = subjects["gae"](
        np.where(counts, r[row], np.nan), np.append(wide, 0.7), ends[row] & counts, cuts[row] & counts,
        mask=counts, **factors,
    )  # fmt: skip
    yield "gae, reset in the next step", got[counts], expected, EXACT, CARD
    yield "gae, reset rows", got[~counts], [0.0, 0.0], 0.0, "definition"


def _published(subjects) -> Iterator[Any]:
    """Three episodes in one lane; the values of terminal observations are there and must not be used."""
    r = np.array([101.0, 102, 103, 200, 104, 105, 106, 201, 107, 108, 109, 202])
    after = np.array([2.0, 3, 4, -1, 5, 6, 7, -2, 8, 9, 10, -3])
    ends, none = np.arange(12) % 4 == 3, np.zeros(12, dtype=bool)
    expected = np.array([
        454.8344, 376.1143, 291.298, 200.0, 464.5610, 383.1085, 295.387, 201.0, 474.2876, 390.1027, 299.476,
        202.0,
    ])  # fmt: skip
    values, factors = np.roll(after, 1), {"gamma": 0.99, "gae_lambda": 0.95}
    source = "tianshou, test/base/test_returns.py"
    got = subjects["lambda_returns"](r, values, ends, none, next_values=after, **factors)
    yield "lambda_returns", got, expected, 1e-4, source
    got = subjects["gae"](r, values, ends, none, next_values=after, **factors)
    yield "gae", got + values, expected, 1e-4, source
    got = subjects["lambda_returns"](r, np.append(values, -3.0), ends, none, **factors)
    yield "lambda_returns, T+1 values", got, expected, 1e-4, source


def _by_hand(subjects) -> Iterator[Any]:
    none, one = np.zeros(3, dtype=bool), np.ones(3)
    cut = np.array([False, True, False])
    v = np.array([16.0, 32.0, 64.0, 128.0])
    got = subjects["n_step_returns"](one, v, none, none, num_steps=2, gamma=0.5)
    yield "n_step_returns, n = 2", got, [17.5, 33.5, 65.0], 0.0, "by hand"
    got = subjects["n_step_returns"](
        one, v[:3], cut, none, num_steps=2, gamma=0.5, next_values=v[1:]
    )
    yield "n_step_returns, an end", got, [1.5, 1.0, 65.0], 0.0, "by hand"
    got = subjects["n_step_returns"](one, v[:3], none, cut, num_steps=3, gamma=0.5, next_values=np.array([0.0, 8, 4]))  # fmt: skip
    yield "n_step_returns, a cut", got, [3.5, 5.0, 3.0], 0.0, "by hand"
    got = subjects["discounted_returns"](one, none, none, gamma=0.5)
    yield "discounted_returns", got, [1.75, 1.5, 1.0], 0.0, "by hand"
    got = subjects["discounted_returns"](one, cut, none, gamma=0.5, final_values=4.0)
    yield "discounted_returns, an end and a last value", got, [1.5, 1.0, 3.0], 0.0, "by hand"
    got = subjects["discounted_returns"](
        one, none, cut, gamma=0.5, next_values=np.array([9.0, 8.0, 4.0])
    )
    yield "discounted_returns, a cut", got, [3.5, 5.0, 3.0], 0.0, "by hand"
    # ratios 4, 1/2, 2 under rho <= 2, c <= 1: errors 1 + 16 - 16, 1 + 32 - 32, 1 + 64 - 64 times rho
    targets, advantages = subjects["vtrace"](
        one, v, none, none, log_ratio=np.log([4.0, 0.5, 2.0]), gamma=0.5, rho_max=2.0, c_max=1.0
    )
    yield "vtrace, targets", targets, [18.5, 33.0, 66.0], EXACT, "by hand"
    yield "vtrace, advantages", advantages, [3.0, 1.0, 2.0], EXACT, "by hand"


def _lanes(subjects, seed: int) -> Iterator[Any]:
    """Against forward sums: both forms of values, rows that do not count, float32, tensors."""
    x = _case(seed)
    flags, critic = (
        (x["terminated"], x["truncated"]),
        {"next_values": x["after"], "mask": x["mask"]},
    )
    truth = oracle.gae_by_definition(
        x["r"], x["v"], *flags, gamma=GAMMA, gae_lambda=LAMBDA, **critic
    )
    factors, source = {"gamma": GAMMA, "gae_lambda": LAMBDA}, "forward sums"
    yield "gae", subjects["gae"](x["r"], x["v"], *flags, **factors, **critic), truth, EXACT, source
    wild = {**critic, "next_values": np.random.default_rng(seed).normal(size=x["after"].shape)}
    odd = oracle.gae_by_definition(x["r"], x["v"], *flags, **factors, **wild)
    yield (
        "gae, two critics",
        subjects["gae"](x["r"], x["v"], *flags, **factors, **wild),
        odd,
        EXACT,
        source,
    )
    truth = oracle.returns_by_definition(x["r"], x["v"], *flags, **factors, **critic)
    yield "lambda_returns", subjects["lambda_returns"](x["r"], x["v"], *flags, **factors, **critic), truth, EXACT, source  # fmt: skip
    for n in (1, 2, 5, T):
        truth = oracle.returns_by_definition(
            x["r"], x["v"], *flags, gamma=GAMMA, num_steps=n, **critic
        )
        got = subjects["n_step_returns"](x["r"], x["v"], *flags, gamma=GAMMA, num_steps=n, **critic)
        yield f"n_step_returns, n = {n}", got, truth, EXACT, source
    truth = oracle.returns_by_definition(x["r"], None, *flags, gamma=GAMMA, **critic)
    yield "discounted_returns", subjects["discounted_returns"](x["r"], *flags, gamma=GAMMA, **critic), truth, EXACT, source  # fmt: skip
    bounds = {"log_ratio": x["log_ratio"], "gamma": GAMMA, "rho_max": 1.5, "c_max": 0.8}
    targets, advantages = oracle.vtrace_by_definition(x["r"], x["v"], *flags, **bounds, **critic)
    got = subjects["vtrace"](x["r"], x["v"], *flags, **bounds, **critic)
    yield "vtrace, targets", got[0], targets, EXACT, source
    yield "vtrace, advantages", got[1], advantages, EXACT, source
    # the other form: the value of what follows stands in the row below, past rows that do not count
    y = _case(seed, truncations=False)
    v = np.concatenate([y["v"], np.random.default_rng(seed).normal(size=(1, LANES))])
    flags = (y["terminated"], y["truncated"])
    truth = oracle.gae_by_definition(y["r"], v, *flags, **factors, mask=y["mask"])
    yield "gae, T+1 values", subjects["gae"](y["r"], v, *flags, **factors, mask=y["mask"]), truth, EXACT, source  # fmt: skip
    truth = oracle.returns_by_definition(
        y["r"], v, *flags, gamma=GAMMA, num_steps=3, mask=y["mask"]
    )
    got = subjects["n_step_returns"](y["r"], v, *flags, gamma=GAMMA, num_steps=3, mask=y["mask"])
    yield "n_step_returns, T+1 values", got, truth, EXACT, source


def _limits(subjects, seed: int) -> Iterator[Any]:
    """Where two functions must meet: lambda 0 and 1, one step and all steps, on policy without bounds."""
    x = _case(seed)
    given = (x["r"], x["v"], x["terminated"], x["truncated"])
    how = {"next_values": x["after"], "mask": x["mask"]}
    counts, ahead = x["mask"], np.where(x["terminated"], 0.0, x["after"])
    td = x["r"] + GAMMA * ahead
    whole = objectives.discounted_returns(
        x["r"], x["terminated"], x["truncated"], gamma=GAMMA, **how
    )
    got = subjects["gae"](*given, gamma=GAMMA, gae_lambda=0.0, **how)
    yield "gae, lambda 0, is the TD error", got, np.where(counts, td - x["v"], 0), EXACT, "identity"
    got = subjects["gae"](*given, gamma=GAMMA, gae_lambda=1.0, **how)
    yield (
        "gae, lambda 1, is Monte Carlo",
        got,
        np.where(counts, whole - x["v"], 0),
        EXACT,
        "identity",
    )
    got = subjects["lambda_returns"](*given, gamma=GAMMA, gae_lambda=1.0, **how)
    yield "lambda_returns, lambda 1, is Monte Carlo", got, whole, EXACT, "identity"
    got = subjects["n_step_returns"](*given, gamma=GAMMA, num_steps=1, **how)
    yield "n_step_returns, n = 1, is TD(0)", got, np.where(counts, td, 0), EXACT, "identity"
    got = subjects["n_step_returns"](*given, gamma=GAMMA, num_steps=3 * T, **how)
    yield "n_step_returns, n beyond T, is Monte Carlo", got, whole, EXACT, "identity"
    free = {"rho_max": INF, "c_max": INF, "log_ratio": np.zeros_like(x["r"])}
    got = subjects["vtrace"](*given, gamma=GAMMA, **free, **how)[0]
    yield "vtrace on policy is Monte Carlo", got, whole, EXACT, "identity"
    first = oracle.vtrace_by_definition(*given, gamma=GAMMA, log_ratio=x["log_ratio"], **how)[0]
    got = subjects["vtrace"](*given, gamma=GAMMA, log_ratio=x["log_ratio"], **how)[0]
    yield "vtrace, bounds of the paper", got, first, EXACT, "forward sums"


def _layouts(subjects, seed: int) -> Iterator[Any]:
    """What must not matter: the axis of time, other lanes, the kind of array, what lies under the mask."""
    x = _case(seed)
    how = {"gamma": GAMMA, "next_values": x["after"], "mask": x["mask"]}
    given = [x["r"], x["v"], x["terminated"], x["truncated"]]
    calls = {
        "gae": (given, how | {"gae_lambda": LAMBDA}),
        "lambda_returns": (given, how | {"gae_lambda": LAMBDA}),
        "n_step_returns": (given, how | {"num_steps": 3}),
        "discounted_returns": ([given[0], *given[2:]], how),
    }
    for name, (arrays, options) in calls.items():
        f = subjects[name]
        whole = f(*arrays, **options)
        turned = f(*(a.T for a in arrays), **_mapped(options, np.transpose), time_dim=1)
        yield f"{name}, time on the second axis", turned.T, whole, 0.0, "identity"
        lane = f(*(a[:, 1] for a in arrays), **_mapped(options, lambda a: a[:, 1]))
        yield f"{name}, a lane alone", lane, whole[:, 1], 0.0, "identity"
        kept = x["mask"][:, 1]
        short = f(*(a[kept, 1] for a in arrays), **_mapped(options, lambda a: a[:, 1][kept]))  # noqa: B023
        yield f"{name}, masked rows deleted", short, whole[kept, 1], EXACT, "identity"
        tensors = f(*map(torch.as_tensor, arrays), **_mapped(options, torch.as_tensor))
        yield f"{name}, tensors", tensors.numpy(), whole, 0.0, "identity"
        single = f(*map(_single, arrays), **_mapped(options, _single))
        yield f"{name}, float32", single, whole, SINGLE, "identity"


def _ring(subjects) -> Iterator[Any]:
    """K states in a circle, reward 1 for ever, every episode from state 0 and cut after K steps.

    The value is 1 / (1 - gamma) everywhere. Who takes the cut for an end finds (1 - gamma^{K-i}) / (1 - gamma).
    """
    K = 5
    one, none, last = np.ones(K), np.zeros(K, dtype=bool), np.arange(K) == K - 1
    rules = {
        "lambda_returns": {"gae_lambda": 0.5}, "n_step_returns": {"num_steps": 2}, "vtrace": {"log_ratio": np.zeros(K)},
    }  # fmt: skip
    truth = np.full(K, 1.0 / (1.0 - GAMMA))
    ended = (1.0 - GAMMA ** (K - np.arange(K))) / (1.0 - GAMMA)
    for name, options in rules.items():
        for label, ends, answer in (("cut", none, truth), ("cut taken for an end", last, ended)):
            v = np.zeros(K)
            for _ in range(120):
                v = subjects[name](
                    one, v, ends, last, gamma=GAMMA, next_values=np.roll(v, -1), **options
                )
                v = v[0] if name == "vtrace" else v
            yield f"{name}, {label}", v, answer, 1e-4, "closed form"
    # the critic that is right leaves nothing to gain, wherever the episode is cut
    got = subjects["gae"](one, truth, none, last, gamma=GAMMA, gae_lambda=LAMBDA, next_values=truth)
    yield "gae of the true values", got, np.zeros(K), EXACT, "closed form"
    got = subjects["discounted_returns"](one, none, last, gamma=GAMMA, final_values=truth[0])
    yield "discounted_returns with the true last value", got, truth, EXACT, "closed form"
    got = subjects["discounted_returns"](one, none, last, gamma=GAMMA)
    yield "discounted_returns of what was seen", got, ended, EXACT, "closed form"


def _case(seed: int, *, truncations: bool = True) -> dict[str, Any]:
    """Random lanes [T, LANES] with one critic: v' is the value of the next row that counts, but after a cut."""
    rng = np.random.default_rng(seed)
    shape = (T, LANES)
    terminated = rng.random(shape) < 0.15
    truncated = (
        rng.random(shape) < 0.15
    ) & truncations  # both at once happens, and terminated wins
    mask = rng.random(shape) < 0.8
    r, v, log_ratio = rng.normal(size=shape), rng.normal(size=shape), 0.7 * rng.normal(size=shape)
    after = rng.normal(size=shape)
    for b in range(LANES):
        rows = np.flatnonzero(mask[:, b])
        for t, below in zip(rows[:-1], rows[1:], strict=True):
            if not (terminated[t, b] or truncated[t, b]):
                after[t, b] = v[below, b]
    after[terminated] = np.nan
    for x in (r, v, after, log_ratio):
        x[~mask] = np.nan  # nothing under the mask may be read
    return {
        "r": r, "v": v, "after": after, "terminated": terminated, "truncated": truncated, "mask": mask,
        "log_ratio": log_ratio,
    }  # fmt: skip


def _mapped(options: dict[str, Any], f: Callable) -> dict[str, Any]:
    return {k: f(x) if isinstance(x, np.ndarray) else x for k, x in options.items()}


def _single(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float32) if x.dtype.kind == "f" else x
