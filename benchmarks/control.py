"""PPO, A2C and TRPO on CartPole: steps per second and seconds until it stands, beside PureJaxRL and Stable-Baselines3.

Peers have the settings that they publish: PureJaxRL's ppo.py, and rl-baselines3-zoo's for Stable-Baselines3 and
sb3-contrib. What is compared at equal settings says so. Time to a return: _arrival.py; median over seeds.

What binds: a step of training is one pass of both networks while collecting and three for every epoch. The share
``limit`` is what their products alone would take at the speed of torch's own matrix product, over what was taken.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from _arrival import BAR, POLE, Clock
from _jax_peers import purejaxrl
from _timing import once, ratio_row

from dodona.objectives import ppo
from dodona.rl import A2CConfig, PPOConfig, a2c_trainer, make_env, ppo_trainer, trpo_trainer

NUM_SEEDS = 5
ZOO_PPO = {
    "n_steps": 32, "batch_size": 256, "gae_lambda": 0.8, "gamma": 0.98, "n_epochs": 20, "ent_coef": 0.0,
    "learning_rate": lambda left: 1e-3 * left, "clip_range": lambda left: 0.2 * left,
}  # fmt: skip
ZOO_TRPO = {
    "n_steps": 512, "batch_size": 512, "cg_damping": 1e-3, "gae_lambda": 0.98, "gamma": 0.99,
    "n_critic_updates": 20, "learning_rate": 1e-3,
}  # fmt: skip
# the zoo's number of environments, steps of a run, and our steps of each between two looks
ZOO = {
    "PPO": (8, 100_000, ZOO_PPO),
    "A2C": (8, 500_000, {"ent_coef": 0.0}),
    "TRPO": (2, 100_000, ZOO_TRPO),
}
EVERY = 4096  # environment steps between two evaluations, both sides
COLD = """
import sys; sys.path.insert(0, "benchmarks")
import control
control.{side}("PPO", 0)
"""


def run(num_seeds: int = NUM_SEEDS) -> list[dict[str, Any]]:
    """Rows in steps per second and in seconds; ratio > 1: dodona is ahead."""
    return [*_against_jax(), *_throughput(), *_time_to_return(num_seeds), *_from_process_start()]


# ---------------------------------------------------------------------- steps per second
def _against_jax() -> list[dict[str, Any]]:
    """Its settings on both sides: 128 steps, 4 epochs of 4 minibatches, 64-64 tanh, compiled before."""
    rows = []
    for num_envs, total in ((1024, 2_000_000), (64, 500_000), (4, 100_000)):
        theirs = purejaxrl(num_envs=num_envs, num_steps=128, num_env_steps=total)
        config = PPOConfig.cleanrl(num_env_steps=total)
        ours, peer = [], []
        _steps_per_second(ppo_trainer, replace(config, num_env_steps=2 * 128 * num_envs), num_envs)
        for _ in range(3):  # in turn
            ours.append(_steps_per_second(ppo_trainer, config, num_envs))
            if theirs is not None:
                peer.append(total / theirs()["seconds"])
        rows.append(
            ratio_row(
                f"PPO {POLE}: {num_envs} environments, PureJaxRL's settings", peer="PureJaxRL (JAX, CPU), compiled",
                ours=float(np.median(ours)), theirs=float(np.median(peer)) if peer else None, target=1.0,
                unit="steps/s", limit=float(np.median(ours)) / _bound(config.epochs),
            )
        )  # fmt: skip
    return rows


def _throughput() -> list[dict[str, Any]]:
    """Many environments at 4 epochs of 4 minibatches, where the return is still reached, beside the zoo's settings."""
    rows = []
    many = {
        "PPO": (_many_ppo, 40.0), "A2C": (_many_a2c, 20.0), "TRPO": (_many_trpo, 20.0),
    }  # fmt: skip
    for name, (make, target) in many.items():
        theirs = _sb3_steps_per_second(name)
        list(make(1)())
        ours, reached = _reached(make(0))
        rows.append(
            ratio_row(
                f"{name} {POLE}: many native environments, {reached}", peer=f"{_library(name)} {name}, its zoo's settings",
                ours=ours, theirs=theirs, target=target, unit="steps/s",
            )
        )  # fmt: skip
    for backend, target in (("native", 2.0), ("gymnasium", 3.0)):
        for name, make in (("PPO", _zoo_ppo), ("A2C", _zoo_a2c)):
            if backend == "gymnasium" and name == "A2C":
                continue
            settings = "its settings" if backend == "native" else "16 environments of Gymnasium"
            build = make if backend == "native" else _gymnasium_ppo
            list(build(1)())
            begun = time.perf_counter()
            samples = [e.num_samples for e in build(0)()]
            ours = samples[-1] / (time.perf_counter() - begun)
            rows.append(
                ratio_row(
                    f"{name} {POLE}: {settings}", peer=f"Stable-Baselines3 {name}, its zoo's settings", ours=ours,
                    theirs=_sb3_steps_per_second(name), target=target, unit="steps/s",
                )
            )  # fmt: skip
    return rows


