"""From a run to its trained policy: which one, whatever the recipe, and what is said where there is none."""

import io
import json
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

import dodona
from dodona import recipes
from dodona.errors import DataError, InputError
from dodona.policies import LSTMPolicy
from dodona.recipes import _clips as clips
from dodona.recipes import actor_critic, dqn, grpo, policy_gradient, ppo, trpo
from dodona.recipes._kept import Kept, file_name
from dodona.rl import evaluate, evaluate_recurrent, make_env
from dodona.rl.trained_policy import TrainedPolicy
from dodona.runs import RunFolder, drive, read_events, write_report

PPO = ppo.Config(
    env="Pendulum-v1", num_seeds=2, num_env_steps=1024, num_envs=4, num_steps=64, minibatches=2, epochs=2,
    num_eval_episodes=4, normalize=True,
)  # fmt: skip
TINY = {
    "ppo": PPO,
    "grpo": grpo.Config(policy="mlp", objective="grpo", num_seeds=1, num_updates=2, num_groups=2, group_size=3, num_eval_episodes=4),
    "policy-gradient": policy_gradient.Config(num_seeds=1, num_updates=2, num_env_steps=512, num_eval_episodes=4),
    "trpo": trpo.Config(
        env="Pendulum-v1", num_seeds=1, num_env_steps=512, num_envs=4, num_steps=64, num_eval_episodes=4, critic_iters=1,
    ),
    "actor-critic": actor_critic.Config(
        env="MountainCarContinuous-v0", num_seeds=1, num_td3_steps=5000, num_eval_episodes=4
    ),
    "dqn": dqn.Config(num_seeds=1, num_env_steps=1500, num_updates=100),
}  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Recipe -> a finished tiny run."""
    out, made = tmp_path_factory.mktemp("runs"), {}
    for name, config in TINY.items():
        recipe = recipes.load(name)
        made[name] = RunFolder.create(name, config, out=out)
        events = drive(name, recipe.build(config), made[name])
        rows = [asdict(row) for row in recipe.judge(events)]
        made[name].write("result.json", {"rows": rows, "seconds": 1.0, "seed": 0})
    return made


@pytest.mark.parametrize("name", TINY)
def test_the_policy_of_every_recipe_of_control_plays_as_it_was_evaluated(runs, name):
    policy = dodona.load_policy(runs[name].path)
    facts, config = policy.facts, TINY[name]
    episodes = 20 if name == "dqn" else 4
    rows = 20 if name == "dqn" else min(50, episodes)
    seed = 1000 * config.seed if name == "dqn" else 10_000 + facts["seed"]
    env = make_env(facts["env"], rows, seed=facts["seed"])
    stats = evaluate(policy, env, num_episodes=episodes, seed=seed, greedy=True)
    assert stats.mean_return == pytest.approx(facts["return"], rel=1e-6)
    kept = [e for e in read_events(runs[name]) if "artifacts" in e.data and e.kind == "evaluation"]
    best = max(e.metrics["eval/return"] for e in kept if e.step == facts["step"])
    assert best == facts["return"]


def test_the_best_last_evaluation_is_taken_unless_something_is_said(runs):
    run = runs["policy-gradient"].path
    last = {}
    for event in read_events(run):
        if event.kind == "evaluation":
            last[event.data["arm"]] = event.metrics["eval/return"]
    assert dodona.load_policy(run).facts["return"] == max(last.values())
    for arm, value in last.items():
        facts = dodona.load_policy(run, arm=arm, seed=0).facts
        assert facts["arm"] == arm and facts["return"] == value
    seeds = [dodona.load_policy(runs["ppo"].path, seed=s).facts["return"] for s in (0, 1)]
    assert dodona.load_policy(runs["ppo"].path).facts["return"] == max(seeds)


def test_a_run_is_found_by_its_id_and_as_the_latest(runs):
    run = runs["ppo"].path
    by_id = dodona.load_policy(run.name, out=run.parents[1])
    latest = dodona.load_policy("latest", out=run.parents[1])
    assert by_id.facts["env"] == "Pendulum-v1" and latest.facts["env"] == "CartPole-v1"
    file = next(run.glob("artifacts/policy-*-1.safetensors"))
    assert dodona.load_policy(file).facts["seed"] == 1
    assert recipes.load_policy(run, seed=1).facts == dodona.load_policy(file).facts


def test_several_tasks_are_not_compared(runs, tmp_path):
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "config.json").write_text("{}")
    for name in ("ppo", "grpo"):
        for file in runs[name].path.glob("artifacts/policy-*"):
            shutil.copy(file, tmp_path / "artifacts")
    with pytest.raises(
        InputError, match="has learnt Pendulum-v1, CartPole-v1, whose returns can not be compared"
    ):
        dodona.load_policy(tmp_path)
    assert dodona.load_policy(tmp_path, arm="grpo").facts["env"] == "CartPole-v1"
    with pytest.raises(InputError, match="has no policy of arm 'grpo' with seed 1"):
        dodona.load_policy(tmp_path, arm="grpo", seed=1)


def test_what_is_not_there_is_said(runs, tmp_path):
    with pytest.raises(DataError, match="nowhere is not a run"):
        dodona.load_policy("nowhere", out=tmp_path)
    with pytest.raises(DataError, match="no run and no policy file"):
        recipes.load_policy(tmp_path / "nowhere")
    run = RunFolder.create("ppo", PPO, out=tmp_path)
    with pytest.raises(DataError, match="holds no trained policy. Recipes that train one"):
        dodona.load_policy(run.path)
    with pytest.raises(InputError, match="has no arm 'Pendulum'. Did you mean 'Pendulum-v1'"):
        dodona.load_policy(runs["ppo"].path, arm="Pendulum")
    with pytest.raises(InputError, match="has no seed 7. Known: 0, 1"):
        dodona.load_policy(runs["ppo"].path, seed=7)


def test_a_damaged_policy_is_named(runs, tmp_path):
    run = shutil.copytree(runs["ppo"].path, tmp_path / "run")
    for file in Path(run).glob("artifacts/policy-*"):
        file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(DataError, match=r"policy-Pendulum-v1-\d.safetensors is damaged"):
        dodona.load_policy(run)


def test_a_run_that_was_stopped_has_the_policy_of_its_last_evaluation(tmp_path):
    run = RunFolder.create("ppo", PPO, out=tmp_path)
    walk = iter(ppo.build(PPO))
    for event in walk:
        if event.kind == "evaluation":
            break
    ((name, content),) = event.data["artifacts"].items()
    (run.path / "artifacts" / name).write_bytes(content)
    assert dodona.load_policy(run.path).facts["step"] == event.step


def test_the_name_costs_nothing_until_it_is_called():
    code = "import sys, dodona; assert callable(dodona.load_policy) and not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# ---------------------------------------------------------------------- clips
def test_the_last_evaluation_brings_one_episode_of_the_same_policy(runs):
    events = read_events(runs["ppo"])
    brought = [e for e in events if "clip" in e.data]
    assert [e.data["seed"] for e in brought] == [0, 1]
    told = brought[0].data["clip"]
    rows = np.load(runs["ppo"].artifacts[told["file"]])
    assert rows.shape == (201, 3) and told["length"] == 200
    policy = dodona.load_policy(runs["ppo"].path, seed=0)
    stats = evaluate(
        policy, make_env("Pendulum-v1", 1, seed=0), num_episodes=1, seed=20_000, greedy=True
    )
    assert told["return"] == pytest.approx(stats.mean_return, rel=1e-6)


@pytest.mark.parametrize("name", TINY)
def test_the_report_holds_the_clip_of_the_best(runs, name):
    recipe, run = recipes.load(name), runs[name]
    figures = recipe.figures(read_events(run), run.artifacts)
    (key,) = [k for k in figures if k.startswith("clip ")]
    assert len(figures[key].frames) > 5 and len(figures[key].to_json()) < 300_000
    title = figures[key].layout.title.text
    assert "one episode" in title and title.count(key.removeprefix("clip ")) == 1
    assert key in write_report(run, recipe).read_text()


def test_a_policy_that_remembers_leaves_a_clip_too():
    policy = TrainedPolicy(LSTMPolicy.for_env(make_env("CartPole-v1", 1, seed=0), memory=4))
    told, _ = clips.record(policy, "CartPole-v1", seed=3, name="x")
    env = make_env("CartPole-v1", 1, seed=0)
    played = evaluate_recurrent(policy, env, num_episodes=1, seed=3, greedy=True)
    assert told["return"] == played.mean_return


def test_a_damaged_clip_is_named(runs, tmp_path):
    events, artifacts = read_events(runs["ppo"]), dict(runs["ppo"].artifacts)
    for key in [k for k in artifacts if k.startswith("clip")]:
        artifacts[key] = tmp_path / f"{key}.npy"
        artifacts[key].write_bytes(b"nothing")
    with pytest.raises(DataError, match="is damaged.*Delete it for a report without this clip"):
        clips.figures(events, artifacts)
    assert clips.figures(events, {}) == {}


class Toy(gymnasium.Env):
    """Ten steps; its picture is as bright as the step is late."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, render_mode=None):
        self.render_mode, self.time = render_mode, 0

    def reset(self, *, seed=None, options=None):
        self.time = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.time += 1
        return np.zeros(2, np.float32), 1.0, self.time == 10, False, {}

    def render(self):
        return np.full((40, 60, 3), 20 * self.time, np.uint8)


