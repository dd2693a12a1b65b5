"""Replay, action-value networks and DQN against lists and loops: part of value-function-approximation.

Every switch of DQN runs on a table with recorded minibatches, where a plain loop says what the table must
be; rewards and discounts are dyadic, so that float32 replay loses nothing.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from dodona.core.batch import Batch
from dodona.core.protocols import Check
from dodona.oracles import replay as loops
from dodona.oracles.empirical import empirical_mdp
from dodona.oracles.enumeration import optimal_bruteforce
from dodona.rl.dqn import DQNConfig

RESET_OBS = 0  # what the scripted environments show at the start of every episode
SWITCHES: dict[str, dict[str, Any]] = {
    "plain": {},
    "target every 3": {"target_every": 3},
    "Polyak": {"tau": 0.25},
    "double": {"double": True, "target_every": 5, "lr": 0.9},
    "Huber": {"loss": "huber", "lr": 0.5},
    "3 steps": {"num_steps": 3},
    "prioritised": {"prioritized": True},
    "clipped gradient": {"max_grad_norm": 0.05},
}


def script(rng: np.random.Generator, T: int, B: int, num_states: int, num_actions: int) -> list[list]:  # fmt: skip
    """[T][B] records of environments that end, are cut, end both ways, and then spend a step on resetting."""
    times: list[list] = []
    obs, resets = [RESET_OBS] * B, [False] * B
    for t in range(T):
        row = []
        for env in range(B):
            if resets[env]:  # the row that only resets: its numbers must never be seen
                row.append((obs[env], 0, 1000.0, RESET_OBS, False, False, False))
                obs[env], resets[env] = RESET_OBS, False
                continue
            after = int(rng.integers(1, num_states))
            ended, cut = (bool(x) for x in rng.random(2) < 0.15)
            cut = cut or t == T - 1
            reward = float(rng.integers(-8, 9)) / 8
            action = int(rng.integers(num_actions))
            row.append((obs[env], action, reward, after, ended, cut, True))
            obs[env], resets[env] = after, ended or cut
        times.append(row)
    return times


def as_columns(times: list[list]) -> list[tuple[torch.Tensor, ...]]:
    """For each time the columns that ReplayBuffer.push takes."""
    kinds = (
        torch.int64, torch.int64, torch.float32, torch.int64, torch.bool, torch.bool, torch.bool
    )  # fmt: skip
    return [
        tuple(torch.tensor(column, dtype=kind) for column, kind in zip(zip(*row, strict=True), kinds, strict=True))
        for row in times
    ]  # fmt: skip


def as_batch(times: list[list]) -> Batch:
    """The same as one Batch [B, T]."""
    obs, actions, rewards, next_obs, terminated, truncated, mask = (
        torch.stack(column, dim=1) for column in zip(*as_columns(times), strict=True)
    )
    return Batch(
        obs=obs, actions=actions, rewards=rewards, next_obs=next_obs, terminated=terminated,
        truncated=truncated, mask=mask,
    )  # fmt: skip


def replay_checks(subjects, seed: int) -> Iterator[tuple | Check]:
    """What is stored, what is drawn, how often, with what weight."""
    rng = np.random.default_rng(seed)
    times = script(rng, 14, 3, 5, 2)
    for n, capacity in ((1, 64), (3, 64), (3, 7)):
        buffer = subjects["ReplayBuffer"](capacity, gamma=0.5, num_steps=n)
        for columns in as_columns(times):
            buffer.push(*columns)
        expected = loops.n_step_rows(times, num_steps=n, gamma=0.5)[-capacity:]
        got = buffer.rows((buffer.head + np.arange(len(buffer))) % len(buffer) if len(buffer) == capacity else np.arange(len(buffer)))  # fmt: skip
        columns = (
            got.obs, got.actions, got.rewards, got.next_obs, got.info["discounts"], got.terminated, got.truncated
        )  # fmt: skip
        table = np.stack([x.double().numpy() for x in columns], axis=1)
        yield f"rows of {n} steps in {capacity}", table, np.array(expected, float), 0.0, "oracles.replay.n_step_rows"  # fmt: skip
    num, size = 2000, 12
    buffer = subjects["ReplayBuffer"](16, prioritized=True)
    zeros, flags = torch.zeros(size), torch.zeros(size, dtype=torch.bool)
    buffer.push(zeros, torch.zeros(size, dtype=torch.int64), zeros, zeros, flags, flags)
    errors = rng.normal(size=size)
    buffer.update_priorities(torch.arange(size), torch.from_numpy(errors))
    shares = (np.abs(errors) + 1e-6) ** 0.6
    yield "priorities", buffer.priorities(), shares, 1e-12, "arXiv:1511.05952, sec. 3.3"
    drawn = buffer.sample(40, rng=rng, beta=0.7)
    indices = drawn.info["indices"].tolist()
    weights = loops.importance_weights(shares, indices, 0.7)
    yield "importance weights", drawn.info["weights"].double().numpy(), weights, 1e-6, "oracles.replay"  # fmt: skip
    often = np.bincount(buffer.sample(num, rng=rng).info["indices"].numpy(), minlength=size)
    p = shares / shares.sum()
    z = (often - num * p) / np.sqrt(num * p * (1 - p))
    yield "draws by priority, largest |z|", np.abs(z).max(), 0.0, 4.5, "p / sum p"
    plain = subjects["ReplayBuffer"](16)
    plain.push(zeros, torch.zeros(size, dtype=torch.int64), zeros, zeros, flags, flags)
    often = np.bincount(plain.sample(num, rng=rng).info["indices"].numpy(), minlength=size)
    z = (often - num / size) / np.sqrt(num / size * (1 - 1 / size))
    yield "even draws, largest |z|", np.abs(z).max(), 0.0, 4.5, "1 / N"


def network_checks(subjects, seed: int) -> Iterator[tuple]:
    """Plain and dueling networks, with and without infeasible actions."""
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(rng.normal(size=(3, 2)))
    feasible = np.array([[True, False, True], [True, True, True], [False, True, True]])
    for dueling in (False, True):
        net = subjects["QNetwork"]((2,), 3, hidden=(5,), dueling=dueling, seed=seed).double()
        layers = [(m.weight.tolist(), m.bias.tolist()) for m in net.modules() if isinstance(m, torch.nn.Linear)]  # fmt: skip
        expected = [loops.q_network(layers, row, dueling=dueling) for row in x.tolist()]
        name = "dueling q" if dueling else "q"
        yield name, net(x).detach().numpy(), expected, 1e-12, "oracles.replay.q_network"
        net = subjects["QNetwork"](3, 3, hidden=(5,), dueling=dueling, coordinates=x.float(), action_mask=feasible, seed=seed).double()  # fmt: skip
        coordinates = x.float().double().tolist()
        expected = [
            loops.q_network(layers, row, dueling=dueling, feasible=m)
            for row, m in zip(coordinates, feasible, strict=True)
        ]
        got = net(torch.arange(3)).detach().numpy()
        # exp: infinities can be compared
        yield f"{name}, infeasible actions", np.exp(got), np.exp(expected), 1e-6, "oracles.replay.q_network"  # fmt: skip


def dqn_checks(subjects, seed: int) -> Iterator[tuple]:
    """Every switch on a table, update by update."""
    rng = np.random.default_rng(seed)
    times = script(rng, 12, 3, 4, 2)
    feasible = np.array([[True, True], [True, False], [True, True], [True, True]])
    for time in times:  # state 1 has one action
        for env, (s, a, *rest) in enumerate(time):
            time[env] = (s, a * bool(feasible[s, a]), *rest)
    dataset, start = as_batch(times), rng.normal(size=(4, 2))
    for name, switches in SWITCHES.items():
        options = {"lr": 0.3, "target_every": 1, **switches}
        config = DQNConfig(
            gamma=0.5, batch_size=6, buffer_size=40, learning_starts=6, optimizer="sgd", train_every=4,
            gradient_steps=4, num_env_steps=12, seed=seed, **options,
        )  # fmt: skip
        net = subjects["QNetwork"](4, 2, hidden=(), action_mask=feasible).double()
        with torch.no_grad():
            net.head.weight.copy_(torch.from_numpy(start))
        trainer = subjects["dqn_trainer"](net, None, config, dataset=dataset)
        minibatches = record(trainer, 6)
        for _ in trainer:
            pass
        rows = loops.n_step_rows(times, num_steps=options.get("num_steps", 1), gamma=0.5)
        expected, errors = loops.dqn_on_table(
            rows, minibatches, np.where(feasible, start, -np.inf), lr=options["lr"],
            loss=options.get("loss", "mse"), double=options.get("double", False),
            target_every=options["target_every"], tau=options.get("tau", 1.0),
            max_grad_norm=options.get("max_grad_norm"),
        )  # fmt: skip
        got = net(torch.arange(4)).detach().numpy()
        yield f"DQN, {name}", np.exp(got), np.exp(expected), 1e-6, "oracles.replay.dqn_on_table"
        if config.prioritized:
            drawn = [i for rows_of, _ in minibatches for i in rows_of]
            last = dict(zip(drawn, [e for several in errors for e in several], strict=True))
            sizes = [(abs(e) + 1e-6) ** 0.6 for e in last.values()]
            found = trainer.buffer.priorities()[list(last)]
            yield "DQN, errors become priorities", found, sizes, 1e-6, "arXiv:1511.05952"


def identity_check(subjects, seed: int) -> Iterator[tuple]:
    """A table, all rows at every update: the limit is the optimum of the empirical model."""
    rng = np.random.default_rng(seed)
    times = script(rng, 40, 1, 3, 2)
    rows = [row for time in times for row in time if row[6]]
    s, a, r, s2, ended, *_ = (np.array(column) for column in zip(*rows, strict=True))
    model = empirical_mdp(s, a, r, s2, ended, num_states=3, num_actions=2)
    assert model.counts[:3].min() > 0, "every pair must be there"
    best, _ = optimal_bruteforce(
        model.P, model.R, 0.5, terminal=model.terminal, action_mask=model.action_mask
    )
    q = model.R + 0.5 * model.P @ best
    config = DQNConfig(
        gamma=0.5, batch_size=None, optimizer="sgd", lr=len(rows) / (2 * model.counts.max()), train_every=1,
        gradient_steps=1, learning_starts=1, target_every=5, num_env_steps=150,
    )  # fmt: skip
    net = subjects["QNetwork"](3, 2, hidden=()).double()
    for _ in subjects["dqn_trainer"](net, None, config, dataset=as_batch(times)):
        pass
    yield "all rows, one-hot: fitted Q", net(torch.arange(3)).detach().numpy(), q[:3], 1e-6, "oracles.empirical"  # fmt: skip


def record(trainer: Any, batch_size: int) -> list[tuple[list[int], list[float]]]:
    """The minibatches that a trainer is going to draw, filled while it runs: (rows, weights)."""
    drawn: list[tuple[list[int], list[float]]] = []
    sample = trainer.buffer.sample

    def recorded(n: int, **options: Any) -> Batch:
        batch = sample(n, **options)
        indices, weights = batch.info["indices"].tolist(), batch.info["weights"].tolist()
        for k in range(0, n, batch_size):
            drawn.append((indices[k : k + batch_size], weights[k : k + batch_size]))
        return batch

    trainer.buffer.sample = recorded
    return drawn
