"""The 22 methods of the house and the cards that support them: data, no logic.

What is not built yet says so: "no" has neither code nor check; "objectives" has code and oracles,
its experiments are missing or begun; "full" has code, oracles and recipes.
"""

from typing import Any, Literal, NamedTuple


class Method(NamedTuple):
    """One row of ``dodona list``; code and check are module names, empty until they exist."""

    name: str
    family: Literal["mdp", "rl", "language", "vision", "algorithms"]
    title: str
    source: str
    code: str
    check: str
    recipes: tuple[str, ...]
    built: Literal["no", "objectives", "full"]


def _later(name: str, family: Any, title: str, source: str) -> Method:
    return Method(name, family, title, source, "", "", (), "no")


METHODS: tuple[Method, ...] = (
    Method(
        "bellman-equation", "mdp", "State values and the Bellman equation",
        "Zhao 2025, ch. 2; Bellman 1957; Sobel 1982", "dodona.mdp.bellman",
        "dodona.checks.bellman_equation", ("bellman-equation",), "full",
    ),
    Method(
        "bellman-optimality", "mdp", "The Bellman optimality equation",
        "Zhao 2025, ch. 3; Shapley 1953; Puterman 1994, ch. 6", "dodona.mdp.optimality",
        "dodona.checks.bellman_optimality", ("bellman-optimality",), "full",
    ),
    Method(
        "dynamic-programming", "mdp", "Value, policy and truncated policy iteration",
        "Zhao 2025, ch. 4; Howard 1960; Puterman & Shin 1978", "dodona.mdp.planning",
        "dodona.checks.dynamic_programming", ("dynamic-programming",), "full",
    ),
    Method(
        "temporal-difference", "rl", "Temporal-difference learning",
        "Zhao 2025, ch. 7; Sutton 1988; Watkins 1989", "dodona.rl.td",
        "dodona.checks.temporal_difference", ("temporal-difference",), "full",
    ),
    Method(
        "value-function-approximation", "rl", "Value-function approximation, LSTD, DQN",
        "Zhao 2025, ch. 8; Tsitsiklis & Van Roy 1997; Mnih et al. 2015", "dodona.rl.linear",
        "dodona.checks.value_function_approximation", ("value-function-approximation", "dqn"), "full",
    ),
    Method(
        "policy-gradient", "rl", "Policy gradient and REINFORCE",
        "Williams 1992; Sutton et al. 1999; Zhao 2025, ch. 9", "dodona.objectives.policy",
        "dodona.checks.policy_gradient", ("policy-gradient",), "objectives",
    ),
    Method(
        "actor-critic", "rl", "Actor-critic methods, on and off policy",
        "Konda & Tsitsiklis 1999; Mnih et al. 2016, arXiv:1602.01783; Zhao 2025, ch. 10",
        "dodona.rl.actor_critic", "dodona.checks.actor_critic", ("actor-critic",), "full",
    ),
    Method(
        "trpo", "rl", "Trust-region policy optimisation",
        "Schulman et al. 2015, arXiv:1502.05477; Kakade 2001", "dodona.rl.trpo", "dodona.checks.trpo",
        ("trpo",), "full",
    ),
    Method(
        "rlhf-ppo-max", "language", "RLHF in three stages with PPO-max",
        "Zheng et al. 2023, arXiv:2307.04964", "dodona.language.rlhf", "dodona.checks.rlhf_ppo_max",
        ("rlhf-ppo-max", "reward-model", "sft"), "full",
    ),
    Method(
        "grpo", "language", "Group-relative policy optimisation and its successors",
        "Shao et al. 2024, arXiv:2402.03300", "dodona.objectives.presets", "dodona.checks.grpo", ("grpo",), "objectives",
    ),
    Method(
        "kimi-k1.5", "language", "Online mirror descent, length control, long2short",
        "Kimi Team 2025, arXiv:2501.12599", "dodona.language.kimi", "dodona.checks.kimi_k1_5", ("kimi-k1.5",), "full",
    ),
    _later("rle-pose", "vision", "Pose regression by residual log-likelihood estimation",
           "Li et al. 2021, arXiv:2107.11291"),
    _later("gaze-estimation", "vision", "From eye or face patches to a line of sight",
           "Zhang et al. 2015, arXiv:1504.02863; Kellnhofer et al. 2019, arXiv:1910.10088"),
    _later("random-erasing", "vision", "Random Erasing", "Zhong et al. 2017, arXiv:1708.04896"),
    _later("margin-softmax", "vision", "Margin softmax: SphereFace, CosFace, ArcFace",
           "Liu et al. 2017, arXiv:1704.08063; Deng et al. 2018, arXiv:1801.07698"),
    _later("detector-parts", "vision", "The parts of a detector",
           "Bochkovskiy et al. 2020, arXiv:2004.10934"),
    _later("atss", "vision", "Adaptive training sample selection",
           "Zhang et al. 2019, arXiv:1912.02424"),
    _later("cornernet", "vision", "Objects as paired corners",
           "Law & Deng 2018, arXiv:1808.01244"),
    Method(
        "binary-search", "algorithms", "Binary search by excluding intervals",
        "Knuth, TAOCP vol. 3, 6.2.1; Bloch 2006", "dodona.algorithms.binary_search",
        "dodona.checks.binary_search", ("binary-search",), "full",
    ),
    Method(
        "kmp", "algorithms", "Matching one or many patterns in a stream",
        "Knuth, Morris & Pratt 1977; Aho & Corasick 1975", "dodona.algorithms.kmp",
        "dodona.checks.kmp", ("kmp",), "full",
    ),
    Method(
        "disc-sampling", "algorithms", "Uniform points in a disc, ball and annulus",
        "von Neumann 1951; Devroye 1986; Shirley & Chiu 1997", "dodona.algorithms.disc",
        "dodona.checks.disc_sampling", ("disc-sampling", "rejection-sampling"), "full",
    ),
    Method(
        "tree-traversals", "algorithms", "A binary tree from its traversals",
        "Knuth, TAOCP vol. 1, 2.3.1; Burgdorff et al. 1987", "dodona.algorithms.trees",
        "dodona.checks.tree_traversals", ("tree-traversals",), "full",
    ),
)  # fmt: skip

SUPPORTING: tuple[Method, ...] = (
    Method("ppo", "rl", "Proximal policy optimisation", "Schulman et al. 2017, arXiv:1707.06347",
           "dodona.rl.ppo", "dodona.checks.ppo", ("ppo", "ppo-ablate"), "objectives"),
    Method("environments-and-rollouts", "rl", "Environments and rollouts",
           "Pardo et al. 2018, arXiv:1712.00378", "dodona.objectives.returns",
           "dodona.checks.environments_and_rollouts", (), "objectives"),
    Method("rollouts-and-verifiers", "language", "Sampling engine, verifiable tasks, rewards",
           "Lambert et al. 2024, arXiv:2411.15124", "dodona.language.generation",
           "dodona.checks.rollouts_and_verifiers", (), "objectives"),
    _later("detection-data-and-metrics", "vision", "Detection data, box geometry, suppression, metrics",
           "Lin et al. 2014, arXiv:1405.0312"),
    Method("oracle-kit-rl", "mdp", "The oracles of the model-based and tabular methods",
           "Puterman 1994; Archibald et al. 1995", "dodona.oracles", "dodona.checks.oracle_kit_rl", (),
           "objectives"),
)  # fmt: skip
"""Cards without a row of their own; ``dodona check`` takes their names once they have a check."""
