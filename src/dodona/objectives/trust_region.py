"""Natural gradients: products with the Fisher matrix, conjugate gradients, and how far a step may go.

    F = E_s[J_s^T M_s J_s]        J_s d law's parameters / d theta, M_s the law's own Fisher matrix
    s = F^-1 g                    by conjugate gradients: F is never written down
    step = sqrt(2 max_kl / s^T F s) s

F is the Hessian of KL(old || new) and of KL(new || old) where the two laws are one. Vectors are flat [P]: all
trained parameters of the policy, in the order of ``policy.parameters()``. With several processes every product
is the sum over the states of all of them.

Source: Kakade 2001; Schulman et al. 2015, arXiv:1502.05477, app. C; Martens 2014, arXiv:1412.1193 (Gauss-Newton);
Pearlmutter 1994. Not here: the line search and the update (rl.trpo), the Fisher matrix of a law (policies).
"""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from dodona.core.distributed import all_sum
from dodona.core.inputs import check_choice, check_count, check_finite, check_mask, check_range
from dodona.core.optimizers import trained_parameters
from dodona.core.protocols import Policy
from dodona.errors import InputError, ShapeError

Backend = Literal["gauss_newton", "double_backward", "scores", "dense"]
BACKENDS = ("gauss_newton", "double_backward", "scores", "dense")
DENSE_LIMIT = (
    4096  # parameters, and entries of the laws' parameters, of a matrix that is written down
)
Product = Callable[[Tensor], Tensor]


class CGInfo(NamedTuple):
    """residuals: |b - A x| / |b| before every iteration and after the last. breakdown: A had no positive
    curvature along a direction, and x is what was found before it."""

    residuals: tuple[float, ...]
    iterations: int
    breakdown: bool


def fisher_vector_product(
    policy: Policy,
    obs: Any,
    *,
    backend: Backend = "gauss_newton",
    damping: float = 0.0,
    actions: Tensor | None = None,
    mask: Shaped[Tensor, "..."] | None = None,
) -> Callable[[Float[Tensor, "P"]], Float[Tensor, "P"]]:
    """v -> F v + damping v at the policy's present parameters, F the mean Fisher matrix of the states.

        gauss_newton      J^T M J v: never negative, whatever rounding does
        double_backward   grad (grad KL(old || new) . v): for any law with kl
        scores            mean of grad log pi (grad log pi . v) over the given actions: unbiased, another matrix
        dense             M and J written down: for small policies, to compare with

    The graph is made once; a product is one pass forward and one backward along it.

    Args:
        policy: a module with ``distribution(obs, actions)``; its law has ``params`` and ``fisher_times`` for
            gauss_newton and dense, ``kl`` for double_backward.
        obs: [..., *obs_shape], the states.
        damping: >= 0, added to the diagonal.
        actions: what was done there; needed by scores, and by policies whose law depends on them.
        mask: [...], weights of the states; None: all alike.
    Returns: the product. It holds the graph of the parameters as they were: make it anew after a step.
    Raises: InputError: damping, an unknown backend, no parameters, parameters in half precision, a mask of
        zeros, scores without actions, a policy too large for dense.  TypeError: a law that lacks what the
        backend reads.  ShapeError: a vector that is not [P]; a mask of another shape.
    Source: see the module.  Oracle: oracles.gradients.fisher (score by score).
    Cost: gauss_newton: once three passes, then two per product; double_backward: four.
    """
    check_choice(BACKENDS, backend=backend)
    check_range("[0, inf)", "A negative one makes the matrix indefinite.", damping=damping)
    parameters = trained_parameters(policy)
    check_precision(parameters)
    with torch.enable_grad():
        law = policy.distribution(obs, actions)
        if backend == "scores":
            if actions is None:
                raise InputError("backend 'scores' averages over actions, and none are given.")
            logp = law.log_prob(actions)
            weights = _weights(mask, logp)
            product = _gauss_newton(logp, parameters, lambda tangent: weights * tangent)
        elif backend == "double_backward":
            product = _double_backward(policy, obs, actions, law, parameters, mask)
        else:
            out, metric = _metric(law, mask)
            make = _dense if backend == "dense" else _gauss_newton
            product = make(out, parameters, metric)
    size = sum(p.numel() for p in parameters)

    def multiply(vector: Tensor) -> Tensor:
        if vector.shape != (size,):
            raise ShapeError(
                f"the vector has shape {tuple(vector.shape)}, expected [P] = {(size,)}: one number per "
                "trained parameter."
            )
        return torch.add(all_sum(product(vector)), vector, alpha=damping)

    return multiply


