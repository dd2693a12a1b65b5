"""Trust regions without a sample: Fisher products by enumeration, exact steps on three states, and what a step owes.

Fisher products of tables, perceptrons and Gaussians against score by score sums and differences of the divergence;
conjugate gradients against a solver. Then tri3, where every expectation is a sum over six pairs: the natural step, its
length and the backtracking have golden numbers, exact TRPO climbs to the optimum and stops there, and the bounds
of the theory hold. Last the contract: whatever a step is given, its KL is inside and its surrogate has grown, or not a
bit has changed. Seeds are fixed.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dodona import objectives
from dodona.checks.compare import as_mdp, close, each, holds
from dodona.checks.trpo_bugs import MUTANTS
from dodona.core.batch import Batch
from dodona.core.kl import kl_categorical, kl_estimate, kl_gaussian
from dodona.core.protocols import Check
from dodona.core.threads import few_threads
from dodona.errors import DodonaError
from dodona.mdp import solve
from dodona.oracles import gradients as exact
from dodona.oracles.fixtures import random_mdp, tri3
from dodona.policies import DiagonalGaussian, MLPPolicy, TablePolicy
from dodona.policies.base import LawPolicy
from dodona.rl import trust_region_step

SUBJECTS: Mapping[str, Callable[..., Any]] = {
    name: getattr(objectives, name)
    for name in ("fisher_vector_product", "conjugate_gradient", "natural_step", "step_scale", "surrogate_loss")
} | {
    "trust_region_step": trust_region_step, "kl_categorical": kl_categorical, "kl_gaussian": kl_gaussian,
    "kl_estimate": kl_estimate,
}  # fmt: skip
__all__ = ["MUTANTS", "SUBJECTS", "run"]
EXACT, FLOAT, DIFFERENCES = 1e-12, 1e-9, 1e-6
CARD = "card trpo, sec. 4"
OPTIMUM = 23.9554510238
NATURAL = np.array([0.561873344, 1.604647628, -1.713771524])  # of the second action, tri3
DAMPED = np.array([0.3371696443, 1.0245720064, -1.0094702744])


def run(subjects: Mapping[str, Callable[..., Any]], *, full: bool = False) -> Iterator[Check]:
    """Every check of the method; ``full`` takes more models, and 3000 injected cases instead of 15."""
    with few_threads(1):  # six numbers wake all threads otherwise, and wait for them
        yield from _all(subjects, full=full)


def _all(subjects, *, full: bool) -> Iterator[Check]:
    for seed in range(20 if full else 2):
        yield from each(f"seed {seed}", _fisher(subjects, seed))
        yield from each(f"seed {seed}", _solver(subjects, seed))
    yield from each("tri3", _golden(subjects))
    yield from _divergences(subjects)
    yield from _invariance(subjects)
    for seed in range(3000 if full else 15):
        yield from _contract(subjects, seed)
    yield from _exact_runs(subjects)


def _fisher(subjects, seed: int) -> Iterator[Any]:
    """Every back end against the sum over states and actions, one score after another."""
    rng = np.random.default_rng(seed)
    make = subjects["fisher_vector_product"]
    table = _table(rng.normal(size=(4, 3)))
    weights = rng.dirichlet(np.ones(4))
    states = torch.arange(4)
    truth = exact.fisher(table.logits.detach().numpy(), weights)
    v = torch.from_numpy(rng.normal(size=12))
    for backend in ("gauss_newton", "double_backward", "dense"):
        product = make(table, states, backend=backend, mask=torch.from_numpy(9.0 * weights))
        yield f"table, {backend}", product(v), truth @ v.numpy(), FLOAT, "oracles.gradients.fisher"
    product = make(table, states, damping=0.3)
    even = exact.fisher(table.logits.detach().numpy(), np.full(4, 0.25))
    yield (
        "table, damped, states alike",
        product(v),
        even @ v.numpy() + 0.3 * v.numpy(),
        FLOAT,
        "definition",
    )

    net = MLPPolicy(3, 3, hidden=(8,), seed=seed).double()
    obs = torch.from_numpy(rng.normal(size=(6, 3)))
    _stir(net, rng)
    v = torch.from_numpy(rng.normal(size=sum(p.numel() for p in net.parameters())))
    scores = _scores(net, obs.repeat_interleave(3, 0), torch.arange(3).repeat(6))
    p = net.distribution(obs).probs.detach().reshape(-1, 1).numpy()
    truth = scores.T @ (p / 6 * (scores @ v.numpy()[:, None]))
    gaussian = _Line(rng)
    w = torch.from_numpy(rng.normal(size=12))
    for backend in ("gauss_newton", "double_backward", "dense"):
        got = make(net, obs, backend=backend)(v)
        yield f"perceptron, {backend}", got, truth[:, 0], FLOAT, "every state and action"
        got = make(gaussian, obs, backend=backend)(w)
        yield (
            f"Gaussian, {backend}",
            got,
            _slope_difference(gaussian, obs, w),
            DIFFERENCES,
            "differences of grad KL",
        )
    played = net.distribution(obs).sample(rng=rng)
    rows = _scores(net, obs, played)
    got = make(net, obs, backend="scores", actions=played)(v)
    yield "scores of the actions taken", got, rows.T @ (rows @ v.numpy()) / 6, FLOAT, "definition"


def _solver(subjects, seed: int) -> Iterator[Any]:
    """Conjugate gradients: exact after n products, best of its subspace before, 0 for nothing."""
    rng = np.random.default_rng(100 + seed)
    root = rng.normal(size=(7, 7))
    A, b = root @ root.T + 0.5 * np.eye(7), rng.normal(size=7)
    solve, truth = subjects["conjugate_gradient"], np.linalg.solve(A, b)
    product, rhs = (lambda v: torch.from_numpy(A) @ v), torch.from_numpy(b)
    x, info = solve(product, rhs, num_iters=7, tol=0.0)
    yield "n products", x, truth, 1e-8, "numpy.linalg.solve"
    for k in (1, 2, 4):
        x, info = solve(product, rhs, num_iters=k)
        basis = np.stack([np.linalg.matrix_power(A, i) @ b for i in range(k)], axis=1)
        best = basis @ np.linalg.solve(basis.T @ A @ basis, basis.T @ b)
        yield f"{k} products: the best of b, A b, ...", x, best, 1e-8, "Galerkin"
        left = np.linalg.norm(b - A @ best) / np.linalg.norm(b)
        yield (
            f"{k} products: what is left",
            [info.residuals[-1], info.iterations],
            [left, k],
            1e-8,
            "definition",
        )
    x, info = solve(product, torch.zeros(7, dtype=torch.float64))
    yield "nothing to solve", [float(x.abs().max()), info.iterations], [0.0, 0], 0.0, "definition"
    x, info = solve(product, rhs, num_iters=50, tol=1e-4)
    yield holds(
        "ends at its tolerance", 1e-2 - info.residuals[-1], tolerance=0.0, source="definition"
    )
    yield holds("and not long after", info.residuals[-2] - 1e-2, tolerance=0.0, source="definition")


def _golden(subjects) -> Iterator[Any]:
    """The natural step of a softmax table, damped and not, its lengths, and what backtracking makes of it."""
    case = _Case.tri3()
    product = subjects["fisher_vector_product"](case.policy, case.states, mask=case.batch.mask)
    g = case.gradient(subjects["surrogate_loss"])
    truth = exact.policy_gradient(case.P, case.R, case.gamma, case.logits, start=case.start)
    yield "gradient of the surrogate", 10 * g, truth, 1e-10, "oracles.gradients.policy_gradient"
    s, _ = subjects["conjugate_gradient"](product, g)
    yield "natural gradient", s, _rows(NATURAL), 1e-9, CARD
    yield "F^+ g", 10 * s, exact.natural_gradient(case.P, case.R, case.gamma, case.logits, start=case.start), 1e-9, "oracles.gradients.natural_gradient"  # fmt: skip
    beta = subjects["step_scale"](s, product, max_kl=0.01)
    yield "s^T F s", 0.02 / beta**2, 1.8462559711, 1e-9, CARD
    step = subjects["natural_step"](g, product, max_kl=0.01)
    yield "natural step", step, beta * _rows(NATURAL), 1e-9, CARD
    d, _ = subjects["conjugate_gradient"](lambda v: product(v) + 0.1 * v, g)
    yield "damped direction", d, _rows(DAMPED), 1e-9, CARD
    yield (
        "its length is of F alone",
        subjects["step_scale"](d, product, max_kl=0.01),
        0.1693871,
        6e-8,
        CARD,
    )
    damped = subjects["natural_step"](g, product, max_kl=0.01, damping=0.1)
    yield "damped step", damped, 0.1693871 * _rows(DAMPED), 1e-7, CARD
    scaled = subjects["natural_step"](1e-6 * g, product, max_kl=0.01)
    yield "the gradient's size does not matter", scaled, step, 1e-9, "definition"
    for j, forward, backward, gain, J in (
        (0, 0.01022076, 0.01039764, 0.19810065, 7.94731701), (1, 0.00651748, 0.00661734, 0.15774841, 7.53359534),
    ):  # fmt: skip
        new = exact.softmax(case.logits + 0.8**j * step.reshape(3, 2).numpy())
        told = case.moved(new)
        yield (
            f"candidate {j}: J and gain",
            [told.new, (told.surrogate - told.old) / 10],
            [J, gain],
            1e-8,
            CARD,
        )
        old, now = (torch.from_numpy(np.log(x)) for x in (case.old, new))
        for name, p, q, kl in (
            ("old || new", old, now, forward),
            ("new || old", now, old, backward),
        ):
            got = float(torch.from_numpy(case.share) @ subjects["kl_categorical"](p, q))
            yield f"candidate {j}: KL({name})", got, kl, 6e-9, CARD
    report = subjects["trust_region_step"](case.policy, case.batch, damping=0.0)
    told = [report.kl, report.improvement, report.backtracks, report.accepted]
    yield "backtracking: KL, gain, refused", told, [0.00651748, 0.15774841, 1, True], 6e-9, CARD
    yield "backtracking: predicted", report.predicted, 0.8 * float(g @ step), 1e-10, "g^T step"
    yield "backtracking: J", case.moved(case.policy_now()).new, 7.53359534, 1e-8, CARD
    for options in ({}, {"damping": 0.1, "damping_kind": "absolute"}):
        case = _Case.tri3()
        report = subjects["trust_region_step"](case.policy, case.batch, radius="exact", **options)
        share = case.moved(case.policy_now()).kl / 0.01
        yield holds(
            f"exact radius: inside {options}", 1.0 - share, tolerance=1e-9, source="definition"
        )
        yield holds(
            f"exact radius: 0.99 of it {options}", share - 0.99, tolerance=1e-9, source="definition"
        )


def _divergences(subjects) -> Iterator[Check]:
    """Closed forms and estimates, both directions."""
    mean, std = (
        torch.tensor([[0.0, 1.0], [0.3, 0.8]], dtype=torch.float64),
        torch.tensor([[1.0, 0.5], [0.8, 0.7]], dtype=torch.float64),
    )
    got = [float(subjects["kl_gaussian"](mean[i], std[i], mean[1 - i], std[1 - i])) for i in (0, 1)]
    yield close(
        "Gaussian, both directions", got, [0.2608095527, 0.3116713147], tolerance=1e-10, source=CARD
    )
    p, q = (torch.tensor(x, dtype=torch.float64) for x in ((0.5, 0.3, 0.2), (0.4, 0.4, 0.2)))
    got = float(subjects["kl_categorical"](p.log(), q.log()))
    yield close("categorical", got, 0.0252671539, tolerance=1e-10, source=CARD)
    for kind, mean_of in (("k1", 0.0252671539), ("k2", 0.0248624073), ("k3", 0.0252671539)):
        got = float(p @ subjects["kl_estimate"](p.log(), q.log(), kind=kind))
        yield close(f"mean of {kind}", got, mean_of, tolerance=1e-10, source=CARD)


def _exact_runs(subjects) -> Iterator[Check]:
    """Exact advantages and visits: J grows with every step and reaches the optimum, then nothing moves any more.

    On the way: the performance difference, and both lower bounds of trust regions.
    """
    case, J, slack = _Case.tri3(), [], []
    for _ in range(15):
        before = case
        report = subjects["trust_region_step"](case.policy, case.batch, damping=0.0)
        case = case.again()
        told = before.moved(case.old)
        J.append(told.old)
        slack.append(min(told.new - told.kl_bound, told.new - told.tv_bound, 0.01 - told.kl))
    J.append(case.J)
    yield holds(
        "exact TRPO improves J every time",
        float(np.diff(J).min()),
        tolerance=0.0,
        source="theorem 1",
    )
    yield close("J* after 15 steps", J[-1], OPTIMUM, tolerance=1e-6, source=CARD)
    yield holds("both bounds, and the radius", min(slack), tolerance=1e-10, source="arXiv:1502.05477, theorem 1; arXiv:1705.10528, corollary 1")  # fmt: skip
    for _ in range(4):  # the law is 0 and 1 to the last bit
        report = subjects["trust_region_step"](case.policy, case.batch, damping=0.0)
        case = case.again()
    settled = [report.accepted, bool(torch.isfinite(case.policy.logits).all()), case.J]
    yield close("a deterministic policy stays", settled, [False, True, OPTIMUM], tolerance=1e-9, source=CARD)  # fmt: skip
    # the natural policy gradient from the uniform policy: its known rate
    model = random_mdp(np.random.default_rng(5), 4, 3, branching=4, gamma=0.8)
    case = _Case(model.P, model.R, 0.8, np.zeros((4, 3)), np.full(4, 0.25))
    eta, K = 2.0, 20
    best = case.start @ solve(as_mdp(model), tol=1e-12).values
    for _ in range(K):
        product = subjects["fisher_vector_product"](case.policy, case.states, mask=case.batch.mask)
        s, _ = subjects["conjugate_gradient"](product, case.gradient(subjects["surrogate_loss"]), num_iters=30)  # fmt: skip
        # s of the normalised surrogate is A, up to a constant per state
        expected = exact.softmax(case.logits + eta / 0.2 * case.A)
        case = _Case(
            case.P,
            case.R,
            case.gamma,
            case.logits + eta / 0.2 * s.reshape(4, 3).numpy(),
            case.start,
        )
        yield close("pi exp(eta A / (1 - gamma))", case.old, expected, tolerance=1e-7, source="arXiv:1908.00261, lemma 5.1")  # fmt: skip
    rate = np.log(3) / (eta * K) + (model.R.max() - model.R.min()) / (0.2**2 * K)
    yield holds("natural policy gradient: its rate", rate - (best - case.J), tolerance=0.0, source="arXiv:1908.00261, theorem 5.3")  # fmt: skip


def _invariance(subjects) -> Iterator[Check]:
    """logits = M theta: the natural step moves the policy alike whatever M is, the gradient does not."""
    case = _Case.tri3()
    rng = np.random.default_rng(3)
    mix = torch.from_numpy(rng.normal(size=(6, 6)) + 2.0 * np.eye(6))
    moved = []
    for matrix in (torch.eye(6, dtype=torch.float64), mix):
        policy = _Mixed(matrix, torch.from_numpy(case.logits))
        subjects["trust_region_step"](policy, case.batch, damping=0.0, max_kl=1e-4, radius="exact", num_cg_iters=30)  # fmt: skip
        moved.append(policy.distribution(torch.arange(3)).probs.detach().numpy())
    yield close("reparametrised", moved[1], moved[0], tolerance=3e-5, source="Kakade 2001")


def _contract(subjects, seed: int) -> Iterator[Check]:
    """Inside and better, measured anew, or bitwise what it was; a refusal by an error counts as the latter."""
    rng = np.random.default_rng(seed)
    policy, batch, settings = injected(rng)
    # not its law alone, which may hold views of the parameters
    before = copy.deepcopy(policy)
    try:
        report = subjects["trust_region_step"](policy, batch, **settings)
        accepted = bool(report.accepted)
    except DodonaError:
        accepted = False
    if not accepted:
        pairs = zip(before.parameters(), policy.parameters(), strict=True)
        same = all(torch.equal(a, b) for a, b in pairs)
        yield close(f"refused {seed}: nothing moved", same, True, tolerance=0.0, source="contract")
        return
    law, now = before.distribution(batch.obs), policy.distribution(batch.obs)
    weights = batch.mask.double() / batch.mask.double().sum()
    kl = float((weights * law.kl(now)).detach().sum())
    ratio = (now.log_prob(batch.actions) - law.log_prob(batch.actions)).exp().detach()
    gain = float((weights * (ratio - 1.0) * batch.advantages)[batch.mask].sum())
    yield holds(
        f"taken {seed}: inside",
        settings["max_kl"] * (1 + 1e-6) - kl,
        tolerance=0.0,
        source="contract",
    )
    # the gain as a sum of differences is right to the last digit, that of two means is not
    yield holds(f"taken {seed}: better", gain, tolerance=1e-15, source="contract")


def injected(rng: np.random.Generator) -> tuple[Any, Batch, dict[str, Any]]:
    """(policy, batch, settings) of anything that may come: odd radii, noise, NaN, deterministic laws, masks."""
    discrete = rng.random() < 0.5
    policy = MLPPolicy(3, 2, hidden=(6,), family="categorical" if discrete else "gaussian", seed=int(rng.integers(1000))).double()  # fmt: skip
    _stir(policy, rng, scale=float(rng.choice([0.1, 1.0, 30.0])))
    obs = torch.from_numpy(rng.normal(size=(12, 3)) * rng.choice([1.0, 100.0]))
    actions, logp_old = policy.sample(obs, rng=rng)
    advantages = torch.from_numpy(rng.normal(size=12) * rng.choice([1e-9, 1.0, 1e6]))
    kind = rng.integers(8)
    if kind == 0:
        advantages[3] = float(rng.choice([np.nan, np.inf]))
    elif kind == 1:
        advantages[:] = float(rng.choice([0.0, 2.5]))
    elif kind == 2:
        advantages = torch.where(torch.arange(12) == 5, advantages, 0.0)
    mask = (
        torch.from_numpy(rng.random(12) < 0.8)
        if rng.random() < 0.5
        else torch.ones(12, dtype=torch.bool)
    )
    mask[:2] = True
    settings = {
        "max_kl": float(rng.choice([1e-8, 1e-4, 0.01, 0.5, 10.0])),
        "damping": float(rng.choice([0.0, 1e-2, 0.1])),
        "damping_kind": str(rng.choice(["relative", "absolute"])),
        "radius": str(rng.choice(["backtrack", "exact"])),
        "backend": str(rng.choice(["gauss_newton", "double_backward", "scores"])),
        "num_cg_iters": int(rng.choice([1, 3, 10])),
    }
    batch = Batch(obs=obs, actions=actions, mask=mask, logp_old=logp_old, advantages=advantages)
    return policy, batch, settings


# ---------------------------------------------------------------------- private
class _Case:
    """A softmax table on a model, with its exact batch: every pair once, weighed by its share of the visits."""

    def __init__(self, P, R, gamma, logits, start):
        self.P, self.R, self.gamma, self.logits, self.start = P, R, gamma, logits, start
        self.old = exact.softmax(logits)
        q = exact.action_values(P, R, gamma, self.old)
        self.A = q - (self.old * q).sum(axis=1, keepdims=True)
        visits = exact.visitation(P, gamma, self.old, start=start)
        self.share = visits / visits.sum()
        self.J = float(start @ (self.old * q).sum(axis=1))
        self.policy = _table(logits)
        self.states = torch.arange(logits.size) // logits.shape[1]
        actions = torch.arange(logits.size) % logits.shape[1]
        self.batch = Batch(
            obs=self.states, actions=actions, mask=torch.from_numpy(self.share[:, None] * self.old).reshape(-1),
            logp_old=self.policy.log_prob(self.states, actions).detach(),
            advantages=torch.from_numpy(self.A).reshape(-1),
        )  # fmt: skip

    @classmethod
    def tri3(cls) -> "_Case":
        case = tri3()
        return cls(case.P, case.R, case.gamma, case.logits, case.start)

    def gradient(self, surrogate_loss: Callable[..., Tensor]) -> Tensor:
        b = self.batch
        loss = surrogate_loss(
            self.policy.log_prob(b.obs, b.actions), b.logp_old, b.advantages, b.mask
        )
        return -torch.autograd.grad(loss, self.policy.logits)[0].reshape(-1)

    def policy_now(self) -> np.ndarray:
        return exact.softmax(self.policy.logits.detach().numpy())

    def moved(self, new: np.ndarray) -> exact.Improvement:
        return exact.improvement_bounds(self.P, self.R, self.gamma, self.old, new, start=self.start)

    def again(self) -> "_Case":
        """The same model at the policy's present logits."""
        return _Case(
            self.P, self.R, self.gamma, self.policy.logits.detach().numpy().copy(), self.start
        )


