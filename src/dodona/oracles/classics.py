"""Published models beside the book's: textbook grids and walks, gambling, queues, rivers, lakes, tokens, gradients.

Built here from their definitions, independently of dodona.mdp.worlds, so that each judges the other.
Source of each: its docstring.
"""

import itertools
from collections.abc import Callable
from math import comb, exp, log

import numpy as np

from dodona.oracles.book import STEPS
from dodona.oracles.instance import Fact, Fixture

LAKES = {
    4: ("SFFF", "FHFH", "FFFH", "HFFG"),
    8: ("SFFFFFFF", "FFFFFFFF", "FFFHFFFF", "FFFFFHFF", "FFFHFFFF", "FHHFFFHF", "FHFFHFHF", "FFFHFFFG"),
}  # fmt: skip


def mdptoolbox_small(gamma: float = 0.9) -> Fixture:
    """Two states, two actions. Facts: v*(.9), v*(.99), gain 35/9.

    Source: mdptoolbox.example.small; the numbers re-derived.
    """
    P = np.array([[[0.5, 0.5], [0.0, 1.0]], [[0.8, 0.2], [0.1, 0.9]]])
    known = {0.9: [42.44186047, 36.04651163], 0.99: [392.29910714, 386.16071429]}
    facts = {"gain": Fact(of="gain", value=35 / 9, error=1e-12, source="exact re-derivation")}
    if gamma in known:
        facts["v*"] = Fact(
            of="v*", value=np.array(known[gamma]), error=5.1e-9, source="exact re-derivation"
        )
    return Fixture(
        name=f"mdptoolbox small ({gamma:g})", P=P, R=np.array([[5.0, 10.0], [-1.0, 2.0]]), gamma=gamma,
        terminal=np.zeros(2, bool), facts=facts,
    )  # fmt: skip


def puterman_two_state(gamma: float = 0.95) -> Fixture:
    """Stay for 5 and slip half of the time, or leave for 10; the other state costs 1 for ever.

    Fact: v* = ((5 - 5.5 g) / ((1 - .5 g)(1 - g)), -1 / (1 - g)) for g > 10/11.
    Source: Puterman 1994, sec. 3.1.
    """
    P = np.array([[[0.5, 0.5], [0.0, 1.0]], [[0.0, 1.0], [0.0, 0.0]]])
    value = [(5 - 5.5 * gamma) / ((1 - 0.5 * gamma) * (1 - gamma)), -1 / (1 - gamma)]
    return Fixture(
        name=f"Puterman 3.1 ({gamma:g})", P=P, R=np.array([[5.0, 10.0], [-1.0, 0.0]]), gamma=gamma,
        terminal=np.zeros(2, bool), action_mask=np.array([[True, True], [True, False]]),
        facts={"v*": Fact(of="v*", value=np.array(value), error=1e-10, source="Puterman 1994, sec. 3.1")},
    )  # fmt: skip


def forest(gamma: float = 0.9) -> Fixture:
    """Three ages of a wood, wait or cut. Facts: v*(.9), v*(.96), gain 3.24.

    Source: mdptoolbox.example.forest; the numbers re-derived.
    """
    P = np.zeros((3, 2, 3))
    P[:, 0, 0] = 0.1
    P[0, 0, 1] = P[1, 0, 2] = P[2, 0, 2] = 0.9
    P[:, 1, 0] = 1.0
    known = {0.9: [26.2440, 29.4840, 33.4840], 0.96: [74.6496, 78.1056, 82.1056]}
    facts = {"gain": Fact(of="gain", value=3.24, error=1e-10, source="exact re-derivation")}
    if gamma in known:
        facts["v*"] = Fact(
            of="v*", value=np.array(known[gamma]), error=5.1e-5, source="exact re-derivation"
        )
    return Fixture(
        name=f"forest ({gamma:g})", P=P, R=np.array([[0.0, 0.0], [0.0, 1.0], [4.0, 2.0]]), gamma=gamma,
        terminal=np.zeros(3, bool), facts=facts,
    )  # fmt: skip


