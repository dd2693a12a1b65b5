"""The recipe grpo on language: its arms, its verdict, its pictures, a task of one's own, a cut run."""

import pytest

from dodona.cli import main
from dodona.core.protocols import Event
from dodona.errors import ConfigError
from dodona.language.saved import load_saved
from dodona.language.tasks import TreeRebuild
from dodona.recipes import _grpo_language as language
from dodona.recipes import _tasks as tasks
from dodona.recipes import grpo

TINY = {"num_updates": 3, "num_prompts": 4, "group_size": 4, "sft_updates": 4}
OWN = """
from dodona.language.tasks import FunctionTask

PROMPTS = [{"prompt": f"{a}{b}=", "answer": max(a, b)} for a in "abcd" for b in "abcd"]
task = FunctionTask(PROMPTS, reward=lambda item, text: text == item.answer)
"""


def started(config):
    from dataclasses import asdict

    return Event(kind="start", step=0, num_samples=0, metrics={}, data={"config": asdict(config)})


@pytest.fixture(scope="module", autouse=True)
def few_are_judged():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(language, "NUM_JUDGED", 20)
        patch.setattr(language, "EVALUATIONS", 1)
        patch.setitem(tasks.NAMED, "tree_rebuild", lambda: TreeRebuild(3, letters="abcdef"))
        yield


@pytest.fixture(scope="module")
def run():
    config = grpo.Config(**TINY)
    return [started(config), *grpo.build(config)]


def test_every_arm_runs_and_is_judged(run):
    arms = {e.data["arm"] for e in run if "arm" in e.data}
    assert arms == {"grpo", "shortcut", "sft"}
    rows = grpo.judge(run)
    assert len(rows) == 5 and rows[0].expected == "measured"  # three updates teach nothing


def test_a_whole_run_must_reach_its_bar(run):
    whole = [started(grpo.Config()), *run[1:]]
    row = grpo.judge(whole)[0]
    assert (row.expected, row.verdict) == (">= 0.9", "miss")


def test_the_report_has_its_pictures(run):
    figures = grpo.figures(run)
    assert set(figures) == {"pass-rates", "kinds", "answers", "samples", "dead-groups", "entropy", "kl-table"}  # fmt: skip


def test_what_was_learned_can_be_loaded(run, tmp_path):
    last = [e for e in run if e.data.get("arm") == "grpo" and e.kind == "evaluation"][-1]
    (name, content), *_ = last.data["artifacts"].items()
    (tmp_path / name).write_bytes(content)
    policy, tokenizer = load_saved(tmp_path / name)
    assert policy.config.vocab_size == len(tokenizer)
    watched = tokenizer.encode(last.data["prompt"])
    assert policy.sample({"prompt": __import__("torch").tensor([[1, *watched]])}, rng=__import__("numpy").random.default_rng(0), max_new_tokens=3)[0].shape == (1, 3)  # fmt: skip


def test_unseen_problems_share_no_labels_with_those_of_training():
    problem = language.problem("tree_rebuild", language.Setting(), correct=0.3, seed=0)
    groups = [{problem.task.group(i) for i in part} for part in (problem.train, problem.unseen)]
    assert groups[0] & groups[1] == set() and len(groups[1]) == 4


def test_demonstrations_are_right_as_often_as_is_said():
    problem = language.problem("tree_rebuild", language.Setting(), correct=0.3, seed=0)
    pairs = problem.demonstrations(0.3)
    right = sum(a == i.answer for (_, a), i in zip(pairs, problem.train, strict=True)) / len(pairs)
    copied = tasks.copied_rate(problem.task, problem.train[:10], correct=0.3)
    assert copied == pytest.approx(0.3 + 0.7 / 6)
    assert abs(right - copied) < 4 * (copied * (1 - copied) / len(pairs)) ** 0.5


def test_a_cut_run_goes_on_as_if_it_had_not_been():
    def plain(e):
        return e.kind, e.step, e.metrics, e.data.get("law")

    config = grpo.Config(**TINY, arms="grpo")
    whole = [plain(e) for e in grpo.build(config)]
    first = grpo.build(config)
    begun = [plain(e) for _, e in zip(range(9), first, strict=False)]
    second = grpo.build(config)
    second.load_state_dict(first.state_dict())
    assert begun + [plain(e) for e in second] == whole


