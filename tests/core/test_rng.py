"""Streams that resume bit for bit and never disturb each other; uniforms that are pure functions."""

import inspect
import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from dodona.core.rng import Streams, counter_uniform
from dodona.errors import CheckpointError, InputError
from dodona.oracles import statistics as oracle
from dodona.runs import RunFolder, load_checkpoint, save_checkpoint

LEVEL = 1e-6  # of each statistical test below; the seeds are fixed, so a pass stays a pass
WORDS = st.integers(-(2**63), 2**64 - 1)


@dataclass(frozen=True, kw_only=True)
class Config:
    seed: int = 0
    """seed"""


def draws(streams, name="a"):
    return streams.numpy(name).random(4).tolist(), torch.rand(
        4, generator=streams.torch(name)
    ).tolist()


def test_the_same_seed_and_name_give_the_same_numbers_for_ever():
    # as NumPy's SeedSequence(7, spawn_key=(0, *b"data")) seeds PCG64DXSM
    expected = np.random.Generator(
        np.random.PCG64DXSM(np.random.SeedSequence(7, spawn_key=(0, *b"data")))
    )
    assert np.array_equal(Streams(7).numpy("data").random(5), expected.random(5))
    assert draws(Streams(3)) == draws(Streams(3))
    assert Streams(3).integer("a") == Streams(3).integer("a")


def test_one_name_is_one_generator():
    streams = Streams(0)
    assert streams.numpy("a") is streams.numpy("a") and streams.torch("a") is streams.torch("a")


def test_another_stream_shifts_nothing():
    alone, crowded = Streams(5), Streams(5)
    for name in ("b", "env/1", "é"):
        draws(crowded, name)
        crowded.integer(name)
    assert draws(alone) == draws(crowded)


def test_every_seed_name_and_kind_is_a_stream_of_its_own():
    seen = set()
    names = ["a", "b", "ab", "a/b", "aa", "\x00", "\x00\x00"]
    for seed in (0, 1, 2**32, 2**64):
        for name in names:
            streams = Streams(seed)
            seen |= {
                streams.numpy(name).integers(2**63),
                torch.randint(2**62, (), generator=streams.torch(name)).item(),
                streams.integer(name),
            }
    assert len(seen) == 4 * len(names) * 3


def test_neighbouring_streams_are_not_correlated():
    rows = np.array(
        [Streams(seed).numpy(f"env/{i}").random(1000) for seed in (0, 1) for i in range(50)]
    )
    correlation = np.corrcoef(rows)[np.triu_indices(100, 1)] * np.sqrt(1000)
    assert stats.kstest(correlation, "norm").pvalue > LEVEL
    assert stats.kstest(rows.ravel(), "uniform").pvalue > LEVEL


def test_integers_are_seeds():
    found = [Streams(s).integer("env") for s in range(2000)]
    assert 0 <= min(found) and max(found) < 2**63 and len(set(found)) == 2000
    assert stats.kstest(np.array(found) / 2**63, "uniform").pvalue > LEVEL


@given(
    st.lists(st.sampled_from(["a", "b", "c"]), max_size=6),
    st.lists(st.sampled_from(["a", "b", "d"]), max_size=6),
)
def test_a_restored_stream_goes_on_bit_for_bit(before, after):
    first = Streams(11)
    for name in before:
        draws(first, name)
    state = first.state_dict()
    expected = [draws(first, name) for name in after]
    fresh = Streams(0)  # the seed is part of the state
    fresh.load_state_dict(state)
    assert [draws(fresh, name) for name in after] == expected
    first.load_state_dict(state)  # and back in time
    assert [draws(first, name) for name in after] == expected


def test_generators_handed_out_before_follow_the_restored_state():
    streams = Streams(1)
    a, b = streams.numpy("a"), streams.torch("b")
    state = streams.state_dict()
    late = streams.numpy("late")
    expected = a.random(), torch.rand((), generator=b).item(), late.random()
    streams.load_state_dict(state)
    # "late" had not begun when the state was taken: it begins again
    assert (a.random(), torch.rand((), generator=b).item(), late.random()) == expected


def test_a_state_survives_json_and_the_checkpoint(tmp_path):
    run = RunFolder.create("toy", Config(), out=tmp_path, command="dodona run toy")
    streams = Streams(2**70)
    draws(streams)
    streams.numpy("a").integers(10, dtype=np.int32)  # leaves half a word behind
    save_checkpoint(run, {"streams": streams.state_dict()}, step=1)
    expected = streams.numpy("a").integers(2**31, size=3, dtype=np.int32).tolist(), draws(streams)
    back = Streams(0)
    back.load_state_dict(load_checkpoint(run)["streams"])
    assert back.seed == 2**70
    json.dumps(back.state_dict()["numpy"])
    # asked for again before any torch stream was: what waits is not lost
    back.load_state_dict(back.state_dict())
    assert (
        back.numpy("a").integers(2**31, size=3, dtype=np.int32).tolist(),
        draws(back),
    ) == expected


