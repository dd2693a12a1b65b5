"""Learning by acting: from temporal differences to trust regions.

    from dodona.rl import QLearning
    learner = QLearning(mdp.num_states, mdp.num_actions, gamma=mdp.gamma)
    history = learner.learn(mdp, num_steps=200_000, seed=0)

Names are loaded when asked for: the tabular learners never wait for torch.
"""

from importlib import import_module
from typing import Any

_ROOMS = {
    "ablation": (
        "Ablation", "AblationTask", "Effect", "ablate", "ablation_arms", "ablation_effects",
    ),
    "action_critics": ("ActionCritics",),
    "action_noise": ("ActionNoise",),
    "actor_critic": ("A2CConfig", "QACConfig", "TwoTimeScales", "a2c_trainer", "qac_trainer"),
    "atari": ("wrap_atari",),
    "batch_td": ("BatchMC", "BatchTD"),
    "ddpg": ("DDPGConfig", "TD3Config", "ddpg_trainer", "td3_trainer"),
    "differential": ("DifferentialQLearning", "DifferentialSarsa", "RLearning"),
    "dpg": ("CompatibleCritic", "DPGConfig", "dpg_trainer"),
    "dqn": ("DQNConfig", "dqn_trainer"),
    "dyna": ("DynaQ", "PrioritizedDyna", "ReplayQLearning"),
    "env_check": ("EnvReport", "check_env"),
    "environments": ("Env", "Step", "make_env", "mdp_env"),
    "episodes": ("EpisodeRecorder", "EpisodeStats", "evaluate"),
    "features": ("Aggregation", "Fourier", "OneHot", "Polynomial", "RBF", "Table", "TileCoding"),
    "gymnasium_env": ("GymnasiumEnv",),
    "history": ("History",),
    "linear": (
        "FittedQ", "GradientMC", "GradientTD", "LSPI", "LSTD", "LSTDQ", "QLearningLinear",
        "SarsaLinear", "TDLinear",
    ),
    "off_policy": ("OffPolicyConfig", "OffPolicyObjective", "off_policy_trainer", "require_support"),
    "off_policy_td": ("OffPolicyNStep", "QSigma", "Retrace", "TreeBackup"),
    "on_policy": ("Evaluation", "TableCritic"),
    "overestimation": ("ValueBias", "value_bias"),
    "ppo": ("PPOConfig", "ppo_trainer"),
    "ppo_detailed": ("detailed_trainer",),
    "ppo_details": ("PPODetails",),
    "ppo_penalty": ("KLPenalty", "PenalizedUpdate"),
    "reinforce": ("ReinforceConfig", "reinforce_trainer"),
    "native.fused_rollout": ("FusedCollector",),
    "native.native_env": ("NativeEnv",),
    "normalizer": ("Normalizer",),
    "recurrent": ("RecurrentCollector", "evaluate_recurrent"),
    "rollout": ("EnvCollector", "EpisodeCollector", "collect"),
    "q_networks": ("EpsilonGreedy", "QNetwork"),
    "replay": ("ReplayBuffer",),
    "tabular_env": ("TabularEnv",),
    "td": (
        "DoubleQLearning", "ExpectedSarsa", "MonteCarlo", "NStepExpectedSarsa", "NStepSarsa", "NStepTD",
        "QLearning", "Sarsa", "SarsaLambda", "SpeedyQLearning", "TD0", "TDLambda", "WatkinsQLambda",
    ),
    "trpo": (
        "StepReport", "TRPOConfig", "TrustRegion", "TrustRegionUpdate", "npg_trainer", "trpo_objective",
        "trpo_trainer", "trust_region_step",
    ),
}  # fmt: skip
_HOME = {name: file for file, names in _ROOMS.items() for name in names}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'dodona.rl' has no attribute {name!r}")
    return getattr(import_module(f"dodona.rl.{_HOME[name]}"), name)
