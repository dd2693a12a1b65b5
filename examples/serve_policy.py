"""Answers from a policy behind HTTP, audited against the weights it should have, before and after they change.

python examples/serve_policy.py             a tiny model, served and asked on this machine
python -m dodona.language.serve FOLDER      a checkpoint of yours (config.json and safetensors), until Ctrl-C
"""

import tempfile
import threading
from pathlib import Path

import torch

from dodona.language import (
    CharTokenizer,
    PolicyServer,
    ServerEngine,
    audit_rollout,
    load_engine,
    save_checkpoint,
)
from dodona.policies import TransformerPolicy

tokenizer = CharTokenizer("0123456789+=")
policy = TransformerPolicy(len(tokenizer), size="nano", context=64)
prompts = [[tokenizer.bos_id, *tokenizer.encode(text)] for text in ("3+4=", "12+7=")]

with tempfile.TemporaryDirectory() as folder:
    checkpoint = Path(folder) / "policy"
    save_checkpoint(policy, checkpoint)  # as a Llama, which vLLM and SGLang load too
    engine, read = load_engine(checkpoint)
    server = PolicyServer(engine, read=read)
    threading.Thread(target=server.serve, daemon=True).start()

    # only HTTP from here on: the server may be anywhere, as long as both see the folder of weights
    client = ServerEngine(
        server.url, tokenizer=tokenizer, policy=policy, weights=Path(folder) / "weights"
    )
    print(client.probe(prompts[0]))
    for answer in client.generate(prompts, num_samples=2, max_new_tokens=8, seed=0):
        print(f"{tokenizer.decode(answer.prompt_ids.tolist())}{answer.text}   {answer.finish}")
    audit = audit_rollout(client, policy, prompts, version=0)
    print(f"log-probabilities of server and policy differ by at most {audit.max_abs:.1e} nats")

    with torch.no_grad():
        for weight in policy.parameters():
            weight.mul_(1.5)
    client.sync(policy.named_parameters(), version=1)
    audit = audit_rollout(client, policy, prompts, version=1)
    print(f"after the weights changed: by at most {audit.max_abs:.1e} nats")
    server.close()
