"""Deterministic actor-critic as first written: every step is learnt from once, without replay or slow copies.

    delta = r + c q(s', mu(s')) - q(s, a),       a = mu(s) + noise
    w <- w + alpha_w delta grad_w q(s, a)
    theta <- theta + alpha grad_theta mu(s) grad_a q(s, a)|_{a = mu(s)}

Off-policy without an importance ratio: the target's action is mu's, whoever acted, and no integral over
actions is left to weigh. With a compatible critic, q(s, a) = (a - mu(s))^T grad mu(s)^T w + v(s), the actor's
step is that of the true gradient once w is its least squares fit (COPDAC-Q).

Not here: replay, targets, twins (ddpg.py).

Source: Silver et al. 2014, sec. 4.2 and 4.3, eq. 16-18 and 22-24; Zhao 2025, sec. 10.4.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from dodona.core.inputs import check_choice, check_count, check_range
from dodona.core.protocols import Event
from dodona.errors import CheckpointError, InputError, NonFiniteError
from dodona.objectives.targets import continuation, td_target
from dodona.policies.deterministic import DeterministicPolicy
from dodona.rl._deterministic_gradients import ByAutograd, Piece
from dodona.rl._flat import FlatOptimizer, FlatParameters
from dodona.rl._turns import Evaluate, Turns, Until
from dodona.rl.action_noise import NOISES, ActionNoise, NoiseKind
from dodona.rl.environments import Env, Step

__all__ = ["CompatibleCritic", "DPGConfig", "dpg_trainer"]


@dataclass(frozen=True, kw_only=True)
class DPGConfig:
    """All but actor, critic and environment; noise is in units of half the range, or raw without a box."""

    num_env_steps: int = 100_000
    """steps of all environments together"""
    actor_lr: float = 1e-3
    """alpha"""
    critic_lr: float = 1e-2
    """alpha_w, larger: the critic must keep up with the actor"""
    optimizer: Literal["sgd", "adam"] = "sgd"
    """sgd: the steps as written"""
    gamma: float = 0.99
    """discount in [0, 1]"""
    critic_starts: int = 0
    """steps in which only the critic learns"""
    noise: NoiseKind = "gaussian"
    """exploration: "gaussian", "ou", "none" """
    noise_std: float = 0.2
    """its deviation in [0, 2]"""
    ou_theta: float = 0.15
    """pull of the ou noise to 0, per unit of time"""
    ou_dt: float = 0.01
    """time of a step of the ou noise"""
    record_every: int = 1000
    """steps between two events"""
    evaluate_every: int = 0
    """steps between two evaluations; 0: none"""
    seed: int = 0
    """seed of exploration"""

    def __post_init__(self) -> None:
        check_count(num_env_steps=self.num_env_steps, record_every=self.record_every)
        check_count(
            0, critic_starts=self.critic_starts, evaluate_every=self.evaluate_every, seed=self.seed
        )
        check_range("[0, 1]", gamma=self.gamma)
        check_range(
            "(0, inf)",
            actor_lr=self.actor_lr,
            critic_lr=self.critic_lr,
            ou_theta=self.ou_theta,
            ou_dt=self.ou_dt,
        )
        check_range("[0, 2]", "Noise is in units of half the range of the actions.", noise_std=self.noise_std)  # fmt: skip
        check_choice(("sgd", "adam"), optimizer=self.optimizer)
        check_choice(NOISES, noise=self.noise)


class CompatibleCritic(nn.Module):
    """q(s, u) = (u - mu(s))^T grad mu(s)^T w + v(s), v(s) = f^T phi(s): an actor's own tangents as features.

    Args:
        policy: the actor, which is read and never moved from here.
        features: phi, observations [B, ...] to [B, F].
        num_features: F.
    w and f start at 0.
    Source: Silver et al. 2014, theorem 3.  Oracle: oracles.lqr.LQR.gradient, after a least squares fit (tests).
    Cost: a forward pass of mu, and two back for its derivative along w.
    """

    num_critics = 1

    def __init__(
        self, policy: DeterministicPolicy, features: Callable[[Tensor], Tensor], num_features: int
    ):
        super().__init__()
        check_count(num_features=num_features)
        self.actor = (policy,)  # in a tuple: its parameters are not this module's
        self.features = features
        some = next(policy.parameters())
        size = sum(p.numel() for p in policy.parameters())
        self.w = nn.Parameter(torch.zeros(size, dtype=some.dtype, device=some.device))
        self.f = nn.Parameter(torch.zeros(num_features, dtype=some.dtype, device=some.device))

    def forward(
        self, obs: Shaped[Tensor, "B ..."], units: Float[Tensor, "B A"]
    ) -> Float[Tensor, "1 B"]:
        """q, [1, B]."""
        mu, along = self.tangent(obs)
        v = self.features(obs) @ self.f
        return (((units - mu) * along).sum(dim=1) + v)[None]

    def tangent(
        self, obs: Shaped[Tensor, "B ..."]
    ) -> tuple[Float[Tensor, "B A"], Float[Tensor, "B A"]]:
        """(mu(s), grad mu(s)^T w): the action, and the gradient of q in it."""
        (policy,) = self.actor
        names = {name: p.detach().requires_grad_() for name, p in policy.net.named_parameters()}
        with torch.enable_grad():
            z = torch.func.functional_call(policy.net, names, (obs,))
            mu = z if policy.low is None else torch.tanh(z)
            # g(v) = grad (mu . v) is linear in v, and d (g(v) . w) / dv is the derivative of mu along w
            v = torch.zeros_like(mu, requires_grad=True)
            back = torch.autograd.grad([mu], list(names.values()), [v], create_graph=True)
            line = torch.cat([g.flatten() for g in back]) @ self.w
            (along,) = torch.autograd.grad(line, v, create_graph=True)
        return mu.detach(), along


def dpg_trainer(
    policy: DeterministicPolicy,
    critic: nn.Module,
    env: Env,
    config: DPGConfig | None = None,
    *,
    evaluate: Evaluate | None = None,
    until: Until | None = None,
) -> "DPGTrainer":
    """Learn a deterministic policy online, from the rows of each step once.

    Args:
        policy: bounds=None where the environment takes any real number.
        critic: CompatibleCritic, or a module (obs, units) -> [1, B].
        env: with real actions; its rows are averaged over.
        evaluate, until: as ddpg_trainer.
    Returns:
        A Trainer. Events: "update" with loss/critic (mean delta^2), loss/actor, q/mean, q/max, episode/*;
        "evaluation" with eval/<name>.
    Raises: InputError: numbered actions, parameters that actor and critic share.
        While it runs: NonFiniteError: an error delta.
    Source: see the module.
    Oracle: the steps by hand; oracles.lqr.LQR.optimal_gain (tests).  Cost: of the passes, per step.
    """
    config = DPGConfig() if config is None else config
    if env.num_actions is not None:
        raise InputError(
            f"{env.id} has {env.num_actions} numbered actions, and this gradient runs through real ones. Use "
            "qac_trainer or a2c_trainer."
        )
    if {id(p) for p in policy.parameters()} & {id(p) for p in critic.parameters()}:
        raise InputError(
            "actor and critic share parameters, which two step sizes would pull apart. Give each its own."
        )
    return DPGTrainer(policy, critic, env, config, evaluate=evaluate, until=until)


class DPGTrainer(Turns):
    """See ``dpg_trainer``."""

    def __init__(
        self, policy: DeterministicPolicy, critic: nn.Module, env: Env, config: DPGConfig, *,
        evaluate: Evaluate | None, until: Until | None,
    ):  # fmt: skip
        super().__init__(policy, env, config, evaluate=evaluate, until=until)
        self.policy = policy
        self.critic = critic
        self.online = FlatParameters(nn.ModuleList([policy, critic]))
        self.nets = ByAutograd(policy, critic, penalty=0.0)
        cut = sum(p.numel() for p in policy.parameters())
        actor, judge = slice(0, cut), slice(cut, None)
        self.actor_optimizer, self.critic_optimizer = (
            FlatOptimizer(Piece(self.online, piece), config.optimizer, lr=lr, eps=1e-8)
            for piece, lr in ((actor, config.actor_lr), (judge, config.critic_lr))
        )
        self.noise = ActionNoise(
            env.num_envs, env.action_dim, kind=config.noise, std=config.noise_std, theta=config.ou_theta,
            dt=config.ou_dt,
        )  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        """Weights, moments, environments, noise, random streams, counters: a continuation, bit for bit.

        Raises: InputError: an environment that can not be saved.
        """
        return {
            "parameters": self.online.vector.clone(),
            "actor_optimizer": self.actor_optimizer.state_dict(),
            "critic_optimizer": self.critic_optimizer.state_dict(),
            "noise": self.noise.state_dict(),
            **self._turns_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises: CheckpointError: networks of another size."""
        if len(state["parameters"]) != len(self.online.vector):
            raise CheckpointError(
                f"the state holds {len(state['parameters'])} weights, the networks have "
                f"{len(self.online.vector)}. Make them as they were."
            )
        self.online.vector.copy_(state["parameters"])
        for name in ("actor_optimizer", "critic_optimizer", "noise"):
            getattr(self, name).load_state_dict(state[name])
        self._load_turns(state)

    # ------------------------------------------------------------------ private
    def _size(self) -> int:
        return len(self.online.vector) * self.env.num_envs

    def _act(self) -> tuple[Tensor, Tensor, Step]:
        """One step of every row: what was seen, what was done, what came of it."""
        if self.obs is None:
            self.obs = self.env.reset(seed=self.streams.integer("environment"))
        obs, rng = self.obs, self.streams.numpy("explore")
        noise = torch.from_numpy(self.noise.draw(rng)).to(self.online.vector)
        units = self.nets.units(self._placed(obs)) + noise
        if self.policy.low is not None:
            units = units.clamp(-1.0, 1.0)
        step = self.env.step(self.policy.to_env(units).to(self.env.device, torch.float32))
        self.seen.recorder.add(step)
        self.seen.count_episodes()
        self.noise.restart(step.cut.numpy(force=True))
        self.obs = step.obs
        self.num_samples += int(step.mask.sum())
        return obs, units, step

    def _learn(self, owed: tuple[Tensor, Tensor, Step]) -> None:
        """The critic's step on all rows that count, then the actor's."""
        obs, units, step = owed
        keep = step.mask.to(units.device)
        if not bool(keep.any()):
            return
        obs, units, next_obs = (self._placed(x)[keep] for x in (obs, units, step.next_obs))
        rewards = step.rewards.to(units)[keep]
        discounts = continuation(step.terminated, self.config.gamma).to(units)[keep]
        next_q = self.nets.q(next_obs, self.nets.units(next_obs))[0]
        targets = td_target(rewards, discounts, next_q)
        # (q - y)^2 has twice the gradient of the rule as written
        loss = self.nets.critic_loss(obs, units, targets)
        self.critic_optimizer.flat.gradient.mul_(0.5)
        if not np.isfinite(float(loss)):
            raise NonFiniteError(
                f"the mean squared error of update {self.num_updates + 1} is {float(loss)}. Lower critic_lr "
                f"({self.config.critic_lr:g}) or actor_lr ({self.config.actor_lr:g})."
            )
        if self.num_samples > self.config.critic_starts:
            # both steps are of one time: the actor climbs the critic that delta was measured by
            self.seen.actor_loss = self.nets.actor_loss(obs)
            self.actor_optimizer.step()
        self.critic_optimizer.step()
        self.num_updates += 1
        self.seen.losses += (1, float(loss))
        self.seen.note(targets, obs)

    def _placed(self, x: Tensor) -> Tensor:
        """On the networks' device; numbers in their dtype."""
        vector = self.online.vector
        return x.to(vector) if x.is_floating_point() else x.to(vector.device)

    def _update_event(self) -> Event:
        metrics, _ = self.seen.take(self.policy)
        return Event(
            kind="update", step=self.num_updates, num_samples=self.num_samples, metrics=metrics
        )
