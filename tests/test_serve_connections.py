"""Connections that ask nothing: they are closed in time, are never too many, and keep nobody out."""

import socket
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest
from serving import QUESTION, Fake, listening, until

from medmind.serve import connection

ASK = {"model": "fake", "messages": QUESTION, "stream": True}
HEAD = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n"


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, int]]:
    monkeypatch.setattr(connection, "SLOWEST_HEAD", 0.4)
    with listening(Fake()) as url:
        yield "127.0.0.1", urlsplit(url).port or 0


def is_closed(client: socket.socket) -> bool:
    client.settimeout(0.01)
    try:
        return not client.recv(4096)
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def test_whoever_says_nothing_is_let_go(address: tuple[str, int]) -> None:
    with socket.create_connection(address) as client:
        assert not is_closed(client)
        until(lambda: is_closed(client), 2)


def test_a_head_that_comes_byte_by_byte_is_not_waited_for(address: tuple[str, int]) -> None:
    start = time.monotonic()
    with socket.create_connection(address) as client:
        while not is_closed(client) and time.monotonic() < start + 5:
            try:
                client.sendall(b"G")
            except ConnectionError:
                break
            time.sleep(0.05)
    assert 0.3 < time.monotonic() - start < 2


def test_a_body_that_nobody_reads_is_not_waited_for(address: tuple[str, int]) -> None:
    """The answer is there before the body: what follows of it byte by byte keeps nothing open."""
    start = time.monotonic()
    with socket.create_connection(address) as client:
        client.sendall(b"POST /v1/models HTTP/1.1\r\nHost: elsewhere\r\nContent-Length: 1000\r\n\r\n")
        client.settimeout(2)
        assert client.recv(4096).startswith(b"HTTP/1.1 403")
        while not is_closed(client) and time.monotonic() < start + 5:
            try:
                client.sendall(b"x")
            except ConnectionError:
                break
            time.sleep(0.05)
    assert time.monotonic() - start < 2


def test_a_connection_that_asks_stays(address: tuple[str, int]) -> None:
    """Past the time for a head, between two requests and in the middle of a slow one."""
    with socket.create_connection(address) as client:
        for _ in range(2):
            client.sendall(HEAD + b"\r\n")
            client.settimeout(5)
            assert client.recv(4096).startswith(b"HTTP/1.1 200")
            time.sleep(0.6)
        assert not is_closed(client)


def test_the_longest_idle_gives_way_and_no_stream_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "IDLE", 5)
    fake = Fake(write=lambda _: "word " * 60)
    fake.decoder.pause = 0.02
    with listening(fake) as url, httpx.stream("POST", f"{url}/v1/chat/completions", json=ASK, timeout=20) as found:
        lines = found.iter_lines()
        next(lines)
        idle = []
        for _ in range(12):
            idle.append(socket.create_connection(("127.0.0.1", urlsplit(url).port or 0)))
            time.sleep(0.02)
        until(lambda: [is_closed(one) for one in idle] == [True] * 7 + [False] * 5, 2)
        assert list(lines)[-2] == "data: [DONE]"
        assert httpx.get(f"{url}/health").status_code == 200
        for one in idle:
            one.close()
