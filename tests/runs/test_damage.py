"""What can go wrong with a run's folder, and what is said then: two writers, lost files, full disks."""

import errno
import json
import os
import subprocess
import sys
import time
import types
from dataclasses import dataclass

import plotly.graph_objects as go
import pytest

from dodona.cli import main
from dodona.core.protocols import Event
from dodona.errors import CheckpointError, DataError, InputError
from dodona.runs import (
    RunFolder,
    drive,
    load_checkpoint,
    lock,
    save_checkpoint,
    write_comparison,
    write_report,
)
from dodona.runs.folder import write_atomically
from dodona.runs.report import figures_html

CSV = "state,action,next_state,probability,reward\na,go,b,1,1\na,stay,a,1,0\nb,go,a,1,0\nb,stay,b,1,2\n"


@dataclass(frozen=True, kw_only=True)
class Config:
    mdp: str = "demo"
    files: tuple[str, ...] = ()
    seed: int = 0


class Count:
    def __init__(self, num_steps=4):
        self.num_steps, self.step = num_steps, 0

    def __iter__(self):
        while self.step < self.num_steps:
            self.step += 1
            yield Event(kind="update", step=self.step, num_samples=self.step, metrics={})

    def state_dict(self):
        return {"step": self.step}

    def load_state_dict(self, state):
        self.step = state["step"]


def folder(tmp_path, **fields):
    return RunFolder.create("toy", Config(**fields), out=tmp_path, command="dodona run toy")


def lines(run):
    return [
        {k: v for k, v in json.loads(line).items() if k != "seconds"}
        for line in (run.path / "events.jsonl").read_text().splitlines()
    ]


