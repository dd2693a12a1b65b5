"""DDPG and TD3: an actor that climbs its critics' values, off-policy, with replay and slow copies of both.

    y = R + c min_i q_i'(s', clip(mu'(s') + clip(e, -b, b), -1, 1)),   e ~ N(0, target_noise^2)
    critics: mean (q_i(s, a) - y)^2          actor: - mean q_1(s, mu(s)), every policy_delay-th time

R, c = the rewards of n steps and gamma^n, 0 after a termination (replay.py); mu', q' = copies that follow by
theta' += tau (theta - theta') whenever the actor moves. One critic and no noise is DDPG, two are TD3.
Actions are kept in units of half their range, and squashed, never clipped, by the actor.

Acting and learning take turns: ``train_every`` steps of the environments, then ``gradient_steps`` updates.
Between two moves of the copies the targets of all minibatches are computed at once.

Not here: networks (policies.deterministic, action_critics.py), their gradients (_deterministic_gradients.py),
settings (ddpg_config.py), a stochastic actor, learning without replay (dpg.py).

Source: Silver et al. 2014; Lillicrap et al. 2015, arXiv:1509.02971; Fujimoto et al. 2018, arXiv:1802.09477.
"""

import copy
import math
import warnings
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn

from dodona.core.batch import Batch
from dodona.core.protocols import Event
from dodona.errors import CheckpointError, ConfigError, InputError, NonFiniteError, ShapeError
from dodona.objectives.targets import td3_target
from dodona.policies.deterministic import DeterministicPolicy
from dodona.rl._deterministic_gradients import ByAutograd, Piece, WrittenOut
from dodona.rl._flat import FlatOptimizer, FlatParameters
from dodona.rl._turns import Evaluate, Turns, Until
from dodona.rl.action_critics import ActionCritics
from dodona.rl.action_noise import ActionNoise
from dodona.rl.ddpg_config import DDPGConfig, TD3Config
from dodona.rl.environments import Env
from dodona.rl.replay import ReplayBuffer

__all__ = ["DDPGConfig", "DDPGTrainer", "TD3Config", "ddpg_trainer", "td3_trainer"]


def ddpg_trainer(
    policy: DeterministicPolicy | None,
    critics: nn.Module | None,
    env: Env,
    config: DDPGConfig | None = None,
    *,
    evaluate: Evaluate | None = None,
    until: Until | None = None,
) -> "DDPGTrainer":
    """Learn a deterministic policy with one critic.

    Args:
        policy: squashed onto the environment's box; its parameters and the critics' become views of one vector.
            None: DeterministicPolicy.for_env with config.hidden and config.seed.
        critics: a module (obs, units) -> [1, B]. None: ActionCritics.for_env, likewise.
        env: make_env's, with real actions in a bounded box.
        evaluate: called with the policy, without gradient, every ``evaluate_every`` steps; its numbers
            become an event. rl.evaluate plays it without noise.
        until: of these numbers; True ends the run.
    Returns:
        A Trainer. Events: "update" with loss/critic, loss/actor (once it moves), q/mean (of the targets),
        q/max (largest |target|), q/bound = max |r| / (1 - gamma), actor/saturation (share of coordinates
        where tanh has no gradient left), replay/size, episode/return, episode/length and episode/count (where
        an episode ended); "evaluation" with eval/<name>. num_samples counts steps of the environment.
    Raises: InputError: numbered actions, an unbounded box, a policy of another box, parameters that actor and
        critics share.  While it runs: NonFiniteError: a loss, with the rows of its minibatch.
    Warns: targets beyond ``divergence`` times what rewards allow.
    Source: Lillicrap et al., arXiv:1509.02971, algorithm 1.
    Oracle: a plain loop with torch.optim (tests/rl/test_ddpg.py); returns of Pendulum (recipe actor-critic).
    Cost: per update a pass of each target network, and one there and back of each network that moves.
    """
    config = DDPGConfig() if config is None else config
    return _made(policy, critics, env, config, num_critics=1, evaluate=evaluate, until=until)