class _Mixed(LawPolicy):
    """A table whose logits are M theta."""

    def __init__(self, matrix: Tensor, logits: Tensor):
        super().__init__()
        self.matrix, self.shape = matrix, logits.shape
        self.theta = nn.Parameter(torch.linalg.solve(matrix, logits.reshape(-1)))
        self.table = _table(logits.numpy())

    def distribution(self, obs, actions=None):
        logits = (self.matrix @ self.theta).reshape(self.shape)
        return type(self.table.distribution(obs))(logits[obs])

    def parameters(self, recurse: bool = True):
        yield self.theta


class _Line(LawPolicy):
    """A Gaussian whose mean and deviation are linear in the observation."""

    def __init__(self, rng: np.random.Generator):
        super().__init__()
        self.mean, self.log_std = (nn.Parameter(torch.from_numpy(0.5 * rng.normal(size=(3, 2)))) for _ in range(2))  # fmt: skip

    def distribution(self, obs, actions=None):
        return DiagonalGaussian(obs @ self.mean, obs @ self.log_std)


def _table(logits: np.ndarray) -> TablePolicy:
    policy = TablePolicy(*logits.shape).double()
    policy.logits.data = torch.from_numpy(np.array(logits))
    return policy


def _stir(policy: nn.Module, rng: np.random.Generator, scale: float = 1.0) -> None:
    """Weights away from their start, where all actions are nearly alike."""
    with torch.no_grad():
        for p in policy.parameters():
            p.add_(torch.from_numpy(rng.normal(size=tuple(p.shape)) * 0.3 * scale))


