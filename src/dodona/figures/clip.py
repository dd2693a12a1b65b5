"""An episode as a film under Play and Pause: the classic control tasks drawn from their observations, others from pictures.

A film stands still until somebody presses Play, so that it disturbs nobody who asked for less motion; the slider
goes to any step. The drawings are a few lines per frame: 500 steps of CartPole take some 100 kB.

Source: geometry and frame rates of Gymnasium's renderers (Farama Foundation).  Not here: playing the episode.
"""

# pyright: reportAttributeAccessIssue=false
# plotly tells type checkers nothing of what a figure holds

import base64
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float

from dodona.errors import DataError, InputError, ShapeError, nearest
from dodona.figures.style import COLOURS, INK, styled

MOST = 250  # frames of a drawing
BYTES = 280_000  # of all stills of a film, as they stand in the report
QUALITIES = (70, 50, 30)  # of a still, tried in this order until all fit
SLOWEST = (
    120.0  # milliseconds between stills; where they are rare, the film runs faster than the episode
)
WIDTH = 460  # pixels
Lines = list[tuple[list[float], list[float]]]
Style = Mapping[str, Any]
BODY: Style = {"mode": "lines", "line": {"color": COLOURS[0], "width": 3}, "fill": "toself"}
LIMB: Style = {"mode": "lines", "line": {"color": COLOURS[5], "width": 7}}
TIP: Style = {"mode": "markers", "marker": {"color": COLOURS[1], "size": 16}}
GROUND: Style = {"mode": "lines", "line": {"color": INK, "width": 2}}
GOAL: Style = {"mode": "lines", "line": {"color": COLOURS[2], "width": 2, "dash": "dash"}}


@dataclass(frozen=True, kw_only=True)
class Scene:
    """How a task is drawn. Lines are (xs, ys), one per style."""

    size: int
    """numbers in an observation"""
    steps_per_second: float
    """at which it looks as fast as in Gymnasium"""
    x: tuple[float, float]
    y: tuple[float, float]
    still: Sequence[tuple[Sequence[float | None], Sequence[float | None]]]
    """what does not move; None is a gap"""
    styles: Sequence[Style]
    """of the still lines, then of the moving ones"""
    moving: Callable[[Sequence[float]], Lines]
    """observation -> what moves"""


def _cart_pole(obs: Sequence[float]) -> Lines:
    x, angle = obs[0], obs[2]
    cart = ([x - 0.25, x + 0.25, x + 0.25, x - 0.25, x - 0.25], [-0.15, -0.15, 0.15, 0.15, -0.15])
    return [cart, ([x, x + math.sin(angle)], [0.15, 0.15 + math.cos(angle)])]


def _acrobot(obs: Sequence[float]) -> Lines:
    c1, s1, c2, s2 = obs[:4]
    knee = (s1, -c1)
    # the second angle counts from the first link
    foot = (knee[0] + s1 * c2 + c1 * s2, knee[1] - (c1 * c2 - s1 * s2))
    return [
        ([0.0, knee[0], foot[0]], [0.0, knee[1], foot[1]]),
        ([0.0, knee[0]], [0.0, knee[1]]),
    ]


def _pendulum(obs: Sequence[float]) -> Lines:
    up, left = obs[0], obs[1]  # angles grow against the clock, from above
    return [([0.0, -left], [0.0, up]), ([0.0], [0.0])]


def _height(x: float) -> float:
    return 0.45 * math.sin(3.0 * x) + 0.55


def _mountain(flag: float) -> Scene:
    xs = [round(-1.2 + 0.03 * i, 2) for i in range(61)]
    return Scene(
        size=2, steps_per_second=30.0, x=(-1.25, 0.65), y=(-0.02, 1.2),
        still=[(xs, [_height(x) for x in xs]), ([flag, flag], [_height(flag), _height(flag) + 0.15])],
        styles=(GROUND, GOAL, TIP), moving=lambda obs: [([obs[0]], [_height(obs[0]) + 0.03])],
    )  # fmt: skip


