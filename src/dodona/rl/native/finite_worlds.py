"""Finite tasks that are known by name, as an Env: cliffs, ice, a falling ball, a deep sea, arms, tokens.

    env = make_env("Catch-v0", num_envs=64, seed=0)     # boards as vectors, for networks
    env = make_env("FrozenLake-v1", 64, seed=0)         # state numbers, for tables
    WORLDS["FrozenLake-v1"].best                        # what no policy exceeds on average

Each is a model (dodona.mdp), so that what is best is known exactly, time limit included. Those that Gymnasium
has keep its numbers of states and actions, its chances, rewards and limits.

Not here: how rows are played (_mdp_env.py); models for planners, which are more (mdp.worlds).

Source: Gymnasium 1.x, envs/toy_text (Farama Foundation); Osband et al. 2019, arXiv:1908.03568 (bsuite: catch,
deep_sea, bandit); Zhao 2025, fig. 3.4 (the grid); ours (the contexts, the tokens).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int64, Shaped
from torch import Tensor

from dodona.core.inputs import check_choice
from dodona.mdp import worlds
from dodona.mdp.model import MDP
from dodona.rl._mdp_env import MDPEnv
from dodona.rl.environments import Step

LAKES = {
    "4x4": ("SFFF", "FHFH", "FFFH", "HFFG"),
    "8x8": ("SFFFFFFF", "FFFFFFFF", "FFFHFFFF", "FFFFFHFF", "FFFHFFFF", "FHHFFFHF", "FHFFHFHF", "FFFHFFFG"),
}  # fmt: skip
"""Start, frozen, hole, goal; Gymnasium's maps."""
ROWS, COLUMNS = 10, 5  # of Catch
SEA = 10  # rows of DeepSea: the smallest of the source
MAPPING_SEED = 42  # what left and right mean in the sea, and which arm pays what
CONTEXTS, ARMS = 8, 4
TOKENS, LENGTH = 4, 3
END = TOKENS - 1  # the token that ends an answer


@dataclass(frozen=True, kw_only=True)
class World:
    """A finite task.

    model: builds it.  limit: steps of an episode, None without a limit.
    best: largest expected sum of rewards of an episode, all policies considered, those that count steps too;
        to six decimals.
    shown: [S, d] what is seen of each state; None: its number.
    """

    model: Callable[[], MDP]
    limit: int | None
    best: float
    shown: Callable[[], Float[np.ndarray, "S d"]] | None = None


class WorldEnv(MDPEnv):
    """A finite task as an Env whose rows can share a start state.

    Args:
        env_id: a key of WORLDS.
        num_envs, seed, first_env, device: as environments.mdp_env.
        max_episode_steps: episodes are truncated there; None: the task's own limit, if it has one.
    Raises: InputError: an unknown id, counts.
    Source: see the module.
    Oracle: Gymnasium's tables; the rules, played by hand; backward induction (tests/rl/native/test_finite_worlds.py).
    Cost: as environments.mdp_env; and a row of the table where states are shown.
    """

    def __init__(
        self,
        env_id: str,
        num_envs: int,
        *,
        seed: int,
        max_episode_steps: int | None = None,
        first_env: int = 0,
        device: torch.device | str = "cpu",
    ):
        check_choice(WORLDS, env_id=env_id)
        self.world = world = WORLDS[env_id]
        super().__init__(
            world.model(), num_envs, seed=seed, max_episode_steps=max_episode_steps or world.limit,
            first_env=first_env, device=device,
        )  # fmt: skip
        self.id = env_id
        self.table: Tensor | None = None
        if world.shown is not None:
            self.table = torch.from_numpy(world.shown()).to(self.device)
            self.num_states = None
            self.obs_shape, self.obs_dtype = (self.table.shape[1],), torch.float32

    @property
    def feasible(self) -> Bool[Tensor, "S A"] | None:
        """As MDPEnv.feasible; None where states have no number to ask by: every action may be taken."""
        return super().feasible if self.table is None else None

    def reset(self, *, seed: int | None = None) -> Shaped[Tensor, "B ..."]:
        """[B, ...] the first observations. With a seed everything begins anew, else the random numbers go on."""
        return self._seen(super().reset(seed=seed))

    def reset_groups(self, group_size: int, *, seed: int | None = None) -> Shaped[Tensor, "B ..."]:
        """As reset, but rows g * group_size .. (g + 1) * group_size - 1 begin in one state.

        Raises: InputError: num_envs or first_env is no multiple of group_size.
        """
        return self._seen(super().reset_groups(group_size, seed=seed))

    def step(self, actions: Int64[Tensor, "B"]) -> Step:
        """One step of every row; none ever only resets.  Raises: as MDPEnv.step."""
        step = super().step(actions)
        if self.table is None:
            return step
        rest = (step.rewards, step.terminated, step.truncated, step.mask)
        return Step(self._seen(step.obs), self._seen(step.next_obs), *rest)

    def _seen(self, states: Int64[Tensor, "B"]) -> Shaped[Tensor, "B ..."]:
        return states if self.table is None else self.table[states]


