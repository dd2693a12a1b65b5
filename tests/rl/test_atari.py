"""The wrappers of Atari games on a scripted one: every frame is known, so every habit can be counted."""

import gymnasium
import numpy as np
import pytest
from scripted_game import Game, H, W

from dodona.errors import InputError
from dodona.policies import CNNPolicy
from dodona.rl import EnvCollector, GymnasiumEnv, wrap_atari
from dodona.rl.atari import (
    EpisodicLife,
    FireReset,
    GreySquare,
    MaxAndSkip,
    NoopReset,
    SignReward,
    shares,
)


def test_starts_are_idle_for_1_to_noop_max_frames_and_the_seed_decides_how_many():
    game = Game()
    env, counts = NoopReset(game, 5), []
    for seed in range(60):
        game.log.clear()
        env.reset(seed=seed)
        assert game.log[0] == "reset" and set(game.log[1:]) == {0}
        counts.append(len(game.log) - 1)
    assert set(counts) == {1, 2, 3, 4, 5}
    game.log.clear()
    env.reset(seed=7)
    assert len(game.log) - 1 == counts[7]


def test_a_game_that_is_over_while_idle_begins_again():
    game = Game(length=2)
    NoopReset(game, 5).reset(seed=next(s for s in range(99) if _draws(s) >= 3))
    assert game.log[:4] == ["reset", 0, 0, "reset"]


def _draws(seed):
    return int(gymnasium.utils.seeding.np_random(seed)[0].integers(1, 6))


def test_an_action_is_repeated_rewards_add_up_and_the_last_two_frames_are_merged():
    game = Game()
    env = MaxAndSkip(game, 4)
    env.reset()
    obs, reward, *_ = env.step(1)
    assert game.log == ["reset", 1, 1, 1, 1] and reward == pytest.approx(0.1 + 0.2 + 0.3 + 0.4)
    assert obs[0, 0, 0] == 255 and obs[50, 50, 0] == 4  # the sprite of frame 3, the rest of frame 4


def test_skipping_stops_where_the_game_ends():
    game = Game(length=5)
    env = MaxAndSkip(game, 4)
    env.reset()
    env.step(0)
    obs, reward, terminated, *_ = env.step(0)
    assert terminated and game.t == 5 and reward == pytest.approx(0.5)
    assert obs[50, 50, 0] == 5  # one frame of its own, none of the step before


def test_a_lost_life_ends_the_episode_and_the_next_one_goes_on_with_the_game():
    game = Game(losses=(2, 4, 6))
    env = EpisodicLife(game)
    env.reset(seed=3)
    ends = []
    for _ in range(3):
        while True:
            *_, terminated, truncated, _ = env.step(1)
            if terminated or truncated:
                ends.append(game.t)
                break
        env.reset(seed=9)
    # after the idle frame 3 the second life is lost at 4; the last life ends the game, and only then it is reset
    assert ends == [2, 4, 6] and game.log.count("reset") == 2 and game.seeds == [3, 9]


def test_who_resets_in_mid_life_gets_a_new_game():
    game = Game(losses=(2,))
    env = EpisodicLife(game)
    env.reset()
    env.step(1)
    env.reset()
    assert game.log == ["reset", 1, "reset"]


def test_a_game_that_ends_in_the_idle_frame_between_lives_is_reset():
    game = Game(length=3, losses=(2,))
    env = EpisodicLife(game)
    env.reset()
    env.step(1), env.step(1)
    env.reset()
    assert game.log == ["reset", 1, 1, 0, "reset"] and env.lives == 3


def test_fire_is_pressed_once_at_every_start_in_games_that_have_it():
    game = Game()
    FireReset(game).reset()
    assert game.log == ["reset", 1]
    without = Game(meanings=("NOOP", "RIGHT"))
    wrap_atari(without, noop_max=0).reset()
    assert without.log == ["reset"]


@pytest.mark.parametrize("shape", [(H, W, 3), (H, W)])
def test_images_are_grey_squares_of_area_averages(shape):
    env = GreySquare(Game(shape=shape), 84)
    frame = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    got = env.observation(frame)
    assert (
        got.shape == (84, 84) and got.dtype == np.uint8 and env.observation_space.shape == (84, 84)
    )
    y = frame.astype(float)
    if frame.ndim == 3:
        y = np.rint(0.299 * y[..., 0] + 0.587 * y[..., 1] + 0.114 * y[..., 2])
    for i, j in ((0, 0), (0, 83), (17, 40), (83, 83)):
        total = area = 0.0
        for row in range(H):
            tall = min(row + 1, (i + 1) * H / 84) - max(row, i * H / 84)
            for column in range(W):
                wide = min(column + 1, (j + 1) * W / 84) - max(column, j * W / 84)
                if tall > 0 and wide > 0:
                    total, area = total + tall * wide * y[row, column], area + tall * wide
        assert abs(float(got[i, j]) - total / area) <= 0.501


def test_shares_of_pixels_add_up():
    assert shares(4, 2).tolist() == [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]]
    assert np.allclose(shares(210, 84).sum(1), 1.0) and np.allclose(shares(3, 5).sum(1), 1.0)


def test_rewards_keep_their_sign_only():
    env = SignReward(Game())
    assert [env.reward(x) for x in (-7.5, 0.0, 0.2)] == [-1.0, 0.0, 1.0]


def test_all_habits_together_give_four_frames_that_move_on_by_one():
    game = Game(length=200)
    env = wrap_atari(game)
    obs, _ = env.reset(seed=0)
    assert (
        obs.shape == (4, 84, 84)
        and obs.dtype == np.uint8
        and env.observation_space.shape == obs.shape
    )
    assert (obs == obs[0]).all()
    for _ in range(4):
        new, reward, *_ = env.step(2)
        assert reward == -1.0 and np.array_equal(new[:-1], obs[1:])
        assert new[-1, 50, 50] == obs[-1, 50, 50] + 4
        obs = new


def test_switched_off_nothing_is_changed_but_an_axis():
    game = Game()
    env = wrap_atari(
        game, noop_max=0, skip=1, episodic_life=False, fire_reset=False, size=None, sign_rewards=False, stack=1
    )  # fmt: skip
    obs, _ = env.reset()
    assert obs.shape == (1, H, W, 3) and game.log == ["reset"]
    obs, reward, *_ = env.step(2)
    assert obs[0, 99, 99, 0] == 1 and reward == pytest.approx(-0.1)


def test_wrapped_games_are_played_by_a_policy_for_images():
    env = GymnasiumEnv([lambda: wrap_atari(Game(losses=(20, 30)), stack=2)] * 2, seed=0)
    policy = CNNPolicy.for_env(env, hidden=16)
    batch = EnvCollector(env, 12).collect(policy)
    assert batch.obs.shape == (2, 12, 2, 84, 84) and batch.terminated.any()
    assert set(batch.rewards.flatten().tolist()) <= {-1.0, 1.0}


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: wrap_atari(Game(), noop_max=-1), "noop_max must be at least 0"),
        (lambda: wrap_atari(Game(), stack=0), "stack must be at least 1"),
        (lambda: wrap_atari(Game(meanings=("UP", "FIRE", "RIGHT"))), "action 0 of this game is UP"),
        (lambda: wrap_atari(Game(shape=(4,)), skip=1), "expected frames of bytes"),
        (lambda: wrap_atari(skipping()), r"frameskip 4\), and skip=4 would skip again"),
    ],
)
def test_what_does_not_fit_is_refused(make, said):
    with pytest.raises(InputError, match=said):
        make()


def skipping():
    game = Game()
    game._frameskip = 4
    return game
