"""The scripts in examples/ run as they stand and say what they promise."""

import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
SAYS = {
    "solve_my_mdp.py": "every value is proven",
    "audit_an_environment.py": "the threshold 8 is out of reach",
    "diagnose_a_learner.py": "truncation as termination: a time limit is taken for an end",
    "verify_my_loss.py": "the wrong side, a sample that has gone too far is not held",
    "verify_trl.py": "TRL",  # a sentence where it is not installed, else a verdict of each loss
    "serve_policy.py": "after the weights changed",
    "certify_my_values.py": "acting greedily on them loses at most",
}


def test_every_example_is_run():
    assert {p.name for p in EXAMPLES.glob("*.py")} == set(SAYS)


@pytest.mark.parametrize("name", SAYS)
def test_an_example_runs_and_is_short(name, capsys):
    path = EXAMPLES / name
    assert len(path.read_text().splitlines()) < 60
    runpy.run_path(str(path), run_name="__main__")
    assert SAYS[name] in capsys.readouterr().out
