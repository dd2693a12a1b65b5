"""The settings of DDPG and TD3: the laptop's, the papers', and MountainCarContinuous.

TD3 is DDPG with three changes, and each is a field here: the smaller of two critics (given by their
number), an actor that moves less often (policy_delay), noise in the target's action (target_noise).

Not here: what they steer (ddpg.py).

Source: Lillicrap et al., arXiv:1509.02971, sec. 7; Fujimoto et al., arXiv:1802.09477, app. C and table 3;
Raffin et al. (rl-baselines3-zoo), hyperparams/td3.yml and ddpg.yml.
"""

from dataclasses import dataclass
from typing import Any

from dodona.core.inputs import check_choice, check_count, check_range
from dodona.errors import ConfigError
from dodona.rl.action_noise import NOISES, NoiseKind


@dataclass(frozen=True, kw_only=True)
class DDPGConfig:
    """All but the networks and the environment; the defaults are small control on a laptop.

    Noise is in units of half the range of the actions.
    """

    num_env_steps: int = 20_000
    """steps of all environments together"""
    actor_lr: float = 1e-3
    """learning rate of the actor. 1e-4 in DDPG, 3e-4 in TD3"""
    critic_lr: float = 1e-3
    """learning rate of the critics. 1e-3 in DDPG, 3e-4 in TD3"""
    gamma: float = 0.98
    """discount in [0, 1]; 0.99 in both papers"""
    batch_size: int = 128
    """rows of a minibatch. 64 in DDPG, 256 in TD3's code"""
    buffer_size: int = 50_000
    """transitions kept. 1e6 in both papers"""
    learning_starts: int = 1000
    """steps with actions drawn evenly from the box, before the first update"""
    train_every: int = 8
    """steps between two bouts of updates. 1 in both papers"""
    gradient_steps: int = 8
    """critic updates of a bout. 1 in both papers"""
    tau: float = 0.005
    """share of the online weights that the targets take on, in (0, 1]. 0.001 in DDPG"""
    policy_delay: int = 1
    """critic updates between two moves of actor and targets. 2 in TD3"""
    target_noise: float = 0.0
    """deviation of the noise in the target's action; 0: none. 0.2 in TD3"""
    target_noise_clip: float = 0.5
    """largest such noise"""
    noise: NoiseKind = "gaussian"
    """exploration: "gaussian", "ou" as in DDPG, "none" """
    noise_std: float = 0.1
    """its deviation in [0, 2]: per step (gaussian), per square root of time (ou). TD3 0.1, DDPG 0.2"""
    ou_theta: float = 0.15
    """pull of the ou noise to 0, per unit of time"""
    ou_dt: float = 0.01
    """time of a step of the ou noise; 0.01 is that of OpenAI Baselines and Stable-Baselines3"""
    num_steps: int = 1
    """rewards in a target"""
    actor_penalty: float = 0.0
    """weight of mean z^2, z before tanh: pulls a saturated actor back; 0: none"""
    critic_decay: float = 0.0
    """weight decay of the critics, added to their gradient. 0.01 in DDPG"""
    optimizer_eps: float = 1e-8
    """added in Adam's denominator"""
    hidden: tuple[int, ...] = (64, 64)
    """widths of networks that are made here. (400, 300) in both papers"""
    record_every: int = 1000
    """steps between two events"""
    evaluate_every: int = 0
    """steps between two evaluations; 0: none"""
    divergence: float = 10.0
    """|target| above this many times max |r| / (1 - gamma) is warned about, once; inf: never"""
    seed: int = 0
    """seed of exploration, replay and of networks that are made here"""

    def __post_init__(self) -> None:
        check_count(
            num_env_steps=self.num_env_steps, batch_size=self.batch_size, buffer_size=self.buffer_size,
            learning_starts=self.learning_starts, train_every=self.train_every,
            gradient_steps=self.gradient_steps, policy_delay=self.policy_delay, num_steps=self.num_steps,
            record_every=self.record_every, **{f"hidden[{i}]": h for i, h in enumerate(self.hidden)},
        )  # fmt: skip
        check_count(0, evaluate_every=self.evaluate_every, seed=self.seed)
        check_range("[0, 1]", gamma=self.gamma)
        check_range("(0, 1]", "DDPG uses 0.001, TD3 0.005; 1 has no slow target at all.", tau=self.tau)  # fmt: skip
        check_range(
            "(0, inf)", actor_lr=self.actor_lr, critic_lr=self.critic_lr, optimizer_eps=self.optimizer_eps,
            ou_theta=self.ou_theta, ou_dt=self.ou_dt,
        )  # fmt: skip
        check_range("[0, inf)", actor_penalty=self.actor_penalty, critic_decay=self.critic_decay)
        check_range(
            "[0, 2]", "Noise is in units of half the range of the actions; 2 spans it all.",
            noise_std=self.noise_std, target_noise=self.target_noise, target_noise_clip=self.target_noise_clip,
        )  # fmt: skip
        check_range("[1, inf]", divergence=self.divergence)
        check_choice(NOISES, noise=self.noise)
        if self.buffer_size < self.batch_size:
            raise ConfigError(
                f"buffer_size {self.buffer_size} is smaller than batch_size {self.batch_size}. Keep at "
                "least one minibatch."
            )
        if self.learning_starts < self.batch_size:
            raise ConfigError(
                f"learning_starts {self.learning_starts} is smaller than batch_size {self.batch_size}: the "
                "first minibatch would repeat the same few rows. Collect at least one minibatch first."
            )

    @classmethod
    def paper(cls, **changes: Any) -> "DDPGConfig":
        """Lillicrap et al. 2015, sec. 7, but for batch normalisation; an update per step, one environment.

        The time step of its noise is not said there; 1 keeps the printed deviation per step.
        """
        return cls(**{
            "num_env_steps": 1_000_000, "actor_lr": 1e-4, "critic_lr": 1e-3, "gamma": 0.99, "batch_size": 64,
            "buffer_size": 1_000_000, "train_every": 1, "gradient_steps": 1, "tau": 0.001, "noise": "ou",
            "noise_std": 0.2, "ou_dt": 1.0, "critic_decay": 0.01, "hidden": (400, 300),
            "record_every": 10_000, **changes,
        })  # fmt: skip

    @classmethod
    def mountain_car(cls, **changes: Any) -> "DDPGConfig":
        """MountainCarContinuous-v0: a reward that only swings in time with the car find.

        Noise of rl-baselines3-zoo, Ornstein-Uhlenbeck of 0.5, on a coarser clock: it forgets in 33 steps, about
        as long as the car rolls one way. Alone it reaches the goal in 9 of 10 episodes; with the zoo's clock,
        which forgets in 667, in 1 of 10. Ten rewards in a target carry the goal's 100 back before the actor has
        settled for standing still, which costs nothing; the penalty keeps DDPG's from running into a corner of
        the box before that.
        """
        return cls(**{
            "num_env_steps": 20_000, "gamma": 0.99, "noise": "ou", "noise_std": 0.5, "ou_dt": 0.2,
            "learning_starts": 200, "num_steps": 10, "gradient_steps": 4, "actor_penalty": 0.01,
            **changes,
        })  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TD3Config(DDPGConfig):
    """DDPGConfig with TD3's policy_delay and target noise."""

    policy_delay: int = 2
    """critic updates between two moves of actor and targets"""
    target_noise: float = 0.2
    """deviation of the noise in the target's action; 0: none"""

    @classmethod
    def paper(cls, **changes: Any) -> "TD3Config":
        """Fujimoto et al. 2018, with the authors' later code: 256-256, 3e-4, 256 rows, 25 000 random steps."""
        return cls(**{
            "num_env_steps": 1_000_000, "actor_lr": 3e-4, "critic_lr": 3e-4, "gamma": 0.99, "batch_size": 256,
            "buffer_size": 1_000_000, "learning_starts": 25_000, "train_every": 1, "gradient_steps": 1,
            "tau": 0.005, "noise": "gaussian", "noise_std": 0.1, "hidden": (256, 256),
            "record_every": 10_000, **changes,
        })  # fmt: skip
