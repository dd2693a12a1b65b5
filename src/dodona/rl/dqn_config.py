"""The settings of DQN: the laptop's, CleanRL's, Nature's.

Not here: what they steer (dqn.py).

Source: Mnih et al. 2015, extended data table 1; Huang et al. 2022 (CleanRL), docs/rl-algorithms/dqn.md.
"""

from dataclasses import dataclass
from typing import Any, Literal

from dodona.core.inputs import check_choice, check_count, check_range
from dodona.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class DQNConfig:
    """All of DQN but the network and the environment; the defaults are small control on a laptop."""

    num_env_steps: int = 50_000
    """steps of all environments together; with a data set, as many as the updates would belong to"""
    lr: float = 6e-3
    """learning rate; large, and steadied by frequent fresh targets. CleanRL 2.5e-4"""
    lr_decay: float = 0.0
    """share of lr that is gone at the end of the run, in [0, 1]; it falls in a straight line"""
    gamma: float = 0.995
    """discount in [0, 1]; 0.99 is usual, episodes of 500 steps look further"""
    batch_size: int | None = 64
    """rows of a minibatch; None: all that is stored, for small data sets"""
    buffer_size: int = 50_000
    """transitions kept"""
    learning_starts: int = 500
    """steps before the first update"""
    train_every: int = 40
    """steps between two bouts of updates"""
    gradient_steps: int = 10
    """updates of a bout"""
    target_every: int = 10
    """updates between two moves of the target network"""
    tau: float = 1.0
    """share of the online weights in such a move, in (0, 1]; 1 = copy"""
    epsilon: tuple[float, float, float] = (1.0, 0.05, 0.1)
    """share of random actions: first, last, and over which share of num_env_steps it falls"""
    double: bool = False
    """the online network chooses the action that the target network judges"""
    dueling: bool = False
    """q = v + A - mean A; asked of the network, and given to one that is made here"""
    prioritized: bool = False
    """transitions with large errors are drawn more often"""
    priority_exponent: float = 0.6
    """how much more, in [0, 1]"""
    beta: tuple[float, float] = (0.4, 1.0)
    """first and last exponent of the importance weights, in [0, 1]"""
    num_steps: int = 1
    """rewards in a target"""
    loss: Literal["mse", "huber"] = "mse"
    """huber: errors beyond 1 pull with constant force, which is Nature's clipped error"""
    optimizer: Literal["adam", "rmsprop", "sgd"] = "adam"
    """rmsprop is centred, as Nature's"""
    optimizer_eps: float = 1e-8
    """added in the denominator: adam outside the root, rmsprop under it, as Nature's"""
    max_grad_norm: float | None = None
    """longest gradient; None: any"""
    record_every: int = 1000
    """steps between two events"""
    evaluate_every: int = 0
    """steps between two evaluations; 0: none"""
    divergence: float = 10.0
    """|q| above this many times max |r| / (1 - gamma) is warned about, once; inf: never"""
    seed: int = 0
    """seed of exploration, replay and of a network that is made here"""

    def __post_init__(self) -> None:
        check_count(
            num_env_steps=self.num_env_steps, batch_size=self.batch_size, buffer_size=self.buffer_size,
            learning_starts=self.learning_starts, train_every=self.train_every,
            gradient_steps=self.gradient_steps, num_steps=self.num_steps, record_every=self.record_every,
        )  # fmt: skip
        check_count(0, evaluate_every=self.evaluate_every, seed=self.seed)
        check_range(
            "[0, 1]",
            gamma=self.gamma,
            lr_decay=self.lr_decay,
            epsilon=self.epsilon[:2],
            beta=self.beta,
        )
        check_range("(0, 1]", "It is a share of num_env_steps.", epsilon_share=self.epsilon[2])
        check_range("(0, 1]", "1 copies; DDPG uses 0.001 with target_every=1.", tau=self.tau)
        check_range("(0, inf)", lr=self.lr, optimizer_eps=self.optimizer_eps, max_grad_norm=self.max_grad_norm)  # fmt: skip
        check_range("[1, inf]", divergence=self.divergence)
        check_choice(("mse", "huber"), loss=self.loss)
        check_choice(("adam", "rmsprop", "sgd"), optimizer=self.optimizer)
        most = self.num_env_steps // self.train_every * self.gradient_steps
        if not 1 <= self.target_every <= max(1, most):
            raise ConfigError(
                f"target_every is {self.target_every} and the run makes at most {most} updates: the target "
                "network would never move. Use a number from 1 to that."
            )
        if self.batch_size is not None and self.buffer_size < self.batch_size:
            raise ConfigError(
                f"buffer_size {self.buffer_size} is smaller than batch_size {self.batch_size}. Keep at "
                "least one minibatch."
            )
        if self.batch_size is not None and self.learning_starts < self.batch_size:
            raise ConfigError(
                f"learning_starts {self.learning_starts} is smaller than batch_size {self.batch_size}: the "
                "first minibatch would repeat the same few rows. Collect at least one minibatch first."
            )
        if self.batch_size is None and self.prioritized:
            raise ConfigError(
                "batch_size=None learns from every row and has nothing to prioritize."
            )

    @classmethod
    def cleanrl(cls, **changes: Any) -> "DQNConfig":
        """CleanRL's dqn.py for classic control. Its update per 10 steps comes as five per 50, whose targets are
        computed together; its target moves every 500 steps, which are 50 updates.
        """
        return cls(**{
            "num_env_steps": 500_000, "lr": 2.5e-4, "gamma": 0.99, "batch_size": 128, "buffer_size": 10_000,
            "learning_starts": 10_000, "train_every": 50, "gradient_steps": 5, "target_every": 50,
            "epsilon": (1.0, 0.05, 0.5), "record_every": 10_000, **changes,
        })  # fmt: skip

    @classmethod
    def nature(cls, **changes: Any) -> "DQNConfig":
        """Mnih et al. 2015, extended data table 1: RMSProp, clipped errors, epsilon to 0.1 over 1e6 steps.

        A million stacks of frames need 56 GB here: a smaller buffer_size may be wanted.
        """
        return cls(**{
            "num_env_steps": 50_000_000, "lr": 2.5e-4, "gamma": 0.99, "batch_size": 32,
            "buffer_size": 1_000_000, "learning_starts": 50_000, "train_every": 4, "gradient_steps": 1,
            "target_every": 10_000, "epsilon": (1.0, 0.1, 0.02), "loss": "huber", "optimizer": "rmsprop",
            "optimizer_eps": 0.01, "record_every": 100_000, **changes,
        })  # fmt: skip
