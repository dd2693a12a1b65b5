"""Recurrent networks against the cell's equations, where memory is reset, and what has lost its order."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dodona.core.batch import Batch
from dodona.core.optimizers import trained_parameters
from dodona.errors import InputError, ShapeError
from dodona.policies import Categorical, DiagonalGaussian, LSTMCritic, LSTMPolicy

B, T, D, H = 3, 7, 4, 5


def made(**options):
    return LSTMPolicy((D,), 2, hidden=6, memory=H, **options)


def sequence(policy, *, seed=0, start=((0, 0), (1, 0), (1, 4), (2, 4), (2, 6))):
    rng = torch.Generator().manual_seed(seed)
    flags = torch.zeros(B, T, dtype=torch.bool)
    for row, t in start:
        flags[row, t] = True
    state = torch.randn(B, 2, policy.body.memory, generator=rng)
    obs = torch.randn(B, T, D, generator=rng)
    return {"obs": obs, "start": flags, "prompt_state": state}


def by_hand(policy, obs):
    """Features [B, T, H] and the states before each step, by the equations of a cell."""
    body, w = policy.body, policy.body.lstm
    features, before = torch.zeros(B, T, H), torch.zeros(B, T, 2, H)
    for b in range(B):
        h, c = obs["prompt_state"][b]
        for t in range(T):
            before[b, t, 0], before[b, t, 1] = h, c
            if obs["start"][b, t] and body.reset_state:
                h, c = body.begin
            x = torch.tanh(body.encoder[0].weight @ obs["obs"][b, t] + body.encoder[0].bias)
            gates = w.weight_ih_l0 @ x + w.bias_ih_l0 + w.weight_hh_l0 @ h + w.bias_hh_l0
            i, f, g, o = gates.chunk(4)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            features[b, t] = h
    return features, before


@pytest.mark.parametrize(
    "options", [{}, {"reset_state": False}, {"zero_state": False, "orthogonal": False}]
)
def test_a_row_of_steps_is_the_cell_step_by_step_with_resets_inside(options):
    policy = made(**options)
    critic, obs = LSTMCritic(policy), sequence(policy)
    features, _ = by_hand(policy, obs)
    assert torch.allclose(policy.body(obs), features, atol=1e-6)
    logits = features @ policy.head.weight.T
    assert torch.allclose(policy.distribution(obs).logits, logits, atol=1e-6)
    assert torch.allclose(critic(obs), features @ critic.head.weight[0], atol=1e-6)


def test_acting_step_by_step_gives_the_laws_of_training():
    policy = made()
    obs = sequence(policy)
    state, logits = obs["prompt_state"], []
    for t in range(T):
        law, state = policy.step(obs["obs"][:, t], state, obs["start"][:, t])
        logits.append(law.logits)
    assert torch.allclose(torch.stack(logits, 1), policy.distribution(obs).logits, atol=1e-6)


def test_stored_states_give_the_same_laws_and_no_gradient_through_time():
    policy = made()
    obs = sequence(policy)
    _, before = by_hand(policy, obs)
    stored = {"obs": obs["obs"], "start": obs["start"], "state": before.detach()}
    assert torch.allclose(
        policy.distribution(stored).logits, policy.distribution(obs).logits, atol=1e-6
    )
    for given, reaches_back in ((obs, True), (stored, False)):
        x = given["obs"].clone().requires_grad_()
        last = policy.distribution({**given, "obs": x}).logits[0, -1, 0]
        (slope,) = torch.autograd.grad(last, x)
        assert bool(slope[0, :-1].any()) == reaches_back


def test_a_start_forgets_everything_before_it():
    policy = made()
    obs = sequence(policy, start=((0, 3),))
    other = {**obs, "obs": obs["obs"].clone(), "prompt_state": obs["prompt_state"] + 1.0}
    other["obs"][0, :3] += 1.0
    a, b = (policy.distribution(x).logits[0] for x in (obs, other))
    assert torch.equal(a[3:], b[3:]) and not torch.allclose(a[2], b[2])
    on = made(reset_state=False)
    a, b = (on.distribution(x).logits[0] for x in (obs, other))
    assert not torch.equal(a[3:], b[3:])


def test_episodes_begin_with_zeros_unless_told_otherwise():
    assert (made().initial_state(4) == 0).all()
    state = made(zero_state=False).initial_state(4)
    assert (state != 0).all() and torch.equal(state[0], state[3])


def test_lstm_weights_are_orthogonal_with_zero_biases_or_as_torch_draws_them():
    lstm = made().body.lstm
    for w in (lstm.weight_ih_l0, lstm.weight_hh_l0):
        assert torch.allclose(w.T @ w, torch.eye(w.shape[1]), atol=1e-5)
    assert (lstm.bias_ih_l0 == 0).all() and (lstm.bias_hh_l0 == 0).all()
    plain = made(orthogonal=False).body.lstm
    for w in plain.parameters():
        assert (w.abs() <= H**-0.5).all() and w.std() > 0.4 * H**-0.5


def test_seeds_decide_the_weights_and_the_global_generator_is_left_alone():
    before = torch.random.get_rng_state()
    a, b, c = made(), made(), made(seed=1)
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(a.body.lstm.weight_hh_l0, b.body.lstm.weight_hh_l0)
    assert not torch.equal(a.body.lstm.weight_hh_l0, c.body.lstm.weight_hh_l0)


def test_policy_and_critic_have_one_body_between_them():
    policy = made()
    critic = LSTMCritic(policy)
    assert len(trained_parameters(policy, critic)) == len(list(policy.parameters())) + 2


def test_real_actions_are_gaussian_and_clipped_towards_the_environment_only():
    env = SimpleNamespace(
        obs_shape=(D,), num_actions=None, action_dim=2,
        action_low=torch.tensor([-0.1, -1.0]), action_high=torch.tensor([0.1, 1.0]),
    )  # fmt: skip
    policy = LSTMPolicy.for_env(env, memory=H)
    law = policy.distribution(sequence(policy))
    assert isinstance(law, DiagonalGaussian) and law.mean.shape == (B, T, 2)
    actions = law.sample(rng=np.random.default_rng(0))
    given = policy.env_actions(actions)
    assert (actions[..., 0].abs() > 0.1).any() and (given[..., 0].abs() <= 0.1).all()
    numbered = LSTMPolicy.for_env(SimpleNamespace(obs_shape=(D,), num_actions=3))
    assert isinstance(numbered.distribution(sequence(numbered)), Categorical)


def test_images_go_through_the_nature_trunk():
    policy = LSTMPolicy((1, 36, 36), 3, hidden=8, memory=4)
    images = torch.randint(0, 256, (2, 3, 1, 36, 36), dtype=torch.uint8)
    obs = {
        "obs": images, "start": torch.zeros(2, 3, dtype=torch.bool), "prompt_state": policy.initial_state(2),
    }  # fmt: skip
    assert policy.distribution(obs).logits.shape == (2, 3, 3)


def test_minibatches_of_rows_keep_their_order_and_single_steps_are_refused():
    policy = made()
    obs = sequence(policy)
    batch = Batch(obs=obs, actions=torch.zeros(B, T, dtype=torch.int64), mask=torch.ones(B, T))
    whole = policy.log_prob(batch.obs, batch.actions)
    part = batch.select([2, 0])
    assert torch.allclose(policy.log_prob(part.obs, part.actions), whole[[2, 0]], atol=1e-6)
    with pytest.raises(InputError, match=r"single steps .* order is lost. Use minibatches of rows"):
        policy.distribution(batch.flatten().obs)


@pytest.mark.parametrize(
    "make, error, said",
    [
        (lambda: LSTMPolicy((3, 4), 2), ShapeError, r"shape \(3, 4\), expected vectors"),
        (lambda: LSTMPolicy((D,), 2, memory=0), InputError, "memory must be at least 1"),
        (lambda: LSTMPolicy((D,), 2, bounds=(-1.0, 1.0)), InputError, "bounds belong to real actions"),
        (lambda: made().distribution({k: v for k, v in sequence(made()).items() if k != "prompt_state"}),
         InputError, r"have \['obs', 'start'\], and exactly one of"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(make, error, said):
    with pytest.raises(error, match=said):
        make()
