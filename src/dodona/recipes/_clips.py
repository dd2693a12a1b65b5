"""One greedy episode of a trained policy, recorded while it is there, and its picture in the report.

The classic control tasks leave their observations and are drawn from them; other environments of Gymnasium leave
an animated picture from their own renderer, and where that is missing a sentence that says what to install.

Source: ours.  Not here: the drawing (figures/clip.py), evaluations (rl.evaluate), of which this is none.
"""

import io
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import plotly.graph_objects as go
import torch
from PIL import Image

from dodona.core.protocols import Event
from dodona.errors import DataError
from dodona.figures.clip import SCENES, WIDTH, clip, film, sentence
from dodona.rl.environments import Env, make_env
from dodona.rl.episodes import env_actions
from dodona.rl.gymnasium_env import GymnasiumEnv
from dodona.rl.recurrent import remembering

LONGEST = 2000  # steps of an episode that nothing ends
STILLS = 40  # at least, of a longer film; twice as many at most


def record(
    policy: Any, env_id: str, *, seed: int, name: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Play one episode by the mode of the policy's law.

    Args: policy: takes raw observations.  seed: of the episode.  name: of the run, for the artifact.
    Returns: (what the event says: env, file, return, length; the artifact).
    """
    key = f"clip-{name}"
    if env_id in SCENES:
        seen: list[np.ndarray] = []
        total, length = _play(
            policy, make_env(env_id, 1, seed=seed), seed, lambda obs: seen.append(obs.numpy(force=True))
        )  # fmt: skip
        artifacts: dict[str, Any] = {key: np.stack(seen)}
    else:
        try:
            content, total, length = _filmed(policy, env_id, seed)
            key += ".webp"
        # a renderer is somebody else's code and may need a package, a display, a driver: no reason to lose a run
        except Exception as error:
            content, total, length = _why_not(error), math.nan, 0
            key += ".txt"
        artifacts = {key: content}
    return {"env": env_id, "file": key, "return": total, "length": length}, artifacts


def figures(events: Sequence[Event], artifacts: Mapping[str, Path]) -> dict[str, go.Figure]:
    """Of every environment the clip of the policy whose last evaluation was best.

    Raises: DataError: an artifact is damaged.
    """
    best: dict[str, Event] = {}
    for event in events:
        told = event.data.get("clip")
        if told and told["file"] in artifacts:
            before = best.get(told["env"])
            if before is None or _worth(event) > _worth(before):
                best[told["env"]] = event
    return {f"clip {env_id}": _figure(event, artifacts) for env_id, event in best.items()}


def _figure(event: Event, artifacts: Mapping[str, Path]) -> go.Figure:
    told, arm = event.data["clip"], event.data.get("arm")
    path, env_id = artifacts[told["file"]], told["env"]
    # some arms are called after their task, or begin with it
    who = env_id if arm is None else arm if arm.startswith(env_id) else f"{env_id}, {arm}"
    try:
        if path.suffix == ".txt":
            return sentence(path.read_text(), title=f"{env_id}: no clip")
        ends = f"return {told['return']:.4g} in {told['length']} steps"
        title = f"{who}: one episode of the best seed, {event.data.get('seed')}: {ends}"
        if path.suffix == ".webp":
            return film(path.read_bytes(), title=title)
        return clip(np.load(path, allow_pickle=False), env_id, title=title)
    except (OSError, EOFError, ValueError) as error:
        raise DataError(
            f"{path} is damaged: {error} Delete it for a report without this clip."
        ) from None


def _worth(event: Event) -> float:
    worth = event.metrics.get("eval/return", math.nan)
    return -math.inf if math.isnan(worth) else worth


@torch.no_grad()
def _play(
    policy: Any, env: Env, seed: int, look: Callable[[torch.Tensor], None]
) -> tuple[float, int]:
    """(return, length) of the first episode; ``look`` is given every observation of it, the last one too."""
    if getattr(policy, "remembers", False):
        policy, env = remembering(policy, env)
    obs, total, length = env.reset(seed=seed), 0.0, 0
    look(obs[0])
    while length < LONGEST:
        step = env.step(env_actions(policy, env, policy.distribution(obs).mode()))
        total, length = total + float(step.rewards[0]), length + 1
        look(step.next_obs[0])
        if bool(step.cut[0]):
            break
        obs = step.obs
    return total, length


def _filmed(policy: Any, env_id: str, seed: int) -> tuple[bytes, float, int]:
    """(an animated WebP, return, length), by the environment's own renderer."""
    # pygame greets on standard output, where --json has the word
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    made = gymnasium.make(env_id, render_mode="rgb_array", disable_env_checker=True)
    try:
        camera = _Camera(made)
        env = GymnasiumEnv([lambda: camera], seed=seed, id=env_id)
        total, length = _play(policy, env, seed, lambda obs: None)
        return camera.animation(), total, length
    finally:
        made.close()


class _Camera(gymnasium.Wrapper):
    """Takes a still now and then, ever more rarely: how long an episode gets is not known before."""

    def __init__(self, env: gymnasium.Env):
        super().__init__(env)
        self.stills: list[Image.Image] = []
        self.every, self.time, self.over = 1, 0, False

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        answer = self.env.reset(**options)
        self._shoot()
        return answer

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        answer = self.env.step(action)
        self._shoot()
        self.over = self.over or answer[2] or answer[3]  # what follows is another episode
        return answer

    def animation(self) -> bytes:
        fps = self.env.metadata.get("render_fps") or 30
        buffer = io.BytesIO()
        first, *others = self.stills
        first.save(
            buffer, "WEBP", save_all=True, append_images=others, quality=80, method=2,
            duration=round(1000 * self.every / fps),
        )  # fmt: skip
        return buffer.getvalue()

    def _shoot(self) -> None:
        if self.over:
            return
        if self.time % self.every == 0:
            still = Image.fromarray(np.asarray(self.env.render()))
            still.thumbnail((WIDTH, WIDTH))
            self.stills.append(still)
            if len(self.stills) == 2 * STILLS:
                self.stills, self.every = self.stills[::2], 2 * self.every
        self.time += 1


def _why_not(error: Exception) -> bytes:
    return f"Its renderer gave no picture: {' '.join(str(error).split())}".encode()
