"""DQN: Q-learning with a network, a replay of past transitions, and a slow copy that makes the targets.

    y = R + c max_a q_T(s', a)          loss = mean of w (y - q(s, a))^2, no gradient through y

R, c = the rewards of n steps and gamma^n, 0 after a termination (replay.py). Switches: double, dueling,
prioritised, n-step, Huber, a target that follows by Polyak averages; or a fixed data set instead of an
environment (Algorithm 8.3 of the book).

Acting and learning take turns: ``train_every`` steps of the environments, then ``gradient_steps`` updates.
Between two copies of the target its values of a whole block of minibatches are computed at once.

Not here: the loop (_turns.py), replay, networks, continuous actions.

Source: Mnih et al. 2013, arXiv:1312.5602, and 2015; Zhao 2025, sec. 8.4; van Hasselt et al.,
arXiv:1509.06461 (double); Schaul et al., arXiv:1511.05952; Wang et al., arXiv:1511.06581.
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
from dodona.core.threads import few_threads
from dodona.errors import CheckpointError, ConfigError, InputError, NonFiniteError
from dodona.objectives.targets import double_q_target, q_learning_target
from dodona.rl._flat import FlatOptimizer, FlatParameters
from dodona.rl._perceptron import Perceptron
from dodona.rl._turns import Evaluate, Turns, Until
from dodona.rl.dqn_config import DQNConfig
from dodona.rl.environments import Env
from dodona.rl.q_networks import QNetwork
from dodona.rl.replay import ReplayBuffer

__all__ = ["DQNConfig", "DQNTrainer", "dqn_trainer"]


def dqn_trainer(
    q_net: nn.Module | None,
    env: Env | None,
    config: DQNConfig | None = None,
    *,
    dataset: Batch | None = None,
    evaluate: Evaluate | None = None,
    until: Until | None = None,
) -> "DQNTrainer":
    """Learn action values by acting in an environment, or from a fixed data set.

    Args:
        q_net: observation -> q [B, A], -inf where an action is infeasible; its parameters become views of
            one vector. None: QNetwork.for_env(env).
        env: make_env or mdp_env; None with a data set.
        dataset: transitions to learn from instead, drawn from as replay is; stored once.
        evaluate: called with the network, without gradient, every ``evaluate_every`` steps; its numbers become
            an event.
        until: of these numbers; True ends the run.
    Returns:
        A Trainer. Events: "update" with loss/td, q/mean (of the targets), q/max (largest |target|),
        q/bound = max |r| / (1 - gamma), episode/return and episode/length (mean since the last event, where
        an episode ended), explore/epsilon, replay/size; "evaluation" with eval/<name>. num_samples counts
        steps of the environment; with a data set those that would have brought the updates.
    Raises: ConfigError, InputError: continuous actions; both or neither of env and dataset; a network that
        is not dueling; a data set that buffer_size does not hold. While it runs: NonFiniteError: a loss, with the rows of its minibatch.
    Warns: values beyond ``divergence`` times what rewards allow.
    Source: see the module.
    Oracle: oracles.replay.dqn_on_table (loops); with one-hot features and all rows per update the optimum of
        the empirical model (oracles.empirical).
    Cost: per update three passes of the network on the minibatch (four when double).
    """
    config = DQNConfig() if config is None else config
    if (env is None) == (dataset is None):
        raise InputError("give an environment or a data set, one of them.")
    if env is not None and env.num_actions is None:
        raise InputError(
            f"{env.id} has continuous actions; DQN takes a maximum over numbered ones. Use td3_trainer or "
            "ddpg_trainer."
        )
    if q_net is None:
        if env is None:
            raise InputError("a data set does not say what network to make. Give q_net.")
        q_net = QNetwork.for_env(env, dueling=config.dueling, seed=config.seed)
    elif config.dueling and not getattr(q_net, "dueling", False):
        raise ConfigError("config.dueling is set and q_net is not dueling. Use QNetwork(..., dueling=True).")  # fmt: skip
    return DQNTrainer(q_net, env, config, dataset=dataset, evaluate=evaluate, until=until)


class DQNTrainer(Turns):
    """See ``dqn_trainer``. q_net is what is learnt, target_net its slow copy, buffer the replay."""

    def __init__(
        self, q_net: nn.Module, env: Env | None, config: DQNConfig, *, dataset: Batch | None,
        evaluate: Evaluate | None, until: Until | None,
    ):  # fmt: skip
        super().__init__(q_net, env, config, evaluate=evaluate, until=until, loss="loss/td")
        self.q_net = q_net
        self.target_net = copy.deepcopy(q_net)
        self.online, self.target = FlatParameters(q_net), FlatParameters(self.target_net, trained=False)  # fmt: skip
        # perceptrons know their gradient; other networks have autograd
        plain = Perceptron.fits(q_net)
        self.written = {n: Perceptron(n) for n in (q_net, self.target_net)} if plain else {}
        self.optimizer = FlatOptimizer(
            self.online, config.optimizer, lr=config.lr, eps=config.optimizer_eps
        )
        self.buffer = ReplayBuffer(
            config.buffer_size, gamma=config.gamma, prioritized=config.prioritized, num_steps=config.num_steps,
            priority_exponent=config.priority_exponent,
        )  # fmt: skip
        self.everything: Batch | None = None
        if dataset is not None:
            _check_actions(dataset)
            self.buffer.add(dataset)
            if self.buffer.num_added > config.buffer_size:
                raise ConfigError(
                    f"the data set has {self.buffer.num_added} rows and buffer_size keeps {config.buffer_size}: "
                    "the first would be lost. Set buffer_size to their number."
                )

    @property
    def epsilon(self) -> float:
        """Share of random actions now."""
        first, last, share = self.config.epsilon
        return first + (last - first) * min(1.0, self._done() / share)

    @torch.no_grad()
    def q(self, obs: Shaped[Tensor, "B ..."]) -> Float[Tensor, "B A"]:
        """What the network says now, without gradient."""
        with few_threads(len(self.online.vector) * len(obs)):
            return self.q_net(obs)

    def state_dict(self) -> dict[str, Any]:
        """Weights, moments, replay, environments, random streams, counters: a continuation, bit for bit.

        Raises: InputError: an environment that can not be saved.
        """
        return {
            "parameters": self.online.vector.clone(),
            "target": self.target.vector.clone(),
            "optimizer": self.optimizer.state_dict(),
            "buffer": self.buffer.state_dict(),
            **self._turns_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises: CheckpointError: a network of another size, another replay."""
        if len(state["parameters"]) != len(self.online.vector):
            raise CheckpointError(
                f"the state holds {len(state['parameters'])} weights, the network has "
                f"{len(self.online.vector)}. Make it as it was."
            )
        self.online.vector.copy_(state["parameters"])
        self.target.vector.copy_(state["target"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.buffer.load_state_dict(state["buffer"])
        self.everything = None
        self._load_turns(state)

    # ------------------------------------------------------------------ private
    def _size(self) -> int:
        return len(self.online.vector) * (self.config.batch_size or len(self.buffer))

    def _values(self, net: nn.Module, obs: Shaped[Tensor, "B ..."]) -> Float[Tensor, "B A"]:
        """q of either network, by the shortest way."""
        return self.written.get(net, net)(obs)

    def _done(self) -> float:
        """Share of the run that is over."""
        return min(1.0, self.num_samples / self.config.num_env_steps)

    def _act(self) -> int:
        """Step the environments until updates are due; returns how many."""
        config, env = self.config, self.env
        if env is None:
            return self._pretend()
        if self.obs is None:
            self.obs = env.reset(seed=self.streams.integer("environment"))
        while True:
            actions = self._actions(self.obs)
            step = env.step(actions)
            self.buffer.push(
                self.obs, actions, step.rewards, step.next_obs, step.terminated, step.truncated, step.mask
            )  # fmt: skip
            self.seen.recorder.add(step)
            self.obs = step.obs
            self.num_samples += int(step.mask.sum())
            learnt = self.num_samples - config.learning_starts
            owed = learnt // config.train_every * config.gradient_steps - self.num_updates
            over = self.num_samples >= config.num_env_steps
            if over or (owed > 0 and len(self.buffer)):
                self.seen.count_episodes()
                return max(0, owed)

    def _pretend(self) -> int:
        """The steps that would have brought the next updates; the data set is there already."""
        self.num_samples += self.config.train_every
        return self.config.gradient_steps

    @torch.no_grad()
    def _actions(self, obs: Tensor) -> Int64[Tensor, "B"]:
        """Greedy in q, or any feasible action with probability epsilon."""
        q = self._values(self.q_net, obs).numpy(force=True)
        draws = self.streams.numpy("explore").random((len(q), q.shape[1] + 1))
        explores = draws[:, 0] < self.epsilon
        # the largest of independent uniforms is a fair choice; an infeasible action has q = -inf
        any_action = np.where(q > -np.inf, draws[:, 1:], -1.0).argmax(axis=1)
        return torch.from_numpy(np.where(explores, any_action, q.argmax(axis=1))).to(obs.device)

    def _learn(self, owed: int) -> None:
        """owed updates; between two moves of the target its values are computed in one pass."""
        config, losses, indices = self.config, [], []
        self.optimizer.lr = config.lr * (1.0 - config.lr_decay * self._done())
        while owed:
            # by priority every minibatch must see the errors of the one before
            block = 1 if config.prioritized else config.target_every - self.num_updates % config.target_every  # fmt: skip
            block = min(owed, block)
            batch = self._draw(block)
            rows = len(batch) // block
            targets = None if config.double else self._targets(batch, slice(None))
            for k in range(block):
                part = slice(k * rows, (k + 1) * rows)
                # the double target follows the online network, which moves at every update
                y = self._targets(batch, part) if targets is None else targets[part]
                loss, errors = self._update(batch, y, part)
                losses.append(loss)
                indices.append(batch.info["indices"][part])
                if config.prioritized:
                    self.buffer.update_priorities(batch.info["indices"], errors.float())
            owed -= block
            self.seen.note(y)
        if losses:
            self._note_losses(torch.stack(losses), indices)

    def _draw(self, block: int) -> Batch:
        """Rows of ``block`` minibatches, on the network's device."""
        if self.config.batch_size is None:
            if self.everything is None or self.env is not None:
                self.everything = self._placed(self.buffer.rows(np.arange(len(self.buffer))))
            return self.everything if block == 1 else Batch.cat([self.everything] * block)
        first, last = self.config.beta
        rng = self.streams.numpy("replay")
        return self._placed(
            self.buffer.sample(
                block * self.config.batch_size, rng=rng, beta=first + self._done() * (last - first)
            )
        )

    def _placed(self, batch: Batch) -> Batch:
        device = self.online.vector.device
        return batch if device.type == "cpu" else batch.to(device)

    @torch.no_grad()
    def _targets(self, batch: Batch, part: slice) -> Float[Tensor, "B"]:
        """R + c max q_T(s', .), or q_T at the best action of q."""
        dtype, next_obs = self.online.vector.dtype, batch.next_obs[part]
        rewards, discounts = (x[part].to(dtype) for x in (batch.rewards, batch.info["discounts"]))
        next_target = self._values(self.target_net, next_obs)
        if self.config.double:
            next_online = self._values(self.q_net, next_obs)
            return double_q_target(rewards, discounts, next_online, next_target)
        return q_learning_target(rewards, discounts, next_target)

    def _update(
        self, batch: Batch, targets: Float[Tensor, "B"], part: slice
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "B"]]:
        """One step of the optimizer; (loss, errors y - q), both without gradient."""
        config, rows = self.config, (batch.obs[part], batch.actions[part, None])
        weights = batch.info["weights"][part] if config.prioritized else None
        by = self._by_autograd if self.q_net not in self.written else self._written_out
        loss, errors = by(*rows, targets, weights)
        if config.max_grad_norm is not None:
            norm = self.online.gradient.norm()
            self.online.gradient.mul_((config.max_grad_norm / (norm + 1e-6)).clamp(max=1.0))
        self.optimizer.step()
        self.num_updates += 1
        if self.num_updates % config.target_every == 0:
            self.target.vector.lerp_(self.online.vector, config.tau)
        return loss, errors

    def _by_autograd(
        self, obs: Shaped[Tensor, "B ..."], actions: Int64[Tensor, "B 1"], targets: Float[Tensor, "B"],
        weights: Float[Tensor, "B"] | None,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "B"]]:  # fmt: skip
        """(loss, y - q); the gradient of the loss is in ``online.gradient``."""
        errors = targets - self.q_net(obs).gather(1, actions).squeeze(1)
        if self.config.loss == "mse":
            penalties = errors**2
        else:
            penalties = nn.functional.huber_loss(errors, torch.zeros_like(errors), reduction="none")
        loss = (penalties if weights is None else penalties * weights).mean()
        self.online.gradient.zero_()
        loss.backward()
        return loss.detach(), errors.detach()

    @torch.no_grad()
    def _written_out(
        self, obs: Shaped[Tensor, "B ..."], actions: Int64[Tensor, "B 1"], targets: Float[Tensor, "B"],
        weights: Float[Tensor, "B"] | None,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "B"]]:  # fmt: skip
        """The same for a perceptron, without autograd."""
        net = self.written[self.q_net]
        hidden = net.activations(obs)
        q = net.q(hidden[-1])
        errors = targets - q.gather(1, actions).squeeze(1)
        if self.config.loss == "mse":
            penalties, slopes = errors**2, 2.0 * errors
        else:
            slopes = errors.clamp(-1.0, 1.0)
            penalties = slopes * (errors - 0.5 * slopes)
        if weights is not None:
            penalties, slopes = penalties * weights, slopes * weights
        d_q = torch.zeros_like(q).scatter_(1, actions, slopes[:, None] / -len(slopes))
        net.backward(hidden, d_q)
        return penalties.mean(), errors

    def _note_losses(self, losses: Float[Tensor, "K"], indices: list[Int64[Tensor, "B"]]) -> None:
        finite = torch.isfinite(losses)
        if not bool(finite.all()):
            k = int(finite.to(torch.uint8).argmin())
            rows = indices[k].tolist()
            shown = ", ".join(map(str, rows[:8])) + (", ..." if len(rows) > 8 else "")
            raise NonFiniteError(
                f"the loss of update {self.num_updates - len(losses) + k + 1} is {losses[k].item()}, on the "
                f"replay rows {shown}. Look at them with trainer.buffer.rows(...), or lower lr ({self.config.lr:g})."
            )
        self.seen.losses += (len(losses), float(losses.sum()))

    def _update_event(self) -> Event:
        config = self.config
        bound = self.buffer.max_reward / (1.0 - config.gamma) if config.gamma < 1 else math.inf
        metrics, largest = self.seen.take()
        if math.isfinite(bound):
            metrics["q/bound"] = bound
        diverges = largest > config.divergence * bound > 0
        if diverges and not self.warned:
            self.warned = True
            warnings.warn(
                f"action values reach {largest:.3g} where rewards up to {self.buffer.max_reward:.3g} at gamma "
                f"{config.gamma:g} allow {bound:.3g}: learning diverges. Move the target less often "
                f"(target_every={config.target_every}), lower lr, or set double=True; divergence=inf silences this.",
                stacklevel=3,
            )
        metrics |= {"explore/epsilon": self.epsilon, "replay/size": float(len(self.buffer))}  # fmt: skip
        return Event(
            kind="update", step=self.num_updates, num_samples=self.num_samples, metrics=metrics,
            data={"diverges": True} if diverges else {},
        )  # fmt: skip


def _check_actions(dataset: Batch) -> None:
    if dataset.actions.is_floating_point() or dataset.actions.dtype == torch.bool:
        raise TypeError(f"actions must be integers, got {dataset.actions.dtype}: DQN numbers its actions.")  # fmt: skip
