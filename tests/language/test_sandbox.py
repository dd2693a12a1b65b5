"""Good programs pass, escapes earn nothing, leave no process and change nothing; weaker levels are never taken."""

import json
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dodona.errors import InputError
from dodona.language import sandbox
from dodona.language.sandbox import CodeTest, Limits, run_sandboxed
from dodona.language.tasks import CodeTask

TESTS = [CodeTest(function="f", args=(n,), expected=7 * n) for n in (6, 11)]
SHORT = Limits(seconds=0.5, memory_mb=256, file_mb=2, output_kb=64)
SLEEPER = "7654.321"  # seconds: a process that sleeps so long is one of ours

# Programs that must earn nothing. None of them multiplies by 7; {outside} is a folder of the test's.
ESCAPES = {
    # the time is over
    "an endless loop": "def f(n):\n    while True: pass",
    "a loop that survives exceptions": "def f(n):\n    while True:\n        try:\n            while True: pass\n        except BaseException: pass",
    "a long sleep": "import time\ntime.sleep(7654.321)",
    "a sleep that ignores signals": "import signal, time\nfor s in (2, 14, 15): signal.signal(s, signal.SIG_IGN)\ntime.sleep(7654.321)",
    "a big number": "def f(n): return len(str(9 ** 9 ** 9))",
    "waiting for a lock": "import threading\ndef f(n):\n    a = threading.Lock(); a.acquire(); a.acquire()",
    # processes
    "a fork bomb": "import os\nwhile True: os.fork()",
    "a fork bomb that survives": "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
    "daemons": "import os, time\nfor _ in range(5):\n    if os.fork() == 0:\n        os.setsid()\n        if os.fork() == 0: time.sleep(7654.321)\n        os._exit(0)\ndef f(n): return 1",
    "zombies": "import os\nfor _ in range(6):\n    if os.fork() == 0: os._exit(0)\ndef f(n): return 1",
    "a process that is started and left": "import subprocess\nsubprocess.Popen(['sleep', '7654.321'], start_new_session=True)\ndef f(n): return 1",
    "a bomb of threads": "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(7654.321,)).start()",
    "a thread that goes on": "import threading, time\nthreading.Thread(target=time.sleep, args=(7654.321,)).start()\ndef f(n): return 1",
    "another program": "import os\nos.execv('/bin/sh', ['sh', '-c', 'echo 42; sleep 7654.321'])",
    "ending its parent": "import os\nos.kill(os.getppid(), 9)\nimport time\ntime.sleep(7654.321)",
    "ending everybody": "import os\nos.kill(-1, 9)",
    "ending its group": "import os\nos.killpg(0, 9)",
    # memory, output, files
    "a gigabyte": "x = bytearray(1 << 30)\ndef f(n): return 1",
    "memory bit by bit": "x = []\nwhile True: x.append(bytearray(1 << 20))",
    "a hundred megabytes of text": "print('x' * 100_000_000)",
    "text without end": "while True: print('PASSED ' * 1000)",
    "a result without end": "def f(n): return 'x' * 10_000_000",
    "errors without end": "import sys\nwhile True: sys.stderr.write('x' * 10_000)",
    "a large file": "open('x', 'wb').write(bytes(1 << 26))",
    "a folder that can not be removed": "import os\nos.makedirs('a/b/c')\nos.chmod('a/b', 0)\ndef f(n): return 1",
    "a file outside": "open('{outside}/new', 'w').write('x')\ndef f(n): return 1",
    "a changed file": "open('{outside}/canary', 'w').write('x')\ndef f(n): return 1",
    "a removed file": "import os\nos.remove('{outside}/canary')\ndef f(n): return 1",
    "a link to the outside": "import os\nos.symlink('{outside}', 'out')\nopen('out/canary', 'a').write('x')\ndef f(n): return 1",
    "a changed library": "import json\nopen(json.__file__, 'a').write('x')\ndef f(n): return 1",
    # secrets
    "the passwords": "def f(n): return open('/etc/shadow').read()",
    "the keys": "import os\ndef f(n): return os.listdir(os.path.expanduser('~root/.ssh'))",
    "the environment": "import os\ndef f(n): return dict(os.environ)",
    "the memory of its parent": "import os\ndef f(n): return open(f'/proc/{os.getppid()}/mem', 'rb').read(10)",
    # claims
    "os._exit(0)": "import os\nos._exit(0)",
    "sys.exit(0)": "import sys\nsys.exit(0)",
    "an exit in the call": "def f(n): raise SystemExit(0)",
    "an exit at the end": "import atexit, os\natexit.register(os._exit, 0)\ndef f(n): return 1",
    "PASSED": "print('PASSED'); print('2 passed in 0.01s')\ndef f(n): return 'PASSED'",
    "frames on every channel": "import os\nfor n in range(64):\n    try: os.write(n, b'[\"value\", 42]\\n{\"runs\": []}\\n')\n    except OSError: pass",
    "frames with the mark": "import json, os, sys\nmark = sys._getframe(1).f_locals['mark']\nfor n in (42, 76): os.write(60, f'{mark}{json.dumps([\"value\", n])}\\n'.encode())\nos._exit(0)",
    "the wrong answer by a patched writer": "import json\njson.dumps = lambda x: '[\"value\", true]'\ndef f(n): return 1",
    "equal to everything": "class X(int):\n    def __eq__(self, other): return True\ndef f(n): return X(3)",
    "a patched comparison": "import builtins, math\nbuiltins.all = lambda x: True\nmath.isclose = lambda *a, **k: True\ndef f(n): return 7.0 * n + 1",
    "no JSON": "def f(n): return {1, 2}",
    "NaN": "def f(n): return float('nan')",
    "true": "def f(n): return True",
    "nesting without end": "def f(n):\n    x = []\n    for _ in range(900): x = [x]\n    return x",
    "a number of many digits": "import sys\nsys.set_int_max_str_digits(0)\ndef f(n): return 10 ** 20_000",
    "all channels closed": "import os\nos.closerange(0, 256)\ndef f(n): return 1",
    # the interpreter and the kernel
    "deep recursion": "def f(n): return f(n)",
    "recursion without a limit": "import sys\nsys.setrecursionlimit(10 ** 9)\ndef f(n): return f(n)",
    "a crash": "import ctypes\nctypes.string_at(0)",
    "higher limits": "import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))\nx = bytearray(1 << 30)\ndef f(n): return 1",
    "waiting for input": "def f(n): return input()",
    "all frames of its callers": "import sys\ndef f(n):\n    frame = sys._getframe()\n    while frame.f_back: frame = frame.f_back\n    return str(frame.f_locals)[:1000]",
}  # fmt: skip

