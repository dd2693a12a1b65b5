"""PPO's objective against worked numbers, loops over single samples, and exact runs on three states.

Worked numbers first. Then every switch of the policy loss, value and slope, against cases written out sample by
sample; critics; the coefficient that adapts. Last the whole method without a sample: exact advantages and
visits on tri3, where the first step is the policy gradient and later ones have golden numbers, among them
that clipping does not bound the ratio; with samples, on a contextual bandit. Seeds are fixed.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dodona import objectives
from dodona.checks._loss_cases import loss_case
from dodona.checks.compare import close, each, holds
from dodona.checks.ppo_bugs import MUTANTS
from dodona.core.batch import Batch
from dodona.core.kl import kl_estimate
from dodona.core.protocols import Check
from dodona.mdp import MDP, worlds
from dodona.objectives import ppo
from dodona.oracles import gradients as exact
from dodona.oracles import losses as oracle
from dodona.oracles import ppo_styles
from dodona.oracles.fixtures import tri3
from dodona.oracles.statistics import kl_categorical, whiten
from dodona.rl import PPOConfig, mdp_env, ppo_trainer

SUBJECTS: Mapping[str, Callable[..., Any]] = {
    name: getattr(objectives, name)
    for name in (
        "policy_loss", "ppo_clip_loss", "ppo_kl_loss", "value_loss", "ratio_diagnostics", "AdaptiveKL", "ppo",
    )
} | {"kl_estimate": kl_estimate, "ppo_trainer": ppo_trainer}  # fmt: skip
__all__ = ["MUTANTS", "SUBJECTS", "run"]
EXACT = 1e-12
CARD = "card ppo, sec. 4"
OPTIMUM = 23.9554510238


def run(subjects: Mapping[str, Callable[..., Any]], *, full: bool = False) -> Iterator[Check]:
    """Every check of the method; ``full`` takes more random switches, 300 iterations instead of 50, and dives."""
    yield from _table(subjects)
    yield from _critics(subjects)
    yield from _divergence(subjects)
    for seed in range(2000 if full else 36):
        yield from each(f"switches {seed}", _switches(subjects, seed))
    yield from _bounds(subjects)
    yield from _whole(subjects)
    yield from _from_weights(subjects)
    yield from _first_step(subjects)
    yield from _learnt(subjects, full=full)
    yield from _exact_run(subjects, full=full)


def _table(subjects) -> Iterator[Check]:
    """Value and slope in the ratio of one sample; at ratio 1 REINFORCE, bit for bit."""
    rows = [
        (1.0, 0.5, 0.5, 1.0, {}), (1.0, 1.1, 1.1, 1.0, {}), (1.0, 1.5, 1.2, 0.0, {}),
        (-1.0, 0.5, -0.8, 0.0, {}), (-1.0, 0.9, -0.9, -1.0, {}), (-1.0, 1.5, -1.5, -1.0, {}),
        (-1.0, 5.0, -3.0, 0.0, {"dual_clip": 3.0}), (1.0, 5.0, 1.2, 0.0, {"dual_clip": 3.0}),
        (1.0, 1.25, 1.25, 1.0, {"clip_eps_high": 0.28}), (1.0, 1.3, 1.28, 0.0, {"clip_eps_high": 0.28}),
    ]  # fmt: skip
    for A, r, value, slope, options in rows:
        loss, gradient = _one(
            subjects["ppo_clip_loss"], np.log([r]), np.zeros(1), np.array([A]), **options
        )
        name = f"A {A:g}, ratio {r:g}" + "".join(f", {k} {v:g}" for k, v in options.items())
        yield close(name, [-loss, -gradient.item() / r], [value, slope], tolerance=EXACT, source=CARD)  # fmt: skip
    rng = np.random.default_rng(0)
    logp, A = rng.normal(size=8), rng.normal(size=8)
    _, got = _one(subjects["ppo_clip_loss"], logp, logp, A)
    yield close("at ratio 1 the slopes of REINFORCE", got, -A / 8, tolerance=0.0, source="definition")  # fmt: skip


def _critics(subjects) -> Iterator[Check]:
    """The four losses of critics, value and slope."""
    for v, kind, value, slope in (
        (1.0, "mse", 0.5, -1.0), (1.0, "clipped", 1.125, 0.0), (1.0, "clipped_no_max", 1.125, 0.0),
        (-1.0, "clipped", 4.5, -3.0), (-1.0, "clipped_no_max", 3.125, 0.0), (-1.0, "huber", 2.5, -1.0),
    ):  # fmt: skip
        clip = {"values_old": np.zeros(1), "clip_eps": 0.5} if "clipped" in kind else {}
        loss, gradient = _one(
            subjects["value_loss"], np.array([v]), np.array([2.0]), kind=kind, **clip
        )
        yield close(f"critic {kind}, v {v:g}", [loss, gradient.item()], [value, slope], tolerance=EXACT, source=CARD)  # fmt: skip
    for seed in range(12):
        rng = np.random.default_rng(seed)
        v, G, old = rng.normal(size=(3, 3, 4))
        kind = ("mse", "clipped", "clipped_no_max", "huber")[seed % 4]
        options = {"kind": kind, "reduction": ("token", "sequence", "fixed")[seed % 3]}
        if "clipped" in kind:
            options |= {"values_old": old, "clip_eps": 0.3}
        mask = np.array([[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1]], dtype=bool)
        loss, slopes = _one(subjects["value_loss"], v, G, mask, **options)
        truth = oracle.value_loss(v, G, mask, **options)
        yield from each(f"critic {seed}", _both(kind, loss, slopes, truth))


def _divergence(subjects) -> Iterator[Check]:
    """Estimates of KL by enumeration, and the coefficient on a scripted sequence of them."""
    p, q = np.array([0.5, 0.3, 0.2]), np.array([0.4, 0.4, 0.2])
    truth = kl_categorical(p, q)
    yield close("KL of the worked law", truth, 0.0252671539, tolerance=5.1e-11, source="card trpo, sec. 4")  # fmt: skip
    for kind, mean in (("k1", truth), ("k2", 0.0248624073), ("k3", truth)):
        got = float(p @ subjects["kl_estimate"](np.log(p), np.log(q), kind=kind))
        yield close(f"mean of {kind}", got, mean, tolerance=5.1e-11, source="card trpo, sec. 4")
    # the old law drew the samples, so the weights are p
    logp, old, weights = (torch.tensor(x) for x in (np.log(q), np.log(p), p))
    A = torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64)
    found = subjects["ratio_diagnostics"](logp, old, A, weights, clip_eps=0.19)
    for name, expected in (
        ("kl_old", truth), ("kl_old_k1", truth), ("ratio_max", 4 / 3), ("clip_fraction", 0.3),
        ("ess", 1 / float(p @ (q / p) ** 2)),
    ):  # fmt: skip
        yield close(f"diagnostics: {name}", float(found[name]), expected, tolerance=1e-12, source="enumeration")  # fmt: skip
    adaptive = subjects["AdaptiveKL"](target=0.03, kl_coef=1.0)
    got = [adaptive.update(kl) for kl in (0.019, 0.021, 0.03, 0.044, 0.046, 0.046, 0.0)]
    yield close(
        "adaptive coefficient", got, [0.5, 0.5, 0.5, 0.5, 1.0, 2.0, 1.0], tolerance=0.0,
        source="arXiv:1707.06347, sec. 4",
    )  # fmt: skip


def _switches(subjects, seed: int) -> Iterator[Any]:
    arrays, switches = loss_case(seed)
    loss, slopes = _one(subjects["policy_loss"], *arrays.values(), **switches)
    truth = oracle.policy_loss(**arrays, **switches)
    what = switches.get("surrogate", "REINFORCE")
    yield from _both(f"{what}, ratio {switches.get('ratio', 'token')}", loss, slopes, truth)


def _bounds(subjects) -> Iterator[Check]:
    """Pessimism, monotony, the penalty with the same gradient, and what may not matter."""
    clip, source = subjects["ppo_clip_loss"], "definition"
    rng = np.random.default_rng(5)
    logp = rng.normal(-1.0, 0.4, (6, 5))
    old, A = logp + rng.normal(0, 0.4, (6, 5)), rng.normal(size=(6, 5))
    r = np.exp(logp - old)
    single = np.array([_one(clip, logp[i : i + 1, t], old[i : i + 1, t], A[i : i + 1, t])[0] for i, t in np.ndindex(6, 5)])  # fmt: skip
    slack = float((single - (-r * A).ravel()).min())
    yield holds("never above the unclipped objective", slack, tolerance=EXACT, source=source)
    same, _ = _one(clip, old, old, A)
    yield close("its value where nothing moved", -same, A.mean(), tolerance=EXACT, source=source)
    losses = [_one(clip, logp, old, A, clip_eps=eps)[0] for eps in (0.05, 0.1, 0.2, 0.4, 0.8)]
    yield holds("a wider clip never costs", float(-np.diff(losses).max()), tolerance=EXACT, source=source)  # fmt: skip
    order = rng.permutation(6)
    yield close("order of the batch", _one(clip, logp[order], old[order], A[order])[0], _one(clip, logp, old, A)[0], tolerance=EXACT, source=source)  # fmt: skip
    # where the clip kills r A grad logp, a penalty b (ln r)^2 / 2 with b = r A / ln r >= 0 kills it as well
    x = torch.tensor(logp, requires_grad=True)
    stopped = ((A > 0) & (r > 1.2)) | ((A < 0) & (r < 0.8))
    b = torch.tensor(np.where(stopped, r * A / (logp - old), 0.0))
    yield holds("coefficients of the penalty", float(b.min()), tolerance=0.0, source="arXiv:2606.23932")  # fmt: skip
    fixed, advantages = torch.tensor(old), torch.tensor(A)
    loss = subjects["ppo_kl_loss"](x, fixed, advantages, kl=0.5 * b * (x - fixed) ** 2, kl_coef=1.0)
    got, _ = _gradient(loss, x)
    truth = oracle.policy_loss(logp, old, A).slopes
    yield close("a penalty with the gradient of the clip", got, truth, tolerance=1e-10, source="arXiv:2606.23932")  # fmt: skip


def _whole(subjects) -> Iterator[Check]:
    """The three terms as CleanRL and Stable-Baselines3 compute them, re-derived; one minibatch."""
    rng = np.random.default_rng(3)
    shape = (4, 6)
    logp = rng.normal(-1.0, 0.3, shape)
    old, A, v, old_v, G = logp + rng.normal(0, 0.3, shape), *rng.normal(size=(4, *shape))
    entropy = rng.random(shape)
    mask = np.ones(shape, dtype=bool)
    for style, kind, value_coef in (("CleanRL", "clipped", 0.5), ("SB3", "mse", 1.0)):
        objective = subjects["ppo"](value_kind=kind, value_coef=value_coef, entropy_coef=0.01)
        leaves = [torch.tensor(x, requires_grad=True) for x in (logp, v, entropy)]
        for affine, scores in (("", A), (", advantages moved and stretched", 3.0 * A + 7.0)):
            batch = Batch(
                obs=torch.zeros(shape), actions=torch.zeros(shape), mask=torch.tensor(mask),
                logp_old=torch.tensor(old), values=torch.tensor(old_v), returns=torch.tensor(G),
                advantages=torch.tensor(scores),
            )  # fmt: skip
            terms = objective.terms(leaves[0], batch, values=leaves[1], entropy=leaves[2])
            loss = torch.stack(list(terms.values())).sum()
            slopes = [g.numpy() for g in torch.autograd.grad(loss, leaves)]
            clip = {"values_old": old_v, "clip_eps": 0.2} if kind == "clipped" else {}
            policy = oracle.policy_loss(logp, old, whiten(A))
            critic = oracle.value_loss(v, G, kind=kind, **clip)
            total = policy.value + value_coef * critic.value - 0.01 * entropy.mean()
            truth = [policy.slopes, value_coef * critic.slopes, np.full(shape, -0.01 / mask.size)]
            name = f"the whole loss, {style}{affine}"
            yield close(name, loss.item(), total, tolerance=1e-7, source=style)
            yield close(f"{name}: slopes", np.stack(slopes), np.stack(truth), tolerance=1e-7, source=style)  # fmt: skip


def _from_weights(subjects) -> Iterator[Check]:
    """One rollout, one set of weights: loss and all slopes of CleanRL's and Stable-Baselines3's formulas."""
    rng = np.random.default_rng(11)
    N, F, A = 24, 3, 4
    W, w, x = rng.normal(size=(F, A)), rng.normal(size=F), rng.normal(size=(N, F))
    actions = rng.integers(A, size=N)
    logp = np.log(exact.softmax(x @ W))[np.arange(N), actions]
    old, scores, G = logp + rng.normal(0, 0.3, N), rng.normal(2.0, 3.0, N), rng.normal(size=N)
    before = x @ w + rng.normal(0, 0.4, N)
    arrays = (W, w, x, actions, old, scores, G, before)
    for style, options, truth in (
        ("CleanRL", {"value_kind": "clipped", "value_coef": 0.5, "entropy_coef": 0.01},
         ppo_styles.cleanrl_loss(*arrays)),
        ("SB3", {"value_coef": 1.0}, ppo_styles.sb3_loss(*arrays)),
        ("SB3 with clip_range_vf", {"value_kind": "clipped_no_max", "value_coef": 1.0, "value_clip_eps": 0.3, "entropy_coef": 0.02},
         ppo_styles.sb3_loss(*arrays, value_clip=0.3, entropy_coef=0.02)),
    ):  # fmt: skip
        policy, critic = (torch.tensor(weights, requires_grad=True) for weights in (W, w))
        every = _log_softmax(torch.tensor(x) @ policy)
        batch = Batch(
            obs=torch.tensor(x), actions=torch.tensor(actions), mask=torch.ones(N, dtype=torch.bool),
            logp_old=torch.tensor(old), advantages=torch.tensor(scores), returns=torch.tensor(G),
            values=torch.tensor(before),
        )  # fmt: skip
        terms = subjects["ppo"](**options).terms(
            every.gather(1, batch.actions[:, None])[:, 0], batch, values=torch.tensor(x) @ critic,
            entropy=-(every.exp() * every).sum(1),
        )  # fmt: skip
        loss = torch.stack(list(terms.values())).sum()
        in_W, in_w = torch.autograd.grad(loss, (policy, critic))
        name = f"from weights, {style}"
        yield close(name, loss.item(), truth.value, tolerance=1e-7, source=style)
        yield close(f"{name}: slopes of the policy", in_W.numpy(), truth.policy_slopes, tolerance=1e-7, source=style)  # fmt: skip
        yield close(f"{name}: slopes of the critic", in_w.numpy(), truth.critic_slopes, tolerance=1e-7, source=style)  # fmt: skip


def _first_step(subjects) -> Iterator[Check]:
    """By enumeration on tri3: first the policy gradient, then the masked sum of the card."""
    case = tri3()
    tables = (case.P, case.R, case.gamma)
    truth = exact.policy_gradient(*tables, case.logits, start=case.start) / 10
    got, _ = _step(subjects, case.logits, case.logits)
    yield close("first step on tri3: the policy gradient", got, truth.reshape(3, 2), tolerance=EXACT, source="oracles.gradients")  # fmt: skip
    shifted, _ = _step(subjects, case.logits + np.array([[3.0], [-7.0], [40.0]]), case.logits)
    yield close("logits moved by a constant per state", shifted, got, tolerance=1e-11, source="softmax")  # fmt: skip
    new = case.logits + np.array([[0.0, 0.5], [-0.3, 0.3], [0.6, -0.4]])
    got, _ = _step(subjects, new, case.logits)
    weights, A = _exact_sample(case.logits)
    pi, r = exact.softmax(new), exact.softmax(new) / exact.softmax(case.logits)
    pull = weights * np.where(((A > 0) & (r > 1.2)) | ((A < 0) & (r < 0.8)), 0.0, r * A)
    truth = pull - pull.sum(axis=1, keepdims=True) * pi
    yield close("a later step on tri3: the masked sum", got, truth, tolerance=EXACT, source=CARD)


def _learnt(subjects, *, full: bool) -> Iterator[Check]:
    """The whole method with samples, judged by the exact value of what it has learnt."""
    pays = np.array([[1.0, 0.5, 0.0], [0.2, 0.9, 0.4], [0.0, 0.3, 0.8], [0.6, 0.1, 0.5], [0.0, 0.0, 0.0]])  # fmt: skip
    over = np.zeros((5, 3, 5))
    over[..., 4] = 1.0
    bandit = MDP.from_dense(over, pays, gamma=1.0, terminal=[4], start=np.array([1.0, 1, 1, 1, 0]) / 4)  # fmt: skip
    policy = _trained(subjects, bandit, num_updates=12, num_steps=4, lr=0.1)
    value = float((policy * pays)[:4].sum() / 4)
    yield holds("contextual bandit: 95 % of the optimum", value - 0.95 * 0.825, tolerance=0.0, source="the best arm of each context")  # fmt: skip
    if not full:
        return
    for bonus in (0.0, 0.01):
        sea = worlds.deep_sea(5)
        policy = _trained(subjects, sea, num_updates=40, num_steps=10, lr=0.03, entropy_coef=bonus)
        down = [0, 2, 5, 9, 14]  # the diagonal: right five times
        chance = float(np.prod(policy[down, 1]))
        yield holds(f"DeepSea of 5, entropy bonus {bonus:g}: dives", chance - 0.9, tolerance=0.0, source="arXiv:1908.03568")  # fmt: skip


def _exact_run(subjects, *, full: bool) -> Iterator[Check]:
    """PPO without a sample, ten plain steps per iteration."""
    runs = [(1.0, 50, 0.99855622, 1.44886108), (5.0, 10, None, 2.41476991)]
    if full:
        runs.append((1.0, 300, 0.99978657, 1.44886108))
    case = tri3()
    for lr, num, share, largest in runs:
        logits, J, ratios = case.logits, [], []
        for _ in range(num):
            J.append(exact.objective(case.P, case.R, case.gamma, logits, start=case.start))
            old, sample = logits, _exact_sample(logits)
            for _ in range(10):
                step, _ = _step(subjects, logits, old, sample)
                logits = logits + lr * step
                ratios.append(float((exact.softmax(logits) / exact.softmax(old)).max()))
        J.append(exact.objective(case.P, case.R, case.gamma, logits, start=case.start))
        name = f"exact PPO, lr {lr:g}, {num} iterations"
        yield holds(f"{name}: J never falls", float(np.diff(J).min()), tolerance=1e-12, source=CARD)
        yield close(f"{name}: largest ratio", max(ratios), largest, tolerance=1e-6, source=CARD)
        if share is not None:
            yield close(f"{name}: J / J*", J[-1] / OPTIMUM, share, tolerance=1e-6, source=CARD)


# ---------------------------------------------------------------------- private
def _trained(subjects, model, *, num_updates, num_steps, lr, entropy_coef=0.0) -> np.ndarray:
    """[S, A] the policy that ppo_trainer ends with."""
    config = PPOConfig(
        num_env_steps=num_updates * num_steps * 32, num_steps=num_steps, epochs=4, minibatches=2, lr=lr,
        objective=ppo(gamma=1.0, entropy_coef=entropy_coef),
    )  # fmt: skip
    trainer = subjects["ppo_trainer"](None, mdp_env(model, 32, seed=0), config=config)
    for _ in trainer:
        pass
    with torch.no_grad():
        return trainer.policy.distribution(torch.arange(model.num_states)).probs.numpy()


def _exact_sample(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """([S, A] the chance of each pair under normalised visits, [S, A] exact advantages) of a table on tri3."""
    case, policy = tri3(), exact.softmax(logits)
    rho = exact.visitation(case.P, case.gamma, policy, start=case.start)
    q = exact.action_values(case.P, case.R, case.gamma, policy)
    return rho[:, None] / rho.sum() * policy, q - (policy * q).sum(axis=1, keepdims=True)


def _step(subjects, logits, old, sample=None) -> tuple[np.ndarray, float]:
    """(the direction of ascent [S, A], the loss): every pair once, weighed by its chance."""
    weights, A = _exact_sample(old) if sample is None else sample
    x = torch.tensor(logits, requires_grad=True)
    logp_old = _log_softmax(torch.tensor(old))
    loss = subjects["ppo_clip_loss"](
        _log_softmax(x), logp_old, torch.tensor(A), torch.tensor(weights), denom=1.0
    )
    gradient, value = _gradient(loss, x)
    return -gradient, value


def _one(function, first, *rest, **options) -> tuple[float, np.ndarray]:
    """(loss, its slopes in the first argument) from NumPy arrays."""
    x = torch.tensor(first, requires_grad=True)
    rest = [None if y is None else torch.tensor(y) for y in rest]
    options = {k: torch.tensor(y) if isinstance(y, np.ndarray) else y for k, y in options.items()}
    gradient, value = _gradient(function(x, *rest, **options), x)
    return value, gradient


def _gradient(loss: Tensor, x: Tensor) -> tuple[np.ndarray, float]:
    (found,) = torch.autograd.grad(loss, x)
    return found.numpy(), loss.item()


def _both(name: str, loss: float, slopes: np.ndarray, truth: oracle.Loss) -> Iterator[Any]:
    yield name, loss, truth.value, 1e-11, "loops"
    yield f"{name}: slopes", slopes, truth.slopes, 1e-11, "loops"


def _log_softmax(x: Tensor) -> Tensor:
    # torch's own wakes its threads for six numbers, which takes milliseconds on a busy machine
    return x - x.logsumexp(1, keepdim=True)
