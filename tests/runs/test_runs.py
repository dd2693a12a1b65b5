"""The life of a run: configuration, checkpoints, exact resume, torn files, guards, report."""

import json
import os
import signal
import subprocess
import sys
import time
import types
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pytest

from dodona.core.protocols import Event, Row
from dodona.core.trainer import Arms, Stages
from dodona.errors import CheckpointError, ConfigError, DataError, InputError, NonFiniteError
from dodona.runs import (
    Interrupted,
    RunFolder,
    drive,
    load_checkpoint,
    make_config,
    read_events,
    save_checkpoint,
    write_report,
)


@dataclass(frozen=True, kw_only=True)
class Config:
    lr: float = 0.1
    """step size"""
    kind: Literal["a", "b"] = "a"
    """which one"""
    sizes: tuple[int, ...] = (1, 2)
    """layer sizes"""
    limit: int | None = None
    """largest count"""
    seed: int = 0
    """seed"""


class Walk:
    """A random walk whose state is its position and its stream."""

    def __init__(self, num_steps=20, seed=0, stop_at=None, broken_from=None):
        self.rng = np.random.default_rng(seed)
        self.num_steps, self.stop_at, self.broken_from = num_steps, stop_at, broken_from
        self.step, self.x = 0, np.zeros(3)

    def __iter__(self):
        while self.step < self.num_steps:
            self.step += 1
            self.x = self.x + self.rng.normal(size=3)
            loss = (
                float("nan") if self.broken_from and self.step >= self.broken_from else self.x.sum()
            )
            yield Event(
                kind="update", step=self.step, num_samples=self.step, metrics={"loss": loss}
            )
            if self.step == self.stop_at:
                raise KeyboardInterrupt

    def state_dict(self):
        return {"rng": self.rng.bit_generator.state, "step": self.step, "x": self.x}

    def load_state_dict(self, state):
        self.rng.bit_generator.state = state["rng"]
        self.step, self.x = state["step"], state["x"]


def folder(tmp_path):
    return RunFolder.create("toy", Config(), out=tmp_path, command="dodona run toy")


def lines(run):
    return [
        {k: v for k, v in json.loads(line).items() if k != "seconds"}
        for line in (run.path / "events.jsonl").read_text().splitlines()
    ]


def test_a_config_is_filled_by_preset_file_sets_and_flags(tmp_path):
    file = tmp_path / "c.toml"
    file.write_text('lr = 0.5\nkind = "b"\n')
    config = make_config(
        Config, file=file, sets=["sizes=3,4", "limit=none", "lr=1e-3"], flags={"seed": "7"}
    )
    assert config == Config(lr=1e-3, kind="b", sizes=(3, 4), seed=7)


@pytest.mark.parametrize(
    "item, message",
    [
        ("learning=1", "unknown configuration key 'learning'"),
        ("sead=1", "Did you mean 'seed'"),
        ("kin=a", "Did you mean 'kind'.*which one"),
        ("lr=fast", "lr must be a number, got 'fast'"),
        ("kind=c", "kind must be one of 'a', 'b', got 'c'"),
        ("seed=1.5", "seed must be a whole number"),
        ("lr", "--set needs key=value"),
    ],
)
def test_a_wrong_setting_says_what_fits(item, message):
    with pytest.raises(ConfigError, match=message):
        make_config(Config, sets=[item])


def test_a_run_folder_is_never_reused(tmp_path):
    paths = {folder(tmp_path).path for _ in range(3)}
    assert len(paths) == 3


def test_an_unwritable_output_folder_says_what_to_do(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="can not be written.*--out"):
        RunFolder.create("toy", Config(), out=tmp_path / "file")


def test_a_state_survives_its_checkpoint_bit_for_bit(tmp_path):
    import torch

    run = folder(tmp_path)
    state = {
        "a": np.arange(6, dtype=np.int64).reshape(2, 3),
        "scalar": np.array(2.5),
        "t": torch.tensor([1.5, float("nan")], dtype=torch.bfloat16),
        "number": torch.tensor(3),
        "list": [1, 2.5, "x", None, True, float("inf"), {"deep": np.array([True, False])}],
        "big": 2**127 + 1,
    }
    save_checkpoint(run, state, step=1)
    back = load_checkpoint(run)
    assert np.array_equal(back["a"], state["a"]) and back["a"].dtype == np.int64
    assert back["scalar"].shape == () and back["big"] == 2**127 + 1
    assert back["list"][:6] == state["list"][:6] and back["list"][6]["deep"].dtype == bool
    assert back["number"].shape == () and back["number"].item() == 3
    assert torch.equal(back["t"].view(torch.int16), state["t"].view(torch.int16))


def test_only_the_last_two_checkpoints_stay(tmp_path):
    run = folder(tmp_path)
    for step in range(5):
        save_checkpoint(run, {"step": step}, step=step)
    assert len(list((run.path / "checkpoints").iterdir())) == 2
    assert load_checkpoint(run)["step"] == 4


def test_any_flipped_byte_is_found_and_the_one_before_is_used(tmp_path):
    rng = np.random.default_rng(0)
    for trial in range(30):
        run = folder(tmp_path)
        save_checkpoint(run, {"x": np.arange(50), "n": 1}, step=1)
        newest = save_checkpoint(run, {"x": np.arange(50) + 1, "n": 2}, step=2)
        file = sorted(newest.iterdir())[trial % 3]
        data = bytearray(file.read_bytes())
        data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        file.write_bytes(data)
        with pytest.warns(RuntimeWarning, match="is damaged.*was moved to step-0000000002.corrupt"):
            assert load_checkpoint(run)["n"] == 1