def td3_trainer(
    policy: DeterministicPolicy | None,
    critics: nn.Module | None,
    env: Env,
    config: DDPGConfig | None = None,
    *,
    evaluate: Evaluate | None = None,
    until: Until | None = None,
) -> "DDPGTrainer":
    """Learn a deterministic policy with the smaller of two critics; TD3Config() has the other two changes too.

    Args, Returns, Warns, Oracle: as ddpg_trainer.  critics: a module (obs, units) -> [2, B].
    Raises: as ddpg_trainer.  ConfigError: one critic only; while it runs ShapeError, where they do not say so.
    Source: Fujimoto et al., arXiv:1802.09477, algorithm 1.
    Cost: as ddpg_trainer, with two critics in every batched product.
    """
    config = TD3Config() if config is None else config
    return _made(policy, critics, env, config, num_critics=2, evaluate=evaluate, until=until)


def _made(
    policy: DeterministicPolicy | None, critics: nn.Module | None, env: Env, config: DDPGConfig, *,
    num_critics: int, evaluate: Evaluate | None, until: Until | None,
) -> "DDPGTrainer":  # fmt: skip
    if env.num_actions is not None:
        raise InputError(
            f"{env.id} has {env.num_actions} numbered actions, and this gradient runs through real ones. Use "
            "dqn_trainer or ppo_trainer."
        )
    if policy is None:
        policy = DeterministicPolicy.for_env(env, hidden=config.hidden, seed=config.seed)
    if critics is None:
        critics = ActionCritics.for_env(
            env, num_critics=num_critics, hidden=config.hidden, seed=config.seed + 1
        )
    _check_box(policy, env)
    if {id(p) for p in policy.parameters()} & {id(p) for p in critics.parameters()}:
        raise InputError(
            "actor and critics share parameters, which two optimizers would pull apart. Give each its own "
            "network, or detach the shared part and train it elsewhere."
        )
    got = getattr(critics, "num_critics", num_critics)
    if got != num_critics:
        raise ConfigError(
            f"the critics are {got}, expected {num_critics}: ddpg_trainer learns from one and td3_trainer from "
            f"two. Use ActionCritics.for_env(env, num_critics={num_critics})."
        )
    return DDPGTrainer(
        policy, critics, env, config, num_critics=num_critics, evaluate=evaluate, until=until
    )


