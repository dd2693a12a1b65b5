"""Engines: frozen copies of a policy that answer prompts, and the audit that compares one with the policy in training.

    engine = TorchEngine(policy, tokenizer=tokenizer)            weights of its own, as they are now
    engine.sync(policy.named_parameters(), version=7)            as they are after update 7
    audit_rollout(engine, policy, prompts)                       do both mean the same law?

A policy gradient is right for the law that drew the answers. An engine of other arithmetic (bfloat16, another
library, weights of last week) draws from another law, and nothing else shows it: hence the audit.

Source: card rollouts-and-verifiers, sec. 3 and 4b; Yao et al. 2025, "Your efficient RL framework secretly
brings you off-policy RL training" (the mismatch).
Not here: what a step of generation is (generation.py), engines in other processes.
"""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dodona.core.inputs import check_count, check_range
from dodona.core.shapes import IntArray
from dodona.errors import InputError, ShapeError, nearest
from dodona.language.generation import PLAIN, generate, score_tokens
from dodona.language.rollouts import Rollout
from dodona.language.sampling import Sampling
from dodona.policies._decoding import Decoder
from dodona.policies.table import SequenceTable
from dodona.policies.transformer import TransformerPolicy

LIMIT = 0.05  # mean |difference of log p|, nats, above which answers are of another law


class TorchEngine:
    """A transformer in this process, with weights of its own.

    Args:
        policy: copied as it is.
        tokenizer: with ``vocab_bytes`` and ``eos_id``: for stop strings and texts.
        eos_id: ends an answer; None: the tokenizer's.
        dtype: of matrix products while decoding; None: that of the weights. bfloat16 draws about twice as fast
            where the machine has instructions for it, from a law that differs by some 0.01 nats a token.
        version: of the weights as they are now.
    Source: see the module.  Oracle: audit_rollout, generate on the policy itself (tests).
    Cost: the weights once more, and in ``dtype``.
    """

    def __init__(
        self, policy: TransformerPolicy, *, tokenizer: Any = None, eos_id: int | None = None,
        dtype: torch.dtype | None = None, version: int = 0,
    ):  # fmt: skip
        check_count(0, version=version)
        self.policy = copy.deepcopy(policy).requires_grad_(False)
        self.tokenizer, self.eos_id, self.dtype, self.version = tokenizer, eos_id, dtype, version
        self._decoder: Decoder | None = None

    def generate(
        self, prompts: Sequence[Sequence[int]], *, num_samples: int = 1, max_new_tokens: int, seed: int,
        sampling: Sampling = PLAIN, resume: Sequence[Rollout] = (),
        prompt_index: Sequence[int] | IntArray | None = None,
    ) -> list[Rollout]:  # fmt: skip
        """As language.generate, with this engine's weights, tokenizer and version."""
        if self._decoder is None:
            self._decoder = Decoder(self.policy.trunk, dtype=self.dtype)
        return generate(
            self.policy, prompts, num_samples=num_samples, max_new_tokens=max_new_tokens, seed=seed,
            sampling=sampling, eos_id=self.eos_id, resume=resume, tokenizer=self.tokenizer,
            prompt_index=prompt_index, version=self.version, decoder=self._decoder,
        )  # fmt: skip

    def sync(self, tensors: Iterable[tuple[str, Tensor]], *, version: int) -> None:
        """Take over all weights under the policy's own names.

        Args: tensors: ``policy.named_parameters()``, or read from a safetensors file.  version: theirs.
        Raises: InputError: unknown or missing names; nothing is changed then.  ShapeError.
        """
        check_count(0, version=version)
        _load(self.policy, tensors)
        self.version = version
        if self._decoder is not None:
            self._decoder.refresh()


class TableEngine:
    """A SequenceTable as an engine: exact, and with all its laws in one table.

    Args: table: copied as it is.  version: of its logits as they are now.
    Prompts are walks from the table's root; an answer has finish "eos" where it comes to a terminal state.
    Source: ours.  Oracle: oracles.sequences (enumeration of TM-40).  Cost: a row of logits per token.
    """

    def __init__(self, table: SequenceTable, *, version: int = 0):
        check_count(0, version=version)
        self.policy = copy.deepcopy(table).requires_grad_(False)
        self.version = version

    def generate(
        self, prompts: Sequence[Sequence[int]] = ((),), *, num_samples: int = 1,
        max_new_tokens: int | None = None, seed: int, sampling: Sampling = PLAIN,
        resume: Sequence[Rollout] = (), prompt_index: Sequence[int] | IntArray | None = None,
    ) -> list[Rollout]:  # fmt: skip
        """As language.generate; max_new_tokens None: the longest answer's."""
        length = self.policy.max_length if max_new_tokens is None else max_new_tokens
        return generate(
            self.policy, prompts, num_samples=num_samples, max_new_tokens=length, seed=seed,
            sampling=sampling, resume=resume, prompt_index=prompt_index, version=self.version,
        )  # fmt: skip

    def sync(self, tensors: Iterable[tuple[str, Tensor]], *, version: int) -> None:
        """As TorchEngine.sync."""
        check_count(0, version=version)
        _load(self.policy, tensors)
        self.version = version


def engine_of(policy: Any, *, tokenizer: Any) -> Any:
    """The engine in this process that a policy needs: TorchEngine, TableEngine, or HFEngine for a model of transformers.

    Raises: as theirs.  Source: ours.  Oracle: tests.
    """
    if isinstance(policy, TransformerPolicy):
        return TorchEngine(policy, tokenizer=tokenizer)
    if isinstance(policy, SequenceTable):
        return TableEngine(policy)
    from dodona.language.hf_engine import HFEngine

    return HFEngine(policy, tokenizer=tokenizer)


