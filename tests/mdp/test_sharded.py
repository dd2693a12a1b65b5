"""Planning over 1, 2, 3 and 4 processes against planning in one; four real processes over gloo."""

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from dodona.errors import InputError, MDPError, ShapeError
from dodona.mdp import MDP, certify, solve, worlds
from dodona.mdp.halo import World
from dodona.mdp.sharded import METHODS, Shard, Sharded, shard, solve_sharded

SCRIPT = Path(__file__).with_name("sharded_worker.py")
worker = SimpleNamespace(**runpy.run_path(str(SCRIPT)))
MODELS = worker.models()
RANKS = 4


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[dict, dict]]:
    """(arrays, messages) of every rank, each its own process; loopback only."""
    folder = tmp_path_factory.mktemp("ranks")
    environment = os.environ | {
        "GLOO_SOCKET_IFNAME": "lo" if sys.platform == "linux" else "lo0",
        "NUMBA_NUM_THREADS": "1", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    processes = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(rank), str(RANKS), str(folder / "store"), str(folder)],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(RANKS)
    ]  # fmt: skip
    try:
        logs = [process.communicate(timeout=300)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [p.returncode for p in processes] == [0] * RANKS, "\n".join(logs)
    return [
        (dict(np.load(folder / f"{r}.npz")), json.loads((folder / f"{r}.json").read_text()))
        for r in range(RANKS)
    ]


def whole(ranks: list[tuple[dict, dict]], name: str, k: int, axis: int = -1) -> np.ndarray:
    """The parts of the first k ranks, joined."""
    return np.concatenate([ranks[r][0][name] for r in range(k)], axis=axis)


CASES = [(name, method) for name in MODELS for method in worker.methods(name)]
SWEEPING = ("value-iteration", "truncated")  # the others take dot products, which round by rank


@pytest.mark.parametrize("k", worker.GROUPS)
@pytest.mark.parametrize("name, method", CASES)
def test_any_number_of_ranks_gives_the_serial_answer_to_1e_12(ranks, name, method, k):
    values, lower, upper, policy = whole(ranks, f"{name}/{method}/{k}", k)
    serial = solve(MODELS[name], method=method, tol=worker.TOL, **worker.options(method))
    assert np.abs(values - serial.values).max() <= 1e-12
    assert np.max(upper - lower) <= worker.TOL * (1 + 1e-9)
    assert np.all(lower <= serial.upper) and np.all(upper >= serial.lower)
    assert np.array_equal(policy, serial.policy)


@pytest.mark.parametrize("k", worker.GROUPS)
@pytest.mark.parametrize("name, method", [c for c in CASES if c[1] in SWEEPING])
def test_sweeping_methods_give_the_same_bits_for_any_number_of_ranks(ranks, name, method, k):
    serial = solve(MODELS[name], method=method, tol=worker.TOL, **worker.options(method))
    parts = whole(ranks, f"{name}/{method}/{k}", k)
    assert np.array_equal(parts, [serial.values, serial.lower, serial.upper, serial.policy])
    facts = [serial.iterations, serial.residual, serial.sweeps, *MODELS[name].mass]
    for rank in range(k):
        assert np.array_equal(ranks[rank][0][f"{name}/{method}/{k}/facts"], facts)


@pytest.mark.parametrize("name, method", CASES)
def test_all_ranks_stop_at_the_same_iteration_with_the_same_numbers(ranks, name, method):
    for k in worker.GROUPS:
        facts = [ranks[r][0][f"{name}/{method}/{k}/facts"] for r in range(k)]
        assert all(np.array_equal(facts[0], other) for other in facts)


def test_both_ways_to_exchange_were_used(ranks):
    assert ranks[0][0]["wide/dense/4"] and not ranks[0][0]["narrow/dense/4"]


@pytest.mark.parametrize("k", worker.GROUPS)
def test_q_is_that_of_the_whole_model(ranks, k):
    for name, mdp in MODELS.items():
        q = whole(ranks, f"{name}/q/{k}", k, axis=0)
        serial = solve(mdp, method="value-iteration", tol=worker.TOL).q
        assert np.array_equal(np.isfinite(q), np.isfinite(serial))
        assert np.allclose(q, serial, rtol=0, atol=2e-12)


def test_a_run_repeats_bit_for_bit(ranks):
    assert np.array_equal(whole(ranks, "again", 3), whole(ranks, "wide/inexact/3", 3)[0])


def test_starts_and_other_evaluations_are_of_the_own_states(ranks):
    mdp = MODELS["wide"]
    serial = solve(
        mdp, method="truncated", tol=1e-9, num_sweeps=5, start_values=np.cos(np.arange(60))
    )
    assert np.array_equal(whole(ranks, "start", 3), serial.values)
    best = solve(mdp, tol=1e-12)
    assert np.array_equal(whole(ranks, "proven", 3), best.policy)
    for name in ("held", "iterated"):
        assert np.abs(whole(ranks, name, 3) - best.values).max() <= 1e-9


@pytest.mark.parametrize(
    "misuse, message",
    [
        ("gap", "MDPError: the shards must hold the states 0..59.*they hold 0..1"),
        ("overlap", "each once and in the order of ranks"),
        ("order", "each once and in the order of ranks.*one for each of the 4 processes"),
        ("gamma", "MDPError: ranks disagree on gamma: 0.4 on rank 0, 0.45"),
        ("num_states", "MDPError: ranks disagree on num_states: 60 on rank 0, 61 on rank 1"),
        ("tol", "InputError: ranks disagree on tol: 1e-08 on rank 0, 2e-08 on rank 1"),
        ("method", "method 'gauss-seidel' does not work on Sharded: its states lie in several"),
        ("lu", "factorises stored rows, which Sharded does not have"),
        ("undiscounted", "gamma is 1.0, and 'auto' needs gamma < 1"),
        ("overflow", "NonFiniteError: values became too large"),
    ],
)
def test_every_rank_hears_of_a_mistake(ranks, misuse, message):
    for _, messages in ranks:
        assert re.search(message, messages[misuse]), messages[misuse]


def test_only_rank_0_warns_and_outsiders_are_told(ranks):
    assert [m["unconverged"] for _, m in ranks] == ["1 warnings"] + ["0 warnings"] * 3
    assert "not in process_group" in ranks[3][1]["outsider"]


# ------------------------------------------------------------------ one process, no torch.distributed
@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_world_of_one_needs_no_initialisation(method):
    for mdp in MODELS.values():
        alone = solve_sharded(shard(mdp, 0, 1), tol=worker.TOL, method=method)
        serial = solve(mdp, method=method, tol=worker.TOL)
        assert alone.converged and np.abs(alone.values - serial.values).max() <= 1e-12
        assert np.array_equal(alone.optimal_actions, serial.optimal_actions)


def test_certify_works_on_shards():
    mdp = MODELS["narrow"]
    values = np.where(mdp.terminal, 0.0, np.sin(np.arange(mdp.num_states)))
    a, b = certify(mdp, values), certify(Sharded(shard(mdp, 0, 1), World()), values)
    assert np.array_equal(a.lower, b.lower) and np.array_equal(a.policy, b.policy)


@pytest.mark.parametrize("k", [1, 2, 3, 7, 60])
def test_shards_hold_the_rows_in_order_and_share_the_work(k):
    mdp = MODELS["wide"]
    parts = [shard(mdp, r, k) for r in range(k)]
    assert np.array_equal(
        np.cumsum([0] + [p.num_own for p in parts])[:-1], [p.first for p in parts]
    )
    rows = [p.rows for p in parts]
    assert np.array_equal(np.concatenate([r.probs for r in rows]), mdp.probs)
    assert np.array_equal(np.concatenate([r.rewards for r in rows]), mdp.rewards)
    names = [np.concatenate([np.arange(p.first, p.first + p.num_own), p.halo]) for p in parts]
    successors = [name[r.indices] for name, r in zip(names, rows, strict=True)]
    assert np.array_equal(np.concatenate(successors), mdp.indices)
    work = [len(r.indices) + p.num_own for r, p in zip(rows, parts, strict=True)]
    assert max(work) - min(work) <= 2 * 13  # a state of this model costs 13


def test_a_heavy_state_leaves_a_state_to_every_rank():
    counts = np.array([500, 1, 1, 1])
    mdp = MDP.from_pairs(
        pair_state=np.repeat(np.arange(4), counts),
        pair_action=np.concatenate([np.arange(c) for c in counts]),
        indptr=np.arange(504),
        indices=np.zeros(503, dtype=int),
        probs=np.ones(503),
        rewards=np.arange(503.0),
        num_states=4,
        gamma=0.9,
    )
    assert [shard(mdp, r, 4).num_own for r in range(4)] == [1, 1, 1, 1]


def own_rows(**changes: object) -> Shard:
    """A ring of 6 whose rank holds the states 2 and 3: step on, pays 1."""
    fields = {
        "first": 2, "num_states": 6, "sa_indptr": np.array([0, 1, 2]), "actions": np.array([0, 0]),
        "indptr": np.array([0, 1, 2]), "indices": np.array([3, 4]), "probs": np.ones(2),
        "rewards": np.ones(2), "gamma": 0.9,
    }  # fmt: skip
    return Shard.from_rows(**(fields | changes))


def test_a_rank_may_make_its_own_rows():
    made = own_rows()
    assert (made.num_own, made.halo.tolist(), made.rows.indices.tolist()) == (2, [4], [1, 2])
    assert made.rows.terminal.tolist() == [False, False, True]


def test_bad_shards_are_named():
    with pytest.raises(ShapeError, match="a shard of 2 states from 5 on does not fit a model of 6"):
        own_rows(first=5)
    with pytest.raises(MDPError, match=r"a successor is out of range: got 9..9, states are 0\.\.5"):
        own_rows(indices=np.array([3, 9]))
    with pytest.raises(MDPError, match="state 1, action 0: the probabilities sum to 0.5") as caught:
        own_rows(probs=np.array([1.0, 0.5]))
    assert "from the first one of the shard, 2" in caught.value.__notes__[0]
    with pytest.raises(InputError, match=r"rank must be in 0..num_ranks-1 and num_ranks in 1..60"):
        shard(MODELS["wide"], 4, 4)
    with pytest.raises(InputError, match="num_ranks=61"):
        shard(MODELS["wide"], 0, 61)


def test_a_lonely_shard_of_many_is_refused():
    with pytest.raises(
        MDPError, match=r"hold the states 0..59.*they hold 0..29.*each of the 1 proc"
    ):
        solve_sharded(shard(MODELS["wide"], 0, 2))
    with pytest.raises(InputError, match="switch='simplex' looks for one state among all"):
        solve_sharded(shard(MODELS["wide"], 0, 1), method="policy-iteration", switch="simplex")


def test_a_group_that_moves_no_cpu_tensors_is_refused(monkeypatch):
    import torch.distributed as dist

    answers = {"is_initialized": True, "get_rank": 0, "get_world_size": 2}
    for name, answer in (answers | {"get_backend_config": "cuda:nccl"}).items():
        monkeypatch.setattr(dist, name, lambda *args, answer=answer: answer)
    with pytest.raises(InputError, match=r"moves no CPU tensors \(backend cuda:nccl\).*'gloo'"):
        solve_sharded(shard(MODELS["wide"], 0, 2))


def test_a_shard_that_took_its_halo_for_terminal_would_be_wrong():
    # the mutant plans with the rows of a shard as if they were a model
    part = shard(MODELS["wide"], 0, 2)
    cut = solve(part.rows, tol=1e-9).values[: part.num_own]
    assert np.abs(cut - solve(MODELS["wide"], tol=1e-9).values[: part.num_own]).max() > 0.01


def test_importing_the_planners_does_not_import_torch():
    code = "import sys, dodona.mdp; assert 'torch' not in sys.modules; dodona.mdp.solve_sharded"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_solutions_are_written_with_the_numbers_of_the_whole_model(tmp_path):
    part = Sharded(shard(worlds.garnet(6, 2, 2, seed=0), 0, 1), World())
    part.first = 40
    solution = solve(part, method="value-iteration")
    solution.write(tmp_path / "part.csv")
    assert [line.split(",")[0] for line in (tmp_path / "part.csv").read_text().splitlines()[1:]] == [
        "40", "41", "42", "43", "44", "45",
    ]  # fmt: skip
