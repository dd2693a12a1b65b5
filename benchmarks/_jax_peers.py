"""gymnax and PureJaxRL for benchmarks, in a process that has JAX; absent: None, and the table says "not installed".

    scan = gymnax_scan("CartPole-v1", num_envs=64, hidden=(64, 64), num_steps=512)
    if scan is not None:
        scan()["seconds"]

JAX brings a hundred megabytes and pins of its own, so it lives in an environment of its own, whose Python is named by
DODONA_JAX_PYTHON (else the running one is tried, if it has jax):

    python -m venv jax && jax/bin/pip install jax flax optax distrax gymnasium seaborn
    jax/bin/pip install --no-deps gymnax==0.0.8
    export DODONA_JAX_PYTHON=$PWD/jax/bin/python
    git clone https://github.com/luchris429/purejaxrl && export DODONA_PUREJAXRL=$PWD/purejaxrl

What a call takes includes a hundred microseconds of pipe. The worker ends with the benchmark.
"""

import atexit
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

Call = Callable[[], dict[str, float]]


def gymnax_scan(
    env_id: str, *, num_envs: int, hidden: Sequence[int] = (), num_steps: int
) -> Call | None:
    """num_steps steps of every row in one jitted scan, at random or by a tanh policy: {"seconds", "reward"}."""
    return _prepared("gymnax", env_id=env_id, num_envs=num_envs, hidden=list(hidden), num_steps=num_steps)  # fmt: skip


def purejaxrl(
    env_id: str = "CartPole-v1", *, num_envs: int, num_steps: int = 128, num_env_steps: int
) -> Call | None:
    """A whole PPO training, compiled before: {"seconds", "compile_s", "last_return"}; also None without the clone."""
    if not os.environ.get("DODONA_PUREJAXRL"):
        return None
    return _prepared("purejaxrl", env_id=env_id, num_envs=num_envs, num_steps=num_steps, num_env_steps=num_env_steps)  # fmt: skip


def _prepared(kind: str, **options: Any) -> Call | None:
    worker = _worker()
    if worker is None:
        return None
    answer = _asked(worker, {"prepare": kind, **options})
    if "missing" in answer:
        print(f"{kind} is left out: {answer['missing']}", file=sys.stderr)
        return None
    return lambda: _asked(worker, {"play": answer["number"]})


def _asked(worker: subprocess.Popen, question: dict[str, Any]) -> dict[str, Any]:
    assert worker.stdin is not None and worker.stdout is not None
    worker.stdin.write(json.dumps(question) + "\n")
    worker.stdin.flush()
    line = worker.stdout.readline()
    if not line:
        raise RuntimeError(f"the JAX worker ended at {question}; its message stands above.")
    return json.loads(line)


@cache
def _worker() -> subprocess.Popen | None:
    here = find_spec("jax")
    found = here is not None and here.origin is not None  # a folder named jax is none
    python = os.environ.get("DODONA_JAX_PYTHON") or (sys.executable if found else None)
    if python is None:
        print("JAX is not here: set DODONA_JAX_PYTHON (benchmarks/_jax_peers.py says how).", file=sys.stderr)  # fmt: skip
        return None
    script = Path(__file__).with_name("_jax_worker.py")
    worker = subprocess.Popen(
        [python, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    atexit.register(worker.kill)
    return worker
