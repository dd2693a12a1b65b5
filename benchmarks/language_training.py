"""A whole GRPO step, answers drawn, judged and trained on, against TRL's GRPOTrainer on the same weights.

Both train one Llama from the same file on groups of answers of one length (nothing ends early), with a reward that
costs nothing, once with everything in float32 and once with bfloat16: TRL's autocast, our engine and autocast. A
row's limit is the time of the matrix products alone, 2 N operations per token read or drawn and 6 N per token trained
on, at the rate of products of the model's own shapes, measured in the same run.

TRL lives in an environment of its own, whose Python is named by DODONA_TRL_PYTHON (else the running one is tried):

    python -m venv trl && trl/bin/pip install torch trl
    export DODONA_TRL_PYTHON=$PWD/trl/bin/python

Source: issue of the language family; peers' settings in _trl_worker.py.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from _timing import ratio_row

from dodona.language import CharTokenizer, GRPOConfig, TorchEngine, grpo_trainer
from dodona.language.tasks import FunctionTask
from dodona.policies import TransformerPolicy, to_llama

ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789+-*/=()<>,.: "
PROMPT, STEPS = 16, 12
BIG, SMALL = (192, 4, 6, 512), (96, 3, 3)
CASES: tuple[tuple[str, tuple[int, ...], int, int, int, float, bool], ...] = (
    ("1.8M parameters, 64 answers of 32 tokens, float32", BIG, 4, 16, 32, 1.3, False),
    ("1.8M parameters, 256 answers of 32 tokens, float32", BIG, 16, 16, 32, 1.3, False),
    ("1.8M parameters, 256 answers of 32 tokens, bfloat16", BIG, 16, 16, 32, 3.0, True),
    ("0.34M parameters, 512 answers of 5 tokens, float32", SMALL, 32, 16, 5, 4.0, False),
)
"""what, size, prompts, answers to each, tokens of an answer, target, bfloat16"""


def run() -> list[dict[str, Any]]:
    """One row per case: seconds of a step, theirs over ours; the peer runs before and after."""
    rows = []
    for name, size, prompts, group, length, target, bf16 in CASES:
        policy = TransformerPolicy(3 + len(ALPHABET), size=size, context=PROMPT + length + 8)
        rng = np.random.default_rng(0)
        texts = ["".join(rng.choice(list(ALPHABET[:26]), PROMPT - 1)) for _ in range(256)]
        with tempfile.TemporaryDirectory() as folder:
            _write(policy, texts, Path(folder))
            options = {"steps": STEPS, "prompts": prompts, "group": group, "length": length, "bf16": bf16}  # fmt: skip
            peers = [_theirs(folder, options)]
            ours = _ours(policy, texts, prompts, group, length, bf16)
            peers.append(_theirs(folder, options))
        found = [p["seconds"] for p in peers if p is not None]
        weights = sum(p.numel() for p in policy.parameters())
        drawn = prompts * (PROMPT + group * length)
        operations = 2 * weights * drawn + 6 * weights * prompts * group * (PROMPT + length)
        bound = operations / _rate(size[0], prompts * group * (PROMPT + length), bf16)
        rows.append(
            ratio_row(
                f"GRPO step: {name}", peer="TRL GRPOTrainer", ours=ours,
                theirs=float(np.mean(found)) if found else None, target=target, limit=bound / ours,
            )
        )  # fmt: skip
    return rows


def _ours(policy: TransformerPolicy, texts: list[str], prompts: int, group: int, length: int, bf16: bool) -> float:  # fmt: skip
    """Median seconds of a step behind the first three."""
    task = FunctionTask(texts, reward=lambda item, text: text.count("a") / length)
    tokenizer = CharTokenizer(ALPHABET)
    tokenizer.eos_id = -1  # nothing ends early, as in the peer
    engine = TorchEngine(policy, tokenizer=tokenizer, eos_id=None, dtype=torch.bfloat16 if bf16 else None)  # fmt: skip
    engine.eos_id = None
    config = GRPOConfig(num_updates=STEPS, num_prompts=prompts, max_new_tokens=length, lr=1e-4, audit=None)  # fmt: skip
    trainer = grpo_trainer(policy, task, tokenizer=tokenizer, engine=engine, items=task.items(), group_size=group, config=config)  # fmt: skip
    trainer.collector.grade_cut = True
    plain = trainer.update
    # of the training passes alone: the engine has a precision of its own
    trainer.update = (lambda batch: _in_bfloat16(plain, batch)) if bf16 else plain
    ends = [time.perf_counter() for _ in trainer]
    return float(np.median(np.diff(ends)[2:]))


def _in_bfloat16(update: Callable[[Any], dict[str, float]], batch: Any) -> dict[str, float]:
    with torch.autocast("cpu", torch.bfloat16):
        return update(batch)


def _theirs(folder: str, options: dict[str, Any]) -> dict[str, Any] | None:
    python = os.environ.get("DODONA_TRL_PYTHON", sys.executable)
    worker = Path(__file__).with_name("_trl_worker.py")
    done = subprocess.run([python, str(worker), folder, json.dumps(options)], capture_output=True, text=True)  # fmt: skip
    if done.returncode:
        if "No module named 'trl'" not in done.stderr:
            print(f"TRL: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        return None
    return json.loads(done.stdout.strip().splitlines()[-1])


def _write(policy: TransformerPolicy, texts: list[str], folder: Path) -> None:
    """The weights as a checkpoint of Hugging Face, and the prompts."""
    config, tensors = to_llama(policy)
    config |= {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    kept = {name: x.contiguous().clone() for name, x in tensors.items() if name != "lm_head.weight"}
    safetensors.torch.save_file(kept, str(folder / "model.safetensors"), metadata={"format": "pt"})
    (folder / "prompts.json").write_text(json.dumps({"alphabet": ALPHABET, "prompts": texts}))


def _rate(width: int, rows: int, bf16: bool) -> float:
    """Operations per second of a product [rows, width] [width, 4 width]."""
    dtype = torch.bfloat16 if bf16 else torch.float32
    a, b = torch.randn(rows, width, dtype=dtype), torch.randn(width, 4 * width, dtype=dtype)
    a @ b
    best = np.inf
    for _ in range(5):
        begun = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - begun)
    return 2 * rows * width * 4 * width / best
