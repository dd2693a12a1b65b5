"""TD3 and DDPG: steps per second beside Stable-Baselines3, with equal networks, minibatches and updates per step.

Both on Pendulum, on one thread, an update of the critics for every step of the environment, one of the
actor for every second (TD3). Each has its own environment: dodona's is compiled, the other is Gymnasium's,
whose share of a step is some 20 microseconds; a row with Gymnasium's environment on both sides leaves that out.

limit: the share of the speed at which only the matrix products of an update would run, which both sides need
alike. For 256-256 it is most of the time, and no library can be much ahead of another there.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from _timing import in_turn, once, ratio_row

from dodona.rl import DDPGConfig, TD3Config, ddpg_trainer, make_env, td3_trainer

PENDULUM = "Pendulum-v1"
WARM_UP = 500  # steps without updates, not counted
SIZES = {"64-64, 128 rows": ((64, 64), 128, 2000), "256-256, 256 rows": ((256, 256), 256, 500)}
SETTINGS = {"gamma": 0.98, "buffer_size": 50_000, "tau": 0.005}
TARGET = 1.5


def run(rounds: int = 3) -> list[dict[str, Any]]:
    """Rows in steps per second; ratio > 1: dodona is ahead."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows = []
        for title, (hidden, batch_size, num_steps) in SIZES.items():
            options = {"hidden": hidden, "batch_size": batch_size}
            for method in ("TD3", "DDPG"):
                contestants = {
                    "one environment": lambda m=method, o=options, n=num_steps: _ours(m, n, 1, "native", **o),
                    "one environment, Gymnasium's": lambda m=method, o=options, n=num_steps: _ours(m, n, 1, "gymnasium", **o),
                    "eight environments": lambda m=method, o=options, n=num_steps: _ours(m, n, 8, "native", **o),
                    "theirs": lambda m=method, o=options, n=num_steps: _sb3(m, n, **o),
                }  # fmt: skip
                bound = _products_per_second(hidden[0], batch_size) / _products(method)
                rows += _rows(f"{method} on {PENDULUM}, {title}", contestants, num_steps, rounds, bound)  # fmt: skip
        return rows
    finally:
        torch.set_num_threads(threads)


def _rows(
    title: str,
    contestants: dict[str, Callable[[], Callable[[], Any] | None]],
    num_steps: int,
    rounds: int,
    bound: float,
) -> list[dict[str, Any]]:
    speeds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):  # in turn: all meet the same weather
        for name, make in contestants.items():
            call = make()
            if call is not None:
                speeds[name].append(num_steps / once(call)[0])
    found = {name: float(np.median(x)) if x else None for name, x in speeds.items()}
    theirs = found.pop("theirs")
    return [
        ratio_row(
            f"{title}: {name}", peer=f"Stable-Baselines3 {title[:4].strip()}", ours=ours, theirs=theirs,
            target=TARGET, unit="steps/s", limit=ours / bound,
        )
        for name, ours in found.items()
    ]  # fmt: skip


def _products(method: str) -> float:
    """Products [B, H] x [H, H] of an update: one there, two back, one where only the input's gradient is wanted."""
    actor = 1 + 3  # the target's, the actor's own there and back
    judge = 1 + 1  # of the actor's action
    if method == "DDPG":
        return actor + judge + 1 + 3
    return 1 + 3 / 2 + judge / 2 + 2 * (1 + 3)  # the actor every second time, two critics


def _products_per_second(width: int, batch_size: int) -> float:
    x, weight = torch.randn(batch_size, width), torch.randn(width, width)
    seconds = in_turn({"product": lambda: torch.mm(x, weight)})["product"]
    return 1.0 / seconds


def _ours(
    method: str, num_steps: int, num_envs: int, backend: str, *, hidden: tuple[int, ...], batch_size: int
) -> Callable[[], Any]:  # fmt: skip
    """The steps after the warm-up, as a call."""
    make, config = {"TD3": (td3_trainer, TD3Config), "DDPG": (ddpg_trainer, DDPGConfig)}[method]
    trainer = make(
        None, None, make_env(PENDULUM, num_envs, seed=0, backend=backend),
        config(
            num_env_steps=WARM_UP + num_steps, learning_starts=WARM_UP, record_every=WARM_UP, hidden=hidden,
            batch_size=batch_size, train_every=num_envs, gradient_steps=num_envs, **SETTINGS,
        ),
    )  # fmt: skip
    events = iter(trainer)
    next(events)
    return lambda: list(events)


def _sb3(
    method: str, num_steps: int, *, hidden: tuple[int, ...], batch_size: int
) -> Callable[[], Any] | None:
    """None where Stable-Baselines3 is not installed."""
    try:
        from stable_baselines3 import DDPG, TD3
        from stable_baselines3.common.env_util import make_vec_env
        from stable_baselines3.common.noise import NormalActionNoise
    except ImportError:
        return None
    model = {"TD3": TD3, "DDPG": DDPG}[method](
        "MlpPolicy", make_vec_env(PENDULUM, n_envs=1, seed=0), learning_rate=1e-3, batch_size=batch_size,
        learning_starts=WARM_UP, train_freq=1, gradient_steps=1, seed=0, device="cpu",
        action_noise=NormalActionNoise(np.zeros(1), 0.1 * np.ones(1)),
        policy_kwargs={"net_arch": list(hidden)}, **SETTINGS,
    )  # fmt: skip
    model.learn(WARM_UP)
    return lambda: model.learn(num_steps, reset_num_timesteps=False)
