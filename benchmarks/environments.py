"""Steps per second of classic control tasks, played at random and by a 64-64 tanh policy.

Ours is the fused rollout, which writes the whole batch down; the peers are what people run: Gymnasium's
SyncVectorEnv with NumPy's choices or a torch policy per step, and gymnax's environments in one jitted scan, which
keep nothing of it. CartPole at every number of rows, the other tasks at 64. The call of a single step of
all rows, where a policy of another kind must be asked, is there as well.
"""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import torch
from _timing import absolute_row, in_turn, ratio_row

from dodona.policies import MLPPolicy
from dodona.rl import make_env
from dodona.rl.native.fused_rollout import FusedCollector
from dodona.rl.native.native_env import TASKS, NativeEnv

ROWS = (1, 4, 16, 64, 256, 1024, 4096)
FUSED_STEPS = 1 << 15  # of all rows per call, of compiled rollouts
SLOW_STEPS = 256  # the same of the peers that take a call per step
HIDDEN = (64, 64)


def run() -> list[dict[str, Any]]:
    """Rows in steps per second of all rows together; ratio > 1: dodona is ahead."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # small networks are slower with more
    try:
        rows = [row for n in ROWS for row in _task("CartPole-v1", n)]
        return rows + [row for env_id in TASKS if env_id != "CartPole-v1" for row in _task(env_id, 64)]  # fmt: skip
    finally:
        torch.set_num_threads(threads)


def _task(env_id: str, num_envs: int) -> list[dict[str, Any]]:
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
        add(f"{kind}, gymnax", _gymnax(env_id, num_envs, hidden, fused), fused)
    add("step", _stepped(env_id, num_envs, calls), calls)
    taken = in_turn(contestants, rounds=3, seconds=0.1)
    speed = {name: sizes[name] / seconds for name, seconds in taken.items()}
    rows = []
    for kind in ("random", "64-64"):
        title = f"{env_id}, {num_envs} rows, {kind}"
        for peer, target in (("Gymnasium", 100.0), ("gymnax", 3.0)):
            rows.append(
                ratio_row(
                    title, peer=f"{peer}'s {'SyncVectorEnv' if peer == 'Gymnasium' else 'jitted scan'}",
                    ours=speed[kind], theirs=speed.get(f"{kind}, {peer}"), target=target, unit="steps/s",
                )
            )  # fmt: skip
    rows.append(absolute_row(f"{env_id}, {num_envs} rows, a call per step", ours=speed["step"], unit="steps/s", larger_is_better=True))  # fmt: skip
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


def _gymnax(
    env_id: str, num_envs: int, hidden: tuple[int, ...], num_steps: int
) -> Callable[[], Any] | None:
    """One scan over time of environments mapped over rows; None where gymnax is absent."""
    try:
        import gymnax
        import jax
    except ImportError:
        return None
    env, params = gymnax.make(env_id)
    discrete = env_id not in ("Pendulum-v1", "MountainCarContinuous-v0")
    reset, step = jax.vmap(env.reset, (0, None)), jax.vmap(env.step, (0, 0, 0, None))
    first_obs, first = reset(jax.random.split(jax.random.key(0), num_envs), params)
    width = env.action_space(params).n if discrete else 1
    sizes = (first_obs.shape[-1], *hidden, width)
    rng = np.random.default_rng(0)
    layers = [
        (0.1 * rng.normal(size=x).astype(np.float32), np.zeros(x[1], np.float32))
        for x in zip(sizes, sizes[1:], strict=False)
    ]

    def act(key: Any, obs: Any) -> Any:
        if not hidden:
            return jax.vmap(lambda k: env.action_space(params).sample(k))(jax.random.split(key, num_envs))  # fmt: skip
        x = obs
        for i, (w, b) in enumerate(layers):
            x = x @ w + b
            x = jax.numpy.tanh(x) if i < len(layers) - 1 else x
        return jax.random.categorical(key, x) if discrete else x + jax.random.normal(key, x.shape)

    def one(carry: Any, _: Any) -> Any:
        key, obs, state, total = carry
        key, of_action, of_step = jax.random.split(key, 3)
        actions = act(of_action, obs)
        keys = jax.random.split(of_step, num_envs)
        obs, state, rewards, *_ = step(keys, state, actions, params)
        return (key, obs, state, total + rewards.sum()), None

    @jax.jit
    def scan(key: Any, obs: Any, state: Any) -> Any:
        return jax.lax.scan(one, (key, obs, state, 0.0), None, length=num_steps)[0]

    return lambda: jax.block_until_ready(scan(jax.random.key(1), first_obs, first)[3])