@pytest.fixture
def toy():
    gymnasium.register("Toy-v0", entry_point=Toy)
    yield "Toy-v0"
    del gymnasium.registry["Toy-v0"]


class _Idle:
    """A policy that always takes action 0."""

    def distribution(self, obs):
        return self

    def mode(self):
        return torch.zeros(1, dtype=torch.int64)


@pytest.mark.parametrize("stills, shown", [(40, list(range(11))), (3, [0, 4, 8])])
def test_other_environments_leave_pictures_evenly_spaced(monkeypatch, tmp_path, toy, stills, shown):
    monkeypatch.setattr(clips, "STILLS", stills)
    told, artifacts = clips.record(_Idle(), toy, seed=0, name="x")
    ((key, content),) = artifacts.items()
    assert (
        told == {"env": toy, "file": "clip-x.webp", "return": 10.0, "length": 10}
        and key == "clip-x.webp"
    )
    with Image.open(io.BytesIO(content)) as film:
        levels = [np.asarray(x.convert("L")).mean() / 20 for x in ImageSequence.Iterator(film)]
    assert levels == pytest.approx(shown, abs=0.2)
    (tmp_path / key).write_bytes(content)
    event = replace(next(iter(ppo.build(PPO))), data={"clip": told, "seed": 0})
    (figure,) = clips.figures([event], {key: tmp_path / key}).values()
    assert len(figure.frames) == len(shown) and "return 10 in 10 steps" in figure.layout.title.text


