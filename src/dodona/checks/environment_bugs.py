"""Wrong returns: the bugs that public code had, each of which the checks must catch.

Most hand the right function the wrong arguments, as the code they are taken from did; they learn something
plausible in silence. Those that need another recursion have one, a loop with a switch for each.

Source: card environments-and-rollouts, sec. 9 (reports in public code). Not here: environments that lie.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from dodona import objectives
from dodona.core.protocols import Mutant

Call = dict[str, Any]
ARRAYS = ("rewards", "values", "terminated", "truncated", "next_values", "mask", "log_ratio")
FLOATS = ("rewards", "values", "next_values", "log_ratio")


def _fed(name: str, change: Callable[[Call], Call]) -> Callable[..., Any]:
    """The function with other arguments; change gets them by name, as NumPy arrays with time first."""
    base = getattr(objectives, name)
    order = [x for x in ARRAYS[:4] if not (name == "discounted_returns" and x == "values")]

    def wrong(*arrays: Any, time_dim: int = 0, **options: Any) -> Any:
        call = {**dict(zip(order, arrays, strict=True)), **options}
        tensors = isinstance(arrays[0], torch.Tensor)
        for key in ARRAYS:
            if call.get(key) is not None:
                call[key] = np.moveaxis(np.asarray(call[key]), time_dim, 0)
        # NaN stands where nothing may be read: a bug that reads there shall be wrong, not loud
        call = {
            k: np.nan_to_num(x) if k in FLOATS and x is not None else x
            for k, x in change(call).items()
        }
        got = base(*[call[x] for x in order], **{k: x for k, x in call.items() if k not in order})
        answers = [np.moveaxis(x, 0, time_dim) for x in (got if isinstance(got, tuple) else (got,))]
        answers = [torch.as_tensor(x) for x in answers] if tensors else answers
        return tuple(answers) if isinstance(got, tuple) else answers[0]

    return wrong


def _truncation_ends(c: Call) -> Call:
    return c | {"terminated": c["terminated"] | c["truncated"]}


def _nothing_ends(c: Call) -> Call:
    """The future of the next episode is this one's: neither flag is looked at."""
    none = np.zeros_like(c["terminated"])
    return c | {"terminated": none, "truncated": none}


def _own_value_ahead(c: Call) -> Call:
    """v(obs_t) where v(next_obs_t) belongs."""
    c = _with_next_values(c)
    return c | {"next_values": c["values"]}


def _row_below_ahead(c: Call) -> Call:
    """v(obs_{t+1}) even where that is the first observation of the next episode."""
    if c.get("next_values") is None:
        return c
    return c | {"next_values": np.append(c["values"][1:], c["next_values"][-1:], axis=0)}


def _late_reward(c: Call) -> Call:
    return c | {"rewards": np.roll(c["rewards"], 1, axis=0)}


def _last_row_ends(c: Call) -> Call:
    terminated = c["terminated"].copy()
    terminated[-1] = True
    return c | {"terminated": terminated}


def _with_next_values(c: Call) -> Call:
    """T rows of values, and the row below as what follows."""
    if c.get("next_values") is not None or "values" not in c:
        return c
    return c | {"values": c["values"][:-1], "next_values": c["values"][1:]}


def _mask_ignored(c: Call) -> Call:
    return _with_next_values(c) | {"mask": None}


def _masked_rows_earn_nothing(c: Call) -> Call:
    """Rows that do not count are rows of reward and value 0, not gaps: the trace fades through them."""
    if c.get("mask") is None:
        return c
    c = _with_next_values(c)
    hidden = {k: np.where(c["mask"], c[k], c[k].dtype.type(0)) for k in ARRAYS[:5]}
    return c | hidden | {"mask": None}


def _with(**changes: Any) -> Callable[[Call], Call]:
    """Other numbers among the options; a function gets the call."""
    return lambda c: c | {k: f(c) if callable(f) else f for k, f in changes.items()}


def _looped(
    *, cut_by: str = "both", fade: Callable[[float, float], float] = lambda gamma, gae_lambda: gamma * gae_lambda,
    ahead: float = 1.0, plus: bool = False, forward: bool = False, kept: bool = True,
) -> Callable[..., Any]:  # fmt: skip
    """gae as a plain loop with switches; as they stand it is right.

    cut_by: which flags end the trace.  fade: of the trace.  ahead: power of gamma before v'.
    plus: v_t is added.  forward: errors of the past are summed.  kept: masked rows are answered by 0.
    """

    def gae(
        rewards, values, terminated, truncated, *, gamma, gae_lambda, next_values=None, mask=None, time_dim=0
    ):  # fmt: skip
        tensors = isinstance(rewards, torch.Tensor)
        given = (rewards, values, terminated, truncated, next_values, mask)
        r, v, end, cut, after, counts = (
            None if x is None else np.moveaxis(np.asarray(x), time_dim, 0) for x in given
        )
        after = v[1:] if after is None else after
        counts = np.ones_like(end) if counts is None else counts
        found, T = np.zeros(r.shape[1:]), len(r)
        out = np.zeros(r.shape)
        stops = {"both": end | cut, "terminated": end, "neither": np.zeros_like(end)}[cut_by]
        for t in range(T) if forward else reversed(range(T)):
            error = r[t] + gamma**ahead * np.where(end[t], 0.0, after[t]) - v[t]
            trace = np.where(stops[t], 0.0, found)
            found = np.where(counts[t], error + fade(gamma, gae_lambda) * trace, found)
            out[t] = np.where(counts[t] | (not kept), found + v[t] if plus else found, 0.0)
        out = np.moveaxis(out, 0, time_dim).astype(
            rewards.numpy().dtype if tensors else rewards.dtype
        )
        return torch.as_tensor(out) if tensors else out

    return gae


