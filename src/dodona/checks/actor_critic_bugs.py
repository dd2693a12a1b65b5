"""Wrong actor-critics, as tutorials and libraries had them: each of which the checks must catch.

All of them run, and many of them learn something: a ratio on one of two updates, a trace that runs on into the
next episode, the larger of two critics, an optimiser that holds both networks.

Source: card actor-critic, sec. 9 (reports in public code).  Not here: the checks (actor_critic.py).
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from dodona import objectives
from dodona.core.protocols import Mutant
from dodona.objectives import follow_on, gae, n_step_returns, vtrace
from dodona.rl import LSTDQ, OffPolicyObjective, ReplayBuffer, TwoTimeScales, td3_trainer


# ---------------------------------------------------------------------- off policy
class _Given(OffPolicyObjective):
    """The objective on a batch whose behaviour, or whose prepared numbers, are not what they were."""

    def prepare(self, batch, *, moments=None):
        done = super().prepare(batch, moments=moments)
        return self.changed(done)

    def changed(self, done):
        return done


class _ActorOnly(_Given):
    """The ratio on the actor's update and not on the critic's, which learns the behaviour's values."""

    def __call__(self, logp, batch, *, values, denom=None):
        loss, numbers = super().__call__(logp, batch, values=values, denom=denom)
        if self.form not in ("semi", "exact", "emphatic"):
            return loss, numbers
        ratio = (logp.detach() - batch.logp_old).exp()
        weight = batch.mask / batch.mask.sum()
        errors = 0.5 * (values - batch.returns) ** 2
        return loss + (weight * (1 - ratio) * errors).sum(), numbers


class _CriticOnly(OffPolicyObjective):
    """The ratio on the critic's update and not on the actor's."""

    def __call__(self, logp, batch, *, values, denom=None):
        loss, numbers = super().__call__(logp, batch, values=values, denom=denom)
        if self.form in ("clipped", "none"):
            return loss, numbers
        ratio = (logp - batch.logp_old).exp()
        weight = batch.mask / batch.mask.sum()
        return loss + (weight * batch.advantages * (ratio - logp)).sum(), numbers


class _UpsideDown(OffPolicyObjective):
    """Behaviour over policy."""

    def __call__(self, logp, batch, *, values, denom=None):
        turned = batch.replace(logp_old=2 * logp.detach() - batch.logp_old)
        return super().__call__(logp, turned, values=values, denom=denom)


class _Behind(_Given):
    """The target in training: the critic's step sees the gradient of v(s') of nobody, and half of delta."""

    def changed(self, done):
        return done.replace(returns=done.returns - self.gamma * done.next_values)


class _SemiForAll(OffPolicyObjective):
    """Every form is the semi-gradient: weights and traces are read and thrown away."""

    def __init__(self, policy, *, form, **options):
        options.pop("state_weights", None)
        form = "semi" if form in ("exact", "emphatic") else form
        super().__init__(policy, form=form, **options)


class _Unclipped(OffPolicyObjective):
    """V-trace without its bound."""

    def __init__(self, policy, *, form, **options):
        super().__init__(policy, form=form, **options)
        self.ratio_max = np.inf


def _trace(change: Callable[..., Any]) -> Callable[..., Any]:
    """follow_on with other arguments: change(log_ratio, terminated, truncated, options) -> the same."""

    def wrong(log_ratio, terminated, truncated, **options):
        args, options = change(log_ratio, terminated, truncated, dict(options))
        return follow_on(*args, **options)

    return wrong


def _own_ratio(log_ratio, terminated, truncated, **options):
    """F_t with the ratio of its own step: w_t F_t for F_t."""
    trace, carry = follow_on(log_ratio, terminated, truncated, **options)
    xp = torch if isinstance(log_ratio, torch.Tensor) else np
    return xp.exp(log_ratio) * trace, carry