def test_a_renderer_that_fails_leaves_a_sentence(monkeypatch, tmp_path):
    def fails(*args, **options):
        raise RuntimeError("pygame is not installed, run\n`pip install pygame`")

    monkeypatch.setattr(clips.gymnasium, "make", fails)
    told, artifacts = clips.record(_Idle(), "FrozenLake-v1", seed=0, name="x")
    ((key, content),) = artifacts.items()
    assert key == "clip-x.txt" and b"run `pip install pygame`" in content
    (tmp_path / key).write_bytes(content)
    event = replace(next(iter(ppo.build(PPO))), data={"clip": told, "seed": 0})
    (figure,) = clips.figures([event], {key: tmp_path / key}).values()
    assert figure.layout.title.text == "FrozenLake-v1: no clip" and json.dumps(told)


def test_names_of_arms_become_names_of_files():
    assert file_name("REINFORCE, no baseline", 3) == "REINFORCE-no-baseline-3"
    assert file_name("pole | 0", 12) == "pole-0-12"


class Both:
    """Two seeds as one trainer, whose events say whose they are."""

    def __init__(self):
        self.trainers = {seed: ppo._run(PPO, "Pendulum-v1", seed) for seed in (0, 1)}

    def __iter__(self):
        for seed, trainer in self.trainers.items():
            for event in trainer:
                yield replace(event, data={"seed": seed})


def test_seeds_in_step_keep_a_policy_each():
    both = Both()
    last = {e.data["seed"]: e for e in Kept(both, "a", None) if e.kind == "evaluation"}
    for seed, event in last.items():
        kept = TrainedPolicy.from_bytes(event.data["artifacts"][f"policy-a-{seed}.safetensors"])
        assert kept.facts["seed"] == seed and event.data["clip"]["file"] == f"clip-a-{seed}"
        obs = torch.ones(2, 3)
        mine = TrainedPolicy.of(both.trainers[seed]).distribution(obs).mode()
        assert torch.equal(kept.distribution(obs).mode(), mine)