def full_disk(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def solve_file(file, out):
    words = [
        "run",
        "dynamic-programming",
        "--mdp",
        str(file),
        "--gamma",
        "0.9",
        "--planners",
        "value iteration",
    ]
    return main([*words, "--out", str(out)])


# ---------------------------------------------------------------------- two writers
def test_a_second_process_is_turned_away_until_the_first_has_ended(tmp_path):
    run = folder(tmp_path)
    hold = (
        "import fcntl, os, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX); "
        "f.write(str(os.getpid())); f.flush(); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(run.path / lock.NAME)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout.readline() == b"held\n"
        message = rf"is being written by another process \(pid {other.pid}\).*dodona resume"
        with pytest.raises(CheckpointError, match=message):
            drive("toy", Count(), run)
        assert not (run.path / "events.jsonl").exists()
        other.kill()
    assert len(drive("toy", Count(), run)) == 6


def test_a_run_can_not_be_driven_inside_itself(tmp_path):
    run = folder(tmp_path)

    def again(event):
        with pytest.raises(CheckpointError, match="another call in this process"):
            drive("toy", Count(), run)

    assert len(drive("toy", Count(), run, trackers=[again])) == 6


def test_without_flock_a_run_is_driven_unguarded(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "fcntl", None)
    run = folder(tmp_path)
    assert len(drive("toy", Count(), run)) == 6
    assert not (run.path / lock.NAME).exists()


def test_a_file_system_without_locks_is_no_reason_not_to_run(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(lock.fcntl, "flock", no_locks)
    assert len(drive("toy", Count(), folder(tmp_path))) == 6


# ---------------------------------------------------------------------- lost and damaged files
def test_a_run_without_its_events_can_not_be_resumed(tmp_path):
    run = folder(tmp_path)
    drive("toy", Count(), run)
    (run.path / "events.jsonl").unlink()
    with pytest.raises(CheckpointError, match=r"events.jsonl is gone or empty.*dodona run"):
        drive("toy", Count(), run)


def test_events_shorter_than_the_checkpoint_are_named(tmp_path):
    run = folder(tmp_path)
    drive("toy", Count(), run)
    os.truncate(run.path / "events.jsonl", 100)
    with pytest.raises(CheckpointError, match=r"shorter than its checkpoint says \(100 < "):
        drive("toy", Count(), run)


def test_lost_checkpoints_are_no_fresh_start(tmp_path):
    run = folder(tmp_path)
    drive("toy", Count(), run)
    before = (run.path / "events.jsonl").read_bytes()
    for path in (run.path / "checkpoints").iterdir():
        path.rename(tmp_path / path.name)
    with pytest.raises(CheckpointError, match=r"holds events and there is no checkpoint"):
        drive("toy", Count(), run)
    assert (run.path / "events.jsonl").read_bytes() == before


def test_a_run_killed_before_its_first_checkpoint_starts_again(tmp_path):
    run = folder(tmp_path)
    (run.path / "events.jsonl").write_bytes(b'{"kind":"start"}\n')
    assert len(drive("toy", Count(), run)) == 6


@pytest.mark.parametrize(
    "text, message",
    [
        ("{}", "config.json is damaged: it has no 'recipe'"),
        ("[]", "config.json is damaged: it has no 'recipe'"),
        ('{"recipe": "dynamic-programming"}', "config.json is damaged: it has no 'config'"),
        ('{"recipe": ', "config.json is damaged: Expecting value"),
    ],
)
def test_a_damaged_configuration_is_named(tmp_path, capsys, text, message):
    run = folder(tmp_path)
    (run.path / "config.json").write_text(text)
    assert main(["resume", str(run.path)]) == 2
    assert message in capsys.readouterr().err


def test_a_report_of_an_unfinished_run_says_how_to_finish_it(tmp_path):
    run, other = folder(tmp_path), folder(tmp_path)
    message = rf"is not finished.*dodona resume {run.path}"
    with pytest.raises(DataError, match=message):
        write_report(run, types.SimpleNamespace(__doc__="A claim."))
    with pytest.raises(DataError, match=message):
        write_comparison(run, other)


def test_a_damaged_result_is_named(tmp_path):
    run = folder(tmp_path)
    run.write("result.json", {"rows": []})
    with pytest.raises(DataError, match=r"result.json is damaged: it has no seconds, seed"):
        write_report(run, types.SimpleNamespace(__doc__="A claim."))


@pytest.mark.filterwarnings("default")
def test_a_damaged_checkpoint_is_told_in_a_sentence(tmp_path, capsys):
    (tmp_path / "m.csv").write_text(CSV)
    assert solve_file(tmp_path / "m.csv", tmp_path / "runs") == 0
    run = RunFolder.open("latest", out=tmp_path / "runs")
    newest = max((run.path / "checkpoints").iterdir())
    (newest / "state.json").write_text("{}")
    capsys.readouterr()
    assert main(["resume", str(run.path)]) == 0
    told = capsys.readouterr().err
    assert f"\ndodona: checkpoint {newest.name} is damaged" in told
    assert "Warning" not in told and ".py:" not in told


# ---------------------------------------------------------------------- full disks and leftovers
def test_a_full_disk_leaves_no_half_file(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(InputError, match=r"x.json can not be written: No space left.*Free"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_full_disk_under_the_events_is_a_checkpoint_error(tmp_path, monkeypatch):
    run = folder(tmp_path)
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(CheckpointError, match=r"events.jsonl can not be written: No space left"):
        drive("toy", Count(), run)


def test_an_event_that_does_not_fit_is_a_checkpoint_error_and_leaves_a_good_run(tmp_path):
    resource = pytest.importorskip("resource")  # a limit on the size of files stands for the disk
    whole, run = folder(tmp_path), folder(tmp_path)
    drive("toy", Count(num_steps=40), whole)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2500, limits[1]))
    try:
        with pytest.raises(CheckpointError, match=r"events.jsonl can not be written: File too"):
            drive("toy", Count(num_steps=40), run)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    drive("toy", Count(num_steps=40), run)
    assert lines(run) == lines(whole)


def test_what_a_killed_process_left_is_cleared_by_the_next_checkpoint(tmp_path):
    run = folder(tmp_path)
    left = run.path / "checkpoints" / "step-0000000001.tmp-0badcafe"
    left.mkdir()
    (left / "state.json").write_text("{")
    assert load_checkpoint(run) is None
    kept = save_checkpoint(run, {"n": 1}, step=2)
    assert list((run.path / "checkpoints").iterdir()) == [kept]


def test_a_half_written_artifact_is_none(tmp_path):
    run = folder(tmp_path)
    (run.path / "artifacts" / ".x.npy.7.tmp").write_bytes(b"")
    (run.path / "artifacts" / "x.npy").write_bytes(b"")
    assert list(run.artifacts) == ["x"]


# ---------------------------------------------------------------------- names and inputs
def test_the_latest_of_one_second_is_the_one_made_last(tmp_path):
    made = {}
    for hash_, nanoseconds in (("ffffffff", 1), ("00000000", 3), ("77777777", 2)):
        path = tmp_path / "toy" / f"20240101-000000-{hash_}"
        path.mkdir(parents=True)
        (path / "config.json").write_text("{}")
        second = time.time_ns() // 10**9 * 10**9
        os.utime(path / "config.json", ns=(second, second + nanoseconds * 10**6))
        made[nanoseconds] = path
    assert RunFolder.open("latest", out=tmp_path).path == made[3]


def test_the_latest_of_one_tick_has_the_highest_number(tmp_path):
    stem = "20240101-000000-ffffffff"
    for name in (stem, f"{stem}-2", f"{stem}-10", f"{stem}-9"):
        path = tmp_path / "toy" / name
        path.mkdir(parents=True)
        (path / "config.json").write_text("{}")
        os.utime(path / "config.json", ns=(10**18, 10**18))
    assert RunFolder.open("latest", out=tmp_path).path.name == f"{stem}-10"


def test_a_run_knows_the_files_that_its_configuration_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.csv", "b.csv", "c.csv"):
        (tmp_path / name).write_bytes(b"abc")
    run = folder(tmp_path, mdp="a.csv", files=("b.csv", "absent.csv", str(tmp_path / "c.csv")))
    assert [(x["field"], x["file"]) for x in run.inputs] == [
        ("mdp", "a.csv"), ("files", "b.csv"), ("files", str(tmp_path / "c.csv")),
    ]  # fmt: skip
    # FIPS 180-2, appendix B.1
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert {x["sha256"] for x in run.inputs} == {digest}
    assert run.inputs[0]["path"] == str(tmp_path / "a.csv")
    assert folder(tmp_path).inputs == []


def test_a_changed_input_stops_a_resume(tmp_path, capsys):
    file = tmp_path / "m.csv"
    file.write_text(CSV)
    run = folder(tmp_path, mdp=str(file))
    drive("toy", Count(), run)
    drive("toy", Count(), run)
    file.write_text(CSV.replace("1,2", "1,3"))
    with pytest.raises(CheckpointError, match=r"m.csv, which mdp names, has changed since"):
        drive("toy", Count(), run)
    file.unlink()
    with pytest.raises(CheckpointError, match=r"m.csv, which mdp names, can not be read"):
        drive("toy", Count(), run)


def test_the_command_line_names_a_changed_model_even_where_it_can_not_be_built(tmp_path, capsys):
    file = tmp_path / "m.csv"
    file.write_text(CSV)
    assert solve_file(file, tmp_path / "runs") == 0
    page = next((tmp_path / "runs").glob("*/*/report.html")).read_text()
    assert f"mdp: sha256 of {file}" in page
    file.write_text("no model any more")
    assert main(["resume", "latest", "--out", str(tmp_path / "runs")]) == 2
    assert "has changed since the run began" in capsys.readouterr().err


def test_a_file_name_may_hold_the_sign_between_problem_and_planner(tmp_path):
    file = tmp_path / "left | right.csv"
    file.write_text(CSV)
    assert solve_file(file, tmp_path / "runs") == 0
    run = RunFolder.open("latest", out=tmp_path / "runs")
    assert any("left | right: widest" in r["name"] for r in run.read("result.json")["rows"])


@pytest.mark.parametrize("tol", ["inf", "nan", "-1"])
def test_a_tolerance_must_be_finite(tmp_path, capsys, tol):
    assert (
        main(["run", "dynamic-programming", f"--tol={tol}", "--out", str(tmp_path / "runs")]) == 2
    )
    assert "tol must be > 0 and finite" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_the_name_of_a_figure_can_not_end_its_script():
    page = figures_html({"</script><b>": go.Figure()})
    assert page.count("</script>") == 1 and "<b>" not in page
    assert (
        json.loads(page.partition("Plotly.newPlot(")[2].partition(", f.data")[0]) == "</script><b>"
    )
