"""One HTTP server of completions: requests that are tried again, and what its replies say of tokens.

Only the standard library. Replies differ in where they put token ids: vLLM beside the text, or written as
"token_id:7" where a token's text belongs; llama.cpp with every log-probability.
"""

import json
import time
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np

from dodona.core.inputs import check_range
from dodona.errors import EngineError, InputError

AGAIN = (408, 425, 429)  # besides all of 500 and above: the server asks for patience
WRITTEN = "token_id:"


class Answer(NamedTuple):
    """tokens [T] int32 and their logp [T] float32, or None where the server does not say.

    stopped: it ended by itself, not for want of room.  dropped: the token that ended it was drawn and not told.
    """

    tokens: np.ndarray | None
    logp: np.ndarray | None
    stopped: bool
    dropped: bool


class Server:
    """A base URL and how patient to be.

    Raises: InputError: no http or https URL.
    """

    def __init__(
        self, url: str, *, retries: int, wait: float, timeout: float, api_key: str | None = None
    ):
        check_range("(0, inf)", "Seconds.", wait=wait, timeout=timeout)
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(f"url={url!r} is no http or https address. Give one like 'http://127.0.0.1:8000'.")  # fmt: skip
        self.url, self.parts = url.rstrip("/").removesuffix("/v1"), parts
        self.prefix = urlsplit(self.url).path
        self.retries, self.wait, self.timeout = retries, wait, timeout
        self.headers = {"Content-Type": "application/json"}
        if api_key is not None:
            self.headers["Authorization"] = f"Bearer {api_key}"

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """The reply to a body, both JSON.

        Raises: EngineError: still failing after all retries.  InputError: the server refuses the request.
        """
        return self._asked("POST", path, json.dumps(body).encode())

    def get(self, path: str) -> Any:
        """As post, without a body."""
        return self._asked("GET", path, None)

    def complete(self, model: str, ids: list[int], **body: Any) -> "list[Answer]":
        """One request for answers, and what is said of their tokens.  Raises: as post and answers."""
        asked = {
            "model": model, "prompt": ids, "logprobs": 1, "stream": False,
            "return_token_ids": True, "return_tokens_as_token_ids": True, **body,
        }  # fmt: skip
        return answers(self.post("/v1/completions", asked))

    def paths(self) -> frozenset[str]:
        """What the server says it answers to; empty where it says nothing."""
        try:
            return frozenset(self.get("/openapi.json")["paths"])
        except (InputError, KeyError, TypeError):
            return frozenset()

    def first_model(self) -> str:
        """Raises: InputError: the server lists none."""
        listed = self.get("/v1/models").get("data") or []
        if not listed:
            raise InputError(f"{self.url} lists no models. Give model=.")
        return str(listed[0]["id"])

    def _asked(self, method: str, path: str, body: bytes | None) -> Any:
        failure = ""
        for attempt in range(self.retries + 1):
            if attempt:
                time.sleep(self.wait * 2 ** (attempt - 1))
            try:
                status, text = self._once(method, path, body)
            except (OSError, HTTPException) as error:
                failure = f"{type(error).__name__}: {error}"
                continue
            if status < 400:
                try:
                    return json.loads(text) if text.strip() else None
                except ValueError:
                    raise InputError(f"{self.url}{path} answered no JSON: {text[:200]!r}. Is it a server of completions?") from None  # fmt: skip
            if status < 500 and status not in AGAIN:
                raise InputError(f"{self.url}{path} refused the request with {status}: {text[:500]}")  # fmt: skip
            failure = f"status {status}: {text[:200]}"
        raise EngineError(f"{self.url}{path} failed {self.retries + 1} times, at last with {failure}.")  # fmt: skip

    def _once(self, method: str, path: str, body: bytes | None) -> tuple[int, str]:
        kind = HTTPSConnection if self.parts.scheme == "https" else HTTPConnection
        # a connection for each request: one that a server has closed meanwhile looks like one that died
        connection = kind(self.parts.hostname or "", self.parts.port, timeout=self.timeout)
        try:
            connection.request(method, self.prefix + path, body, self.headers)
            reply = connection.getresponse()
            return reply.status, reply.read().decode("utf-8", errors="replace")
        finally:
            connection.close()


def answers(reply: Any) -> list[Answer]:
    """What a reply of /v1/completions says of every answer, in their order.

    Raises: InputError: no reply of completions; tokens that were drawn and are not among the ones told.
    """
    if not isinstance(reply, dict) or not isinstance(reply.get("choices"), list):
        raise InputError(f"the server's reply has no choices: {str(reply)[:200]}. Is it a server of completions?")  # fmt: skip
    choices = sorted(reply["choices"], key=lambda choice: choice.get("index", 0))
    found = [_answer(choice) for choice in choices]
    drawn = (reply.get("usage") or {}).get("completion_tokens")
    if drawn is None or any(a.tokens is None for a in found):
        return found
    lost = drawn - sum(len(a.tokens) for a in found if a.tokens is not None)
    ended = sum(a.stopped for a in found)
    if lost == 0:
        return found
    if lost != ended:
        raise InputError(
            f"the server drew {drawn} tokens and told {drawn - lost} of them: it leaves some out, such as those in the "
            "middle of a character. Its answers can not be trained on."
        )
    return [a._replace(dropped=a.stopped) for a in found]


def _answer(choice: dict[str, Any]) -> Answer:
    logprobs = choice.get("logprobs") or {}
    content = logprobs.get("content") or []
    stopped = choice.get("finish_reason") == "stop"
    ids = choice.get("token_ids")
    if ids is None and content and all("id" in c for c in content):
        ids = [c["id"] for c in content]
    written = logprobs.get("tokens") or []
    if ids is None and written and all(str(t).startswith(WRITTEN) for t in written):
        ids = [int(t.removeprefix(WRITTEN)) for t in written]
    told = logprobs.get("token_logprobs") or [c.get("logprob") for c in content]
    if ids is None:
        return Answer(None, None, stopped, False)
    tokens = np.array(ids, dtype=np.int32)
    if len(told) != len(tokens) or any(x is None for x in told):
        return Answer(tokens, None, stopped, False)
    return Answer(tokens, np.array(told, dtype=np.float32), stopped, False)
