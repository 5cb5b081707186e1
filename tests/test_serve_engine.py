"""The thread behind the server: who leaves frees the slot, who comes waits in turn, what breaks is opened again."""

import asyncio
import random
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from serving import QUESTION, RENDERER, REPLY, Fake, listening, post, until

from medmind.infer.decoder import Work
from medmind.serve.engine import EngineBroken, EngineBusy, follow
from medmind.serve.text import Pipe, Reader, Stops, Trim

LONG = "word " * 200


@pytest.fixture
def slow() -> Iterator[tuple[Fake, str]]:
    fake = Fake(write=lambda _: LONG, slots=2, queue=2, context=512)
    fake.decoder.pause = 0.02
    with listening(fake, timeout=20) as url:
        yield fake, url


def quiet(fake: Fake) -> bool:
    return fake.engine.busy == fake.engine.queued == 0


def leave_early(url: str, path: str, **body: Any) -> None:
    """A client that closes its socket while it waits."""
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(url + path, json={"model": "fake", "messages": QUESTION, **body}, timeout=0.3)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/chat"])
def test_whoever_leaves_frees_the_slot(slow: tuple[Fake, str], path: str) -> None:
    fake, url = slow
    leave_early(url, path, stream=False)
    until(lambda: quiet(fake), 1)
    with httpx.stream("POST", url + path, json={"model": "fake", "messages": QUESTION, "stream": True}) as found:
        next(found.iter_lines())
        assert fake.engine.busy == 1
    until(lambda: quiet(fake), 1)
    assert fake.engine.counts["cancelled"] == 2


def test_whoever_leaves_while_the_prompt_is_read_frees_the_slot(slow: tuple[Fake, str]) -> None:
    fake, url = slow
    fake.decoder.pause = 0.6
    leave_early(url, "/v1/completions", prompt=[[5] * 500], echo=True, logprobs=0, stream=True)
    until(lambda: quiet(fake), 2)
    assert fake.engine.counts["new_tokens"] == 0


def test_whoever_leaves_the_queue_is_never_begun(slow: tuple[Fake, str]) -> None:
    fake, url = slow
    threads = [threading.Thread(target=post, args=(url, "/v1/chat/completions"), kwargs=asked(60)) for _ in range(2)]
    for thread in threads:
        thread.start()
    until(lambda: fake.engine.busy == 2)
    begun = len(fake.decoder.asked)
    leave_early(url, "/v1/chat/completions")
    until(lambda: fake.engine.queued == 0, 1)
    for thread in threads:
        thread.join()
    assert len(fake.decoder.asked) == begun


def asked(tokens: int) -> dict[str, Any]:
    return {"model": "fake", "messages": QUESTION, "max_tokens": tokens}


def test_a_full_queue_says_when_to_come_back(slow: tuple[Fake, str]) -> None:
    fake, url = slow
    found: list[httpx.Response] = []
    threads = [
        threading.Thread(target=lambda: found.append(post(url, "/v1/chat/completions", **asked(40)))) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one.status_code for one in found) == [200] * 4 + [503] * 2
    refused = next(one for one in found if one.status_code == 503)
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.json()["error"]["code"] == "queue_full"
    assert fake.engine.counts["refused"] == 2


def test_a_big_request_does_not_keep_others_waiting() -> None:
    fake = Fake(write=lambda _: LONG, slots=2, queue=8)
    fake.decoder.pause = 0.005

    async def both() -> tuple[float, float]:
        big = fake.engine.submit([Work((5,), 30) for _ in range(10)])
        small = fake.engine.submit([Work((5,), 30)])
        return await last(small), await last(big)

    async def last(tickets: Any) -> float:
        for ticket in tickets:
            async for _ in follow(ticket):
                pass
        return time.monotonic()

    small, big = asyncio.run(both())
    assert small < big - 0.2
    fake.engine.close()


