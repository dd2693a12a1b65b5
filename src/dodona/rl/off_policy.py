"""Off-policy actor-critic: another policy acts, and the ratio of the two weighs what is learnt from it.

    w = pi(a|s) / b(a|s),   delta = r + gamma v(s') - v(s)
    critic   v <- v + alpha_v w delta grad v
    actor    theta <- theta + alpha m w delta grad log pi(a|s)

with m by ``form``:

    semi       1: the states that the behaviour visits, as if their shares did not matter (Off-PAC)
    emphatic   the follow-on trace F = 1 + gamma w F of the row before: right on average, noisy
    exact      known weights of states, where an oracle has them: what the others try to be
    clipped    1, and min(w, ratio_max) for w: V-trace, for a policy between the two
    none       1, and 1 for w on both: what happens without the correction; it learns something else

Both updates carry the ratio: with the actor's alone, the critic would learn the values of the behaviour.

Not here: replay (ddpg.py, dqn.py), traces of tables off policy (off_policy_td.py).
Source: Degris, White & Sutton 2012, arXiv:1205.4839; Imani, Graves & White 2018, arXiv:1811.09013;
Espeholt et al. 2018, arXiv:1802.01561 (clipped); Zhao 2025, sec. 10.3.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from dodona.core.batch import Batch
from dodona.core.inputs import check_choice, check_count, check_range
from dodona.core.optimizers import OPTIMIZERS
from dodona.core.policy_trainer import PolicyTrainer
from dodona.core.reductions import masked_mean
from dodona.core.statistics import RunningMoments
from dodona.core.updates import GradientUpdate
from dodona.errors import InputError, ShapeError, SupportError
from dodona.objectives import follow_on, reinforce_loss, surrogate_loss, td_target, vtrace
from dodona.policies import TablePolicy
from dodona.rl.actor_critic import TwoTimeScales
from dodona.rl.environments import Env
from dodona.rl.on_policy import Evaluation, count_updates, evaluated, networks
from dodona.rl.rollout import EnvCollector

__all__ = ["FORMS", "OffPolicyConfig", "OffPolicyObjective", "off_policy_trainer"]

FORMS = ("semi", "emphatic", "exact", "clipped", "none")


@dataclass(frozen=True, kw_only=True)
class OffPolicyConfig:
    """All of it but networks, behaviour and environment."""

    form: str = "semi"
    """semi, emphatic, exact, clipped or none: see the module"""
    num_env_steps: int = 200_000
    """steps of all environments together"""
    num_steps: int = 8
    """steps of every environment per update; 1 in the papers"""
    optimizer: str = "adam"
    """of actor and critic, a name of core.optimizers.OPTIMIZERS"""
    lr: float = 1e-2
    """learning rate of the actor"""
    critic_lr: float = 3e-2
    """and of the critic, which must be the faster of the two"""
    gamma: float = 0.9
    """discount in [0, 1]"""
    ratio_max: float = 1.0
    """bound of the ratio in "clipped", > 0; V-trace's rho and c"""
    max_grad_norm: float | None = None
    """bound of the norm of each network's gradient; None: none"""
    seed: int = 0
    """of networks that are made here, and of the behaviour's draws"""

    def __post_init__(self) -> None:
        check_choice(FORMS, form=self.form)
        check_choice(OPTIMIZERS, optimizer=self.optimizer)
        check_count(num_env_steps=self.num_env_steps, num_steps=self.num_steps)
        check_count(0, seed=self.seed)
        check_range("(0, inf)", lr=self.lr, critic_lr=self.critic_lr)
        check_range("[0, 1]", gamma=self.gamma)
        check_range("(0, inf]", "V-trace uses 1.", ratio_max=self.ratio_max)


