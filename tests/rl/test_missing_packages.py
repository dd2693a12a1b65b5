"""An environment whose package is missing: which one, and the line that installs it."""

import sys

import gymnasium
import pytest

from dodona.errors import InputError, MissingDependencyError
from dodona.rl import make_env


@pytest.mark.parametrize(
    "said, line",
    [
        (
            "Box2D is not installed, you can install it",
            r"it. Run: pip install 'gymnasium\[box2d\]'",
        ),
        ("No module named 'mujoco'", r"'mujoco'. Run: pip install 'gymnasium\[mujoco\]'"),
        (
            "v2 environments have moved to gymnasium-robotics.",
            "robotics. Run: pip install gymnasium-robotics",
        ),
        ("pygame is missing", r"Run: pip install 'gymnasium\[classic-control\]'"),
        ("MuJoCo is not installed, run `pip install mujoco`", "run `pip install mujoco`.$"),
        ("No module named 'elsewhere'", "No module named 'elsewhere'.$"),
    ],
)
@pytest.mark.parametrize("kind", [gymnasium.error.DependencyNotInstalled, ModuleNotFoundError])
def test_the_line_that_installs_it_is_said_once(monkeypatch, said, line, kind):
    def make(*args, **options):
        raise kind(said)

    monkeypatch.setattr(gymnasium, "make", make)
    with pytest.raises(MissingDependencyError, match="'LunarLander-v3' can not be made: .*" + line):
        make_env("LunarLander-v3", 2, seed=0)


def test_atari_is_registered_by_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "ale_py", None)  # as if it were not installed
    with pytest.raises(
        MissingDependencyError, match=r"'ALE/Pong-v5' can not be made.*gymnasium\[atari\]"
    ):
        make_env("ALE/Pong-v5", 1, seed=0)


def test_a_wrong_id_is_no_missing_package():
    with pytest.raises(InputError, match="Did you mean 'LunarLander-v3'"):
        make_env("LunarLandr-v3", 1, seed=0)
