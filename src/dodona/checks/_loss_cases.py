"""Random batches with random switches of a policy loss: every combination that may be asked for turns up.

Source: ours. Not here: what the loss should be (oracles.losses).
"""

from typing import Any

import numpy as np

SURROGATES = ("clip", "unclipped", "cispo", "sapo", "gmpo", "none")


def loss_case(seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """(arrays logp, logp_old, advantages, mask; switches), for policy_loss and its oracle alike."""
    rng = np.random.default_rng(seed)
    switches = _switches(rng, SURROGATES[seed % len(SURROGATES)])
    flat = switches.get("ratio", "token") == "token" and rng.random() < 0.2
    shape = (6,) if flat else (4, 5)
    logp = rng.normal(-1.0, 0.5, shape)
    arrays = {
        "logp": logp, "logp_old": logp + rng.normal(0, 0.5, shape), "advantages": rng.normal(size=shape)
    }  # fmt: skip
    if switches.get("ratio") == "none":
        arrays["logp_old"] = None
    kind = rng.integers(3)
    mask = None if kind == 0 else rng.random(shape) < 0.7
    if mask is not None:
        mask[0] = True  # one row counts whole
        mask[-1] = False  # and one not at all
    arrays["mask"] = mask if kind < 2 else mask * rng.uniform(0.2, 2.0, shape)
    return arrays, switches


def _switches(rng: np.random.Generator, surrogate: str) -> dict[str, Any]:
    def sometimes(**option: Any) -> dict[str, Any]:
        return option if rng.random() < 0.5 else {}

    reductions = ["token", "sequence", "fixed"]
    out: dict[str, Any] = {"ratio": "none"} if surrogate == "none" else {"surrogate": surrogate}
    if surrogate not in ("gmpo", "none"):
        out["ratio"] = str(rng.choice(["token", "sequence", "sequence_token"]))
        out |= sometimes(max_ratio=float(rng.uniform(1.05, 2.0)))
        if out["ratio"] == "sequence":
            reductions = reductions[:2]
    if surrogate in ("clip", "cispo", "gmpo"):
        out |= sometimes(clip_eps=float(rng.uniform(0.05, 0.5)))
        out |= sometimes(clip_eps_high=float(rng.uniform(0.05, 0.8)))
    if surrogate == "clip":
        out |= sometimes(dual_clip=float(rng.uniform(1.1, 2.0)))
    if surrogate == "cispo" and "clip_eps_high" in out:
        out |= sometimes(clip_eps=None)
    out["reduction"] = str(rng.choice(reductions))
    if out["reduction"] == "fixed":
        out |= sometimes(length=float(rng.uniform(1.0, 9.0)))
    return out | sometimes(denom=float(rng.uniform(1.0, 30.0)))
