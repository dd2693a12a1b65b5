"""dodona: learning methods from Bellman's equation to GRPO, each with its oracle."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from dodona.rl.trained_policy import TrainedPolicy

__version__ = "0.1.0"
__all__ = ["__version__", "load_policy"]


def load_policy(
    run: "str | Path",
    *,
    arm: str | None = None,
    seed: int | None = None,
    out: "str | Path" = "runs",
) -> "TrainedPolicy":
    """The policy that a run has trained, with the statistics of its observations frozen.

        policy = dodona.load_policy("latest")
        actions = policy.env_actions(policy.distribution(obs).mode())     # obs [B, ...], as the environment gives it

    Args:
        run: a run's folder, its id (date-time-hash), "latest", or a policy file (.safetensors).
        arm, seed: which one of a run that trained several, as its events and report name them. Without a
            seed it is the one whose last evaluation was best, the first of equal ones, and without an arm
            the best of all, if they have learnt the same task.
        out: where ids and "latest" are looked up.
    Returns:
        A Policy; ``facts`` says what it was trained on, and its return in its last evaluation, which is above
        what it will reach where it was chosen for it. A run that was stopped gives the policy of its last
        evaluation.
    Raises:
        DataError: no such run, a run without a policy, a damaged file.
        InputError: no such arm or seed; several tasks and no arm.
    Source: ours.  Oracle: the trainer's own policy (tests/recipes/test_load_policy.py).
    """
    from pathlib import Path

    from dodona import recipes
    from dodona.runs import RunFolder

    path = Path(run)
    if not path.is_file():  # a run's folder, by whatever name
        path = RunFolder.open(run, out=out).path
    return recipes.load_policy(path, arm=arm, seed=seed)
