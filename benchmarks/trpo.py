"""TRPO: the actor's step beside sb3-contrib's on one batch, and updates of the trainer by the second.

Both sides take one step on the same 4096 observations, actions and advantages with a network of 64 and 64 tanh units,
10 conjugate gradient products, damping 0.1 and a radius of 0.01, from the same weights every time; collection and critic
are left out. sb3-contrib's step is the lines of its ``train`` up to the critic, called on its own policy and functions.
"""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from _timing import absolute_row, in_turn, once, ratio_row

from dodona.core.batch import Batch
from dodona.policies import MLPPolicy
from dodona.rl import TRPOConfig, make_env, trpo_trainer, trust_region_step

NUM_ROWS, OBS_DIM, NUM_ACTIONS = 4096, 4, 2
DAMPING, MAX_KL, CG = 0.1, 0.01, 10


def run() -> list[dict[str, Any]]:
    """Rows in seconds; ratio > 1: dodona is ahead."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the fastest for either on a busy machine
    try:
        return [_actor_step(), *_training()]
    finally:
        torch.set_num_threads(threads)


def _actor_step() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    obs = torch.from_numpy(rng.normal(size=(NUM_ROWS, OBS_DIM)).astype(np.float32))
    advantages = torch.from_numpy(rng.normal(size=NUM_ROWS).astype(np.float32))
    policy = MLPPolicy(OBS_DIM, NUM_ACTIONS, seed=0)
    actions, logp_old = policy.sample(obs, rng=rng)
    batch = Batch(
        obs=obs, actions=actions, logp_old=logp_old, advantages=advantages,
        mask=torch.ones(NUM_ROWS, dtype=torch.bool),
    )  # fmt: skip
    start = copy.deepcopy(policy.state_dict())

    def ours() -> None:
        policy.load_state_dict(start)
        report = trust_region_step(
            policy, batch, max_kl=MAX_KL, num_cg_iters=CG, damping=DAMPING, damping_kind="absolute"
        )
        assert report.accepted

    contestants = {"ours": ours}
    theirs = _sb3_step(policy, obs, actions, advantages)
    if theirs is not None:
        contestants["theirs"] = theirs
    seconds = in_turn(contestants, rounds=7)
    return ratio_row(
        f"actor step, {NUM_ROWS} x {OBS_DIM}, 64-64", peer="sb3-contrib TRPO",
        ours=seconds["ours"], theirs=seconds.get("theirs"), target=3.0,
    )  # fmt: skip


def _sb3_step(
    policy: MLPPolicy, obs: torch.Tensor, actions: torch.Tensor, advantages: torch.Tensor
) -> Callable[[], None] | None:
    """None where sb3-contrib is not installed."""
    try:
        from sb3_contrib import TRPO
        from sb3_contrib.common.utils import conjugate_gradient_solver
        from stable_baselines3.common.distributions import kl_divergence
    except ImportError:
        return None
    model = TRPO("MlpPolicy", "CartPole-v1", device="cpu", seed=0, cg_damping=DAMPING, target_kl=MAX_KL, cg_max_steps=CG - 1)  # fmt: skip
    actor = model.policy
    linears = [m for m in (*actor.mlp_extractor.policy_net, actor.action_net) if isinstance(m, torch.nn.Linear)]  # fmt: skip
    mine = [m for m in policy.net if isinstance(m, torch.nn.Linear)]
    with torch.no_grad():
        for a, b in zip(linears, mine, strict=True):
            a.weight.copy_(b.weight)
            a.bias.copy_(b.bias)
    start = copy.deepcopy(actor.state_dict())

    def step() -> None:
        actor.load_state_dict(start)
        with torch.no_grad():
            old = copy.copy(actor.get_distribution(obs))
            logp_old = old.log_prob(actions)
        distribution = actor.get_distribution(obs)
        logp = distribution.log_prob(actions)
        whitened = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        objective = (whitened * torch.exp(logp - logp_old)).mean()
        kl = kl_divergence(distribution, old).mean()
        actor.optimizer.zero_grad()
        parameters, gradients, kl_gradients, shapes = model._compute_actor_grad(kl, objective)

        def product(vector: torch.Tensor, retain_graph: bool = True) -> torch.Tensor:
            return model.hessian_vector_product(parameters, kl_gradients, vector, retain_graph)

        direction = conjugate_gradient_solver(product, gradients, max_iter=CG)
        size = torch.sqrt(2 * MAX_KL / (direction @ product(direction, retain_graph=False)))
        before = [p.detach().clone() for p in parameters]
        with torch.no_grad():
            factor = 1.0
            for _ in range(10):
                begin = 0
                for p, x, shape in zip(parameters, before, shapes, strict=True):
                    n = p.numel()
                    p.copy_(x + factor * size * direction[begin : begin + n].view(shape))
                    begin += n
                distribution = actor.get_distribution(obs)
                logp = distribution.log_prob(actions)
                moved = (whitened * torch.exp(logp - logp_old)).mean()
                if kl_divergence(distribution, old).mean() < MAX_KL and moved > objective:
                    return
                factor *= 0.8

    return step


def _training() -> list[dict[str, Any]]:
    """The first 20 updates of 2048 steps on CartPole: whole, and what an update without its collection takes."""
    config = TRPOConfig(num_env_steps=20 * 2048)
    trainer = trpo_trainer(None, make_env("CartPole-v1", 16, seed=0), config=config)
    batch = trainer.collector.collect(trainer.policy)
    trainer.update(batch)
    policy = copy.deepcopy(trainer.policy)
    prepared = trainer.objective.prepare(trainer.collector.collect(trainer.policy)).flatten()
    start = copy.deepcopy(policy.state_dict())

    def step() -> None:
        policy.load_state_dict(start)
        trust_region_step(policy, prepared)

    seconds = in_turn({"step": step})["step"]
    fresh = trpo_trainer(None, make_env("CartPole-v1", 16, seed=1), config=config)
    whole, _ = once(lambda: list(fresh))
    return [
        absolute_row("actor step, 2048 steps of CartPole", ours=seconds, unit="s", target=0.05),
        absolute_row("CartPole: environment steps per second, collection, step and critic", ours=20 * 2048 / whole, unit="1/s", larger_is_better=True),
    ]  # fmt: skip
