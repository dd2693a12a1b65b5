"""Action-value networks against nested loops, their starts, and the policies made of them."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dodona.errors import InputError, ShapeError
from dodona.oracles import replay as loops
from dodona.rl.q_networks import EpsilonGreedy, QNetwork


def layers_of(net):
    return [(m.weight.tolist(), m.bias.tolist()) for m in net.modules() if isinstance(m, nn.Linear)]


@given(st.integers(0, 2**31), st.booleans(), st.lists(st.integers(1, 6), max_size=3), st.integers(1, 4))  # fmt: skip
def test_vectors_give_what_the_loops_give(seed, dueling, hidden, num_actions):
    net = QNetwork((2, 2), num_actions, hidden=hidden, dueling=dueling, seed=seed % 1000).double()
    x = torch.from_numpy(np.random.default_rng(seed).normal(size=(3, 2, 2)))
    expected = [
        loops.q_network(layers_of(net), row, dueling=dueling) for row in x.flatten(1).tolist()
    ]
    assert np.allclose(net(x).detach().numpy(), expected, atol=1e-12)


def test_one_hot_states_are_rows_of_the_first_matrix():
    net = QNetwork(4, 3, hidden=(5,), seed=1).double()
    rows = net.body[0].weight.detach().numpy()
    (weight, bias), = layers_of(net)  # fmt: skip
    expected = [np.array(weight) @ np.maximum(rows[s], 0.0) + bias for s in (2, 0)]
    assert np.allclose(net(torch.tensor([2, 0])).detach().numpy(), expected, atol=1e-12)


def test_without_hidden_layers_numbered_states_are_a_table_of_zeros():
    net = QNetwork(4, 3, hidden=())
    assert [p.shape for p in net.parameters()] == [(4, 3)]
    assert not net(torch.arange(4)).any()


def test_dueling_leaves_v_as_the_mean_over_feasible_actions():
    mask = np.array([[True, True, False], [True, True, True]])
    net = QNetwork(2, 3, hidden=(4,), dueling=True, action_mask=mask)
    q = net(torch.arange(2))
    value = net.head(net.body(torch.arange(2)))[:, 0]
    assert q[0, 2] == -torch.inf
    assert torch.allclose(q[0, :2].mean(), value[0]) and torch.allclose(q[1].mean(), value[1])


def test_infeasible_actions_get_no_gradient_and_make_no_nan():
    mask = np.array([[True, False]])
    net = QNetwork(1, 2, hidden=(), action_mask=mask)
    net(torch.tensor([0]))[0, 0].backward()
    assert net.head.weight.grad.tolist() == [[1.0, 0.0]]


def test_the_action_can_stand_beside_the_coordinates():
    points = np.array([[-1.0, 0.0], [1.0, 0.5]])
    net = QNetwork(2, 3, hidden=(4,), coordinates=points, action_as_input=True).double()
    expected = [[loops.q_network(layers_of(net), [*x, a])[0] for a in (-1, 0, 1)] for x in points]
    assert np.allclose(net(torch.arange(2)).detach().numpy(), expected, atol=1e-6)


def test_layer_norm_stands_before_every_rectifier():
    net = QNetwork((3,), 2, hidden=(5, 4), layer_norm=True)
    kinds = [type(m).__name__ for m in net.body]
    assert kinds == ["Flatten", "Linear", "LayerNorm", "ReLU", "Linear", "LayerNorm", "ReLU"]
    x = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    hidden = net.body[:3](x)
    assert torch.allclose(hidden.mean(1), torch.zeros(2), atol=1e-6)


def test_natures_network_has_its_number_of_weights():
    """Three convolutions, 512 units, four actions: 1 686 180 (Mnih et al. 2015, by hand)."""
    net = QNetwork.nature(4)
    assert sum(p.numel() for p in net.parameters()) == 1_686_180
    frames = torch.zeros(2, 4, 84, 84, dtype=torch.uint8)
    assert net(frames).shape == (2, 4)
    assert QNetwork.nature(4, dueling=True)(frames).shape == (2, 4)


def test_equal_seeds_start_alike_and_leave_the_global_generator_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    a, b, c = (QNetwork((3,), 2, seed=s) for s in (5, 5, 6))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    assert not torch.equal(a.head.weight, c.head.weight)
    assert a.body[1].weight.abs().max() <= 1 / math.sqrt(3)


def test_what_does_not_go_together_is_refused():
    with pytest.raises(InputError, match="coordinates belong to numbered states"):
        QNetwork((3,), 2, coordinates=np.zeros((3, 1)))
    with pytest.raises(ShapeError, match=r"coordinates has shape \(2, 1\), expected 3 rows"):
        QNetwork(3, 2, coordinates=np.zeros((2, 1)))
    with pytest.raises(ShapeError, match=r"action_mask has shape \(3, 1\), expected \(3, 2\)"):
        QNetwork(3, 2, action_mask=np.ones((3, 1), bool))
    with pytest.raises(InputError, match="action_as_input needs vectors or coordinates"):
        QNetwork(3, 2, action_as_input=True)
    with pytest.raises(InputError, match=r"hidden\[1\] must be at least 1, got 0"):
        QNetwork((3,), 2, hidden=(4, 0))


# ---------------------------------------------------------------------- the policy
def test_epsilon_is_shared_by_feasible_actions_and_the_first_best_gets_the_rest():
    mask = np.array([[True, True, False, True]])
    policy = EpsilonGreedy(QNetwork(1, 4, hidden=(), action_mask=mask), epsilon=0.3)
    probs = policy.distribution(torch.tensor([0])).probs[0]
    assert torch.allclose(probs, torch.tensor([0.8, 0.1, 0.0, 0.1]))
    actions, logp = policy.sample(torch.tensor([0]), rng=np.random.default_rng(0), num_samples=200)
    assert set(actions.tolist()) == {0, 1, 3}
    assert torch.allclose(logp.exp(), probs[actions])


def test_greedy_never_draws_anything_else():
    policy = EpsilonGreedy(QNetwork((2,), 3, seed=1))
    obs = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    actions, logp = policy.sample(obs, rng=torch.Generator().manual_seed(1))
    assert torch.equal(actions, policy.q_net(obs).argmax(1)) and not logp.any()
    with pytest.raises(InputError, match=r"epsilon must be in \[0, 1\], got 2"):
        EpsilonGreedy(policy.q_net, epsilon=2.0)
