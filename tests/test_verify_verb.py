"""dodona verify: a loss from a file or a module, the verdict as a table or JSON, the exit code by its defects."""

import json
from functools import partial

import pytest

from dodona.checks import verify_loss as judge
from dodona.cli import main

GOOD = """
import torch

def helper(x):
    return x

def my_loss(logp, advantages, mask):
    if advantages.requires_grad:
        raise TypeError("advantages must be constants")
    return torch.where(mask, -logp * advantages, 0.0).sum(1).mean()
"""
OTHERS = """
import torch
from torch import nn

def wrong_sign(x, y, z):
    return torch.where(z, x * y.detach(), 0.0).sum(1).mean()

class Loss(nn.Module):
    def forward(self, new_log_probs, adv, action_mask):
        return torch.where(action_mask, -new_log_probs * adv.detach(), 0.0).sum(1).mean()

class NeedsMore(nn.Module):
    def __init__(self, clip):
        super().__init__()
"""
TWO = """
def one(logp, mask): return (logp * mask).sum()
def two(logp, mask): return (logp * mask).sum()
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    for name, text in (("good", GOOD), ("others", OTHERS), ("two", TWO), ("empty", "x = 1\n")):
        (tmp_path / f"{name}.py").write_text(text)
    (tmp_path / "odd.py").write_text("def odd(foo): return foo\ndef odder(bar): return bar\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    # groups of two say the same of these losses, in a tenth of the time
    monkeypatch.setattr(judge, "verify", partial(judge.verify, sizes=(2,)))


def test_the_only_loss_of_a_file_is_found_and_judged(mine, capsys):
    assert main(["verify", "good.py"]) == 0
    out = capsys.readouterr().out
    assert "good.py:my_loss" in out and "DEFECT" not in out
    assert "follows the gradient of" in out and "the expected reward, whole answers" in out
    assert "logp = logp, advantages = advantages, mask = mask" in out


def test_a_defect_is_marked_and_makes_the_exit_code_one(mine, capsys):
    assert main(["verify", "others.py:wrong_sign", "--takes", "logp,advantages,mask"]) == 1
    out = " ".join(capsys.readouterr().out.split())
    assert "DEFECT │ it descends" in out and "minus the expected reward" in out


def test_json_is_for_machines_and_a_torch_module_is_called_by_its_forward(mine, capsys):
    assert main(["verify", "others.py:Loss", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["loss"] == "others.py:Loss" and found["exact"] and found["defects"] == []
    assert found["takes"] == {"new_log_probs": "logp", "adv": "advantages", "action_mask": "mask"}
    assert found["cosine"] == pytest.approx(1.0)


def test_a_function_of_a_package_is_found_too(mine, capsys):
    assert main(["verify", "dodona.objectives:reinforce_loss", "--takes", "logp,advantages,mask"]) == 0  # fmt: skip
    assert "the mean over all tokens of the batch" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words, message",
    [
        (["none.py"], "there is no file none.py. Expected FILE.py, FILE.py:function or module:function"),
        (["two.py"], "two.py has several losses: one, two. Name one: dodona verify two.py:one"),
        (["empty.py"], "no function of empty.py reads as a loss of log-probabilities. It defines no function."),
        (["odd.py"], "It defines odd, odder. Name one, as odd.py:FUNCTION"),
        (["others.py"], "what is 'x' of wrong_sign? Its name says nothing"),
        (["good.py:my_los"], "Did you mean 'my_loss'?"),
        (["good.py:helper"], "what is 'x' of helper? Its name says nothing"),
        (["good.py", "--takes", "logp,advantage"], "unknown role 'advantage'. Did you mean 'advantages'?"),
        (["others.py:NeedsMore"], "a class that can not be made without arguments"),
    ],
)  # fmt: skip
def test_wrong_words_are_named(mine, words, message, capsys):
    assert main(["verify", *words]) == 2
    assert message in capsys.readouterr().err


def test_help_says_what_the_exit_codes_mean(capsys):
    with pytest.raises(SystemExit):
        main(["verify", "--help"])
    out = " ".join(capsys.readouterr().out.split())
    assert "0 judged, without a defect; 1 a defect" in out and "The file is executed" in out
