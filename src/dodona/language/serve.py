"""A policy behind HTTP on this machine: completions with token ids, log-probabilities, several answers, new weights.

    python -m dodona.language.serve checkpoints/policy --port 8000

    GET  /v1/models, /openapi.json, /health
    POST /v1/completions               {"prompt": [1, 5, 7], "n": 4, "max_tokens": 32, "temperature": 1.0, "seed": 0,
                                        "logprobs": 1, "stop": ["\\n"], "stop_token_ids": [2], ...}
    POST /update_weights_from_disk     {"model_path": "folder with config.json and safetensors"}

The requests are OpenAI's completions with vLLM's fields for tokens and SGLang's for weights, so that what is trained
against this server goes on with those. It answers on the loopback address alone, one request at a time, and has no
passwords: for one user's processes on one machine.

Source: ours.  Not here: streams, chat, requests that share a batch (vLLM); the client (server_engine.py).
"""

import argparse
import json
import threading
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dodona.errors import DataError, DodonaError, InputError
from dodona.language.engines import TorchEngine
from dodona.language.rollouts import Rollout
from dodona.language.sampling import Sampling
from dodona.policies.llama_names import from_llama, to_llama
from dodona.policies.transformer import TransformerPolicy

HOST = "127.0.0.1"
LONGEST = 1 << 24  # bytes of a request
GETS = ("/v1/models", "/openapi.json", "/health")


class PolicyServer:
    """A server of one engine's answers, at ``url`` once it is made, answering while ``serve`` runs.

    Args:
        engine: a TorchEngine or HFEngine.
        name: of the model.
        port: 0: any that is free.
        read: (folder) -> the named weights in it; None: new weights are refused.
    Source: see the module.  Oracle: the engine itself (tests).  Cost: the engine's.
    """

    def __init__(self, engine: Any, *, name: str = "policy", port: int = 0, read: Any = None):
        self.engine, self.name, self.read = engine, name, read
        self.lock = threading.Lock()
        self.http = _Listening((HOST, port), _handler(self))
        self.url = f"http://{HOST}:{self.http.server_port}"

    def serve(self) -> None:
        """Answer until ``close`` is called."""
        self.http.serve_forever(poll_interval=0.05)

    def close(self) -> None:
        """No more answers; the port is free."""
        self.http.shutdown()
        self.http.server_close()

    def get(self, path: str) -> dict[str, Any]:
        """What stands at a path.  Raises: KeyError: nothing does."""
        return {
            "/v1/models": {"object": "list", "data": [{"id": self.name, "object": "model"}]},
            "/openapi.json": {"paths": {p: {} for p in (*GETS, *self.posts())}},
            "/health": {"version": self.engine.version},
        }[path]

    def posts(self) -> dict[str, Any]:
        """What answers to which path."""
        return {"/v1/completions": self.complete, "/update_weights_from_disk": self.update}

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        """Answers to one prompt.  Raises: InputError: a request that can not be answered."""
        prompt, sampling = self._prompt(body), _sampling(body)
        count = int(body.get("n") or 1)
        with self.lock:
            rollouts = self.engine.generate(
                [prompt], num_samples=count, max_new_tokens=int(body.get("max_tokens") or 16),
                seed=int(body.get("seed") or 0), sampling=sampling,
            )  # fmt: skip
        drawn = sum(len(r.token_ids) for r in rollouts)
        return {
            "object": "text_completion", "model": self.name,
            "choices": [_choice(i, r, bool(body.get("logprobs"))) for i, r in enumerate(rollouts)],
            "usage": {
                "prompt_tokens": len(prompt), "completion_tokens": drawn,
                "total_tokens": len(prompt) + drawn,
            },
        }  # fmt: skip

    def update(self, body: dict[str, Any]) -> dict[str, Any]:
        """New weights from a folder.  Raises: InputError: none there, or another model's."""
        if self.read is None:
            raise InputError("this server was started without a way to read weights.")
        if not isinstance(body.get("model_path"), str):
            raise InputError("model_path is missing: the folder of a checkpoint.")
        tensors = list(self.read(body["model_path"]))
        with self.lock:
            told = str(body.get("weight_version") or "")
            version = int(told) if told.isdigit() else self.engine.version + 1
            self.engine.sync(tensors, version=version)
        return {"success": True, "message": f"version {self.engine.version}"}

    def _prompt(self, body: dict[str, Any]) -> list[int]:
        prompt = body.get("prompt")
        if isinstance(prompt, str) and self.engine.tokenizer is not None:
            return self.engine.tokenizer.encode(prompt)
        if not isinstance(prompt, list) or not all(type(i) is int for i in prompt):
            raise InputError(f"prompt must be a list of token ids, got {str(prompt)[:100]}.")
        return prompt


