"""JAX peers in a process of their own: asked by lines of JSON, answered by lines of JSON.

    {"prepare": "gymnax", "env_id": "CartPole-v1", "num_envs": 64, "hidden": [64, 64], "num_steps": 512}
    {"prepare": "purejaxrl", "env_id": "CartPole-v1", "num_envs": 64, "num_steps": 128, "num_env_steps": 1000000}
    {"play": 0}                 -> {"seconds": ..., ...}; 0 is the first that was prepared

Run by benchmarks/_jax_peers.py with the Python that has JAX; needs nothing of this project. Versions that fit
each other: jax 0.10, gymnax 0.0.8, and for PureJaxRL flax, optax, distrax and a clone (DODONA_PUREJAXRL).

Source: gymnax (Lange 2022); PureJaxRL, Lu et al. 2022, arXiv:2210.05639.
"""

import json
import os
import sys
import time
import types
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

if not hasattr(jax, "tree_map"):  # gymnax 0.0.8 is older than its removal
    jax.tree_map = jax.tree.map

REAL = ("Pendulum-v1", "MountainCarContinuous-v0")  # actions are numbers, not choices


def gymnax_scan(
    *, env_id: str, num_envs: int, hidden: list[int], num_steps: int
) -> Callable[[], dict[str, float]]:
    """One jitted scan over time of environments mapped over rows; nothing is kept but the sum of rewards."""
    import gymnax

    env, params = gymnax.make(env_id)
    reset, step = jax.vmap(env.reset, (0, None)), jax.vmap(env.step, (0, 0, 0, None))
    first_obs, first = reset(jax.random.split(jax.random.PRNGKey(0), num_envs), params)
    sizes = (first_obs.shape[-1], *hidden, 1 if env_id in REAL else env.num_actions)
    rng = np.random.default_rng(0)
    layers = [
        (0.1 * rng.normal(size=x).astype(np.float32), np.zeros(x[1], np.float32))
        for x in zip(sizes, sizes[1:], strict=False)
    ]

    def act(key: Any, obs: Any) -> Any:
        if not hidden:
            keys = jax.random.split(key, num_envs)
            return jax.vmap(env.action_space(params).sample)(keys)
        x = obs
        for w, b in layers[:-1]:
            x = jax.numpy.tanh(x @ w + b)
        x = x @ layers[-1][0] + layers[-1][1]
        if env_id not in REAL:
            return jax.random.categorical(key, x)
        return x + jax.random.normal(key, x.shape)

    def one(carry: Any, _: Any) -> Any:
        key, obs, state, total = carry
        key, of_action, of_step = jax.random.split(key, 3)
        actions = act(of_action, obs)
        obs, state, rewards, *_ = step(jax.random.split(of_step, num_envs), state, actions, params)
        return (key, obs, state, total + rewards.sum()), None

    @jax.jit
    def scan(key: Any, obs: Any, state: Any) -> Any:
        _, obs, _, total = jax.lax.scan(one, (key, obs, state, 0.0), None, length=num_steps)[0]
        return (
            total,
            obs.sum(),
        )  # without the last observations a task of equal rewards is not played at all

    def play() -> dict[str, float]:
        total, _ = jax.block_until_ready(scan(jax.random.PRNGKey(1), first_obs, first))
        return {"reward": float(total)}

    play()
    return play


def purejaxrl(
    *, env_id: str, num_envs: int, num_steps: int, num_env_steps: int
) -> Callable[[], dict[str, float]]:
    """PureJaxRL's PPO with the settings of its repository: 4 epochs, 4 minibatches, 64-64 tanh."""
    for name in ("brax", "brax.envs", "brax.envs.wrappers", "brax.envs.wrappers.training", "navix"):
        sys.modules.setdefault(name, _Absent(name))
    sys.path.insert(0, os.path.join(os.environ["DODONA_PUREJAXRL"], "purejaxrl"))
    from ppo import make_train

    train = make_train({
        "LR": 2.5e-4, "NUM_ENVS": num_envs, "NUM_STEPS": num_steps, "TOTAL_TIMESTEPS": num_env_steps,
        "UPDATE_EPOCHS": 4, "NUM_MINIBATCHES": 4, "GAMMA": 0.99, "GAE_LAMBDA": 0.95, "CLIP_EPS": 0.2,
        "ENT_COEF": 0.01, "VF_COEF": 0.5, "MAX_GRAD_NORM": 0.5, "ACTIVATION": "tanh", "ENV_NAME": env_id,
        "ANNEAL_LR": True, "DEBUG": False,
    })  # fmt: skip
    key = jax.random.PRNGKey(0)
    begun = time.perf_counter()
    compiled = jax.jit(train).lower(key).compile()
    compile_s = time.perf_counter() - begun

    def play() -> dict[str, float]:
        returns = jax.block_until_ready(compiled(key))["metrics"]["returned_episode_returns"]
        return {"compile_s": compile_s, "last_return": float(returns[-1].mean())}

    return play


class _Absent(types.ModuleType):
    """Stands for a package that other examples of PureJaxRL need."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def main() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr  # a peer that prints must not answer
    plays: list[Callable[[], dict[str, float]]] = []
    for line in sys.stdin:
        asked = json.loads(line)
        if "play" in asked:
            begun = time.perf_counter()
            answer = plays[asked["play"]]()
            answer["seconds"] = time.perf_counter() - begun
        else:
            prepare = {"gymnax": gymnax_scan, "purejaxrl": purejaxrl}[asked.pop("prepare")]
            try:
                plays.append(prepare(**asked))
                answer = {"number": len(plays) - 1}
            except (ImportError, KeyError) as missing:
                answer = {"missing": f"{type(missing).__name__}: {missing}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