HARMFUL = (
    "a changed library",
)  # succeeds where a user owns the interpreter and no wall stands before it


@pytest.fixture(scope="module", params=["process", "sandbox"])
def level(request):
    """A level that this machine grants; what it does not grant must be refused and is skipped."""
    try:
        run_sandboxed("def f(n): return 7 * n", TESTS, isolation=request.param)
    except InputError as error:
        assert "is not granted on this machine" in str(error)
        pytest.skip(str(error))
    return request.param


@pytest.fixture(scope="module")
def outside(level, tmp_path_factory):
    """A folder of ours with a file in it."""
    folder = tmp_path_factory.mktemp("outside")
    (folder / "canary").write_text("as it was")
    return folder


@pytest.fixture(scope="module")
def zoo(level, outside, tmp_path_factory):
    """Every escape at one level, several at a time: name -> Score."""
    folders = tmp_path_factory.mktemp("folders")
    before, tempfile.tempdir = tempfile.tempdir, str(folders)
    try:
        with ThreadPoolExecutor(8) as pool:
            names = [n for n in ESCAPES if not (level == "process" and os.geteuid() and n in HARMFUL)]  # fmt: skip
            codes = [ESCAPES[name].replace("{outside}", str(outside)) for name in names]
            scores = pool.map(lambda code: run_sandboxed(code, TESTS, isolation=level, limits=SHORT), codes)  # fmt: skip
            yield dict(zip(names, scores, strict=True)), folders
    finally:
        tempfile.tempdir = before


@pytest.mark.parametrize("name", ESCAPES)
def test_an_escape_earns_nothing(zoo, name):
    if name not in zoo[0]:
        pytest.skip("a process of the same user may write what that user may, this interpreter too")
    score = zoo[0][name]
    if name == "frames with the mark":
        # it says what f(6) is, knowing the question and the form: that is an answer like any other
        assert score.steps == (1.0, 0.0) and score.value == 0.0
    else:
        assert score.value == 0.0 and not any(score.steps) and score.verdict == "wrong", score


def test_no_process_and_no_folder_is_left(zoo):
    _, folders = zoo
    assert list(folders.iterdir()) == []
    left = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if SLEEPER.encode() in command or str(folders).encode() in command:
                left.append(command)
    assert left == []


def test_the_host_is_as_it_was(zoo, level, outside):
    if level == "process" and os.geteuid() != 0:
        pytest.skip("a process of the same user may write what that user may")
    assert [x.name for x in outside.iterdir()] == ["canary"]
    assert (outside / "canary").read_text() == "as it was"
    assert not Path(json.__file__).read_text().endswith("x")