def load_engine(folder: str | Path, *, dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    """(the engine of a checkpoint folder, what reads another folder's weights for it).

    A Llama that TransformerPolicy can be is one; all else, and every tokenizer, needs transformers.
    Raises: DataError: no checkpoint.  MissingDependencyError.
    """
    path = Path(folder)
    try:
        own = _own_policy(path).to(dtype)
    except InputError as error:
        if isinstance(error, DataError):
            raise
        return _hf_engine(path, dtype)
    tokenizer = _tokenizer(path, own.config.vocab_size)

    def read(other: str) -> Iterable[tuple[str, Tensor]]:
        return _own_policy(Path(other)).named_parameters()

    return TorchEngine(own, tokenizer=tokenizer), read


def save_checkpoint(policy: Any, folder: str | Path) -> None:
    """A policy as a folder that servers load: by its own ``save``, or a TransformerPolicy as a Llama.

    Raises: InputError: a policy that can do neither.
    Source: ours.  Oracle: loaded again (tests).  Cost: the weights, written.
    """
    if hasattr(policy, "save"):
        policy.save(folder)
        return
    if not isinstance(policy, TransformerPolicy):
        raise InputError(f"{type(policy).__name__} has no save(folder), which a server's weights need.")  # fmt: skip
    from safetensors.torch import save_file

    config, tensors = to_llama(policy)
    del tensors["lm_head.weight"]  # tied: config says so
    dtype = str(next(policy.parameters()).dtype).removeprefix("torch.")
    config |= {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": dtype}
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(config, indent=2))
    save_file({name: x.contiguous() for name, x in tensors.items()}, path / "model.safetensors", metadata={"format": "pt"})  # fmt: skip


def _own_policy(path: Path) -> Any:
    from safetensors.torch import load_file

    if not (path / "config.json").is_file() or not any(path.glob("*.safetensors")):
        raise DataError(f"{path} has no config.json with safetensors beside it.")
    config = json.loads((path / "config.json").read_text())
    if config.get("model_type") != "llama":
        raise InputError(f"{path} holds a {config.get('model_type')}.")
    tensors: dict[str, Tensor] = {}
    for file in sorted(path.glob("*.safetensors")):
        tensors |= load_file(file)
    return from_llama(config, tensors)


def _hf_engine(path: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    from dodona.language.hf import HFPolicy
    from dodona.language.hf_engine import HFEngine

    policy = HFPolicy.load(path, dtype=dtype)
    engine = HFEngine(policy, tokenizer=_tokenizer(path, policy.config.vocab_size))
    return engine, lambda other: HFPolicy.load(other, dtype=dtype).named_parameters()


def _tokenizer(path: Path, vocab_size: int) -> Any:
    if not any(path.glob("tokenizer*")):
        return None
    from dodona.language.hf_tokenizer import HFTokenizer

    return HFTokenizer.load(path, vocab_size=vocab_size)


def _sampling(body: dict[str, Any]) -> Sampling:
    def given(name: str, default: Any) -> Any:
        return default if body.get(name) is None else body[name]

    stop = given("stop", ())
    return Sampling(
        temperature=float(given("temperature", 1.0)), top_p=float(given("top_p", 1.0)),
        top_k=max(int(given("top_k", 0)), 0), min_p=float(given("min_p", 0.0)),
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
        stop_ids=tuple(given("stop_token_ids", ())),
    )  # fmt: skip


def _choice(index: int, r: Rollout, with_logprobs: bool) -> dict[str, Any]:
    tokens = r.token_ids.tolist()
    logprobs = {
        "tokens": [f"token_id:{i}" for i in tokens], "token_logprobs": [float(x) for x in r.logp],
        "top_logprobs": None, "text_offset": None,
    }  # fmt: skip
    return {
        "index": index, "text": r.text, "token_ids": tokens,
        "finish_reason": "length" if r.finish == "length" else "stop",
        "logprobs": logprobs if with_logprobs else None,
    }  # fmt: skip


class _Listening(ThreadingHTTPServer):
    request_queue_size = (
        256  # the five of the standard library are reset as soon as an engine asks in parallel
    )
    daemon_threads = True


def _handler(server: PolicyServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:  # noqa: N802
            try:
                self._reply(200, server.get(self.path))
            except KeyError:
                self._refuse(404, f"nothing stands at {self.path}.")

        def do_POST(self) -> None:  # noqa: N802
            length = int(self.headers.get("Content-Length") or 0)
            if length > LONGEST:
                self.close_connection = True  # the rest of it is still coming
                return self._refuse(
                    413, f"the request has {length} bytes, at most {LONGEST} are read."
                )
            text = self.rfile.read(length)
            answer = server.posts().get(self.path)
            if answer is None:
                return self._refuse(404, f"nothing answers at {self.path}.")
            try:
                body = json.loads(text)
                if not isinstance(body, dict):
                    raise InputError("the body is no JSON object.")
                self._reply(200, answer(body))
            except (DodonaError, ValueError, TypeError) as error:
                self._refuse(400, str(error))
            except Exception as error:
                self._refuse(500, f"{type(error).__name__}: {error}")

        def _refuse(self, status: int, message: str) -> None:
            self._reply(status, {"error": {"message": message, "code": status}})

        def _reply(self, status: int, content: dict[str, Any]) -> None:
            text = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: Any) -> None:
            """Silent: who asks knows."""

    return Handler


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Serve a checkpoint folder on the loopback address."
    )
    parser.add_argument("folder")
    parser.add_argument("--port", type=int, default=8000, help="0: any that is free")
    parser.add_argument("--dtype", choices=("float32", "float64", "bfloat16"), default="float32")
    given = parser.parse_args()
    engine, read = load_engine(given.folder, dtype=getattr(torch, given.dtype))
    server = PolicyServer(
        engine, name=Path(given.folder).resolve().name, port=given.port, read=read
    )
    print(f"serving {server.name} at {server.url}", flush=True)
    try:
        server.serve()
    except KeyboardInterrupt:
        server.http.server_close()


if __name__ == "__main__":
    main()
