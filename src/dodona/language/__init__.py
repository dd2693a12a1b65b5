"""Language: tokenizers, tasks and verifiers, answers drawn from a policy, and what learns from them.

    from dodona.language import Sampling, TorchEngine, generate
    rollouts = generate(policy, prompts, num_samples=16, max_new_tokens=32, seed=0, eos_id=2)

Names are loaded when asked for: a task never waits for torch.
"""

from importlib import import_module
from typing import Any

_ROOMS = {
    "collector": ("TaskCollector",),
    "curation": ("easy_to_hack",),
    "dpo": ("DPOConfig", "dpo_trainer"),
    "engines": ("Audit", "TableEngine", "TorchEngine", "audit_rollout", "compare_rollouts", "rescored"),
    "evaluation": ("PassRates", "answer_law"),
    "generation": ("exact_pass_rate", "exact_pass_rates", "forced", "generate", "score_tokens"),
    "grpo": ("GRPOConfig", "grpo_trainer"),
    "kimi": ("KimiConfig", "LengthReward", "MirrorUpdate", "curate_prompts", "kimi_trainer", "writer"),
    "long2short": ("Sample", "graded_samples", "length_dpo_pairs", "merge_models", "shortest_correct"),
    "hf": ("HFPolicy",),
    "hf_engine": ("HFEngine",),
    "hf_tokenizer": ("HFTokenizer",),
    "math_answers": ("extract_answer", "math_equal"),
    "partial": ("PartialCollector", "PartialRolloutBuffer"),
    "reward_model": ("RewardModel", "RewardModelConfig", "pair_accuracy", "reward_model_trainer"),
    "rlhf": ("CriticTrainer", "ModelReward", "RLHFConfig", "pretrain_critic", "rlhf_trainer"),
    "rollouts": ("Engine", "Rollout", "rollouts_to_batch"),
    "samplers": ("CurriculumSampler", "PrioritizedSampler", "UniformSampler", "estimate_pass_rates"),
    "sampling": ("Sampling", "draw", "sampling_logp"),
    "sandbox": ("CodeTest", "Limits", "run_sandboxed"),
    "serve": ("PolicyServer", "load_engine", "save_checkpoint"),
    "server_abilities": ("Abilities",),
    "server_engine": ("ServerEngine",),
    "sft": ("SFTConfig", "perplexity", "sft_loss", "sft_trainer"),
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
