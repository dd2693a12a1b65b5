"""ServerEngine: answers from a server that speaks OpenAI's completions over HTTP: vLLM, SGLang, llama.cpp, our own example.

    engine = ServerEngine("http://127.0.0.1:8000", tokenizer=tokenizer, policy=policy, weights="/dev/shm/weights")
    print(engine.probe(prompt))                         what this server can do, and what is missing
    rollouts = engine.generate(prompts, num_samples=16, max_new_tokens=256, seed=0)
    engine.sync(policy.named_parameters(), version=7)   a checkpoint in a folder, and a word to the server

Token ids in, token ids out: a server that returns text alone is refused, because its tokens can not be known from
it. What ends an answer is decided here, token by token, as for every engine; the server is told so that it stops
early, if it can.

Of log-probabilities servers mean different things: those of the model's law, those behind the temperature, those
behind truncation too. Two greedy questions tell which. What a server does not say is scored with ``policy``.

Source: card rollouts-and-verifiers, sec. 3 and 8; Kwon et al. 2023, arXiv:2309.06180 (vLLM).
Not here: weights from device to device (vLLM's weight transfer is seen by the probe; ``deliver`` is where a
trainer drives it); other processes' random numbers: equal keys give equal answers only from an equal server.
"""

import copy
import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from dodona.core.inputs import check_count
from dodona.core.rng import counter_uniform
from dodona.core.shapes import IntArray
from dodona.errors import DataError, EngineError, InputError
from dodona.language._server_replies import Answer, Server
from dodona.language._writing import FINISH, GOES_ON, Endings
from dodona.language.engines import _load
from dodona.language.generation import (
    PLAIN,
    _numbers,
    _observations,
    _stop_table,
    _Texts,
    score_tokens,
)
from dodona.language.rollouts import CUT, Rollout, padded
from dodona.language.sampling import Sampling
from dodona.language.serve import save_checkpoint
from dodona.language.server_abilities import FORGET, RELOADS, Abilities, law_fields, probe

ROWS = 64  # of a pass for entropies


