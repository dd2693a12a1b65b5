"""Films of an episode: where the joints are, how many frames there are, and what stands still."""

import base64
import io
import math

import numpy as np
import pytest
from PIL import Image

from dodona.errors import DataError, InputError, ShapeError
from dodona.figures import clip as clips
from dodona.figures.clip import SCENES, clip, film, sentence


def moving(figure, frame=0):
    """[(xs, ys)] of what moves in a frame."""
    return [(list(x.x), list(x.y)) for x in figure.frames[frame].data]


def test_the_pole_leans_to_the_side_of_its_angle_and_has_length_one():
    (cart, pole) = moving(clip(np.array([[0.5, 0.0, math.pi / 6, 0.0]]), "CartPole-v1", title="t"))
    assert min(cart[0]) == 0.25 and max(cart[0]) == 0.75
    assert pole[0] == [0.5, 1.0] and pole[1] == [
        0.15,
        pytest.approx(0.15 + math.sqrt(0.75), abs=1e-3),
    ]


def test_the_second_angle_of_acrobot_counts_from_the_first_link():
    a, b = math.pi / 2, math.pi / 2  # to the right, then straight up
    obs = [math.cos(a), math.sin(a), math.cos(b), math.sin(b), 0.0, 0.0]
    limbs, joints = moving(clip(np.array([obs]), "Acrobot-v1", title="t"))
    assert limbs == ([0.0, 1.0, 1.0], [0.0, -0.0, 1.0])
    assert joints[0] == [0.0, 1.0]
    hangs, _ = moving(clip(np.array([[1.0, 0.0, 1.0, 0.0, 0.0, 0.0]]), "Acrobot-v1", title="t"))
    assert hangs == ([0.0, 0.0, 0.0], [0.0, -1.0, -2.0])


def test_the_pendulum_stands_at_angle_zero_and_turns_against_the_clock():
    obs = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    figure = clip(obs, "Pendulum-v1", title="t")
    assert moving(figure)[0] == ([0.0, 0.0], [0.0, 1.0])
    assert moving(figure, 1)[0] == ([0.0, -1.0], [0.0, 0.0])


@pytest.mark.parametrize(
    "env_id, flag", [("MountainCar-v0", 0.5), ("MountainCarContinuous-v0", 0.45)]
)
def test_the_car_is_on_its_hill_and_the_flag_is_the_goal(env_id, flag):
    figure = clip(np.array([[-0.5, 0.0]]), env_id, title="t")
    ((xs, ys),) = moving(figure)
    assert xs == [-0.5] and ys[0] == pytest.approx(0.45 * math.sin(-1.5) + 0.58, abs=1e-3)
    assert list(figure.data[1].x) == [flag, flag]


@pytest.mark.parametrize("env_id", SCENES)
def test_every_scene_is_small_and_ends_with_the_last_step(env_id):
    rng = np.random.default_rng(0)
    figure = clip(rng.uniform(-1, 1, size=(1001, SCENES[env_id].size)), env_id, title="a title")
    assert len(figure.frames) <= clips.MOST and figure.frames[-1].name == "1000"
    assert len(figure.to_json()) < 300_000
    assert figure.layout.title.text == "a title"


@pytest.mark.parametrize("num", [1, 2, 249, 250, 251, 499, 500, 501, 2001])
def test_frames_are_evenly_spaced_and_hold_both_ends(num):
    kept, stride = clips._thinned(num, 250)
    assert kept[0] == 0 and kept[-1] == num - 1 and len(kept) <= 250
    assert set(np.diff(kept)[:-1]) <= {stride} and len(set(kept)) == len(kept)


def test_a_film_stands_still_until_somebody_plays_it_and_then_keeps_time():
    figure = clip(np.zeros((101, 4)), "CartPole-v1", title="t")
    play, pause = figure.layout.updatemenus[0].buttons
    assert play.label == "Play" and play.args[1]["frame"]["duration"] == 20  # 50 steps a second
    assert pause.label == "Pause" and pause.args[0] == (None,)
    assert figure.layout.sliders[0].active == 0
    slow = clip(np.zeros((1001, 4)), "CartPole-v1", title="t")
    assert (
        slow.layout.updatemenus[0].buttons[0].args[1]["frame"]["duration"] == 100
    )  # every fifth step


def test_what_has_no_drawing_is_refused():
    with pytest.raises(InputError, match="no drawing of 'CartPole-v2'. Did you mean 'CartPole-v1'"):
        clip(np.zeros((3, 4)), "CartPole-v2", title="t")
    with pytest.raises(ShapeError, match=r"shape \(3, 2\), expected \[T, 4\] for CartPole-v1"):
        clip(np.zeros((3, 2)), "CartPole-v1", title="t")
    with pytest.raises(ShapeError, match="T at least 1"):
        clip(np.zeros((0, 4)), "CartPole-v1", title="t")
    broken = np.zeros((3, 4))
    broken[1, 2] = math.nan
    with pytest.raises(InputError, match="observation 1 is"):
        clip(broken, "CartPole-v1", title="t")


# ---------------------------------------------------------------------- pictures
def animation(stills, duration=50) -> bytes:
    buffer = io.BytesIO()
    first, *others = [Image.fromarray(x) for x in stills]
    first.save(
        buffer, "WEBP", save_all=True, append_images=others, duration=duration, lossless=True
    )
    return buffer.getvalue()


def picture(uri: str) -> np.ndarray:
    return np.asarray(
        Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB")
    )


def test_every_still_of_a_film_is_a_frame():
    levels = (10, 120, 240)
    figure = film(animation([np.full((40, 60, 3), x, np.uint8) for x in levels]), title="t")
    assert [f.name for f in figure.frames] == ["0", "1", "2"]
    for frame, level in zip(figure.frames, levels, strict=True):
        assert picture(frame.data[0].source).mean() == pytest.approx(level, abs=3)
    assert figure.layout.xaxis.range == (0, 60) and figure.layout.yaxis.range == (40, 0)
    assert figure.layout.updatemenus[0].buttons[0].args[1]["frame"] == {
        "duration": 50,
        "redraw": True,
    }


def test_a_film_that_is_too_large_loses_quality_then_stills(monkeypatch):
    monkeypatch.setattr(clips, "BYTES", 30_000)
    noise = np.random.default_rng(0).integers(0, 256, size=(24, 60, 80, 3), dtype=np.uint8)
    figure = film(animation(noise), title="t")
    total = sum(len(f.data[0].source) for f in figure.frames)
    assert total <= clips.BYTES and 1 <= len(figure.frames) < 24
    names = [int(f.name) for f in figure.frames]
    assert names[:2] == [0, names[1]] and set(np.diff(names)) == {names[1]}
    slowed = figure.layout.updatemenus[0].buttons[0].args[1]["frame"]["duration"]
    assert slowed == min(50 * names[1], clips.SLOWEST)


def test_bytes_that_are_no_film_are_named():
    with pytest.raises(DataError, match="the film can not be read"):
        film(b"RIFF nothing", title="t")


def test_a_sentence_stands_in_its_place():
    figure = sentence("install this", title="no clip")
    assert figure.layout.annotations[0].text == "install this" and not figure.frames
