"""The 37 implementation details of PPO, each a switch: on is what the source does, off what one would do without.

    PPODetails()                        the 13 of the core
    PPODetails.continuous()             and 9 for real actions
    PPODetails(clip_value=False)        one of them off

Switches decide whether, numbers stay with the config: clip_grad_norm takes its max_grad_norm, or none. What a
detail turns into is here where it is a setting (``settle``, ``optimizer``, ``normalizer``) or a wrapper of a game,
which is put on where the environment is made (``wrap``), and in ppo_networks.py where it is a network;
ppo_detailed.py puts them together.

Source: Huang et al. 2022, "The 37 implementation details of PPO" (ICLR blog track), in its order; where the
detail was found is named beside it. Not here: what each of them is worth (ablation.py).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import nn

from dodona.core.inputs import check_choice
from dodona.errors import ConfigError
from dodona.rl.environments import Env
from dodona.rl.normalizer import Normalizer

__all__ = ["GROUPS", "PPODetails"]

BOUND = 10.0  # of normalised observations and rewards, deviations
REAL = ("gaussian_actions", "state_independent_std", "independent_actions", "raw_actions")


@dataclass(frozen=True, kw_only=True)
class PPODetails:
    """37 switches and a size. The defaults are the 13 details of the core and nothing else.

    Raises (when made): ConfigError: switches that contradict each other, by name.
    Oracle: of each switch, what it turns into, by hand (tests/rl/test_ppo_details.py).
    """

    # ------------------------------------------------------------------ core, 13
    vector_env: bool = True
    """1. episodes run on from collection to collection (baselines, ppo2/runner.py). Off: each begins anew"""
    orthogonal_init: bool = True
    """2. orthogonal weights, gain sqrt 2, last layers 0.01 and 1, biases 0 (a2c/utils.py). Off: torch's uniform"""
    adam_eps: bool = True
    """3. epsilon 1e-5 in Adam (ppo2/model.py). Off: 1e-8"""
    anneal_lr: bool = True
    """4. the learning rate falls linearly to 0 (ppo2/ppo2.py). Off: it stays"""
    gae: bool = True
    """5. advantages by GAE (ppo2/runner.py). Off: lambda = 1, returns to go minus values"""
    minibatches: bool = True
    """6. shuffled minibatches that cover the collection (ppo2/ppo2.py). Off: one step of all of it per epoch"""
    normalize_advantages: bool = True
    """7. whitened in each minibatch (ppo2/model.py). Off: as they are"""
    clip: bool = True
    """8. the clipped surrogate (arXiv:1707.06347, eq. 7). Off: the ratio times the advantage"""
    clip_value: bool = True
    """9. the critic's loss is clipped around its old values (ppo2/model.py). Off: the plain square"""
    entropy_bonus: bool = True
    """10. one loss with an entropy bonus of entropy_coef (arXiv:1707.06347, eq. 9). Off: no bonus"""
    clip_grad_norm: bool = True
    """11. all gradients together are scaled to max_grad_norm (ppo2/model.py). Off: not at all"""
    debug_variables: bool = True
    """12. KL (k1, k3), clip fraction, explained variance are told (ppo2/model.py). Off: losses only"""
    separate_networks: bool = True
    """13. policy and critic share nothing (common/policies.py). Off: one trunk, two last layers"""
    # ------------------------------------------------------------------ Atari, 9; the first 7 are `wrap`'s
    noop_reset: bool = False
    """1. 1 to 30 idle frames at a start (Mnih et al. 2015). Off: none"""
    max_and_skip: bool = False
    """2. each action four times, the maximum of the last two frames (Mnih et al. 2015). Off: every frame"""
    episodic_life: bool = False
    """3. a lost life ends the episode (common/atari_wrappers.py). Off: only the game's end does"""
    fire_reset: bool = False
    """4. FIRE at a start (common/atari_wrappers.py). Off: the agent must find it"""
    warp_frame: bool = False
    """5. 84 x 84 grey (Mnih et al. 2015). Off: frames as they are"""
    sign_rewards: bool = False
    """6. the sign of the reward (Mnih et al. 2015). Off: points"""
    frame_stack: bool = False
    """7. four frames as channels (Mnih et al. 2015). Off: one"""
    shared_cnn: bool = False
    """8. policy and critic on one Nature network (common/policies.py). Off: one each, or one trunk of a perceptron"""
    scale_images: bool = False
    """9. bytes over 255 (common/models.py). Off: 0 to 255"""
    # ------------------------------------------------------------------ real actions, 9
    gaussian_actions: bool = False
    """1. a normal law (common/distributions.py). Off: a Beta on the box (Chou et al. 2017)"""
    state_independent_std: bool = False
    """2. one log deviation for all states, 0 at first (common/distributions.py). Off: a head of the network"""
    independent_actions: bool = False
    """3. the components are independent (common/distributions.py). Off: a full covariance, the same everywhere"""
    separate_mlps: bool = False
    """4. policy and critic share nothing (ppo2/defaults.py). Off: one trunk, two last layers"""
    raw_actions: bool = False
    """5. clipped towards the environment, stored as sampled (common/cmd_util.py). Off: stored as clipped"""
    normalize_obs: bool = False
    """6. observations over their running deviation (common/vec_env/vec_normalize.py). Off: as they are"""
    clip_obs: bool = False
    """7. and within 10 deviations (vec_normalize.py). Off: unbounded"""
    scale_rewards: bool = False
    """8. rewards over the deviation of their discounted sums (vec_normalize.py). Off: as they are"""
    clip_rewards: bool = False
    """9. and within 10 deviations (vec_normalize.py). Off: unbounded"""
    # ------------------------------------------------------------------ LSTM, 5; any of them makes it recurrent
    lstm_init: bool = False
    """1. LSTM weights orthogonal with gain 1, biases 0 (a2c/utils.py). Off: torch's uniform"""
    zero_state: bool = False
    """2. a memory of zeros at first (common/models.py). Off: one drawn from a normal law"""
    reset_state: bool = False
    """3. memory is set back where an episode begins (a2c/utils.py). Off: it runs on"""
    sequence_minibatches: bool = False
    """4. minibatches are whole rows in their order (ppo2/ppo2.py). Off: shuffled steps, each from its stored state"""
    rebuild_state: bool = False
    """5. training runs along the row again (ppo2/model.py). Off: every step from the state stored at collection"""
    # ------------------------------------------------------------------ several choices at once, 1
    multi_discrete: bool = False
    """1. a product of categorical laws (common/distributions.py). Off: one law of all combinations"""
    action_sizes: tuple[int, ...] | None = None
    """of multi_discrete, no switch: how many of each choice; their product is the environment's num_actions"""

    def __post_init__(self) -> None:
        real = any(getattr(self, name) for name in REAL)
        contradictions = [
            (self.shared_cnn and self.separate_networks,
             "shared_cnn=True is one network, separate_networks=True two. Switch one of them off."),
            (self.separate_mlps and not self.separate_networks,
             "separate_mlps=True is two networks, separate_networks=False one. Switch both alike."),
            (self.sign_rewards and self.scale_rewards,
             "sign_rewards and scale_rewards are two scales of one reward. Switch one of them off."),
            (self.clip_obs and not self.normalize_obs,
             "clip_obs=True bounds normalised observations and needs normalize_obs=True."),
            (self.clip_rewards and not self.scale_rewards,
             "clip_rewards=True bounds scaled rewards and needs scale_rewards=True. For signs: sign_rewards."),
            (real and not self.gaussian_actions and not all(getattr(self, name) for name in REAL[1:]),
             "gaussian_actions=False is a Beta law: its parts are independent, its shape is the network's, and "
             f"samples are stored raw. Leave {', '.join(REAL[1:])} on."),
            (self.is_recurrent and (self.separate_networks or self.separate_mlps),
             "an LSTM is shared by policy and critic. Use separate_networks=False and separate_mlps=False."),
            (self.is_recurrent and not self.vector_env,
             "a memory runs on from collection to collection, and vector_env=False would cut it."),
            (self.rebuild_state and not self.sequence_minibatches,
             "rebuild_state=True runs along rows, whose order sequence_minibatches=False loses. Switch "
             "rebuild_state off as well."),
            (self.is_recurrent and real and not all(getattr(self, name) for name in REAL),
             f"the recurrent policy of real actions is a Gaussian with all of {', '.join(REAL)}."),
            (self.multi_discrete and self.action_sizes is None,
             "multi_discrete=True needs action_sizes, such as (3, 2): how many of each choice."),
            (not self.multi_discrete and self.action_sizes is not None,
             f"action_sizes={self.action_sizes} belongs to multi_discrete=True."),
            (self.multi_discrete and (real or self.is_recurrent or self.shared_cnn),
             "multi_discrete is for perceptrons with several numbered choices. Switch the details of real "
             "actions, LSTM and CNN off."),
        ]  # fmt: skip
        for wrong, what in contradictions:
            if wrong:
                raise ConfigError(f"details contradict each other: {what}")

    @classmethod
    def none(cls) -> "PPODetails":
        """Everything off: what is left is a ratio times a return, on plain networks."""
        return cls(**dict.fromkeys(SWITCHES, False))

    @classmethod
    def atari(cls, **changes: Any) -> "PPODetails":
        """The core with one network for both, and the 9 details of Atari."""
        return _on("atari", changes, separate_networks=False)

    @classmethod
    def continuous(cls, **changes: Any) -> "PPODetails":
        """The core and the 9 details of real actions."""
        return _on("continuous", changes)

    @classmethod
    def lstm(cls, **changes: Any) -> "PPODetails":
        """The core with one network for both, and the 5 details of an LSTM."""
        return _on("lstm", changes, separate_networks=False)

    @property
    def is_recurrent(self) -> bool:
        """Any detail of an LSTM is on."""
        return any(getattr(self, name) for name in GROUPS["lstm"])

    def flipped(self, name: str) -> "PPODetails":
        """The same with one switch the other way.

        Raises: ConfigError: the others do not allow it.  InputError: no such switch.
        """
        check_choice(SWITCHES, name=name)
        return replace(self, **{name: not getattr(self, name)})

    def require(self, env: Env) -> None:
        """Raises: ConfigError: details of real actions for numbered ones, or the other way round; of images
        or frames for vectors; numbered states; sizes that do not fit."""
        real, images = env.action_dim is not None, len(env.obs_shape) == 3
        given_real, given_images = (
            [n for n in names if getattr(self, n)] for names in (REAL, ("shared_cnn", "scale_images"))
        )  # fmt: skip
        for wrong, what in (
            (env.num_states is not None, "numbers its states, and details are of networks. Use details=None."),
            (real and not given_real, f"has real actions, and none of {', '.join(REAL)} is on. Use PPODetails.continuous()."),
            (not real and bool(given_real), f"has numbered actions, and {', '.join(given_real)} are of real ones."),
            (not images and bool(given_images), f"has observations of shape {tuple(env.obs_shape)}, and "
             f"{', '.join(given_images)} are of images [C, H, W]."),
            (env.action_dim == 1 and self.gaussian_actions and not self.independent_actions,
             "has one action: independent_actions=False has nothing to correlate."),
            (self.multi_discrete and env.num_actions != _product(self.action_sizes),
             f"has num_actions {env.num_actions}, and action_sizes={self.action_sizes} make "
             f"{_product(self.action_sizes)}."),
        ):  # fmt: skip
            if wrong:
                raise ConfigError(f"{env.id} {what}")

    def settle(self, config: Any) -> Any:
        """A PPOConfig in which every switch that is a setting is set.

        Args: config: whose numbers are used where a switch is on.
        Raises: ConfigError: a switch is on and its number is missing, or the config says otherwise.
        """
        objective = config.objective
        for wrong, what in (
            (self.clip and objective.clip_eps is None, "clip=True needs the objective's clip_eps."),
            (config.anneal_clip and not self.clip, "anneal_clip is set, and clip=False has nothing to lower."),
            (self.clip_grad_norm and config.max_grad_norm is None,
             "clip_grad_norm=True needs max_grad_norm; the source uses 0.5."),
            (config.normalize_obs and not self.normalize_obs,
             "the config has normalize_obs=True, and the detail of that name is off. Say it once, in the details."),
            (config.normalize_rewards and not self.scale_rewards,
             "the config has normalize_rewards=True, and scale_rewards is off. Say it once, in the details."),
            (self.clip and config.penalty is not None,
             "a KL penalty is in place of the clip. Use clip=False."),
            (getattr(config, "num_seeds", 1) != 1, "details are for single runs, num_seeds=1."),
        ):  # fmt: skip
            if wrong:
                raise ConfigError(what)
        plain = "mse" if objective.value_kind.startswith("clipped") else objective.value_kind
        changes: dict[str, Any] = {
            "scale": "minibatch" if self.normalize_advantages else "none",
            "surrogate": "clip" if self.clip else "unclipped",
            "value_kind": "clipped" if self.clip_value else plain,
        }
        if not self.gae:
            changes["gae_lambda"] = 1.0
        if not self.clip:
            changes["dual_clip"] = None
        if not self.entropy_bonus:
            changes |= {"entropy_coef": 0.0, "entropy_target": None}
        return replace(
            config, anneal=self.anneal_lr, objective=replace(objective, **changes),
            minibatches=config.minibatches if self.minibatches else 1,
            max_grad_norm=config.max_grad_norm if self.clip_grad_norm else None,
            normalize_obs=self.normalize_obs, normalize_rewards=self.scale_rewards,
        )  # fmt: skip

    def optimizer(self) -> str | Callable[[list[nn.Parameter], float], torch.optim.Optimizer]:
        """The optimizer of GradientUpdate: the house's Adam, or one with torch's own epsilon."""
        return "adam" if self.adam_eps else _adam

    def normalizer(self, env: Env, *, gamma: float) -> Normalizer | None:
        """The scales of observations and rewards, if any.  Args: gamma: discount of the reward sums."""
        if not (self.normalize_obs or self.scale_rewards):
            return None
        return Normalizer(
            env, gamma=gamma, normalize_obs=self.normalize_obs, normalize_rewards=self.scale_rewards,
            obs_clip=BOUND if self.clip_obs else None, reward_clip=BOUND if self.clip_rewards else None,
        )  # fmt: skip

    def wrap(self, env: Any) -> Any:
        """A Gymnasium game with the wrappers that are on: for the factories of a GymnasiumEnv.

        Raises: as wrap_atari.
        """
        from dodona.rl.atari import wrap_atari

        return wrap_atari(
            env, noop_max=30 if self.noop_reset else 0, skip=4 if self.max_and_skip else 1,
            episodic_life=self.episodic_life, fire_reset=self.fire_reset,
            size=84 if self.warp_frame else None, sign_rewards=self.sign_rewards,
            stack=4 if self.frame_stack else 1,
        )  # fmt: skip


SWITCHES = tuple(f.name for f in fields(PPODetails) if f.name != "action_sizes")
GROUPS: Mapping[str, tuple[str, ...]] = {
    "core": SWITCHES[:13],
    "atari": SWITCHES[13:22],
    "continuous": SWITCHES[22:31],
    "lstm": SWITCHES[31:36],
    "multi_discrete": SWITCHES[36:],
}
"""The names of the switches, in the source's order."""


# ---------------------------------------------------------------------- private
def _on(group: str, changes: dict[str, Any], **other: bool) -> PPODetails:
    return PPODetails(**dict.fromkeys(GROUPS[group], True) | other | changes)


def _adam(parameters: list[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr, eps=1e-8, fused=True)


def _product(sizes: tuple[int, ...] | None) -> int:
    total = 1
    for size in sizes or ():
        total *= size
    return total
