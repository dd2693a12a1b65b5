"""Wrong trust regions, as they were written somewhere: each of which the checks must catch.

Most of them learn: a step in a good direction that is too short, too long or unchecked still climbs, most days.

Source: card trpo, sec. 9 (reports and readings of public code). Not here: wrong losses (ppo_bugs.py).
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dodona import objectives
from dodona.core.kl import kl_categorical, kl_estimate, kl_gaussian
from dodona.core.protocols import Mutant
from dodona.objectives.trust_region import CGInfo
from dodona.rl.trust_region import trust_region_step


# ---------------------------------------------------------------------- products
def _summed(policy, obs, *, mask=None, damping=0.0, **options):
    """The states added up instead of averaged."""
    right = objectives.fisher_vector_product(policy, obs, mask=mask, **options)
    count = len(obs) if mask is None else float(mask.sum())
    return lambda v: count * right(v) + damping * v


def _unmasked(policy, obs, *, mask=None, **options):
    return objectives.fisher_vector_product(policy, obs, **options)


def _undamped(policy, obs, *, damping=0.0, **options):
    return objectives.fisher_vector_product(policy, obs, **options)


def _with_law(change: Callable[[Any], Any]) -> Callable[..., Any]:
    """gauss_newton with another Fisher matrix of the law."""

    class Other:
        def __init__(self, law):
            self.law, self.params = law, law.params

        def __getattr__(self, name):
            return getattr(self.law, name)

        def fisher_times(self, tangent):
            return change(self.law, tangent)

    class Wrapped(torch.nn.Module):
        def __init__(self, policy):
            super().__init__()
            self.policy = policy

        def distribution(self, obs, actions=None):
            return Other(self.policy.distribution(obs, actions))

    def wrong(policy, obs, *, backend="gauss_newton", **options):
        if backend != "gauss_newton":
            return objectives.fisher_vector_product(policy, obs, backend=backend, **options)
        return objectives.fisher_vector_product(Wrapped(policy), obs, **options)

    return wrong


def _no_outer_product(law, tangent):
    return law.probs * tangent if hasattr(law, "probs") else law.fisher_times(tangent)


def _one_for_log_std(law, tangent):
    if not hasattr(law, "log_std"):
        return law.fisher_times(tangent)
    of_mean, of_log_std = law.fisher_times(tangent).chunk(2, dim=-1)
    return torch.cat([of_mean, 0.5 * of_log_std], dim=-1)


def _sampled(policy, obs, *, backend="gauss_newton", actions=None, **options):
    """The scores of the likeliest actions for all actions."""
    if backend == "gauss_newton":
        with torch.no_grad():
            backend, actions = "scores", policy.distribution(obs).mode()
    return objectives.fisher_vector_product(
        policy, obs, backend=backend, actions=actions, **options
    )


# ---------------------------------------------------------------------- conjugate gradients
def _cg(*, start: float = 0.0, steepest: bool = False, stop: float | None = None, short: int = 0):
    """Written out, with one thing changed."""

    def wrong(product, b, *, num_iters=10, tol=1e-10):
        x = start * torch.ones_like(b)
        residual = b - product(x) if start else b.clone()
        direction, square, first = residual.clone(), residual @ residual, b @ b
        norms = [1.0]
        for _ in range(num_iters - short):
            if square <= (tol if stop is None else stop) * first or square == 0:
                break
            image = product(direction)
            alpha = square / (direction @ image)
            if not torch.isfinite(alpha) or alpha < 0:
                break
            x, residual = x + alpha * direction, residual - alpha * image
            before, square = square, residual @ residual
            direction = residual if steepest else residual + square / before * direction
            norms.append(float((square / first).sqrt()))
        return x, CGInfo(tuple(norms), len(norms) - 1, breakdown=False)

    return wrong


def _absolute_tolerance(product, b, *, num_iters=10, tol=1e-10):
    scale = float(b @ b) or 1.0
    return objectives.conjugate_gradient(
        product, b, num_iters=num_iters, tol=min(tol / scale, 0.99)
    )


# ---------------------------------------------------------------------- lengths
def _damped_length(gradient, product, *, max_kl, damping=0.0, num_iters=10, tol=1e-10):
    """The usual formula: s^T (F + damping) s under the root."""

    def damped(v: Tensor) -> Tensor:
        return product(v) + damping * v

    s, _ = objectives.conjugate_gradient(damped, gradient, num_iters=num_iters, tol=tol)
    return objectives.step_scale(s, damped, max_kl=max_kl) * s


def _plain_gradient(gradient, product, *, max_kl, **options):
    return objectives.step_scale(gradient, product, max_kl=max_kl) * gradient


def _unscaled(gradient, product, *, max_kl, damping=0.0, num_iters=10, tol=1e-10):
    """A fixed rate where a radius was asked for."""
    return 0.5 * objectives.conjugate_gradient(product, gradient, num_iters=num_iters, tol=tol)[0]


def _no_two(direction, product, *, max_kl):
    return objectives.step_scale(direction, product, max_kl=max_kl) / math.sqrt(2.0)


def _no_root(direction, product, *, max_kl):
    return objectives.step_scale(direction, product, max_kl=max_kl) ** 2


# ---------------------------------------------------------------------- steps
def _step(change: Callable[..., Any]) -> Callable[..., Any]:
    """change(policy, batch, settings, before) after a right step was tried; before: the parameters [list]."""

    def wrong(policy, batch, **settings):
        before = [p.detach().clone() for p in policy.parameters()]
        return change(policy, batch, settings, before)

    return wrong


@torch.no_grad()
def _go_on(policy, before, factor: float) -> None:
    """theta <- before + factor (theta - before)."""
    for p, old in zip(policy.parameters(), before, strict=True):
        p.copy_(old + factor * (p - old))


def _never_checked(policy, batch, settings, before):
    """The full quadratic step, whatever its divergence."""
    if settings.get("radius") == "exact":
        return trust_region_step(policy, batch, **settings)
    return trust_region_step(policy, batch, **settings | {"radius": "quadratic"})


def _loose(policy, batch, settings, before):
    """1.5 times the radius, as PPO's early stopping has it."""
    return trust_region_step(
        policy, batch, **settings | {"max_kl": 1.5 * settings.get("max_kl", 0.01)}
    )


