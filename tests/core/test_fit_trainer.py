"""Fitting against the loop written out, averages against their sum, resumed runs against whole ones."""

import numpy as np
import pytest
import torch
from torch import nn

from dodona.core.fit_trainer import FitTrainer
from dodona.core.protocols import Trainer
from dodona.core.schedules import linear
from dodona.errors import CheckpointError, InputError
from dodona.policies import MLPCritic

TRUTH = torch.tensor([1.0, -2.0, 0.5])


def data(num=8, size=4):
    rng = np.random.default_rng(0)
    x = torch.tensor(rng.normal(size=(num, size, 3)), dtype=torch.float32)
    return [(row, row @ TRUTH) for row in x]


class Line(nn.Module):
    def __init__(self, dropout=0.0):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(3))
        self.drop = nn.Dropout(dropout)
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x):
        return self.drop(x) @ self.w


def squared(model, batch):
    x, y = batch
    model.seen += 1
    return ((model(x) - y) ** 2).mean()


class Endless:
    """An iterator that keeps its place."""

    def __init__(self):
        self.batches, self.place = data(), 0

    def __next__(self):
        self.place += 1
        return self.batches[self.place % 8]

    def state_dict(self):
        return {"place": self.place}

    def load_state_dict(self, state):
        self.place = state["place"]


def draw(rng):
    x = torch.tensor(rng.normal(size=(4, 3)), dtype=torch.float32)
    return x, x @ TRUTH


def fit(num_updates=10, batches=None, dropout=0.0, **options):
    options = {"lr": 0.1, "num_updates": num_updates, "seed": 0} | options
    return FitTrainer(Line(dropout), data() if batches is None else batches, squared, **options)


def test_it_fits():
    trainer = fit(300, ema=0.9)
    events = list(trainer)
    assert torch.allclose(trainer.model.w, TRUTH, atol=1e-3)
    assert torch.allclose(trainer.ema_model.w, TRUTH, atol=1e-2)
    assert events[-1].metrics["loss/total"] < 1e-4 and events[-1].num_samples == 1200
    assert isinstance(trainer, Trainer) and list(trainer) == []


def test_every_pass_visits_every_batch_once_in_an_order_of_its_own():
    seen = []

    def watched(model, batch):
        seen.append(float(batch[1][0]))
        return squared(model, batch)

    list(FitTrainer(Line(), data(), watched, lr=0.1, num_updates=16, seed=0))
    every = sorted(float(y[0]) for _, y in data())
    assert sorted(seen[:8]) == every == sorted(seen[8:]) and seen[:8] != seen[8:]


def test_a_step_and_the_average_are_what_the_formulas_say():
    trainer = fit(4, ema=0.5, optimizer="sgd", lr=linear(0.1, 0.0, 4), max_grad_norm=0.3)
    w, average = torch.zeros(3), torch.zeros(3)
    order = []
    trainer.loss = lambda model, batch: (order.append(batch), squared(model, batch))[1]
    for n, event in enumerate(trainer):
        x, y = order[-1]
        error = x @ w - y
        gradient = 2 * (x.T @ error) / 4
        norm = gradient.norm()
        w = w - 0.1 * (1 - n / 4) * gradient * min(1.0, 0.3 / norm)
        decay = min(0.5, (1 + n) / (10 + n))
        average = decay * average + (1 - decay) * w
        assert event.metrics["loss/total"] == pytest.approx((error**2).mean().item(), rel=1e-5)
        assert event.metrics["update/lr"] == pytest.approx(0.1 * (1 - n / 4))
        assert event.metrics["update/grad_norm"] == pytest.approx(norm.item(), rel=1e-5)
        assert torch.allclose(trainer.model.w, w, atol=1e-6)
        assert torch.allclose(trainer.ema_model.w, average, atol=1e-6)
    assert not trainer.ema_model.w.requires_grad
    # buffers are copied, not averaged: four batches were seen
    assert trainer.ema_model.seen.item() == trainer.model.seen.item() == 4.0


@pytest.mark.parametrize(
    "batches", [data, lambda: draw, Endless], ids=["sequence", "draw", "iterator"]
)
@pytest.mark.parametrize("cut", [1, 5, 9])
def test_a_run_that_was_cut_goes_on_bit_for_bit(batches, cut):
    def new():
        return fit(
            12, batches(), dropout=0.3, ema=0.9,
            evaluate=lambda m: {"model/norm": float(m.w.norm())}, evaluate_every=4,
        )  # fmt: skip

    whole, first, events = new(), new(), []
    expected = [(e.kind, e.step, dict(e.metrics)) for e in whole]
    for event in first:
        events.append(event)
        if len(events) == cut:
            state = first.state_dict()
            break
    list(first)
    second = new()
    second.load_state_dict(state)
    torch.rand(7)  # somebody else draws from the global generator
    events += list(second)
    assert [(e.kind, e.step, dict(e.metrics)) for e in events] == expected
    assert torch.equal(second.model.w, whole.model.w) and torch.equal(
        second.ema_model.w, whole.ema_model.w
    )


def test_the_global_generator_is_left_as_it_was():
    before = torch.random.get_rng_state()
    list(fit(2, dropout=0.5))
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_step_that_is_not_finite_is_skipped_and_not_averaged():
    batches = [(torch.ones(2, 3), torch.tensor([1.0, torch.nan]))]
    trainer = fit(3, batches, ema=0.9)
    events = list(trainer)
    assert [e.metrics["guard/skipped"] for e in events] == [1.0] * 3
    assert (trainer.model.w == 0).all() and trainer.averaged == 0


def test_a_loss_may_report_numbers_and_batches_may_be_mappings():
    def loss(model, batch):
        error = ((model(batch["x"]) - 1.0) ** 2).mean()
        return error, {"loss/error": error}

    trainer = FitTrainer(
        MLPCritic(3, hidden=(4,)), [{"x": torch.ones(5, 3)}], loss, lr=0.01, num_updates=2, seed=0
    )
    event = next(iter(trainer))
    assert event.metrics["loss/error"] == event.metrics["loss/total"] and event.num_samples == 5


def test_wrong_settings_and_states_are_answered():
    for name, value in [("lr", 0.0), ("ema", 1.0), ("max_grad_norm", -1.0)]:
        with pytest.raises(InputError, match=f"{name} must be in"):
            fit(**{name: value})
    with pytest.raises(InputError, match="batches is empty"):
        fit(batches=[])
    with pytest.raises(
        TypeError, match="batches must be a sequence.*A plain iterator can not be resumed"
    ):
        fit(batches=iter(data()))
    with pytest.raises(InputError, match="give both, or neither"):
        fit(evaluate=lambda m: {})

    class Short(Endless):
        def __next__(self):
            raise StopIteration

    with pytest.raises(InputError, match="came to an end before num_updates"):
        list(fit(batches=Short()))
    state = fit().state_dict()
    with pytest.raises(CheckpointError, match="made with 8 batches, there are 5"):
        fit(batches=data(5)).load_state_dict(state)
    with pytest.raises(CheckpointError, match="do not agree on averaged parameters"):
        fit(ema=0.9).load_state_dict(state)
    with pytest.raises(CheckpointError, match="model is another network"):
        FitTrainer(MLPCritic(3), data(), squared, lr=0.1, num_updates=1, seed=0).load_state_dict(
            state
        )
