"""What recipes of language share: tasks by name or file, demonstrations of known quality, a policy to begin with.

Source: ours.  Not here: the tasks (language/tasks), training (language/sft.py, language/grpo.py).
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dodona.errors import ConfigError, InputError, nearest
from dodona.language import CharTokenizer
from dodona.language.saved import load_saved, saved_policy
from dodona.language.tasks import (
    Arithmetic,
    BinarySearchTrace,
    Countdown,
    CountdownRPN,
    GridworldPlan,
    Item,
    MDPValue,
    PrefixFunction,
    Reverse,
    Signs,
    Sorting,
    TreeRebuild,
    load_task,
)
from dodona.policies import TransformerPolicy
from dodona.policies.transformer import TransformerConfig

NAMED: Mapping[str, Callable[[], Any]] = {
    "tree_rebuild": TreeRebuild,
    "countdown_rpn": CountdownRPN,
    "countdown": Countdown,
    "prefix_function": PrefixFunction,
    "binary_search_trace": BinarySearchTrace,
    "gridworld_plan": GridworldPlan,
    "mdp_value": MDPValue,
    "arithmetic": Arithmetic,
    "sorting": Sorting,
    "reverse": Reverse,
    "signs": Signs,
}
"""Name -> a task that makes its own items."""
MOST_ITEMS = 100_000  # of a level that are listed for training; of more, so many are drawn
# positions in an answer of a dozen tokens are told apart by fast rotations alone
ROPE_BASE = 100.0


def named_task(name: str) -> Any:
    """A task of NAMED, or of the file "FILE.py[:NAME]".  Raises: ConfigError: neither.  As load_task."""
    if name in NAMED:
        return NAMED[name]()
    if ".py" in name or ":" in name:
        return load_task(name)
    raise ConfigError(
        f"no task is called '{name}'. {nearest(name, NAMED)} A file is given as FILE.py[:NAME]."
    )


def items_of(task: Any, *, seed: int) -> list[Item]:
    """All items of the task's level where they can be listed, else MOST_ITEMS / 10 different ones."""
    if hasattr(task, "items") and task.size() <= MOST_ITEMS:
        return task.items()
    drawn = (task.generate(seed, index=i) for i in range(MOST_ITEMS // 10))
    return list({item.prompt: item for item in drawn}.values())


def demonstrations(
    task: Any, items: Sequence[Item], *, correct: float, rng: np.random.Generator
) -> list[tuple[str, str]]:
    """(prompt, answer) of every item: right with probability ``correct``, else any well-formed one, right or not.

    The best that a copy of them can do is known: correct + (1 - correct) u, u the share of right answers among the
    well-formed ones. Where those can not be listed, the answer to another item stands for them.
    """
    pairs = []
    for item in items:
        answer = task.solve(item)
        if rng.random() >= correct:
            answer = _well_formed(task, items, item, rng)
        pairs.append((item.prompt, answer))
    return pairs


def copied_rate(task: Any, items: Sequence[Item], *, correct: float) -> float | None:
    """The pass rate of a perfect copy of the demonstrations; None where right answers can not be counted."""
    try:
        return correct + (1.0 - correct) * float(np.mean([task.uniform_rate(i) for i in items]))
    except (InputError, AttributeError):
        return None


def fresh_policy(
    task: Any, items: Sequence[Item], *, size: tuple[int, int, int], seed: int
) -> tuple[TransformerPolicy, CharTokenizer, int]:
    """(a transformer as large as the task needs, its tokenizer, the most tokens of an answer)."""
    tokenizer = CharTokenizer(_alphabet(task, items))
    longest = max(len(item.prompt) for item in items)
    answer = max(len(task.solve(item)) for item in items[:: max(1, len(items) // 2000)]) + 1
    width, num_layers, num_heads = size
    config = TransformerConfig(
        vocab_size=len(tokenizer), width=width, num_layers=num_layers, num_heads=num_heads,
        context=longest + answer + 8, rope_base=ROPE_BASE if longest + answer < 64 else 10_000.0,
    )  # fmt: skip
    return TransformerPolicy.from_config(config, seed=seed), tokenizer, answer


def loaded_policy(place: str) -> tuple[Any, Any]:
    """(policy, tokenizer) of a file that a run of dodona has left, or of a Hugging Face checkpoint's folder.

    Raises: ConfigError: no such place.  DataError, MissingDependencyError: as load_saved, HFPolicy.load.
    """
    found = Path(place)
    if found.is_file():
        return load_saved(found)
    if not found.is_dir():
        raise ConfigError(
            f"model={place} does not exist. Give the folder of a Hugging Face checkpoint, or a .safetensors file from "
            "the artifacts of a run."
        )
    from dodona.language.hf import HFPolicy
    from dodona.language.hf_tokenizer import HFTokenizer

    policy = HFPolicy.load(found)
    return policy, HFTokenizer.load(found, vocab_size=policy.config.vocab_size)


def write_policy(policy: Any, tokenizer: Any, place: str) -> None:
    """Where loaded_policy finds it: a file for a transformer of ours, a folder for one of Hugging Face."""
    if isinstance(policy, TransformerPolicy):
        Path(place).parent.mkdir(parents=True, exist_ok=True)
        Path(place).write_bytes(saved_policy(policy, tokenizer))
        return
    policy.save(place)
    tokenizer.save(place)


def data_file(path: str, what: str) -> Path:
    """A path that exists.  Raises: ConfigError: it does not."""
    found = Path(path)
    if not found.exists():
        raise ConfigError(f"{what} {path} does not exist. Give the path of a file or folder that does.")  # fmt: skip
    return found


def _alphabet(task: Any, items: Sequence[Item]) -> str:
    if task.alphabet:
        return task.alphabet
    return "".join(sorted({c for item in items for c in item.prompt + item.answer}))


def _well_formed(task: Any, items: Sequence[Item], item: Item, rng: np.random.Generator) -> str:
    try:
        candidates = task.candidates(item)
    except (InputError, AttributeError):
        return task.solve(items[int(rng.integers(len(items)))])
    return candidates[int(rng.integers(len(candidates)))]