# ---------------------------------------------------------------------- the models
def frozen_lake(size: str) -> MDP:
    """Over the ice to the goal; a step goes one of three ways, evenly: as wanted or to either side.

    Actions left, down, right, up. Holes and the goal end the episode, the goal pays 1.

    Args: size: a key of LAKES.
    Source: Gymnasium, envs/toy_text/frozen_lake.  Oracle: its table P.  Cost: O(S).
    """
    lake = np.array([list(row) for row in LAKES[size]])
    R, C = lake.shape
    moves = ((0, -1), (1, 0), (0, 1), (-1, 0))

    def step(s: int, a: int) -> list[tuple[float, int, float, bool]]:
        found = []
        for way in (a - 1, a, a + 1):
            down, right = moves[way % 4]
            r, c = min(max(s // C + down, 0), R - 1), min(max(s % C + right, 0), C - 1)
            found.append((1 / 3, r * C + c, float(lake[r, c] == "G"), bool(lake[r, c] in "GH")))
        return found

    over = np.isin(lake, ("G", "H")).ravel()
    start = (lake == "S").ravel().astype(float)
    return MDP.from_function(step, R * C, 4, gamma=1.0, terminal=over, start=start)


def catch() -> MDP:
    """A ball falls, a paddle at the bottom goes left, stays or goes right: 1 if they meet, else -1.

    State (row of the ball, column of the ball, column of the paddle); the ball begins in any column,
    the paddle in the middle.

    Source: Osband et al. 2019 (catch).  Oracle: boards moved by hand.  Cost: O(S).
    """
    shape = (ROWS, COLUMNS, COLUMNS)

    def step(s: int, a: int) -> list[tuple[float, int, float, bool]]:
        row, ball, paddle = (int(x) for x in np.unravel_index(s, shape))
        paddle = min(max(paddle + a - 1, 0), COLUMNS - 1)
        down = row + 1 == ROWS - 1
        reward = (1.0 if ball == paddle else -1.0) if down else 0.0
        after = np.ravel_multi_index((row + 1, ball, paddle), shape)
        return [(1.0, int(after), reward, down)]

    start = np.zeros(shape)
    start[0, :, COLUMNS // 2] = 1 / COLUMNS
    over = np.arange(start.size) >= (ROWS - 1) * COLUMNS**2
    return MDP.from_function(step, start.size, 3, gamma=1.0, terminal=over, start=start.ravel())


def boards() -> Float[np.ndarray, "S d"]:
    """The board of each state of Catch, row by row: 1 where the ball or the paddle is.

    Source: Osband et al. 2019 (catch).  Oracle: boards moved by hand.  Cost: O(S).
    """
    row, ball, paddle = np.unravel_index(np.arange(ROWS * COLUMNS**2), (ROWS, COLUMNS, COLUMNS))
    shown = np.zeros((len(row), ROWS * COLUMNS), dtype=np.float32)
    every = np.arange(len(row))
    shown[every, row * COLUMNS + ball] = 1.0
    shown[every, (ROWS - 1) * COLUMNS + paddle] = 1.0
    return shown


def deep_sea() -> MDP:
    """mdp.worlds.deep_sea, where each cell has its own meaning of 0 and 1, drawn once for all.

    Source: Osband et al. 2019 (deep_sea).  Oracle: dives by hand.  Cost: O(SEA^2).
    """
    plain = worlds.deep_sea(SEA)
    cells = _sea_cells()
    right = _fixed().binomial(1, 0.5, (SEA, SEA))[cells[:, 0], cells[:, 1]]
    # row 2 s + a of the plain model goes left for a = 0; where 0 means right, the two rows trade places
    pair = (2 * np.arange(len(cells))[:, None] + (np.arange(2) ^ (1 - right[:, None]))).ravel()
    return MDP(
        sa_indptr=plain.sa_indptr, actions=plain.actions, indptr=plain.indptr, indices=plain.indices[pair],
        probs=plain.probs, rewards=plain.rewards[pair], gamma=1.0, terminal=plain.terminal, start=plain.start,
    )  # fmt: skip


def sea_boards() -> Float[np.ndarray, "S d"]:
    """The square of each state of the sea, row by row: 1 where the diver is, and nothing at the end.

    Source: Osband et al. 2019 (deep_sea).  Oracle: dives by hand.  Cost: O(SEA^4).
    """
    cells = _sea_cells()
    shown = np.zeros((len(cells) + 1, SEA * SEA), dtype=np.float32)
    shown[np.arange(len(cells)), cells[:, 0] * SEA + cells[:, 1]] = 1.0
    return shown


def bandit() -> MDP:
    """Eleven arms that pay 0, .1, ..., 1 in some order; an episode is one pull.

    Source: Osband et al. 2019 (bandit).  Oracle: every arm, pulled once.  Cost: O(1).
    """
    pays = np.linspace(0.0, 1.0, 11)[_fixed().choice(11, 11, replace=False)]
    return _one_step(pays[None, :, None], np.ones((1, 11, 1)))


def contextual_bandit() -> MDP:
    """Arm a pays 1 with chance .9 - .2 ((a - k) mod ARMS) in context k; contexts come evenly, one pull each.

    Always the best arm: .9; all arms alike: .6.

    Source: ours.  Oracle: means of many pulls.  Cost: O(CONTEXTS ARMS).
    """
    k, a = np.arange(CONTEXTS)[:, None], np.arange(ARMS)
    chance = 0.9 - 0.2 * ((a - k) % ARMS)
    pays = np.broadcast_to([1.0, 0.0], (*chance.shape, 2))
    return _one_step(pays, np.stack([chance, 1.0 - chance], axis=2))


def tokens() -> MDP:
    """Answers of at most LENGTH tokens 0..END, which END ends: 1 if it did and the others sum to 1 modulo 3.

    State = history, the shorter ones first, then in lexicographic order; the last state is the end.
    The 40 answers, 4 of them right, are those of the language family's reference problem.

    Source: the token view of language models, Ramamurthy et al. 2023, arXiv:2210.01241, sec. 3.1.
    Oracle: oracles.sequences.  Cost: O(S).
    """
    histories: list[tuple[int, ...]] = [()]
    for length in range(1, LENGTH):
        histories += [h + (v,) for h in histories if len(h) == length - 1 for v in range(END)]
    number = {h: i for i, h in enumerate(histories)}

    def step(s: int, v: int) -> list[tuple[float, int, float, bool]]:
        said = histories[s]
        if v == END or len(said) == LENGTH - 1:
            return [(1.0, len(number), float(v == END and sum(said) % 3 == 1), True)]
        return [(1.0, number[(*said, v)], 0.0, False)]

    S = len(number) + 1
    over, start = np.arange(S) == S - 1, np.eye(1, S)[0]
    return MDP.from_function(step, S, TOKENS, gamma=1.0, terminal=over, start=start)


def _grid() -> MDP:
    return worlds.book_grid(gamma=1.0)


def _one_step(
    pays: Float[np.ndarray, "K A n"], probs: Float[np.ndarray, "K A n"]
) -> MDP:  # fmt: skip
    """K states, as likely; action a pays pays[k, a, i] with probability probs[k, a, i], and that is all."""
    K = len(pays)

    def step(k: int, a: int) -> list[tuple[float, int, float, bool]]:
        return [(float(p), K, float(r), True) for p, r in zip(probs[k, a], pays[k, a], strict=True)]

    start = np.append(np.full(K, 1.0 / K), 0.0)
    return MDP.from_function(step, K + 1, pays.shape[1], gamma=1.0, terminal=[K], start=start)


def _contexts() -> Float[np.ndarray, "S d"]:
    return np.eye(CONTEXTS + 1, CONTEXTS, dtype=np.float32)


def _one() -> Float[np.ndarray, "S d"]:
    return np.ones((2, 1), dtype=np.float32)


def _sea_cells() -> Int[np.ndarray, "S 2"]:
    return np.array([(r, c) for r in range(SEA) for c in range(r + 1)])


def _fixed() -> np.random.RandomState:
    """The source's generator, so that its meanings are ours."""
    return np.random.RandomState(MAPPING_SEED)


WORLDS: Mapping[str, World] = {
    "CliffWalking-v1": World(model=worlds.cliff, limit=None, best=-13.0),
    "FrozenLake-v1": World(model=lambda: frozen_lake("4x4"), limit=100, best=0.744190),
    "FrozenLake8x8-v1": World(model=lambda: frozen_lake("8x8"), limit=200, best=0.913220),
    "GridWorld-v0": World(model=_grid, limit=100, best=97.6),
    "Catch-v0": World(model=catch, limit=None, best=1.0, shown=boards),
    "DeepSea-v0": World(model=deep_sea, limit=None, best=0.99, shown=sea_boards),
    "Bandit-v0": World(model=bandit, limit=None, best=1.0, shown=_one),
    "ContextualBandit-v0": World(model=contextual_bandit, limit=None, best=0.9, shown=_contexts),
    "Tokens-v0": World(model=tokens, limit=None, best=1.0),
}