def _steps_per_second(make: Callable[..., Any], config: Any, num_envs: int) -> float:
    """All collections but the first of a run."""
    trainer = iter(make(None, make_env(POLE, num_envs, seed=0), config=config))
    first = next(trainer)
    seconds, events = once(lambda: list(trainer))
    return (events[-1].num_samples - first.num_samples) / seconds


def _bound(epochs: int) -> float:
    """Steps per second if nothing but the matrix products of two 64-64 networks took time."""
    x, w = torch.randn(4096, 64), torch.randn(64, 64)
    torch.mm(x, w)
    seconds, _ = once(lambda: [torch.mm(x, w) for _ in range(50)])
    flops = 50 * 2 * x.numel() * 64 / seconds
    forward = 2 * 2 * (4 * 64 + 64 * 64 + 64 * 2)
    return flops / (forward * (1 + 3 * epochs))


def _reached(build: Callable[[], Any]) -> tuple[float, str]:
    """(steps per second, what the policy is worth at the end)."""
    trainer = build()
    seconds, events = once(lambda: list(trainer))
    value = _value_of(trainer.policy, 20_000)
    return events[-1].num_samples / seconds, f"return {value:.0f} at the end"


# ---------------------------------------------------------------------- seconds to a return
def _time_to_return(num_seeds: int) -> list[dict[str, Any]]:
    rows = []
    for name in ZOO:
        ours_of(name, 99)  # compiles
        ours, theirs = [], []
        for seed in range(num_seeds):  # in turn: all meet the same weather
            ours.append(ours_of(name, seed))
            theirs.append(sb3_of(name, seed))
        known = [x for x in theirs if x is not None]
        rows.append(
            ratio_row(
                f"{name} {POLE}: seconds to {BAR:g}, median of {num_seeds} seeds",
                peer=f"{_library(name)} {name}, settings of its zoo", ours=float(np.median(ours)),
                theirs=float(np.median(known)) if known else None, target=6.0,
            )
        )  # fmt: skip
    return rows


def _from_process_start() -> list[dict[str, Any]]:
    """A fresh process to the return, imports included; compiled code of earlier runs is at hand."""

    def seconds(side: str) -> float | None:
        taken = []
        for _ in range(3):
            begun = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-c", COLD.format(side=side)], capture_output=True
            )
            if done.returncode:
                return None
            taken.append(time.perf_counter() - begun)
        return float(np.median(taken))

    ours = seconds("ours_of")
    assert ours is not None
    return [
        ratio_row(
            f"PPO {POLE}: from the start of the process to {BAR:g}", peer="Stable-Baselines3 PPO, settings of its zoo",
            ours=ours, theirs=seconds("sb3_of"), target=4.0,
        )
    ]  # fmt: skip