def _decayed(log_ratio, terminated, truncated, **options):
    """F without the new interest of every step: a product of ratios alone."""
    trace, carry = follow_on(log_ratio, terminated, truncated, **options)
    return trace - 1.0 + (trace == 1.0), carry


# ---------------------------------------------------------------------- targets and time
def _greedy(rewards, discounts, next_q, next_actions):
    return rewards + discounts * next_q.max(-1)


def _dead_bootstrap(rewards, values, terminated, truncated, **options):
    return gae(rewards, values, terminated & False, truncated | terminated, **options)


def _cut_is_end(rewards, values, terminated, truncated, **options):
    return gae(rewards, values, terminated | truncated, truncated & False, **options)


def _gamma_twice(rewards, values, terminated, truncated, *, gamma, gae_lambda, **options):
    return gae(rewards, values, terminated, truncated, gamma=gamma, gae_lambda=gamma * gae_lambda, **options)  # fmt: skip


def _one_step_more(*rows, num_steps, **options):
    return n_step_returns(*rows, num_steps=num_steps + 1, **options)


def _ratio_once_more(*rows, log_ratio, rho_max, **options):
    targets, advantages = vtrace(*rows, log_ratio=log_ratio, rho_max=rho_max, **options)
    return targets, advantages * np.minimum(rho_max, np.exp(log_ratio))


def _swapped_bounds(*rows, rho_max, c_max, **options):
    return vtrace(*rows, rho_max=c_max, c_max=c_max, **options)


def _whitened(**options):
    return objectives.a2c(**{**options, "scale": "whiten"})


# ---------------------------------------------------------------------- networks
class _OneOptimizer(TwoTimeScales):
    """The critic's optimiser holds the policy too, whose gradient is left lying about."""

    def bind(self, policy, critic=None, reference=None):
        bound = super().bind(policy, critic, reference)
        joint = replace(self.critic).bind(policy, critic, reference)
        return replace(bound, critic=joint)


class _Trunk(TwoTimeScales):
    """The actor's step runs through the critic: advantages that were not held."""

    def bind(self, policy, critic=None, reference=None):
        bound = super().bind(policy, critic, reference)
        return replace(bound, actor=replace(self.actor).bind(policy, critic, reference))


class _OnPolicyLSTD(LSTDQ):
    """The next action is even, whatever the policy."""

    def fit(self, source, next_policy, *, weights=None):
        super().fit(source, np.full_like(next_policy, 1 / self.num_actions), weights=weights)


class _Recent(ReplayBuffer):
    """The first row is never drawn."""

    def sample(self, n, **options):
        batch = super().sample(n, **options)
        info = dict(batch.info)
        info["indices"] = info["indices"].clamp(min=1)
        return batch.replace(info=info)


def _copies(**changes: Any) -> Callable[..., Any]:
    return lambda policy, critics, env, config: td3_trainer(
        policy, critics, env, replace(config, **changes)
    )


def _copied_over(policy, critics, env, config):
    """The actor's copy is taken anew, the critics' follows: two rules in one update."""
    trainer = td3_trainer(policy, critics, env, config)
    inner = trainer.__class__

    class Wrong(inner):
        def __iter__(self):
            yield from super().__iter__()
            with torch.no_grad():
                pairs = zip(self.target_policy.parameters(), self.policy.parameters(), strict=True)
                for copy, online in pairs:
                    copy.copy_(online)

    trainer.__class__ = Wrong
    return trainer


def _mutant(name: str, replaces: str, function: Callable, bug: str) -> Mutant:
    return Mutant(name=f"{replaces}: {name}", replaces=replaces, function=function, bug=bug)


