"""TRL's GRPOTrainer in a process of its own: one training on a Llama that a folder describes, its seconds per step.

    python _trl_worker.py FOLDER '{"steps": 12, "prompts": 16, "group": 16, "length": 32, "bf16": false}'
        -> {"seconds": median of the steps behind the first three, "version": "1.16.0"}

Run by benchmarks/language_training.py with the Python that has trl; needs nothing of this project. TRL's best
settings on a CPU: no reference model (beta 0), no gradient checkpointing, no logging, no evaluation.

Source: von Werra et al., TRL, its documentation of GRPOTrainer.
"""

import json
import os
import statistics
import sys
import time

os.environ |= {"HF_HUB_OFFLINE": "1", "WANDB_DISABLED": "true", "TRANSFORMERS_VERBOSITY": "error"}

import torch
import trl
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, TrainerCallback
from trl import GRPOConfig, GRPOTrainer


class Clock(TrainerCallback):
    """When every step ended."""

    def __init__(self):
        self.ends = []

    def on_step_end(self, *_, **__):
        self.ends.append(time.perf_counter())


def main(folder, steps, prompts, group, length, bf16):
    torch.manual_seed(0)
    torch.set_num_threads(os.cpu_count())
    with open(os.path.join(folder, "prompts.json")) as file:
        given = json.load(file)
    vocab = {"<pad>": 0, "<bos>": 1, "<eos>": 2} | {c: 3 + i for i, c in enumerate(given["alphabet"])}  # fmt: skip
    words = Tokenizer(models.WordLevel(vocab, unk_token="a"))
    words.pre_tokenizer, words.decoder = pre_tokenizers.Split("", "isolated"), decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>")  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.generation_config.pad_token_id, model.generation_config.eos_token_id = 0, None
    settings = GRPOConfig(
        output_dir=os.path.join(folder, "out"), per_device_train_batch_size=prompts * group,
        num_generations=group, max_completion_length=length, max_steps=steps, logging_steps=steps,
        report_to=[], use_cpu=True, bf16=bf16, save_strategy="no", learning_rate=1e-4, temperature=1.0,
        gradient_checkpointing=False, beta=0.0, disable_tqdm=True,
    )  # fmt: skip
    data = Dataset.from_list([{"prompt": p} for p in given["prompts"]])
    clock = Clock()
    trainer = GRPOTrainer(
        model=model, reward_funcs=lambda completions, **_: [c.count("a") / length for c in completions],
        args=settings, train_dataset=data, processing_class=tokenizer, callbacks=[clock],
    )  # fmt: skip
    trainer.train()
    taken = [b - a for a, b in zip(clock.ends, clock.ends[1:], strict=False)][2:]
    print(json.dumps({"seconds": statistics.median(taken), "version": trl.__version__}))


if __name__ == "__main__":
    main(sys.argv[1], **json.loads(sys.argv[2]))
