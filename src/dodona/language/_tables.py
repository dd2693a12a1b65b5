"""A SequenceTable as something that answers prompts: the smallest language model, exact.

A prompt is a walk from the table's root, an answer ends where the walk comes to a terminal state.
Meaning: generation.py; the table is policies.SequenceTable.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dodona.errors import InputError
from dodona.policies.table import SequenceTable


def table_states(table: SequenceTable, prompts: Sequence[Any]) -> np.ndarray:
    """[N] the state of a table behind each walk from its root.

    Raises: InputError: a table without a single start, a walk that goes on after an end, an unknown token.
    """
    if table.root is None:
        raise InputError("the table has no single start, so prompts lead nowhere from it.")
    successor = table.successor.numpy(force=True)
    states = []
    for place, prompt in enumerate(prompts):
        state = table.root
        for token in prompt:
            if not 0 <= token < successor.shape[1]:
                raise InputError(
                    f"token id {token} of prompt {place} is outside 0..{successor.shape[1] - 1}."
                )
            state = int(successor[state, token])
        states.append(state)
        if table.terminal[state]:
            raise InputError(f"prompt {place} is a whole answer: nothing can follow it.")
    return np.array(states, dtype=np.int64)


class TablePrompts:
    """What write asks of prompts, for a SequenceTable."""

    def __init__(self, table: SequenceTable, states: np.ndarray):
        self.table, self.states = table, torch.from_numpy(states).to(table.logits.device)
        masked = table.logits.detach().masked_fill(~table.action_mask, -torch.inf)
        self.rows = masked
        self.logits = masked[self.states]

    def begin(self, rows: Tensor, *, capacity: int) -> "TableDecoding":
        return TableDecoding(self, self.states[rows])


class TableDecoding:
    """Answers of a SequenceTable that are being written; an answer ends where its state is terminal."""

    moves = False

    def __init__(self, prompts: TablePrompts, states: Tensor):
        self.prompts, self.states = prompts, states

    def ends(self, tokens: np.ndarray) -> np.ndarray:
        """[B] whether each token ends its answer."""
        table = self.prompts.table
        after = table.successor[self.states, torch.from_numpy(tokens).to(self.states.device)]
        return table.terminal[after].numpy(force=True)

    def decode(self, tokens: Tensor) -> Tensor:
        self.states = self.prompts.table.successor[self.states, tokens]
        return self.prompts.rows[self.states]

    def keep(self, rows: Tensor) -> None:
        self.states = self.states[rows]

    def close(self) -> None:
        pass