def test_a_broken_model_is_said_and_opened_again() -> None:
    fake = Fake()
    with listening(fake) as url:
        fake.decoder.fault = "out of memory"
        found = post(url, "/v1/chat/completions", model="fake", messages=QUESTION)
        assert (found.status_code, found.json()["error"]["code"]) == (503, "engine_failed")
        again = post(url, "/v1/chat/completions", model="fake", messages=QUESTION)
        assert again.json()["choices"][0]["message"]["content"] == REPLY
        assert len(fake.decoders) == 2
        assert httpx.get(f"{url}/health").status_code == 200


def test_the_model_that_broke_is_gone_before_the_next_is_opened() -> None:
    """Or a model that fills the memory could never be opened again."""
    fake = Fake()
    opened, first = fake.engine._open, weakref.ref(fake.decoders.pop())
    there: list[bool] = []
    fake.engine._open = lambda: (there.append(first() is not None), opened())[1]

    async def ask() -> None:
        (ticket,) = fake.engine.submit([Work((5,), 9)])
        with pytest.raises(EngineBroken):
            async for _ in follow(ticket):
                pass

    first().fault = "out of memory"  # type: ignore[union-attr]
    asyncio.run(ask())
    until(lambda: bool(fake.decoders))
    assert there == [False]
    fake.engine.close()


def test_a_reply_that_met_its_stop_text_keeps_no_slot() -> None:
    fake = Fake(write=lambda text: "one STOP " + LONG, slots=1)
    with listening(fake) as url:
        found = post(url, "/v1/completions", model="fake", prompt=["a"] * 3, stop=["STOP"], max_tokens=100).json()
    assert [choice["text"] for choice in found["choices"]] == ["one "] * 3
    assert fake.engine.counts["steps"] < 30
    assert (fake.engine.counts["finished"], fake.engine.counts["cancelled"]) == (3, 0)


def test_vectors_come_one_a_turn_and_none_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake(queue=1)
    asked, embed = [], fake.decoder.embed

    def slow_embed(ids: Any, voice: str = "") -> list[float]:
        asked.append(ids)
        time.sleep(0.4)
        if len(asked) == 1:
            raise RuntimeError("out of memory")
        return embed(ids, voice)

    monkeypatch.setattr(type(fake.decoder), "embed", lambda _, *given: slow_embed(*given))
    found: list[int] = []

    def ask() -> None:
        found.append(post(url, "/v1/embeddings", model="fake", input="nose").status_code)

    with listening(fake, timeout=5) as url:
        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(found) == [200, 502, 503, 503]  # two told that the queue is full, one that its text failed
        assert (fake.engine.counts["refused"], len(asked), len(fake.decoders)) == (2, 2, 1)
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{url}/v1/embeddings", json={"model": "fake", "input": ["nose"] * 64}, timeout=0.6)
        until(lambda: not fake.engine._errands, 2)
        assert 2 < len(asked) < 7
        assert post(url, "/v1/embeddings", model="fake", input="nose").status_code == 200


def test_a_model_that_stays_broken_is_given_up() -> None:
    fake = Fake()
    until(lambda: len(fake.decoders) == 1)
    with listening(fake) as url:
        for _ in range(3):
            fake.decoder.fault = "broken"
            assert post(url, "/v1/chat/completions", model="fake", messages=QUESTION).status_code == 503
            time.sleep(0.05)
        found = post(url, "/v1/chat/completions", model="fake", messages=QUESTION)
        assert (found.status_code, found.json()["error"]["code"]) == (503, "engine_gone")
        assert "must be started again" in found.json()["error"]["message"]
        assert "retry-after" not in found.headers, "it will not be there later"
        assert httpx.get(f"{url}/health").status_code == 503


def test_a_model_that_cannot_be_opened_is_an_error_at_once() -> None:
    from medmind.serve.engine import Engine

    def fail() -> Any:
        raise ValueError("no such model")

    with pytest.raises(ValueError, match="no such model"):
        Engine(fail, 4).wait_ready()


