"""The optimal action of a tiny decision process that the prompt spells out.

Source: Puterman 1994, 6.4 (policy iteration); as a task: ours.
Not here: models and planners (mdp/); values here are fractions, because a tie must be a tie.
"""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from dodona.core.inputs import check_count
from dodona.errors import InputError
from dodona.language.tasks.base import RIGHT, DrawnTask, Item, Score, undecided, wrong

Model = tuple[tuple[tuple[int, int], ...], ...]  # [state][action] -> (next state, reward)


class MDPValue(DrawnTask):
    """An optimal action in one state, every move certain, gamma = 1/2.

    Prompt "1+3,0+5;0+0,1+2?0:": for each state (split by ;) and action (split by ,) the next state and the
    reward; the question is for state 0. Answer "0" or "1", the number of the action. Where both are optimal
    both are right. Levels are numbers of states.

    Args: level: states, 2..5.  num_actions: 2..9.  max_reward: rewards are 0..max_reward.
    Raises: InputError: level; num_actions; max_reward < 1.
    Source: ours.  Oracle: oracles.mdp.optimal_rational.  Cost: about 0.1 ms to draw.
    """

    name = "mdp_value"
    alphabet = "0123456789+,;?:"
    levels = (2, 3, 4, 5)

    def __init__(self, level: int = 3, *, num_actions: int = 2, max_reward: int = 9):
        check_count(2, num_actions=num_actions)
        check_count(max_reward=max_reward)
        if num_actions > 9:
            raise InputError(f"num_actions must be at most 9, got {num_actions}: an action is one digit.")  # fmt: skip
        self.level, self.num_actions, self.max_reward = level, num_actions, max_reward
        self.checked_level(level)

    def draw(self, level: int, *, rng: np.random.Generator) -> Item:
        shape = (level, self.num_actions)
        after = rng.integers(level, size=shape).tolist()
        reward = rng.integers(self.max_reward + 1, size=shape).tolist()
        asked = int(rng.integers(level))
        rows = [
            ",".join(f"{s}+{r}" for s, r in zip(*row, strict=True))
            for row in zip(after, reward, strict=True)
        ]
        prompt = f"{';'.join(rows)}?{asked}:"
        right = _optimal(*_read(prompt))
        return Item(prompt, str(right[0]), {"level": level, "ties": len(right)})

    def solve(self, item: Item) -> str:
        return self.answers(item)[0]

    def answers(self, item: Item) -> list[str]:
        return [str(action) for action in _optimal(*_read(item.prompt))]

    def candidates(self, item: Item) -> Sequence[str]:
        return [str(action) for action in range(len(_read(item.prompt)[0][0]))]

    def verify(self, item: Item, completion: str) -> Score:
        text = completion.strip()
        if text == item.answer or text in self.answers(item):
            return RIGHT
        return wrong("wrong") if text in self.candidates(item) else undecided("not an action")


def _read(prompt: str) -> tuple[Model, int]:
    listed, _, asked = prompt.rstrip(":").partition("?")
    rows = [[entry.split("+") for entry in row.split(",")] for row in listed.split(";")]
    return tuple(tuple((int(s), int(r)) for s, r in row) for row in rows), int(asked)


def _optimal(model: Model, state: int) -> list[int]:
    """The optimal actions of a state, by policy iteration in fractions."""
    policy = [0] * len(model)
    while True:
        values = _values(model, policy)
        q = [[r + values[s] / 2 for s, r in row] for row in model]
        better = [row.index(max(row)) if max(row) > row[a] else a for row, a in zip(q, policy, strict=True)]  # fmt: skip
        if better == policy:
            return [a for a, value in enumerate(q[state]) if value == max(q[state])]
        policy = better


def _values(model: Model, policy: Sequence[int]) -> list[Fraction]:
    """v = r + v(next) / 2 of a policy: every state runs into a cycle, whose value is a geometric series."""
    values: dict[int, Fraction] = {}
    for begin in range(len(model)):
        path: list[int] = []
        state = begin
        while state not in values and state not in path:
            path.append(state)
            state = model[state][policy[state]][0]
        if state not in values:
            cycle = path[path.index(state) :]
            rewards = [model[s][policy[s]][1] for s in cycle]
            once = sum((Fraction(r, 2**k) for k, r in enumerate(rewards)), Fraction(0))
            values[state] = once / (1 - Fraction(1, 2 ** len(cycle)))
        for s in reversed(path):
            after, reward = model[s][policy[s]]
            if s not in values:
                values[s] = reward + values[after] / 2
    return [values[s] for s in range(len(model))]
