"""Planning against QuantEcon, pymdptoolbox and MDPSolver: a sweep, whole solves, memory, start-up time.

QuantEcon solves by modified policy iteration, the fastest of its methods on all of these models
(its value iteration takes ten times as long and its policy iteration, a sparse LU per step, does
not end at these sizes). Its answer is good to 1e-6 by its own stopping rule; ours is proven to
1e-6. Models are made before the clock starts; what a solver derives from them is on the clock.

The other two are asked for what they can give: pymdptoolbox's policy iteration is the only one of its
solvers whose values come within 1e-6 (the rest stop when the policy is good, with values off by whole
units), and MDPSolver's modified policy iteration does with Gauss-Seidel or over-relaxed updates, of
which the faster counts (with standard updates it too stops at the policy). How far an answer of theirs
is from the truth is measured by ours, and a row says so where it is more than 1e-6.
"""

import math
import subprocess
import sys
import time
from typing import Any

import numpy as np
import scipy.sparse as sparse
from _timing import absolute_row, in_turn, once, ratio_row
from numba import njit, prange

from dodona.mdp import MDP, Planner, certify, policy_value, solve, worlds

try:
    from quantecon.markov import DiscreteDP
except ImportError:
    DiscreteDP = None
try:
    import mdptoolbox.mdp as mdptoolbox
except ImportError:
    mdptoolbox = None
try:
    import mdpsolver
except ImportError:
    mdpsolver = None

TOL = 1e-6
PEER = "QuantEcon DiscreteDP"
PATIENCE = 120.0  # seconds after which a peer's solve is called unfinished


def run() -> list[dict[str, Any]]:
    """Every claim about planning, as rows of ``dodona bench``."""
    solve(worlds.garnet(2000, 4, 5, seed=0), tol=TOL)  # compiles
    solve(worlds.maze(30, 30), tol=TOL)
    rows = [*_sweep(), *_random_models(), *_structured_models(), *_evaluation()]
    rows += [*_against_mdptoolbox(), *_against_mdpsolver()]
    return [*rows, *_memory(), *_start_up()]


def _sweep() -> list[dict[str, Any]]:
    mdp = worlds.garnet(1_000_000, 4, 5, seed=0)
    values = np.random.default_rng(0).standard_normal(mdp.num_states)
    out, choice = np.empty_like(values), np.full(mdp.num_states, -1, dtype=np.int64)
    contestants = {
        "ours": lambda: mdp.optimality_sweep(values, out, choice, -1.0),
        "proof": lambda: certify(mdp, values),
    }
    if DiscreteDP is not None:
        peer, their_out = _to_quantecon(mdp), np.empty_like(values)
        contestants["theirs"] = lambda: peer.bellman_operator(values, their_out)
    seconds = in_turn(contestants, rounds=9)
    # 12 bytes per transition, 16 per pair, and per state: v twice, f(v), the row pointer, the choice
    num_bytes = 12 * len(mdp.indices) + 16 * mdp.num_pairs + 40 * mdp.num_states
    share = num_bytes / _bandwidth() / seconds["ours"]
    return [
        ratio_row(
            "optimality sweep, 1M x 4 x 5", peer=PEER, ours=seconds["ours"],
            theirs=seconds.get("theirs"), target=2.0, limit=share,
        ),
        absolute_row(
            "certify in sweeps", ours=seconds["proof"] / seconds["ours"], unit="sweeps", target=1.2
        ),
    ]  # fmt: skip


def _random_models() -> list[dict[str, Any]]:
    cases = (("1M x 4 x 5, .95", (1_000_000, 4, 5), 0.95, 3.0),
             ("100k x 4 x 5, .999", (100_000, 4, 5), 0.999, 2.0),
             ("10k x 4 x 8, .95", (10_000, 4, 8), 0.95, 1.0))  # fmt: skip
    rows = []
    for name, shape, gamma, target in cases:
        mdp = worlds.garnet(*shape, seed=0, gamma=gamma)
        rows.append(_solve_row(f"solve {name}, proven to 1e-6", mdp, target=target))
    return rows


def _structured_models() -> list[dict[str, Any]]:
    """Where order and method matter; every solver that ends in reasonable time is reported."""
    rows = []
    maze = worlds.maze(1000, 1000, gamma=0.999)
    rows.append(_solve_row("solve maze 1M, .999, proven to 1e-6", maze, target=2.0))
    chain = worlds.chain(100_000, gamma=0.999)
    rows.append(_solve_row("solve chain 100k, .999, proven to 1e-6", chain, target=2.0))
    small = worlds.maze(300, 300, gamma=0.999)
    for name, mdp in (("maze 90k", small), ("chain 100k", chain)):
        for method in (
            "auto",
            "backward",
            "truncated",
            "value-iteration",
            "gauss-seidel",
            "inexact",
        ):
            planner = Planner(mdp, method, tol=TOL)
            seconds, _ = once(lambda p=planner: _until_patience_ends(p))
            ended = planner.status == "converged"
            what = f"{name}, .999, {method}" + ("" if ended else " (stopped, unfinished)")
            rows.append(absolute_row(what, ours=seconds, unit="s"))
    return rows


