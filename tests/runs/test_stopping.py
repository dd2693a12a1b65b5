"""Ctrl-C at the worst moment: a run continues as if nothing had happened, from a whole update."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass

import pytest

from dodona.core.protocols import Event
from dodona.runs import Interrupted, RunFolder, drive, load_checkpoint
from dodona.runs.progress import STOPPING, Progress


@dataclass(frozen=True, kw_only=True)
class Config:
    seed: int = 0


class Pair:
    """Two numbers that belong together; ``cut`` is called when only one has moved on."""

    def __init__(self, num_steps=12, cut_at=None, cut=lambda: None):
        self.num_steps, self.cut_at, self.cut = num_steps, cut_at, cut
        self.step, self.x = 0, 1

    def __iter__(self):
        while self.step < self.num_steps:
            self.x = (5 * self.x + 3) % 1009
            if self.step + 1 == self.cut_at:
                self.cut()
            self.step += 1
            yield Event(kind="update", step=self.step, num_samples=self.step, metrics={"x": self.x})

    def state_dict(self):
        return {"step": self.step, "x": self.x}

    def load_state_dict(self, state):
        self.step, self.x = state["step"], state["x"]


@pytest.fixture(autouse=True)
def _default_handler():
    """Ctrl-C as a terminal has it, also where the suite runs in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def folder(tmp_path):
    return RunFolder.create("toy", Config(), out=tmp_path, command="dodona run toy")


def lines(run):
    return [
        {k: v for k, v in json.loads(line).items() if k != "seconds"}
        for line in (run.path / "events.jsonl").read_text().splitlines()
    ]


def press():
    signal.raise_signal(signal.SIGINT)


def press_twice():
    press()
    press()


def raises():
    raise KeyboardInterrupt


@pytest.fixture
def whole(tmp_path):
    run = folder(tmp_path)
    drive("toy", Pair(), run)
    return lines(run)


@pytest.mark.parametrize("cut", [press, press_twice, raises])
@pytest.mark.parametrize("cut_at", [1, 7, 12])
@pytest.mark.parametrize("checkpoint_seconds", [0.0, 30.0])
def test_a_cut_in_the_middle_of_an_update_leaves_no_trace(
    tmp_path, whole, cut, cut_at, checkpoint_seconds
):
    run = folder(tmp_path)
    with pytest.raises(Interrupted, match="dodona resume"):
        drive("toy", Pair(cut_at=cut_at, cut=cut), run, checkpoint_seconds=checkpoint_seconds)
    drive("toy", Pair(), run)
    assert lines(run) == whole


def test_the_first_ctrl_c_finishes_the_update_and_saves_it(tmp_path):
    run, heard = folder(tmp_path), []
    with pytest.raises(Interrupted):
        drive("toy", Pair(cut_at=7, cut=press), run, stopping=lambda: heard.append(1))
    saved = load_checkpoint(run)
    assert heard == [1]
    assert saved["trainer"]["step"] == 7 and saved["events"] == 8


@pytest.mark.parametrize("cut", [press_twice, raises])
def test_a_stop_inside_an_update_keeps_the_last_good_checkpoint(tmp_path, cut):
    run = folder(tmp_path)
    with pytest.raises(Interrupted):
        drive("toy", Pair(cut_at=7, cut=cut), run, checkpoint_seconds=0.0)
    saved = load_checkpoint(run)
    assert saved["trainer"]["step"] == 6 and saved["events"] == 7


def test_a_run_stopped_after_every_update_is_the_run_that_never_stopped(tmp_path, whole):
    run = folder(tmp_path)
    for _ in range(12):
        with pytest.raises(Interrupted):
            drive("toy", Pair(), run, deadline=-1.0)
    drive("toy", Pair(), run, deadline=-1.0)  # nothing is left but the end event
    assert lines(run) == whole


@pytest.mark.parametrize("cut", [lambda: None, press, press_twice, raises])
def test_the_handler_before_comes_back(tmp_path, cut):
    def mine(number, frame):
        raise AssertionError("not while a run is driven")

    signal.signal(signal.SIGINT, mine)
    try:
        drive("toy", Pair(cut_at=7, cut=cut), folder(tmp_path))
    except Interrupted:
        pass
    assert signal.getsignal(signal.SIGINT) is mine


def test_an_ignored_ctrl_c_stays_ignored(tmp_path, whole):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    run = folder(tmp_path)
    drive("toy", Pair(cut_at=7, cut=press_twice), run)
    assert lines(run) == whole


def test_a_run_outside_the_main_thread_leaves_signals_alone(tmp_path, whole):
    run, seen = folder(tmp_path), []
    trainer = Pair(cut_at=7, cut=lambda: seen.append(signal.getsignal(signal.SIGINT)))
    thread = threading.Thread(target=drive, args=("toy", trainer, run))
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler] and lines(run) == whole


def test_progress_says_what_a_second_ctrl_c_does(capsys):
    with Progress() as progress:
        progress.stopping()
    assert STOPPING in capsys.readouterr().err


def test_quiet_progress_stays_quiet(capsys):
    with Progress(quiet=True) as progress:
        progress.stopping()
    assert capsys.readouterr().err == ""


def test_a_planner_stopped_by_sigint_again_and_again_reaches_the_same_events(tmp_path):
    start = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from dodona.cli import main; sys.exit(main())"
    )
    model = ("mdp=maze", "height=60", "width=60", "planners=value iteration")
    settings = [word for item in model for word in ("--set", item)]

    def dodona(*words):
        return subprocess.Popen(
            [sys.executable, "-c", start, *words],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    dodona("run", "dynamic-programming", *settings, "--out", str(tmp_path / "a")).communicate()
    process = dodona("run", "dynamic-programming", *settings, "--out", str(tmp_path / "b"))
    num_lines, codes = 0, []
    for _ in range(2):
        until = time.monotonic() + 60
        while time.monotonic() < until and process.poll() is None:
            found = list((tmp_path / "b").glob("*/*/events.jsonl"))
            if found and found[0].read_bytes().count(b"\n") > num_lines + 5:
                break
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGINT)
        told = process.communicate()[1]
        codes.append(process.returncode)
        assert STOPPING in told and "dodona resume" in told
        num_lines = found[0].read_bytes().count(b"\n")
        process = dodona("resume", "latest", "--out", str(tmp_path / "b"))
    process.communicate()
    assert codes == [130, 130] and process.returncode == 0
    whole, stopped = (RunFolder.open("latest", out=tmp_path / x) for x in "ab")
    assert lines(whole) == lines(stopped)
