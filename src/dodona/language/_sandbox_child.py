"""The supervisor of a program that nobody trusts, and the program itself. Run by path: nothing of dodona here.

A job comes in as JSON, what the program printed and returned goes out as JSON. What was expected is never
told here, so there is nothing to print that would pass. Every run is a process forked from this fresh
interpreter; when it has ended, or is told to end, whatever it started is ended too.

Source: card rollouts-and-verifiers, sec. 2 (code rewards); the walls are those of _sandbox_walls.py.
Not here: whether an output is right (sandbox.py).
"""

import contextlib
import json
import os
import selectors
import signal
import sys
import time
import types
from typing import Any

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import _sandbox_walls as walls  # noqa: E402  # pyright: ignore[reportMissingImports]

del sys.path[0]
LIBRARY = os.path.dirname(os.__file__)


def main() -> None:
    """One job from stdin to stdout."""
    job = json.load(sys.stdin.buffer)
    try:
        walls.watch_over()
        if job["isolation"] == "sandbox":
            walls.own_namespaces()
            init = os.fork()
            if init:  # the first process in there; with it all others end
                _, status = os.waitpid(init, 0)
                sys.exit(os.waitstatus_to_exitcode(status) != 0)
            walls.watch_over()
            walls.own_files(job["folder"], sys.base_prefix, job["limits"]["file_mb"])
        else:
            os.chdir(job["folder"])
        answer: dict[str, Any] = {"runs": _all_runs(job)}
    except (walls.Refused, OSError) as error:
        answer = {"refused": str(error)}
    _write_all(1, json.dumps(answer).encode())


def _all_runs(job: dict[str, Any]) -> list[dict[str, Any]]:
    """Every run of the job within the time of the job; runs after its end are not begun."""
    deadline = time.monotonic() + job["limits"]["seconds"]
    done = []
    for run in job["runs"]:
        done.append(_watched(job, run, deadline))
        if done[-1]["refused"]:
            raise walls.Refused(done[-1]["refused"])
        if done[-1]["end"] in ("time", "output"):
            break
    return done


def _watched(job: dict[str, Any], run: dict[str, Any], deadline: float) -> dict[str, Any]:
    """Start one run, read what it says until it ends or must, end what is left of it."""
    said, frames = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        _program(job, run, said[1], frames[1])
    os.close(said[1])
    os.close(frames[1])
    handle = os.pidfd_open(pid)
    received = {said[0]: bytearray(), frames[0]: bytearray()}
    end = "time"
    with selectors.DefaultSelector() as waiting:
        for source in (*received, handle):
            waiting.register(source, selectors.EVENT_READ)
        while (left := deadline - time.monotonic()) > 0:
            ready = {key.fd for key, _ in waiting.select(left)}
            for source in ready & received.keys():
                part = os.read(source, 1 << 16)
                received[source] += part
                if not part:
                    waiting.unregister(source)
            if max(map(len, received.values())) > job["limits"]["output_kb"] << 10:
                end = "output"
                break
            if handle in ready:  # and one read has taken all that a pipe can hold
                end = "exit"
                break
    _end_all(job, pid)
    status = _reap(pid)
    for source in (*received, handle):
        os.close(source)
    found = {"end": end, "status": status, "said": "", "frames": [], "refused": None}
    found["said"] = received[said[0]].decode("utf-8", errors="replace")
    mark = job["mark"].encode()
    for line in received[frames[0]].splitlines():
        if line.startswith(mark):
            found["frames"].append(line[len(mark) :].decode("utf-8", errors="replace"))
        elif line.startswith(b"refused "):
            found["refused"] = line[8:].decode("utf-8", errors="replace")
    return found


def _end_all(job: dict[str, Any], pid: int) -> None:
    """End every process of a run, in its group or out of it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    if job["isolation"] == "sandbox":
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)  # all processes of this namespace but its first
    elif job["uid"] is not None:
        killer = os.fork()
        if killer == 0:  # as that user: whom it may signal is exactly who is meant
            os.setresuid(job["uid"], job["uid"], job["uid"])
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)
            os._exit(0)


def _reap(pid: int) -> int:
    """How a run ended; returns when it and every orphan of it is gone."""
    status = 0
    while True:
        try:
            ended, how = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return status
        if ended == pid:
            status = os.waitstatus_to_exitcode(how)
        if ended == 0:  # orphans of ended processes are our children now
            for child in _children():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            time.sleep(0.001)


def _children() -> list[int]:
    me = os.getpid()
    try:
        with open(f"/proc/{me}/task/{me}/children") as file:
            return [int(x) for x in file.read().split()]
    except OSError:  # no /proc: a namespace whose processes were all told to end
        return []


def _program(job: dict[str, Any], run: dict[str, Any], said: int, frames: int) -> None:
    """The process of a run; does not return."""
    try:
        above = os.getppid()
        os.setsid()
        source = os.memfd_create("stdin")
        _write_all(source, run["stdin"].encode())
        os.lseek(source, 0, os.SEEK_SET)
        nothing = os.open("/dev/null", os.O_WRONLY)
        frames = os.dup2(frames, 60)
        for wanted, given in enumerate((source, said, nothing)):
            os.dup2(given, wanted)
        os.closerange(3, 60)
        walls.limit(job["limits"], uid=job["uid"])
        walls.become(job["uid"], LIBRARY)
        walls.filter_calls([-1, above, -above, *job["spared"]])
    except (walls.Refused, OSError) as error:
        _write_all(frames, b"refused " + str(error).encode() + b"\n")
        os._exit(1)
    code, mark = job["code"], job["mark"]
    calls = run["calls"]
    job.clear()
    os._exit(_played(code, calls, frames, mark))


def _played(code: str, calls: list[Any], frames: int, mark: str) -> int:
    """Run the program, then the calls, and tell what each returned."""

    def tell(kind: str, value: Any) -> None:
        _write_all(frames, f"{mark}{json.dumps([kind, value])}\n".encode())

    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    status = 0
    try:
        program = compile(code, "<answer>", "exec")
    except BaseException as error:
        tell("unread", _told(error))
        return 1
    try:
        exec(program, module.__dict__)
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException as error:
        tell("failed", _told(error))
        status = 1
    for function, arguments in calls:
        if status:
            break
        try:
            value = getattr(module, function)(*arguments)
            tell("value", value)
        except BaseException as error:
            tell("raised", _told(error))
    with contextlib.suppress(BaseException):
        sys.stdout.flush()
    return status


def _told(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"[:200]
    except BaseException:
        return "an exception without words"


def _write_all(target: int, data: bytes) -> None:
    while data:
        data = data[os.write(target, data) :]


if __name__ == "__main__":
    main()