def _evaluation() -> list[dict[str, Any]]:
    """A given policy: dense against LAPACK alone, sparse against QuantEcon's sparse LU."""
    mdp = worlds.garnet(3000, 4, 5, seed=0)
    policy = np.zeros(mdp.num_states, dtype=np.int64)
    contestants = {"ours": lambda: policy_value(mdp, policy, tol=1e-8)}
    if DiscreteDP is not None:
        peer = _to_quantecon(mdp)
        contestants["theirs"] = lambda: peer.evaluate_policy(policy)
    seconds = in_turn(contestants, rounds=3)
    small = worlds.garnet(1000, 2, 5, seed=0)
    choice = np.zeros(small.num_states, dtype=np.int64)
    P, R, gamma = small.dense()
    system, reward = np.eye(1000) - gamma * P[:, 0], R[:, 0]
    dense = in_turn(
        {"ours": lambda: policy_value(small, choice), "theirs": lambda: np.linalg.solve(system, reward)},
    )  # fmt: skip
    slow = worlds.garnet(100_000, 4, 5, seed=0, gamma=0.9999)
    taken, solution = once(lambda: solve(slow, tol=TOL))
    assert solution.gap <= TOL, solution.note
    return [
        ratio_row(
            "evaluate a policy, 3000 states sparse", peer=PEER, ours=seconds["ours"],
            theirs=seconds.get("theirs"), target=100.0,
        ),
        ratio_row(
            "evaluate a policy, 1000 states dense", peer="LAPACK gesv", ours=dense["ours"],
            theirs=dense["theirs"], target=0.95,
        ),
        absolute_row("solve 100k x 4 x 5, .9999, proven to 1e-6", ours=taken, unit="s", target=60.0),
    ]  # fmt: skip


def _against_mdptoolbox() -> list[dict[str, Any]]:
    """Sparse matrices given, no check on the clock; it solves a dense system per policy."""
    rows = []
    for gamma in (0.95, 0.99):
        mdp = worlds.garnet(3000, 4, 5, seed=0, gamma=gamma)
        name, theirs, truth = (
            f"solve 3000 x 4 x 5, {gamma:g}, proven to 1e-6",
            None,
            solve(mdp, tol=TOL),
        )
        if mdptoolbox is not None:
            matrices, rewards = mdp.to_scipy()
            given = [sparse.csr_matrix(P) for P in matrices]
            peer = mdptoolbox.PolicyIteration(given, rewards, gamma, eval_type=0)
            theirs, _ = once(peer.run)
            name += _missed(np.array(peer.V), truth)
        ours = in_turn({"ours": lambda mdp=mdp: solve(mdp, tol=TOL)})["ours"]
        rows.append(ratio_row(name, peer="pymdptoolbox", ours=ours, theirs=theirs, target=100.0))
    return rows


def _against_mdpsolver() -> list[dict[str, Any]]:
    """Models of MDPSolver's own benchmark: rewards that walk at random from pair to pair, gamma .99."""
    rows = []
    for num_states, sparsity in ((2500, 0.8), (5000, 0.99), (10_000, 0.99)):
        branching = math.ceil(num_states * (1 - sparsity))
        mdp = worlds.garnet(num_states, 6, branching, seed=0, gamma=0.99)
        walk = np.cumsum(np.random.default_rng(0).standard_normal(mdp.num_pairs))
        mdp = mdp.replace(rewards=walk, transition_rewards=None)
        name, theirs, truth = (
            f"solve {num_states} x 6, {sparsity:.0%} zeros",
            None,
            solve(mdp, tol=TOL),
        )
        name += ", .99, proven to 1e-6" if truth.gap <= TOL else f", .99, proven to {truth.gap:.0e}"
        if mdpsolver is not None:
            theirs, values = min(
                (_mdpsolver_run(mdp, update) for update in ("gs", "sor")), key=lambda run: run[0]
            )
            name += _missed(values, truth)
        ours = in_turn({"ours": lambda mdp=mdp: solve(mdp, tol=TOL)}, rounds=3)["ours"]
        rows.append(ratio_row(name, peer="MDPSolver", ours=ours, theirs=theirs, target=2.0))
    return rows


def _memory() -> list[dict[str, Any]]:
    """Ten million states, made and solved in a process of their own: its largest resident size."""
    script = (
        "import resource, numpy as np\n"
        "from dodona.mdp import solve, worlds\n"
        "mdp = worlds.garnet(10_000_000, 4, 5, seed=0, gamma=0.95, dtype=np.float32)\n"
        "solution = solve(mdp, tol=1e-4)\n"
        "assert solution.gap <= 1e-4, solution.note\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return [
        absolute_row(
            "10M x 4 x 5 (float32): made and solved", ours=int(done.stdout) / 1e9, unit="GB", target=8.0
        )
    ]  # fmt: skip