class DDPGTrainer(Turns):
    """See ``ddpg_trainer``. policy and critics are what is learnt, target_policy and target_critics follow."""

    def __init__(
        self, policy: DeterministicPolicy, critics: nn.Module, env: Env, config: DDPGConfig, *,
        num_critics: int, evaluate: Evaluate | None, until: Until | None,
    ):  # fmt: skip
        super().__init__(policy, env, config, evaluate=evaluate, until=until)
        self.policy = policy
        self.critics, self.num_critics = critics, num_critics
        both = nn.ModuleList([policy, critics])
        copies = copy.deepcopy(both)
        self.target_policy, self.target_critics = copies
        self.online, self.target = FlatParameters(both), FlatParameters(copies, trained=False)
        # perceptrons know their gradient; other networks have autograd
        kind = WrittenOut if WrittenOut.fits(policy, critics) else ByAutograd
        self.nets = kind(policy, critics, penalty=config.actor_penalty)
        self.slow = kind(self.target_policy, self.target_critics, penalty=0.0)
        cut = sum(p.numel() for p in policy.parameters())
        actor, judges = slice(0, cut), slice(cut, None)
        self.actor, self.judges = Piece(self.online, actor), Piece(self.online, judges)
        self.actor_optimizer = FlatOptimizer(self.actor, "adam", lr=config.actor_lr, eps=config.optimizer_eps)  # fmt: skip
        self.critic_optimizer = FlatOptimizer(self.judges, "adam", lr=config.critic_lr, eps=config.optimizer_eps)  # fmt: skip
        self.noise = ActionNoise(
            env.num_envs, env.action_dim, kind=config.noise, std=config.noise_std, theta=config.ou_theta,
            dt=config.ou_dt,
        )  # fmt: skip
        self.buffer = ReplayBuffer(config.buffer_size, gamma=config.gamma, num_steps=config.num_steps)  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        """Weights, moments, replay, environments, noise, random streams, counters: a continuation, bit for bit.

        Raises: InputError: an environment that can not be saved.
        """
        return {
            "parameters": self.online.vector.clone(),
            "target": self.target.vector.clone(),
            "actor_optimizer": self.actor_optimizer.state_dict(),
            "critic_optimizer": self.critic_optimizer.state_dict(),
            "buffer": self.buffer.state_dict(),
            "noise": self.noise.state_dict(),
            **self._turns_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises: CheckpointError: networks of another size, another replay."""
        if len(state["parameters"]) != len(self.online.vector):
            raise CheckpointError(
                f"the state holds {len(state['parameters'])} weights, the networks have "
                f"{len(self.online.vector)}. Make them as they were."
            )
        self.online.vector.copy_(state["parameters"])
        self.target.vector.copy_(state["target"])
        for name in ("actor_optimizer", "critic_optimizer", "buffer", "noise"):
            getattr(self, name).load_state_dict(state[name])
        self._load_turns(state)

    # ------------------------------------------------------------------ private
    def _size(self) -> int:
        return len(self.online.vector) * self.config.batch_size

    def _act(self) -> int:
        """Step the environments until updates are due; returns how many."""
        config, env = self.config, self.env
        if self.obs is None:
            self.obs = env.reset(seed=self.streams.integer("environment"))
        while True:
            units = self._units(self.obs)
            step = env.step(self.policy.to_env(units).to(env.device))
            self.buffer.push(
                self.obs, units, step.rewards, step.next_obs, step.terminated, step.truncated, step.mask
            )  # fmt: skip
            self.seen.recorder.add(step)
            self.noise.restart(step.cut.numpy(force=True))
            self.obs = step.obs
            self.num_samples += int(step.mask.sum())
            learnt = self.num_samples - config.learning_starts
            owed = learnt // config.train_every * config.gradient_steps - self.num_updates
            over = self.num_samples >= config.num_env_steps
            if over or (owed > 0 and len(self.buffer)):
                self.seen.count_episodes()
                return max(0, owed)

    @torch.no_grad()
    def _units(self, obs: Shaped[Tensor, "B ..."]) -> Float[Tensor, "B A"]:
        """Any action of the box while nothing is learnt, then the actor's with noise."""
        rng = self.streams.numpy("explore")
        if self.num_samples < self.config.learning_starts:
            found = rng.uniform(-1.0, 1.0, self.noise.x.shape)
        else:
            units = self.nets.units(obs.to(self.online.vector.device)).numpy(force=True)
            found = np.clip(units + self.noise.draw(rng), -1.0, 1.0)
        return torch.from_numpy(found.astype(np.float32)).to(self.online.vector.device)

    def _learn(self, owed: int) -> None:
        """owed updates of the critics; between two moves of the targets all y are computed in one pass."""
        config, losses, indices = self.config, [], []
        while owed:
            block = min(owed, config.policy_delay - self.num_updates % config.policy_delay)
            batch = self._draw(block)
            targets = self._targets(batch)
            for k in range(block):
                part = slice(k * config.batch_size, (k + 1) * config.batch_size)
                losses.append(self._update(batch, targets[part], part))
                indices.append(batch.info["indices"][part])
            owed -= block
            self.seen.note(targets, batch.obs)
        if losses:
            self._note_losses(torch.stack(losses), indices)

    def _draw(self, block: int) -> Batch:
        """Rows of ``block`` minibatches, on the networks' device."""
        batch = self.buffer.sample(block * self.config.batch_size, rng=self.streams.numpy("replay"))
        device = self.online.vector.device
        return batch if device.type == "cpu" else batch.to(device)

    @torch.no_grad()
    def _targets(self, batch: Batch) -> Float[Tensor, "B"]:
        """R + c min q'(s', u'), u' of the slow actor, with noise that makes a peak as wide as a hill."""
        config, vector = self.config, self.online.vector
        next_units = self.slow.units(batch.next_obs)
        if config.target_noise:
            rng, b = self.streams.torch("smoothing", vector.device), config.target_noise_clip
            noise = torch.empty_like(next_units).normal_(std=config.target_noise, generator=rng)
            next_units = next_units.add_(noise.clamp_(-b, b)).clamp_(-1.0, 1.0)
        next_q = self.slow.q(batch.next_obs, next_units)
        if next_q.shape != (self.num_critics, len(batch)):
            raise ShapeError(
                f"the critics gave {tuple(next_q.shape)}, expected [N, B] = {(self.num_critics, len(batch))}: "
                "ddpg_trainer learns from one critic and td3_trainer from two."
            )
        rewards, discounts = (x.to(vector.dtype) for x in (batch.rewards, batch.info["discounts"]))
        return td3_target(rewards, discounts, next_q[0], next_q[-1])

    def _update(self, batch: Batch, targets: Float[Tensor, "B"], part: slice) -> Float[Tensor, ""]:
        """One step of the critics, and of the actor and all targets when it is their turn."""
        config, judges = self.config, self.judges
        loss = self.nets.critic_loss(batch.obs[part], batch.actions[part], targets)
        if config.critic_decay:
            judges.gradient.add_(judges.vector, alpha=config.critic_decay)
        self.critic_optimizer.step()
        self.num_updates += 1
        if self.num_updates % config.policy_delay == 0:
            self.seen.actor_loss = self.nets.actor_loss(batch.obs[part])
            self.actor_optimizer.step()
            self.target.vector.lerp_(self.online.vector, config.tau)
        return loss

    def _note_losses(self, losses: Float[Tensor, "K"], indices: list[Int64[Tensor, "B"]]) -> None:
        finite = torch.isfinite(losses)
        if not bool(finite.all()):
            k = int(finite.to(torch.uint8).argmin())
            rows = indices[k].tolist()
            shown = ", ".join(map(str, rows[:8])) + (", ..." if len(rows) > 8 else "")
            raise NonFiniteError(
                f"the critics' loss of update {self.num_updates - len(losses) + k + 1} is {losses[k].item()}, on "
                f"the replay rows {shown}. Look at them with trainer.buffer.rows(...), or lower critic_lr "
                f"({self.config.critic_lr:g})."
            )
        self.seen.losses += (len(losses), float(losses.sum()))

    def _update_event(self) -> Event:
        config, buffer = self.config, self.buffer
        bound = buffer.max_reward / (1.0 - config.gamma) if config.gamma < 1 else math.inf
        metrics, largest = self.seen.take(self.policy)
        if math.isfinite(bound):
            metrics["q/bound"] = bound
        diverges = largest > config.divergence * bound > 0
        if diverges and not self.warned:
            self.warned = True
            warnings.warn(
                f"targets reach {largest:.3g} where rewards up to {buffer.max_reward:.3g} at gamma "
                f"{config.gamma:g} allow {bound:.3g}: learning diverges. Lower tau ({config.tau:g}) or critic_lr, or "
                "use td3_trainer; divergence=inf silences this.",
                stacklevel=3,
            )
        metrics["replay/size"] = float(len(buffer))
        return Event(
            kind="update", step=self.num_updates, num_samples=self.num_samples, metrics=metrics,
            data={"diverges": True} if diverges else {},
        )  # fmt: skip


def _check_box(policy: DeterministicPolicy, env: Env) -> None:
    """The actor is squashed, onto this environment's box."""
    if policy.low is None or policy.high is None:
        raise InputError(
            "this policy is not squashed: its actions have no unit, and clipped ones no gradient. Give "
            f"bounds=({env.action_low.tolist()}, {env.action_high.tolist()}), or use dpg_trainer."
        )
    for name, mine, theirs in (("low", policy.low, env.action_low), ("high", policy.high, env.action_high)):  # fmt: skip
        theirs = theirs.to(mine.device, mine.dtype)
        if not torch.equal(mine.expand_as(theirs), theirs):
            raise InputError(
                f"the policy's {name} is {mine.tolist()}, that of {env.id} is {theirs.tolist()}. Use "
                "DeterministicPolicy.for_env(env)."
            )
