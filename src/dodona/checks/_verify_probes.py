"""Probes of a loss: the ratio and its clip, padding, order, splits of the batch, numbers that overflow.

Each probe is a pair of calls that should agree, or a question whose answer is a sentence.
Source: what users of RLHF libraries reported (card grpo, sec. 9).  Not here: the expected gradient.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dodona.algorithms.float_search import first_true_float
from dodona.checks._verify_call import Called
from dodona.checks._verify_candidates import Batches
from dodona.oracles import sequences as exact

NEAR = 1e-9
SAME = 1e-6  # of weights: an epsilon in a divisor moves them by less
SMOOTH = "a sample counts by its ratio"  # where no plainer rule is found
RATIOS = (0.05, 0.2, 0.5, 0.7, 0.9, 1.0, 1.1, 1.4, 2.0, 4.0, 8.0, 20.0)


class Finding(NamedTuple):
    """A sentence, and whether it is a mistake whatever was meant; if not, it is a property to know of."""

    said: str
    defect: bool = False


def probes(called: Called, problem: exact.TokenProblem, batches: Batches) -> Iterator[Finding]:
    """Every finding. A probe that the loss refuses with an error of its own is no finding."""
    lengths = problem.sequences.lengths
    right, wrong = problem.rewards == 1, problem.rewards == 0
    members = np.array([
        np.flatnonzero(right & (lengths == 2))[0], np.flatnonzero(wrong & (lengths == 1))[0],
        np.flatnonzero(wrong & (lengths == 3))[0],
    ])  # fmt: skip
    others = np.array([np.flatnonzero(right & (lengths == 3))[0], *np.flatnonzero(wrong & (lengths == 3))[:2]])  # fmt: skip
    base, second = batches(members), batches(others, group=1)
    for probe in (_constants, _order, _padding, _fully_masked, _dead_group, _overflow):
        yield from probe(called, base)
    yield from _splits(called, base, second)
    if called.has("logp_old"):
        yield from _silent(called, base)
        yield from _ratio(called)


def _constants(called: Called, base: dict[str, Tensor]) -> Iterator[Finding]:
    """Gradient must flow into logp alone."""
    leaks = []
    for role in ("logp_old", "logp_ref", "advantages"):
        if not called.has(role):
            continue
        watched = base[role].clone().requires_grad_()
        logp = base["logp"].clone().requires_grad_()
        try:
            loss = called.value({**base, "logp": logp, role: watched})
            (found,) = torch.autograd.grad(loss, watched, allow_unused=True)
        except Exception:
            continue  # it refuses, which is best
        if found is not None and bool((found != 0).any()):
            leaks.append(role)
    if leaks:
        yield Finding(
            f"gradient flows into {', '.join(leaks)}: a caller who forgets detach() trains another objective. "
            "Detach inside, or refuse."
        )


def _order(called: Called, base: dict[str, Tensor]) -> Iterator[Finding]:
    order = torch.tensor([2, 0, 1])
    moved = {name: x[order] for name, x in base.items()}
    if not _same(called, moved, called.gradient(base)[order.numpy()]):
        yield Finding("the gradient depends on the order of the rows.", defect=True)


def _padding(called: Called, base: dict[str, Tensor]) -> Iterator[Finding]:
    if not called.has("mask"):
        if not called.flat:
            yield Finding(
                "it takes no mask: answers of different lengths can not be told from their padding."
            )
        return
    truth = called.gradient(base)
    for junk, what, defect in (
        (0.0, "two padded columns change the gradient: it divides by the width of the batch.", True),
        (-30.0, "two padded columns with numbers under the mask change the gradient: the mask is not everywhere.",
         True),
        (float("nan"), "NaN under the mask reaches the gradient: where() belongs before the first product.", False),
    ):  # fmt: skip
        pad = torch.full((3, 2), junk)
        padded = {n: torch.cat([x, pad], 1) if x.ndim == 2 and n != "mask" else x for n, x in base.items()}  # fmt: skip
        padded["mask"] = torch.cat([base["mask"], torch.zeros(3, 2, dtype=torch.bool)], 1)
        if not _same(called, padded, np.pad(truth, ((0, 0), (0, 2)))):
            yield Finding(what, defect)
            return


def _fully_masked(called: Called, base: dict[str, Tensor]) -> Iterator[Finding]:
    if not called.has("mask") or called.flat:
        return
    mask = base["mask"].clone()
    mask[1] = False
    if _broken(lambda: called.gradient({**base, "mask": mask})):
        yield Finding("an answer without a counted token makes the gradient NaN.", defect=True)


def _dead_group(called: Called, base: dict[str, Tensor]) -> Iterator[Finding]:
    if called.has("rewards") and _broken(
        lambda: called.gradient({**base, "rewards": torch.ones_like(base["rewards"])})
    ):
        yield Finding(
            "a group whose rewards are all alike makes the gradient NaN (a deviation of zero).", defect=True
        )  # fmt: skip


def _overflow(called: Called, base: dict[str, Tensor]) -> Iterator[Finding]:
    if not called.has("logp_old"):
        return
    far = base["logp_old"].clone()
    far[0, 0] -= 1000.0
    if _broken(lambda: called.gradient({**base, "logp_old": far})):
        yield Finding(
            "a ratio that overflows (log ratio 1000) makes the gradient NaN or infinite: clamp the log ratio, or "
            "skip such steps.",
            defect=True,
        )


def _splits(
    called: Called, first: dict[str, Tensor], second: dict[str, Tensor]
) -> Iterator[Finding]:
    if called.has("rewards") and not called.has("group", "group_size"):
        return  # which rows are one group is the function's own business
    together = {name: torch.cat([first[name], second[name]]) for name in first}
    try:
        called.num_groups = 2
        joint = called.gradient(together)
        called.num_groups = 1
        parts = np.concatenate([called.gradient(first), called.gradient(second)])
    except Exception:
        return
    finally:
        called.num_groups = 1
    if np.allclose(joint, parts, rtol=1e-9, atol=NEAR):
        yield Finding(
            "it is a sum over rows: twice the batch is twice the gradient, so the learning rate hangs on the batch size."
        )
    elif not np.allclose(joint, parts / 2, rtol=1e-9, atol=NEAR):
        share = first["mask"].sum().item() / together["mask"].sum().item()
        scale = np.where(np.arange(6) < 3, share, 1 - share)[:, None]
        if np.allclose(joint, parts * scale, rtol=1e-9, atol=NEAR):
            yield Finding(
                "it is a mean over tokens: split into micro-batches of different lengths, the mean of the parts is not "
                "the gradient of the whole. Divide by the token count of the whole optimizer step (denom)."
            )
        else:
            yield Finding(
                "two groups in one batch are not the mean of the two apart: rows of different groups act on each other."
            )


def _silent(called: Called, base: dict[str, Tensor]) -> Iterator[Finding]:
    """Where the two policies are one, nothing has gone too far: every token must count."""
    if called.has("advantages", "rewards") and not called.flat:
        found = called.gradient(base)[base["mask"].numpy()]
        if found.any() and not found.all():
            yield Finding(
                "tokens are clipped where both policies are the same: what it takes for their ratio is not 1 there.",
                defect=True,
            )


def _ratio(called: Called) -> Iterator[Finding]:
    """What the loss does with r = exp(logp - logp_old), one token, one sign of the advantage at a time.

    The reference is the policy itself, where a k2 or k3 in the loss is flat; if that does not read plainly, the
    policy that acted, where a KL in the reward is zero.
    """
    for sign in (1.0, -1.0):
        read = []
        for reference in ("logp", "logp_old") if called.has("logp_ref") else ("logp",):

            def slope(r: float, sign: float = sign, reference: str = reference) -> float:
                return _slope(called, r, sign, reference)

            try:
                at = {r: slope(r) for r in RATIOS}
            except Exception:
                return
            one = at[1.0]
            if one == 0.0 or not all(np.isfinite(list(at.values()))):
                return
            weights = {r: s / one for r, s in at.items()}
            read.append(list(_said_of("A > 0" if sign > 0 else "A < 0", called, weights, slope)))
            if not any(SMOOTH in x.said for x in read[-1]):
                break
        yield from read[-1] if not any(SMOOTH in x.said for x in read[-1]) else read[0]


def _said_of(
    which: str, called: Called, weights: dict[float, float], slope: Callable[[float], float]
) -> Iterator[Finding]:
    """weights: ratio -> what a sample counts there, relative to a ratio of one."""
    if all(abs(w - 1.0) < SAME for w in weights.values()):
        yield Finding(
            f"{which}: the ratio plays no part. Samples of an older policy are treated as its own.",
            defect=not called.has(
                "logp_ref"
            ),  # with a reference, logp_old may serve a KL in the reward
        )
        return
    stops = [r for r, w in weights.items() if w == 0.0]
    if stops:
        yield _where_it_stops(which, slope, stops)
    live = {r: w for r, w in weights.items() if w != 0.0}
    low, high = min(live.values()), max(live.values())
    if all(abs(w / r - 1.0) < SAME for r, w in live.items()):
        if not stops:
            yield Finding(f"{which}: importance-weighted without any bound.")
    elif all(abs(w / min(max(r, low), high) - 1.0) < SAME for r, w in live.items()):
        ends = [f"up to {high:.6g}"] if high < RATIOS[-1] else []
        ends += [f"down to {low:.6g}"] if low > RATIOS[0] * (1 + SAME) else []
        yield Finding(
            f"{which}: the weight of a sample is its ratio {' and '.join(ends)}, and held there."
        )
    else:
        shown = ", ".join(f"{weights[r]:.3g} at {r:g}" for r in (0.5, 2.0, 8.0))
        yield Finding(f"{which}: {SMOOTH} as {shown} (1 at ratio 1).")


def _where_it_stops(which: str, slope: Callable[[float], float], stops: list[float]) -> Finding:
    above, below = [r for r in stops if r > 1.0], [r for r in stops if r < 1.0]
    said = []
    if above:
        edge = first_true_float(lambda r: slope(r) == 0.0, 1.0, above[0])
        said.append(f"above {edge:.6g}")
    if below:
        edge = first_true_float(lambda r: slope(r) != 0.0, below[-1], 1.0)
        said.append(f"below {edge:.6g}")
    # a bound on the other side may come on top, as in dual clip; alone it holds what should be corrected
    wrong = not (above if which == "A > 0" else below)
    return Finding(
        f"{which}: the gradient stops where the ratio is {', and where it is '.join(said)}"
        + (": the wrong side, a sample that has gone too far is not held." if wrong else "."),
        defect=wrong,
    )


def _slope(called: Called, r: float, sign: float, reference: str) -> float:
    """d loss / d logp of the token with that ratio. Two rows of one token: rewards need a group."""
    row = 0 if sign > 0 else 1
    logp = torch.full((2, 1), -1.0)
    logp[row] += float(np.log(r))
    inputs = {
        "logp": logp, "logp_old": torch.full((2, 1), -1.0), "advantages": torch.tensor([[1.0], [-1.0]]),
        "rewards": torch.tensor([1.0, 0.0]), "group": torch.zeros(2, dtype=torch.int64),
        "mask": torch.ones(2, 1, dtype=torch.bool),
    }  # fmt: skip
    inputs["logp_ref"] = inputs[reference].clone()
    return float(called.gradient(inputs)[row, 0])


def _same(called: Called, inputs: dict[str, Tensor], truth: np.ndarray) -> bool:
    """The gradient is that; a refusal by an error counts as agreement."""
    try:
        found = called.gradient(inputs)
    except Exception:
        return True
    return bool(np.allclose(found, truth, rtol=1e-9, atol=NEAR))


def _broken(call: Callable[[], np.ndarray]) -> bool:
    try:
        return not bool(np.isfinite(call()).all())
    except Exception:
        return False