def test_a_task_of_ones_own_runs_from_its_file(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(OWN)
    config = grpo.Config(**{**TINY, "sft_updates": 2}, task=str(file), arms="grpo")
    events = [started(config), *grpo.build(config)]
    assert any("pass/unseen" in e.metrics for e in events)
    assert grpo.judge(events)[0].expected == "measured"
    assert "samples" in grpo.figures(events)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"env": "Acrobot-v1"}, "env='Acrobot-v1' means nothing with policy=transformer"),
        ({"policy": "mlp", "task": "sorting"}, "task='sorting' means nothing with policy=mlp"),
        ({"objective": "all"}, "compares on control only"),
        ({"policy": "mlp", "objective": "gspo"}, "not among those of control"),
        ({"group_size": 1}, "group_size must be at least 2"),
        ({"correct_share": 1.5}, r"correct_share must be in \[0, 1\]"),
        ({"lr": 0.0}, "lr must be above 0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        grpo.Config(**given)


def test_an_unknown_task_is_named_with_the_nearest():
    with pytest.raises(ConfigError, match="no task is called 'tree_rebuilt'.*tree_rebuild"):
        grpo.build(grpo.Config(task="tree_rebuilt"))


def test_what_a_run_has_left_can_be_trained_further(run, tmp_path):
    last = [e for e in run if e.data.get("arm") == "grpo" and e.kind == "evaluation"][-1]
    (name, content), *_ = last.data["artifacts"].items()
    (tmp_path / name).write_bytes(content)
    goal = tmp_path / "tuned.safetensors"
    config = grpo.Config(
        num_updates=1, num_prompts=2, group_size=2, model=str(tmp_path / name), save_to=str(goal), max_new_tokens=5
    )  # fmt: skip
    events = [started(config), *grpo.build(config)]
    assert {e.data["arm"] for e in events if "arm" in e.data} == {"grpo"}
    assert {e.data["stage"] for e in events if "stage" in e.data} == {"grpo"}
    assert load_saved(goal)[1] == load_saved(tmp_path / name)[1]


def test_a_model_that_is_not_there_is_named():
    with pytest.raises(ConfigError, match="model=nowhere does not exist"):
        grpo.build(grpo.Config(model="nowhere"))


def test_a_checkpoint_of_hugging_face_is_trained_and_saved(tmp_path):
    transformers = pytest.importorskip("transformers", reason="pip install 'dodona[hf]'")
    tokenizers = pytest.importorskip("tokenizers")
    letters = "abcdef,:"
    vocab = {"<pad>": 0, "<eos>": 1} | {c: 2 + i for i, c in enumerate(letters)}
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocab, unk_token="<pad>"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    words.decoder = tokenizers.decoders.Fuse()
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>").save_pretrained(tmp_path / "a")  # fmt: skip
    shape = transformers.LlamaConfig(
        vocab_size=len(vocab) + 2, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=64, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    transformers.LlamaForCausalLM(shape).save_pretrained(tmp_path / "a")
    config = grpo.Config(
        num_updates=2, num_prompts=2, group_size=2, model=str(tmp_path / "a"), save_to=str(tmp_path / "b"),
        max_new_tokens=4,
    )  # fmt: skip
    events = [started(config), *grpo.build(config)]
    assert grpo.judge(events)[0].name.startswith("drawn pass rate")
    assert tasks.loaded_policy(str(tmp_path / "b"))[0].config.vocab_size == len(vocab) + 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model": "x", "arms": "sft"}, "belong to demonstrations"),
        ({"save_to": "x", "num_seeds": 2}, "is for one model"),
    ],
)
def test_options_that_contradict_each_other_are_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        grpo.Config(**given)


def test_the_words_of_the_readme_name_an_environment(tmp_path):
    words = ["run", "grpo", "--policy", "mlp", "--env", "CartPole-v1", "--objective", "grpo", "--num-seeds", "1"]  # fmt: skip
    small = ["--num-updates", "1", "--group-size", "2", "--set", "num_groups=1", "--set", "num_eval_episodes=2"]  # fmt: skip
    assert main([*words, *small, "--out", str(tmp_path)]) == 0