class ServerEngine:
    """A model behind a URL.

    Args:
        url: of the server, with or without /v1.
        tokenizer: with ``vocab_bytes`` and ``eos_id``: for stop strings and texts.
        eos_id: ends an answer; None: the tokenizer's.
        policy: scores what the server does not say (logp, logp_raw, entropy) and writes checkpoints; copied. Where
            log-probabilities come from it, an audit compares it with itself and finds nothing.
        weights: a folder that the server sees too; sync writes a checkpoint there.
        deliver: (policy, version) -> None brings weights to a server that has a way of its own; None: by ``weights``.
        model: its name on the server; None: the first that the server lists.
        concurrency: requests at the same time.
        retries: of a request that failed, each after twice the wait, from ``wait`` seconds.
        timeout: seconds for one answer.
        api_key: sent as a bearer token.
        interrupted: a file for the finished answers of a call that failed, with which the same call goes on in
            another process too. None: they are kept in this engine alone.
        version: of the weights as they are now.
    Source: see the module.  Oracle: audit_rollout, exact laws (tests).
    Cost: of the server; with a policy one more pass, and its weights once more.
    """

    def __init__(
        self, url: str, *, tokenizer: Any = None, eos_id: int | None = None,
        policy: nn.Module | None = None, weights: str | Path | None = None,
        deliver: Callable[[Any, int], None] | None = None, model: str | None = None,
        concurrency: int = 16, retries: int = 4, wait: float = 0.5, timeout: float = 600.0,
        api_key: str | None = None, interrupted: str | Path | None = None, version: int = 0,
    ):  # fmt: skip
        check_count(concurrency=concurrency)
        check_count(0, retries=retries, version=version)
        self.server = Server(url, retries=retries, wait=wait, timeout=timeout, api_key=api_key)
        self.tokenizer, self.model = tokenizer, model
        self.eos_id = eos_id if eos_id is not None or tokenizer is None else tokenizer.eos_id
        self.policy: Any = None if policy is None else copy.deepcopy(policy).requires_grad_(False)
        self.weights, self.deliver = None if weights is None else Path(weights), deliver
        self.concurrency, self.version = concurrency, version
        self.abilities: Abilities | None = None
        self.interrupted = None if interrupted is None else Path(interrupted)
        self._kept: dict[tuple[int, int, int], Rollout] = {}
        if self.interrupted is not None and self.interrupted.exists():
            self.keep(_read(self.interrupted))

    def probe(self, prompt: Sequence[int], *, num_samples: int = 4) -> Abilities:
        """Ask the server for what engines need, once; generate does so with its first prompt.

        Args: prompt: token ids.  num_samples: answers that one request is tried with.
        Raises: EngineError: no answer.  InputError: a server without completions, or without this model.
        """
        self.abilities = probe(
            self.server, prompt, model=self.model, num_samples=num_samples, tokenizer=self.tokenizer
        )
        return self.abilities

    def generate(
        self, prompts: Sequence[Sequence[int]], *, num_samples: int = 1, max_new_tokens: int, seed: int,
        sampling: Sampling = PLAIN, resume: Sequence[Rollout] = (),
        prompt_index: Sequence[int] | IntArray | None = None,
    ) -> list[Rollout]:  # fmt: skip
        """As language.generate, drawn by the server from the keys' seeds.

        Where neither the server nor a policy knows them, logp is NaN (of greedy and truncated laws, which train
        nothing; others are refused), and logp_raw and entropy are None.

        Raises:
            EngineError: the server failed again and again. The answers that it had finished are kept: the same call
                goes on with the others (``interrupted``; another engine: ``keep(error.finished)``).
            InputError: as generate; a server that does not say its tokens, or no log-probability that the law needs.
        """
        check_count(num_samples=num_samples, max_new_tokens=max_new_tokens)
        check_count(0, seed=seed)
        numbers = _numbers(prompt_index, len(prompts))
        wanted = [
            _Wanted(_ids(prompt, place), (), (seed, int(number), sample))
            for place, (prompt, number) in enumerate(zip(prompts, numbers, strict=True))
            for sample in range(num_samples)
        ]
        for place, r in enumerate(resume):
            if r.finish not in CUT:
                raise InputError(f"resume[{place}] has ended by {r.finish!r}: only answers cut by length or as partial go on.")  # fmt: skip
            wanted.append(_Wanted(tuple(r.prompt_ids.tolist()), tuple(r.token_ids.tolist()), (r.seed, r.prompt_index, r.sample_index), r))  # fmt: skip
        if not wanted:
            return []
        can = self.abilities or self.probe(wanted[0].prefix, num_samples=num_samples)
        self._check(can, sampling)
        table = _stop_table(sampling, self.tokenizer, max_new_tokens)
        told = _Texts(table, self.tokenizer, sampling)
        body = {
            "max_tokens": max_new_tokens,
            **law_fields(sampling),
            **self._told_stops(can, sampling),
        }

        def make(w: _Wanted, answer: Answer) -> Rollout:
            return self._rollout(
                w, answer, Endings([w.begun], sampling, self.eos_id, table), told, sampling
            )

        missing = [w for w in wanted if not self._has(w)]
        self._collect(missing, can, body, make)
        rollouts = [self._kept[w.key] for w in wanted]
        self._forget()
        return self._scored(rollouts, wanted, can, sampling)

    def keep(self, rollouts: Iterable[Rollout]) -> None:
        """Answers that an interrupted call had finished: the same call does not ask for them again."""
        self._kept.update({(r.seed, r.prompt_index, r.sample_index): r for r in rollouts})

    def sync(self, tensors: Iterable[tuple[str, Tensor]], *, version: int) -> None:
        """Take over all weights under the policy's own names, and bring them to the server.

        Raises:
            InputError: no policy to put them into, no way to the server; unknown or missing names; a server that
                refuses. The version stays what it was.
            EngineError: the server does not answer.
        """
        check_count(0, version=version)
        if self.policy is None or (self.weights is None and self.deliver is None):
            raise InputError(
                "this ServerEngine can not bring weights to its server: give policy=, which writes them, and weights=, a "
                "folder that the server sees too (or deliver=, a function that brings them)."
            )
        _load(self.policy, tensors)
        if self.deliver is not None:
            self.deliver(self.policy, version)
        else:
            self._deliver_folder(version)
        if version != self.version:
            self._forget()
        self.version = version

    def _forget(self) -> None:
        self._kept.clear()
        if self.interrupted is not None:
            self.interrupted.unlink(missing_ok=True)

    def _deliver_folder(self, version: int) -> None:
        paths = self.server.paths()
        path = next((path for path in RELOADS if path in paths), None)
        if path is None:
            raise InputError(f"the server has none of {', '.join(RELOADS)}: it takes no weights from a folder. Give deliver=, which restarts it on new ones, say.")  # fmt: skip
        assert self.weights is not None
        folder = self.weights / f"version-{version}"
        save_checkpoint(self.policy, folder)
        reply = self.server.post(path, RELOADS[path](str(folder.resolve()), version))
        if isinstance(reply, dict) and reply.get("success") is False:
            raise InputError(f"the server did not take the weights in {folder}: {reply.get('message')}")  # fmt: skip
        if FORGET in paths:  # keys and values of prompts that old weights have read
            self.server.post(FORGET, {})
        for old in self.weights.glob("version-*"):
            if old != folder:
                shutil.rmtree(old)

    def _check(self, can: Abilities, sampling: Sampling) -> None:
        """That answers of this law can be told from what the server says."""
        if not can.token_ids:
            raise InputError(
                f"the server of {can.model} returns text and no token ids, and one text has many tokenisations. vLLM "
                "needs version 0.10.2, or --return-tokens-as-token-ids; llama.cpp says them with log-probabilities."
            )
        if self.policy is None and _trains(sampling) and not _tells(can, sampling):
            raise InputError(
                f"the server of {can.model} says no log-probabilities under temperature={sampling.temperature} (law: "
                f"{can.law}): give policy=, which scores the answers."
            )

    def _has(self, w: "_Wanted") -> bool:
        """Whether an interrupted call had finished this answer."""
        r = self._kept.get(w.key)
        return (
            r is not None
            and (r.version[-1:] == self.version).all()
            and tuple(r.prompt_ids.tolist()) == w.prompt
            and len(r.token_ids) > len(w.begun)
            and tuple(r.token_ids[: len(w.begun)].tolist()) == w.begun
        )

    def _collect(
        self, missing: list["_Wanted"], can: Abilities, body: dict[str, Any],
        make: Callable[["_Wanted", Answer], Rollout],
    ) -> None:  # fmt: skip
        """Ask for them, some requests at a time, and keep what comes."""
        groups = _groups(missing, can.several)

        def work(group: list[_Wanted]) -> list[Rollout]:
            key = group[0].key
            number = int(counter_uniform(*key, len(group[0].begun)) * 2**31)
            given = self.server.complete(
                can.model, list(group[0].prefix), n=len(group), seed=number, **body
            )
            if len(given) != len(group):
                raise InputError(f"the server gave {len(given)} answers where {len(group)} were asked for.")  # fmt: skip
            return [make(w, answer) for w, answer in zip(group, given, strict=True)]

        with ThreadPoolExecutor(self.concurrency, "dodona-server") as pool:
            running: list[Future[list[Rollout]]] = [pool.submit(work, group) for group in groups]
            failure: BaseException | None = None
            for done in as_completed(running):
                if done.cancelled():
                    continue
                if error := done.exception():
                    failure = failure or error
                    for other in running:
                        other.cancel()
                else:
                    self.keep(done.result())
        if isinstance(failure, EngineError):
            if self.interrupted is not None:
                _write(self._kept.values(), self.interrupted)
            raise EngineError(
                f"{failure} {len(self._kept)} answers had been finished and are kept: make the same call again.",
                finished=self._kept.values(),
            ) from failure
        if failure is not None:
            raise failure

    def _told_stops(self, can: Abilities, sampling: Sampling) -> dict[str, Any]:
        ids = [*sampling.stop_ids, *([] if self.eos_id is None else [self.eos_id])]
        told: dict[str, Any] = {"stop_token_ids": ids} if can.stops and ids else {}
        return told | ({"stop": list(sampling.stop)} if can.stop_texts and sampling.stop else {})

    def _rollout(
        self, w: "_Wanted", answer: Answer, endings: Endings, told: _Texts, sampling: Sampling
    ) -> Rollout:
        """An answer as far as its own tokens say it goes."""
        assert answer.tokens is not None
        tokens, logp = answer.tokens, answer.logp
        if answer.dropped:  # the end token, which stopped it and was not told
            if self.eos_id is None:
                raise InputError("the server ended an answer and did not say at which token: give eos_id=.")  # fmt: skip
            tokens = np.append(tokens, np.int32(self.eos_id))
            logp = None if logp is None else np.append(logp, np.nan)
        finish: Any = "length"
        stop_id, length = None, len(tokens)
        for t in range(len(tokens)):
            how, which = endings.step(tokens[t : t + 1].astype(np.int64))
            if how[0] != GOES_ON:
                finish, length = FINISH[int(how[0])], t + 1
                stop_id = None if which[0] < 0 else int(which[0])
                break
        else:
            finish = "eos" if answer.stopped else "length"  # an end token of the server's own
        tokens = tokens[:length]
        logp = np.full(length, np.nan, np.float32) if logp is None else logp[:length]
        whole = np.concatenate([np.array(w.begun, np.int32), tokens])
        version = np.full(length, self.version, np.int32)
        if w.past is not None:
            logp = np.concatenate([w.past.logp, logp])
            version = np.concatenate([w.past.version, version])
        seed, prompt_index, sample_index = w.key
        return Rollout(
            prompt_ids=np.array(w.prompt, np.int32), token_ids=whole, logp=logp, logp_raw=None,
            entropy=None, version=version, finish=finish, stop_id=stop_id,
            text=told.of(whole, finish, stop_id), seed=seed, prompt_index=prompt_index,
            sample_index=sample_index,
        )  # fmt: skip

    def _scored(
        self, rollouts: list[Rollout], wanted: list["_Wanted"], can: Abilities, sampling: Sampling
    ) -> list[Rollout]:
        """What the server did not say, from the policy; what it did say, under its right name."""
        plain = not sampling.truncated and sampling.temperature in (0.0, 1.0)
        begun = [len(w.begun) for w in wanted]
        trusted = _tells(can, sampling)
        out = [r if trusted else replace(r, logp=_behind(r.logp, n, np.nan)) for r, n in zip(rollouts, begun, strict=True)]  # fmt: skip
        if self.policy is None:
            if _trains(sampling) and any(np.isnan(r.logp).any() for r in out):
                raise InputError("the server left out the log-probability of an end token: give policy=, which scores it.")  # fmt: skip
            past = [w.past is None or w.past.logp_raw is not None for w in wanted]
            return [replace(r, logp_raw=r.logp.copy()) if plain and p else r for r, p in zip(out, past, strict=True)]  # fmt: skip
        raw = law = [r.logp for r in out]
        if not plain or any(np.isnan(row).any() for row in raw):
            raw = law = score_tokens(self.policy, out).numpy(force=True)
        if not plain and not sampling.truncated:
            law = score_tokens(self.policy, out, temperature=sampling.temperature).numpy(force=True)
        entropies, filled = _entropies(self.policy, out), []
        for r, raw_row, row, entropy in zip(out, raw, law, entropies, strict=True):
            n = len(r.logp)
            logp = r.logp if sampling.truncated else np.where(np.isnan(r.logp), row[:n], r.logp)
            filled.append(replace(r, logp=logp.astype(np.float32), logp_raw=np.array(raw_row[:n]), entropy=entropy))  # fmt: skip
        return filled


