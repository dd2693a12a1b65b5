"""Trackers repeat the numbers of the events, curve by curve, and say what to install."""

import sys
import types
from dataclasses import dataclass

import pytest

from dodona import cli
from dodona.core.protocols import Event
from dodona.core.trainer import Arms
from dodona.errors import ConfigError, MissingDependencyError
from dodona.runs import RunFolder, drive, tracking
from dodona.runs.trackers import require_tracker


@dataclass(frozen=True, kw_only=True)
class Config:
    lr: float = 0.5
    seed: int = 0


class Count:
    """Three updates of ten samples, each followed by an evaluation."""

    def __init__(self, seed=0):
        self.seed, self.step = seed, 0

    def __iter__(self):
        while self.step < 3:
            self.step += 1
            n, loss = 10 * self.step, float("nan") if self.step == 2 else 1.0 / self.step
            numbers = {"loss/x": loss, "lr": 0.5}
            yield Event(kind="update", step=self.step, num_samples=n, metrics=numbers)
            yield Event(
                kind="evaluation",
                step=self.step,
                num_samples=n,
                metrics={"eval/return": n + self.seed},
            )

    def state_dict(self):
        return {"step": self.step}

    def load_state_dict(self, state):
        self.step = state["step"]


def two_arms():
    return Arms({"a, b": Count, "c": Count}, seeds=(0, 1))


class FakeRun:
    def __init__(self, settings):
        self.settings, self.logged, self.finished = settings, [], 0

    def log(self, numbers, step):
        assert not self.finished
        self.logged.append((step, numbers))

    def finish(self):
        self.finished += 1


@pytest.fixture
def wandb(monkeypatch):
    """wandb with nothing behind it; one run at a time, as the real one."""
    module = types.ModuleType("wandb")
    module.runs = []

    def init(**settings):
        assert all(run.finished == 1 for run in module.runs), "two runs at once"
        module.runs.append(FakeRun(settings))
        return module.runs[-1]

    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def test_wandb_gets_a_run_per_arm_and_seed_in_the_group_of_the_folder(tmp_path, wandb, monkeypatch):
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    run = RunFolder.create("toy", Config(), out=tmp_path)
    with tracking("wandb", run) as track:
        drive("toy", two_arms(), run, trackers=[track])
    names = [f"{run.path.name}/{x}" for x in ("a-b/seed-0", "a-b/seed-1", "c/seed-0", "c/seed-1")]
    assert [r.settings["name"] for r in wandb.runs] == names
    assert {r.settings["group"] for r in wandb.runs} == {run.path.name}
    assert (
        len({r.settings["id"] for r in wandb.runs}) == 4 and "/" not in wandb.runs[0].settings["id"]
    )
    assert wandb.runs[0].settings["config"] == {
        "lr": 0.5,
        "seed": 0,
        "recipe": "toy",
        "place": "a-b/seed-0",
    }
    assert (
        wandb.runs[0].settings["project"] == "dodona"
        and wandb.runs[0].settings["resume"] == "allow"
    )
    assert [r.finished for r in wandb.runs] == [1, 1, 1, 1]
    assert wandb.runs[1].logged == [
        (10, {"loss/x": 1.0, "lr": 0.5}), (10, {"eval/return": 11.0}),
        (20, {"lr": 0.5}), (20, {"eval/return": 21.0}),  # NaN is left out
        (30, {"loss/x": pytest.approx(1 / 3), "lr": 0.5}), (30, {"eval/return": 31.0}),
    ]  # fmt: skip


def test_the_project_is_the_environments_own(tmp_path, wandb, monkeypatch):
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    run = RunFolder.create("toy", Config(), out=tmp_path)
    with tracking("wandb", run) as track:
        drive("toy", Count(), run, trackers=[track])
    assert [r.settings["project"] for r in wandb.runs] == ["mine"]
    assert wandb.runs[0].settings["name"].endswith("/run")


def test_what_is_open_is_closed_when_the_run_breaks(tmp_path, wandb):
    run = RunFolder.create("toy", Config(), out=tmp_path)
    with pytest.raises(ZeroDivisionError), tracking("wandb", run) as track:
        track(Event(kind="update", step=1, num_samples=1, metrics={"x": 1.0}))
        raise ZeroDivisionError
    assert wandb.runs[0].finished == 1


class FakeWriter:
    made: list = []

    def __init__(self, folder, purge_step=None):
        self.folder, self.purge_step, self.scalars, self.closed = folder, purge_step, [], False
        FakeWriter.made.append(self)

    def add_scalar(self, name, value, step):
        self.scalars.append((name, value, step))

    def flush(self):
        pass

    def close(self):
        self.closed = True


def test_a_resumed_run_voids_what_will_be_written_again(tmp_path, monkeypatch):
    board = types.ModuleType("torch.utils.tensorboard")
    board.SummaryWriter = FakeWriter
    monkeypatch.setattr(FakeWriter, "made", [])
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", board)
    run = RunFolder.create("toy", Config(), out=tmp_path)
    for first in (1, 2):
        with tracking("tensorboard", run) as track:
            track(Event(kind="update", step=first, num_samples=10 * first, metrics={"x": 1.0}))
        (run.path / "tensorboard" / "run").mkdir(parents=True, exist_ok=True)
    assert [w.purge_step for w in FakeWriter.made] == [None, 20]
    assert all(w.closed for w in FakeWriter.made)


def test_tensorboards_files_hold_the_events(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = RunFolder.create("toy", Config(), out=tmp_path)
    with tracking("tensorboard", run) as track:
        drive("toy", two_arms(), run, trackers=[track])
    places = sorted(
        p.parent.relative_to(run.path / "tensorboard").as_posix()
        for p in run.path.glob("tensorboard/**/events*")
    )
    assert places == ["a-b/seed-0", "a-b/seed-1", "c/seed-0", "c/seed-1"]
    read = EventAccumulator(str(run.path / "tensorboard" / "c" / "seed-1")).Reload()
    assert [(x.step, x.value) for x in read.Scalars("eval/return")] == [
        (10, 11.0),
        (20, 21.0),
        (30, 31.0),
    ]
    assert [x.step for x in read.Scalars("loss/x")] == [10, 30]
    assert sorted(read.Tags()["scalars"]) == ["eval/return", "loss/x", "lr"]


@pytest.mark.parametrize(
    "name, module", [("tensorboard", "torch.utils.tensorboard"), ("wandb", "wandb")]
)
def test_a_package_that_is_missing_is_named_with_its_extra(monkeypatch, name, module):
    monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
    with pytest.raises(
        MissingDependencyError, match=rf"tracker '{name}' needs .* pip install 'dodona\[track\]'"
    ):
        require_tracker(name)


def test_an_unknown_tracker_names_the_nearest(tmp_path):
    with pytest.raises(
        ConfigError, match="unknown tracker 'tensorbord'. Did you mean 'tensorboard'"
    ):
        require_tracker("tensorbord")


def test_the_command_line_asks_before_anything_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert (
        cli.main(
            [
                "run",
                "dynamic-programming",
                "--preset",
                "quick",
                "--tracker",
                "wandb",
                "--out",
                str(tmp_path),
            ]
        )
        == 2
    )
    assert "pip install 'dodona[track]'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_mirrors_a_run(tmp_path, wandb):
    words = [
        "run",
        "dynamic-programming",
        "--preset",
        "quick",
        "--tracker",
        "wandb",
        "--out",
        str(tmp_path),
    ]
    assert cli.main(words) == 0
    assert wandb.runs and all(r.finished == 1 and r.logged for r in wandb.runs)
