"""Rewards for code: run a program that a model wrote against tests, at one of three levels of isolation.

    tests = [CodeTest(function="add", args=(2, 3), expected=5)]
    run_sandboxed("def add(a, b): return a + b", tests, isolation="sandbox").value

"none"     no code is run: what the product does until you choose.
"process"  a process of its own with an empty environment, an empty folder, no input but its own, limits of time,
           memory, files and processes, and a filter of system calls; where dodona is root, another user. Against
           accidents, not against an adversary: it has the network, and the files that its user has (where the
           interpreter lies in a folder that root alone may enter, the other user may read, not write, all files).
"sandbox"  the same within namespaces of its own (processes, network, mounts, and users where dodona is not root)
           and a file system that can only be read. Against hostile code as far as the kernel has no hole.

A level that this machine does not grant is refused, never replaced by a weaker one. The program gets inputs
alone; outputs are compared here, so nothing that it prints can claim to have passed.

Source: card rollouts-and-verifiers, sec. 2; Chen et al. 2021, arXiv:2107.03374, sec. 2.3 (why a sandbox).
Not here: containers and virtual machines; languages other than Python, packages other than its library.
"""

import json
import math
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from dodona.core.inputs import check_choice, check_count, check_range
from dodona.errors import InputError
from dodona.language.tasks.base import Score, undecided, wrong

