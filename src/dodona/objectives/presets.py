"""Published objectives by name: each a function that returns a PolicyObjective, every keyword an override.

    from dodona.objectives import dapo, diff, grpo
    diff(dapo(), grpo())           in what two of them differ
    dapo(clip_eps_high=0.3)        one switch changed

``sources`` says of every field that is set where it comes from; "ours" where a paper is silent. Learning
rates, batch sizes and sampling belong to trainers.
Source: of each, its docstring.
"""

from typing import Any, Literal

from dodona.core.inputs import check_choice
from dodona.objectives.objective import PolicyObjective

PPO = "arXiv:1707.06347"
GRPO = "arXiv:2402.03300"
DAPO = "arXiv:2503.14476"
PPO_MAX = "arXiv:2307.04964"
RELEASED = "OpenLMLab/MOSS-RLHF, English script"


def _make(name: str, overrides: dict[str, Any], **setting: tuple[Any, str]) -> PolicyObjective:
    """setting: field -> (value, source). An override names itself as the source."""
    values = {key: value for key, (value, _) in setting.items()} | overrides
    sources = {key: source for key, (_, source) in setting.items()}
    sources |= dict.fromkeys(overrides, "given")
    return PolicyObjective(**{"name": name, "sources": sources, **values})


def reinforce(**overrides: Any) -> PolicyObjective:
    """REINFORCE: returns to go times grad logp, whole episodes summed (Williams 1992).

    The gradient of the discounted start value has discount_states=True; what nearly every library ships
    is discount_states=False, the gradient of nothing (Nota & Thomas 2019, arXiv:1906.07073).
    """
    return _make(
        "reinforce", overrides, advantage=("returns", "Williams 1992"), gamma=(0.99, "ours"),
        surrogate=("unclipped", "Williams 1992"), ratio=("none", "Williams 1992"),
        reduction=("fixed", "Williams 1992"),
    )  # fmt: skip


def a2c(**overrides: Any) -> PolicyObjective:
    """A2C (Mnih et al. 2016): n-step advantages, value and entropy terms in one loss."""
    paper = "arXiv:1602.01783, sec. 4 and 8"
    return _make(
        "a2c", overrides, gamma=(0.99, paper), gae_lambda=(1.0, paper), surrogate=("unclipped", paper),
        ratio=("none", paper), value_coef=(1.0, f"{paper}: 0.5, of a loss without the 1/2"),
        entropy_coef=(0.0, "ours"),
    )  # fmt: skip


def ppo(**overrides: Any) -> PolicyObjective:
    """PPO for control (Schulman et al. 2017): clip 0.2, GAE, advantages whitened per minibatch."""
    return _make(
        "ppo", overrides, gamma=(0.99, f"{PPO}, table 3"), gae_lambda=(0.95, f"{PPO}, table 3"),
        clip_eps=(0.2, f"{PPO}, sec. 6.1"), value_coef=(1.0, f"{PPO}, table 5, of a loss without the 1/2: ours"),
        entropy_coef=(0.0, f"{PPO}, sec. 6.1"), scale=("minibatch", "openai/baselines, ppo2"),
    )  # fmt: skip


def vanilla_ppo(**overrides: Any) -> PolicyObjective:
    """PPO for language without any trick but GAE and the clip: it can collapse, which is its use."""
    return _make(
        "vanilla_ppo", overrides, gamma=(1.0, PPO_MAX), gae_lambda=(0.9, f"{PPO_MAX}, sec. 5.1"),
        clip_eps=(0.2, PPO_MAX), value_coef=(1.0, "ours"),
    )  # fmt: skip


def ppo_max(source: Literal["paper", "released_en"] = "paper", **overrides: Any) -> PolicyObjective:
    """PPO-max (Zheng et al. 2023): as the paper's section 5.4 says, or as its released script runs.

    The two disagree, so both exist. Args: source: "paper" or "released_en".
    """
    check_choice(("paper", "released_en"), source=source)
    if source == "paper":
        return _make(
            "ppo_max", overrides, gamma=(1.0, PPO_MAX), gae_lambda=(0.9, f"{PPO_MAX}, sec. 5.1"),
            clip_eps=(0.2, f"{PPO_MAX}, fig. 5"), kl=("reward", f"{PPO_MAX}, trick 1"),
            kl_coef=(0.05, f"ours, of the values studied in {PPO_MAX}"),
            reward_norm=("whiten", f"{PPO_MAX}, trick 5"),
            reward_clip=(0.8, f"ours, of the values studied in {PPO_MAX}"),
            value_kind=("clipped", f"{PPO_MAX}, trick 7"), value_clip_eps=(0.2, f"{PPO_MAX}, trick 7"),
            value_coef=(1.0, "ours"), ptx_coef=(0.1, f"ours; {PPO_MAX}, sec. 5.4 prints no weight"),
        )  # fmt: skip
    return _make(
        "ppo_max_released_en", overrides, gamma=(1.0, RELEASED), gae_lambda=(0.95, RELEASED),
        clip_eps=(0.2, RELEASED), kl=("reward", RELEASED), kl_coef=(0.01, RELEASED),
        reward_norm=("scale", RELEASED), value_kind=("clipped", RELEASED), value_clip_eps=(0.2, RELEASED),
        value_coef=(1.0, RELEASED),
    )  # fmt: skip