def _second_axis_ignored(*arrays: Any, time_dim: int = 0, **options: Any) -> Any:
    return objectives.gae(*arrays, **options)


def _advantages_without_ratio(*arrays: Any, **options: Any) -> Any:
    """As if the policy itself had acted."""
    targets, advantages = objectives.vtrace(*arrays, **options)
    ratio = np.minimum(np.exp(options["log_ratio"]), options.get("rho_max", 1.0))
    return targets, np.where(ratio > 0, advantages / np.where(ratio > 0, ratio, 1.0), advantages)


def _targets_minus_values(*arrays: Any, **options: Any) -> Any:
    """targets - v for the advantages: the ratios of the whole trace are in them."""
    targets, advantages = objectives.vtrace(*arrays, **options)
    return targets, np.where(advantages == 0, 0.0, targets - arrays[1][: len(targets)])


def _mutant(bug: str, replaces: str, function: Callable[..., Any], why: str) -> Mutant:
    return Mutant(name=f"{replaces}: {bug}", replaces=replaces, function=function, bug=why)


def _all(bug: str, change: Callable[[Call], Call], why: str, *names: str) -> tuple[Mutant, ...]:
    return tuple(_mutant(bug, name, _fed(name, change), why) for name in names)


EVERY = ("gae", "lambda_returns", "n_step_returns", "vtrace", "discounted_returns")
WITH_VALUES = EVERY[:4]
MUTANTS = (
    *_all("truncation ends", _truncation_ends, "a time limit taken for an end: done = terminated or truncated", *EVERY),
    *_all("nothing ends", _nothing_ends, "the next episode credited to this one", "gae", "n_step_returns", "vtrace"),
    *_all("bootstraps from v(obs)", _own_value_ahead, "the value of the state left, not of the one reached", *WITH_VALUES),
    *_all("bootstraps from the row below", _row_below_ahead, "the value of a reset observation", *WITH_VALUES),
    *_all("reward one row late", _late_reward, "rewards stored with the state they led to", *EVERY),
    *_all("last row ends", _last_row_ends, "no value after the rows", *EVERY),
    *_all("mask ignored", _mask_ignored, "reset rows are data", *EVERY),
    *_all("masked rows earn nothing", _masked_rows_earn_nothing, "a gap is a step of the trace", "gae", "lambda_returns", "n_step_returns"),
    *_all("gamma omitted", _with(gamma=1.0), "no discount", *EVERY),
    *_all("gamma squared", _with(gamma=lambda c: c["gamma"] ** 2), "discounted twice", *EVERY),
    *_all("gamma and lambda swapped", _with(gamma=lambda c: c["gae_lambda"], gae_lambda=lambda c: c["gamma"]), "the two factors in the wrong order", "gae", "lambda_returns"),
    *_all("lambda omitted", _with(gae_lambda=1.0), "Monte Carlo", "gae", "lambda_returns"),
    *_all("one step too many", _with(num_steps=lambda c: c["num_steps"] + 1), "n counted from 0", "n_step_returns"),
    *_all("one step too few", _with(num_steps=lambda c: max(1, c["num_steps"] - 1)), "n counts values, not rewards", "n_step_returns"),
    _mutant("truncation does not cut", "gae", _looped(cut_by="terminated"), "the trace runs into the next episode"),
    _mutant("trace never cut", "gae", _looped(cut_by="neither"), "ends stop the value but not the trace"),
    _mutant("trace fades by lambda only", "gae", _looped(fade=lambda gamma, gae_lambda: gae_lambda), "gamma forgotten in the trace"),
    _mutant("trace fades by gamma only", "gae", _looped(fade=lambda gamma, gae_lambda: gamma), "lambda forgotten in the trace"),
    _mutant("value not discounted", "gae", _looped(ahead=0.0), "gamma forgotten before v'"),
    _mutant("value discounted twice", "gae", _looped(ahead=2.0), "gamma squared before v'"),
    _mutant("returns", "gae", _looped(plus=True), "v not subtracted"),
    _mutant("from the front", "gae", _looped(forward=True), "errors of the past, not of the future"),
    _mutant("masked rows answered", "gae", _looped(kept=False), "a reset row has the advantage of the row below"),
    _mutant("time axis ignored", "gae", _second_axis_ignored, "lanes taken for time"),
    _mutant("advantages", "lambda_returns", objectives.gae, "v not added"),
    *_all("last values dropped", _with(final_values=0), "what follows the rows is not counted", "discounted_returns"),
    *_all("bounds swapped", _with(rho_max=lambda c: c.get("c_max", 1.0), c_max=lambda c: min(c.get("rho_max", 1.0), c.get("c_max", 1.0))), "the error bounded by the trace's bound", "vtrace"),
    *_all("errors not bounded", _with(rho_max=float("inf")), "plain importance sampling", "vtrace"),
    *_all("traces bounded like errors", _with(c_max=lambda c: c.get("rho_max", 1.0)), "one bound for both", "vtrace"),
    *_all("ratio upside down", _with(log_ratio=lambda c: -c["log_ratio"]), "old over new", "vtrace"),
    *_all("ratio not exponentiated", _with(log_ratio=lambda c: np.log(np.maximum(c["log_ratio"], 1e-3))), "the log ratio used as the ratio", "vtrace"),
    _mutant("advantages without the ratio", "vtrace", _advantages_without_ratio, "on-policy advantages of off-policy actions"),
    _mutant("targets minus values", "vtrace", _targets_minus_values, "the ratios of the trace in the advantage"),
)  # fmt: skip
"""Each replaces one subject of checks.environments_and_rollouts."""
