"""Returns, advantages and the losses of critics as they are written on paper: sums over lists, no recursion.

Rows [T] or lanes [T, B] are first cut into episodes: lists of the rows that count, up to a cut or to the end.
Every sum then runs forward over one such list, and what a row leads to is read off, not handed back.

Source: definitions; each function cites its own. Slow on purpose, O(T^2) and O(T^3).
"""

import math
from collections import namedtuple

import numpy as np

Row = namedtuple("Row", ("t", "reward", "value", "after", "ends", "ratio"))
"""One counted row: after = v of what it leads to, ends = terminated."""


def gae_by_definition(
    rewards, values, terminated, truncated, *, gamma, gae_lambda, next_values=None, mask=None
) -> np.ndarray:
    """[T] or [T, B] A_t = sum_l (gamma lambda)^l delta_{t+l}, l to the end of the episode; 0 where masked.

    Args: as objectives.gae, time first.
    Independent of: backward passes, lambda-returns.  Source: arXiv:1506.02438, eq. 16.
    """

    def advantage(episode, i):
        errors = [x.reward + (0.0 if x.ends else gamma * x.after) - x.value for x in episode[i:]]
        return math.fsum((gamma * gae_lambda) ** k * error for k, error in enumerate(errors))

    return _each(advantage, rewards, values, terminated, truncated, next_values, mask)


def returns_by_definition(
    rewards, values, terminated, truncated, *, gamma, num_steps=None, gae_lambda=None, next_values=None,
    mask=None, final_values=0.0,
) -> np.ndarray:  # fmt: skip
    """[T] or [T, B] n-step returns (num_steps), their mixture (gae_lambda), or the whole sum (neither).

    G^(n)_t = sum_{k<n} gamma^k r_{t+k} + gamma^n v';  mixture: sum_{n<N} (1 - lambda) lambda^{n-1} G^(n) +
    lambda^{N-1} G^(N), N = rows to the end of the episode.

    Args: as in objectives.returns, time first; values None: final_values (one number) follow the last rows.
    Independent of: backward passes.  Source: Sutton & Barto 2018, eq. 7.1 and 12.3.
    """

    def n_step(episode, i, n):
        part = episode[i : i + n]
        total = [gamma**k * x.reward for k, x in enumerate(part)]
        return math.fsum(total) + (0.0 if part[-1].ends else gamma ** len(part) * part[-1].after)

    def answer(episode, i):
        N = len(episode) - i
        if gae_lambda is None:
            return n_step(episode, i, N if num_steps is None else num_steps)
        mixed = [
            (1 - gae_lambda) * gae_lambda ** (n - 1) * n_step(episode, i, n) for n in range(1, N)
        ]
        return math.fsum(mixed) + gae_lambda ** (N - 1) * n_step(episode, i, N)

    return _each(
        answer, rewards, values, terminated, truncated, next_values, mask, final_values=final_values
    )


