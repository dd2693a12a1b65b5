"""Language: tokenizers, tasks and verifiers, answers drawn from a policy, and what learns from them.

    from dodona.language import Sampling, TorchEngine, generate
    rollouts = generate(policy, prompts, num_samples=16, max_new_tokens=32, seed=0, eos_id=2)

Names are loaded when asked for: a task never waits for torch.
"""

from importlib import import_module
from typing import Any

_ROOMS = {
    "engines": ("Audit", "TableEngine", "TorchEngine", "audit_rollout", "compare_rollouts", "rescored"),
    "generation": ("exact_pass_rate", "exact_pass_rates", "forced", "generate", "score_tokens"),
    "math_answers": ("extract_answer", "math_equal"),
    "rollouts": ("Engine", "Rollout", "rollouts_to_batch"),
    "samplers": ("CurriculumSampler", "PrioritizedSampler", "UniformSampler", "estimate_pass_rates"),
    "sampling": ("Sampling", "draw", "sampling_logp"),
    "tasks.base": ("Item", "Score", "Task"),
    "tokenizer": ("CharTokenizer",),
    "verifiers": ("Grader", "format_reward", "pass_at_k", "validate_test_cases"),
}  # fmt: skip
_HOME = {name: file for file, names in _ROOMS.items() for name in names}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'dodona.language' has no attribute {name!r}")
    return getattr(import_module(f"dodona.language.{_HOME[name]}"), name)
