"""Answers drawn beside Hugging Face's generate on the same weights, and the bound of the matrix products.

A Llama of 1.8 million weights, 4 or 32 prompts of 8 tokens, 16 answers of 32 tokens to each. Hugging Face
gets every prompt as often as it has answers, as trainers give them.
"""

import time
from typing import Any

import torch
from _timing import absolute_row, in_turn, ratio_row

from dodona.language import TorchEngine
from dodona.policies import TransformerPolicy, to_llama

SIZE, VOCABULARY, PROMPT, TOKENS, GROUP = (192, 4, 6, 512), 50, 8, 32, 16
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def run() -> list[dict[str, Any]]:
    """Rows for ``dodona bench language``."""
    policy = TransformerPolicy(VOCABULARY, size=SIZE, context=64)
    rows = []
    for num_prompts, target in ((4, 2.0), (32, 5.0)):
        prompts = torch.randint(
            VOCABULARY, (num_prompts, PROMPT), generator=torch.Generator().manual_seed(0)
        )
        for name, dtype in DTYPES.items():
            engine = TorchEngine(policy, dtype=dtype)
            contestants = {"ours": _ours(engine, prompts)}
            theirs = _hugging_face(policy, prompts, dtype)
            if theirs is not None:
                contestants["theirs"] = theirs
            taken = in_turn(contestants, rounds=5, seconds=0.5)
            count = num_prompts * GROUP * TOKENS
            bound = _products(policy, num_prompts * GROUP, dtype) * TOKENS
            rows.append(
                ratio_row(
                    f"{num_prompts * GROUP} answers of {TOKENS} tokens, {name}",
                    peer="transformers generate",
                    unit="tokens/s",
                    ours=count / taken["ours"],
                    theirs=count / taken["theirs"] if "theirs" in taken else None,
                    target=target,
                    limit=bound / taken["ours"],
                )  # fmt: skip
            )
    rows.append(_training(policy))
    return rows


def _ours(engine: TorchEngine, prompts: torch.Tensor) -> Any:
    rows = prompts.tolist()
    return lambda: engine.generate(rows, num_samples=GROUP, max_new_tokens=TOKENS, seed=0)


def _hugging_face(policy: TransformerPolicy, prompts: torch.Tensor, dtype: torch.dtype) -> Any:
    """The peer on the same weights; None where it is not installed."""
    try:
        from transformers import LlamaConfig, LlamaForCausalLM
    except ImportError:
        return None
    config, tensors = to_llama(policy)
    model = LlamaForCausalLM(
        LlamaConfig(**config, pad_token_id=0, bos_token_id=None, eos_token_id=None)
    )
    model.load_state_dict(tensors)
    model = model.to(dtype).eval()
    ids = prompts.repeat_interleave(GROUP, dim=0)
    mask = torch.ones_like(ids)

    def call() -> None:
        with torch.no_grad():
            model.generate(
                ids,
                attention_mask=mask,
                do_sample=True,
                top_k=0,
                min_new_tokens=TOKENS,
                max_new_tokens=TOKENS,
            )

    return call


def _products(policy: TransformerPolicy, num_rows: int, dtype: torch.dtype) -> float:
    """Seconds of the matrix products of one step alone, on all threads: the bound that binds."""
    matrices = [p.detach().t().to(dtype) for p in policy.parameters() if p.ndim == 2]
    inputs = [torch.randn(num_rows, m.shape[0]).to(dtype) for m in matrices]
    outputs = [torch.empty(num_rows, m.shape[1], dtype=dtype) for m in matrices]

    def once() -> float:
        begun = time.perf_counter()
        for x, m, out in zip(inputs, matrices, outputs, strict=True):
            torch.mm(x, m, out=out)
        return time.perf_counter() - begun

    return min(once() for _ in range(50))


def _training(policy: TransformerPolicy) -> dict[str, Any]:
    """One forward and backward pass over 64 answers of 32 tokens, in trained tokens a second."""
    rng = torch.Generator().manual_seed(1)
    obs = {"prompt": torch.randint(VOCABULARY, (64, PROMPT), generator=rng)}
    actions = torch.randint(VOCABULARY, (64, TOKENS), generator=rng)
    taken = in_turn({"ours": lambda: policy.log_prob(obs, actions).mean().backward()}, rounds=3)
    return absolute_row(
        "forward and backward, 64 answers of 32 tokens", ours=64 * TOKENS / taken["ours"],
        unit="tokens/s", larger_is_better=True,
    )  # fmt: skip


if __name__ == "__main__":
    for row in run():
        print(row)