def conjugate_gradient(
    product: Callable[[Float[Tensor, "P"]], Float[Tensor, "P"]],
    b: Float[Tensor, "P"],
    *,
    num_iters: int = 10,
    tol: float = 1e-10,
) -> tuple[Float[Tensor, "P"], CGInfo]:
    """(x, info) with A x = b, A symmetric and not negative, given by its products; from x = 0.

    After k iterations x is the best of all combinations of b, A b, ..., A^(k-1) b, in the norm of A.

    Args:
        product: v -> A v.
        num_iters: at most so many products.
        tol: ends where |b - A x|^2 <= tol |b|^2.
    Returns: x, 0 where b is 0; see CGInfo.
    Raises: InputError: num_iters, tol.  NonFiniteError: b.
    Source: Hestenes & Stiefel 1952.  Oracle: numpy.linalg.solve (tests, checks).  Cost: a product per iteration.
    """
    check_count(num_iters=num_iters)
    check_range("[0, 1)", tol=tol)
    check_finite(b=b)
    x, residual, direction = torch.zeros_like(b), b.clone(), b.clone()
    square = first = float(residual @ residual)
    norms = [1.0]
    # b so small that its square is 0 is no direction either
    while first > 0 and len(norms) <= num_iters and square > tol * first:
        image = product(direction)
        curvature = float(direction @ image)
        if not 0.0 < curvature < math.inf:
            return x, CGInfo(tuple(norms), len(norms) - 1, breakdown=True)
        x = torch.add(x, direction, alpha=square / curvature)
        residual = torch.sub(residual, image, alpha=square / curvature)
        before, square = square, float(residual @ residual)
        direction = torch.add(residual, direction, alpha=square / before)
        norms.append(math.sqrt(square / first))
    return x, CGInfo(tuple(norms), len(norms) - 1, breakdown=False)


def step_scale(
    direction: Float[Tensor, "P"],
    product: Callable[[Float[Tensor, "P"]], Float[Tensor, "P"]],
    *,
    max_kl: float,
) -> float:
    """How often a direction s goes into the radius: beta = sqrt(2 max_kl / s^T F s).

    s^T F s must be that of the undamped F: with F + damping, which most code bases put here, the step falls
    short of the radius that was asked for.

    Args: product: v -> F v, without damping.  max_kl: nats, > 0.
    Returns: beta; 0 where s is 0 or has no curvature, so that there is nothing to scale by.
    Raises: InputError: max_kl.
    Source: Schulman et al. 2015, arXiv:1502.05477, app. C.  Oracle: the quadratic form (tests).
    Cost: one product.
    """
    check_range("(0, inf)", "The TRPO paper uses 0.01.", max_kl=max_kl)
    curvature = float(direction @ product(direction))
    return math.sqrt(2.0 * max_kl / curvature) if 0.0 < curvature < math.inf else 0.0


def natural_step(
    gradient: Float[Tensor, "P"],
    product: Callable[[Float[Tensor, "P"]], Float[Tensor, "P"]],
    *,
    max_kl: float,
    damping: float = 0.0,
    num_iters: int = 10,
    tol: float = 1e-10,
) -> Float[Tensor, "P"]:
    """The step along (F + damping)^-1 g whose divergence is max_kl, as far as the quadratic model sees.

    Its length does not depend on that of the gradient.

    Args: gradient: of what is to grow.  Others: as step_scale and conjugate_gradient.  damping: >= 0, of the
        direction only.
    Returns: what to add to the parameters; 0 where there is no gradient or no curvature along it.
    Raises: InputError: a number out of range.  NonFiniteError: the gradient.
    Source: Kakade 2001; Schulman et al. 2015, arXiv:1502.05477, app. C.
    Oracle: oracles.gradients.natural_gradient.  Cost: num_iters + 1 products.
    """
    check_range("[0, inf)", damping=damping)
    direction, _ = conjugate_gradient(
        lambda v: torch.add(product(v), v, alpha=damping), gradient, num_iters=num_iters, tol=tol
    )
    return step_scale(direction, product, max_kl=max_kl) * direction


def check_precision(parameters: list[Any]) -> None:
    """Half precision has three digits: not enough for curvature.

    Raises: InputError: half precision, or several kinds of numbers.
    Source: ours.  Oracle: each message (tests).
    """
    kinds = {p.dtype for p in parameters}
    if kinds & {torch.float16, torch.bfloat16} or len(kinds) > 1:
        got = ", ".join(sorted(str(kind) for kind in kinds))
        raise InputError(
            f"the policy's parameters are {got}: natural gradients need float32 or float64, one for all. "
            "Call policy.float()."
        )


