"""One rank of the tests of sharded planning: solves every case in groups of 1, 2, 3 and 4 ranks.

    python sharded_worker.py RANK WORLD STORE FOLDER

What it finds goes to FOLDER/RANK.npz (arrays) and FOLDER/RANK.json (messages).
"""

import json
import sys
import warnings
from pathlib import Path

import numpy as np

from dodona.errors import DodonaError
from dodona.mdp import MDP, MatrixFree, worlds
from dodona.mdp.halo import World
from dodona.mdp.sharded import METHODS, Shard, Sharded, shard, solve_sharded
from dodona.mdp.worlds import matrix_free as free_worlds

GROUPS = (1, 2, 3, 4)
TOL = 5e-13  # two answers with proven gaps below it differ by less than 1e-12


def models() -> dict[str, MDP | MatrixFree]:
    """Wide and narrow halos, ends, discounts per transition, float32, a rank with terminal states only,
    and a world whose ranks make their own rows."""
    garnet = worlds.garnet(60, 3, 4, seed=0, terminal=2, gamma=0.4)
    rng = np.random.default_rng(1)
    return {
        "wide": garnet,
        "narrow": worlds.maze(9, 11, seed=1, gamma=0.2),
        "discounts": garnet.replace(
            gamma=1.0, discounts=rng.choice([0.0, 0.4, 0.6], len(garnet.probs))
        ),
        "float32": worlds.garnet(50, 2, 3, seed=2, gamma=0.4, dtype=np.float32),
        "ends": worlds.garnet(40, 2, 2, seed=3, terminal=30, gamma=0.4),
        "functions": free_worlds.maze(6, 7, seed=2, gamma=0.3, compiled=False),
    }


def methods(name: str) -> list[str]:
    if name == "wide":
        return sorted(METHODS)
    if name == "functions":
        return ["inexact", "policy-iteration"]
    return ["inexact", "truncated"] if name == "narrow" else ["value-iteration"]


def options(method: str) -> dict[str, int]:
    return {"num_sweeps": 4} if method == "truncated" else {}


def main(rank: int, world: int, store: str, folder: str) -> None:
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    groups = {k: dist.new_group(list(range(k))) for k in GROUPS}
    arrays: dict[str, np.ndarray] = {}
    for k, group in groups.items():
        if rank < k:
            solve_all(rank, k, group, arrays)
    messages = complain(rank, groups)
    np.savez(Path(folder) / f"{rank}.npz", **arrays)
    (Path(folder) / f"{rank}.json").write_text(json.dumps(messages))
    dist.destroy_process_group()


def solve_all(rank: int, k: int, group: object, arrays: dict[str, np.ndarray]) -> None:
    for name, mdp in models().items():
        part = shard(mdp, rank, k)
        for method in methods(name):
            solution = solve_sharded(
                part, tol=TOL, method=method, process_group=group, **options(method)
            )
            arrays[f"{name}/{method}/{k}"] = np.stack(
                [solution.values, solution.lower, solution.upper, solution.policy]
            )
            arrays[f"{name}/{method}/{k}/facts"] = np.array(
                [solution.iterations, solution.residual, solution.sweeps, *solution.mdp.mass]
            )
        arrays[f"{name}/q/{k}"] = solution.q
        arrays[f"{name}/dense/{k}"] = np.array([solution.mdp._halo.dense])
    if k == 3:
        solve_otherwise(shard(models()["wide"], rank, k), group, arrays)


def solve_otherwise(wide: Shard, group: object, arrays: dict[str, np.ndarray]) -> None:
    first = wide.first
    again = solve_sharded(wide, tol=TOL, method="inexact", process_group=group)
    arrays["again"] = again.values
    near = solve_sharded(
        wide, tol=1e-9, method="truncated", process_group=group, num_sweeps=5,
        start_values=np.cos(np.arange(first, first + wide.num_own)),
    )  # fmt: skip
    arrays["start"] = near.values
    proven = solve_sharded(
        wide, tol=1e-300, tol_kind="policy", method="value-iteration", process_group=group
    )
    arrays["proven"] = proven.policy
    held = solve_sharded(
        wide, tol=1e-9, method="policy-iteration", process_group=group, start_policy=proven.policy,
        evaluation="gmres",
    )  # fmt: skip
    arrays["held"] = held.values
    arrays["iterated"] = solve_sharded(
        wide, tol=1e-9, method="policy-iteration", process_group=group, evaluation="iterate"
    ).values


def complain(rank: int, groups: dict[int, object]) -> dict[str, str]:
    """The message of each misuse, as this rank sees it."""
    mdp = models()["wide"]
    part, found = shard(mdp, rank, 4), {}

    def attempt(name: str, part: Shard, group: object = None, **options: object) -> None:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                solve_sharded(part, process_group=group, **options)
                found[name] = f"{len(caught)} warnings"
            except DodonaError as error:
                found[name] = f"{type(error).__name__}: {error}"

    attempt("gap", shard(mdp, rank, 5))
    attempt("overlap", shard(mdp, min(rank, 2), 4))
    attempt("order", shard(mdp, 3 - rank, 4))
    attempt("gamma", shard(mdp.replace(gamma=0.4 + 0.05 * (rank == 2)), rank, 4))
    attempt("num_states", shard(worlds.garnet(60 + rank, 3, 4, seed=0), rank, 4))
    attempt("tol", part, tol=1e-8 * (1 + rank))
    attempt("method", part, method="gauss-seidel")
    attempt("lu", part, method="policy-iteration", evaluation="lu")
    attempt("undiscounted", shard(mdp.replace(gamma=1.0), rank, 4))
    huge = mdp.replace(rewards=np.where(np.arange(mdp.num_pairs) == 0, 1e308, mdp.rewards))
    attempt("overflow", shard(huge.replace(rewards=huge.rewards * 1.7), rank, 4))
    attempt("unconverged", part, method="value-iteration", max_iter=2)
    if rank == 3:
        attempt("outsider", part, group=groups[2])
    found["planned"] = str(Sharded(part, World(None)).policy_share)
    return found


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])
