"""Actor-critics against what is known exactly: three states by enumeration, a regulator by matrix equations.

On tri3 every step (s, a, s') has a probability, so that means of TD errors, of corrected and uncorrected
off-policy updates and of follow-on traces are sums. On the regulator a quadratic q gives the deterministic and
the Gaussian gradient in closed form. Then time: GAE, V-trace, the targets of TD3, copies that follow, replay.

Source: card actor-critic, sec. 4.  Not here: returns that are reached (recipes/actor_critic.py).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dodona import objectives, rl
from dodona.checks.actor_critic_bugs import MUTANTS
from dodona.checks.compare import close, each
from dodona.core.batch import Batch
from dodona.core.protocols import Check
from dodona.core.updates import GradientUpdate
from dodona.oracles import gradients as exact
from dodona.oracles.fixtures import Fixture, random_mdp, tri3
from dodona.oracles.lqr import LQR, lqr2
from dodona.oracles.returns import gae_by_definition, returns_by_definition, vtrace_by_definition
from dodona.policies import TablePolicy
from dodona.rl.features import OneHot

SUBJECTS: Mapping[str, Callable[..., Any]] = {
    name: getattr(objectives, name)
    for name in (
        "a2c", "dpg_loss", "follow_on", "gae", "n_step_returns", "reinforce_loss", "sarsa_target",
        "surrogate_loss", "td3_target", "td_target", "vtrace",
    )
} | {
    name: getattr(rl, name)
    for name in ("LSTDQ", "OffPolicyObjective", "ReplayBuffer", "TwoTimeScales", "td3_trainer")
}  # fmt: skip
__all__ = ["MUTANTS", "SUBJECTS", "run"]
EXACT, AUTOGRAD = 1e-12, 1e-10
CARD = "card actor-critic, sec. 4"
BEHAVIOUR = np.array([[0.5, 0.5], [0.8, 0.2], [0.3, 0.7]])
ROWS = {  # d J / d theta(s, 0), J = d_b . v
    "exact": (-0.784436, -2.906666, 2.557910),
    "semi": (-0.079712, -0.310970, 0.230237),
}


def run(subjects: Mapping[str, Callable[..., Any]], *, full: bool = False) -> Iterator[Check]:
    """Every check of the method; ``full`` takes 100 random models, and 50 random lanes, besides."""
    case = tri3()
    yield from each("tri3", _errors_are_advantages(subjects, case))
    yield from each("tri3", _critics(subjects, case))
    yield from each("tri3", _compatible(subjects))
    yield from each("tri3", _golden_rows(subjects))
    yield from each("tri3", _off_policy(subjects, case, BEHAVIOUR))
    for seed in range(100 if full else 1):
        rng = np.random.default_rng(seed)
        case = random_mdp(rng, 4, 3, branching=2, gamma=0.8)
        logits, behaviour = rng.normal(size=(4, 3)), rng.dirichlet(np.full(3, 3.0), size=4)
        case = replace(case, logits=logits)
        yield from each(f"model {seed}", _errors_are_advantages(subjects, case))
        yield from each(f"model {seed}", _off_policy(subjects, case, behaviour))
    yield from each("regulator", _regulator(subjects))
    for seed in range(50 if full else 2):
        yield from each(f"lanes {seed}", _lanes(subjects, seed))
    yield from _twins(subjects)
    yield from _apart(subjects)
    yield from _replay(subjects)


# ---------------------------------------------------------------------- critics
class _Steps:
    """Every (s, a, s') of a model that can be, with its rewards; policy and exact values of the logits."""

    def __init__(self, case: Fixture):
        self.case, self.policy = case, exact.softmax(case.logits)
        self.s, self.a, self.after = np.nonzero(case.P)
        self.chance = case.P[self.s, self.a, self.after]
        R = np.asarray(case.R)
        self.rewards = R[self.s, self.a, self.after] if R.ndim == 3 else R[self.s, self.a]
        self.q = exact.action_values(case.P, case.R, case.gamma, self.policy)
        self.v = (self.policy * self.q).sum(axis=1)

    def by_pair(self, x: np.ndarray) -> np.ndarray:
        """[S, A] the mean over successors."""
        out = np.zeros_like(self.policy)
        np.add.at(out, (self.s, self.a), self.chance * x)
        return out

    def batch(self, values: np.ndarray, **changes: Any) -> Batch:
        """One row per step, of one column."""
        column = {
            "obs": self.s, "actions": self.a, "rewards": self.rewards, "next_obs": self.after,
            "values": values[self.s], "next_values": values[self.after],
            "terminated": np.zeros(len(self.s), bool), "truncated": np.zeros(len(self.s), bool),
            "mask": np.ones(len(self.s)), **changes,
        }  # fmt: skip
        return Batch(**{name: torch.from_numpy(x)[:, None] for name, x in column.items()})


def _errors_are_advantages(subjects, case: Fixture) -> Iterator[Any]:
    """E[delta | s, a] = A(s, a) with the exact critic; with another it is off by gamma P (e) - e, no more."""
    steps = _Steps(case)
    advantages = steps.q - steps.v[:, None]
    rng = np.random.default_rng(1)
    for name, error in (("exact", np.zeros(len(steps.v))), ("wrong", rng.normal(size=len(steps.v)))):  # fmt: skip
        values = steps.v + error
        bias = case.gamma * case.P @ error - error[:, None]
        gammas = np.full(len(steps.s), case.gamma)
        delta = subjects["td_target"](steps.rewards, gammas, values[steps.after]) - values[steps.s]
        yield f"TD error, {name} critic", steps.by_pair(delta), advantages + bias, EXACT, "oracles.gradients"  # fmt: skip
        batch = steps.batch(values)
        found = subjects["a2c"](gamma=case.gamma, gae_lambda=0.0).prepare(batch).advantages
        yield f"A2C, {name} critic", steps.by_pair(found.numpy()[:, 0]), advantages + bias, EXACT, "oracles.gradients"  # fmt: skip


def _critics(subjects, case: Fixture) -> Iterator[Any]:
    """The mean step of either critic shrinks an error e to gamma P_pi e and has v or q as its only rest.

    LSTD is there at once.
    """
    steps = _Steps(case)
    gammas = np.full(len(steps.s), case.gamma)
    rng = np.random.default_rng(2)
    for name, size in (("at rest", 0.0), ("elsewhere", 1.0)):
        error = size * rng.normal(size=steps.q.shape)
        of_states = (steps.policy * error).sum(axis=1)
        mean = steps.by_pair(
            subjects["td_target"](steps.rewards, gammas, (steps.v + of_states)[steps.after])
        )
        truth = steps.q + case.gamma * case.P @ of_states
        yield f"TD critic {name}", mean, truth, EXACT, "oracles.gradients"
        targets = [
            subjects["sarsa_target"](steps.rewards, gammas, (steps.q + error)[steps.after], np.full(len(gammas), b))
            for b in range(error.shape[1])
        ]  # fmt: skip
        mean = steps.by_pair((steps.policy[steps.after].T * np.array(targets)).sum(axis=0))
        yield f"Sarsa critic {name}", mean, truth, EXACT, "oracles.gradients"
    lstd = subjects["LSTDQ"](OneHot(len(steps.v)), steps.q.shape[1], gamma=case.gamma, ridge=0.0)
    source = (steps.s, steps.a, steps.rewards, steps.after, np.zeros(len(gammas), bool))
    lstd.fit(source, steps.policy[steps.after], weights=steps.chance)
    yield "LSTD critic", lstd.q(np.arange(len(steps.v))), steps.q, 1e-9, "oracles.gradients"


def _compatible(subjects) -> Iterator[Any]:
    """q fitted by the scores, under the visits of pi: exact gradient, and (1 - gamma) times the natural one."""
    case = tri3()
    steps = _Steps(case)
    tables = (case.P, case.R, case.gamma)
    rho = exact.visitation(case.P, case.gamma, steps.policy, start=case.start)
    pairs = steps.policy.size
    scores = np.zeros((pairs, pairs))
    for k in range(pairs):
        theta = torch.tensor(case.logits, requires_grad=True)
        loss = subjects["reinforce_loss"](_log_softmax(theta).reshape(-1)[k : k + 1], torch.ones(1, dtype=torch.float64))  # fmt: skip
        scores[k] = -torch.autograd.grad(loss, theta)[0].reshape(-1).numpy()
    root = np.sqrt(rho[:, None] * steps.policy).reshape(-1)
    advantages = (steps.q - steps.v[:, None]).reshape(-1)
    w = np.linalg.lstsq(root[:, None] * scores, root * advantages, rcond=None)[0]
    theta = torch.tensor(case.logits, requires_grad=True)
    logp = _log_softmax(theta).reshape(-1)
    weight = torch.from_numpy(root**2)
    loss = subjects["surrogate_loss"](logp, logp.detach(), torch.from_numpy(scores @ w), weight)
    got = -torch.autograd.grad(loss * weight.sum(), theta)[0].reshape(-1).numpy()
    yield "compatible critic, gradient", got, exact.policy_gradient(*tables, case.logits, start=case.start), AUTOGRAD, "oracles.gradients"  # fmt: skip
    natural = exact.natural_gradient(*tables, case.logits, start=case.start)
    yield "compatible critic, weights", w, (1 - case.gamma) * natural, 1e-9, "oracles.gradients"
    yield "compatible critic, printed", w[1::2], [0.561873344, 1.604647628, -1.713771524], 6e-10, "card trpo, oracle 3"  # fmt: skip


# ---------------------------------------------------------------------- off policy
def _golden_rows(subjects) -> Iterator[Any]:
    found = {form: _actor_rows(subjects, tri3(), BEHAVIOUR, form)[0] for form in ROWS}
    for form, rows in ROWS.items():
        yield f"{form} rows", found[form][:, 0], rows, 6e-7, CARD
    semi, full = (found[form].ravel() for form in ("semi", "exact"))
    norms = np.linalg.norm(semi), np.linalg.norm(full)
    yield "semi to exact, cosine", semi @ full / (norms[0] * norms[1]), 0.9965822, 6e-8, CARD
    yield "semi to exact, norms", norms[0] / norms[1], 0.0999987, 6e-8, CARD


def _off_policy(subjects, case: Fixture, behaviour: np.ndarray) -> Iterator[Any]:
    """The mean update of actor and critic for every form, and of the trace over paths."""
    tables = (case.P, case.R, case.gamma, case.logits)
    for form, name in (
        ("exact", "exact"), ("semi", "semi"), ("clipped", "clipped"), ("none", "uncorrected"),
    ):  # fmt: skip
        truth = exact.off_policy_gradient(*tables, behaviour=behaviour, form=name)
        got, _ = _actor_rows(subjects, case, behaviour, form)
        yield f"actor, {form}", got.ravel(), truth, AUTOGRAD, "oracles.gradients.off_policy_gradient"  # fmt: skip
    steps = _Steps(case)
    error = np.cos(np.arange(len(steps.v)))
    shares = _shares(case, behaviour)
    ratio = steps.policy / behaviour
    for form, w in (
        ("semi", ratio), ("clipped", np.minimum(ratio, 1.0)), ("none", np.ones_like(ratio)),
    ):  # fmt: skip
        delta = steps.q + case.gamma * case.P @ error - (steps.v + error)[:, None]
        truth = shares * (behaviour * w * delta).sum(axis=1)
        _, got = _actor_rows(subjects, case, behaviour, form, error)
        yield f"critic, {form}", got, truth, AUTOGRAD, "enumeration"
    f = torch.from_numpy(np.sin(np.arange(steps.q.size)).reshape(steps.q.shape))
    logp, old = torch.from_numpy(np.log(steps.policy)), torch.from_numpy(np.log(behaviour))
    each_state = -subjects["surrogate_loss"](logp, old, f, torch.from_numpy(behaviour)) * len(f)
    yield "E_b[w f] = E_pi[f]", float(each_state), float((logp.exp() * f).sum()), 1e-13, "enumeration"  # fmt: skip
    yield from _emphatic(subjects, case, behaviour)


def _actor_rows(
    subjects, case: Fixture, behaviour: np.ndarray, form: str, error: np.ndarray | float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """([S, A], [S]) the mean steps of actor and critic, up: over d_b, behaviour and successors."""
    steps, shares = _Steps(case), _shares(case, behaviour)
    policy = _table(case)
    values = steps.v + error
    rho = exact.visitation(case.P, case.gamma, steps.policy, start=shares)
    objective = subjects["OffPolicyObjective"](
        policy, form=form, gamma=case.gamma,
        state_weights=(lambda _: rho / shares) if form == "exact" else None,
    )  # fmt: skip
    chance = shares[steps.s] * behaviour[steps.s, steps.a] * steps.chance
    batch = objective.prepare(
        steps.batch(values, logp_old=np.log(behaviour[steps.s, steps.a]))
    ).replace(mask=torch.from_numpy(chance)[:, None])
    critic = torch.tensor(values, requires_grad=True)
    loss, _ = objective(policy.log_prob(batch.obs, batch.actions), batch, values=critic[batch.obs])
    up = torch.autograd.grad(-loss, (policy.logits, critic))
    return up[0].numpy(), up[1].numpy()  # the chances add up to 1: a mean is the sum


def _emphatic(subjects, case: Fixture, behaviour: np.ndarray) -> Iterator[Any]:
    """Three steps from d_b on, the trace before them at its mean: the mean step is that of the exact form."""
    steps, shares = _Steps(case), _shares(case, behaviour)
    rho = exact.visitation(case.P, case.gamma, steps.policy, start=shares)
    paths = _paths(case, behaviour, shares, 3)
    policy = _table(case)
    objective = subjects["OffPolicyObjective"](policy, form="emphatic", gamma=case.gamma)
    objective.carry = torch.from_numpy((rho / shares - 1.0)[paths["obs"][:, 0]])
    flags = np.zeros(paths["obs"].shape, bool)
    columns = {
        "obs": paths["obs"], "actions": paths["actions"], "rewards": paths["rewards"],
        "next_obs": paths["after"], "values": steps.v[paths["obs"]], "next_values": steps.v[paths["after"]],
        "terminated": flags, "truncated": flags, "mask": np.ones(flags.shape),
        "logp_old": np.log(behaviour[paths["obs"], paths["actions"]]),
    }  # fmt: skip
    batch = objective.prepare(Batch(**{name: torch.from_numpy(x) for name, x in columns.items()}))
    last = np.zeros(flags.shape)
    last[:, -1] = paths["chance"]
    batch = batch.replace(mask=torch.from_numpy(last))
    logp = policy.log_prob(batch.obs, batch.actions)
    loss, _ = objective(logp, batch, values=batch.values)
    got = torch.autograd.grad(-loss, policy.logits)[0].numpy().ravel()
    truth = exact.off_policy_gradient(case.P, case.R, case.gamma, case.logits, behaviour=behaviour, form="exact")  # fmt: skip
    yield "actor, emphatic", got, truth, AUTOGRAD, "enumeration of paths"
    ratio = (steps.policy / behaviour)[paths["obs"], paths["actions"]]
    trace, carry = subjects["follow_on"](np.log(ratio), flags, flags, gamma=case.gamma, time_dim=1)
    chance = paths["chance"]
    one = case.gamma * ratio[:, 0]
    two = case.gamma * ratio[:, 1] * (1 + one)
    yield "trace", trace, np.stack([1 + 0 * one, 1 + one, 1 + two], axis=1), EXACT, "by hand"
    yield "trace, what goes on", carry, case.gamma * ratio[:, 2] * (1 + two), EXACT, "by hand"
    for flag in ("terminated", "truncated"):
        ends = {"terminated": flags.copy(), "truncated": flags.copy()}
        ends[flag][:, 1] = True
        again, _ = subjects["follow_on"](np.log(ratio), *ends.values(), gamma=case.gamma, time_dim=1)  # fmt: skip
        yield f"trace after {flag}", again[:, 2], np.ones(len(one)), EXACT, "by hand"
    mean = np.bincount(paths["obs"][:, 2], chance * trace[:, 2], minlength=len(shares))
    P_pi = np.einsum("sa,sat->st", steps.policy, case.P)
    step = case.gamma * P_pi
    yield "mean trace", mean, shares + shares @ step + shares @ step @ step, 1e-11, "powers of P_pi"


def _paths(case: Fixture, behaviour: np.ndarray, shares: np.ndarray, length: int) -> dict[str, np.ndarray]:  # fmt: skip
    """Every path of the behaviour, [N, length], and its chance [N]."""
    steps = _Steps(case)
    state, chance = np.arange(len(shares)), shares.copy()
    columns: list[np.ndarray] = []
    for _ in range(length):
        row, k = np.nonzero(state[:, None] == steps.s[None, :])
        chance = chance[row] * behaviour[steps.s[k], steps.a[k]] * steps.chance[k]
        columns = [c[row] for c in columns] + [k]
        state = steps.after[k]
    k = np.stack(columns, axis=1)
    return {
        "obs": steps.s[k], "actions": steps.a[k], "after": steps.after[k], "rewards": steps.rewards[k],
        "chance": chance,
    }  # fmt: skip


# ---------------------------------------------------------------------- regulator
def _regulator(subjects) -> Iterator[Any]:
    """The printed numbers; both gradients through torch; the Gaussian one comes near as sigma squared."""
    problem, K = lqr2(), np.array([[1.0, 1.0]])
    best = problem.optimal_gain()
    yield "optimal gain", best, [[2.42459864, 3.48542999]], 6e-9, CARD
    yield "optimal values", problem.optimal_values(), [[12.99907366, 3.62450601], [3.62450601, 4.84788059]], 6e-9, CARD  # fmt: skip
    yield "costs", [problem.cost(best), problem.cost(K)], [35.51543895, 52.78338473], 6e-9, CARD
    got = _deterministic(subjects, problem, K)
    yield "deterministic gradient", got, [[-0.77417909, -31.90274038]], 6e-9, CARD
    h = 1e-4
    central = [
        (problem.cost(K + h * e) - problem.cost(K - h * e)) / (2 * h) for e in np.eye(2)[:, None]
    ]
    yield "deterministic gradient, by differences", got[0], central, 1e-6, "central differences"
    yield "deterministic gradient at the optimum", _deterministic(subjects, problem, best), np.zeros((1, 2)), 1e-9, "optimality"  # fmt: skip
    sizes = []
    for sigma in (0.1, 0.2, 0.4):
        noisy = _gaussian(subjects, problem, K, sigma)
        yield f"Gaussian gradient, sigma {sigma}", noisy, problem.gaussian_gradient(K, sigma), 1e-8, "oracles.lqr"  # fmt: skip
        sizes.append(np.linalg.norm(noisy - got))
    slopes = np.diff(np.log(sizes)) / np.log(2.0)
    yield "Gaussian to deterministic, slope in sigma", slopes, [2.0, 2.0], 1e-6, "Silver et al. 2014, theorem 2"  # fmt: skip
    one = LQR(*[np.eye(1)] * 4, 0 * np.eye(1), np.eye(1), 0.9)
    yield "scalar case", [one.optimal_values()[0, 0], one.optimal_gain()[0, 0]], [1.5884033490, 0.5884033490], 6e-11, CARD  # fmt: skip


def _deterministic(subjects, problem: LQR, K: np.ndarray) -> np.ndarray:
    """dpg_loss through u = -K x, on states whose second moment is that of the discounted visits."""
    gain = torch.tensor(K, requires_grad=True)
    x = torch.from_numpy(np.linalg.cholesky(problem.state_moment(K)).T.copy())
    cost = _q(problem, K)(x, -x @ gain.T)
    loss = subjects["dpg_loss"](-cost)  # q in reward units
    return len(x) * torch.autograd.grad(loss, gain)[0].numpy()


def _gaussian(subjects, problem: LQR, K: np.ndarray, sigma: float) -> np.ndarray:
    """reinforce_loss of u = -K x + sigma e, e by quadrature, on states of its own visits."""
    gain = torch.tensor(K, requires_grad=True)
    nodes, weights = np.polynomial.hermite_e.hermegauss(6)
    x = torch.from_numpy(np.linalg.cholesky(problem.state_moment(K, sigma)).T.copy())
    x = x.repeat_interleave(len(nodes), 0)
    weights = torch.from_numpy(np.tile(weights / weights.sum(), len(K[0])))
    u = -x @ torch.from_numpy(K).T + sigma * torch.from_numpy(np.tile(nodes, len(K[0])))[:, None]
    logp = -0.5 * ((u + x @ gain.T) / sigma).square().sum(1)
    loss = subjects["reinforce_loss"](logp, -_q(problem, K)(x, u), weights)
    return len(K[0]) * torch.autograd.grad(loss, gain)[0].numpy()


def _q(problem: LQR, K: np.ndarray) -> Callable[[Tensor, Tensor], Tensor]:
    H, constant = problem.q(K)
    form = torch.from_numpy(H)

    def q(x: Tensor, u: Tensor) -> Tensor:
        z = torch.cat([x, u], dim=1)
        return ((z @ form) * z).sum(1) + constant

    return q


# ---------------------------------------------------------------------- time, targets, copies
def _lanes(subjects, seed: int) -> Iterator[Any]:
    """GAE and its limits, V-trace and its limit, on lanes that end and are cut."""
    rng = np.random.default_rng(seed)
    T, gamma = 12, 0.9
    rewards, values, after = (rng.normal(size=T) for _ in range(3))
    log_ratio = rng.normal(size=T)
    terminated, truncated = rng.random(T) < 0.15, rng.random(T) < 0.15
    # inside an episode the value after a row is that of the next row
    goes_on = ~(terminated | truncated)[:-1]
    after[:-1] = np.where(goes_on, values[1:], after[:-1])
    rows = (rewards, values, terminated, truncated)
    options = {"gamma": gamma, "next_values": after}
    for gae_lambda in (0.0, 0.7, 1.0):
        truth = gae_by_definition(rewards, values, terminated, truncated, gae_lambda=gae_lambda, **options)  # fmt: skip
        yield f"GAE {gae_lambda}", subjects["gae"](*rows, gae_lambda=gae_lambda, **options), truth, EXACT, "oracles.returns"  # fmt: skip
    delta = rewards + gamma * np.where(terminated, 0.0, after) - values
    yield "GAE 0 is the TD error", subjects["gae"](*rows, gae_lambda=0.0, **options), delta, EXACT, "definition"  # fmt: skip
    long = subjects["n_step_returns"](*rows, num_steps=T, **options)
    yield "GAE 1 is Monte Carlo less v", subjects["gae"](*rows, gae_lambda=1.0, **options), long - values, EXACT, "n-step returns"  # fmt: skip
    truth = returns_by_definition(rewards, values, terminated, truncated, num_steps=3, **options)
    yield "3 steps", subjects["n_step_returns"](*rows, num_steps=3, **options), truth, EXACT, "oracles.returns"  # fmt: skip
    on_policy = {"log_ratio": np.zeros(T), "rho_max": np.inf, "c_max": np.inf}
    targets, advantages = subjects["vtrace"](*rows, **on_policy, **options)
    yield "V-trace on policy, targets", targets, long, EXACT, "n-step returns"
    yield "V-trace on policy, advantages", advantages, long - values, EXACT, "n-step returns"
    bounds = {"log_ratio": log_ratio, "rho_max": 1.3, "c_max": 0.8}
    found = subjects["vtrace"](*rows, **bounds, **options)
    truth = vtrace_by_definition(rewards, values, terminated, truncated, **bounds, **options)
    for name, got, expected in zip(("targets", "advantages"), found, truth, strict=True):
        yield f"V-trace, {name}", got, expected, EXACT, "oracles.returns"


def _twins(subjects) -> Iterator[Check]:
    """TD3: its target where two actions are two numbers; copies that follow a network that stands still."""
    q1, q2 = np.array([[1.0, 4.0], [2.0, -3.0]]), np.array([[2.0, 3.0], [5.0, -2.0]])
    rewards, discounts = np.array([[1.0, 1.0], [-1.0, 0.5]]), np.array([[0.5, 0.5], [0.5, 0.0]])
    got = subjects["td3_target"](rewards, discounts, q1, q2)
    yield close("TD3 target", got, [[1.5, 2.5], [0.0, 0.5]], tolerance=EXACT, source="by hand")
    config = rl.TD3Config(
        num_env_steps=14, learning_starts=4, batch_size=4, buffer_size=40, train_every=2, gradient_steps=2,
        policy_delay=1, tau=0.3, actor_lr=1e-30, critic_lr=1e-30, hidden=(3,), record_every=14, divergence=np.inf,
    )  # fmt: skip
    trainer = subjects["td3_trainer"](None, None, rl.make_env("Pendulum-v1", 2, seed=0), config)
    parts = {
        "actor": (trainer.policy, trainer.target_policy),
        "critics": (trainer.critics, trainer.target_critics),
    }
    gaps = {}
    with torch.no_grad():
        for name, (online, copy) in parts.items():
            for p in copy.parameters():
                p.add_(1.0)
            gaps[name] = _flat(copy) - _flat(online)
    for _ in trainer:
        pass
    left = (1.0 - config.tau) ** trainer.num_updates
    for name, (online, copy) in parts.items():
        yield close(f"copy of the {name}", _flat(copy) - _flat(online), left * gaps[name], tolerance=1e-5, source="theta + (1 - tau)^n (theta'_0 - theta)")  # fmt: skip


def _apart(subjects) -> Iterator[Check]:
    """Neither step of an actor-critic on two time scales touches the other's parameters, not by a bit."""
    case = tri3()
    steps = _Steps(case)
    policy, critic = _table(case), rl.TableCritic(3).double()
    sgd = {"optimizer": "sgd", "lr": 0.1, "max_grad_norm": None}
    bound = subjects["TwoTimeScales"](
        actor=GradientUpdate(**sgd), critic=GradientUpdate(**sgd)
    ).bind(policy, critic)
    objective = rl.OffPolicyObjective(policy, form="semi", gamma=case.gamma)
    batch = objective.prepare(
        steps.batch(np.zeros(3), logp_old=np.log(BEHAVIOUR[steps.s, steps.a]))
    )
    rng = np.random.default_rng(0)
    for name, other in (("actor", critic), ("critic", policy)):
        mine = policy if name == "actor" else critic
        before, own = _flat(other), _flat(mine)
        getattr(bound, name).run(batch, objective, rng=rng, step=0)
        yield close(f"a step of the {name} leaves the other alone", _flat(other), before, tolerance=0.0, source="definition")  # fmt: skip
        moved = float(np.abs(_flat(mine) - own).max() > 0)
        yield close(f"a step of the {name} moves itself", moved, 1.0, tolerance=0.0, source="definition")  # fmt: skip


def _replay(subjects) -> Iterator[Check]:
    """Every stored row is drawn equally often: chi-square of 20 rows, level 1e-6."""
    size, num = 20, 4000
    buffer = subjects["ReplayBuffer"](size)
    zeros, flags = torch.zeros(size), torch.zeros(size, dtype=torch.bool)
    buffer.push(zeros, torch.zeros(size, dtype=torch.int64), zeros, zeros, flags, flags)
    drawn = buffer.sample(num, rng=np.random.default_rng(0)).info["indices"].numpy()
    counts = np.bincount(drawn, minlength=size)
    chi = ((counts - num / size) ** 2 / (num / size)).sum()
    # 68.0 is the quantile of chi-square with 19 degrees of freedom at 1 - 2e-7
    yield close("replay is even, chi-square", chi, 34.0, tolerance=34.0, source="uniform draws")


# ---------------------------------------------------------------------- private
def _shares(case: Fixture, behaviour: np.ndarray) -> np.ndarray:
    """d_b, the long-run shares of states under the behaviour."""
    step = np.einsum("sa,sat->st", behaviour, case.P)
    return np.full(len(step), 1 / len(step)) @ np.linalg.matrix_power(step, 4096)


def _table(case: Fixture) -> TablePolicy:
    policy = TablePolicy(*case.logits.shape).double()
    with torch.no_grad():
        policy.logits.copy_(torch.from_numpy(np.asarray(case.logits)))
    return policy


def _flat(module: nn.Module) -> np.ndarray:
    return np.concatenate([p.detach().double().numpy().ravel() for p in module.parameters()])


def _log_softmax(x: Tensor) -> Tensor:
    return x - x.logsumexp(1, keepdim=True)
