"""A decoder-only transformer and the laws it is sampled from, by loops over positions, heads and tokens.

Weights are arrays under the names of the module; everything is float64, nothing is batched or cached, and
attention looks at one earlier position after the other.

Source: Vaswani et al. 2017, arXiv:1706.03762; Su et al. 2021, arXiv:2104.09864; Shazeer 2020,
arXiv:2002.05202.  Not here: gradients.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np


def logits(
    weights: Mapping[str, np.ndarray],
    ids: Sequence[int],
    *,
    num_heads: int,
    rope_base: float = 10_000.0,
    norm_eps: float = 1e-6,
) -> np.ndarray:
    """[W, V] logits behind every position of one row.

    Args: weights: "trunk.embedding.weight" [V, d], "trunk.blocks.0.qkv.weight" [3 d, d] and so on.
    Source: see the module.  Cost: O(W^2 d + W d^2) in Python.
    """
    w = {
        name.removeprefix("trunk."): np.asarray(x, dtype=np.float64) for name, x in weights.items()
    }
    table = w["embedding.weight"]
    stream = [table[i].copy() for i in ids]
    num_layers = 1 + max(int(name.split(".")[1]) for name in w if name.startswith("blocks."))
    for layer in range(num_layers):
        block = {k.split(".", 2)[2]: x for k, x in w.items() if k.startswith(f"blocks.{layer}.")}
        queries, keys, values = [], [], []
        for position, x in enumerate(stream):
            three = block["qkv.weight"] @ norm(x, block["attention_norm.weight"], norm_eps)
            q, k, v = np.split(three, 3)
            queries.append([turn(h, position, rope_base) for h in np.split(q, num_heads)])
            keys.append([turn(h, position, rope_base) for h in np.split(k, num_heads)])
            values.append(np.split(v, num_heads))
        mixed = [
            np.concatenate([_attend(queries[t], keys, values, t, h) for h in range(num_heads)])
            for t in range(len(ids))
        ]
        for t in range(len(ids)):
            x = stream[t] + block["out.weight"] @ mixed[t]
            both = block["gate_up.weight"] @ norm(x, block["mlp_norm.weight"], norm_eps)
            gate, up = np.split(both, 2)
            stream[t] = x + block["down.weight"] @ (gate / (1.0 + np.exp(-gate)) * up)
    return np.array([table @ norm(x, w["norm.weight"], norm_eps) for x in stream])


def norm(x: np.ndarray, gain: np.ndarray, eps: float) -> np.ndarray:
    """x divided by the root of its mean square, times a gain."""
    return x / math.sqrt(math.fsum(x * x) / len(x) + eps) * gain


def turn(head: np.ndarray, position: int, base: float) -> np.ndarray:
    """Pairs (i, i + h/2) turned by position base^(-2 i / h), as complex numbers."""
    half = len(head) // 2
    angle = [position * base ** (-2.0 * i / len(head)) for i in range(half)]
    z = (head[:half] + 1j * head[half:]) * np.exp(1j * np.array(angle))
    return np.concatenate([z.real, z.imag])


def _attend(query: list, keys: list, values: list, t: int, head: int) -> np.ndarray:
    """The mean of the values up to position t, weighted by exp(query . key / sqrt h)."""
    scores = [
        float(query[head] @ keys[s][head]) / math.sqrt(len(query[head])) for s in range(t + 1)
    ]
    highest = max(scores)
    weights = [math.exp(x - highest) for x in scores]
    total = math.fsum(weights)
    return sum(x / total * values[s][head] for s, x in enumerate(weights))


def answer_logp(
    weights: Mapping[str, np.ndarray], prompt: Sequence[int], answer: Sequence[int], **shape: float
) -> np.ndarray:
    """[T] log p of every token of an answer after its prompt and the tokens before it."""
    rows = logits(weights, [*prompt, *answer], **shape)
    found = []
    for t, token in enumerate(answer):
        row = rows[len(prompt) + t - 1]
        highest = max(row)
        found.append(row[token] - highest - math.log(math.fsum(math.exp(x - highest) for x in row)))
    return np.array(found)


def sampling_law(
    row: Sequence[float], *, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0
) -> np.ndarray:  # fmt: skip
    """[V] probabilities of one token: tempered, then cut by top-k, top-p and min-p, each renormalised.

    Of equal tokens the one with the smaller number comes first.
    """
    highest = max(row)
    p = {v: math.exp((x - highest) / temperature) for v, x in enumerate(row)}
    ranked = sorted(p, key=lambda v: (-row[v], v))
    if top_k:
        ranked = ranked[:top_k]
    if top_p < 1.0:
        total, mass, kept = math.fsum(p[v] for v in ranked), 0.0, []
        for v in ranked:
            if mass / total >= top_p:
                break
            kept.append(v)
            mass += p[v]
        ranked = kept
    ranked = [v for v in ranked if p[v] >= min_p * p[ranked[0]]]
    total = math.fsum(p[v] for v in ranked)
    return np.array([p[v] / total if v in ranked else 0.0 for v in range(len(row))])
