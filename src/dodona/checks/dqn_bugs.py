"""Known bugs of replay, action-value networks and DQN, each in the place of the function that has it.

Not here: the checks that must catch them (dqn.py).
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from dodona.core.protocols import Mutant
from dodona.rl.dqn import DQNTrainer, dqn_trainer
from dodona.rl.q_networks import QNetwork
from dodona.rl.replay import ReplayBuffer


class _DoneMerged(ReplayBuffer):
    def push(self, obs, actions, rewards, next_obs, terminated, truncated, mask=None):
        return super().push(obs, actions, rewards, next_obs, terminated | truncated, truncated, mask)  # fmt: skip


class _ResetObs(ReplayBuffer):
    def push(self, obs, actions, rewards, next_obs, terminated, truncated, mask=None):
        over = (terminated | truncated).reshape(-1, *[1] * (next_obs.ndim - 1))
        shown = torch.where(over, torch.zeros_like(next_obs), next_obs)
        return super().push(obs, actions, rewards, shown, terminated, truncated, mask)


class _StoresResets(ReplayBuffer):
    def push(self, obs, actions, rewards, next_obs, terminated, truncated, mask=None):
        return super().push(obs, actions, rewards, next_obs, terminated, truncated)


class _AcrossTimeLimits(ReplayBuffer):
    def push(self, obs, actions, rewards, next_obs, terminated, truncated, mask=None):
        return super().push(obs, actions, rewards, next_obs, terminated, truncated & False, mask)


class _OneStepMore(ReplayBuffer):
    def __init__(self, *args, num_steps=1, **options):
        super().__init__(*args, num_steps=num_steps + (num_steps > 1), **options)


class _Changed(ReplayBuffer):
    """Rows whose info goes through ``change``."""

    change: Callable[[ReplayBuffer, dict[str, Any]], dict[str, Any]]

    def rows(self, indices, weights=None):
        batch = super().rows(indices, weights)
        return batch.replace(info={**batch.info, **self.change(batch.info)})


class _GammaOnce(_Changed):
    def change(self, info):
        return {"discounts": self.gamma * (info["discounts"] > 0)}


class _WeightsInverted(_Changed):
    def change(self, info):
        weights = 1.0 / info["weights"]
        return {"weights": weights / weights.max()}


class _WeightsToMeanOne(_Changed):
    def change(self, info):
        return {"weights": info["weights"] / info["weights"].mean()}


class _WithoutExponent(ReplayBuffer):
    def __init__(self, *args, **options):
        super().__init__(*args, **{**options, "priority_exponent": 1.0})


class _EvenDraws(ReplayBuffer):
    def sample(self, n, *, rng, beta=1.0):
        return self.rows(rng.integers(0, len(self), n))


class _NeverTheLast(ReplayBuffer):
    def sample(self, n, *, rng, beta=1.0):
        if self.prioritized:
            return super().sample(n, rng=rng, beta=beta)
        return self.rows(rng.integers(0, max(1, len(self) - 1), n))


class _MaxAdvantage(QNetwork):
    def forward(self, obs):
        q = super().forward(obs)
        if not self.dueling:
            return q
        x = obs if self.coordinates is None else self.coordinates[obs]
        out = self.head(self.body(x))
        return q + out[:, 1:].mean(1, keepdim=True) - out[:, 1:].amax(1, keepdim=True)


class _NoBaseline(QNetwork):
    def forward(self, obs):
        q = super().forward(obs)
        x = obs if self.coordinates is None else self.coordinates[obs]
        return q + self.head(self.body(x))[:, 1:].mean(1, keepdim=True) if self.dueling else q


class _AnyAction(QNetwork):
    def __init__(self, *args, action_mask=None, **options):
        super().__init__(*args, **options)


class _Aliased(DQNTrainer):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.target_net, self.target.vector = self.q_net, self.online.vector


class _NeverMoves(DQNTrainer):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.target.vector = self.target.vector.clone()


class _OnlineMaximum(DQNTrainer):
    def _targets(self, batch, part):
        real, self.target_net = self.target_net, self.q_net
        try:
            return super()._targets(batch, part)
        finally:
            self.target_net = real


class _JudgeSwapped(DQNTrainer):
    def _targets(self, batch, part):
        if not self.config.double:
            return super()._targets(batch, part)
        self.q_net, self.target_net = self.target_net, self.q_net
        try:
            return super()._targets(batch, part)
        finally:
            self.q_net, self.target_net = self.target_net, self.q_net


class _ThroughTheTarget(DQNTrainer):
    """Missing detach, on the online network: the residual gradient."""

    def _update(self, batch, targets, part):
        best = self.q_net(batch.next_obs[part]).amax(1)
        discounts = batch.info["discounts"][part]
        again = torch.where(discounts > 0, discounts * best, 0.0)
        return super()._update(batch, targets + again - again.detach(), part)


class _Broadcast(DQNTrainer):
    """(B,) - (B, 1): every error is taken against every target, which is the error to their mean."""

    def _update(self, batch, targets, part):
        return super()._update(batch, targets.mean().expand_as(targets), part)


class _SignedPriorities(DQNTrainer):
    def _update(self, batch, targets, part):
        loss, errors = super()._update(batch, targets, part)
        return loss, errors.clamp(min=0.0)


class _WithoutWeights(DQNTrainer):
    def _update(self, batch, targets, part):
        ones = torch.ones_like(batch.info["weights"])
        return super()._update(batch.replace(info={**batch.info, "weights": ones}), targets, part)


def _as(kind: type[DQNTrainer]) -> Callable[..., DQNTrainer]:
    def make(q_net, env, config, *, dataset=None, evaluate=None, until=None):
        return kind(q_net, env, config, dataset=dataset, evaluate=evaluate, until=until)

    return make


def _with(**changes: Any) -> Callable[..., DQNTrainer]:
    return lambda q_net, env, config, **o: dqn_trainer(q_net, env, replace(config, **changes), **o)


def _late(q_net, env, config, **options):
    return dqn_trainer(q_net, env, replace(config, target_every=config.target_every + 1), **options)


MUTANTS = (
    Mutant(name="done merged", replaces="ReplayBuffer", function=_DoneMerged, bug="a time limit stored as the end"),
    Mutant(name="reset observation stored", replaces="ReplayBuffer", function=_ResetObs, bug="the successor of an ending is the next start"),
    Mutant(name="resetting rows stored", replaces="ReplayBuffer", function=_StoresResets, bug="autoreset rows learnt from"),
    Mutant(name="windows across time limits", replaces="ReplayBuffer", function=_AcrossTimeLimits, bug="rewards of the next episode"),
    Mutant(name="one step more", replaces="ReplayBuffer", function=_OneStepMore, bug="n + 1 rewards"),
    Mutant(name="gamma for gamma^n", replaces="ReplayBuffer", function=_GammaOnce, bug="the bootstrap of n steps discounted once"),
    Mutant(name="weights inverted", replaces="ReplayBuffer", function=_WeightsInverted, bug="(N P)^beta"),
    Mutant(name="weights of mean one", replaces="ReplayBuffer", function=_WeightsToMeanOne, bug="steps longer than without weights"),
    Mutant(name="priorities without exponent", replaces="ReplayBuffer", function=_WithoutExponent, bug="alpha ignored"),
    Mutant(name="priorities ignored", replaces="ReplayBuffer", function=_EvenDraws, bug="uniform draws called prioritised"),
    Mutant(name="newest row never drawn", replaces="ReplayBuffer", function=_NeverTheLast, bug="draws from one row too few"),
    Mutant(name="advantages against their maximum", replaces="QNetwork", function=_MaxAdvantage, bug="eq. 8 for eq. 9"),
    Mutant(name="advantages without baseline", replaces="QNetwork", function=_NoBaseline, bug="v + A"),
    Mutant(name="maximum over infeasible actions", replaces="QNetwork", function=_AnyAction, bug="action mask ignored"),
    Mutant(name="aliased target", replaces="dqn_trainer", function=_as(_Aliased), bug="one network in both roles"),
    Mutant(name="target never moves", replaces="dqn_trainer", function=_as(_NeverMoves), bug="copied into the wrong tensor"),
    Mutant(name="target a step late", replaces="dqn_trainer", function=_late, bug="C + 1 updates between copies"),
    Mutant(name="online maximum", replaces="dqn_trainer", function=_as(_OnlineMaximum), bug="the target network judges nothing"),
    Mutant(name="double roles swapped", replaces="dqn_trainer", function=_as(_JudgeSwapped), bug="the target chooses, the online network judges"),
    Mutant(name="double ignored", replaces="dqn_trainer", function=_with(double=False), bug="plain DQN called double"),
    Mutant(name="tau ignored", replaces="dqn_trainer", function=_with(tau=1.0), bug="copies for averages"),
    Mutant(name="Huber ignored", replaces="dqn_trainer", function=_with(loss="mse"), bug="squares for Huber"),
    Mutant(name="n ignored", replaces="dqn_trainer", function=_with(num_steps=1), bug="one reward in every target"),
    Mutant(name="no detach", replaces="dqn_trainer", function=_as(_ThroughTheTarget), bug="gradient through the target"),
    Mutant(name="errors broadcast", replaces="dqn_trainer", function=_as(_Broadcast), bug="(B,) - (B, 1)"),
    Mutant(name="signed priorities", replaces="dqn_trainer", function=_as(_SignedPriorities), bug="|y - q| without the bars"),
    Mutant(name="weights ignored", replaces="dqn_trainer", function=_as(_WithoutWeights), bug="prioritised and biased"),
)  # fmt: skip
