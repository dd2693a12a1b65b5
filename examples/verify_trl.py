"""Whose gradient do TRL's GRPO losses follow? Its own code, on log-probabilities in the place of a model.

python examples/verify_trl.py           (pip install trl; written for TRL 1.16)
"""

import importlib.metadata
import importlib.util
from collections import defaultdict
from types import SimpleNamespace

import torch

from dodona.checks import verify

LOSSES = {"grpo": {}, "grpo with a KL": {"beta": 0.04}, "bnpo": {}, "dr_grpo": {}, "dapo": {}}


def loss_of(loss_type, **changes):
    """GRPOTrainer._compute_loss as a function; of the trainer it sees the settings that it reads."""
    from trl import GRPOConfig, GRPOTrainer

    args = GRPOConfig(output_dir="unused", loss_type=loss_type, use_cpu=True, bf16=False, **changes)
    args.steps_per_generation = 1
    one = SimpleNamespace(num_processes=1, reduce=lambda x, **_: x, gather=lambda x: x)
    trainer = SimpleNamespace(
        args=args, model=SimpleNamespace(training=True), accelerator=one, loss_type=loss_type, beta=args.beta,
        epsilon_low=args.epsilon, epsilon_high=args.epsilon_high or args.epsilon, top_entropy_quantile=1.0,
        importance_sampling_level=args.importance_sampling_level, off_policy_mask_threshold=None,
        use_vllm=False, aux_loss_enabled=False, _entropy_bonus_enabled=False, max_completion_length=8,
        current_gradient_accumulation_steps=1,
    )  # fmt: skip

    def loss(logp, logp_old, logp_ref, advantages, mask):
        trainer._metrics = defaultdict(lambda: defaultdict(list))
        given = logp, torch.zeros_like(logp), None  # entropies are only logged
        trainer._get_per_token_logps_and_entropies = lambda *_, **__: given
        tokens = torch.zeros(logp.shape, dtype=torch.long)
        batch = {
            "prompt_ids": tokens, "prompt_mask": tokens, "completion_ids": tokens, "completion_mask": mask,
            "advantages": advantages, "old_per_token_logps": logp_old, "ref_per_token_logps": logp_ref,
            "num_items_in_batch": mask.sum(),
        }  # fmt: skip
        return GRPOTrainer._compute_loss(trainer, trainer.model, batch)

    return loss


if __name__ == "__main__":  # `dodona verify` of this file imports it
    if importlib.util.find_spec("trl") is None:
        print("TRL is not installed, so there is nothing to judge. Run: pip install trl")
    else:
        print(f"TRL {importlib.metadata.version('trl')}")
        for name, changes in LOSSES.items():
            print(f"{name}: {verify(loss_of(name.split()[0], **changes))}", flush=True)