class _Wanted(NamedTuple):
    """An answer to be asked for. key: (seed, prompt, sample) of its random numbers; begun: tokens that it has."""

    prompt: tuple[int, ...]
    begun: tuple[int, ...]
    key: tuple[int, int, int]
    past: Rollout | None = None

    @property
    def prefix(self) -> tuple[int, ...]:
        return self.prompt + self.begun


def _write(rollouts: Iterable[Rollout], path: Path) -> None:
    """Answers as lines of JSON, all of them or none."""
    lines = [
        json.dumps({k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in vars(r).items()})
        for r in rollouts
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.write_text("\n".join(lines))
    new.replace(path)


def _read(path: Path) -> list[Rollout]:
    """Raises: DataError: a line that is no answer."""
    kinds = {"prompt_ids": np.int32, "token_ids": np.int32, "version": np.int32, "logp": np.float32}
    found = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        try:
            given = json.loads(line)
            found.append(Rollout(**given | {k: np.array(given[k], kind) for k, kind in kinds.items()}))  # fmt: skip
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"{path}, line {number} is no finished answer ({error!r}). Remove the file: the answers are drawn again.") from None  # fmt: skip
    return found


def _tells(can: Abilities, sampling: Sampling) -> bool:
    """Whether the server's log-probabilities are those of this law (greedy: of the model's own)."""
    if not can.logprobs:
        return False
    if sampling.temperature == 0.0:
        return can.law == "raw"
    if sampling.truncated:
        return can.law == "drawn"
    return sampling.temperature == 1.0 or can.law in ("tempered", "drawn")