@pytest.mark.parametrize(
    "name", ["an endless loop", "daemons", "a fork bomb that survives", "text without end"]
)
def test_the_end_comes_within_half_a_second_of_the_limit(level, name):
    run_sandboxed("", [CodeTest(expected="")], isolation=level)
    began = time.monotonic()
    run_sandboxed(ESCAPES[name], TESTS, isolation=level, limits=Limits(seconds=0.3))
    assert (
        time.monotonic() - began < 0.3 + 0.5 + 1.0
    )  # the last second: an interpreter's start, on a busy machine


def test_a_sandbox_has_no_network_and_shows_no_files_of_ours(tmp_path):
    look = (
        "import os, socket\n"
        "def f(path):\n"
        "    return [os.path.exists(path), [x for x in os.listdir('/tmp') if 'pytest' in x], os.listdir('/proc'), os.getuid() == 0]\n"
        "def g():\n"
        "    try: socket.create_connection(('127.0.0.1', 9), timeout=0.2)\n"
        "    except OSError as error: return error.errno\n"
        "def h(number):\n"
        "    import ctypes\n"
        "    libc = ctypes.CDLL(None, use_errno=True)\n"
        "    return [libc.unshare(0x10000000), ctypes.get_errno(), libc.ptrace(0, 0, 0, 0), ctypes.get_errno()]\n"
        "def w():\n"
        "    open('/tmp/x', 'w').write('x')\n"
        "    try: open('/usr/x', 'w')\n"
        "    except OSError as error: return error.errno\n"
    )
    tests = [
        CodeTest(function="f", args=(str(tmp_path),), expected=[False, [], [], False]),
        CodeTest(function="g", expected=101),  # the network is unreachable
        CodeTest(function="h", args=(0,), expected=[-1, 1, -1, 1]),  # not permitted
        CodeTest(function="w", expected=30),  # a file system that can only be read
    ]
    try:
        score = run_sandboxed(look, tests, isolation="sandbox")
    except InputError as error:
        pytest.skip(str(error))
    assert score.value == 1.0, score


# ---------------------------------------------------------------------- what is right
PROGRAM = """
import collections, dataclasses, functools, heapq, itertools, json, math, re, statistics, typing

@dataclasses.dataclass
class Point:
    x: int
    y: int

@functools.lru_cache
def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)

def moved(point, by): return dataclasses.asdict(Point(point[0] + by, point[1] + by))
def halves(n): return n / 2, math.sqrt(n)
def counted(text): return dict(collections.Counter(text))
def nothing(): print('words that nobody asked for')

if __name__ == "__main__":
    for line in map(str.strip, open(0)):
        print(fib(int(line)), ' ')
"""
GOOD = [
    CodeTest(function="fib", args=(50,), expected=12586269025),
    CodeTest(stdin="10\n20\n", expected="55\n6765"),
    CodeTest(function="moved", args=((1, 2), 3), expected={"x": 4, "y": 5}),
    CodeTest(function="halves", args=(2,), expected=(1, 1.41421356237)),
    CodeTest(function="counted", args=("aab",), expected={"a": 2, "b": 1}),
    CodeTest(function="nothing", expected=None),
    CodeTest(stdin="", expected=""),
]


def test_a_good_program_passes(level):
    score = run_sandboxed(PROGRAM, GOOD, isolation=level)
    assert score.value == 1.0 and score.steps == (1.0,) * len(GOOD), score


def test_a_wrong_answer_is_named_and_the_others_keep_their_steps(level):
    tests = [*GOOD[:2], CodeTest(function="fib", args=(3,), expected=3), CodeTest(stdin="1", expected="2")]  # fmt: skip
    score = run_sandboxed(PROGRAM, tests, isolation=level)
    assert score.steps == (1.0, 1.0, 0.0, 0.0) and score.value == 0.0
    assert score.reason == "test 3 of 4: returned 2, expected 3"


@pytest.mark.parametrize(
    ("code", "verdict", "reason"),
    [
        ("def f(n: return", "undecided", "SyntaxError"),
        ("eval('(')", "wrong", "SyntaxError"),
        ("x = " + "(" * 5000, "undecided", "Error"),
        ("x = 1", "wrong", "AttributeError: module '__main__' has no attribute 'f'"),
        ("1 / 0", "wrong", "ZeroDivisionError: division by zero"),
        ("import sys\nsys.exit(3)", "wrong", "exit status 3"),
        ("import numpy", "wrong", "ModuleNotFoundError: No module named 'numpy'"),
        ("import os\nos.kill(os.getpid(), 11)", "wrong", "ended by signal 11"),
        ("while True: pass", "wrong", "the time is over"),
        ("print('x' * 10**6)", "wrong", "printed or returned too much"),
        ("x = bytearray(1 << 30)", "wrong", "MemoryError"),
        ("def f(n): return {n}", "wrong", "TypeError: Object of type set is not JSON"),
    ],
)
def test_a_reason_says_how_a_program_failed(code, verdict, reason):
    score = run_sandboxed(code, TESTS, isolation="process", limits=SHORT)
    assert score.verdict == verdict and reason in score.reason


