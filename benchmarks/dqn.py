"""DQN: seconds until CartPole stands, against Stable-Baselines3; steps per second, against CleanRL's loop.

Time to a return, for both alike: every 1000 steps 20 greedy episodes with the clock stopped; reached when
their mean is at or above 475, confirmed by 100 episodes; median over the seeds, one that never arrives
counts as infinite. Both train on one thread, which is the fastest for either. Stable-Baselines3 has the
settings of its own zoo; the loop has CleanRL's published ones, and so has dodona beside it.
"""

import os
import subprocess
import sys
import tempfile
from typing import Any, Literal

import numpy as np
import torch
from _arrival import BAR, POLE, Clock
from _timing import absolute_row, once, ratio_row

from dodona.rl import DQNConfig, QNetwork, dqn_trainer, make_env

BUDGET, EVERY = 50_000, 1000
NUM_SEEDS = 5
LOOP_STEPS = 10_000
# rl-baselines3-zoo, hyperparams/dqn.yml
ZOO = {
    "learning_rate": 2.3e-3, "batch_size": 64, "buffer_size": 100_000, "learning_starts": 1000, "gamma": 0.99,
    "target_update_interval": 10, "train_freq": 256, "gradient_steps": 128, "exploration_fraction": 0.16,
    "exploration_final_eps": 0.04, "policy_kwargs": {"net_arch": [256, 256]},
}  # fmt: skip
COLD = """
import time; begun = time.perf_counter()
from dodona.rl import DQNConfig, QNetwork, dqn_trainer, make_env
for _ in dqn_trainer(None, make_env("CartPole-v1", 8, seed=0), DQNConfig(num_env_steps=1000)): pass
print(time.perf_counter() - begun)
"""


def run(num_seeds: int = NUM_SEEDS) -> list[dict[str, Any]]:
    """Rows in seconds and in steps per second; ratio > 1: dodona is ahead."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [*_time_to_return(num_seeds), _cold(), *_steps_per_second()]
    finally:
        torch.set_num_threads(threads)


def _time_to_return(num_seeds: int) -> list[dict[str, Any]]:
    _ours(0, budget=2000)  # compiles
    ours, gymnasium, theirs = [], [], []
    for seed in range(num_seeds):  # in turn: all meet the same weather
        ours.append(_ours(seed))
        gymnasium.append(_ours(seed, backend="gymnasium"))
        theirs.append(_sb3(seed))
    known = [x for x in theirs if x is not None]
    title = f"{POLE}: seconds to {BAR:g}, median of {num_seeds} seeds"
    peer, sb3 = (
        float(np.median(known)) if known else None,
        "Stable-Baselines3 DQN, settings of its zoo",
    )
    return [
        ratio_row(title, peer=sb3, ours=float(np.median(ours)), theirs=peer, target=2.0),
        ratio_row(f"{title}, in Gymnasium's environment", peer=sb3, ours=float(np.median(gymnasium)), theirs=peer, target=2.0),
        absolute_row(f"{POLE}: seconds to {BAR:g}, slowest of {num_seeds} seeds", ours=max(ours), unit="s"),
    ]  # fmt: skip


def _ours(
    seed: int, *, budget: int = BUDGET, backend: Literal["auto", "gymnasium"] = "auto"
) -> float:
    clock, number = Clock(), 10_000 * (seed + 1)
    state = {"number": number, "seconds": float("inf")}

    def judge(net: torch.nn.Module) -> dict[str, float]:
        def act(obs: np.ndarray) -> np.ndarray:
            return net(torch.from_numpy(obs)).argmax(1).numpy()

        state["number"] += 2
        good = clock.arrived(act, state["number"])
        if good:
            state["seconds"] = clock.seconds()
        return {"arrived": float(good)}

    config = DQNConfig(num_env_steps=budget, evaluate_every=EVERY, seed=seed)
    env = make_env(POLE, 8, seed=seed, backend=backend)
    for _ in dqn_trainer(None, env, config, evaluate=judge, until=lambda m: m["arrived"] > 0):
        pass
    return state["seconds"]


def _sb3(seed: int) -> float | None:
    """None where Stable-Baselines3 is not installed."""
    try:
        from stable_baselines3 import DQN
        from stable_baselines3.common.callbacks import BaseCallback
        from stable_baselines3.common.env_util import make_vec_env
    except ImportError:
        return None

    class Judge(BaseCallback):
        arrived = float("inf")

        def _on_step(self) -> bool:
            if self.num_timesteps % EVERY:
                return True

            def act(obs: np.ndarray) -> np.ndarray:
                return self.model.predict(obs, deterministic=True)[0]

            if clock.arrived(act, 10_000 * (seed + 1) + self.num_timesteps // 500):
                self.arrived = clock.seconds()
                return False
            return True

    model = DQN(
        "MlpPolicy", make_vec_env(POLE, n_envs=1, seed=seed), seed=seed, device="cpu", **ZOO
    )
    judge, clock = Judge(), Clock()
    model.learn(BUDGET, callback=judge)
    return judge.arrived


def _cold() -> dict[str, Any]:
    """A fresh process without compiled code: imports, compilation, 1000 steps."""
    with tempfile.TemporaryDirectory() as empty:
        found = subprocess.run(
            [sys.executable, "-c", COLD], env={**os.environ, "NUMBA_CACHE_DIR": empty}, check=True,
            capture_output=True, text=True,
        )  # fmt: skip
    return absolute_row(f"{POLE}: a fresh process, nothing compiled, to step 1000", ours=float(found.stdout), unit="s")  # fmt: skip


def _steps_per_second() -> list[dict[str, Any]]:
    """CleanRL's settings on both sides: an update of 128 rows for every ten steps."""
    settings = {"num_env_steps": LOOP_STEPS, "learning_starts": 1000, "record_every": LOOP_STEPS}
    config = DQNConfig.cleanrl(**settings)

    def ours(seed: int) -> Any:
        env = make_env(POLE, 10, seed=seed)
        net = QNetwork.for_env(env, hidden=(120, 84), seed=seed)
        return lambda: list(dqn_trainer(net, env, config))

    ours(0)()
    mine, theirs = [], []
    for seed in range(3):
        mine.append(LOOP_STEPS / once(ours(seed))[0])
        theirs.append(LOOP_STEPS / once(lambda seed=seed: usual_loop(LOOP_STEPS, seed))[0])
    title = f"{POLE}: steps per second, settings of CleanRL, learning from step 1000"
    return [
        ratio_row(
            title, peer="the usual loop with these settings", ours=float(np.median(mine)),
            theirs=float(np.median(theirs)), target=2.0, unit="steps/s",
        )
    ]  # fmt: skip


