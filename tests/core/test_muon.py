"""Muon against torch's own Muon and AdamW, and against singular values."""

import pytest
import torch
from torch import nn

from dodona.core.muon import Muon, orthogonalized
from dodona.core.optimizers import (
    load_optimizer_state,
    make_optimizer,
    optimizer_state,
    tables_of,
    trained_parameters,
)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(7, 12), nn.Linear(12, 20), nn.Linear(20, 12), nn.LayerNorm(12))  # fmt: skip


def train(model, optimizers, steps=4, first=0):
    """Parameters after steps along gradients of full rank, the same in every call."""
    for k in range(first, first + steps):
        rng = torch.Generator().manual_seed(k)
        for p in model.parameters():
            p.grad = torch.randn(p.shape, generator=rng)
        for optimizer in optimizers:
            optimizer.step()
    return [p.detach().clone() for p in model.parameters()]


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_matrices_move_as_torchs_muon_and_the_rest_as_adamw(decay):
    ours, theirs = network(), network()
    mine = Muon(ours.parameters(), 0.02, tables=tables_of(ours), weight_decay=decay)
    matrices = [theirs[1].weight, theirs[2].weight]
    rest = [p for p in theirs.parameters() if all(p is not m for m in matrices)]
    muon = torch.optim.Muon(matrices, lr=0.02, momentum=0.95, weight_decay=decay, adjust_lr_fn="match_rms_adamw")  # fmt: skip
    adam = torch.optim.AdamW(rest, lr=0.02, betas=(0.9, 0.95), weight_decay=decay)
    for a, b in zip(train(ours, [mine]), train(theirs, [muon, adam]), strict=True):
        # torch's Newton-Schulz runs in bfloat16
        orthogonal = a.shape in ((20, 12), (12, 20))
        assert (a - b).abs().max() < 0.02 * (0.05 if orthogonal else 1e-5)


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (8, 8)])
def test_singular_values_come_near_one_and_vectors_stay(shape):
    x = torch.randn(4, *shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = orthogonalized(x)
    values = torch.linalg.svdvals(found)
    kept = torch.linalg.svdvals(x) > 0.05 * x.norm(dim=(1, 2))[:, None]
    assert ((values > 0.6) & (values < 1.3))[kept].all()
    u, _, vt = torch.linalg.svd(x, full_matrices=False)
    inside = u.mT @ found @ vt.mT
    assert torch.allclose(inside, torch.diag_embed(inside.diagonal(dim1=1, dim2=2)), atol=1e-8)


def test_a_state_goes_on_where_it_was_taken():
    whole = network()
    expected = train(whole, [make_optimizer("muon", trained_parameters(whole), 0.02, tables=tables_of(whole))], 6)  # fmt: skip
    first = network()
    optimizer = make_optimizer("muon", trained_parameters(first), 0.02, tables=tables_of(first))
    train(first, [optimizer], 3)
    second = network()
    second.load_state_dict(first.state_dict())
    other = make_optimizer("muon", trained_parameters(second), 0.02, tables=tables_of(second))
    load_optimizer_state(other, optimizer_state(optimizer))
    for a, b in zip(train(second, [other], 3, 3), expected, strict=True):
        assert torch.equal(a, b)


def test_a_table_is_not_taken_for_a_matrix():
    model = network()
    optimizer = make_optimizer("muon", trained_parameters(model), 0.02, tables=tables_of(model))
    train(model, [optimizer], 1)
    assert "exp_avg" in optimizer.state[model[0].weight]
    assert "momentum" in optimizer.state[model[1].weight]
