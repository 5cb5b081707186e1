"""A model behind an OpenAI, vLLM or Ollama endpoint: what is served is what is measured.

Where the server takes token ids, it is asked with ours, after its tokenizer was seen to make the same ids of a text;
where it also tells the likelihoods of a prompt, they are taken from it. Elsewhere it makes the prompt itself.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from medmind.core.errors import EnvironmentFault, UsageError
from medmind.core.log import say
from medmind.core.protocols import Progress, Tokenizer
from medmind.core.registry import did_you_mean
from medmind.core.types import Completion, Message
from medmind.infer.limits import PROBE, check_rows, reply_limit
from medmind.infer.wire import Refused, Wire

KEY = "MEDMIND_API_KEY"
"""The environment variable with the key to send, if any."""
GIVE_KEY = f"give its key in {KEY}, to medmind serve in MEDMIND_ENDPOINT_KEY"
NAME_ONE = "name one: --model NAME, in serve and chat #NAME after the address"
STREAMS = 4
"""Requests underway at once."""
ROWS = 16
"""Prompts judged in one request."""
SPARE = 2
"""Tokens kept free: a judged prompt is followed by one more, and some servers want room after that."""
Api = Literal["completions", "chat", "ollama"]
ENDINGS: dict[str, Api | None] = {
    "/v1/completions": "completions",
    "/v1/chat/completions": "chat",
    "/v1": None,
    "/api/generate": "ollama",
    "/api/chat": "ollama",
    "/api": "ollama",
}
"""What an address may end with, and which API it then asks for."""
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Server:
    """What was learnt about the other side."""

    wire: Wire
    kind: str
    """medmind, vllm, llama.cpp, ollama or openai, as far as it tells."""
    model: str
    context: int


class Endpoint:
    dtype = "as served"

    def __init__(self, server: Server, tokenizer: Tokenizer) -> None:
        self.server, self._tokenizer = server, tokenizer
        self.context = server.context - SPARE

    def _all(self, work: Callable[[T], R], items: Sequence[T], progress: Progress | None) -> list[R]:
        """In order, a few at a time."""
        done = []
        with ThreadPoolExecutor(STREAMS) as pool:
            for result in pool.map(work, items):
                done.append(result)
                if progress:
                    progress(len(done), len(items))
        return done

    def _completion(self, text: str, stopped: bool) -> Completion:
        text = text.strip()
        return Completion(text=text, ids=tuple(self._tokenizer.encode(text)), stopped=stopped)

    def _ask(self, path: str, body: dict[str, Any]) -> Any:
        try:
            return self.server.wire.ask(path, {"model": self.server.model, **body})
        except Refused as refusal:
            where = self.server.wire.root + path
            raise EnvironmentFault(f"the endpoint refused, {refusal}", where=where, todo=hint(refusal)) from None


class IdEndpoint(Endpoint):
    """A Generator: ids go to /v1/completions. `judges` tells whether log_likelihoods can be had."""

    def __init__(self, server: Server, tokenizer: Tokenizer, judges: bool) -> None:
        super().__init__(server, tokenizer)
        self.judges = judges
        self.name = f"endpoint {server.kind}"

    def generate(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int, progress: Progress | None = None
    ) -> list[Completion]:
        asked = [(prompt, reply_limit(self.context, prompt, max_new_tokens)) for prompt in prompts]
        return self._all(lambda one: self._continue(*one), asked, progress)

    def log_likelihoods(self, rows: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[float]]:
        """From the log-probabilities of an echoed prompt: raw, without temperature, as lm-eval asks for them."""
        if not self.judges:
            raise UsageError("this endpoint tells no log-likelihoods of a prompt", where=self.server.wire.root)
        check_rows(self.context, rows)
        chunks = [rows[start : start + ROWS] for start in range(0, len(rows), ROWS)]
        return [judged for chunk in self._all(self._judge, chunks, None) for judged in chunk]

    def _continue(self, prompt: Sequence[int], limit: int) -> Completion:
        body = {"prompt": list(prompt), "max_tokens": limit, "temperature": 0.0, "seed": 0}
        choice = first(self._ask("/v1/completions", body), self.server)
        return self._completion(str(choice.get("text") or ""), choice.get("finish_reason") == "stop")

    def _judge(self, rows: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[float]]:
        prompts = [[*context, *continuation] for context, continuation in rows]
        answer = self._ask("/v1/completions", echoing(prompts))
        choices = sorted(answer.get("choices") or [], key=lambda choice: int(choice["index"]))
        found = []
        for choice, (context, continuation) in zip(choices, rows, strict=True):
            logs = (choice.get("logprobs") or {}).get("token_logprobs") or []
            wanted = logs[len(context) : len(context) + len(continuation)]
            if len(logs) != len(context) + len(continuation) + 1 or None in wanted:
                raise EnvironmentFault(
                    "the endpoint's log-probabilities are not one a token", where=self.server.wire.root
                )
            found.append([float(one) for one in wanted])
        return found


class ChatEndpoint(Endpoint):
    """A Converser: the server makes its own prompt of a conversation, and tells nothing but its reply."""

    judges = False

    def __init__(self, server: Server, tokenizer: Tokenizer, api: Api) -> None:
        super().__init__(server, tokenizer)
        self.api = api
        self.name = f"endpoint {server.kind}, prompt made by the server"

    def generate(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int, progress: Progress | None = None
    ) -> list[Completion]:
        raise UsageError("this endpoint takes no token ids", where=self.server.wire.root, todo="ask it in messages")

    def log_likelihoods(self, rows: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[float]]:
        raise UsageError("this endpoint tells no log-likelihoods of a prompt", where=self.server.wire.root)

    def converse(
        self, conversations: Sequence[Sequence[Message]], max_new_tokens: int, progress: Progress | None = None
    ) -> list[Completion]:
        say_reply = self._say_ollama if self.api == "ollama" else self._say_openai
        return self._all(lambda messages: say_reply(messages, max_new_tokens), conversations, progress)

    def _say_openai(self, messages: Sequence[Message], limit: int) -> Completion:
        body = {"messages": spoken(messages), "max_tokens": limit, "temperature": 0.0, "seed": 0}
        answer = self._ask("/v1/chat/completions", body)
        choice = first(answer, self.server)
        text = (choice.get("message") or {}).get("content") or ""
        return self._completion(without_additions(text, choice), choice.get("finish_reason") == "stop")

    def _say_ollama(self, messages: Sequence[Message], limit: int) -> Completion:
        """The whole context is asked for, or Ollama would cut the prompt in silence; so would it without `truncate`."""
        options = {"temperature": 0.0, "seed": 0, "num_predict": limit, "num_ctx": self.server.context}
        body = {"messages": spoken(messages), "stream": False, "truncate": False, "shift": False, "options": options}
        answer = self._ask("/api/chat", body)
        text = ((answer if isinstance(answer, dict) else {}).get("message") or {}).get("content")
        if not isinstance(text, str):
            raise EnvironmentFault("no reply in the endpoint's answer", where=self.server.wire.root)
        stopped = answer.get("done") is True and answer.get("done_reason", "stop") == "stop"
        return self._completion(without_additions(text, answer), stopped)


def open_endpoint(
    url: str, model: str, tokenizer: Tokenizer, context: int, *, key: str | None = None, pause: float = 1.0
) -> IdEndpoint | ChatEndpoint:
    """Looks once what the server can do. `context` is the model's own; the server may have less. No key: the usual."""
    root, api = take_apart(url)
    wire = Wire(root, os.environ.get(KEY, "") if key is None else key, pause=pause)
    server = find_server(wire, model, context, api)
    found: IdEndpoint | ChatEndpoint
    if api in (None, "completions") and takes_our_ids(server, tokenizer):
        found = IdEndpoint(server, tokenizer, judges(server, tokenizer))
    elif api == "completions":
        what = "the server's tokenizer is not the recipe's model's, or it takes no token ids"
        raise UsageError(what, where=url, todo="leave /completions out of the address, and it is asked in messages")
    else:
        found = ChatEndpoint(server, tokenizer, api or ("ollama" if server.kind == "ollama" else "chat"))
    said = "with" if found.judges else "without"
    say(f"{root}: {found.name}, model {server.model}, {server.context} tokens, {said} log-likelihoods")
    return found