def _too_far(policy, batch, settings, before):
    """Tested where the search stood, and left one factor further out."""
    report = trust_region_step(policy, batch, **settings)
    if report.accepted:
        _go_on(policy, before, 1.25)
    return report


def _not_restored(policy, batch, settings, before):
    """A failed search leaves the last candidate behind."""
    report = trust_region_step(policy, batch, **settings)
    if not report.accepted:
        with torch.no_grad():
            for p in policy.parameters():
                p.add_(1e-7)
    return report


def _downhill(policy, batch, settings, before):
    """The divergence is tested, the surrogate is not: the loss was maximised and nobody noticed."""
    report = trust_region_step(policy, batch, **settings)
    if report.accepted:
        _go_on(policy, before, -0.5)
    return report


def _half(policy, batch, settings, before):
    """One factor shorter than it had to be."""
    report = trust_region_step(policy, batch, **settings)
    if report.accepted:
        _go_on(policy, before, 0.8)
    return report


def _by_the_gradient(policy, batch, settings, before):
    """One product for ten: nearly the plain gradient."""
    return trust_region_step(policy, batch, **settings | {"num_cg_iters": 1})


def _noise_for_nothing(policy, batch, settings, before):
    """Where the gradient is 0, the solver's starting noise is stretched to the radius."""
    report = trust_region_step(policy, batch, **settings)
    if report.reason in ("no gradient", "constant advantages"):
        with torch.no_grad():
            for p in policy.parameters():
                p.add_(1e-3 * torch.sin(torch.arange(p.numel(), dtype=p.dtype)).view_as(p))
    return report