# ---------------------------------------------------------------------- what people write
def usual_loop(num_steps: int, seed: int) -> None:
    """One environment, one file: arrays of transitions, a network of torch, Adam, a target copied now and then."""
    import gymnasium

    env = gymnasium.wrappers.RecordEpisodeStatistics(gymnasium.make(POLE))
    rng = np.random.default_rng(seed)

    def network() -> torch.nn.Module:
        return torch.nn.Sequential(
            torch.nn.Linear(4, 120), torch.nn.ReLU(), torch.nn.Linear(120, 84), torch.nn.ReLU(), torch.nn.Linear(84, 2)
        )  # fmt: skip

    q, target = network(), network()
    target.load_state_dict(q.state_dict())
    optimizer = torch.optim.Adam(q.parameters(), lr=2.5e-4)
    size = 10_000
    obs_s, next_s = np.zeros((size, 4), np.float32), np.zeros((size, 4), np.float32)
    act_s, rew_s, end_s = np.zeros(size, np.int64), np.zeros(size, np.float32), np.zeros(size, np.float32)  # fmt: skip
    obs, _ = env.reset(seed=seed)
    for step in range(num_steps):
        epsilon = max(0.05, 1.0 - 0.95 * step / (0.5 * num_steps))
        if rng.random() < epsilon:
            action = int(rng.integers(2))
        else:
            with torch.no_grad():
                action = int(q(torch.as_tensor(obs)[None]).argmax(1))
        after, reward, terminated, truncated, _ = env.step(action)
        i = step % size
        obs_s[i], next_s[i], act_s[i], rew_s[i], end_s[i] = obs, after, action, reward, terminated
        obs = env.reset()[0] if terminated or truncated else after
        if step > 1000 and step % 10 == 0:
            rows = rng.integers(0, min(step + 1, size), 128)
            with torch.no_grad():
                best = target(torch.as_tensor(next_s[rows])).max(1).values
                y = torch.as_tensor(rew_s[rows]) + 0.99 * best * (1 - torch.as_tensor(end_s[rows]))
            taken = q(torch.as_tensor(obs_s[rows])).gather(1, torch.as_tensor(act_s[rows])[:, None]).squeeze(1)  # fmt: skip
            loss = torch.nn.functional.mse_loss(taken, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if step % 500 == 0:
            target.load_state_dict(q.state_dict())
