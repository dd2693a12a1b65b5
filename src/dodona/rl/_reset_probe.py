"""What a vector environment really does when an episode ends, found out by playing it.

The evidence of an ended row: its final observation lies in info (SAME_STEP); the call after it has reward 0
and no flag (NEXT_STEP); it fails, or its flag stays (DISABLED); it simply goes on, so that it was reset and
the final observation is lost (SAME_STEP, broken).

Not here: the contract of an Env (env_check.py).

Source: Gymnasium 1.x, AutoresetMode (Farama Foundation).
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode

from dodona.rl.gymnasium_env import FINAL

LOST = "lost"  # it was reset in the same step, and nobody has the final observation


@dataclass
class Probe:
    """mode: what was seen, None where too little was; problems: sentences for a report."""

    mode: AutoresetMode | None = None
    problems: list[str] = field(default_factory=list)


def probe(
    source: Any,
    declared: AutoresetMode | None,
    choose: Callable[[], np.ndarray],
    *,
    num_steps: int,
    seed: int,
) -> Probe:
    """Play num_steps calls and look at what follows every end.

    Args: choose: actions for all rows, as the environment wants them.
    Source: see the module.  Oracle: environments that lie (tests/rl/test_env_check.py).  Cost: num_steps calls.
    """
    votes: Counter[Any] = Counter()
    found = Probe()
    earned = False  # without any reward an idle row looks like every other
    source.reset(seed=seed)
    ended = np.zeros(source.num_envs, dtype=bool)
    for t in range(num_steps):
        try:
            step = source.step(choose())
        except Exception as error:
            if not ended.any():
                found.problems.append(
                    f"step {t} raised {type(error).__name__}: {_first_line(error)}"
                )
                break
            votes[AutoresetMode.DISABLED] += int(ended.sum())
            break  # what state it is in now, nobody knows
        if len(step) != 5:
            found.problems.append(
                f"step returns {len(step)} values, expected obs, reward, terminated, truncated, info"
            )
            break
        _, rewards, terminated, truncated, info = step
        rewards, flags = np.asarray(rewards), np.asarray(terminated) | np.asarray(truncated)
        idle = (rewards == 0) & ~flags
        for n in np.flatnonzero(ended):
            if idle[n]:
                votes[AutoresetMode.NEXT_STEP] += 1
            elif declared != AutoresetMode.DISABLED:
                votes[AutoresetMode.DISABLED if flags[n] else LOST] += 1
        earned = earned or bool((rewards != 0).any())
        final = next((info[name] for name in FINAL if name in info), None)
        ended = flags.copy()
        for n in np.flatnonzero(flags):
            if final is not None and final[n] is not None:
                votes[AutoresetMode.SAME_STEP] += 1
                ended[n] = False  # it has begun anew; nothing is left to see
        if declared == AutoresetMode.DISABLED and ended.any():
            votes[AutoresetMode.DISABLED] += int(ended.sum())
            source.reset(options={"reset_mask": ended.copy()})
    return _verdict(found, votes, declared, earned)


def _verdict(
    found: Probe, votes: Counter[Any], declared: AutoresetMode | None, earned: bool
) -> Probe:
    idle = votes[AutoresetMode.NEXT_STEP]
    if declared == AutoresetMode.DISABLED:
        if votes[AutoresetMode.SAME_STEP]:
            found.mode = AutoresetMode.SAME_STEP
        elif votes[AutoresetMode.DISABLED]:
            # after a reset that was asked for, a row must play on; a row of reward 0 may by chance
            all_idle = earned and idle >= votes[AutoresetMode.DISABLED] - 1 > 0
            found.mode = AutoresetMode.NEXT_STEP if all_idle else AutoresetMode.DISABLED
        return found
    if votes[AutoresetMode.SAME_STEP]:
        found.mode = AutoresetMode.SAME_STEP
        if idle + votes[LOST] + votes[AutoresetMode.DISABLED]:
            found.problems.append(
                f"some episodes end without a final observation in info ({' or '.join(FINAL)})"
            )
    elif votes[LOST] > votes[AutoresetMode.DISABLED]:
        found.mode = AutoresetMode.SAME_STEP
        found.problems.append(
            "rows go on right after an episode's end, so they were reset in the same step, but info has no "
            f"{' or '.join(FINAL)}: the true successor is lost"
        )
    elif votes[AutoresetMode.DISABLED]:
        found.mode = AutoresetMode.DISABLED
    elif idle and earned:
        found.mode = AutoresetMode.NEXT_STEP
    elif idle:
        found.problems.append(
            "no step had a reward, so the call after an episode's end says nothing about resets; pass a "
            "policy that earns some, or state the mode"
        )
    return found


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]
