"""The KL table of GRPO measured: whose gradient each way of writing the penalty follows, exactly, on TM-40.

A penalty on the distance to a reference is written in half a dozen ways, which agree in value and not in gradient.
All 40 answers of a token model are enumerated, so that a gradient is a sum and not an estimate.

Source: card grpo, sec. 2; Shao et al. 2024, arXiv:2402.03300, eq. 4 (k3); J. Schulman, "Approximating KL divergence".
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from dodona.core.batch import Batch
from dodona.objectives import PolicyObjective
from dodona.oracles import sequences as exact

FORMS: Mapping[str, dict[str, Any]] = {
    "k2 of whole answers, in the loss": {"kl_kind": "k2", "kl_level": "sequence"},
    "k1 in the reward": {"kl": "reward", "kl_kind": "k1"},
    "k3 per token, in the loss (GRPO)": {"kl_kind": "k3"},
    "k3 per token, weighted by the ratio": {"kl_kind": "k3", "kl_weighted": True},
    "k2 per token, in the loss": {"kl_kind": "k2"},
    "k3 of whole answers, in the loss": {"kl_kind": "k3", "kl_level": "sequence"},
    "k1 in the loss": {"kl_kind": "k1"},
}
COMMON = {"surrogate": "unclipped", "reduction": "fixed", "kl": "loss", "kl_coef": 1.0}


def kl_table() -> dict[str, tuple[float, float]]:
    """Form -> (cosine to the gradient of KL(policy || reference), its length beside that); cosine 0 of nothing."""
    problem = exact.tm40()
    p = exact.probabilities(problem.sequences, problem.logits)
    truth = exact.exact_kl(problem)[1]
    table = {}
    for name, switches in FORMS.items():
        found = -exact.pull_back(problem.sequences, problem.logits, p[:, None] * _slopes(problem, switches))  # fmt: skip
        size = float(np.linalg.norm(found) / np.linalg.norm(truth))
        cosine = float(np.vdot(found, truth)) / (size * float(np.linalg.norm(truth)) ** 2) if size > 1e-9 else 0.0  # fmt: skip
        table[name] = (cosine, size if size > 1e-9 else 0.0)
    return table


def _slopes(problem: Any, switches: Mapping[str, Any]) -> np.ndarray:
    """[40, T] minus the slope of each answer's own loss in its log-probabilities."""
    mask = torch.tensor(problem.sequences.mask)
    logp, ref = (
        torch.tensor(exact.token_logp(problem.sequences, x))
        for x in (problem.logits, problem.reference)
    )
    ends = torch.zeros_like(mask)
    ends[torch.arange(len(mask)), mask.sum(1) - 1] = True
    # a penalty in the reward needs returns; without a reward they are minus the KL that is left to go
    advantage = "returns" if switches.get("kl") == "reward" else "given"
    objective = PolicyObjective(name="kl", **{**COMMON, "advantage": advantage, **switches})
    batch = Batch(
        obs=torch.zeros_like(mask, dtype=torch.int64), actions=torch.zeros_like(mask, dtype=torch.int64),
        mask=mask, logp_old=logp, logp_ref=ref, rewards=torch.zeros_like(logp), terminated=ends,
        truncated=torch.zeros_like(mask), advantages=torch.zeros_like(logp),
    )  # fmt: skip
    logp = logp.clone().requires_grad_()
    terms = objective.terms(logp, objective.prepare(batch))
    (slope,) = torch.autograd.grad(torch.stack(list(terms.values())).sum(), logp)
    # the loss is a mean over the 40 rows
    return -slope.numpy() * len(mask)