def grpo(**overrides: Any) -> PolicyObjective:
    """GRPO (Shao et al. 2024): the group is the baseline, k3 in the loss, mean of means."""
    return _make(
        "grpo", overrides, advantage=("group", f"{GRPO}, sec. 4.1.2"), baseline=("mean", f"{GRPO}, sec. 4.1.2"),
        scale=("group", f"{GRPO}, sec. 4.1.2"), ddof=(1, "ours, as TRL, verl and OpenRLHF"),
        clip_eps=(0.2, f"ours; {GRPO} prints none"), reduction=("sequence", f"{GRPO}, eq. 3"),
        kl=("loss", f"{GRPO}, eq. 3"), kl_kind=("k3", f"{GRPO}, eq. 4"), kl_coef=(0.04, f"{GRPO}, sec. 4.2"),
    )  # fmt: skip


def dr_grpo(length: float = 1.0, **overrides: Any) -> PolicyObjective:
    """Dr. GRPO (Liu et al. 2025): no division by the deviation nor by the answer's own length.

    Args: length: the constant that divides instead, tokens; the longest allowed answer.
    """
    paper = "arXiv:2503.20783"
    return _make(
        "dr_grpo", overrides, advantage=("group", paper), baseline=("mean", paper), scale=("none", paper),
        clip_eps=(0.2, "ours"), reduction=("fixed", paper), length=(length, paper),
    )  # fmt: skip


def dapo(**overrides: Any) -> PolicyObjective:
    """DAPO (Yu et al. 2025): clip-higher, token mean, no KL, dead groups dropped, cut answers masked."""
    return _make(
        "dapo", overrides, advantage=("group", DAPO), baseline=("mean", DAPO), scale=("group", DAPO),
        clip_eps=(0.2, f"{DAPO}, sec. 4.1"), clip_eps_high=(0.28, f"{DAPO}, sec. 4.1"),
        reduction=("token", f"{DAPO}, sec. 3.3"), filter_groups=(True, f"{DAPO}, sec. 3.2"),
        mask_truncated=(True, f"{DAPO}, sec. 3.4"),
    )  # fmt: skip


def gspo(**overrides: Any) -> PolicyObjective:
    """GSPO (Zheng et al. 2025): one ratio per answer, clipped very near 1."""
    paper = "arXiv:2507.18071"
    return _make(
        "gspo", overrides, advantage=("group", paper), baseline=("mean", paper), scale=("group", paper),
        ratio=("sequence", paper), clip_eps=(3e-4, f"{paper}, sec. 5.1"),
        clip_eps_high=(4e-4, f"{paper}, sec. 5.1"), reduction=("sequence", paper),
    )  # fmt: skip


def gspo_token(**overrides: Any) -> PolicyObjective:
    """GSPO-token: GSPO's value with a gradient per token, so that advantages may differ within an answer."""
    return gspo(**{"name": "gspo_token", "ratio": "sequence_token", **overrides})


def cispo(**overrides: Any) -> PolicyObjective:
    """CISPO (MiniMax 2025): REINFORCE with a capped, held ratio; no token loses its gradient."""
    paper = "arXiv:2506.13585, sec. 3.1"
    return _make(
        "cispo", overrides, advantage=("group", paper), baseline=("mean", paper), scale=("group", paper),
        surrogate=("cispo", paper), clip_eps=(None, paper), clip_eps_high=(4.0, "ours: TRL's cap of 5.0"),
        reduction=("token", paper),
    )  # fmt: skip


def rloo(**overrides: Any) -> PolicyObjective:
    """RLOO (Ahmadian et al. 2024): the other answers are the baseline; KL in the reward; whole answers."""
    paper = "arXiv:2402.14740"
    return _make(
        "rloo", overrides, advantage=("group", paper), baseline=("loo", paper), scale=("none", paper),
        surrogate=("unclipped", paper), ratio=("none", paper), reduction=("fixed", paper),
        kl=("reward", paper), kl_coef=(0.05, "ours"),
    )  # fmt: skip


def reinforce_pp(baseline: bool = False, **overrides: Any) -> PolicyObjective:
    """REINFORCE++ (Hu 2025): PPO without a critic: KL in the reward, returns to go whitened over the batch.

    Args: baseline: the variant for several answers per prompt: their mean is subtracted first, and the KL
        is k2 in the loss, whose gradient is that of the KL itself state by state.
    """
    paper = "arXiv:2501.03262"
    advantage = {
        "advantage": ("group", f"{paper}, with baseline"), "baseline": ("mean", f"{paper}, with baseline"),
        "kl": ("loss", f"{paper}, with baseline"), "kl_kind": ("k2", f"{paper}, with baseline"),
    } if baseline else {"advantage": ("returns", paper), "kl": ("reward", paper)}  # fmt: skip
    return _make(
        "reinforce_pp_baseline" if baseline else "reinforce_pp", overrides, **advantage, gamma=(1.0, paper),
        scale=("whiten", paper), clip_eps=(0.2, paper), kl_coef=(0.01, "ours"),
    )  # fmt: skip


def lite_ppo(**overrides: Any) -> PolicyObjective:
    """Lite PPO (Liu et al. 2025): group mean, deviation of the batch, token mean; nothing else."""
    paper = "arXiv:2508.08221"
    return _make(
        "lite_ppo", overrides, advantage=("group", paper), baseline=("mean", paper), scale=("batch", paper),
        clip_eps=(0.2, "ours"), reduction=("token", paper),
    )  # fmt: skip


def kimi(tau: float, **overrides: Any) -> PolicyObjective:
    """The mirror-descent step of Kimi k1.5 (2025). Args: tau: > 0, reward units; 0.5 for rewards 0 and 1."""
    paper = "arXiv:2501.12599, sec. 2.3.2"
    return _make(
        "kimi", overrides, advantage=("group", paper), baseline=("mean", paper), surrogate=("mirror", paper),
        tau=(tau, "given"), log_z=("mean", paper), reduction=("sequence", f"{paper}: a mean over answers"),
    )  # fmt: skip