def random_walk(num_states: int = 5, left_reward: float = 0.0) -> Fixture:
    """One action that steps left or right evenly between two ends; the right end pays 1.

    Fact: v is linear between left_reward and 1.
    Source: Sutton & Barto 2018, ex. 6.2 (5 states) and sec. 7.1 (19 states, left_reward -1).
    """
    S = num_states + 2
    P, R = np.zeros((S, 1, S)), np.zeros((S, 1))
    for s in range(1, S - 1):
        P[s, 0, [s - 1, s + 1]] = 0.5
    R[1, 0] += 0.5 * left_reward
    R[S - 2, 0] += 0.5
    ends = np.array([s in (0, S - 1) for s in range(S)])
    line = [left_reward + (1 - left_reward) * s / (S - 1) for s in range(S)]
    value = np.where(ends, 0.0, line)
    return Fixture(
        name=f"random walk {num_states}", P=P, R=R, gamma=1.0, terminal=ends, start=np.eye(S)[S // 2],
        facts={"v": Fact(of="v", value=value, error=1e-12, policy=np.zeros(S, int), source="linear, by hand")},
    )  # fmt: skip


def jumps_grid() -> Fixture:
    """5x5, walls cost 1; from A every action jumps for 10, from B for 5; gamma .9.

    Facts: first row of the uniform policy, v*(A) = 10 / (1 - gamma^5).
    Source: Sutton & Barto 2018, ex. 3.5 and 3.8.
    """
    P, R = _walls(5, 5, -1.0)
    for cell, landing, reward in ((1, 21, 10.0), (3, 13, 5.0)):
        P[cell] = np.eye(25)[landing]
        R[cell] = reward
    return Fixture(
        name="jumps 5x5", P=P, R=R, gamma=0.9, terminal=np.zeros(25, bool),
        facts={
            "v uniform": Fact(of="v", value=np.array([3.3, 8.8, 4.4, 5.3, 1.5]), error=0.0501, states=(0, 1, 2, 3, 4),
                              policy=np.full((25, 4), 0.25), source="Sutton & Barto 2018, fig. 3.2"),
            "v*(A)": Fact(of="v*", value=np.array([10 / (1 - 0.9**5)]), error=1e-10, states=(1,), source="closed form"),
        },
    )  # fmt: skip


def corners_grid() -> Fixture:
    """4x4 with two terminal corners, every step costs 1, no discount.

    Fact: v of the uniform policy.  Source: Sutton & Barto 2018, ex. 4.1.
    """
    P, _ = _walls(4, 4, 0.0)
    ends = np.array([s in (0, 15) for s in range(16)])
    P[ends] = 0.0
    value = np.array([0, -14, -20, -22, -14, -18, -20, -20, -20, -20, -18, -14, -22, -20, -14, 0])
    return Fixture(
        name="corners 4x4", P=P, R=np.where(ends[:, None], 0.0, np.full((16, 4), -1.0)), gamma=1.0, terminal=ends,
        facts={"v uniform": Fact(of="v", value=value, error=1e-10, policy=np.full((16, 4), 0.25),
                                 source="Sutton & Barto 2018, fig. 4.1")},
    )  # fmt: skip


def cliff() -> Fixture:
    """Four rows of twelve; every step costs 1, a step off the bottom edge 100 and back to the start.

    Fact: v*(start) = -13.  Source: Sutton & Barto 2018, ex. 6.6.
    """
    P, R = _walls(4, 12, 0.0)
    P, R = P.copy(), np.where(R == 0, -1.0, -1.0)
    for s in range(48):
        for a in range(4):
            if 36 < int(P[s, a].argmax()) < 47:
                P[s, a], R[s, a] = np.eye(48)[36], -100.0
    ends = np.arange(48) == 47
    P[ends], R[ends] = 0.0, 0.0
    return Fixture(
        name="cliff", P=P, R=R, gamma=1.0, terminal=ends, start=np.eye(48)[36],
        facts={"v*(start)": Fact(of="v*", value=np.array([-13.0]), error=0.0, states=(36,), source="by hand")},
    )  # fmt: skip


def frozen_lake(size: int = 4, gamma: float = 1.0) -> Fixture:
    """A slippery lake: a step goes the wanted way or to either side, a third each; holes and the goal end it.

    Actions left, down, right, up; reaching the goal pays 1. Facts: v*(start) at gamma 1 and .99 and
    with 100 (size 4) or 200 (size 8) decisions.
    Source: Gymnasium's FrozenLake-v1 by its definition; the numbers by exact solves.
    """
    cells = "".join(LAKES[size])
    S = size * size
    P, R = np.zeros((S, 4, S)), np.zeros((S, 4))
    ends = np.array([cell in "HG" for cell in cells])
    for s in np.flatnonzero(~ends).tolist():
        for a in range(4):
            for way in (a - 1, a, a + 1):
                dr, dc = ((0, -1), (1, 0), (0, 1), (-1, 0))[way % 4]
                r, c = np.clip((s // size + dr, s % size + dc), 0, size - 1)
                P[s, a, size * r + c] += 1 / 3
                R[s, a] += (cells[size * r + c] == "G") / 3
    optima = {(4, 1.0): (14 / 17, 1e-9), (4, 0.99): (0.542025932, 5.1e-10),
              (8, 1.0): (1.0, 1e-9), (8, 0.99): (0.414640362, 5.1e-10)}  # fmt: skip
    facts = {}
    if (size, gamma) in optima:
        value, error = optima[size, gamma]
        facts["v*(start)"] = Fact(
            of="v*", value=np.array([value]), error=error, states=(0,), source="exact solve"
        )
    if gamma == 1.0:
        value, steps = {4: (0.7441902878, 100), 8: (0.9132201502, 200)}[size]
        facts["limit"] = Fact(
            of="v_H",
            value=np.array([value]),
            error=5.1e-11,
            states=(0,),
            horizon=steps,
            source="exact recursion",
        )
    return Fixture(
        name=f"frozen lake {size}x{size} ({gamma:g})", P=P, R=R, gamma=gamma, terminal=ends, start=np.eye(S)[0], facts=facts,
    )  # fmt: skip


def gambler(p_heads: float = 0.4) -> Fixture:
    """Stake s of the capital on a coin until 0 or 100.

    Facts: p .4: v*(25, 50, 75) = .16, .4, .64; p .5: v* = s / 100.
    Source: Sutton & Barto 2018, ex. 4.3.
    """
    P, R = np.zeros((101, 50, 101)), np.zeros((101, 50))
    mask = np.zeros((101, 50), dtype=bool)
    for s in range(1, 100):
        for stake in range(1, min(s, 100 - s) + 1):
            mask[s, stake - 1] = True
            P[s, stake - 1, s + stake], P[s, stake - 1, s - stake] = p_heads, 1.0 - p_heads
            R[s, stake - 1] = p_heads if s + stake == 100 else 0.0
    ends = np.array([s in (0, 100) for s in range(101)])
    known = {0.4: (25, 50, 75), 0.5: tuple(range(1, 100))}
    facts = {}
    if p_heads in known:
        states = known[p_heads]
        value = [0.16, 0.4, 0.64] if p_heads == 0.4 else [s / 100 for s in states]
        facts["v*"] = Fact(
            of="v*",
            value=np.array(value),
            error=1e-9,
            states=states,
            source="Sutton & Barto 2018, ex. 4.3",
        )
    return Fixture(
        name=f"gambler ({p_heads:g})", P=P, R=R, gamma=1.0, terminal=ends, action_mask=mask, facts=facts
    )  # fmt: skip


def river_swim() -> Fixture:
    """Six states; swim right against the stream for 1, or drift left for .005. Fact: gain .4286224338.

    Source: Strehl & Littman 2008; the number by an exact solve.
    """
    P, R = np.zeros((6, 2, 6)), np.zeros((6, 2))
    for s in range(6):
        P[s, 0, max(s - 1, 0)] = 1.0
        down, here, up = (
            (0.05, 0.6, 0.35) if 0 < s < 5 else (0.0, 0.4, 0.6) if s == 0 else (0.4, 0.6, 0.0)
        )
        for to, p in ((s - 1, down), (s, here), (s + 1, up)):
            if p:
                P[s, 1, to] += p
    R[0, 0], R[5, 1] = 0.005, 1.0
    return Fixture(
        name="river swim", P=P, R=R, gamma=1.0, terminal=np.zeros(6, bool),
        facts={"gain": Fact(of="gain", value=0.4286224338, error=1.1e-8, source="exact solve")},
    )  # fmt: skip


def access_control_queue() -> Fixture:
    """Ten servers, customers that pay 1, 2, 4 or 8: accept or reject. Fact: gain 2.7476419506.

    An accepted customer takes a server, then every busy one falls free with probability .06.
    Source: Sutton & Barto 2018, ex. 10.2; the number by an exact solve.
    """
    pay, q = (1.0, 2.0, 4.0, 8.0), 0.06
    P, R = np.zeros((44, 2, 44)), np.zeros((44, 2))
    for free, kind in itertools.product(range(11), range(4)):
        for accept in (0, 1) if free else (0,):
            busy = 10 - free + accept
            R[4 * free + kind, accept] = accept * pay[kind]
            for done in range(busy + 1):
                chance = comb(busy, done) * q**done * (1 - q) ** (busy - done)
                for after in range(4):
                    P[4 * free + kind, accept, 4 * (10 - busy + done) + after] += chance / 4
    mask = np.ones((44, 2), dtype=bool)
    mask[:4, 1] = False
    return Fixture(
        name="access control", P=P, R=R, gamma=1.0, terminal=np.zeros(44, bool), action_mask=mask,
        facts={"gain": Fact(of="gain", value=2.7476419506, error=1e-8, source="exact solve")},
    )  # fmt: skip


def exit_loop(bonus: float = 0.0) -> Fixture:
    """One live state: exit pays 1 and ends, loop pays 0 for ever; ``bonus`` is added to both; gamma .9.

    Fact: v* = max(1 + bonus, 10 bonus), so that adding a constant changes what is optimal.
    Source: by hand.
    """
    P = np.array([[[0.0, 1.0], [1.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    value = np.array([max(1.0 + bonus, bonus / (1 - 0.9)), 0.0])
    return Fixture(
        name=f"exit or loop ({bonus:g})", P=P, R=np.array([[1.0 + bonus, bonus], [0, 0]]), gamma=0.9,
        terminal=np.array([False, True]),
        facts={"v*": Fact(of="v*", value=value, error=1e-12, source="by hand")},
    )  # fmt: skip


def wait_or_leave() -> Fixture:
    """One live state, no discount: wait for nothing, or leave for 1. Both are worth 1, only one ever ends.

    Fact: v* = 1, with two optimal actions.  Source: by hand.
    """
    P = np.array([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]])
    return Fixture(
        name="wait or leave", P=P, R=np.array([[0.0, 1.0], [0, 0]]), gamma=1.0,
        terminal=np.array([False, True]),
        facts={"v*": Fact(of="v*", value=np.array([1.0, 0.0]), error=1e-12, source="by hand")},
    )  # fmt: skip


def token_tree(
    num_tokens: int = 2,
    length: int = 3,
    reward: Callable[[tuple[int, ...]], float] = sum,
    tau: float = 0.5,
) -> Fixture:
    """Writing ``length`` tokens: states are prefixes level by level, the whole sequence is paid at its end.

    Fact: with the uniform reference the soft value at the root is tau log mean over sequences of
    exp(reward / tau).
    Source: the token view of language models; Gibbs' variational formula.
    """
    V, T = num_tokens, length
    prefixes = [p for t in range(T) for p in itertools.product(range(V), repeat=t)]
    number = {p: k for k, p in enumerate(prefixes)}
    S = len(prefixes) + 1
    P, R = np.zeros((S, V, S)), np.zeros((S, V))
    for prefix, k in number.items():
        for token in range(V):
            longer = (*prefix, token)
            P[k, token, number.get(longer, S - 1)] = 1.0
            R[k, token] = reward(longer) if len(longer) == T else 0.0
    total = sum(exp(reward(w) / tau) for w in itertools.product(range(V), repeat=T))
    return Fixture(
        name=f"token tree {V}^{T}", P=P, R=R, gamma=1.0, terminal=np.arange(S) == S - 1, start=np.eye(S)[0],
        facts={"soft": Fact(of="soft", value=np.array([tau * log(total / V**T)]), error=1e-10, states=(0,), tau=tau,
                            source="sum over every sequence")},
    )  # fmt: skip


def _walls(rows: int, columns: int, bump: float) -> tuple[np.ndarray, np.ndarray]:
    """(P, R) of a grid with actions up, right, down, left; a step into the wall stays and gets ``bump``."""
    S = rows * columns
    P, R = np.zeros((S, 4, S)), np.zeros((S, 4))
    for s in range(S):
        for a, (dr, dc) in enumerate(STEPS[:4]):
            r, c = s // columns + dr, s % columns + dc
            inside = 0 <= r < rows and 0 <= c < columns
            P[s, a, columns * r + c if inside else s] = 1.0
            R[s, a] = 0.0 if inside else bump
    return P, R


def tri3(gamma: float = 0.9) -> Fixture:
    """Three states, two actions, nothing ends: the model of policy gradients, with a softmax table.

    Facts at gamma .9: the values of the table. Gradients, visits and variances are in oracles.gradients.
    Source: ours; by linear algebra, confirmed by central differences.
    """
    P = np.array([
        [[0.7, 0.3, 0.0], [0.2, 0.5, 0.3]],
        [[0.1, 0.6, 0.3], [0.4, 0.2, 0.4]],
        [[0.0, 0.2, 0.8], [0.5, 0.3, 0.2]],
    ])  # fmt: skip
    logits = np.array([[0.0, 0.5], [0.2, -0.3], [-0.1, 0.4]])
    policy = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    value = np.array([5.9145680896, 5.5144577087, 6.6396294098])
    fact = Fact(of="v", value=value, error=5.1e-11, policy=policy, source="linear algebra")
    return Fixture(
        name=f"tri3 ({gamma:g})", P=P, R=np.array([[0.0, 1.0], [-1.0, 2.0], [3.0, 0.0]]), gamma=gamma,
        terminal=np.zeros(3, bool), start=np.array([0.5, 0.3, 0.2]), logits=logits,
        facts={"v": fact} if gamma == 0.9 else {},
    )  # fmt: skip