MUTANTS = (
    _mutant("undiscounted", "td_target", lambda r, c, v: r + v, "gamma forgotten in the TD error"),
    _mutant("max", "sarsa_target", _greedy, "Q-learning for Sarsa: not the policy's values"),
    _mutant("whitened", "a2c", _whitened, "normalised advantages by default: another scale in every batch"),
    _mutant("Monte Carlo", "a2c", lambda **o: objectives.a2c(**{**o, "gae_lambda": 1.0, "gamma": 1.0}), "another discount"),
    _mutant("ratio on the actor only", "OffPolicyObjective", _ActorOnly, "the critic learns v_b"),
    _mutant("ratio on the critic only", "OffPolicyObjective", _CriticOnly, "off-policy actions taken for one's own"),
    _mutant("ratio upside down", "OffPolicyObjective", _UpsideDown, "behaviour over policy"),
    _mutant("no bootstrap", "OffPolicyObjective", _Behind, "the critic follows single rewards"),
    _mutant("semi for exact", "OffPolicyObjective", _SemiForAll, "a trace that is computed and not used"),
    _mutant("unclipped", "OffPolicyObjective", _Unclipped, "V-trace without its bound"),
    _mutant("own ratio", "follow_on", _own_ratio, "w_t for w_{t-1}"),
    _mutant("no interest", "follow_on", _decayed, "the product of ratios for their sum"),
    _mutant("undiscounted", "follow_on", _trace(lambda x, a, b, o: ((x, a, b), {**o, "gamma": 1.0})), "gamma forgotten"),
    _mutant("over time limits", "follow_on", _trace(lambda x, a, b, o: ((x, a, b & False), o)), "runs on into the next episode"),
    _mutant("over ends", "follow_on", _trace(lambda x, a, b, o: ((x, a & False, b), o)), "runs on into the next episode"),
    _mutant("no ratio", "surrogate_loss", lambda x, old, A, m=None: objectives.reinforce_loss(x, A, m), "what the behaviour did, weighed as one's own"),
    _mutant("sign", "reinforce_loss", lambda *a, **o: -objectives.reinforce_loss(*a, **o), "descends"),
    _mutant("sign", "dpg_loss", lambda q, m=None: -objectives.dpg_loss(q, m), "descends on the values"),
    _mutant("sum", "dpg_loss", lambda q, m=None: -q.sum(), "the step grows with the batch"),
    _mutant("bootstraps over ends", "gae", _dead_bootstrap, "an end taken for a time limit"),
    _mutant("time limits are ends", "gae", _cut_is_end, "Stable-Baselines3 #284"),
    _mutant("gamma twice", "gae", _gamma_twice, "gamma in the trace once more"),
    _mutant("one step more", "n_step_returns", _one_step_more, "n rewards and one"),
    _mutant("ratio twice", "vtrace", _ratio_once_more, "in the error and in front of it"),
    _mutant("one bound for both", "vtrace", _swapped_bounds, "c decides what is learnt"),
    _mutant("larger critic", "td3_target", lambda r, c, a, b: r + c * np.maximum(a, b), "overestimates"),
    _mutant("mean critic", "td3_target", lambda r, c, a, b: r + c * (a + b) / 2, "no protection at all"),
    _mutant("bootstraps over ends", "td3_target", lambda r, c, a, b: r + c.max() * np.minimum(a, b), "an end taken for a time limit"),
    _mutant("hard copies", "td3_trainer", _copies(tau=1.0), "no slow target"),
    _mutant("slower copies", "td3_trainer", _copies(tau=0.15), "tau halved"),
    _mutant("actor copied", "td3_trainer", _copied_over, "the actor has no slow copy"),
    _mutant("one optimiser", "TwoTimeScales", _OneOptimizer, "the critic's step moves the policy"),
    _mutant("not held", "TwoTimeScales", _Trunk, "the actor's step moves the critic"),
    _mutant("even next actions", "LSTDQ", _OnPolicyLSTD, "the values of another policy"),
    _mutant("oldest left out", "ReplayBuffer", _Recent, "off by one in the draw"),
)  # fmt: skip
"""Each replaces one subject of checks.actor_critic."""
