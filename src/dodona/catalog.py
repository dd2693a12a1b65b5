"""The 22 methods: data, no logic. What is not built yet says so."""

from typing import Literal, NamedTuple


class Method(NamedTuple):
    """One row of ``dodona list``. ``built``: "full" has code, oracles and recipe."""

    name: str
    family: str
    title: str
    source: str
    code: str
    check: str
    recipes: tuple[str, ...]
    built: Literal["no", "objectives", "full"]


def _later(name: str, family: str, title: str, source: str) -> Method:
    return Method(name, family, title, source, "", "", (), "no")


METHODS: tuple[Method, ...] = (
    Method("bellman-equation", "mdp", "State values and the Bellman equation", "Zhao 2025, ch. 2; Bellman 1957",
           "dodona.mdp.bellman", "dodona.checks.bellman_equation", (), "objectives"),
    Method("bellman-optimality", "mdp", "The Bellman optimality equation", "Zhao 2025, ch. 3; Puterman 1994, ch. 6",
           "dodona.mdp.optimality", "dodona.checks.bellman_optimality", (), "objectives"),
    Method("dynamic-programming", "mdp", "Value, policy and truncated policy iteration",
           "Zhao 2025, ch. 4; Howard 1960; Puterman & Shin 1978", "dodona.mdp.planning",
           "dodona.checks.dynamic_programming", ("dynamic-programming",), "full"),
    _later("temporal-difference", "rl", "Temporal-difference learning", "Zhao 2025, ch. 7; Sutton 1988"),
    _later("value-function-approximation", "rl", "Value-function approximation, LSTD, DQN", "Zhao 2025, ch. 8; Mnih et al. 2015"),
    _later("policy-gradient", "rl", "Policy gradient and REINFORCE", "Zhao 2025, ch. 9; Williams 1992"),
    _later("actor-critic", "rl", "Actor-critic methods", "Zhao 2025, ch. 10; Mnih et al. 2016"),
    _later("trpo", "rl", "Trust-region policy optimisation", "Schulman et al. 2015, arXiv:1502.05477"),
    _later("rlhf-ppo-max", "language", "RLHF with PPO-max", "Zheng et al. 2023, arXiv:2307.04964"),
    _later("grpo", "language", "Group-relative policy optimisation", "Shao et al. 2024, arXiv:2402.03300"),
    _later("kimi-k1.5", "language", "Kimi k1.5's policy mirror descent", "Kimi Team 2025, arXiv:2501.12599"),
    _later("rle-pose", "vision", "Pose regression with residual log-likelihood estimation", "Li et al. 2021, arXiv:2107.11291"),
    _later("gaze-estimation", "vision", "Appearance-based gaze estimation", "Zhang et al. 2018"),
    _later("random-erasing", "vision", "Random Erasing", "Zhong et al. 2020, arXiv:1708.04896"),
    _later("margin-softmax", "vision", "Margin softmax: SphereFace, CosFace, ArcFace", "Deng et al. 2019, arXiv:1801.07698"),
    _later("detector-parts", "vision", "The parts of a detector", "Bochkovskiy et al. 2020, arXiv:2004.10934"),
    _later("atss", "vision", "Adaptive training sample selection", "Zhang et al. 2020, arXiv:1912.02424"),
    _later("cornernet", "vision", "CornerNet", "Law & Deng 2018, arXiv:1808.01244"),
    _later("binary-search", "algorithms", "Binary search by interval exclusion", "Knuth, TAOCP 3, sec. 6.2.1"),
    _later("kmp", "algorithms", "Knuth-Morris-Pratt matching", "Knuth, Morris, Pratt 1977"),
    _later("disc-sampling", "algorithms", "Uniform points in a disc", "Devroye 1986"),
    _later("tree-traversals", "algorithms", "Trees from their traversals", "Knuth, TAOCP 1, sec. 2.3.1"),
)  # fmt: skip


def method(name: str) -> Method | None:
    """The row of a method, or None."""
    return next((m for m in METHODS if m.name == name), None)