def off_policy_trainer(
    policy: Any,
    behaviour: Any,
    env: Env,
    *,
    critic: Any = None,
    config: OffPolicyConfig | None = None,
    state_weights: Callable[[Any], Any] | None = None,
    evaluation: Evaluation | None = None,
) -> PolicyTrainer:
    """Learn to act from what another policy does.

    Args:
        policy: a Policy, the one that learns; None: a table for numbered states, else MLPPolicy.for_env(env).
        behaviour: a Policy that acts and stays as it is; or probabilities [S, A].
        env: with numbered actions, or continuous ones.
        critic: obs [..., *obs_shape] -> values [...], trained along; None: a table, or MLPCritic.for_env(env).
        state_weights: policy -> [S] its discounted visits from d_b, over d_b, asked before every update; for
            form "exact" only, in numbered states.
        evaluation: episodes of the learning policy between updates, see Evaluation.
    Returns:
        A PolicyTrainer, whose events have besides ratio/max and ratio/ess (of the counted
        steps of a collection), and for "emphatic" trace/mean and trace/max; episode/return is the behaviour's.
    Raises:
        SupportError: an action that the policy takes and the behaviour never does, with state and action.
        InputError: a behaviour without log-probabilities; state_weights without "exact", or the other way.
        ShapeError: a table of another size.  ConfigError: no collection fits into the budget.
    Source: see the module.
    Oracle: oracles.gradients.off_policy_gradient, form by form (checks/actor_critic.py).
    Cost: as a2c_trainer, and one more pass of the policy.
    """
    config = OffPolicyConfig() if config is None else config
    policy, critic = networks(policy, critic, env, needs_critic=True, seed=config.seed)
    behaviour = _as_policy(behaviour, env)
    discrete, numbered = env.num_actions is not None, env.num_states is not None
    if discrete and numbered:
        require_support(policy, behaviour, torch.arange(env.num_states, device=env.device))
    step = {"unit": "steps", "optimizer": config.optimizer, "max_grad_norm": config.max_grad_norm}
    what = f"num_steps {config.num_steps} times {env.num_envs} environments"
    return PolicyTrainer(
        policy,
        _Acting(behaviour, EnvCollector(env, config.num_steps, critic=critic, seed=config.seed)),
        OffPolicyObjective(
            policy, form=config.form, gamma=config.gamma, ratio_max=config.ratio_max,
            state_weights=_checked_weights(state_weights, config.form, env),
            behaviour=behaviour if discrete and not numbered else None,
        ),
        update=TwoTimeScales(
            actor=GradientUpdate(lr=config.lr, **step),
            critic=GradientUpdate(lr=config.critic_lr, **step),
        ),
        critic=critic,
        num_updates=count_updates(config.num_env_steps, config.num_steps * env.num_envs, what),
        seed=config.seed,
        **evaluated(evaluation),
    )  # fmt: skip