def take_apart(url: str) -> tuple[str, Api | None]:
    """The address without its last part, and the API this part names."""
    bare = url.rstrip("/")
    ending = next((one for one in ENDINGS if bare.endswith(one)), "")
    return bare.removesuffix(ending), ENDINGS.get(ending)


def find_server(wire: Wire, model: str, context: int, api: Api | None) -> Server:
    listed = try_ask(wire, "/v1/models") if api != "ollama" else None
    cards = {str(card.get("id")): card for card in (listed or {}).get("data") or [] if isinstance(card, dict)}
    if cards:
        name = pick(model, list(cards), wire.root)
        card = cards[name]
        meta = card.get("meta") or {}
        if meta.get("screened"):
            say(f"{name} takes patient identifiers out of its replies; serve.redact_phi=false there leaves them")
        owner = str(card.get("owned_by", ""))
        kind = {"vllm": "vllm", "llamacpp": "llama.cpp", "medmind": "medmind", "library": "ollama"}.get(owner, "openai")
        limit = card.get("max_model_len") or meta.get("context_length") or meta.get("n_ctx") or context
        if kind != "ollama":
            return Server(wire, kind, name, min(context, int(limit)))
    tags = try_ask(wire, "/api/tags")
    names = [str(one.get("name")) for one in (tags or {}).get("models") or [] if isinstance(one, dict)]
    if tags is not None:
        name = pick(model, names, wire.root)
        return Server(wire, "ollama", name, min(context, ollama_context(wire, name, context)))
    if not model:
        raise UsageError("the endpoint does not tell its models", where=wire.root, todo=NAME_ONE)
    return Server(wire, "openai", model, context)