def _trains(sampling: Sampling) -> bool:
    return sampling.temperature > 0.0 and not sampling.truncated


def _groups(missing: list[_Wanted], several: int) -> list[list[_Wanted]]:
    """Answers that continue one prefix, together as far as a request may hold them; resumed ones alone."""
    groups: list[list[_Wanted]] = []
    for w in missing:
        last = groups[-1] if groups else []
        together = last and w.past is None and last[0].past is None and last[0].prefix == w.prefix
        if together and last[0].key[:2] == w.key[:2] and len(last) < several:
            last.append(w)
        else:
            groups.append([w])
    return groups


def _ids(prompt: Sequence[int], place: int) -> tuple[int, ...]:
    if not len(prompt):
        raise InputError(f"prompt {place} is empty: there is nothing the first token could follow. Begin prompts with a BOS token.")  # fmt: skip
    return tuple(int(i) for i in prompt)


def _behind(x: np.ndarray, begin: int, value: float) -> np.ndarray:
    """x with a value from a place on."""
    return np.where(np.arange(len(x)) < begin, x, np.float32(value))


def _entropies(policy: Any, rollouts: list[Rollout]) -> list[np.ndarray | None]:
    """Entropy of every token's law, where the policy tells it."""
    if not hasattr(policy, "entropy"):
        return [None] * len(rollouts)
    device, found = next(policy.parameters()).device, []
    for begin in range(0, len(rollouts), ROWS):
        part = rollouts[begin : begin + ROWS]
        tokens, _ = padded([r.token_ids for r in part], 0, np.int64)
        obs = _observations(policy, [r.prompt_ids for r in part], device)
        with torch.no_grad():
            rows = policy.entropy(obs, torch.from_numpy(tokens).to(device)).numpy(force=True)
        found += [row[: len(r.token_ids)].copy() for row, r in zip(rows, part, strict=True)]
    return found