@pytest.mark.parametrize(
    ("got", "expected", "same"),
    [
        (1, 1.0, True), (True, 1, False), (0, False, False), (None, None, True), ("1", 1, False),
        (0.1 + 0.2, 0.3, True), (0.3000001, 0.3, False), (float("nan"), float("nan"), False), (10**400, 1.0, False),
        (2**60, 2**60 + 1, False), ([1, [2]], [1, [2.0]], True), ([1], [1, 2], False), ({"a": 1}, {"a": 1.0}, True),
        ({"a": 1}, {"b": 1}, False), (float("inf"), float("inf"), True),
    ],
)  # fmt: skip
def test_values_are_equal_where_JSON_has_them_so(got, expected, same):
    assert sandbox._equal(got, expected) is same


# ---------------------------------------------------------------------- what is refused
def test_code_rewards_are_off_until_a_level_is_chosen():
    with pytest.raises(InputError, match="code rewards are off.*Choose isolation='sandbox'"):
        run_sandboxed("", TESTS, isolation="none")
    with pytest.raises(InputError, match="code rewards are off"):
        CodeTask([("write f", TESTS)])
    with pytest.raises(Exception, match="isolation must be one of|violates type hint"):
        run_sandboxed("", TESTS, isolation="docker")


def test_a_level_that_is_not_granted_is_refused_and_not_replaced(monkeypatch, tmp_path):
    child = tmp_path / "child.py"
    child.write_text("""print('{"refused": "namespaces (unshare): Operation not permitted"}')""")
    monkeypatch.setattr(sandbox, "CHILD", child)
    message = r"'sandbox' is not granted on this machine: namespaces \(unshare\): Operation not permitted\. No weaker"
    with pytest.raises(InputError, match=message):
        run_sandboxed("def f(n): return 7 * n", TESTS, isolation="sandbox")
    child.write_text("raise OSError('no such thing')")
    with pytest.raises(InputError, match="(?s)could not be started: .*no such thing$"):
        run_sandboxed("def f(n): return 7 * n", TESTS, isolation="process")


@pytest.mark.parametrize("code", ["import os; os.kill(os.getpid(), 9)", "import time; time.sleep(7654.321)"])  # fmt: skip
def test_a_supervisor_that_ends_or_hangs_leaves_nothing_answered(monkeypatch, tmp_path, code):
    """What a program of the same user may do to it where no namespace stands between them."""
    child = tmp_path / "child.py"
    child.write_text(code)
    monkeypatch.setattr(sandbox, "CHILD", child)
    monkeypatch.setattr(sandbox, "GRACE", 0.3)
    score = run_sandboxed("", TESTS, isolation="process", limits=Limits(seconds=0.2))
    assert score.steps == (0.0, 0.0) and score.reason == "test 1 of 2: not answered"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: run_sandboxed("", []), "got no test"),
        (lambda: Limits(seconds=0.0), r"seconds must be in \(0, inf\), got 0"),
        (lambda: Limits(processes=0), "processes must be at least 1, got 0"),
        (lambda: CodeTest(function="f", expected={1}), "must be numbers, texts, lists"),
        (lambda: CodeTest(expected=3), "must be a text"),
        (lambda: CodeTest(expected="", args=(1,)), "must be empty"),
        (lambda: CodeTest(expected="", function="f", stdin="1"), "a call has its args"),
    ],
)
def test_tests_and_limits_that_mean_nothing_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


# ---------------------------------------------------------------------- as a task
def test_a_task_judges_the_code_of_an_answer(level):
    problems = [("Write f(n) = 7 n.", TESTS), ("Print the sum of two numbers.", [CodeTest(stdin="1 2", expected="3")])]  # fmt: skip
    solutions = ["def f(n): return 7 * n", "print(sum(map(int, input().split())))"]
    task = CodeTask(problems, isolation=level, solutions=solutions)
    assert task.size() == 2 and "n.def" not in task.item(0).prompt
    for item in task.items():
        assert task.verify(item, task.solve(item)).value == 1.0
        fenced = f"I think:\n```python\nno\n```\nBetter:\n```python\n{item.answer}\n```\nDone."
        assert task.verify(item, fenced).value == 1.0
        assert task.verify(item, "pass").value == 0.0
    with pytest.raises(InputError, match="has no solution"):
        bare = CodeTask(problems, isolation=level)
        bare.solve(bare.item(0))
    with pytest.raises(InputError, match="2 problems and 1 solutions"):
        CodeTask(problems, isolation=level, solutions=solutions[:1])
    with pytest.raises(InputError, match="there is no problem"):
        CodeTask([], isolation=level)
