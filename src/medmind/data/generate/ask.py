"""Asks the user's own model for an answer, OpenAI-compatible or Ollama: one address, no proxy, no redirect, no key."""

import http.client
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import Any, Literal

from medmind.core.address import read_address
from medmind.core.errors import EnvironmentFault
from medmind.data.generate.judge import Reason
from medmind.safety.texts import NOTE

Dialect = Literal["openai", "ollama"]
SYSTEM = f"""You write entries of a medical glossary. Answer with exactly these four parts, each heading once and at \
the start of a line, in this order, with nothing before the first and nothing after the last:

**Definition**: one sentence that begins with the term

**Explanation**: two or three sentences on how it works or comes about

**Clinical Relevance**: two sentences on why it matters

**Note**: {NOTE}

Plain sentences only: no greeting, no lists, no other headings. If you do not know the term, say only that \
you do not."""
LONGEST_REPLY = 1 << 20
"""Bytes of an HTTP body; more is not an answer to one question."""
MAX_TOKENS, TEMPERATURE = 1024, 0.7
SHOWN = 200
"""Characters of a server's own message within an error."""


@dataclass(frozen=True)
class Patience:
    """Seconds one reply may take, tries for one term, the first pause between two (then doubled), and after how many
    failures in a row the endpoint is given up.
    """

    timeout: float = 120.0
    tries: int = 3
    pause: float = 1.0
    dead_after: int = 6


@dataclass(frozen=True)
class Endpoint:
    url: str
    dialect: Dialect
    model: str


@dataclass(frozen=True)
class Reply:
    text: str
    finished: bool
    """Whether the model ended it, not a limit."""


class NoReply(Exception):
    """The endpoint gave nothing that could be an answer."""

    def __init__(self, reason: Reason, detail: str, raw: str = "") -> None:
        super().__init__(detail)
        self.reason, self.detail, self.raw = reason, detail, raw


class StayHere(urllib.request.HTTPRedirectHandler):
    """An address the user did not type is not followed: the redirect becomes an error."""

    def redirect_request(self, *_: Any) -> None:
        return None


def find_endpoint(url: str, model: str, patience: Patience) -> Endpoint:
    """The dialect is told by the path; a bare address is asked for Ollama's version and is OpenAI's kind otherwise."""
    read_address(url)
    base = url.rstrip("/")
    if base.endswith("/api/chat"):
        return Endpoint(base, "ollama", model)
    if base.endswith("/chat/completions"):
        return Endpoint(base, "openai", model)
    if base.endswith("/v1"):
        return Endpoint(f"{base}/chat/completions", "openai", model)
    if is_ollama(base, patience):
        return Endpoint(f"{base}/api/chat", "ollama", model)
    return Endpoint(f"{base}/v1/chat/completions", "openai", model)


def is_ollama(base: str, patience: Patience) -> bool:
    for attempt in range(1, patience.tries + 1):
        try:
            said = json.loads(fetch(f"{base}/api/version", None, patience.timeout))
            return isinstance(said, dict) and "version" in said
        except (ValueError, EnvironmentFault):  # an answer, but not Ollama's
            return False
        except NoReply as fault:
            if fault.reason is not Reason.NO_ANSWER:
                return False
            if attempt == patience.tries:
                raise dead(base, attempt, fault) from None
            time.sleep(patience.pause * 2 ** (attempt - 1))
    return False


def dead(url: str, failures: int, last: NoReply, kept: str = "") -> EnvironmentFault:
    return EnvironmentFault(
        f"the endpoint gave no answer {failures} times in a row (last: {last.detail})",
        where=url,
        todo=f"{kept}start it and run the same command again",
    )


def ask(endpoint: Endpoint, question: str, seed: int, timeout: float) -> Reply:
    """One question, one reply; NoReply where a later try may help, EnvironmentFault where it cannot."""
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]
    body: dict[str, Any] = {"model": endpoint.model, "messages": messages, "stream": False}
    if endpoint.dialect == "ollama":
        body["options"] = {"temperature": TEMPERATURE, "seed": seed, "num_predict": MAX_TOKENS}
    else:
        body |= {"temperature": TEMPERATURE, "seed": seed, "max_tokens": MAX_TOKENS}
    raw = fetch(endpoint.url, json.dumps(body).encode(), timeout)
    try:
        said = json.loads(raw)
        return read_ollama(said) if endpoint.dialect == "ollama" else read_openai(said)
    except (ValueError, LookupError, TypeError, RecursionError):
        raise NoReply(Reason.GARBAGE, "no reply of a chat model in it", raw.decode(errors="replace")) from None


def read_openai(said: Any) -> Reply:
    choice = said["choices"][0]
    return Reply(as_text(choice["message"]["content"]), choice.get("finish_reason") == "stop")


def read_ollama(said: Any) -> Reply:
    """Servers before 0.3 do not say why they are done."""
    finished = said.get("done") is True and said.get("done_reason", "stop") == "stop"
    return Reply(as_text(said["message"]["content"]), finished)


def as_text(content: Any) -> str:
    if not isinstance(content, str):
        raise TypeError("not a text")
    content.encode()  # half a surrogate pair cannot be written
    return content.strip()


def fetch(url: str, body: bytes | None, timeout: float) -> bytes:
    """The body of a 200; `timeout` is for the whole of it, so a server that drips cannot hold us."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), StayHere())
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with opener.open(request, timeout=timeout) as response:
            return read_within(response, time.monotonic() + timeout)
    except urllib.error.HTTPError as error:
        raise refused(error, url) from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        detail = "timed out" if isinstance(reason, TimeoutError) else str(reason) or type(reason).__name__
        raise NoReply(Reason.NO_ANSWER, detail) from None


def read_within(response: http.client.HTTPResponse, deadline: float) -> bytes:
    """The whole body; one that is longer than any answer, or slower, is none."""
    pieces: list[bytes] = []
    while piece := response.read1(1 << 16):
        pieces.append(piece)
        if sum(map(len, pieces)) > LONGEST_REPLY:
            raise NoReply(Reason.GARBAGE, f"more than {LONGEST_REPLY:,} bytes", pieces[0].decode(errors="replace"))
        if time.monotonic() > deadline:
            raise NoReply(Reason.NO_ANSWER, "timed out", b"".join(pieces).decode(errors="replace"))
    if response.length:
        raise NoReply(Reason.NO_ANSWER, "the connection broke off", b"".join(pieces).decode(errors="replace"))
    return b"".join(pieces)


def refused(error: urllib.error.HTTPError, url: str) -> NoReply | EnvironmentFault:
    """A busy or broken server may recover; one that says the request is wrong will say so again."""
    try:
        said = error.read(LONGEST_REPLY).decode(errors="replace")
    except (OSError, http.client.HTTPException):
        said = ""
    if error.code >= 500 or error.code in (408, 429):
        return NoReply(Reason.SERVER, f"status {error.code}", said)
    shown = " ".join(said.split())[:SHOWN] or error.reason
    todo = "check --endpoint and --model; no key is sent and no redirect followed"
    return EnvironmentFault(f"the endpoint refused with status {error.code}: {shown}", where=url, todo=todo)