Isolation = Literal["none", "process", "sandbox"]
LEVELS = ("none", "process", "sandbox")
CHILD = Path(__file__).with_name("_sandbox_child.py")
GRACE = (
    10.0  # seconds for an interpreter to start on a busy machine, beside the time of the program
)
CLOSE = 1e-9  # relative distance of two floats that are equal


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a program may use. The defaults fit short exercises.

    Raises (when made): InputError: a number that is not positive.
    Source: ours.
    """

    seconds: float = 2.0
    """wall clock of all tests together, from the start of the program"""
    memory_mb: int = 512
    """address space of each process, MiB; all together may take ``processes`` times that"""
    processes: int = 8
    """processes and threads at one time, the program itself among them"""
    file_mb: int = 16
    """MiB of one file; at "sandbox" of all files together, which lie in memory"""
    output_kb: int = 256
    """KiB that are printed, or returned"""

    def __post_init__(self) -> None:
        check_range("(0, inf)", seconds=self.seconds)
        check_count(
            memory_mb=self.memory_mb, processes=self.processes, file_mb=self.file_mb, output_kb=self.output_kb
        )  # fmt: skip


LIMITS = Limits()


@dataclass(frozen=True, kw_only=True)
class CodeTest:
    """One test: a call of a function and what it returns, or a run of the whole program and what it prints.

    Raises (when made): InputError: arguments or a result that JSON has not; input for a function.
    Source: ours.
    """

    expected: Any
    """the result of the call, or the text that is printed"""
    function: str | None = None
    """the name of a function of the program; None: the program is run"""
    args: Sequence[Any] = ()
    """of the call"""
    stdin: str = ""
    """what a run can read"""

    def __post_init__(self) -> None:
        try:
            json.dumps([self.expected, list(self.args)])
        except (TypeError, ValueError) as error:
            raise InputError(
                f"arguments and results must be numbers, texts, lists and dictionaries of them: {error}."
            ) from None
        if self.function is None and (self.args or not isinstance(self.expected, str)):
            raise InputError(
                f"a test without function= runs the program and compares what it prints: expected={self.expected!r} "
                f"must be a text, and args={tuple(self.args)!r} must be empty. Name the function, or use stdin=."
            )
        if self.function is not None and self.stdin:
            raise InputError("stdin= is for a test that runs the program: a call has its args.")


def run_sandboxed(
    code: str,
    tests: Sequence[CodeTest],
    *,
    isolation: Isolation = "process",
    limits: Limits = LIMITS,
) -> Score:
    """1 where a program passes every test, else 0.

    All calls are made one after another in one process, each run of the program in a fresh one. What is not
    answered (the time is over, the program has ended itself) is wrong. Printed text is compared without spaces at
    the ends of lines and of the whole; results as JSON has them (a tuple is a list), floats within 1e-9.

    Args:
        code: a Python program; its library is there, no other package is.
        isolation: see the module.
        limits: of time, memory, processes, files and output.
    Returns: a Score; ``steps`` has a 1 or 0 for each test; "undecided" where the program can not be read.
    Raises: InputError: no test, isolation="none" or unknown, a level that this machine does not grant (the message
        says what is missing).
    Source: card rollouts-and-verifiers, sec. 2.  Oracle: programs that must pass, and escapes that must not (tests).
    Cost: about 50 ms to start, and what the program takes, at most ``limits.seconds`` and half a second.
    """
    check_choice(LEVELS, isolation=isolation)
    if isolation == "none":
        raise InputError(
            "code rewards are off (isolation='none'). Choose isolation='sandbox' for code of a model, or "
            "isolation='process' where accidents are all you fear."
        )
    if not sys.platform.startswith("linux"):
        raise InputError(f"isolation={isolation!r} needs Linux, this is {sys.platform}.")
    if not tests:
        raise InputError("run_sandboxed got no test: without one, any program would pass.")
    runs, places = _runs(tests)
    found = _asked(code, runs, isolation, limits)
    verdicts = ["not answered"] * len(tests)
    for run, mine in zip(found, places, strict=False):
        for place, verdict in zip(mine, _verdicts(run, [tests[i] for i in mine]), strict=True):
            verdicts[place] = verdict
    steps = tuple(float(v == "passed") for v in verdicts)
    if all(steps):
        return Score(1.0, "right", steps)
    first = steps.index(0.0)
    reason = f"test {first + 1} of {len(tests)}: {verdicts[first]}"
    unread = any(_frame(text)[0] == "unread" for run in found for text in run["frames"])
    return undecided(reason) if unread else wrong(reason, steps)


def _runs(tests: Sequence[CodeTest]) -> tuple[list[dict[str, Any]], list[list[int]]]:
    """(what the child is to run, the tests that each run answers)."""
    calls = [i for i, test in enumerate(tests) if test.function is not None]
    runs = [{"stdin": "", "calls": [[tests[i].function, list(tests[i].args)] for i in calls]}] if calls else []  # fmt: skip
    places = [calls] if calls else []
    for i, test in enumerate(tests):
        if test.function is None:
            runs.append({"stdin": test.stdin, "calls": []})
            places.append([i])
    return runs, places


def _asked(
    code: str, runs: list[dict[str, Any]], isolation: Isolation, limits: Limits
) -> list[dict[str, Any]]:
    """What the supervisor reports of each run.  Raises: InputError: it was refused something."""
    with tempfile.TemporaryDirectory(prefix="dodona-code-") as folder:
        uid = _nobody() if os.geteuid() == 0 else None
        if uid is not None and isolation == "process":
            os.chown(folder, uid, uid)
        job = {
            "code": code, "runs": runs, "isolation": isolation, "limits": asdict(limits), "folder": folder,
            "uid": uid, "mark": secrets.token_hex(16) + " ", "spared": [os.getpid(), -os.getpgid(0)],
        }  # fmt: skip
        # -I: no environment, no user folder, no current folder on the path; -S: no installed packages
        with subprocess.Popen(
            [sys.executable, "-I", "-S", str(CHILD), folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, env={}, cwd="/", start_new_session=True,
        ) as child:  # fmt: skip
            try:
                said, complaint = child.communicate(
                    json.dumps(job).encode(), limits.seconds + GRACE
                )
            except subprocess.TimeoutExpired:
                return []
            finally:
                if child.poll() is None:
                    os.killpg(child.pid, signal.SIGKILL)
    if child.returncode < 0:  # the program has ended its supervisor: nothing was answered
        return []
    if not said:
        raise InputError(f"isolation={isolation!r} could not be started: {complaint.decode(errors='replace').strip()[-400:]}")  # fmt: skip
    answer = json.loads(said)
    if "refused" in answer:
        hint = " No weaker level is taken in its place; isolation='process' needs no namespaces." if isolation == "sandbox" else ""  # fmt: skip
        raise InputError(f"isolation={isolation!r} is not granted on this machine: {answer['refused']}.{hint}")  # fmt: skip
    return answer["runs"]


def _verdicts(run: dict[str, Any], tests: Sequence[CodeTest]) -> list[str]:
    """A verdict for each test that a run was to answer."""
    frames = [_frame(text) for text in run["frames"]]
    failed = next((str(value) for kind, value in frames if kind in ("failed", "unread")), None)
    ended = failed or _ending(run)
    if tests[0].function is None:
        if ended is not None:
            return [ended]
        same = _lines(run["said"]) == _lines(tests[0].expected)
        return ["passed" if same else f"printed {_short(run['said'])}, expected {_short(tests[0].expected)}"]  # fmt: skip
    answers = [(kind, value) for kind, value in frames if kind in ("value", "raised")]
    verdicts = []
    for k, test in enumerate(tests):
        if k >= len(answers):
            verdicts.append(ended or "no answer")
        elif answers[k][0] == "raised":
            verdicts.append(str(answers[k][1]))
        elif _equal(answers[k][1], json.loads(json.dumps(test.expected))):
            verdicts.append("passed")
        else:
            verdicts.append(f"returned {_short(answers[k][1])}, expected {_short(test.expected)}")
    return verdicts


def _ending(run: dict[str, Any]) -> str | None:
    """Why a run ended, where it did not end by itself and well."""
    if run["end"] != "exit":
        return {"time": "the time is over", "output": "printed or returned too much"}[run["end"]]
    status = run["status"]
    if status == 0:
        return None
    return f"ended by signal {-status}" if status < 0 else f"exit status {status}"


def _frame(text: str) -> tuple[str, Any]:
    """(kind, value); whatever is none, a value that equals nothing."""
    try:
        kind, value = json.loads(text)
        return str(kind), value
    except (ValueError, TypeError, RecursionError):
        return "raised", "an answer that can not be read"


def _equal(got: Any, expected: Any) -> bool:
    """Whether two values of JSON are one; True is not 1, and 1.0 is 1."""
    numbers = (int, float)
    if isinstance(got, bool) or isinstance(expected, bool):
        return got is expected
    if isinstance(got, numbers) and isinstance(expected, numbers):
        if isinstance(got, int) and isinstance(expected, int):
            return got == expected
        return _float_equal(got, expected)
    if type(got) is not type(expected):
        return False
    if isinstance(got, list):
        return len(got) == len(expected) and all(map(_equal, got, expected))
    if isinstance(got, dict):
        return got.keys() == expected.keys() and all(_equal(got[k], expected[k]) for k in got)
    return got == expected


def _float_equal(got: float, expected: float) -> bool:
    try:
        return got == expected or math.isclose(got, expected, rel_tol=CLOSE)
    except OverflowError:  # an integer that no float can hold
        return False


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().splitlines()]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _nobody() -> int:
    """A user number that no account has and no other run uses, within what this user namespace knows."""
    import pwd

    with open("/proc/self/uid_map") as file:
        known = max(int(first) + int(count) for first, _, count in (line.split() for line in file))
    while True:
        number = known // 2 + secrets.randbelow(max(min(known, 1 << 31) // 4, 1))
        try:
            pwd.getpwuid(number)
        except KeyError:
            return number