def test_health_needs_a_token_not_a_promise() -> None:
    fake = Fake()
    with listening(fake) as url:
        steps = fake.engine.counts["steps"]
        assert httpx.get(f"{url}/health").json() == {"status": "ok"}
        assert fake.engine.counts["steps"] == steps + 1
        httpx.get(f"{url}/health")
        assert fake.engine.counts["steps"] == steps + 1
        fake.engine._active[0] = fake.engine._active.get(0)  # type: ignore[assignment]
        fake.engine.last_step -= 100
        assert httpx.get(f"{url}/health").status_code == 503
        fake.engine._active.clear()


def test_health_asks_for_a_token_only_when_none_was_written_and_not_again_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    async def write(engine: Any, token: int) -> bool:
        asked.append(token)
        return False

    monkeypatch.setattr("medmind.serve.beside.writes", write)
    fake = Fake()
    with listening(fake) as url:
        assert [httpx.get(f"{url}/health").status_code for _ in range(3)] == [503] * 3
        assert len(asked) == 1
        post(url, "/v1/chat/completions", model="fake", messages=QUESTION)
        assert httpx.get(f"{url}/health").status_code == 200
        fake.engine.wrote_at -= 100
        monkeypatch.setattr("medmind.serve.beside.FRESH", 0.0)
        assert httpx.get(f"{url}/health").status_code == 503
        assert len(asked) == 2


def test_an_answer_that_takes_too_long_ends() -> None:
    fake = Fake(write=lambda _: LONG)
    fake.decoder.pause = 0.05
    with listening(fake, timeout=0.5) as url:
        found = post(url, "/v1/chat/completions", model="fake", messages=QUESTION)
        assert (found.status_code, found.headers["x-should-retry"]) == (504, "false")
        streamed = post(url, "/v1/chat/completions", model="fake", messages=QUESTION, stream=True).text
        assert '"code": "timeout"' in streamed.replace('":"', '": "')
        until(lambda: quiet(fake), 1)


def test_figures_for_prometheus() -> None:
    fake = Fake()
    with listening(fake) as url:
        post(url, "/v1/chat/completions", model="fake", messages=QUESTION)
        lines = httpx.get(f"{url}/metrics").text.splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert values['medmind_requests_total{model="fake"}'] == "1"
    assert values['medmind_prompt_tokens_total{model="fake"}'] == str(len(fake.prompt("What is rhinitis?")))
    assert values['medmind_requests_processing{model="fake"}'] == "0"


def test_submitting_to_a_closed_engine_is_refused() -> None:
    fake = Fake(slots=1, queue=0)
    fake.engine.close()

    async def submit() -> None:
        fake.engine.submit([Work((5,), 1)])

    with pytest.raises(EngineBroken):
        asyncio.run(submit())
    assert issubclass(EngineBusy, Exception)


def test_text_in_pieces_is_the_whole_text() -> None:
    dice = random.Random(4)
    for _ in range(200):
        text = "".join(dice.choice(["a", " ", "é", "鼻", "🫁", "\n", "##", "#", "word ", "µg"]) for _ in range(20))
        ids = RENDERER.tokenizer.encode(text)
        reader = Reader(RENDERER.tokenizer)
        assert "".join(map(reader.feed, ids)) + reader.close() == RENDERER.tokenizer.decode(ids)
        pipe = Pipe(RENDERER.tokenizer, ["###", "🫁a"], trim=True)
        said = "".join(map(pipe.feed, ids)) + pipe.close()
        cut = min((place for stop in ("###", "🫁a") if (place := text.find(stop)) >= 0), default=len(text))
        assert said == text[:cut].strip()


def test_what_may_begin_a_stop_is_held_back() -> None:
    stops = Stops(["END"])
    assert [stops.feed(piece) for piece in ("a E", "N", "x EN", "D more")] == ["a ", "", "ENx ", ""]
    assert stops.found
    assert Trim().feed("  ") == ""
