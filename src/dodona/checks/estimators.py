"""Does this estimator of the policy gradient estimate it, and how noisily? Yours, judged on a small model.

    from dodona.checks import verify_estimator
    print(verify_estimator(my_loss, policy=logits, mdp=worlds.book_grid()))

The estimator is a loss of episodes. It is differentiated on every episode of a few steps, each weighed by its
exact chance (or on a sample, where they are too many or it looks at whole batches). The mean is the direction
that training follows; it is compared with the exact gradient of the expected return, and with what known bugs
follow instead. The spread says how many episodes a step needs.

The user's function is executed. Not here: losses of a ratio, of groups or of a reference (verify.py).
Source: card policy-gradient, sec. 2 and 9; Nota & Thomas 2019, arXiv:1906.07073 (undiscounted states).
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dodona.checks._verify_call import NAMES as SHARED
from dodona.core.inputs import as_numpy, check_count
from dodona.errors import InputError, ShapeError, nearest
from dodona.mdp import MDP
from dodona.oracles import gradients as exact

NAMES: Mapping[str, tuple[str, ...]] = {
    "logp": SHARED["logp"],
    "rewards": ("rewards", "reward", "r"),
    "returns": ("returns", "weights", "advantages", "advantage", "adv", "q_values", "q", "g"),
    "values": ("values", "value", "baseline", "baselines", "v"),
    "mask": SHARED["mask"],
    "states": ("states", "obs", "observations", "state"),
    "actions": ("actions", "action", "acts"),
    "terminated": ("terminated", "dones", "done"),
    "truncated": ("truncated",),
    "gamma": ("gamma", "discount", "discount_factor"),
}
"""Role -> names of parameters that are taken for it, compared without case."""
RIGHT = "the gradient of the expected return"
SAME = 1e-6  # relative distance below which two gradients are one
NOTHING = 1e-12
Z = 4.5  # standard errors
NOISY = 1.05  # a variance larger by more than this is worth a word
MOST = 20_000  # episodes that are enumerated unasked
SAMPLES = 20_000  # else


@dataclass(frozen=True, kw_only=True)
class EstimatorReport:
    """What was found about an estimator.

    gradient_of: what its mean is the direction of, in words.
    enumerated: every episode was seen, so that nothing below has an error but rounding.
    cosine, scale: between its mean and the exact gradient of the expected return; 1 and 1 are right.
    bias: share of the mean that points elsewhere, sqrt(1 - cosine^2).
    bias_z: standard errors between the mean and the multiple of the gradient; 0 where enumerated.
    trace_variance: E |g - E g|^2 of one call.  snr: |E g|^2 / trace_variance.
    noise: its variance over that of plain reward-to-go of as many episodes, both at the gradient's scale.
    findings: sentences, the most important first.
    takes: (parameter, role) as it was called.
    horizon, batch_size, num_samples: steps of an episode, episodes of a call, calls.
    """

    gradient_of: str
    enumerated: bool
    cosine: float
    scale: float
    bias: float
    bias_z: float
    trace_variance: float
    snr: float
    noise: float
    findings: tuple[str, ...]
    takes: tuple[tuple[str, str], ...]
    horizon: int
    batch_size: int
    num_samples: int

    def __str__(self) -> str:
        how = (
            "every episode"
            if self.enumerated
            else f"{self.num_samples} calls, bias z = {self.bias_z:.2f}"
        )
        sure = "" if self.enumerated else f", as far as {self.num_samples} calls can tell"
        lines = [
            f"its mean is {self.gradient_of}{sure}",
            f"  cosine to the exact gradient {self.cosine:.6f}, scale {self.scale:.6g}, bias {self.bias:.3g}",
            f"  trace variance {self.trace_variance:.6g}, signal to noise {self.snr:.3g}, {self.noise:.3g} times "
            "the variance of reward-to-go",
            *(f"  - {finding}" for finding in self.findings),
            f"  called as {', '.join(f'{name} = {role}' for name, role in self.takes)}; episodes of "
            f"{self.horizon} steps, {self.batch_size} a call, {how}",
        ]  # fmt: skip
        return "\n".join(lines)


def verify_estimator(
    estimator: Callable[..., Any], *, policy: Any, mdp: MDP, num_samples: int | None = None,
    horizon: int = 3, batch_size: int = 1, takes: Sequence[str] | None = None, seed: int = 0,
) -> EstimatorReport:  # fmt: skip
    """Judge an estimator by the exact gradient of the expected discounted return of ``horizon`` steps.

    g = - d loss / d logits of the policy's table, on episodes of the policy.

    Args:
        estimator: a loss to minimise of [B, T] tensors in float64, one episode a row. Parameters are
            recognised by name, or told with takes: logp, rewards, returns (discounted, to go), values
            (exact, of the steps that are left), mask (bool), states, actions, terminated, truncated, gamma.
        policy: a table of logits [S, A], or a policy whose observations are state numbers (TablePolicy).
        mdp: small, with a start law (none: every live state alike).
        num_samples: calls on sampled episodes; None: every episode once, where batch_size is 1 and they
            are at most 20 000, else 20 000 calls.
        horizon: steps of an episode at most; states that end make it shorter.  batch_size: episodes a call.
        seed: of the sample.
    Returns: EstimatorReport; print it.
    Raises: InputError: a parameter nobody can guess, an estimator that fails, is no scalar or has no gradient.
        ShapeError: a table of another size.
    Source: see the module.
    Oracle: oracles.gradients.estimator_moments; each listed bug is named (tests/checks).
    Cost: a call per episode, some 0.1 ms each.
    """
    check_count(horizon=horizon, batch_size=batch_size)
    roles = _roles(estimator, takes)
    P, R, gamma = mdp.dense()
    tables = (P, R, gamma, _table(policy, mdp))
    doors = {"horizon": horizon, "start": mdp.start, "terminal": mdp.terminal}
    truth = exact.horizon_gradient(*tables, **doors)
    if np.linalg.norm(truth) < NOTHING:
        raise InputError(
            "the exact gradient of this policy on this model is zero, so no direction can be judged. Take "
            "another policy, or a model whose rewards differ."
        )
    every = _enumerated(tables, doors) if num_samples is None and batch_size == 1 else None
    enumerated = every is not None
    if every is None:
        calls = SAMPLES if num_samples is None else num_samples
        check_count(2, num_samples=calls)
        every = _sampled(tables, doors, calls * batch_size, np.random.default_rng(seed))
    to_go = exact.values_to_go(*tables, horizon=horizon, terminal=mdp.terminal)
    weights = _weights(estimator, roles, every, to_go, gamma, tables[3], batch_size)
    seen = _Seen(every, exact.softmax(tables[3]), gamma, batch_size, truth, enumerated)
    return seen.report(weights, roles)


# ---------------------------------------------------------------------- private: calling
def _roles(estimator: Callable[..., Any], takes: Sequence[str] | None) -> tuple[tuple[str, str], ...]:  # fmt: skip
    parameters = [
        p for p in inspect.signature(estimator).parameters.values()
        if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]  # fmt: skip
    for role in takes or ():
        if role not in NAMES:
            raise InputError(f"takes has an unknown role '{role}'. {nearest(role, tuple(NAMES))}")
    roles = []
    for at, p in enumerate(parameters):
        if takes is not None:
            role = takes[at] if at < len(takes) else None
        else:
            role = next((r for r, names in NAMES.items() if p.name.lower() in names), None)
        if role is not None:
            roles.append((p.name, role))
        elif p.default is p.empty:
            raise InputError(
                f"what is '{p.name}'? Its name says nothing. Give takes=(...), the roles of the arguments in "
                f"order, out of {', '.join(NAMES)}; or give it a default."
            )
    if "logp" not in {role for _, role in roles}:
        raise InputError(
            "the estimator takes no log-probabilities (a parameter named logp, log_probs, ...), so it has "
            "nothing to differentiate. Name the arguments with takes=(...)."
        )
    return tuple(roles)


def _weights(
    estimator, roles, every: exact.Trajectories, to_go, gamma: float, logits, batch_size: int
) -> np.ndarray:
    """[N, T] - d loss / d logp of every episode, call after call."""
    steps = np.arange(every.mask.shape[1])[None, :]
    values = np.where(every.mask, to_go[steps, every.states], 0.0)
    after = np.append(every.mask[:, 1:], np.zeros((len(every.mask), 1), bool), axis=1)
    last = every.mask & ~after
    logp = np.log(exact.softmax(logits)[every.states, every.actions], where=every.mask, out=np.zeros(every.mask.shape))  # fmt: skip
    arrays = {
        "logp": logp, "rewards": every.rewards, "returns": every.returns(gamma), "values": values,
        "mask": every.mask, "states": every.states, "actions": every.actions, "terminated": last,
        "truncated": np.zeros_like(last),
    }  # fmt: skip
    tensors = {name: torch.from_numpy(np.ascontiguousarray(x)) for name, x in arrays.items()}
    out = np.zeros(every.mask.shape)
    for at in range(0, len(out), batch_size):
        part = {name: x[at : at + batch_size] for name, x in tensors.items()}
        x = part["logp"].clone().requires_grad_()
        given = {n: gamma if r == "gamma" else x if r == "logp" else part[r] for n, r in roles}
        (slope,) = torch.autograd.grad(_scalar(estimator, given), x, allow_unused=True)
        if slope is not None:
            out[at : at + batch_size] = -slope.numpy()
    return out


def _scalar(estimator: Callable[..., Any], given: dict[str, Any]) -> Tensor:
    try:
        loss = estimator(**given)
    except Exception as error:
        shapes = ", ".join(f"{k} {tuple(x.shape) if isinstance(x, Tensor) else x}" for k, x in given.items())  # fmt: skip
        raise InputError(
            f"the estimator fails: {type(error).__name__}: {error}. It was given {shapes}; if a role is wrong, "
            "give takes=(...)."
        ) from error
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        shape = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
        raise InputError(f"the estimator returned {shape}, one scalar tensor to minimise is expected.")  # fmt: skip
    if not loss.requires_grad:
        raise InputError("the loss does not depend on logp: nothing would be trained by it.")
    return loss.reshape(())


def _table(policy: Any, mdp: MDP) -> np.ndarray:
    if hasattr(policy, "distribution"):
        with torch.no_grad():
            policy = policy.distribution(torch.arange(mdp.num_states)).logits
    logits = np.array(as_numpy(policy), dtype=float)
    if logits.shape != (mdp.num_states, mdp.num_actions):
        raise ShapeError(
            f"the policy has logits {logits.shape}, expected [S, A] = {(mdp.num_states, mdp.num_actions)}, one "
            "row per state of the model."
        )
    logits[~mdp.action_mask & ~mdp.terminal[:, None]] = -np.inf
    return logits


# ---------------------------------------------------------------------- private: episodes
def _enumerated(tables: tuple, doors: dict[str, Any]) -> exact.Trajectories | None:
    """All episodes, or None where they are too many."""
    try:
        return exact.enumerate_trajectories(*tables, **doors, limit=MOST)
    except ValueError as error:
        if "too many" in str(error):
            return None
        raise


def _sampled(tables: tuple, doors: dict[str, Any], num: int, rng) -> exact.Trajectories:
    """As many independent episodes, each of the same chance."""
    P, R, _, logits = tables
    policy, T = exact.softmax(logits), doors["horizon"]
    S = len(policy)
    ends = np.asarray(doors["terminal"])
    start = ~ends / (~ends).sum() if doors["start"] is None else doors["start"]
    states, actions = np.full((2, num, T), -1)
    rewards, mask = np.zeros((num, T)), np.zeros((num, T), dtype=bool)
    state = rng.choice(S, num, p=start)
    alive = ~ends[state]
    for t in range(T):
        rows = np.flatnonzero(alive)
        s = state[rows]
        a = _draw(policy[s], rng)
        states[rows, t], actions[rows, t], rewards[rows, t], mask[rows, t] = s, a, R[s, a], True
        after = _draw(P[s, a], rng)  # S where the row's mass has left the model
        state[rows] = np.minimum(after, S - 1)
        alive[rows] = (after < S) & ~ends[state[rows]]
    return exact.Trajectories(states, actions, rewards, mask, np.full(num, 1.0 / num))


def _draw(laws: np.ndarray, rng) -> np.ndarray:
    edges = laws.cumsum(axis=1)
    edges[:, -1] = np.where(edges[:, -1] > 1.0 - 1e-9, 1.0, edges[:, -1])
    return (rng.random(len(laws))[:, None] >= edges).sum(axis=1)


class _Seen:
    """The episodes that an estimator was given, call by call, and what may be known about its answers."""

    def __init__(self, every, table, gamma: float, batch_size: int, truth, enumerated: bool):
        self.every, self.table, self.batch_size = every, table, batch_size
        self.truth, self.enumerated = truth, enumerated
        calls = len(every.chance) // batch_size
        self.chance = every.chance if enumerated else np.full(calls, 1.0 / calls)
        T = every.mask.shape[1]
        whole = np.repeat(every.returns(gamma)[:, :1], T, axis=1)
        self.known = {w: self.directions(x / batch_size) for w, x in _candidates(every, gamma).items()}  # fmt: skip
        self.right = self.known[RIGHT]
        self.reference = self.variance(self.right)
        self.total = self.variance(self.directions(whole / batch_size))

    def directions(self, weights: np.ndarray) -> np.ndarray:
        """[calls, S A] sum of w grad ln pi over the steps of each call."""
        every, (S, A) = self.every, self.table.shape
        calls = len(self.chance)
        out = np.zeros((calls, S, A))
        w = np.where(every.mask, weights, 0.0).reshape(-1)
        call = np.repeat(np.arange(calls), len(w) // calls)
        s, a = every.states.reshape(-1), every.actions.reshape(-1)
        np.add.at(out, (call, s), -w[:, None] * self.table[s])
        np.add.at(out, (call, s, a), w)
        return out.reshape(calls, -1)

    def variance(self, each: np.ndarray) -> float:
        return float(self.chance @ ((each - self.chance @ each) ** 2).sum(axis=1))

    def compare(self, found: np.ndarray, each: np.ndarray) -> tuple[float, float, float]:
        """(the multiple of another estimate that is nearest, the share that it leaves, its standard errors)."""
        mean, one = self.chance @ found, self.chance @ each
        factor = float(mean @ one / max(one @ one, NOTHING**2))
        gap = float(np.linalg.norm(mean - factor * one)) / float(np.linalg.norm(mean))
        if self.enumerated:
            return factor, gap, 0.0
        # on the same episodes, so that most of the noise is in both
        rest = found - factor * each
        error = np.maximum(rest.std(axis=0, ddof=1) / len(rest) ** 0.5, NOTHING)
        return factor, gap, float(np.max(np.abs(self.chance @ rest) / error))

    def report(self, weights: np.ndarray, roles: tuple[tuple[str, str], ...]) -> EstimatorReport:
        found = self.directions(np.nan_to_num(weights))
        mean, variance = self.chance @ found, self.variance(found)
        nothing = float(np.linalg.norm(mean)) < NOTHING
        what, explained, z = ("zero: on average it trains nothing", True, 0.0)
        if not nothing:
            factor, _, z = self.compare(found, self.right)
            what, explained = self.identify(found)
            # what the sample has too much of the right gradient, this mean has too much of as well
            mean = mean + factor * (self.truth - self.chance @ self.right)
        size = float(np.linalg.norm(self.truth))
        cosine = float(mean @ self.truth / max(np.linalg.norm(mean) * size, NOTHING**2))
        scale = float(mean @ self.truth / size**2)
        noise = variance / max(scale**2 * self.reference, NOTHING)
        report = EstimatorReport(
            gradient_of=what, enumerated=self.enumerated, cosine=cosine, scale=scale,
            bias=float(np.sqrt(max(0.0, 1.0 - cosine**2))), bias_z=z, trace_variance=variance,
            snr=float(mean @ mean) / variance if variance > NOTHING else float("inf"), noise=noise,
            findings=(), takes=roles, horizon=self.every.mask.shape[1], batch_size=self.batch_size,
            num_samples=len(self.chance),
        )  # fmt: skip
        findings = _of_numbers(weights, self.every.mask)
        if not nothing:
            findings += _of_direction(report, explained, self.total / max(self.reference, NOTHING))
        return replace(report, findings=tuple(findings))

    def identify(self, found: np.ndarray) -> tuple[str, bool]:
        """(the first candidate that fits, True), or (the nearest, False)."""
        nearest, least = "", np.inf
        for what, each in self.known.items():
            factor, gap, z = self.compare(found, each)
            name = what if factor > 0 else f"minus {what}"
            if (gap < SAME) if self.enumerated else (z < Z):
                return name, True
            if gap < least:
                nearest, least = name, gap
        return f"the gradient of nothing known; nearest is {nearest}, which leaves {least:.3g} of it", False  # fmt: skip


def _candidates(every: exact.Trajectories, gamma: float) -> dict[str, np.ndarray]:
    """What is followed, in words -> [N, T] weights of an estimator that follows it; the right one first."""
    T = every.mask.shape[1]
    power, G, r = gamma ** np.arange(T), every.returns(gamma), every.rewards
    steps = np.maximum(every.mask.sum(axis=1, keepdims=True), 1)
    mean = np.where(every.mask, G, 0.0).sum(axis=1, keepdims=True) / steps
    uncredited = "in the place of returns: no action is credited with what it leads to"
    shipped = "the gradient with the states undiscounted (gamma^t is missing), which is the gradient of nothing"
    return {
        RIGHT: power * G,
        shipped: G,
        "the gradient of the expected undiscounted return": every.returns(1.0),
        f"that of discounted rewards {uncredited}": power * r,
        f"that of rewards {uncredited}": r,
        "that of returns averaged over the episode before they are multiplied": np.broadcast_to(mean, G.shape),
        f"{RIGHT}, each episode divided by its length": power * G / steps,
        f"{shipped}, each episode divided by its length": G / steps,
        "the gradient with gamma^t twice": power**2 * G,
    }  # fmt: skip


def _of_numbers(weights: np.ndarray, mask: np.ndarray) -> list[str]:
    out = []
    broken = float((~np.isfinite(weights)).any(axis=1).mean())
    if broken:
        out.append(
            f"in {broken:.3%} of the episodes its gradient is NaN or infinite; it was taken for 0."
        )
    if np.nan_to_num(weights[~mask]).any():
        out.append("steps after the end of an episode have a gradient: they are not masked.")
    return out


def _of_direction(report: EstimatorReport, explained: bool, total: float) -> list[str]:
    out, right = [], report.gradient_of == RIGHT
    if report.scale < 0:
        out.append("it descends: minimising it lowers the expected return. The sign is wrong.")
    if not explained or report.gradient_of.removeprefix("minus ") != RIGHT:
        out.append(f"it is biased: cosine {report.cosine:.6f} to the gradient of the expected return.")  # fmt: skip
    elif abs(abs(report.scale) - 1.0) > (1e-3 if report.enumerated else 0.1):
        out.append(
            f"it is {abs(report.scale):.4g} times as long as the gradient: the learning rate has to make up for that."
        )
    if report.noise > NOISY:
        like = " It is that of the whole return for every step." if right and abs(report.noise / total - 1) < 0.02 else ""  # fmt: skip
        out.append(f"it is noisy: {report.noise:.3g} times the variance of reward-to-go.{like}")
    return out
