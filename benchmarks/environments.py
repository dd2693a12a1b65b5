"""Steps per second of classic control tasks, played at random and by a 64-64 tanh policy.

Ours is the fused rollout, which writes the whole batch down; the peers are what people run: Gymnasium's
SyncVectorEnv with NumPy's choices or a torch policy per step, and gymnax's environments in one jitted scan (a
process of its own, see _jax_peers.py), which keep nothing of it. CartPole at every number of rows, the other tasks at 64. The call of a single step of
all rows, where a policy of another kind must be asked, is there as well.
"""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import torch
from _jax_peers import gymnax_scan
from _timing import absolute_row, in_turn, ratio_row

from dodona.policies import MLPPolicy
from dodona.rl import Normalizer, make_env
from dodona.rl.native.fused_rollout import FusedCollector
from dodona.rl.native.native_env import TASKS, NativeEnv

ROWS = (1, 4, 16, 64, 256, 1024, 4096)
FUSED_STEPS = 1 << 15  # of all rows per call, of compiled rollouts
SLOW_STEPS = 256  # the same of the peers that take a call per step
HIDDEN = (64, 64)


def run() -> list[dict[str, Any]]:
    """Rows in steps per second of all rows together; ratio > 1: dodona is ahead."""
    threads = torch.get_num_threads()
    flops = _flops_per_second()
    torch.set_num_threads(1)  # small networks are slower with more
    try:
        rows = [row for n in ROWS for row in _task("CartPole-v1", n, flops)]
        return rows + [row for env_id in TASKS if env_id != "CartPole-v1" for row in _task(env_id, 64, flops)]  # fmt: skip
    finally:
        torch.set_num_threads(threads)


def _flops_per_second() -> float:
    """What all cores reach in a large float32 product: no policy can be asked faster than that."""
    x = torch.randn(1024, 1024)
    return 2 * 1024**3 / in_turn({"product": lambda: x @ x}, rounds=3)["product"]


def _task(env_id: str, num_envs: int, flops: float) -> list[dict[str, Any]]:
    fused, calls = max(1, FUSED_STEPS // num_envs), max(1, SLOW_STEPS // num_envs)
    contestants, sizes = {}, {}

    def add(name: str, call: Callable[[], Any] | None, num_steps: int) -> None:
        if call is not None:
            contestants[name], sizes[name] = call, num_steps * num_envs

    for kind, hidden in (("random", ()), ("64-64", HIDDEN)):
        env = make_env(env_id, num_envs, seed=0, backend="native")
        policy = MLPPolicy.for_env(env, hidden=hidden) if hidden else None
        add(kind, _fused(env, policy, fused), fused)
        add(f"{kind}, Gymnasium", _gymnasium(env_id, num_envs, policy, calls), calls)  # fmt: skip
        scan = gymnax_scan(env_id, num_envs=num_envs, hidden=hidden, num_steps=fused)
        add(f"{kind}, gymnax", scan, fused)
    env = make_env(env_id, num_envs, seed=0, backend="native")
    scaled = FusedCollector(env, fused, normalizer=Normalizer(env))
    policy = MLPPolicy.for_env(env, hidden=HIDDEN)
    add("scaled", lambda: scaled.collect(policy), fused)
    add("step", _stepped(env_id, num_envs, calls), calls)
    taken = in_turn(contestants, rounds=3, seconds=0.1)
    speed = {name: sizes[name] / seconds for name, seconds in taken.items()}
    sizes_of = (*env.obs_shape, *HIDDEN, env.num_actions or 1)
    work = 2 * sum(i * o for i, o in zip(sizes_of, sizes_of[1:], strict=False))
    rows = []
    for kind in ("random", "64-64"):
        title = f"{env_id}, {num_envs} rows, {kind}"
        for peer, target in (("Gymnasium", 100.0), ("gymnax", 3.0)):
            rows.append(
                ratio_row(
                    title, peer=f"{peer}'s {'SyncVectorEnv' if peer == 'Gymnasium' else 'jitted scan'}",
                    ours=speed[kind], theirs=speed.get(f"{kind}, {peer}"), target=target, unit="steps/s",
                    limit=speed[kind] * work / flops if kind == "64-64" else None,
                )
            )  # fmt: skip
    alone = {"scaled": "64-64 with running statistics", "step": "a call per step"}
    for name, title in alone.items():
        rows.append(absolute_row(f"{env_id}, {num_envs} rows, {title}", ours=speed[name], unit="steps/s", larger_is_better=True))  # fmt: skip
    return rows


def _fused(env: NativeEnv, policy: MLPPolicy | None, num_steps: int) -> Callable[[], Any]:
    collector = FusedCollector(env, num_steps)
    return lambda: collector.collect(policy)


def _stepped(env_id: str, num_envs: int, num_steps: int) -> Callable[[], Any]:
    env = make_env(env_id, num_envs, seed=0, backend="native")
    env.reset()
    rng = np.random.default_rng(0)
    if env.num_actions is not None:
        actions = torch.from_numpy(rng.integers(env.num_actions, size=num_envs))
    else:
        actions = torch.from_numpy(rng.uniform(-1, 1, (num_envs, 1)).astype(np.float32))

    def play() -> None:
        for _ in range(num_steps):
            env.step(actions)

    return play


def _gymnasium(
    env_id: str, num_envs: int, policy: MLPPolicy | None, num_steps: int
) -> Callable[[], Any]:
    makers = [lambda: gymnasium.make(env_id, disable_env_checker=True)] * num_envs
    env = gymnasium.vector.SyncVectorEnv(makers)
    rng, space = np.random.default_rng(0), env.single_action_space
    stand = {"obs": env.reset(seed=0)[0]}

    def choose(obs: np.ndarray) -> np.ndarray:
        if policy is not None:
            actions, _ = policy.sample(torch.from_numpy(obs), rng=rng)
            return policy.env_actions(actions).numpy()
        if isinstance(space, gymnasium.spaces.Discrete):
            return rng.integers(space.n, size=num_envs)
        return rng.uniform(space.low, space.high, (num_envs, *space.shape)).astype(np.float32)

    def play() -> None:
        for _ in range(num_steps):
            stand["obs"] = env.step(choose(stand["obs"]))[0]

    return play
