"""Batches: what belongs to a step, what to a row, and that nothing is lost, doubled or mixed."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dodona.core.batch import Batch
from dodona.core.protocols import EMPTY
from dodona.errors import InputError, NonFiniteError, ShapeError
from dodona.oracles import statistics as oracle


def rollout(num_rows=4, width=3, *, seed=0, prompt_width=2, **changes):
    """A language batch: every entry names its row and column, so that a mix-up shows."""
    rng = np.random.default_rng(seed)
    cell = 100 * torch.arange(num_rows)[:, None] + torch.arange(width)
    mask = torch.tensor(rng.random((num_rows, width)) < 0.7)
    fields = dict(
        obs={
            "prompt": 100 * torch.arange(num_rows)[:, None] + torch.arange(prompt_width) + 50,
            "prompt_mask": torch.ones(num_rows, prompt_width, dtype=torch.bool),
        },
        actions=cell,
        mask=mask,
        logp_old=-cell.float() - 1,
        rewards=cell.float(),
        terminated=torch.zeros(num_rows, width, dtype=torch.bool),
        group=torch.arange(num_rows) // 2,
        version=torch.zeros(num_rows, width, dtype=torch.int32),
        info={"text": [f"row {i}" for i in range(num_rows)], "task": "countdown"},
    )
    return Batch(**(fields | changes))


def steps(num_rows=4, width=3):
    """A control batch: observations have one entry per step."""
    cell = 100 * torch.arange(num_rows)[:, None] + torch.arange(width)
    return Batch(
        obs=torch.stack([cell, -cell], dim=-1).float(),
        actions=cell,
        mask=torch.ones(num_rows, width),
        rewards=cell.float(),
        next_obs=torch.stack([cell + 1, -cell - 1], dim=-1).float(),
        values=cell.float(),
    )


def same(a, b):
    """Whether two batches hold the same, field by field."""
    for name in Batch.__dataclass_fields__:
        x, y = getattr(a, name), getattr(b, name)
        if name == "info" or x is None or y is None:
            if x is not y and dict(x or {}) != dict(y or {}):
                return False
        elif isinstance(x, torch.Tensor):
            if x.dtype != y.dtype or not torch.equal(x, y):
                return False
        elif x.keys() != y.keys() or not all(torch.equal(x[k], y[k]) for k in x):
            return False
    return True


def test_a_batch_has_as_many_rows_as_its_mask():
    assert len(rollout(5)) == 5 and rollout().validate() is not None
    with pytest.raises(AttributeError):
        rollout().mask = None  # frozen


def test_the_default_of_info_can_not_be_written_to():
    batch = steps()
    assert batch.info is EMPTY
    with pytest.raises(TypeError):
        batch.info["a"] = 1


@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 99))
def test_total_rewards_are_those_of_the_loops(num_rows, width, seed):
    batch = rollout(num_rows, width, seed=seed)
    junk = batch.replace(rewards=torch.where(batch.mask, batch.rewards, float("nan")))
    expected = oracle.masked_sum(batch.rewards, batch.mask)
    assert junk.total_rewards().tolist() == pytest.approx(expected)
    given_at = torch.zeros(num_rows, width)
    given_at[:, -1] = 1.0  # process rewards: only here
    only = batch.replace(reward_mask=given_at).total_rewards()
    assert only.tolist() == (batch.rewards * batch.mask)[:, -1].tolist()


def test_weights_do_not_scale_rewards_and_one_step_rows_have_totals_too():
    one = Batch(
        obs=torch.zeros(3, 2),
        actions=torch.zeros(3),
        mask=torch.tensor([0.5, 1, 0]),
        rewards=torch.ones(3),
    )
    assert one.total_rewards().tolist() == [1.0, 1.0, 0.0]
    with pytest.raises(InputError, match="has no rewards to add up"):
        one.replace(rewards=None).total_rewards()


@pytest.mark.parametrize(
    "rows, expected",
    [
        ([2, 0, 2], [2, 0, 2]),
        (torch.tensor([3, 1]), [3, 1]),
        (np.array([-1]), [3]),
        (np.array([True, False, False, True]), [0, 3]),
        (torch.tensor([False, True, False, False]), [1]),
        (2, [2]),
        (slice(1, 3), [1, 2]),
        (range(2), [0, 1]),
        ([], []),
    ],
    ids=str,
)
def test_selected_rows_keep_everything_that_belongs_to_them(rows, expected):
    batch = rollout(
        info={"text": list("abcd"), "ids": np.arange(4), "score": torch.arange(4), "task": "t"}
    )
    chosen = batch.select(rows)
    assert chosen.actions[:, 0].tolist() == [100 * i for i in expected]
    assert chosen.obs["prompt"][:, 0].tolist() == [100 * i + 50 for i in expected]
    assert chosen.group.tolist() == [i // 2 for i in expected]
    assert chosen.info["text"] == ["abcd"[i] for i in expected]
    assert chosen.info["ids"].tolist() == chosen.info["score"].tolist() == expected
    assert chosen.info["task"] == "t" and chosen.values is None
    chosen.validate()


def test_a_row_that_is_not_there_is_an_index_error():
    for rows in ([4], -5, np.array([True])):
        with pytest.raises(IndexError):
            rollout(4).select(rows)


@given(st.integers(1, 6), st.integers(0, 6))
def test_cutting_and_joining_is_the_identity(num_rows, cut):
    batch = rollout(num_rows)
    cut = min(cut, num_rows)
    assert same(Batch.cat([batch.select(slice(0, cut)), batch.select(slice(cut, None))]), batch)
    flat = steps(num_rows)
    assert same(Batch.cat([flat.select([i]) for i in range(num_rows)]), flat)


def test_joining_pads_answers_and_prompts_with_zeros_that_do_not_count():
    short, long = rollout(2, 3, prompt_width=1), rollout(3, 5, prompt_width=4)
    joined = Batch.cat([short, long]).validate()
    assert joined.mask.shape == (5, 5) and joined.obs["prompt"].shape == (5, 4)
    assert not joined.mask[:2, 3:].any() and not joined.obs["prompt_mask"][:2, 1:].any()
    assert not joined.logp_old[:2, 3:].any() and joined.version.dtype == torch.int32
    assert joined.total_rewards().tolist() == [*short.total_rewards(), *long.total_rewards()]
    assert joined.info["text"] == short.info["text"] + long.info["text"]
    assert joined.info["task"] == "countdown"


def test_joining_what_does_not_fit_is_answered():
    with pytest.raises(InputError, match="cat got no batch"):
        Batch.cat([])
    with pytest.raises(InputError, match="values is there in batch 1 and missing in batch 0"):
        Batch.cat([rollout(), rollout(values=torch.zeros(4, 3))])
    with pytest.raises(InputError, match=r"info of batch 1 lacks the entries \['task', 'text'\]"):
        Batch.cat([rollout(), rollout(info={})])
    with pytest.raises(
        InputError, match=r"info\['task'\] is about the whole batch and differs: 'countdown'"
    ):
        Batch.cat([rollout(), rollout(info={"text": list("abcd"), "task": "sort"})])
    with pytest.raises(
        ShapeError, match=r"obs has shapes \(4, 2\) and \(4, 5\).*Prompts are padded"
    ):
        Batch.cat([rollout(obs=torch.zeros(4, 2)), rollout(obs=torch.zeros(4, 5))])
    one = Batch(obs=torch.zeros(3, 2), actions=torch.zeros(3), mask=torch.ones(3))
    with pytest.raises(ShapeError, match=r"obs has shapes \(4, 3, 2\) and \(3, 2\)"):
        Batch.cat([steps().replace(rewards=None, next_obs=None, values=None), one])


def test_info_of_every_kind_is_joined():
    def batch(**info):
        return Batch(obs=torch.zeros(2, 1), actions=torch.zeros(2), mask=torch.ones(2), info=info)

    a = batch(
        t=(1, 2),
        a=np.array([1, 2]),
        x=torch.tensor([1, 2]),
        prompt_index=torch.tensor([1, 2]),
        d={"k": [1]},
    )
    joined = Batch.cat([a, a]).info
    assert joined["t"] == (1, 2, 1, 2) and joined["a"].tolist() == joined["x"].tolist() == [
        1,
        2,
        1,
        2,
    ]
    assert joined["d"] == {"k": [1]} and len(joined["prompt_index"]) == 4


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 99))
def test_flattening_keeps_exactly_what_counts_in_order(num_rows, width, seed):
    batch = rollout(num_rows, width, seed=seed)
    flat = batch.flatten().validate()
    pairs = [(i, t) for i in range(num_rows) for t in range(width) if batch.mask[i, t]]
    assert flat.actions.tolist() == [100 * i + t for i, t in pairs]
    assert flat.group.tolist() == [i // 2 for i, _ in pairs]
    assert flat.obs["prompt"][:, 0].tolist() == [100 * i + 50 for i, _ in pairs]
    assert flat.info["text"] == [f"row {i}" for i, _ in pairs]
    assert len(flat) == len(pairs) and flat.mask.all()
    assert same(flat.flatten(), flat)


def test_flattened_steps_keep_their_observation_and_weight():
    batch = steps().replace(mask=torch.tensor([[1, 0, 2.0]] * 4))
    flat = batch.flatten()
    assert flat.obs[:, 0].tolist() == flat.actions.tolist() == flat.values.tolist()
    assert flat.next_obs[:, 0].tolist() == (flat.actions + 1).tolist()
    assert flat.mask.tolist() == [1.0, 2.0] * 4


@given(st.integers(1, 9), st.integers(1, 9), st.booleans())
def test_minibatches_hold_every_row_once(num_rows, num, use_torch):
    num = min(num, num_rows)

    def rng():
        return torch.Generator().manual_seed(3) if use_torch else np.random.default_rng(3)

    batch = rollout(num_rows)
    parts = list(batch.minibatches(num, rng=rng()))
    sizes = [len(p) for p in parts]
    assert len(parts) == num and max(sizes) - min(sizes) <= 1
    order = [int(p) // 100 for part in parts for p in part.actions[:, 0]]
    assert sorted(order) == list(range(num_rows))
    assert [t for part in parts for t in part.info["text"]] == [f"row {i}" for i in order]
    again = list(batch.minibatches(num, rng=rng()))
    assert all(same(a, b) for a, b in zip(parts, again, strict=True))


def test_minibatches_are_shuffled_anew():
    rng = np.random.default_rng(0)
    orders = [
        torch.cat([b.actions[:, 0] for b in rollout(30).minibatches(2, rng=rng)]) for _ in range(2)
    ]
    assert not torch.equal(*orders)


def test_too_many_minibatches_are_refused():
    with pytest.raises(InputError, match="num=5 minibatches of 4 rows would leave some empty"):
        list(rollout(4).minibatches(5, rng=np.random.default_rng(0)))
    with pytest.raises(InputError, match="num must be at least 1"):
        list(rollout(4).minibatches(0, rng=np.random.default_rng(0)))


def test_padding_changes_no_number_that_counts():
    batch = steps()
    wide = batch.pad_to(7).validate()
    assert wide.obs.shape == (4, 7, 2) and wide.next_obs.shape == (4, 7, 2)
    assert torch.equal(wide.total_rewards(), batch.total_rewards())
    assert same(wide.flatten(), batch.flatten()) and batch.pad_to(3) is batch
    prompts = rollout(4, 3, prompt_width=3).pad_to(5)  # as wide as the answers, and no answer
    assert prompts.obs["prompt"].shape == (4, 3)
    with pytest.raises(InputError, match="rows have length 3 and do not fit into 2"):
        batch.pad_to(2)
    with pytest.raises(ShapeError, match=r"mask has shape \(12,\): only \[B, T\] has steps"):
        batch.flatten().pad_to(20)


def test_time_major_memory_is_only_a_view():
    batch = steps()
    memory = batch.rewards.T.contiguous()
    view = batch.replace(rewards=memory.T).validate()
    assert same(view.select([1, 0]), batch.select([1, 0])) and same(view.flatten(), batch.flatten())


def test_every_tensor_moves():
    moved = rollout(info={"score": torch.zeros(4), "text": list("abcd")}).to("meta")
    tensors = [moved.mask, moved.obs["prompt"], moved.group, moved.info["score"], moved.rewards]
    assert all(x.device.type == "meta" for x in tensors) and moved.info["text"] == list("abcd")


def test_replace_knows_the_fields():
    assert rollout().replace(rewards=None).rewards is None
    with pytest.raises(TypeError, match="reward"):
        rollout().replace(reward=None)


def bad(shape=(4, 3), at=(1, 1), value=float("nan")):
    x = torch.zeros(shape)
    x[at] = value
    return x


COUNTED = {"mask": torch.ones(4, 3)}


@pytest.mark.parametrize(
    "changes, error, message",
    [
        (
            {"mask": torch.ones(4, 3, 1)},
            ShapeError,
            r"mask has shape \(4, 3, 1\), expected \[B, T\] or \[B\]",
        ),
        ({"mask": torch.ones(4, 3, dtype=torch.int64)}, TypeError, "mask must be bool or float"),
        ({"mask": -torch.ones(4, 3)}, InputError, r"mask must be in \[0, inf\), got -1.0"),
        (
            {"rewards": torch.zeros(4, 2)},
            ShapeError,
            r"rewards has shape \(4, 2\) and mask has shape \(4, 3\)",
        ),
        ({"values": torch.zeros(4, 3, 1)}, ShapeError, r"\[B, T\] = \(4, 3\) is expected"),
        ({"actions": torch.zeros(4)}, ShapeError, r"\[B, T\] = \(4, 3\) and more axes is expected"),
        (
            {"obs": torch.zeros(3, 3)},
            ShapeError,
            r"obs has shape \(3, 3\).*\[B\] = \(4,\) and more",
        ),
        (
            {"obs": {"a": torch.zeros(4), "b": torch.zeros(5)}},
            ShapeError,
            r"obs\['b'\] has shape \(5,\)",
        ),
        ({"next_obs": torch.zeros(4, 2)}, ShapeError, "next_obs has shape"),
        (
            {"group": torch.zeros(4, 3, dtype=torch.int64)},
            ShapeError,
            r"group has shape .*\[B\] = \(4,\) is",
        ),
        (
            {"group": torch.zeros(4)},
            TypeError,
            "group must be torch.int64, got torch.float32. Use group.to",
        ),
        ({"version": torch.zeros(4, 3)}, TypeError, "version must be torch.int32"),
        ({"truncated": torch.zeros(4, 3)}, TypeError, "truncated must be torch.bool"),
        ({"logp_old": torch.zeros(4, 3, requires_grad=True)}, TypeError, "logp_old requires grad"),
        (
            {"logp_ref": bad(), **COUNTED},
            NonFiniteError,
            r"logp_ref must be finite, got nan at index \(1, 1\)",
        ),
        (
            {"reward_mask": torch.ones(4, 3), "mask": bad(value=1.0)},
            InputError,
            r"marks a reward at \(0, 0\)",
        ),
        (
            {"reward_mask": torch.ones(4, 3, dtype=torch.int32)},
            TypeError,
            "reward_mask must be bool or float",
        ),
        (
            {"values": torch.zeros(4, 3, device="meta")},
            InputError,
            "values is on meta and mask is on cpu",
        ),
        ({"info": {"text": ["a"]}}, ShapeError, r"info\['text'\] has 1 items for 4 rows"),
    ],
    ids=lambda x: None if isinstance(x, type) else str(x)[:40],
)
def test_a_field_that_is_not_what_it_says_is_named(changes, error, message):
    with pytest.raises(error, match=message):
        rollout(**changes).validate()


def test_what_does_not_count_may_hold_anything():
    mask = torch.tensor([[1.0, 0.0]])
    junk = torch.tensor([[1.0, float("nan")]])
    given = torch.tensor([[True, False]])
    Batch(
        obs=torch.zeros(1, 2),
        actions=junk,
        mask=mask,
        logp_old=junk,
        rewards=junk,
        reward_mask=given,
    ).validate()