def _start_up() -> list[dict[str, Any]]:
    rows = []
    for name, words, target in (
        ("import dodona", ["-c", "import dodona"], 0.2),
        ("dodona --help", ["-m", "dodona", "--help"], 0.3),
    ):
        call = lambda words=words: subprocess.run(  # noqa: E731
            [sys.executable, *words], check=True, capture_output=True
        )
        seconds = in_turn({"ours": call}, rounds=7)["ours"]
        rows.append(absolute_row(name, ours=seconds, unit="s", target=target))
    return rows


# ---------------------------------------------------------------------- private
def _solve_row(name: str, mdp: MDP, *, target: float) -> dict[str, Any]:
    """Ours, theirs, ours again: the better of our two, against the peer between them."""
    ours, solution = once(lambda: solve(mdp, tol=TOL))
    assert solution.gap <= TOL, solution.note
    theirs = None
    if DiscreteDP is not None:
        peer = _to_quantecon(mdp)
        theirs, finished = _their_solve(peer)
        if not finished:
            name += f" (peer stopped after {PATIENCE:.0f} s, unfinished)"
        else:
            theirs = min(theirs, _their_solve(peer)[0]) if theirs < 20 else theirs
    ours = min(ours, once(lambda: solve(mdp, tol=TOL))[0])
    return ratio_row(name, peer=PEER, ours=ours, theirs=theirs, target=target)


def _missed(values: np.ndarray, truth: Any) -> str:
    """Words for a peer's answer that is not within the tolerance, else none."""
    error = float(np.maximum(truth.lower - values, values - truth.upper).max())
    return f" (peer off by {error:.0e})" if error > TOL else ""


def _mdpsolver_run(mdp: MDP, update: str) -> tuple[float, np.ndarray]:
    """(seconds, values) of modified policy iteration, 20 sweeps a policy, from 0; lists made before."""
    firsts, pairs = mdp.sa_indptr.tolist(), mdp.indptr.tolist()
    state_pairs = [range(a, b) for a, b in zip(firsts, firsts[1:], strict=False)]
    probs, columns, rewards = mdp.probs.tolist(), mdp.indices.tolist(), mdp.rewards.tolist()
    peer = mdpsolver.model()
    peer.mdp(
        discount=mdp.gamma,
        rewards=[[rewards[p] for p in of] for of in state_pairs],
        tranMatProbs=[[probs[pairs[p] : pairs[p + 1]] for p in of] for of in state_pairs],
        tranMatColumns=[[columns[pairs[p] : pairs[p + 1]] for p in of] for of in state_pairs],
    )
    taken, _ = once(
        lambda: peer.solve(
            algorithm="mpi", update=update, tolerance=TOL, parIterLim=20, SORrelaxation=1.1,
            initPolicy=[0] * mdp.num_states, initValueVector=[0.0] * mdp.num_states,
            postProcessing=False, makeFinalCheck=False,
        )
    )  # fmt: skip
    return taken, np.array(peer.getValueVector())


def _until_patience_ends(planner: Planner) -> None:
    begun = time.perf_counter()
    while planner.advance() and time.perf_counter() - begun < PATIENCE / 4:
        pass


def _their_solve(peer: Any) -> tuple[float, bool]:
    """(seconds, whether it ended) of modified policy iteration, in portions that can be stopped."""
    begun, values = time.perf_counter(), None
    while True:
        result = peer.solve(
            method="modified_policy_iteration", v_init=values, epsilon=TOL, max_iter=50
        )
        values, seconds = result.v, time.perf_counter() - begun
        if result.num_iter < 50 or seconds > PATIENCE:
            return seconds, result.num_iter < 50


def _to_quantecon(mdp: MDP) -> Any:
    """Terminal states become absorbing ones that pay nothing, which is how QuantEcon says it."""
    ends = np.flatnonzero(mdp.terminal)
    pair_state = np.concatenate([mdp.pair_state, ends])
    order = np.argsort(pair_state, kind="stable")
    actions = np.concatenate([mdp.actions, np.zeros(len(ends), dtype=np.int32)])
    rewards = np.concatenate([mdp.rewards, np.zeros(len(ends))])
    rows = sparse.csr_matrix(
        (mdp.probs, mdp.indices, mdp.indptr), shape=(mdp.num_pairs, mdp.num_states)
    )
    loops = sparse.csr_matrix(
        (np.ones(len(ends)), (np.arange(len(ends)), ends)), shape=(len(ends), mdp.num_states)
    )
    Q = sparse.vstack([rows, loops], format="csr")[order] if len(ends) else rows
    return DiscreteDP(rewards[order], Q, mdp.gamma, pair_state[order], actions[order])


@njit(parallel=True, fastmath=True)
def _read(x):
    total = 0.0
    for i in prange(len(x)):
        total += x[i]
    return total


def _bandwidth() -> float:
    """Bytes per second of reading 400 MB with all cores: the bound of a sweep."""
    x = np.ones(50_000_000)
    return x.nbytes / in_turn({"read": lambda: _read(x)}, rounds=9)["read"]
