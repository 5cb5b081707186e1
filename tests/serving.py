"""What the tests of serving share: models that are fakes, and a server that really listens."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import uvicorn

from medmind.core.types import Message
from medmind.infer.decode_fake import FakeDecoder
from medmind.infer.decoder import Sampling, Step
from medmind.models.catalog import find_model
from medmind.models.tokenizer import open_tokenizer
from medmind.prompts.families import open_renderer
from medmind.serve.app import create_app
from medmind.serve.config import ServeConfig
from medmind.serve.engine import Engine
from medmind.serve.run import server
from medmind.serve.served import Facts, Index, Served

RENDERER = open_renderer("mistral-v3", open_tokenizer(find_model("nano")))
SYSTEM = "You explain medical terms."
REPLY = "Rhinitis is swelling of the nose: naïve, 5 µg, 鼻炎 and 🫁."
QUESTION = [{"role": "user", "content": "What is rhinitis?"}]


class Slow(FakeDecoder):
    """Takes its time for every step, so that tests can look on; `fault` makes the next step fail."""

    pause = 0.0
    fault = ""

    def step(self) -> list[Step]:
        time.sleep(self.pause)
        if self.fault:
            fault, self.fault = self.fault, ""
            raise RuntimeError(fault)
        return super().step()


class Fake:
    """One fake model and what is needed to look inside; `write` makes the reply from the prompt's text."""

    def __init__(
        self,
        name: str = "fake",
        write: Callable[[str], str] = lambda _: REPLY,
        *,
        slots: int = 4,
        context: int = 256,
        queue: int = 8,
        screened: bool = False,
        can_embed: bool = True,
    ) -> None:
        self.decoders: list[Slow] = []

        def open_decoder() -> Slow:
            decoder = Slow(RENDERER.tokenizer, write, RENDERER.stop_ids[0], slots=slots, context=context)
            decoder.can_embed = can_embed
            self.decoders.append(decoder)
            return decoder

        self.engine = Engine(open_decoder, queue)
        self.engine.wait_ready()
        facts = Facts(1_700_000_000, 1234, "ab" * 32, "llama", 1_000_000, "f16", "MIT")
        self.served = Served(name, self.engine, RENDERER, SYSTEM, Sampling(), facts, 128, screened)

    @property
    def decoder(self) -> Slow:
        return self.decoders[-1]

    def prompt(self, question: str, system: str = SYSTEM) -> tuple[int, ...]:
        """What training makes of it."""
        turns = [Message(role="system", text=system), Message(role="user", text=question)]
        return RENDERER.render([turn for turn in turns if turn.text]).ids


def app_of(*fakes: Fake, digest: bytes | None = None, **settings: float | bool | str):  # type: ignore[no-untyped-def]  # noqa: ANN201
    return create_app(Index([fake.served for fake in fakes]), ServeConfig(**{"timeout": 30.0, **settings}), digest)


@contextmanager
def listening(*fakes: Fake, **settings: object) -> Iterator[str]:
    """The address of a server on this machine, which stops with the block."""
    app = app_of(*fakes, **settings)  # type: ignore[arg-type]
    with serving(app) as url:
        yield url


@contextmanager
def serving(app: object) -> Iterator[str]:
    inner: uvicorn.Server = server(app, ServeConfig())  # type: ignore[arg-type]
    inner.config.port = 0
    thread = threading.Thread(target=inner.run, daemon=True)
    thread.start()
    while not inner.started:
        time.sleep(0.01)
    port = inner.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    inner.should_exit = True
    thread.join()


def post(url: str, path: str, **body: object) -> httpx.Response:
    return httpx.post(url + path, json=body, timeout=20)


def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.01)
