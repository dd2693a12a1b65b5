"""Problems whose answer is a program: prompts with test cases.

Source: Chen et al. 2021, arXiv:2107.03374 (functional correctness); as a task: ours.
Not here: running programs (language/sandbox.py); making test cases (verifiers.validate_test_cases).
"""

import re
from collections.abc import Sequence

from dodona.errors import InputError
from dodona.language.sandbox import LIMITS, CodeTest, Isolation, Limits, run_sandboxed
from dodona.language.tasks.base import Item, NumberedTask, Score

FENCE = re.compile(r"```[a-zA-Z0-9]*[ \t]*\n(.*?)```", re.DOTALL)


class CodeTask(NumberedTask):
    """Programs judged by tests, at a level of isolation that you choose.

    An answer is a Python program, or a text whose last fenced block is one.

    Args:
        problems: prompts, each with its tests.
        isolation: "sandbox" or "process"; "none", the default, refuses: code rewards are off.
        limits: of every program.
        solutions: a right program for each prompt; None: there is none.
    Raises: InputError: isolation="none", or a level that this machine does not grant (both when made); no
        problem; a problem without a test; not one solution for each.
    Source: see the module.  Oracle: the solutions.  Cost: that of run_sandboxed.
    """

    name = "code"
    levels = (0,)
    level = 0

    def __init__(
        self,
        problems: Sequence[tuple[str, Sequence[CodeTest]]],
        *,
        isolation: Isolation = "none",
        limits: Limits = LIMITS,
        solutions: Sequence[str] | None = None,
    ):
        if not problems:
            raise InputError("there is no problem. Give one at least.")
        if solutions is not None and len(solutions) != len(problems):
            raise InputError(f"{len(problems)} problems and {len(solutions)} solutions: one each is expected.")  # fmt: skip
        bare = next((k for k, (_, tests) in enumerate(problems) if not tests), None)
        if bare is not None:
            raise InputError(f"problem {bare} has no test: any program would pass.")
        # a level that is not granted is found out here, and not by every answer
        run_sandboxed("", [CodeTest(expected="")], isolation=isolation)
        self.isolation: Isolation = isolation
        self.limits = limits
        self._problems = list(problems)
        self._solutions = [""] * len(problems) if solutions is None else list(solutions)
        self.alphabet = None  # prose: use the tokenizer of a language model

    def size(self, level: int | None = None) -> int:
        self.checked_level(level)
        return len(self._problems)

    def item(self, number: int, level: int | None = None) -> Item:
        number = self.checked_number(number, self.checked_level(level))
        prompt, tests = self._problems[number]
        return Item(prompt, self._solutions[number], {"level": 0, "number": number, "tests": tuple(tests)})  # fmt: skip

    def solve(self, item: Item) -> str:
        """Raises: InputError: the problem has no solution."""
        if not item.answer:
            raise InputError(f"problem {item.meta['number']} has no solution. Give solutions=.")
        return item.answer

    def answers(self, item: Item) -> list[str]:
        raise InputError("code lists no answers: many programs are right.")

    def verify(self, item: Item, completion: str) -> Score:
        blocks = FENCE.findall(completion)
        code = blocks[-1] if blocks else completion
        return run_sandboxed(code, item.meta["tests"], isolation=self.isolation, limits=self.limits)