class OffPolicyObjective:
    """- m w delta log pi(a|s) + w (v(s) - y)^2 / 2, both to minimise, y = r + gamma v(s') held.

    One gradient step per collection: the ratio of the loss is that of the policy as it is then. The trace of
    "emphatic" runs on from collection to collection, a lane per row of the batch.

    Args:
        policy: the one that learns, asked for the ratio that traces are made of.
        form, gamma, ratio_max: see OffPolicyConfig.  state_weights: policy -> [S], for "exact".
        behaviour: asked about every batch for actions it leaves out; None: that is known already.
    Source: see the module.  Oracle: oracles.gradients.off_policy_gradient.
    """

    needs_critic, reduction = True, "token"

    def __init__(
        self, policy: Any, *, form: str, gamma: float, ratio_max: float = 1.0,
        state_weights: Callable[[Any], Any] | None = None, behaviour: Any = None,
    ):  # fmt: skip
        check_choice(FORMS, form=form)
        self.policy, self.form, self.gamma, self.ratio_max = policy, form, gamma, ratio_max
        self.state_weights, self.behaviour = state_weights, behaviour
        self.carry: Tensor | None = None
        self.seen: dict[str, float] = {}

    @torch.no_grad()
    def prepare(self, batch: Batch, *, moments: RunningMoments | None = None) -> Batch:
        """advantages = m delta, returns = y; with "clipped" V-trace's, which hold the ratio.

        Raises: InputError: no logp_old.  SupportError: see the trainer.
        """
        if batch.logp_old is None:
            raise InputError(
                "the batch has no logp_old: without the behaviour's log-probabilities there is no ratio. Let a "
                "Policy act, not a function."
            )
        if self.behaviour is not None:
            require_support(self.policy, self.behaviour, batch.obs[batch.mask.bool()])
        log_ratio = self.policy.log_prob(batch.obs, batch.actions) - batch.logp_old
        ends = {"mask": batch.mask, "time_dim": 1}
        self.seen = _ratio_numbers(log_ratio, batch.mask)
        if self.form == "clipped":
            targets, advantages = vtrace(
                batch.rewards, batch.values, batch.terminated, batch.truncated, log_ratio=log_ratio,
                gamma=self.gamma, rho_max=self.ratio_max, c_max=self.ratio_max,
                next_values=batch.next_values, **ends,
            )  # fmt: skip
            return batch.replace(advantages=advantages, returns=targets)
        discounts = self.gamma * (~batch.terminated).to(batch.rewards.dtype)
        targets = td_target(batch.rewards, discounts, batch.next_values)
        advantages = targets - batch.values
        if self.form == "exact":
            advantages = advantages * self._known_weights()[batch.obs]
        if self.form == "emphatic":
            trace, self.carry = follow_on(
                log_ratio, batch.terminated, batch.truncated, gamma=self.gamma, carry=self.carry, **ends
            )  # fmt: skip
            advantages = advantages * trace
            self.seen |= {
                "trace/mean": float(masked_mean(trace, batch.mask)), "trace/max": float(trace.max()),
            }  # fmt: skip
        return batch.replace(advantages=advantages, returns=targets)

    def __call__(
        self, logp: Tensor, batch: Batch, *, values: Tensor, denom: float | None = None
    ) -> tuple[Tensor, dict[str, float]]:
        errors = 0.5 * (values - batch.returns) ** 2
        if self.form in ("clipped", "none"):  # V-trace has its ratio in targets and advantages
            actor = reinforce_loss(logp, batch.advantages, batch.mask, denom=denom)
        else:
            ratio = (logp.detach() - batch.logp_old).exp()
            errors = ratio * errors
            actor = surrogate_loss(logp, batch.logp_old, batch.advantages, batch.mask)
            if denom is not None:  # a part of the step: its share of the mean
                actor = actor * (batch.mask.float().sum() / denom)
        critic = masked_mean(errors, batch.mask, denom=denom)
        return actor + critic, {
            "loss/policy": float(actor.detach()), "loss/value": float(critic.detach()), **self.seen,
        }  # fmt: skip

    def _known_weights(self) -> Tensor:
        weights = torch.as_tensor(np.asarray(self.state_weights(self.policy)))
        check_range("[0, inf)", state_weights=weights)
        return weights.to(next(self.policy.parameters()))

    def state_dict(self) -> dict[str, Any]:
        """The trace that the next collection takes over."""
        return {"carry": None if self.carry is None else self.carry.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.carry = None if state["carry"] is None else state["carry"].clone()


@torch.no_grad()
def require_support(policy: Any, behaviour: Any, obs: Shaped[Tensor, "N ..."]) -> None:
    """Whatever the policy may do, the behaviour does sometimes.

    Args: policy, behaviour: with laws of numbered actions.  obs: where they are compared.
    Raises: SupportError: the first pair left out; ``state`` is its number where states have one.
    Source: Sutton & Barto 2018, sec. 5.5.  Oracle: by hand (tests).  Cost: one pass of each.
    """
    wanted, acted = (
        torch.log_softmax(x.distribution(obs).logits, -1).exp() for x in (policy, behaviour)
    )
    lost = (wanted > 0) & (acted == 0)
    if not lost.any():
        return
    row, action = (int(i) for i in lost.nonzero()[0])
    numbered = obs.ndim == 1 and not obs.is_floating_point()
    state = int(obs[row]) if numbered else None
    where = f"state {state}" if numbered else f"observation {obs[row].tolist()}"
    raise SupportError(
        f"{where}, action {action}: the policy takes it with probability {float(wanted[row, action]):.3g} and "
        "the behaviour never does, so no ratio can make up for it. Mix the behaviour with a uniform one.",
        state=state, action=action,
    )  # fmt: skip


# ---------------------------------------------------------------------- private
class _Acting:
    """A collector in which the behaviour acts, whoever is trained."""

    def __init__(self, behaviour: Any, collector: EnvCollector):
        self.behaviour, self.inner, self.env = behaviour, collector, collector.env

    def collect(self, policy: Any) -> Batch:
        return self.inner.collect(self.behaviour)

    def state_dict(self) -> dict[str, Any]:
        return self.inner.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.inner.load_state_dict(state)


def _as_policy(behaviour: Any, env: Env) -> Any:
    """A behaviour given as probabilities becomes a table; anything else must know its log-probabilities."""
    if isinstance(behaviour, (np.ndarray, Tensor, list)):
        shares = torch.as_tensor(np.asarray(behaviour), dtype=torch.get_default_dtype())
        expected = (env.num_states, env.num_actions)
        if shares.shape != expected:
            raise ShapeError(
                f"behaviour has shape {tuple(shares.shape)}, expected [S, A] = {expected}. For other "
                "observations give a Policy."
            )
        if (shares < 0).any() or not torch.allclose(shares.sum(1), torch.ones(len(shares))):
            s = int(((shares < 0).any(1) | ((shares.sum(1) - 1).abs() > 1e-5)).nonzero()[0])
            raise SupportError(
                f"behaviour in state {s} is {shares[s].tolist()}; probabilities that sum to one are "
                "expected.",
                state=s,
            )
        table = TablePolicy(*shares.shape, action_mask=(shares > 0).numpy())
        with torch.no_grad():
            table.logits.copy_(shares.clamp(min=torch.finfo(shares.dtype).tiny).log())
        return table.requires_grad_(False).to(env.device)
    if not (hasattr(behaviour, "sample") and hasattr(behaviour, "log_prob")):
        raise InputError(
            f"the behaviour is a {type(behaviour).__name__} without sample and log_prob: ratios need the "
            "probability of what it did. Give a Policy, or probabilities [S, A]."
        )
    return behaviour


def _checked_weights(weights: Any, form: str, env: Env) -> Any:
    if (weights is not None) != (form == "exact"):
        given = "none were" if weights is None else "they were"
        raise InputError(
            f"state_weights belong to form 'exact' and to no other; form is {form!r} and {given} given. "
            "Without an oracle use 'emphatic', their estimate."
        )
    if weights is not None and env.num_states is None:
        raise InputError(
            f"state_weights are one number per numbered state, and {env.id} has none. Use 'emphatic'."
        )
    return weights


def _ratio_numbers(log_ratio: Tensor, mask: Tensor) -> dict[str, float]:
    """The largest ratio that counts, and (sum w)^2 / (n sum w^2), the share of steps that still count."""
    counted = log_ratio[mask.bool()].double().exp()
    if not len(counted):
        return {}
    ess = counted.sum() ** 2 / (len(counted) * (counted**2).sum()).clamp(min=1e-300)
    return {"ratio/max": float(counted.max()), "ratio/ess": float(ess)}