def test_when_all_checkpoints_are_damaged_there_is_no_silent_fresh_start(tmp_path):
    run = folder(tmp_path)
    path = save_checkpoint(run, {"n": 1}, step=1)
    (path / "state.json").write_text("{}")
    with (
        pytest.warns(RuntimeWarning),
        pytest.raises(CheckpointError, match="every checkpoint.*none was deleted"),
    ):
        load_checkpoint(run)
    with pytest.raises(CheckpointError):
        load_checkpoint(run)


@pytest.mark.parametrize("stop_at", [1, 7, 19])
def test_an_interrupted_run_continues_bit_for_bit(tmp_path, stop_at):
    whole, broken = folder(tmp_path), folder(tmp_path)
    drive("toy", Walk(), whole)
    with pytest.raises(Interrupted, match="dodona resume"):
        drive("toy", Walk(stop_at=stop_at), broken)
    drive("toy", Walk(), broken)
    assert lines(whole) == lines(broken)


def test_events_after_the_checkpoint_are_cut_and_made_again(tmp_path):
    whole, broken = folder(tmp_path), folder(tmp_path)
    drive("toy", Walk(), whole)
    with pytest.raises(Interrupted):
        drive("toy", Walk(stop_at=5), broken)
    with open(broken.path / "events.jsonl", "ab") as file:
        file.write(b'{"kind":"update","step":6,"num_sam')  # torn by a crash
    assert len(read_events(broken)) == 6
    drive("toy", Walk(), broken)
    assert lines(whole) == lines(broken)


def test_a_finished_run_can_be_driven_again_without_change(tmp_path):
    run = folder(tmp_path)
    first = drive("toy", Walk(), run)
    assert drive("toy", Walk(), run) == first


def test_a_damaged_line_is_named(tmp_path):
    run = folder(tmp_path)
    drive("toy", Walk(num_steps=3), run)
    path = run.path / "events.jsonl"
    text = path.read_text().splitlines()
    path.write_text("\n".join([text[0], "{broken", *text[2:], ""]))
    with pytest.raises(DataError, match="line 2 is damaged"):
        read_events(run)


def test_three_updates_that_are_not_finite_stop_the_run(tmp_path):
    with pytest.raises(NonFiniteError, match="3 updates in a row.*step 6"):
        drive("toy", Walk(broken_from=4), folder(tmp_path))


def test_arms_and_stages_continue_from_every_point():
    def arms():
        return Arms(
            {"a": lambda seed: Walk(3, seed), "b": lambda seed: Walk(4, seed + 1)}, seeds=(0, 1)
        )

    def stages():
        return Stages(("one", lambda before: Walk(3)), ("two", lambda before: Walk(4, before.step)))

    for build in (arms, stages):
        whole = list(build())
        for cut in range(1, len(whole)):
            first = build()
            for _, _ in zip(range(cut), first, strict=False):
                pass
            second = build()
            second.load_state_dict(first.state_dict())
            assert list(second) == whole[cut:]


def test_artifacts_are_stored_with_their_hash_and_not_in_the_line(tmp_path):
    class Picture(Walk):
        def __iter__(self):
            data = {"artifacts": {"x": np.arange(4), "t.csv": b"a,b\n"}}
            yield Event(kind="update", step=1, num_samples=1, metrics={}, data=data)

    run = folder(tmp_path)
    event = drive("toy", Picture(), run)[1]
    assert np.array_equal(np.load(run.artifacts["x"]), np.arange(4))
    assert run.artifacts["t.csv"].read_bytes() == b"a,b\n"
    assert len(event.data["artifacts"]["x"]["sha256"]) == 64


def test_the_report_is_one_file_that_escapes_what_it_shows(tmp_path):
    import plotly.graph_objects as go

    run = folder(tmp_path)
    drive("toy", Walk(), run)
    rows = [Row(name="<b>x</b>", measured=1.0, expected="1", verdict="pass")]
    run.write("result.json", {"rows": [vars(r) for r in rows], "seconds": 1.0, "seed": 0})
    recipe = types.SimpleNamespace(
        __doc__="A claim.",
        figures=lambda events, artifacts: {"fig": go.Figure().update_layout(title="</script>")},
    )
    text = write_report(run, recipe).read_text()
    assert "&lt;b&gt;x" in text and "A claim." in text
    assert "<script src" not in text and "<link" not in text
    assert text.count("</script>") == 2  # Plotly's and the figure's own: the title closed none


def test_a_killed_run_resumes_to_the_same_answer(tmp_path):
    def dodona(*words):
        return [sys.executable, "-m", "dodona", *words]

    common = [
        "--set",
        "mdp=maze",
        "--set",
        "height=60",
        "--set",
        "width=60",
        "--set",
        "planners=value iteration",
    ]
    subprocess.run(
        dodona("run", "dynamic-programming", *common, "--out", str(tmp_path / "a")),
        check=True,
        capture_output=True,
    )
    process = subprocess.Popen(
        dodona("run", "dynamic-programming", *common, "--out", str(tmp_path / "b")),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = list((tmp_path / "b").glob("*/*/events.jsonl"))
        if found and found[0].read_bytes().count(b"\n") > 5:
            break
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    subprocess.run(
        dodona("resume", "latest", "--out", str(tmp_path / "b")), check=True, capture_output=True
    )
    whole, resumed = (RunFolder.open("latest", out=tmp_path / x) for x in "ab")
    assert lines(whole) == lines(resumed)
    assert (
        whole.artifacts["solution.csv"].read_bytes()
        == resumed.artifacts["solution.csv"].read_bytes()
    )