def _mutant(name: str, replaces: str, function: Callable[..., Any], bug: str) -> Mutant:
    return Mutant(name=f"{replaces}: {name}", replaces=replaces, function=function, bug=bug)


MUTANTS = (
    _mutant("sum", "fisher_vector_product", _summed, "the states are added up, not averaged"),
    _mutant("mask ignored", "fisher_vector_product", _unmasked, "states that do not count do"),
    _mutant("damping ignored", "fisher_vector_product", _undamped, "a switch without effect"),
    _mutant("diagonal", "fisher_vector_product", _with_law(_no_outer_product), "diag p without p p^T"),
    _mutant("one for two", "fisher_vector_product", _with_law(_one_for_log_std), "the curvature of log std is 2"),
    _mutant("likeliest actions", "fisher_vector_product", _sampled, "scores of modes for the expectation"),
    _mutant("starts from noise", "conjugate_gradient", _cg(start=1e-4), "returns the noise where there is nothing to solve"),
    _mutant("steepest descent", "conjugate_gradient", _cg(steepest=True), "directions are not conjugate"),
    _mutant("one short", "conjugate_gradient", _cg(short=1), "an iteration less than asked for"),
    _mutant("stops early", "conjugate_gradient", _cg(stop=1e-2), "a tolerance of its own"),
    _mutant("absolute tolerance", "conjugate_gradient", _absolute_tolerance, "small right-hand sides are not solved"),
    _mutant("damped length", "natural_step", _damped_length, "the usual formula: 63 % of the radius"),
    _mutant("gradient", "natural_step", _plain_gradient, "scaled to the radius, and not natural"),
    _mutant("fixed rate", "natural_step", _unscaled, "not a radius"),
    _mutant("no 2", "step_scale", _no_two, "sqrt(max_kl / s^T F s)"),
    _mutant("no root", "step_scale", _no_root, "the square of the scale"),
    _mutant("no ratio", "surrogate_loss", lambda logp, old, A, mask=None: objectives.reinforce_loss(logp, A * A.sign(), mask), "another objective"),
    _mutant("ratio upside down", "surrogate_loss", lambda logp, old, A, mask=None: objectives.surrogate_loss(-logp, -old, A, mask), "old over new"),
    _mutant("no search", "trust_region_step", _step(_never_checked), "the quadratic length is believed"),
    _mutant("1.5 radii", "trust_region_step", _step(_loose), "another bound than asked for"),
    _mutant("left too far out", "trust_region_step", _step(_too_far), "the parameters are not those that were tested"),
    _mutant("not restored", "trust_region_step", _step(_not_restored), "a failed search moves the policy"),
    _mutant("downhill", "trust_region_step", _step(_downhill), "no test of the surrogate, wrong sign"),
    _mutant("too short", "trust_region_step", _step(_half), "wastes the radius"),
    _mutant("one product", "trust_region_step", _step(_by_the_gradient), "the plain gradient, scaled"),
    _mutant("noise for nothing", "trust_region_step", _step(_noise_for_nothing), "a random step where there is no gradient"),
    _mutant("other direction", "kl_categorical", lambda p, q: kl_categorical(q, p), "KL(new || old)"),
    _mutant("other direction", "kl_gaussian", lambda m, s, n, t: kl_gaussian(n, t, m, s), "KL(new || old)"),
    _mutant("variance", "kl_gaussian", lambda m, s, n, t: kl_gaussian(m, s**2, n, t**2), "variances for deviations"),
    _mutant("half a square", "kl_estimate", lambda p, q, *, kind="k1": kl_estimate(p, q, kind="k2" if kind == "k3" else kind), "k2 for k3: biased"),
)  # fmt: skip
"""Each replaces one subject of checks.trpo."""
