"""The recursions of returns, from the last row to the first: compiled on the host, torch loops elsewhere.

All run over rows [T, L], time first, L lanes side by side: NumPy arrays, or tensors of another device. What
a row leads to has the value v'_t (``after``). A terminated row looks at nothing, a truncated one and the last
of its lane at v'_t, any other at what the next counted row found. A row that does not count is stepped over
and answered by 0.

The sums run in float64 on the host whatever the dtype, so a float32 answer is rounded once; other devices
sum in the dtype given. Arrays that are contiguous are not copied.

Source: Schulman et al. 2016, arXiv:1506.02438, eq. 16; Espeholt et al. 2018, arXiv:1802.01561, remark 1.
Not here: what v'_t is, and the checks (_lanes.py).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numba import njit

from dodona.core.inputs import is_tensor


class Rows(NamedTuple):
    """[T, L] each: floats of one dtype, bools. Only counted rows are read."""

    rewards: Any
    after: Any
    terminated: Any
    truncated: Any
    counts: Any


def gae_recursion(rows: Rows, values: Any, gamma: float, gae_lambda: float, *, plus: bool) -> Any:
    """A_t = r_t + gamma v'_t - v_t + gamma lambda A_{t+1}; ``plus``: A_t + v_t."""
    return _run(
        _gae_kernel, _gae_loop, rows, (values,), (float(gamma), float(gae_lambda), plus), 1
    )[0]


def discounted_recursion(rows: Rows, gamma: float) -> Any:
    """G_t = r_t + gamma G_{t+1}, and v'_t for G_{t+1} where the sum ends."""
    return _run(_discounted_kernel, _discounted_loop, rows, (), (float(gamma),), 1)[0]


def n_step_recursion(rows: Rows, gamma: float, num_steps: int) -> Any:
    """G_t = r_t + .. + gamma^{n-1} r_{t+n-1} + gamma^n v'_{t+n-1}."""
    if num_steps >= len(rows.rewards):  # no window closes before its lane does
        return discounted_recursion(rows, gamma)
    return _run(_n_step_kernel, _n_step_loop, rows, (), (float(gamma), num_steps), 1)[0]


def vtrace_recursion(
    rows: Rows, values: Any, log_ratio: Any, gamma: float, rho_max: float, c_max: float
) -> list[Any]:
    """[x_t + v_t, rho_t (r_t + gamma (v'_t + x_{t+1}) - v_t)] with
    x_t = rho_t (r_t + gamma v'_t - v_t) + gamma c_t x_{t+1}."""
    numbers = (float(gamma), float(rho_max), float(c_max))
    return _run(_vtrace_kernel, _vtrace_loop, rows, (values, log_ratio), numbers, 2)


def next_counted(counts: Any) -> Any:
    """[T, L] number of the next row that counts, T where there is none."""
    T = len(counts)
    if is_tensor(counts):
        own = torch.where(counts, torch.arange(T, device=counts.device)[:, None], T)
        first = own.flip(0).cummin(0).values.flip(0)  # at t or later
        return torch.cat([first[1:], torch.full_like(own[:1], T)])
    own = np.where(counts, np.arange(T)[:, None], T)
    first = np.minimum.accumulate(own[::-1], axis=0)[::-1]
    return np.concatenate([first[1:], np.full_like(own[:1], T)])


def _run(
    kernel: Callable, loop: Callable, rows: Rows, arrays: tuple, numbers: tuple, num_answers: int
) -> list[Any]:
    if is_tensor(rows.rewards):
        return loop(*rows, *arrays, *numbers)
    host = [np.ascontiguousarray(x) for x in (*rows, *arrays)]
    answers = [np.empty_like(host[0]) for _ in range(num_answers)]
    kernel(*host, *numbers, *answers)
    return answers


# ---------------------------------------------------------------------- on the host
# In the first two every branch is a choice between two numbers, so that lanes go through side by side; and
# a choice, not a product with 0, lets v' be anything where nothing follows.
@njit(cache=True, nogil=True)
def _gae_kernel(
    rewards, after, terminated, truncated, counts, values, gamma, gae_lambda, plus, out
):
    T, L = rewards.shape
    found = np.zeros(L)
    for i in range(T):
        t = T - 1 - i
        for b in range(L):
            ahead = 0.0 if terminated[t, b] else np.float64(after[t, b])
            trace = 0.0 if terminated[t, b] | truncated[t, b] else found[b]
            advantage = rewards[t, b] + gamma * ahead - values[t, b] + gamma * gae_lambda * trace
            found[b] = advantage if counts[t, b] else found[b]
            answer = advantage + values[t, b] if plus else advantage
            out[t, b] = answer if counts[t, b] else 0.0