SCENES: Mapping[str, Scene] = {
    "CartPole-v1": Scene(
        size=4, steps_per_second=50.0, x=(-2.7, 2.7), y=(-0.4, 1.4),
        still=[([-2.4, 2.4], [0.0, 0.0]), ([-2.4, -2.4, None, 2.4, 2.4], [-0.2, 0.2, None, -0.2, 0.2])],
        styles=(GROUND, GOAL, BODY, LIMB), moving=_cart_pole,
    ),
    "Acrobot-v1": Scene(
        size=6, steps_per_second=15.0, x=(-2.2, 2.2), y=(-2.2, 2.2),
        still=[([-2.1, 2.1], [1.0, 1.0])], styles=(GOAL, LIMB, TIP), moving=_acrobot,
    ),
    "Pendulum-v1": Scene(
        size=3, steps_per_second=30.0, x=(-1.3, 1.3), y=(-1.3, 1.3), still=[], styles=(LIMB, TIP),
        moving=_pendulum,
    ),
    "MountainCar-v0": _mountain(0.5), "MountainCarContinuous-v0": _mountain(0.45),
}  # fmt: skip
"""Environment -> how it is drawn."""


def clip(observations: Float[np.ndarray, "T D"], env_id: str, *, title: str) -> go.Figure:
    """An episode of a classic control task, drawn from its observations.

    Args:
        observations: before the first step and after each, as the environment gives them.
        env_id: one of SCENES.
        title: the finding in one sentence.
    Returns: a figure with at most MOST frames, evenly spaced, the last step among them; Play takes as long as
        Gymnasium's film.
    Raises: InputError: another task, a number that is not finite.  ShapeError: observations of another task.
    Source: see the module.  Oracle: the places of joints by hand (tests).  Cost: O(MOST).
    """
    if env_id not in SCENES:
        raise InputError(f"there is no drawing of '{env_id}'. {nearest(env_id, SCENES)}")
    scene, rows = SCENES[env_id], np.asarray(observations, dtype=float)
    if rows.ndim != 2 or rows.shape[1] != scene.size or not len(rows):
        raise ShapeError(
            f"observations have shape {rows.shape}, expected [T, {scene.size}] for {env_id}, T at least 1."
        )
    if not np.isfinite(rows).all():
        t = int(np.argmin(np.isfinite(rows).all(axis=1)))
        raise InputError(f"observation {t} is {rows[t].tolist()}: there is no place for that.")
    kept, stride = _thinned(len(rows), MOST)
    first = [*scene.still, *_drawn(scene, rows[0].tolist())]
    data = [
        go.Scatter(x=xs, y=ys, **style, hoverinfo="skip", showlegend=False)
        for (xs, ys), style in zip(first, scene.styles, strict=True)
    ]
    moves = list(range(len(scene.still), len(first)))
    frames = {
        str(t): go.Frame(
            name=str(t), traces=moves, data=[go.Scatter(x=xs, y=ys) for xs, ys in _drawn(scene, rows[t].tolist())]
        )
        for t in kept
    }  # fmt: skip
    figure = _film(data, frames, title, 1000.0 * stride / scene.steps_per_second)
    figure.update_xaxes(visible=False, range=list(scene.x), constrain="domain")
    figure.update_yaxes(visible=False, range=list(scene.y), scaleanchor="x", constrain="domain")
    return figure


def film(animation: bytes, *, title: str) -> go.Figure:
    """An episode of any task, from an animated picture.

    Args:
        animation: a WebP, GIF or PNG with a frame per still; Play keeps to its duration, if that is a film.
        title: the finding in one sentence.
    Returns: a figure with a frame per still, as many and as fine as BYTES allow.
    Raises: DataError: no such picture.
    Source: ours.  Oracle: the picture's own frames (tests).  Cost: encodes every still once per quality tried.
    """
    stills, duration, every = _stills(animation), _duration(animation), 1
    while True:
        for quality in QUALITIES:
            uris = [_uri(still, quality) for still in stills[::every]]
            if sum(map(len, uris)) <= BYTES or (quality == QUALITIES[-1] and len(uris) == 1):
                width, height = stills[0].size
                data = [go.Image(source=uris[0], hoverinfo="skip")]
                frames = {
                    str(i * every): go.Frame(name=str(i * every), data=[go.Image(source=uri)])
                    for i, uri in enumerate(uris)
                }
                figure = _film(data, frames, title, min(duration * every, SLOWEST), pictures=True)
                figure.update_xaxes(visible=False, range=[0, width], constrain="domain")
                figure.update_yaxes(
                    visible=False, range=[height, 0], scaleanchor="x", constrain="domain"
                )
                return figure
        every *= 2