def vtrace_by_definition(
    rewards, values, terminated, truncated, *, log_ratio, gamma, rho_max=1.0, c_max=1.0, next_values=None,
    mask=None,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """(targets, advantages), [T] or [T, B]: v_t + sum_k gamma^k (c_t .. c_{t+k-1}) rho_{t+k} delta_{t+k}.

    Args: as objectives.vtrace, time first.
    Independent of: the recursion of remark 1.  Source: arXiv:1802.01561, eq. 1 and sec. 4.2.
    """

    def target(episode, i):
        total, trace = [episode[i].value], 1.0
        for k, x in enumerate(episode[i:]):
            error = x.reward + (0.0 if x.ends else gamma * x.after) - x.value
            total.append(gamma**k * trace * min(rho_max, x.ratio) * error)
            trace *= min(c_max, x.ratio)
        return math.fsum(total)

    def advantage(episode, i):
        x = episode[i]
        if x.ends:
            ahead = 0.0
        elif i + 1 == len(episode):
            ahead = x.after
        else:  # v' and what the next row adds to its own value, two names of one state's value
            ahead = x.after + target(episode, i + 1) - episode[i + 1].value
        return min(rho_max, x.ratio) * (x.reward + gamma * ahead - x.value)

    given = (rewards, values, terminated, truncated, next_values, mask)
    return _each(target, *given, log_ratio=log_ratio), _each(advantage, *given, log_ratio=log_ratio)


def group_advantages_by_definition(
    rewards, group, *, baseline="mean", scale="group", ddof=1, tol=0.0
) -> list[float]:
    """[B], one answer after another: its own list of others, its own deviation.

    Independent of: scatter sums, and G / (G - 1).  Source: arXiv:2402.03300, sec. 4.1.2; arXiv:2402.14740.
    """
    answer = []
    for i, reward in enumerate(rewards):
        mates = [r for r, g in zip(rewards, group, strict=True) if g == group[i]]
        others = [r for j, r in enumerate(rewards) if group[j] == group[i] and j != i]
        looked_at = baseline != "none" or scale == "group"
        if looked_at and max(mates) - min(mates) <= tol:
            answer.append(0.0)
            continue
        base = {"none": [], "mean": mates, "loo": others}[baseline]
        spread = {"none": None, "group": mates, "batch": list(rewards)}[scale]
        divisor = 1.0 if spread is None else _deviation(spread, ddof) or 1.0
        answer.append((reward - (_mean(base) if base else 0.0)) / divisor)
    return answer


def process_advantages_by_definition(rewards, reward_mask, group, *, ddof=1) -> list[list[float]]:
    """[B][T] sums of normalised step rewards from t on, token by token.

    Independent of: reversed cumulative sums.  Source: arXiv:2402.03300, sec. 4.1.3.
    """
    B, T = np.shape(rewards)
    answer = []
    for i in range(B):
        steps = [
            rewards[j][t] for j in range(B) for t in range(T)
            if group[j] == group[i] and reward_mask[j][t]
        ]  # fmt: skip
        flat = not steps or max(steps) == min(steps)
        row = [
            0.0 if flat or not reward_mask[i][t]
            else (rewards[i][t] - _mean(steps)) / _deviation(steps, ddof)
            for t in range(T)
        ]  # fmt: skip
        answer.append([math.fsum(row[t:]) for t in range(T)])
    return answer


def value_loss_by_definition(
    values, returns, mask=None, *, kind="mse", values_old=None, clip_eps=0.2
) -> float:
    """The mean over what counts of half the squared error, by cases.

    Independent of: clamps and maxima of tensors.  Source: arXiv:1707.06347, eq. 9; Huber 1964.
    """
    errors = []
    for i, (v, G) in enumerate(zip(values, returns, strict=True)):
        if mask is not None and not mask[i]:
            continue
        own = 0.5 * (v - G) ** 2
        if kind == "huber":
            own = own if abs(v - G) <= 1.0 else abs(v - G) - 0.5
        elif kind != "mse":
            old = values_old[i]
            near = v if abs(v - old) <= clip_eps else old + math.copysign(clip_eps, v - old)
            held = 0.5 * (near - G) ** 2
            own = held if kind == "clipped_no_max" or held > own else own
        errors.append((own, 1.0 if mask is None else float(mask[i])))
    return _weighted(errors)


def dqn_loss_by_definition(q, actions, targets, mask=None, *, kind="mse") -> float:
    """The mean over rows that count of the error of the action taken.

    Independent of: gathers.  Source: Mnih et al. 2015, Nature 518:529.
    """
    errors = []
    for i, y in enumerate(targets):
        if mask is None or mask[i]:
            e = abs(q[i][actions[i]] - y)
            own = e * e if kind == "mse" else 0.5 * e * e if e <= 1.0 else e - 0.5
            errors.append((own, 1.0 if mask is None else float(mask[i])))
    return _weighted(errors)


def explained_variance_by_definition(values, returns, mask=None) -> float:
    """1 - Var(G - v) / Var(G) of what counts.

    Independent of: shifted sums.  Source: definition.
    """
    kept = [
        (v, G) for i, (v, G) in enumerate(zip(values, returns, strict=True))
        if mask is None or mask[i]
    ]  # fmt: skip
    return 1.0 - (
        _deviation([G - v for v, G in kept], 0) ** 2 / _deviation([G for _, G in kept], 0) ** 2
    )


def _each(
    answer, rewards, values, terminated, truncated, next_values, mask, *, final_values=0.0, log_ratio=None
) -> np.ndarray:  # fmt: skip
    """answer(episode, place in it) for every counted row of every lane."""
    columns = [
        None if x is None else np.asarray(x)
        for x in (rewards, values, terminated, truncated, next_values, mask, log_ratio)
    ]
    out = np.zeros(columns[0].shape)
    for lane in np.ndindex(columns[0].shape[1:]):
        own = [None if x is None else x[(slice(None), *lane)].tolist() for x in columns]
        for episode in _episodes(*own, final_values=final_values):
            for i, row in enumerate(episode):
                out[(row.t, *lane)] = answer(episode, i)
    return out


def _episodes(
    rewards, values, terminated, truncated, next_values, mask, log_ratio, *, final_values
) -> list[list[Row]]:
    counted = [t for t in range(len(rewards)) if mask is None or mask[t]]
    episodes, now = [], []
    for place, t in enumerate(counted):
        cut = terminated[t] or truncated[t]
        if next_values is not None:
            after = next_values[t]
        elif values is None:
            after = final_values
        elif cut:
            after = values[t + 1]
        else:
            after = values[counted[place + 1] if place + 1 < len(counted) else len(rewards)]
        now.append(Row(
            t, rewards[t], None if values is None else values[t], after, terminated[t],
            None if log_ratio is None else math.exp(log_ratio[t]),
        ))  # fmt: skip
        if cut:
            episodes.append(now)
            now = []
    return [*episodes, now] if now else episodes


def _mean(x) -> float:
    return math.fsum(x) / len(x)


def _deviation(x, ddof) -> float:
    return math.sqrt(math.fsum((v - _mean(x)) ** 2 for v in x) / (len(x) - ddof))


def _weighted(pairs) -> float:
    total = math.fsum(w for _, w in pairs)
    return math.fsum(x * w for x, w in pairs) / total if total else 0.0