@njit(cache=True, nogil=True)
def _discounted_kernel(rewards, after, terminated, truncated, counts, gamma, out):
    T, L = rewards.shape
    found, last = np.zeros(L), np.ones(L, np.bool_)
    for i in range(T):
        t = T - 1 - i
        for b in range(L):
            ahead = np.float64(after[t, b]) if truncated[t, b] | last[b] else found[b]
            g = rewards[t, b] + gamma * (0.0 if terminated[t, b] else ahead)
            found[b] = g if counts[t, b] else found[b]
            last[b] = last[b] & (not counts[t, b])
            out[t, b] = g if counts[t, b] else 0.0


@njit(cache=True, nogil=True)
def _n_step_kernel(rewards, after, terminated, truncated, counts, gamma, num_steps, out):
    T, L = rewards.shape
    windows = np.zeros((T, L))  # sweep k makes windows of k + 1 rewards out of windows of k
    for sweep in range(num_steps):
        found, last = np.zeros(L), np.ones(L, np.bool_)
        for i in range(T):
            t = T - 1 - i
            for b in range(L):
                if counts[t, b]:
                    closes = sweep == 0 or truncated[t, b] or last[b]
                    ahead = np.float64(after[t, b]) if closes else found[b]
                    ahead = 0.0 if terminated[t, b] else ahead
                    found[b], last[b] = windows[t, b], False
                    windows[t, b] = rewards[t, b] + gamma * ahead
                out[t, b] = windows[t, b]


@njit(cache=True, nogil=True)
def _vtrace_kernel(
    rewards, after, terminated, truncated, counts, values, log_ratio, gamma, rho_max, c_max, targets,
    advantages,
):  # fmt: skip
    T, L = rewards.shape
    found = np.zeros(L)
    for i in range(T):
        t = T - 1 - i
        for b in range(L):
            if not counts[t, b]:
                targets[t, b], advantages[t, b] = 0.0, 0.0
                continue
            v, ratio = np.float64(values[t, b]), np.exp(np.float64(log_ratio[t, b]))
            # a comparison with NaN is false, so NaN is handed on and not clipped away
            rho, c = rho_max if ratio > rho_max else ratio, c_max if ratio > c_max else ratio
            ahead = 0.0 if terminated[t, b] else np.float64(after[t, b])
            trace = 0.0 if terminated[t, b] or truncated[t, b] else found[b]
            error = rewards[t, b] + gamma * ahead - v
            advantages[t, b] = rho * (error + gamma * trace)
            found[b] = rho * error + gamma * c * trace
            targets[t, b] = v + found[b]


# ---------------------------------------------------------------------- on other devices
def _gae_loop(
    rewards, after, terminated, truncated, counts, values, gamma, gae_lambda, plus
) -> list[Any]:  # fmt: skip
    answer, found = torch.zeros_like(rewards), rewards.new_zeros(rewards.shape[1])
    errors = rewards + gamma * torch.where(terminated, 0.0, after) - values
    cut = terminated | truncated
    for t in reversed(range(len(rewards))):
        trace = torch.where(cut[t], 0.0, found)
        found = torch.where(counts[t], errors[t] + gamma * gae_lambda * trace, found)
        answer[t] = torch.where(counts[t], found + values[t] if plus else found, 0.0)
    return [answer]


def _discounted_loop(rewards, after, terminated, truncated, counts, gamma) -> list[Any]:
    answer, found = torch.zeros_like(rewards), rewards.new_zeros(rewards.shape[1])
    closes = truncated | (next_counted(counts) == len(rewards))
    for t in reversed(range(len(rewards))):
        ahead = torch.where(terminated[t], 0.0, torch.where(closes[t], after[t], found))
        found = torch.where(counts[t], rewards[t] + gamma * ahead, found)
        answer[t] = torch.where(counts[t], found, 0.0)
    return [answer]


def _n_step_loop(rewards, after, terminated, truncated, counts, gamma, num_steps) -> list[Any]:
    following = next_counted(counts)
    closes = truncated | (following == len(rewards))
    following = following.clamp(max=len(rewards) - 1)
    windows, ahead = rewards, after
    for _ in range(num_steps):
        windows = rewards + gamma * torch.where(terminated, 0.0, ahead)
        ahead = torch.where(closes, after, windows.gather(0, following))
    return [torch.where(counts, windows, 0.0)]


def _vtrace_loop(
    rewards, after, terminated, truncated, counts, values, log_ratio, gamma, rho_max, c_max
) -> list[Any]:  # fmt: skip
    targets, advantages = torch.zeros_like(rewards), torch.zeros_like(rewards)
    ratio = log_ratio.exp()
    rho, c = ratio.clamp(max=rho_max), ratio.clamp(max=c_max)
    errors = rewards + gamma * torch.where(terminated, 0.0, after) - values
    cut = terminated | truncated
    found = rewards.new_zeros(rewards.shape[1])
    for t in reversed(range(len(rewards))):
        trace = torch.where(cut[t], 0.0, found)
        x = rho[t] * errors[t] + gamma * c[t] * trace
        found = torch.where(counts[t], x, found)
        targets[t] = torch.where(counts[t], values[t] + x, 0.0)
        advantages[t] = torch.where(counts[t], rho[t] * (errors[t] + gamma * trace), 0.0)
    return [targets, advantages]