@dataclass(frozen=True, kw_only=True)
class Audit:
    """How far the law that drew lies from the policy that is trained, d = logp - logp_policy per token, nats.

    mean_abs, max_abs: of d.  k3: the mean of exp(-d) - 1 + d, an estimate of KL(engine || policy) per token.
    ess: (sum w)^2 / (N sum w^2), w = exp(-sum d) of each answer: the share of answers that importance weights
        would leave.
    num_tokens, num_answers: that were compared.
    """

    mean_abs: float
    max_abs: float
    k3: float
    ess: float
    num_tokens: int
    num_answers: int


def audit_rollout(
    engine: Any, policy: Any, prompts: Sequence[Sequence[int]], *, num_samples: int = 4,
    max_new_tokens: int = 32, seed: int = 0, sampling: Sampling = PLAIN, version: int | None = None,
    limit: float | None = LIMIT,
) -> Audit:  # fmt: skip
    """Draw with the engine, score with the policy, compare: before the first update, and whenever in doubt.

    Args:
        version: of the policy; the engine's must be equal. None: not compared.
        sampling: its temperature is scored too; a truncated law has none that score_tokens could give.
        limit: most mean |d|; None reports whatever it is.
    Returns: the differences.
    Raises: InputError: mean |d| above the limit, versions that differ, a truncated or greedy law, no prompts.
    Source: card rollouts-and-verifiers, sec. 4b and 10 (limit 0.05).  Oracle: two policies of known difference (tests).
    Cost: one generation and one pass.
    """
    check_range("(0, inf)", "None reports and refuses nothing.", limit=limit)
    if sampling.truncated or sampling.temperature == 0.0:
        raise InputError(
            f"{sampling} is no law that can be scored. Audit with top_p=1, top_k=0, min_p=0 and temperature > 0."
        )
    if version is not None and engine.version != version:
        raise InputError(
            f"the engine has the weights of version {engine.version}, the policy is at {version}. Call engine.sync."
        )
    if not len(prompts):
        raise InputError("audit_rollout got no prompts: nothing can be compared.")
    rollouts = engine.generate(
        prompts,
        num_samples=num_samples,
        max_new_tokens=max_new_tokens,
        seed=seed,
        sampling=sampling,
    )
    audit = compare_rollouts(rollouts, policy, temperature=sampling.temperature)
    refuse_mismatch(audit, limit)
    return audit


def refuse_mismatch(audit: Audit, limit: float | None) -> None:
    """Raises: InputError: mean |d| above the limit.  Source, Oracle: as audit_rollout."""
    if limit is not None and not audit.mean_abs <= limit:
        raise InputError(
            f"log-probabilities of engine and policy differ by {audit.mean_abs:.3g} nats a token (at most "
            f"{audit.max_abs:.3g}; {audit.ess:.0%} of the answers' weight is left), the limit is {limit:g}. Are the "
            "weights synced, the temperatures equal, the arithmetic precise enough?"
        )


def compare_rollouts(
    rollouts: Sequence[Rollout], policy: Any, *, temperature: float = 1.0
) -> Audit:
    """The Audit of answers that were drawn already.  Raises: as score_tokens.  Source, Oracle: as audit_rollout."""
    scored = score_tokens(policy, rollouts, temperature=temperature).double().numpy(force=True)
    d = [
        r.logp.astype(np.float64) - row[: len(r.logp)]
        for r, row in zip(rollouts, scored, strict=True)
    ]
    every = np.concatenate(d)
    weights = np.exp(np.array([-x.sum() for x in d]))
    return Audit(
        mean_abs=float(np.abs(every).mean()),
        max_abs=float(np.abs(every).max()),
        k3=float((np.expm1(-every) + every).mean()),
        ess=float(weights.sum() ** 2 / (len(weights) * (weights**2).sum())),
        num_tokens=len(every),
        num_answers=len(rollouts),
    )


def rescored(
    rollouts: Sequence[Rollout], policy: Any, *, temperature: float = 1.0
) -> list[Rollout]:
    """The same answers with logp as the policy scores them: where an engine's own can not be trusted.

    Raises: as score_tokens.  Source: ours.  Oracle: score_tokens (tests).  Cost: one pass.
    """
    scored = score_tokens(policy, rollouts, temperature=temperature).numpy(force=True)
    return [
        replace(r, logp=row[: len(r.logp)].copy()) for r, row in zip(rollouts, scored, strict=True)
    ]


@torch.no_grad()
def _load(module: nn.Module, tensors: Iterable[tuple[str, Tensor]]) -> None:
    given = dict(tensors)
    own = dict(module.named_parameters())
    for name in given.keys() - own.keys():
        raise InputError(f"no weight is called {name!r}. {nearest(name, own)}")
    missing = sorted(own.keys() - given.keys())
    if missing:
        raise InputError(
            f"{len(missing)} weights are missing, {missing[0]!r} first: an engine with some old and some new ones is "
            "no policy. Give all of policy.named_parameters()."
        )
    for name, x in given.items():
        if x.shape != own[name].shape:
            raise ShapeError(
                f"{name} has shape {tuple(x.shape)}, expected {tuple(own[name].shape)}."
            )
    for name, x in given.items():
        own[name].copy_(x)
