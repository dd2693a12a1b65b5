"""What a server of completions can do, found out by asking it.

Servers that speak OpenAI's completions differ in what training needs: token ids, log-probabilities and of which law,
several answers at once, where an answer may end, and how new weights get in. None of it is announced; some requests
tell.

Source: ours; the fields are those of vLLM, SGLang and llama.cpp.
Not here: the answers themselves (server_engine.py), HTTP (_server_replies.py).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from dodona.core.inputs import check_count
from dodona.errors import InputError
from dodona.language._server_replies import Answer, Server
from dodona.language.sampling import Sampling

Law = Literal["raw", "tempered", "drawn"]
Ask = Callable[..., list[Answer]]  # fields of a request -> its answers
SURE = 1e-3  # nats, by which two log-probabilities of one token differ when they are of two laws
# where a server takes weights from a folder, and what it is told
RELOADS: dict[str, Callable[[str, int], dict[str, Any]]] = {
    "/update_weights_from_disk": lambda folder, version: {"model_path": folder, "weight_version": str(version)},
    "/collective_rpc": lambda folder, version: {"method": "reload_weights", "kwargs": {"weights_path": folder}},
}  # fmt: skip
FORGET = "/reset_prefix_cache"  # vLLM's; SGLang forgets by itself
TRANSFER = "/init_weight_transfer_engine"


@dataclass(frozen=True, kw_only=True)
class Abilities:
    """What a server can do, as far as was asked.

    model: its name there.  token_ids: says which tokens it drew.  logprobs: says their log-probabilities.
    law: whose these are: "raw", the model's; "tempered", behind the temperature; "drawn", behind truncation too;
        None: none are told, or the answers were too sure to tell.
    several: most answers that one request may ask for, of those that were tried.
    stops, stop_texts: ends an answer at a token, at a text that it is told, and returns the tokens up to there.
    reload: the path that takes weights from a folder; None: none is known.  transfer: weights from device to device.
    """

    model: str
    token_ids: bool
    logprobs: bool
    law: Law | None
    several: int
    stops: bool
    stop_texts: bool
    reload: str | None
    transfer: bool

    @property
    def missing(self) -> tuple[str, ...]:
        """What a trainer would miss, and what is done instead."""
        said = (
            (not self.token_ids, "token ids: can not be used"),
            (not self.logprobs, "log-probabilities: give policy=, which scores the answers"),
            (self.logprobs and self.law != "drawn", "log-probabilities of truncated laws: NaN is told"),
            (self.logprobs and self.law in ("raw", None), "log-probabilities at other temperatures than 1: give policy="),
            (self.several == 1, "several answers to one request: one request each"),
            (not self.stops, "an end at given tokens: answers run on and are cut here"),
            (not self.stop_texts, "an end at given texts: answers run on and are cut here"),
            (self.reload is None, "weights from a folder: give deliver="),
            (not self.transfer, "weights from device to device"),
        )  # fmt: skip
        return tuple(text for lacks, text in said if lacks)

    def __str__(self) -> str:
        told = [f"{f.name}: {getattr(self, f.name)}" for f in fields(self)]
        return "\n".join([*told, *(f"missing {text}" for text in self.missing)])


def probe(
    server: Server, prompt: Sequence[int], *, model: str | None = None, num_samples: int = 4,
    tokenizer: Any = None,
) -> Abilities:  # fmt: skip
    """Ask a server for what engines need.

    Args: prompt: token ids.  model: its name there; None: the first listed.  num_samples: answers that one request is
        tried with.  tokenizer: to try an end at a text.
    Raises: EngineError: no answer.  InputError: a server without completions, or without this model.
    Source: ours.  Oracle: servers whose replies are cut down (tests).  Cost: eight requests of at most 2 tokens.
    """
    check_count(num_samples=num_samples)
    paths, model = server.paths(), model or server.first_model()
    ids = [int(i) for i in prompt]

    def ask(**body: Any) -> list[Answer]:
        return server.complete(model, ids, **{"n": 1, "seed": 0, **body})

    found: list[Answer] = []
    several = 1
    for several in sorted({num_samples, min(num_samples, 4), 1}, reverse=True):
        try:
            found = ask(n=several, max_tokens=2, **law_fields(Sampling()))
        except InputError:
            if several == 1:
                raise
        if len(found) == several:
            break
    token_ids = bool(found) and all(a.tokens is not None for a in found)
    logprobs = token_ids and all(a.logp is not None for a in found)
    return Abilities(
        model=model, token_ids=token_ids, logprobs=logprobs,
        law=_law(ask) if logprobs else None, several=several,
        stops=token_ids and _stops(ask, None), stop_texts=token_ids and _stops(ask, tokenizer, texts=True),
        reload=next((path for path in RELOADS if path in paths), None), transfer=TRANSFER in paths,
    )  # fmt: skip


def law_fields(sampling: Sampling) -> dict[str, Any]:
    """A law as servers are told it, whatever their defaults are.

    Source: ours.  Oracle: by hand (tests).
    """
    return {
        "temperature": sampling.temperature, "top_p": sampling.top_p, "min_p": sampling.min_p,
        "top_k": sampling.top_k or -1, "repetition_penalty": 1.0, "repeat_penalty": 1.0,
    }  # fmt: skip


def _law(ask: Ask) -> Law | None:
    """The likeliest token is sure to be drawn at top_k = 1: log-probability 0 there is that of the truncated law."""
    told = []
    for sampling in (Sampling(temperature=0.5, top_k=1), Sampling(top_k=1), Sampling()):
        logp = ask(max_tokens=1, **law_fields(sampling))[0].logp
        if logp is None or not len(logp):
            return None
        told.append(float(logp[0]))
    cool, sure, free = told
    if abs(cool - sure) > SURE:
        return "tempered"
    if abs(sure) > SURE:
        return "raw"
    # the model is sure by itself where it is so without top_k
    return "drawn" if abs(free) > SURE else None


def _stops(ask: Ask, tokenizer: Any, *, texts: bool = False) -> bool:
    """Whether a greedy answer that may stop at its first token does, and says so."""
    greedy = {"max_tokens": 2, **law_fields(Sampling(temperature=0.0))}
    tokens = ask(**greedy)[0].tokens
    if tokens is None or len(tokens) < 2:
        return False
    first = tokens[:1].tolist()
    stop: dict[str, Any] = {"stop_token_ids": first}
    if texts:
        text = "" if tokenizer is None else tokenizer.decode(first)
        if not text:
            return False
        stop = {"stop": [text]}
    try:
        stopped = ask(**stop, **greedy)[0].tokens
    except InputError:
        return False
    return stopped is not None and stopped.tolist() == first
