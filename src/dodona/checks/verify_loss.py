"""Whose gradient does this loss really follow? Yours, or another library's, judged by enumeration.

    from dodona.checks import verify
    print(verify(my_grpo_loss, takes=("logp", "logp_old", "advantages", "mask")))

The loss is differentiated on every possible group of two and of three answers of a token model with forty
answers; the mean, weighted by the exact chance of each group, is the gradient that training follows on
average. It is compared with the exact gradient of the expected reward, of the KL to the reference, and
of the things that are mistaken for them; then come probes of padding, order, batch splits and overflow.

The user's function is executed. Not here: learned values (diagnose.py).
Source: card grpo, sec. 2 and 4.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from dodona.checks._verify_call import Called, find_shapes, read_signature
from dodona.checks._verify_candidates import Batches, Candidate, Groups, candidates
from dodona.checks._verify_probes import Finding, probes
from dodona.oracles import sequences as exact

SIZES = (2, 3)
PAIRS = 1000  # sampled batches of two groups
SAME = 1e-6  # relative distance below which two gradients are one
NOTHING = 1e-12
UNIT = 2e-3  # an epsilon in a divisor moves the scale by less


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What was found about a loss.

    gradient_of: what its expected gradient ascends, in words.
    exact: that holds to six digits; otherwise it is only the nearest thing known.
    cosine: between the expected gradient and that of the expected reward; 1 is right.
    scale: how many times as long it is as what it is the gradient of (for groups of three).
    bias: share of it that points elsewhere than the expected reward, sqrt(1 - cosine^2).
    two_groups_z: standard errors between the mean over sampled pairs of groups in one batch and what one
        group alone gives; beyond 4.5 the groups of a batch act on each other.
    findings: sentences, the most important first.
    defects: those of them that are mistakes whatever was meant: the sign, a gradient of nothing known or of
        nothing at all, NaN, padding or order that count, gradient through constants, a clip that does not clip.
    takes: (parameter, role) as it was called.  calls, seconds: what it cost.
    """

    gradient_of: str
    exact: bool
    cosine: float
    scale: float
    bias: float
    two_groups_z: float
    findings: tuple[str, ...]
    defects: tuple[str, ...]
    takes: tuple[tuple[str, str], ...]
    calls: int
    seconds: float

    def __str__(self) -> str:
        how = "follows" if self.exact else "is nearest to"
        lines = [
            f"{how} the gradient of {self.gradient_of}",
            f"  cosine to the exact gradient of the expected reward {self.cosine:.6f}, scale {self.scale:.6g}, "
            f"bias {self.bias:.3g}; two groups in one batch z = {self.two_groups_z:.2f}",
            *(f"  {'!' if x in self.defects else '-'} {x}" for x in self.findings),
            f"  called as {', '.join(f'{name} = {role}' for name, role in self.takes)}; {self.calls} calls, "
            f"{self.seconds:.1f} s",
        ]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Plain data, takes as parameter -> role."""
        return asdict(self) | {"takes": dict(self.takes)}


def verify(
    loss: Callable[..., Any], *, takes: Sequence[str] | None = None, sizes: tuple[int, ...] = SIZES
) -> Verdict:
    """Judge a loss of log-probabilities by its exact expected gradient.

    g = E_groups[- d loss / d theta], over all groups of 2 and 3 answers of TM-40, on policy.

    Args:
        loss: any function of tensors; it is called with float64. Advantages are rewards minus their mean
            under the policy, held constant.
        takes: roles of its arguments in order, out of logp, logp_old, logp_ref, advantages, rewards, group,
            group_size (a number, rows of one group together), mask; None: guessed from their names. Arguments with defaults keep them.
        sizes: of the groups that are enumerated, two or more answers; the verdict is that of the last.
    Returns: Verdict; print it.
    Raises: InputError: an argument nobody can guess; a loss that fails, is no scalar, or has no gradient.
    Source: card grpo, sec. 4.
    Oracle: losses with known gradients, right and wrong (tests/checks/test_verify.py).
    Cost: some 13 000 calls of the loss, seconds.
    """
    begun = time.perf_counter()
    with _double():
        called = read_signature(loss, takes)
        problem = exact.tm40()
        batches = Batches(problem)
        find_shapes(called, batches(np.array([5, 27])))
        found = {}
        for size in sizes:
            groups = Groups(problem, size)
            known = candidates(groups, given_advantages=called.has("advantages"))
            found[size] = (_ascent(called, groups, batches), known)
        judged = {size: identify(g, known) for size, (g, known) in found.items()}
        ascent, what = found[sizes[-1]][0], judged[sizes[-1]]
        truth = exact.exact_objective(problem)[1]
        cosine = _cosine(ascent, truth)
        z = _two_groups_z(called, problem, batches, found[sizes[0]][0], sizes[0])
        findings = [*_findings(judged, cosine), *probes(called, problem, batches)]
    return Verdict(
        gradient_of=what.what, exact=what.residual < SAME, cosine=cosine, scale=what.scale,
        bias=float(np.sqrt(max(0.0, 1.0 - cosine**2))), two_groups_z=z,
        findings=tuple(x.said for x in sorted(findings, key=lambda x: not x.defect)),
        defects=tuple(x.said for x in findings if x.defect),
        takes=called.roles, calls=called.calls, seconds=time.perf_counter() - begun,
    )  # fmt: skip


@dataclass(frozen=True)
class Identified:
    """The best explanation of a gradient, its scale, and the share that it leaves unexplained.

    away: it raises a KL to the reference.
    """

    what: str
    scale: float
    residual: float
    away: bool = False


def identify(ascent: np.ndarray, known: Sequence[Candidate]) -> Identified:
    """Which candidate, or which reward minus which KL, a gradient is a multiple of."""
    size = np.linalg.norm(ascent)
    if size < NOTHING:
        return Identified("nothing: its expectation is zero", 0.0, 0.0)
    singles = []
    for c in known:
        scale = float(np.vdot(ascent, c.gradient) / np.vdot(c.gradient, c.gradient))
        rest = float(np.linalg.norm(ascent - scale * c.gradient) / size)
        said = c.what if scale > 0 else f"minus {c.what}"
        singles.append(Identified(said, abs(scale), rest, away=scale > 0 and not c.gains))
    pairs = []
    for gain in (c for c in known if c.gains):
        for kl in (c for c in known if not c.gains):
            basis = np.stack([gain.gradient.ravel(), kl.gradient.ravel()], axis=1)
            (a, b), *_ = np.linalg.lstsq(basis, ascent.ravel(), rcond=None)
            rest = float(np.linalg.norm(ascent.ravel() - basis @ (a, b)) / size)
            if abs(a) > NOTHING:
                sign = "minus" if b / a < 0 else "plus"
                what = f"{gain.what}, {sign} {abs(b / a):.4g} times {kl.what}"
                said = what if a > 0 else f"minus ({what})"
                pairs.append(Identified(said, abs(float(a)), rest, away=bool(b > 0)))
    for found in (singles, pairs):
        right = [x for x in found if x.residual < SAME]
        if right:
            # rewards of 0 and 1 have one direction whatever divides them: the scale tells, else the plainest
            return next((x for x in right if abs(x.scale - 1.0) < UNIT), right[0])
    return min(singles, key=lambda x: x.residual)


# ---------------------------------------------------------------------- private
def _ascent(called: Called, groups: Groups, batches: Batches) -> np.ndarray:
    """The expected direction in which a step of gradient descent on the loss moves the logits."""
    weights = -called.gradients(batches(groups.members))
    wrong = ~np.isfinite(weights)
    weights[wrong] = 0.0
    return groups.gradient(weights)


def _two_groups_z(
    called: Called, problem: exact.TokenProblem, batches: Batches, ascent: np.ndarray, size: int
) -> float:
    """z of the mean of sampled batches of two groups, along what one group gives exactly."""
    if (
        called.has("rewards")
        and not called.has("group", "group_size")
        or np.linalg.norm(ascent) < NOTHING
    ):
        return 0.0
    every, rng = problem.sequences, np.random.default_rng(0)
    p = exact.probabilities(every, problem.logits)
    members = rng.choice(len(p), size=(PAIRS, 2 * size), p=p / p.sum())
    inputs = batches(members)
    inputs["group"] = torch.tensor([0] * size + [1] * size).expand(PAIRS, 2 * size).contiguous()
    called.num_groups = 2
    weights = -called.gradients(inputs)
    called.num_groups = 1
    slopes = np.zeros(every.mask.shape)  # of each token's logp along the expected direction
    table = np.exp(exact.log_softmax(problem.logits))
    for i, t in zip(*np.nonzero(every.mask), strict=True):
        h, v = every.history[i, t], every.tokens[i, t]
        slopes[i, t] = ascent[h, v] - table[h] @ ascent[h]
    along = np.nan_to_num(weights * slopes[members]).sum(axis=(1, 2))
    error = along.std(ddof=1) / np.sqrt(PAIRS)
    return float((along.mean() - np.vdot(ascent, ascent)) / error) if error > NOTHING else 0.0


def _findings(judged: dict[int, Identified], cosine: float) -> list[Finding]:
    out = []
    two, three = judged[min(judged)], judged[max(judged)]
    if three.scale == 0.0:
        said = "its expected gradient on policy is zero: on average it trains nothing."
        return [Finding(said, defect=True)]
    if three.what.startswith("minus the expected") and cosine < 0:
        said = "it descends: minimising it lowers the expected reward. The sign is wrong."
        out.append(Finding(said, defect=True))
    if three.residual < SAME and three.away:
        said = "it raises the KL: minimising it drives the policy away from the reference."
        out.append(Finding(said, defect=True))
    if three.residual >= SAME:
        out.append(Finding(
            f"no known objective has this gradient; the nearest leaves {three.residual:.3g} of it unexplained.",
            defect=True,
        ))  # fmt: skip
    elif 0.0 < cosine < 1.0 - SAME and "expected reward" in three.what:
        out.append(Finding(f"its direction is not that of the expected reward: cosine {cosine:.6f}."))  # fmt: skip
    if all(x.residual < SAME and x.what == three.what for x in judged.values()):
        own = {size: judged[size].scale * size / (size - 1) for size in judged}
        if all(abs(x - 1.0) < SAME for x in own.values()):
            out.append(Finding(
                "its scale is (G - 1) / G: the group's mean contains the answer itself. Leave it out (rloo), or "
                "let the learning rate absorb it."
            ))  # fmt: skip
        elif abs(two.scale / three.scale - 1.0) > UNIT:
            out.append(Finding(
                f"its scale depends on the group's size: {two.scale:.6g} for two answers, {three.scale:.6g} "
                "for three."
            ))  # fmt: skip
    elif two.what != three.what:
        out.append(Finding(f"for groups of two it follows another gradient: {two.what}."))
    return out


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    size = np.linalg.norm(a) * np.linalg.norm(b)
    return float(np.vdot(a, b) / size) if size > NOTHING else 0.0


class _double:
    """float64 as torch's default inside, so that constants made by the loss keep its digits; and one thread."""

    def __enter__(self) -> None:
        self.before, self.threads = torch.get_default_dtype(), torch.get_num_threads()
        torch.set_default_dtype(torch.float64)
        torch.set_num_threads(1)  # the batches are tiny: threads would only wait for one another

    def __exit__(self, *_: object) -> None:
        torch.set_default_dtype(self.before)
        torch.set_num_threads(self.threads)
