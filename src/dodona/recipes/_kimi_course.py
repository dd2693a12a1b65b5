"""What the recipe of Kimi k1.5 trains on, and in what order: plans with detours, and legs that begin where others ended.

A demonstration is a shortest plan with steps forth and back put in at random: right, and longer than need be.
So there is something to shorten.

Source: Kimi Team 2025, arXiv:2501.12599, sec. 2.4; the task: ours.
Not here: what is compared and judged (kimi_k1_5.py).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from dodona.core.optimizers import snapshot
from dodona.core.protocols import Event, Trainer
from dodona.errors import CheckpointError
from dodona.language import CharTokenizer, Item, TorchEngine, graded_samples, score_tokens
from dodona.language.tasks import GridworldPlan, split

STEPS = {"U": (-1, 0), "D": (1, 0), "L": (0, -1), "R": (0, 1)}
BACK = {"U": "D", "D": "U", "L": "R", "R": "L"}

Policies = Mapping[str, nn.Module]
Legs = Sequence[tuple[str, Callable[[Policies], Trainer]]]


class Grids:
    """The task, its problems to train on and unseen ones, and demonstrations.

    Args: level: side of the grids.  max_moves: of a plan.  num_grids: drawn; of those that come twice one is kept.
        num_unseen: problems of an evaluation.
    """

    def __init__(self, level: int, max_moves: int, *, num_grids: int, num_unseen: int, seed: int):
        self.task = GridworldPlan(level, max_moves=max_moves)
        self.tokenizer = CharTokenizer(self.task.alphabet)
        self.max_new_tokens = max_moves + 1
        drawn = self.task.generate_many(num_grids, seed=seed)
        distinct = list({item.prompt: item for item in drawn}.values())
        parts = split(self.task, distinct, unseen=0.15, seed=seed)
        self.train, self.unseen = parts.train, parts.unseen[:num_unseen]
        # a prompt is its rows, a slash between them, the colon and BOS
        self.context = level * (level + 1) + 2 + self.max_new_tokens

    @property
    def shortest(self) -> float:
        """Mean tokens of a shortest answer to the unseen problems, EOS included."""
        return 1.0 + float(np.mean([len(item.answer) for item in self.unseen]))

    def detours(self, per_item: int, most: int, *, seed: int) -> list[tuple[str, str]]:
        """(prompt, plan) with 1 .. most steps forth and back in each."""
        rng = np.random.default_rng(seed)
        return [
            (item.prompt, self._lengthened(item, int(rng.integers(1, most + 1)), rng))
            for item in self.train
            for _ in range(per_item)
        ]

    def shortest_plans(self) -> list[tuple[str, str]]:
        """(prompt, plan) without any."""
        return [(item.prompt, item.answer) for item in self.train]

    def evaluation(
        self, num_samples: int, *, seed: int, reference: nn.Module | None = None
    ) -> Callable[[nn.Module], dict[str, float]]:
        """policy -> its pass rate and its lengths on the unseen problems, by answers drawn from it.

        Args: reference: then also kl/start, the mean of log pi - log reference over whole answers, nats.
        """

        def evaluate(policy: nn.Module) -> dict[str, float]:
            samples = graded_samples(
                TorchEngine(policy, tokenizer=self.tokenizer), self.task, self.unseen,
                tokenizer=self.tokenizer, num_samples=num_samples, max_new_tokens=self.max_new_tokens, seed=seed,
            )  # fmt: skip
            right = np.array([s.right for s in samples])
            lengths = np.array([s.length for s in samples], dtype=float)
            rates = right.reshape(-1, num_samples).mean(axis=1)
            told = {
                "unseen/pass": float(right.mean()), "unseen/tokens": float(lengths.mean()),
                "unseen/pass_se": float(rates.std(ddof=1) / np.sqrt(len(rates))),
                "unseen/shortest": self.shortest,
            }  # fmt: skip
            if right.any():
                told["unseen/tokens_right"] = float(lengths[right].mean())
            if reference is not None:
                drawn = [s.rollout for s in samples]
                before = score_tokens(reference, drawn).sum(1).mean()
                told["kl/start"] = float(np.mean([r.logp.sum() for r in drawn]) - before)
            return told

        return evaluate

    def _lengthened(self, item: Item, num: int, rng: np.random.Generator) -> str:
        rows, plan = item.prompt.rstrip(":").split("/"), item.answer
        side = len(rows)
        start = next((i, row.index("S")) for i, row in enumerate(rows) if "S" in row)
        for _ in range(num):
            if len(plan) + 2 > self.max_new_tokens - 1:
                break
            place, at = start, int(rng.integers(len(plan) + 1))
            for move in plan[:at]:
                place = _after(place, move)
            open_moves = [
                m for m in STEPS
                if all(0 <= x < side for x in _after(place, m)) and rows[_after(place, m)[0]][_after(place, m)[1]] != "#"
            ]  # fmt: skip
            move = open_moves[int(rng.integers(len(open_moves)))]
            plan = plan[:at] + move + BACK[move] + plan[at:]
        return plan


class Course:
    """Trainers one after another, each built from the policies that earlier ones ended with.

    Args:
        legs: (name, build) pairs; build gets the policies by the names of their legs. A leg's policy is its trainer's
            ``policy`` or ``model``.
        blank: a policy of the same shape, to be filled from a state.
    Events carry ``leg`` in data. The state holds every policy so far and the running trainer's state.
    """

    def __init__(self, legs: Legs, blank: Callable[[], nn.Module]):
        self.legs, self.blank = legs, blank
        self.policies: dict[str, nn.Module] = {}
        self.position, self.current = 0, None

    def __iter__(self) -> Iterator[Event]:
        while self.position < len(self.legs):
            name, build = self.legs[self.position]
            if self.current is None:
                self.current = build(self.policies)
            for event in self.current:
                yield replace(event, data={**event.data, "leg": name})
            self.policies[name] = _policy_of(self.current)
            self.current = None
            self.position += 1

    def state_dict(self) -> dict[str, Any]:
        return {
            "names": [name for name, _ in self.legs],
            "position": self.position,
            "policies": {name: snapshot(p.state_dict()) for name, p in self.policies.items()},
            "current": None if self.current is None else self.current.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises: CheckpointError: other legs."""
        if state["names"] != [name for name, _ in self.legs]:
            raise CheckpointError(
                f"the checkpoint has the legs {state['names']}, this run {[name for name, _ in self.legs]}. Resume with "
                "the run's own config."
            )
        self.position, self.current, self.policies = state["position"], None, {}
        for name, saved in state["policies"].items():
            self.policies[name] = self.blank()
            self.policies[name].load_state_dict(saved)
        if state["current"] is not None:
            self.current = self.legs[self.position][1](self.policies)
            self.current.load_state_dict(state["current"])


class Measured:
    """A policy that is finished: one evaluation, no update."""

    def __init__(self, policy: nn.Module, evaluate: Callable[[nn.Module], dict[str, float]]):
        self.policy, self.evaluate, self.done = policy, evaluate, False

    def __iter__(self) -> Iterator[Event]:
        if not self.done:
            with torch.no_grad():
                metrics = self.evaluate(self.policy)
            self.done = True
            yield Event(kind="evaluation", step=0, num_samples=0, metrics=metrics)

    def state_dict(self) -> dict[str, Any]:
        return {"done": self.done}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.done = bool(state["done"])


def _after(place: tuple[int, int], move: str) -> tuple[int, int]:
    return place[0] + STEPS[move][0], place[1] + STEPS[move][1]


def _policy_of(trainer: Any) -> nn.Module:
    return trainer.policy if hasattr(trainer, "policy") else trainer.model