def ollama_context(wire: Wire, model: str, usual: int) -> int:
    info = (try_ask(wire, "/api/show", {"model": model}) or {}).get("model_info") or {}
    return next((int(value) for key, value in info.items() if key.endswith(".context_length")), usual)


def pick(model: str, known: Sequence[str], where: str) -> str:
    if not model and len(known) == 1:
        return known[0]
    found = next((name for name in known if name in (model, f"{model}:latest")), None)
    if not found:
        what = f'no model "{model}" there{did_you_mean(model, known)}' if model else "which of its models?"
        raise UsageError(what, where=where, todo=f"{NAME_ONE}; known: {', '.join(known) or 'none'}")
    return found


def try_ask(wire: Wire, path: str, body: dict[str, Any] | None = None) -> dict[str, Any] | None:
    """None where the server has no such page; a key it does not take is an error at once."""
    try:
        answer = wire.ask(path, body)
    except Refused as refusal:
        if refusal.status in (401, 403):
            raise EnvironmentFault(f"the endpoint refused, {refusal}", where=wire.root, todo=GIVE_KEY) from None
        return None
    return answer if isinstance(answer, dict) else None


def takes_our_ids(server: Server, tokenizer: Tokenizer) -> bool:
    """Its tokenizer makes our ids of a text, and it continues a prompt of ids."""
    ours = tokenizer.encode(tokenizer.blank + PROBE)
    body = {"model": server.model, "prompt": PROBE, "content": PROBE, "add_special_tokens": False}
    if ((try_ask(server.wire, "/tokenize", body)) or {}).get("tokens") != ours:
        return False
    asked = {"model": server.model, "prompt": ours, "max_tokens": 1, "temperature": 0.0}
    return bool((try_ask(server.wire, "/v1/completions", asked) or {}).get("choices"))


def judges(server: Server, tokenizer: Tokenizer) -> bool:
    """Whether an echoed prompt comes with one log-probability a token; many servers take `echo` and ignore it."""
    ids = tokenizer.encode(tokenizer.blank + PROBE)
    answer = try_ask(server.wire, "/v1/completions", {"model": server.model, **echoing([ids])})
    choices = (answer or {}).get("choices") or [{}]
    logs = (choices[0].get("logprobs") or {}).get("token_logprobs") or []
    return len(logs) == len(ids) + 1 and all(isinstance(one, float | int) for one in logs[1:])


def echoing(prompts: Sequence[Sequence[int]]) -> dict[str, Any]:
    return {"prompt": [list(one) for one in prompts], "max_tokens": 1, "temperature": 0.0, "logprobs": 1, "echo": True}


def first(answer: Any, server: Server) -> dict[str, Any]:
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not choices or not isinstance(choices[0], dict):
        raise EnvironmentFault("no reply in the endpoint's answer", where=server.wire.root, todo="check the address")
    choice: dict[str, Any] = choices[0]
    return choice


def spoken(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.text} for message in messages]


def without_additions(text: str, said: dict[str, Any]) -> str:
    """The model's own words: what a medmind server put before and after them is named beside them and not scored."""
    return text.removeprefix(str(said.get("medmind_added", ""))).removesuffix(str(said.get("medmind_note", "")))


def hint(refusal: Refused) -> str:
    return GIVE_KEY if refusal.status in (401, 403) else "check --endpoint and --model"
