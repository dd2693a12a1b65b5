"""A function of a test file, run by two processes that train together (gloo, a file as their meeting place)."""

import inspect
import subprocess
import sys
from pathlib import Path

import torch
import torch.distributed as dist

OTHER = """
import importlib, os, sys
sys.path[:0] = sys.argv[1:3]
import two_processes
two_processes.joined(getattr(importlib.import_module(sys.argv[3]), sys.argv[4]), 1, sys.argv[5])
os._exit(0)
"""
# a thread of gloo may outlive its group, and C++ aborts an interpreter that ends before it: hence _exit


def in_two_processes(work, tmp_path):
    """What work() returns in the first of two processes; a list of numbers must end alike in both.

    Args: work: a function of a test module, without arguments; dodona.core.distributed.rank tells it apart.
    """
    file, store = Path(inspect.getfile(work)), str(tmp_path / "store")
    places = [str(Path(__file__).parent), str(file.parent)]
    command = [sys.executable, "-c", OTHER, *places, file.stem, work.__name__, store]
    with subprocess.Popen(command) as other:
        found = joined(work, 0, store)
        status = other.wait(timeout=120)
        assert status == 0, status
    return found


def joined(work, rank, store):
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    try:
        found = work()
        for x in found:
            if not isinstance(x, tuple):
                low, high = torch.as_tensor(x).clone(), torch.as_tensor(x).clone()
                dist.all_reduce(low, dist.ReduceOp.MIN)
                dist.all_reduce(high, dist.ReduceOp.MAX)
                torch.testing.assert_close(low, high, rtol=1e-6, atol=1e-9)
        return found
    finally:
        dist.destroy_process_group()