def ours_of(name: str, seed: int) -> float:
    """Seconds of training until CartPole stands."""
    torch.set_num_threads(1)
    clock, looked, number = Clock(), 0, 10_000 * (seed + 1)
    trainer = {"PPO": _fast_ppo, "A2C": _fast_a2c, "TRPO": _fast_trpo}[name](seed)()

    def act(obs: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return trainer.policy.distribution(torch.from_numpy(obs)).mode().numpy()

    for event in trainer:
        if event.num_samples // EVERY > looked:
            looked, number = event.num_samples // EVERY, number + 2
            if clock.arrived(act, number):
                return clock.seconds()
    return float("inf")


def sb3_of(name: str, seed: int) -> float | None:
    """The same of the peer; None where it is not installed."""
    torch.set_num_threads(1)
    try:
        from stable_baselines3.common.callbacks import BaseCallback

        model, steps = _sb3(name, seed)
    except ImportError:
        return None

    class Judge(BaseCallback):
        arrived = float("inf")
        looked = 0

        def _on_step(self) -> bool:
            if self.num_timesteps // EVERY <= self.looked:
                return True
            self.looked = self.num_timesteps // EVERY

            def act(obs: np.ndarray) -> np.ndarray:
                return self.model.predict(obs, deterministic=True)[0]

            if clock.arrived(act, 10_000 * (seed + 1) + 2 * self.looked):
                self.arrived = clock.seconds()
                return False
            return True

    judge, clock = Judge(), Clock()
    model.learn(steps, callback=judge)
    return judge.arrived


# ---------------------------------------------------------------------- both sides' trainers
def _sb3(name: str, seed: int) -> tuple[Any, int]:
    """(model, steps of its run).  Raises: ImportError."""
    from stable_baselines3 import A2C, PPO
    from stable_baselines3.common.env_util import make_vec_env

    if name == "TRPO":
        from sb3_contrib import TRPO as method
    else:
        method = {"PPO": PPO, "A2C": A2C}[name]
    num_envs, steps, settings = ZOO[name]
    envs = make_vec_env(POLE, n_envs=num_envs, seed=seed)
    return method("MlpPolicy", envs, seed=seed, device="cpu", **settings), steps


def _sb3_steps_per_second(name: str) -> float | None:
    torch.set_num_threads(1)
    try:
        model, _ = _sb3(name, 0)
    except ImportError:
        return None
    seconds, _ = once(lambda: model.learn(20_000))
    torch.set_num_threads(2)
    return model.num_timesteps / seconds


def _library(name: str) -> str:
    return "sb3-contrib" if name == "TRPO" else "Stable-Baselines3"


def _value_of(policy: Any, seed: int) -> float:
    from _arrival import mean_return

    with torch.no_grad():
        return mean_return(
            lambda obs: policy.distribution(torch.from_numpy(obs)).mode().numpy(), 100, seed
        )


def _trainer(make: Callable[..., Any], config: Any, num_envs: int, seed: int, **env: Any) -> Any:
    return partial(make, None, make_env(POLE, num_envs, seed=seed, **env), config=config)


def _fast_ppo(seed: int) -> Any:
    return _trainer(ppo_trainer, PPOConfig(seed=seed), 16, seed)


def _gymnasium_ppo(seed: int) -> Any:
    return _trainer(ppo_trainer, PPOConfig(seed=seed), 16, seed, backend="gymnasium")


def _many_ppo(seed: int) -> Any:
    config = PPOConfig(num_env_steps=4_000_000, num_steps=64, epochs=4, lr=2e-3, seed=seed)
    return _trainer(ppo_trainer, config, 512, seed)


def _zoo_ppo(seed: int) -> Any:
    objective = ppo(gamma=0.98, gae_lambda=0.8, entropy_coef=0.0, value_coef=1.0)
    config = PPOConfig(
        num_env_steps=20_000, num_steps=32, epochs=20, minibatches=1, lr=1e-3, anneal_clip=True,
        objective=objective, seed=seed,
    )  # fmt: skip
    return _trainer(ppo_trainer, config, 8, seed)


def _fast_a2c(seed: int) -> Any:
    return _trainer(a2c_trainer, A2CConfig(num_env_steps=500_000, seed=seed), 16, seed)


def _many_a2c(seed: int) -> Any:
    return _trainer(a2c_trainer, A2CConfig(num_env_steps=2_000_000, seed=seed), 256, seed)


def _zoo_a2c(seed: int) -> Any:
    config = A2CConfig.paper(num_env_steps=20_000, seed=seed)  # 5 steps, RMSprop 7e-4
    return _trainer(a2c_trainer, config, 8, seed)


def _fast_trpo(seed: int) -> Any:
    from dodona.rl import TRPOConfig

    return _trainer(trpo_trainer, TRPOConfig(num_env_steps=100_000, seed=seed), 16, seed)


def _many_trpo(seed: int) -> Any:
    from dodona.rl import TRPOConfig

    return _trainer(trpo_trainer, TRPOConfig(num_env_steps=1_000_000, seed=seed), 256, seed)
