"""Returns and advantages over whole rollouts, against the loops that people write and TorchRL's vectorised form.

128 rows of 8 lanes is a small PPO rollout, 2048 rows of 64 a large one; float32, flags that end one row in
fifty. All take and give torch tensors in their own layout, so that nothing is converted while time is taken.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from _timing import absolute_row, in_turn, ratio_row

from dodona.objectives import discounted_returns, gae, lambda_returns, n_step_returns, vtrace

SIZES = ((128, 8), (2048, 64))
GAMMA, LAMBDA = 0.99, 0.95


def run() -> list[dict[str, Any]]:
    """Rows in seconds of one call; ratio > 1: dodona is ahead."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # every contestant on one core
    try:
        return [row for size in SIZES for row in _size(*size)]
    finally:
        torch.set_num_threads(threads)


def _size(T: int, B: int) -> list[dict[str, Any]]:
    rng = torch.Generator().manual_seed(0)
    r, v = torch.randn(T, B, generator=rng), torch.randn(T + 1, B, generator=rng)
    end = torch.rand(T, B, generator=rng) < 0.02
    cut = torch.zeros(T, B, dtype=torch.bool)
    given, factors = (r, v, end, cut), {"gamma": GAMMA, "gae_lambda": LAMBDA}
    even = torch.zeros(T, B)
    contestants = {
        "gae": lambda: gae(*given, **factors),
        "lambda": lambda: lambda_returns(*given, **factors),
        "discounted": lambda: discounted_returns(r, end, cut, gamma=GAMMA),
        "five steps": lambda: n_step_returns(*given, gamma=GAMMA, num_steps=5),
        "vtrace": lambda: vtrace(*given, log_ratio=even, gamma=GAMMA),
        "gae loop": lambda: gae_loop(r, v, end),
        "lambda loop": lambda: lambda_loop(r, v, end),
        "discounted loop": lambda: discounted_loop(r, end),
        "gae loop, NumPy": lambda: gae_loop_numpy(*(x.numpy() for x in (r, v, end))),
    }
    peer = _torchrl(r, v, end)
    if peer is not None:
        contestants["torchrl"] = peer
    np.testing.assert_allclose(contestants["gae"](), contestants["gae loop"](), atol=1e-4)
    taken = in_turn(contestants)
    title, loop = f"{T} x {B}", "a loop over time, torch"
    return [
        ratio_row(f"gae, {title}", peer=loop, ours=taken["gae"], theirs=taken["gae loop"], target=5.0),
        ratio_row(f"gae, {title}", peer="a loop over time, NumPy", ours=taken["gae"], theirs=taken["gae loop, NumPy"], target=5.0),
        ratio_row(f"gae, {title}", peer="TorchRL, vectorised", ours=taken["gae"], theirs=taken.get("torchrl"), target=1.0),
        ratio_row(f"lambda_returns, {title}", peer=loop, ours=taken["lambda"], theirs=taken["lambda loop"], target=5.0),
        ratio_row(f"discounted_returns, {title}", peer=loop, ours=taken["discounted"], theirs=taken["discounted loop"], target=5.0),
        *(
            absolute_row(f"{name}, {title}, per row and lane", ours=1e9 * taken[name] / (T * B), unit="ns")
            for name in ("gae", "five steps", "vtrace")
        ),
    ]  # fmt: skip


def _torchrl(r: torch.Tensor, v: torch.Tensor, end: torch.Tensor) -> Callable[[], Any] | None:
    """TorchRL's vectorised form, which takes lanes first and one feature last; None where it is absent."""
    try:
        from torchrl.objectives.value.functional import vec_generalized_advantage_estimate
    except ImportError:
        return None
    value, after, reward, done = (x.T[..., None].contiguous() for x in (v[:-1], v[1:], r, end))
    return lambda: vec_generalized_advantage_estimate(
        GAMMA, LAMBDA, value, after, reward, done, terminated=done
    )


# ---------------------------------------------------------------------- what people write
def gae_loop(r: torch.Tensor, v: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
    """The reverse loop of most PPO scripts, all lanes at once."""
    advantages, last = torch.zeros_like(r), torch.zeros_like(r[0])
    for t in reversed(range(len(r))):
        live = 1.0 - end[t].float()
        delta = r[t] + GAMMA * v[t + 1] * live - v[t]
        advantages[t] = last = delta + GAMMA * LAMBDA * live * last
    return advantages


def gae_loop_numpy(r: np.ndarray, v: np.ndarray, end: np.ndarray) -> np.ndarray:
    """The same on arrays."""
    advantages, last = np.zeros_like(r), np.zeros_like(r[0])
    for t in reversed(range(len(r))):
        live = 1.0 - end[t]
        delta = r[t] + GAMMA * v[t + 1] * live - v[t]
        advantages[t] = last = delta + GAMMA * LAMBDA * live * last
    return advantages


def lambda_loop(r: torch.Tensor, v: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
    """Returns by the recursion of the mixture."""
    returns, last = torch.zeros_like(r), v[-1]
    for t in reversed(range(len(r))):
        ahead = (1.0 - LAMBDA) * v[t + 1] + LAMBDA * last
        returns[t] = last = r[t] + GAMMA * (1.0 - end[t].float()) * ahead
    return returns


def discounted_loop(r: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
    """Rewards to go."""
    returns, last = torch.zeros_like(r), torch.zeros_like(r[0])
    for t in reversed(range(len(r))):
        returns[t] = last = r[t] + GAMMA * (1.0 - end[t].float()) * last
    return returns
