"""The command line as a user meets it."""

import json
import subprocess
import sys

import pytest

from dodona.cli import main


def test_the_list_says_what_is_built(capsys):
    assert main(["list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 22
    built = {r["name"]: r["built"] for r in rows}
    assert built["dynamic-programming"] == "full" and built["atss"] == "no"


@pytest.mark.parametrize(
    "words, message",
    [
        (["rum"], "unknown verb 'rum'. Did you mean 'run'"),
        (["run", "dynamic-programing"], "Did you mean 'dynamic-programming'"),
        (
            ["run", "dynamic-programming", "--set", "gama=0.9"],
            "unknown configuration key 'gama'. Did you mean 'gamma'? gamma: discount",
        ),
        (["run", "dynamic-programming", "--tool", "1"], "no option '--tool'. Did you mean 'tol'"),
        (["run", "--preset", "quik"], "no preset 'quik'. Did you mean 'quick'"),
        (["run", "dynamic-programming", "--tol", "0"], "tol must be > 0"),
        (["run", "dynamic-programming", "--gamma", "1"], "gamma must be in [0, 1)"),
        (["check", "atss"], "in the catalog and not built yet"),
        (["check", "bellman"], "Did you mean 'bellman-equation'"),
        (["resume", "nowhere"], "is not a run"),
        (["report", "nowhere"], "is not a run"),
    ],
)
def test_a_mistake_gets_an_answer_to_act_on(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []  # bad input leaves no folder behind


def test_a_run_judges_itself_and_writes_a_report(capsys, tmp_path):
    assert (
        main(
            [
                "run",
                "dynamic-programming",
                "--preset",
                "quick",
                "--out",
                str(tmp_path),
                "--json",
                "--strict",
            ]
        )
        == 0
    )
    result = json.loads(capsys.readouterr().out)
    assert {r["verdict"] for r in result["rows"]} == {"pass"}
    (report,) = tmp_path.glob("*/*/report.html")
    assert main(["report", "latest", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.strip() == str(report)


def test_check_prints_json_for_machines(capsys):
    assert main(["check", "bellman-equation", "--json"]) == 0
    (report,) = json.loads(capsys.readouterr().out)
    assert set(report) == {"method", "checks", "mutants", "seconds"}
    assert all(c["passed"] for c in report["checks"]) and all(
        m["caught"] for m in report["mutants"]
    )


def test_help_and_import_load_no_heavy_package():
    code = (
        "import sys, dodona, dodona.cli\n"
        "try: dodona.cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'numpy', 'numba', 'plotly', 'gymnasium', 'rich'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip().endswith("[]")
