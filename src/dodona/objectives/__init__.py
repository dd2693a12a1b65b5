"""The mathematics of learning targets and losses: pure functions on rewards, values, log-probabilities, masks."""

from importlib import import_module
from typing import Any

_ROOMS = {
    "advantages": ("gae", "group_advantages", "informative_groups", "process_advantages"),
    "downsampling": ("max_variance_rows",),
    "dpo": ("dpo_loss",),
    "followon": ("follow_on",),
    "mirror": ("group_log_z", "kimi_loss", "soft_optimum"),
    "objective": ("PolicyObjective", "diff", "gradient_coefficient"),
    "policy": (
        "AdaptiveKL", "dpg_loss", "policy_loss", "ppo_clip_loss", "ppo_kl_loss", "ratio_diagnostics",
        "reinforce_loss", "surrogate_loss",
    ),
    "preference": ("pairwise_reward_loss", "reward_model_loss"),
    "presets": (
        "a2c", "cispo", "dapo", "dr_grpo", "grpo", "gspo", "gspo_token", "kimi", "lite_ppo", "ppo", "ppo_max",
        "reinforce", "reinforce_pp", "rloo", "vanilla_ppo",
    ),
    "returns": ("discounted_returns", "lambda_returns", "n_step_returns", "vtrace"),
    "rewards": (
        "kl_penalized_rewards", "length_rewards", "normalize_rewards", "overlong_penalty", "pay_at_the_end",
        "repetition_penalty",
    ),
    "targets": (
        "continuation", "double_q_target", "expected_sarsa_target", "q_learning_target", "sarsa_target",
        "td3_target", "td_target",
    ),
    "trust_region": ("CGInfo", "conjugate_gradient", "fisher_vector_product", "natural_step", "step_scale"),
    "values": ("dqn_loss", "explained_variance", "value_loss"),
}  # fmt: skip
_HOME = {name: file for file, names in _ROOMS.items() for name in names}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'dodona.objectives' has no attribute {name!r}")
    return getattr(import_module(f"dodona.objectives.{_HOME[name]}"), name)
