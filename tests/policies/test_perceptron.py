"""The written-out passes of a perceptron against the same layers through autograd."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from dodona.policies._tanh import tanh_
from dodona.policies.perceptron import BLOCK, FEWEST, perceptron

SIZES = [(4, 64, 64, 2), (3, 8, 1), (5, 2), (40, 16, 24, 8)]


def net_of(sizes, activation="tanh"):
    net = perceptron(sizes, activation=activation, gain=1.0, seed=0)
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in net.parameters():
            p += 0.3 * torch.randn(p.shape, generator=rng)
    return net


def layers_of(net):
    """The same weights in a plain Sequential, in double precision."""
    return nn.Sequential(*copy.deepcopy(list(net))).double()


def rows_of(num, width):
    return torch.randn(num, width, generator=torch.Generator().manual_seed(2))


def gradients(net, x, d):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(net(x), [x, *net.parameters()], d)


def runs_written_out(net, x):
    return net._written_out(x) is not None


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("num_rows", [FEWEST, BLOCK + 3, 5 * BLOCK + 1])
def test_outputs_and_gradients_are_those_of_autograd(sizes, activation, num_rows):
    net = net_of(sizes, activation)
    x, d = rows_of(num_rows, sizes[0]), rows_of(num_rows, sizes[-1])
    assert runs_written_out(net, x)
    plain = layers_of(net)
    torch.testing.assert_close(net(x), plain(x.double()).float(), rtol=1e-5, atol=2e-6)
    with torch.no_grad():
        torch.testing.assert_close(net(x), plain(x.double()).float(), rtol=1e-5, atol=2e-6)
    found, expected = gradients(net, x, d), gradients(plain, x.double(), d.double())
    for mine, theirs in zip(found, expected, strict=True):
        scale = float(theirs.abs().max())
        torch.testing.assert_close(mine, theirs.float(), rtol=1e-4, atol=2e-6 * max(1.0, scale))


def test_the_gradient_of_a_frozen_net_reaches_the_inputs():
    net = net_of((4, 16, 2)).requires_grad_(False)
    x = rows_of(FEWEST, 4).requires_grad_()
    (found,) = torch.autograd.grad(net(x).sum(), x)
    (expected,) = torch.autograd.grad(layers_of(net)(x.double()).sum(), x)
    torch.testing.assert_close(found, expected.float(), rtol=1e-5, atol=1e-6)


def test_two_threads_give_the_sums_of_their_halves():
    net, num = net_of((4, 64, 64, 2)), 8 * BLOCK
    x, d, before = rows_of(num, 4), rows_of(num, 2), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = gradients(net, x, d)
        torch.set_num_threads(2)
        both, again = gradients(net, x, d), gradients(net, x, d)
    finally:
        torch.set_num_threads(before)
    for one, two, twice in zip(alone, both, again, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-3)
        assert torch.equal(two, twice)


def test_axes_in_front_are_kept():
    net, x = net_of((4, 8, 2)), rows_of(600, 4)
    assert torch.equal(net(x.view(20, 30, 4)), net(x).view(20, 30, 2))


def test_a_derivative_of_the_gradient_is_right():
    net = net_of((3, 6, 2))
    x = rows_of(FEWEST, 3)
    v = [torch.randn(p.shape, generator=torch.Generator().manual_seed(3)) for p in net.parameters()]

    def hessian_times(net, x, v):
        weights = list(net.parameters())
        first = torch.autograd.grad((net(x) ** 2).sum(), weights, create_graph=True)
        return torch.autograd.grad(first, weights, v)

    found = hessian_times(net, x, v)
    expected = hessian_times(layers_of(net), x.double(), [p.double() for p in v])
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs.float(), rtol=1e-3, atol=1e-2)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch's own
def test_torch_func_goes_through_the_layers():
    net, x = net_of((4, 8, 2)), rows_of(FEWEST, 4)
    weights = dict(net.named_parameters())

    def total(weights):
        return torch.func.functional_call(net, weights, (x,)).sum()

    direction = {name: torch.ones_like(p) for name, p in weights.items()}
    _, along = torch.func.jvp(total, (weights,), (direction,))
    grads = torch.func.grad(total)(weights)
    torch.testing.assert_close(along, sum(g.sum() for g in grads.values()), rtol=1e-4, atol=1e-2)
    each = torch.func.vmap(lambda row: torch.func.functional_call(net, weights, (row,)))(x)
    torch.testing.assert_close(each, net(x), rtol=1e-5, atol=1e-6)


def test_hooks_of_layers_are_called():
    net, seen = net_of((4, 8, 2)), []
    net[0].register_forward_hook(lambda *_: seen.append(1))
    net(rows_of(FEWEST, 4))
    assert seen == [1]


@pytest.mark.parametrize("case", ["few rows", "double", "elu", "wrong width", "a part"])
def test_what_is_not_written_out_runs_as_layers(case):
    net = net_of((4, 8, 2), "elu" if case == "elu" else "tanh")
    x = rows_of(4 if case == "few rows" else FEWEST, 5 if case == "wrong width" else 4)
    if case == "double":
        net, x = net.double(), x.double()
    assert case == "a part" or not runs_written_out(net, x)
    if case == "a part":
        assert torch.equal(net[:2](x), net[1](net[0](x)))
        return
    if case == "wrong width":
        with pytest.raises(RuntimeError):
            net(x)
    else:
        assert net(x).shape == (len(x), 2)


def test_tanh_is_exact_to_a_few_roundings_and_keeps_nan():
    x = torch.linspace(-12, 12, 200_001)
    y = x.clone()
    tanh_(y.numpy())
    assert float((y.double() - x.double().tanh()).abs().max()) < 2e-7
    odd = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0], dtype=np.float32)
    tanh_(odd)
    np.testing.assert_array_equal(odd, [np.nan, 1.0, -1.0, 0.0, 0.0])