def sentence(text: str, *, title: str) -> go.Figure:
    """In the place of a film: why there is none."""
    figure = styled(go.Figure(), title=title, height=150)
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    note = {"xref": "paper", "yref": "paper", "x": 0, "y": 0.5, "xanchor": "left", "align": "left"}
    figure.add_annotation(text=text, showarrow=False, **note)
    return figure


# ---------------------------------------------------------------------- private
def _thinned(num: int, most: int) -> tuple[list[int], int]:
    """(at most so many of 0..num-1, evenly spaced, the last one among them; the space between them)."""
    stride = max(1, math.ceil((num - 1) / max(1, most - 1)))
    kept = list(range(0, num, stride))
    return (kept if kept[-1] == num - 1 else [*kept[: most - 1], num - 1]), stride


def _drawn(scene: Scene, obs: Sequence[float]) -> Lines:
    return [([round(x, 3) for x in xs], [round(y, 3) for y in ys]) for xs, ys in scene.moving(obs)]


def _film(
    data: Sequence[Any], frames: Mapping[str, go.Frame], title: str, duration: float, *, pictures: bool = False
) -> go.Figure:  # fmt: skip
    """The figure with Play, Pause and a slider; it opens at the first frame."""
    figure = go.Figure(data=list(data), frames=list(frames.values()))
    styled(figure, title=title, height=430)
    still = {"mode": "immediate", "frame": {"duration": 0, "redraw": pictures}, "transition": {"duration": 0}}  # fmt: skip
    runs = still | {"fromcurrent": True, "frame": {"duration": round(duration), "redraw": pictures}}
    button = {"method": "animate"}
    figure.update_layout(
        margin={"l": 20, "r": 20},
        updatemenus=[{
            "type": "buttons", "direction": "left", "x": 0, "y": 0, "xanchor": "left", "yanchor": "top",
            "pad": {"t": 34}, "showactive": False,
            "buttons": [
                {**button, "label": "Play", "args": [None, runs]},
                {**button, "label": "Pause", "args": [[None], still]},
            ],
        }],
        sliders=[{
            "active": 0, "x": 0.3, "len": 0.7, "pad": {"t": 20}, "ticklen": 0, "minorticklen": 0,
            "font": {"color": "rgba(0,0,0,0)"},  # a label per stop would be a black bar
            "currentvalue": {"prefix": "picture " if pictures else "step ", "font": {"color": INK}, "xanchor": "right"},
            "steps": [{**button, "label": name, "args": [[name], still]} for name in frames],
        }],
    )  # fmt: skip
    return figure


def _stills(animation: bytes) -> list[Any]:
    from PIL import Image, ImageSequence

    try:
        with Image.open(io.BytesIO(animation)) as whole:
            stills = [frame.convert("RGB") for frame in ImageSequence.Iterator(whole)]
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's ways of saying no
        raise DataError(
            f"the film can not be read: {error}. An animated WebP, GIF or PNG is expected."
        ) from None
    for still in stills:
        still.thumbnail((WIDTH, WIDTH))
    return stills


def _duration(animation: bytes) -> float:
    """Milliseconds per still."""
    from PIL import Image

    with Image.open(io.BytesIO(animation)) as whole:
        whole.load()
        return float(whole.info.get("duration") or 40.0)


def _uri(still: Any, quality: int) -> str:
    buffer = io.BytesIO()
    still.save(buffer, "WEBP", quality=quality)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