def test_wrong_streams_are_answered():
    streams = Streams(0)
    with pytest.raises(InputError, match="a stream needs a name"):
        streams.numpy("")
    with pytest.raises(InputError, match="seed must be at least 0, got -1"):
        Streams(-1)
    with pytest.raises(TypeError, match="seed must be a whole number, got 0.5"):
        inspect.unwrap(Streams.__init__)(streams, 0.5)
    streams.torch("a")
    with pytest.raises(InputError, match="stream 'a' lives on cpu, it was asked for on meta"):
        streams.torch("a", "meta")
    state = streams.state_dict()
    state["torch"]["a"]["device"] = "cuda"
    with pytest.raises(CheckpointError, match="'a' was saved on cuda and now lives on cpu"):
        streams.load_state_dict(state)
    fresh = Streams(0)
    fresh.load_state_dict(state)
    for _ in range(2):  # an unheeded error does not turn into a fresh stream
        with pytest.raises(CheckpointError, match="was saved on cuda"):
            fresh.torch("a")


def test_the_mixer_is_splitmix64():
    # the published first outputs of SplitMix64 seeded with 1234567
    golden = 0x9E3779B97F4A7C15
    outputs = [oracle.splitmix64((1234567 + golden * (i + 1)) % 2**64) for i in range(3)]
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@given(st.integers(0, 2**70), st.lists(WORDS, max_size=4))
def test_a_counter_uniform_is_that_of_python_integers(seed, keys):
    expected = oracle.counter_uniform(seed % 2**64, *(k % 2**64 for k in keys))
    assert counter_uniform(seed, *keys) == expected and 0.0 <= expected < 1.0


@given(
    st.integers(0, 2**64 - 1), st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=5)
)
def test_arrays_of_keys_give_the_bits_of_single_keys(seed, keys):
    single = [counter_uniform(seed, 3, k, -1) for k in keys]
    array = np.array(keys, dtype=np.int64)
    assert counter_uniform(seed, 3, array, -1).tolist() == single
    assert (
        counter_uniform(seed, np.int32(3), array.view(np.uint64), np.array(-1)).tolist() == single
    )
    tensor = counter_uniform(seed, 3, torch.tensor(keys), torch.tensor(-1))
    assert tensor.dtype == torch.float64 and tensor.tolist() == single


def test_keys_broadcast():
    i, j = np.arange(4)[:, None], np.arange(3)
    table = counter_uniform(9, i, j)
    assert table.shape == (4, 3) and table[2, 1] == counter_uniform(9, 2, 1)
    assert counter_uniform(9, torch.arange(4)[:, None], torch.arange(3)).shape == (4, 3)
    assert counter_uniform(9, np.array(2), 1) == counter_uniform(9, 2, 1)
    assert counter_uniform(9, np.zeros((0, 3), dtype=int)).shape == (0, 3)


def test_order_and_number_of_keys_matter():
    found = {
        counter_uniform(*k)
        for k in [(1,), (1, 0), (1, 0, 0), (0, 1), (1, 1), (0,), (1, 2, 1), (1, 1, 2)]
    }
    assert len(found) == 8


def test_structured_keys_give_unstructured_numbers():
    """Prompts, samples and positions in a grid: uniform, and independent of the neighbour on every axis."""
    u = counter_uniform(0, np.arange(60)[:, None, None], np.arange(32)[:, None], np.arange(64))
    assert stats.kstest(u.ravel(), "uniform").pvalue > LEVEL
    for axis in range(3):
        rows = np.moveaxis(u, axis, 0)
        pairs, *_ = np.histogram2d(
            rows[:-1].ravel(), rows[1:].ravel(), bins=32, range=[[0, 1], [0, 1]]
        )
        assert stats.chisquare(pairs.ravel()).pvalue > LEVEL
    bits = (u.ravel() * 2**53).astype(np.int64)
    for shift in (0, 21, 45):
        assert stats.chisquare(np.bincount((bits >> shift) & 255, minlength=256)).pvalue > LEVEL


@pytest.mark.parametrize("bit", [0, 7, 31, 63])
def test_one_bit_of_a_key_flips_half_of_the_number(bit):
    keys = np.arange(4096, dtype=np.uint64)
    changed = keys ^ np.uint64(1 << bit)
    flips = [
        (int(a * 2**53) ^ int(b * 2**53)).bit_count()
        for a, b in zip(counter_uniform(1, keys, 5), counter_uniform(1, changed, 5), strict=True)
    ]
    # 4096 * 53 fair coins; |z| < 4.9 at level 1e-6
    assert abs(np.sum(flips) - 4096 * 26.5) < 4.9 * np.sqrt(4096 * 53) / 2


def test_wrong_keys_are_answered():
    plain = inspect.unwrap(counter_uniform)
    for wrong in (
        0.5,
        "prompt",
        np.array([0.5]),
        torch.tensor([1.0]),
        np.array([True]),
        True,
        [0.5],
    ):
        with pytest.raises(TypeError, match="keys must be integers or arrays of them"):
            plain(0, wrong)
    with pytest.raises(TypeError, match="NumPy arrays and torch tensors together"):
        counter_uniform(0, np.arange(2), torch.arange(2))
    with pytest.raises(InputError, match="seed must be at least 0"):
        counter_uniform(-1)