def _scores(policy: Any, obs: Tensor, actions: Tensor) -> np.ndarray:
    """[N, P] grad log pi, one backward pass per row."""
    rows = []
    for logp in policy.log_prob(obs, actions):
        pulled = torch.autograd.grad(logp, list(policy.parameters()), retain_graph=True)
        rows.append(torch.cat([g.reshape(-1) for g in pulled]).numpy())
    return np.stack(rows)


def _slope_difference(policy: Any, obs: Tensor, v: Tensor, h: float = 1e-5) -> np.ndarray:
    """[P] (grad KL(theta + h v) - grad KL(theta - h v)) / 2 h, KL the mean KL(old || new)."""
    old = copy.deepcopy(policy).distribution(obs)
    parameters = list(policy.parameters())
    start = torch.nn.utils.parameters_to_vector(parameters).detach().clone()
    slopes = []
    for at in (start + h * v, start - h * v, start):
        torch.nn.utils.vector_to_parameters(at, parameters)
        pulled = torch.autograd.grad(old.kl(policy.distribution(obs)).mean(), parameters)
        slopes.append(torch.cat([g.reshape(-1) for g in pulled]).numpy())
    return (slopes[0] - slopes[1]) / (2 * h)


def _rows(second: np.ndarray) -> np.ndarray:
    """Flat [6] of rows (-x, x)."""
    return np.stack([-second, second], axis=1).reshape(-1)
