"""One step of trust region policy optimisation: the direction, its length, and a search that can say no.

    g = grad L,  s = (F + damping)^-1 g,  theta_j = theta + backtrack^j sqrt(2 max_kl / s^T F s) s,  j = 0, 1, ...
    the first theta_j with  mean KL(old || new) <= max_kl  and  L(theta_j) > L(theta),  else theta, bit for bit

L is what the objective makes grow, the surrogate mean of ratio times advantage. Both tests are of the batch itself,
not of a model of it.

Not here: Fisher products and conjugate gradients (objectives.trust_region), critic and trainers (trpo.py).

Source: Schulman et al. 2015, arXiv:1502.05477, app. C; Kakade 2001 (radius="quadratic").
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dodona.core.batch import Batch
from dodona.core.distributed import all_sum, world_size
from dodona.core.inputs import check_choice, check_count, check_finite, check_range
from dodona.core.optimizers import trained_parameters
from dodona.core.protocols import Policy
from dodona.core.updates import Objective
from dodona.errors import InputError
from dodona.objectives.objective import PolicyObjective
from dodona.objectives.trust_region import (
    BACKENDS,
    Backend,
    check_precision,
    conjugate_gradient,
    fisher_vector_product,
    step_scale,
)

RATIO_TOL = 1e-3  # of log ratios before the step, nats: what rounding and batching leave between equal policies
NEAR, AIM, LOOKS = 0.99, 0.995, 7  # radius="exact": shares of max_kl, and forward passes at most
Reason = Literal[
    "accepted", "no gradient", "constant advantages", "no curvature", "not finite", "no candidate"
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TrustRegion:
    """Direction, length and search of a step. The defaults are the paper's where it names a number.

    Raises (when made): InputError: a number out of range, an unknown choice, an option that nothing would read.
    """

    max_kl: float = 0.01
    """bound of the mean KL(old || new), nats"""
    num_cg_iters: int = 10
    """products with the Fisher matrix, at most"""
    damping: float = 1e-2
    """added to the diagonal of F for the direction, not for the length"""
    damping_kind: Literal["relative", "absolute"] = "relative"
    """relative: times g^T F g / g^T g, the curvature along the gradient. Of tr F / P, the mean of the diagonal, a
    hundredth is next to nothing where there are more parameters than states: steps leave the model and are refused.
    Other code bases have 0.1 absolute"""
    radius: Literal["backtrack", "exact", "quadratic"] = "backtrack"
    """backtrack: from the quadratic length down; exact: from where the true KL is 0.99 to 1 of max_kl;
    quadratic: that length and no test, the natural policy gradient"""
    backtrack: float = 0.8
    """factor between candidates, in (0, 1)"""
    max_backtracks: int = 10
    """candidates that are looked at"""
    min_gain: float = 0.0
    """a candidate must gain more than this share of what the gradient predicts, in [0, 1)"""
    step_size: float | None = None
    """of radius="quadratic": theta + step_size F^-1 g instead of a radius"""
    backend: Backend = "gauss_newton"
    """see objectives.fisher_vector_product"""
    fisher_stride: int = 1
    """F is the mean over every so-many-th row; the paper takes one in ten"""

    def __post_init__(self) -> None:
        check_range("(0, inf)", "The TRPO paper uses 0.01.", max_kl=self.max_kl)
        check_range("[0, inf)", "A negative one makes the matrix indefinite.", damping=self.damping)
        check_range("(0, 1)", "The usual factor is 0.8.", backtrack=self.backtrack)
        check_range("[0, 1)", "0 asks for any gain.", min_gain=self.min_gain)
        check_count(
            num_cg_iters=self.num_cg_iters, max_backtracks=self.max_backtracks, fisher_stride=self.fisher_stride
        )  # fmt: skip
        check_choice(("relative", "absolute"), damping_kind=self.damping_kind)
        check_choice(("backtrack", "exact", "quadratic"), radius=self.radius)
        check_choice(BACKENDS, backend=self.backend)
        if self.step_size is not None:
            check_range("(0, inf)", step_size=self.step_size)
            if self.radius != "quadratic":
                raise InputError(
                    f"step_size belongs to radius='quadratic' and radius={self.radius!r} would ignore it."
                )


class StepReport(NamedTuple):
    """What a step did.

    kl: mean KL(old || new), nats; 0 where nothing moved.  improvement: L(new) - L(old).  predicted: g^T step, of the
    step taken, or of the first candidate.  backtracks: candidates refused before.  accepted: the parameters moved.
    reason: "accepted", or why not.  cg_residual: |g - (F + damping) s| / |g|.  angle_to_gradient: between s and g,
    degrees.  looks: forward passes of the search.
    """

    kl: float
    improvement: float
    predicted: float
    backtracks: int
    accepted: bool
    reason: Reason
    cg_residual: float
    angle_to_gradient: float
    looks: int


SURROGATE = PolicyObjective(
    name="surrogate", advantage="given", surrogate="unclipped",
    sources={"surrogate": "arXiv:1502.05477, eq. 14"},
)  # fmt: skip
"""mean of ratio times advantage, of advantages that are there."""


def trust_region_step(policy: Policy, batch: Batch, **settings: Any) -> StepReport:
    """Moves the policy by one step on the surrogate, inside the trust region, or not at all.

    Args:
        policy: a module with ``distribution``; changed in place.
        batch: with logp_old of the policy as it is, and advantages. A float mask weighs.
        settings: fields of TrustRegion, such as max_kl=0.01.
    Returns: see StepReport. Unless ``accepted``, every parameter is bitwise what it was.
    Raises: InputError: a setting; no logp_old or advantages; logp_old of other parameters; fewer than two
        counted steps; half precision; active dropout or batch normalisation.  NonFiniteError: advantages or logp_old
        that count.  TypeError: a law without what the backend reads.
    Source: see the module.  Oracle: exact steps on tri3, golden (checks.trpo).
    Cost: num_cg_iters + 2 products with F, one gradient, a forward pass per candidate.
    """
    return take_step(policy, batch, SURROGATE, TrustRegion(**settings))[0]


def take_step(
    policy: Policy, batch: Batch, objective: Objective, region: TrustRegion, reference: Policy | None = None
) -> tuple[StepReport, dict[str, float]]:  # fmt: skip
    """trust_region_step on any objective whose loss reads no critic; also the objective's numbers after it.

    Args: batch: prepared.  reference: what the objective may measure a divergence to.
    Returns, Raises, Source, Oracle, Cost: as trust_region_step.
    """
    parameters = trained_parameters(policy)
    check_precision(parameters)
    _check_still(policy)
    view = _View(policy, batch, objective, reference)
    gradient, old, numbers = view.gradient(parameters)
    line = _Line(view, parameters)
    if not math.isfinite(old) or not bool(torch.isfinite(gradient).all()):
        return _stays("not finite"), numbers
    if _constant(batch):
        return _stays("constant advantages"), numbers
    if not bool(gradient.any()):
        return _stays("no gradient"), numbers

    thin = (
        batch if region.fisher_stride == 1 else batch.select(slice(0, None, region.fisher_stride))
    )
    product = fisher_vector_product(
        policy, thin.obs, backend=region.backend, actions=thin.actions, mask=thin.mask
    )
    damping = region.damping
    if damping and region.damping_kind == "relative":
        damping *= _curvature(product, gradient)
    direction, info = conjugate_gradient(
        lambda v: torch.add(product(v), v, alpha=damping), gradient, num_iters=region.num_cg_iters
    )
    scale = step_scale(direction, product, max_kl=region.max_kl)
    full = direction * (scale if region.step_size is None else region.step_size)
    told = {"cg_residual": info.residuals[-1], "angle_to_gradient": _angle(direction, gradient)}
    if scale == 0.0 or not bool(torch.isfinite(full).all()):
        return _stays("no curvature", **told), numbers

    slope = float(gradient @ full)
    found = None
    try:
        found = _search(line, full, old, slope, region)
    finally:
        line.leave(keep=found is not None)
    if found is None:
        return _stays("no candidate", predicted=slope, looks=line.looks, **told), numbers
    t, j = found
    report = StepReport(
        kl=line.kl, improvement=line.gain - old, predicted=t * slope, backtracks=j, accepted=True,
        reason="accepted", looks=line.looks, **told,
    )  # fmt: skip
    return report, line.numbers


# ---------------------------------------------------------------------- private
class _View:
    """A batch under the policy: its loss, and how far the law has moved since the gradient was taken."""

    def __init__(self, policy: Any, batch: Batch, objective: Objective, reference: Any):
        self.policy, self.batch = policy, batch
        self.objective, self.reference = objective, reference
        for name in ("logp_old", "advantages"):
            if getattr(batch, name) is None:
                hint = " Call objective.prepare(batch) first." if name == "advantages" else ""
                raise InputError(
                    f"a trust region needs batch.{name}, and the batch has none.{hint}"
                )
        self.counts = batch.mask.bool()
        told = {name: getattr(batch, name)[self.counts] for name in ("logp_old", "advantages")}
        check_finite(**told)
        self.logp_old: Any = batch.logp_old
        total = all_sum(torch.stack([self.counts.sum().double(), batch.mask.double().sum()]))
        if total[0] < 2:
            raise InputError(
                f"{int(total[0])} counted steps: a batch of one says nothing of how a policy varies. Collect more."
            )
        self.weight = total[1]
        self.old: Any = None

    def gradient(self, parameters: list[nn.Parameter]) -> tuple[Tensor, float, dict[str, float]]:
        """(grad L flat, L, numbers); the law of now is the old one from here on."""
        with torch.enable_grad():
            law, logp, loss, numbers = self._loss()
            off = float((logp.detach() - self.logp_old)[self.counts].abs().max())
            if off > RATIO_TOL:
                raise InputError(
                    f"logp_old differs from the policy's own log-probability by up to {off:.3g} nats before the "
                    "step: it is of other parameters, or of other observations. Take one step per collection."
                )
            if not hasattr(law, "kl"):
                raise TypeError(
                    f"{type(law).__name__} has no kl(other), which a trust region is made of."
                )
            slopes = torch.autograd.grad(
                loss, parameters, allow_unused=True, materialize_grads=True
            )
        self.old = law
        flat = all_sum(torch.cat([g.reshape(-1) for g in slopes]))
        return -flat, -float(all_sum(loss.detach())), numbers

    @torch.no_grad()
    def now(self) -> tuple[float, float, dict[str, float]]:
        """(mean KL(old || now), L, numbers) of the parameters as they are."""
        law, _, loss, numbers = self._loss()
        kl = torch.where(self.counts, self.old.kl(law), 0.0)
        kl, loss = all_sum(torch.stack([(self.batch.mask * kl).sum(), loss])).tolist()
        return kl / float(self.weight), -loss, numbers

    def _loss(self) -> tuple[Any, Tensor, Tensor, dict[str, float]]:
        batch, objective = self.batch, self.objective
        law = self.policy.distribution(batch.obs, batch.actions)
        logp, given = law.log_prob(batch.actions), {}
        if getattr(objective, "needs_entropy", False):
            given["entropy"] = law.entropy()
        if getattr(objective, "needs_kl", False) and self.reference is not None:
            with torch.no_grad():
                other = self.reference.distribution(batch.obs, batch.actions)
            given["kl"] = law.kl(other)
        loss, numbers = objective(logp, batch, denom=self._denom(), **given)
        return law, logp, loss, numbers

    def _denom(self) -> float | None:
        """What all processes together divide by; alone, the objective knows."""
        if world_size() == 1:
            return None
        if getattr(self.objective, "reduction", "token") == "token":
            return float(self.weight)
        return float(all_sum(self.counts.flatten(1).any(1).sum()))


class _Line:
    """theta + t step, lent to the policy until ``leave``.

    A law may hold views of parameters (a Gaussian's shared log_std is one): candidates get memory of their own, for
    written in place they would move the old law along, and the divergence of what was shared would be 0.
    """

    def __init__(self, view: _View, parameters: list[nn.Parameter]):
        self.view, self.parameters = view, parameters
        self.homes = [p.data for p in parameters]
        self.sizes = [p.numel() for p in parameters]
        self.start = torch.cat([home.reshape(-1) for home in self.homes])
        self.at: float | None = None
        self.kl = self.gain = math.nan
        self.numbers: dict[str, float] = {}
        self.looks = 0

    def look(self, step: Tensor, t: float) -> None:
        """kl, gain and numbers at t; asked again for the same t, they are there."""
        if t == self.at:
            return
        pieces = torch.add(self.start, step, alpha=t).split(self.sizes)
        for p, home, piece in zip(self.parameters, self.homes, pieces, strict=True):
            p.data = piece.view_as(home)
        self.kl, self.gain, self.numbers = self.view.now()
        self.at, self.looks = t, self.looks + 1

    def leave(self, *, keep: bool) -> None:
        """The parameters are in their own memory again; what was seen last is written there if it is kept."""
        for p, home in zip(self.parameters, self.homes, strict=True):
            if keep:
                home.copy_(p.data)
            p.data = home


def _search(
    line: _Line, step: Tensor, old: float, slope: float, region: TrustRegion
) -> tuple[float, int] | None:
    """(share of the step, candidates refused) of what passes; the line stands there. None: nothing does."""
    if region.radius == "quadratic":
        line.look(step, 1.0)
        return (1.0, 0) if math.isfinite(line.kl) and math.isfinite(line.gain) else None
    t = _at_the_radius(line, step, region.max_kl) if region.radius == "exact" else 1.0
    for j in range(region.max_backtracks):
        line.look(step, t)
        gain = line.gain - old
        # NaN passes neither test
        if line.kl <= region.max_kl and gain > max(0.0, region.min_gain * t * slope):
            return t, j
        t *= region.backtrack
    return None


def _at_the_radius(line: _Line, step: Tensor, max_kl: float) -> float:
    """t whose KL is within NEAR of max_kl and not above, or the largest t seen inside.

    The KL grows nearly like t^2, so the next guess is a root of that; where it leaves the bracket, the middle.
    """
    inside, outside, t = 0.0, math.inf, 1.0
    for _ in range(LOOKS):
        line.look(step, t)
        if NEAR * max_kl <= line.kl <= max_kl:
            return t
        if line.kl < max_kl:
            inside = max(inside, t)
        else:
            outside = min(outside, t)
        guess = t * math.sqrt(AIM * max_kl / line.kl) if 0.0 < line.kl < math.inf else math.inf
        if not inside < guess < outside:
            guess = 0.5 * (inside + outside) if outside < math.inf else 4.0 * t
        t = min(guess, 4.0 * t)
    return inside or t


def _stays(reason: Reason, **told: Any) -> StepReport:
    """The parameters are what they were."""
    return StepReport(**{
        "kl": 0.0, "improvement": 0.0, "predicted": 0.0, "backtracks": 0, "accepted": False, "reason": reason,
        "cg_residual": math.nan, "angle_to_gradient": math.nan, "looks": 0, **told,
    })  # fmt: skip


def _constant(batch: Batch) -> bool:
    """All advantages alike, in all processes: their gradient is noise around 0, which a radius would stretch."""
    told = batch.advantages[batch.mask.bool()].double()  # pyright: ignore[reportOptionalSubscript]
    top = told.max() if len(told) else torch.zeros((), dtype=torch.float64, device=told.device)
    common = all_sum(torch.stack([top, torch.ones_like(top)]))
    level = common[0] / common[1]
    spread = all_sum(torch.stack([(told - level).abs().sum(), told.abs().sum()]))
    return bool(spread[0] <= torch.finfo(batch.advantages.dtype).eps * spread[1])


def _curvature(product: Callable[[Tensor], Tensor], v: Float[Tensor, "P"]) -> float:
    """v^T F v / v^T v, at least 0."""
    along = v / v.norm()
    return max(float(along @ product(along)), 0.0)


def _angle(a: Tensor, b: Tensor) -> float:
    """Degrees."""
    cosine = float(torch.nn.functional.cosine_similarity(a.double(), b.double(), dim=0, eps=0.0))
    return math.degrees(math.acos(min(1.0, max(-1.0, cosine))))


def _check_still(policy: Any) -> None:
    """Nothing in the policy may answer differently when asked twice."""
    for name, module in policy.named_modules():
        drawn = isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0
        moving = isinstance(module, nn.modules.batchnorm._BatchNorm)
        if module.training and (drawn or moving):
            raise InputError(
                f"{type(module).__name__} '{name}' is active: two passes over one batch give two policies, and the "
                "divergence between them is not that of the step. Call policy.eval()."
            )