# ---------------------------------------------------------------------- private
def _weights(mask: Tensor | None, like: Tensor) -> Tensor:
    """Weights of the states [...], which add up to 1 over all processes."""
    if mask is None:
        weights = torch.ones_like(like, requires_grad=False)
    else:
        check_mask(mask, like)
        weights = mask.to(like.dtype)
    total = all_sum(weights.sum())
    if not float(total) > 0:
        raise InputError("the mask counts no state at all: the mean of nothing is not defined.")
    return weights / total


def _metric(law: Any, mask: Tensor | None) -> tuple[Tensor, Product]:
    """(the law's parameters [..., M], the product with the weighted Fisher matrices of the laws)."""
    for name in ("params", "fisher_times"):
        if not hasattr(law, name):
            raise TypeError(
                f"{type(law).__name__} has no {name}, which this backend reads. Use backend="
                "'double_backward', which needs kl alone."
            )
    out = law.params
    weights = _weights(mask, out[..., 0])[..., None]

    @torch.no_grad()
    def metric(tangent: Tensor) -> Tensor:
        return weights * law.fisher_times(tangent)

    return out, metric


def _gauss_newton(out: Tensor, parameters: list[Any], metric: Product) -> Product:
    """v -> J^T metric(J v), J = d out / d parameters.

    J u -> J^T u is linear, so its derivative in u along v is J v: forward mode, from two reverse passes over one
    graph, for every layer that can be differentiated twice.
    """
    dual = torch.zeros_like(out, requires_grad=True)
    pulled = torch.autograd.grad(out, parameters, dual, create_graph=True, allow_unused=True)
    used = [(p, g) for p, g in zip(parameters, pulled, strict=True) if g is not None]
    targets, images = [p for p, _ in used], [g for _, g in used]
    reached = [g is not None for g in pulled]

    def product(vector: Tensor) -> Tensor:
        pieces = _pieces(vector, parameters)
        along = [piece for piece, there in zip(pieces, reached, strict=True) if there]
        (tangent,) = torch.autograd.grad(images, dual, along, retain_graph=True)
        back = torch.autograd.grad(out, targets, metric(tangent), retain_graph=True)
        found = iter(back)
        return torch.cat([
            (next(found) if there else torch.zeros_like(p)).reshape(-1)
            for p, there in zip(parameters, reached, strict=True)
        ])  # fmt: skip

    return product


def _double_backward(
    policy: Any, obs: Any, actions: Tensor | None, law: Any, parameters: list[Any], mask: Tensor | None
) -> Product:  # fmt: skip
    with torch.no_grad():
        old = policy.distribution(obs, actions)
    if not hasattr(old, "kl"):
        raise TypeError(f"{type(old).__name__} has no kl(other), which a trust region is made of.")
    kl = old.kl(law)
    mean = (_weights(mask, kl) * kl).sum()
    slope = torch.autograd.grad(
        mean, parameters, create_graph=True, allow_unused=True, materialize_grads=True
    )
    flat = torch.cat([g.reshape(-1) for g in slope])

    def product(vector: Tensor) -> Tensor:
        columns = torch.autograd.grad(
            flat, parameters, vector, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        return torch.cat([c.reshape(-1) for c in columns])

    return product


def _dense(out: Tensor, parameters: list[Any], metric: Product) -> Product:
    """The matrix itself: rows of J one after another, then J^T metric(J) column by column."""
    P = sum(p.numel() for p in parameters)
    if max(P, out.numel()) > DENSE_LIMIT:
        raise InputError(
            f"backend 'dense' writes down {out.numel()} x {P} numbers; the limit is {DENSE_LIMIT} each. Use "
            "backend='gauss_newton'."
        )
    rows = []
    for x in out.reshape(-1):
        pulled = torch.autograd.grad(
            x, parameters, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        rows.append(torch.cat([g.reshape(-1) for g in pulled]))
    J = torch.stack(rows)
    pushed = [metric(column.reshape(out.shape)).reshape(-1) for column in J.unbind(1)]
    matrix = J.T @ torch.stack(pushed, dim=1)
    return lambda vector: matrix @ vector


def _pieces(vector: Tensor, parameters: list[Any]) -> list[Tensor]:
    """The flat vector as views in the shapes of the parameters."""
    cut = vector.split([p.numel() for p in parameters])
    return [piece.view_as(p) for piece, p in zip(cut, parameters, strict=True)]
