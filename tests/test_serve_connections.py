"""Connections that ask nothing: they are closed in time, are never too many, and keep nobody out."""

import contextlib
import json
import logging
import socket
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from serving import QUESTION, Fake, listening, until

from medmind.serve import connection, replies

ASK = {"model": "fake", "messages": QUESTION, "stream": True}
HEAD = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n"


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, int]]:
    monkeypatch.setattr(connection, "SLOWEST", {"head": 0.4, "rest of a body": 1.0, "another request": 5.0})
    fake = Fake(write=lambda _: "word " * 60)
    fake.decoder.pause = 0.02
    with listening(fake) as url:
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
    """Past the time for a head between two requests; two may come at once."""
    with socket.create_connection(address) as client:
        for asked in (HEAD, HEAD, HEAD + b"\r\n" + HEAD):
            client.sendall(asked + b"\r\n")
            client.settimeout(0.3)
            found = b""
            with contextlib.suppress(TimeoutError):
                while more := client.recv(4096):
                    found += more
            assert found.count(b"HTTP/1.1 200") == asked.count(b"GET")
            time.sleep(0.5)
        assert not is_closed(client)


def test_a_slow_body_and_a_slow_answer_are_waited_for(address: tuple[str, int]) -> None:
    body = json.dumps(ASK).encode()
    with socket.create_connection(address) as client:
        client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n")
        client.sendall(b"Content-Length: %d\r\n\r\n" % len(body))
        for start in range(0, len(body), 20):
            client.sendall(body[start : start + 20])
            time.sleep(0.15)
        client.settimeout(5)
        found = b""
        while b"[DONE]" not in found:
            more = client.recv(4096)
            assert more, "closed before its end"
            found += more
    assert found.count(b"word") > 50


def test_after_a_body_that_nobody_read_the_next_head_has_its_time(address: tuple[str, int]) -> None:
    with socket.create_connection(address) as client:
        client.sendall(b"POST /v1/models HTTP/1.1\r\nHost: elsewhere\r\nContent-Length: 9\r\n\r\n")
        client.settimeout(2)
        found = client.recv(4096)
        while not found.endswith(b"}}"):
            found += client.recv(4096)
        assert found.startswith(b"HTTP/1.1 403")
        for sent in (b"four", b"five!", HEAD[:20], HEAD[20:] + b"\r\n"):
            time.sleep(0.25)
            client.sendall(sent)
        assert client.recv(4096).startswith(b"HTTP/1.1 200")


def test_the_longest_idle_gives_way_and_no_stream_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "IDLE", 5)
    fake = Fake(write=lambda _: "word " * 60)
    fake.decoder.pause = 0.02
    with listening(fake) as url, httpx.stream("POST", f"{url}/v1/chat/completions", json=ASK, timeout=20) as found:
        lines = found.iter_lines()
        next(lines)
        idle = [socket.create_connection(("127.0.0.1", urlsplit(url).port or 0)) for _ in range(60)]
        until(lambda: sum(map(is_closed, idle)) == 55, 2)
        assert list(lines)[-2] == "data: [DONE]"
        assert httpx.get(f"{url}/health").status_code == 200
        for one in idle:
            one.close()


@pytest.fixture
def little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """For answers that lie unread."""
    made = connection.Connection.connection_made

    def with_little_room(self: connection.Connection, transport: Any) -> None:
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        made(self, transport)

    monkeypatch.setattr(connection.Connection, "connection_made", with_little_room)


def ask_with_little_room(client: socket.socket, address: tuple[str, int], asked: bytes) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(address)
    client.sendall(asked)


@pytest.mark.usefixtures("little_room")
def test_a_stream_that_nobody_reads_ends_with_one_line_in_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(replies, "PATIENCE", 0.2)
    fake = Fake(write=lambda _: "word " * 120, slots=8)
    body = json.dumps({**ASK, "n": 8}).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n" % len(body)
    with listening(fake, timeout=1.5) as url, socket.socket() as client:
        ask_with_little_room(client, ("127.0.0.1", urlsplit(url).port or 0), head + body)
        until(lambda: any("did not read" in record.getMessage() for record in caplog.records), 5)
        until(lambda: fake.engine.busy == fake.engine.queued == 0, 1)
        client.settimeout(2)
        found = b""
        with contextlib.suppress(ConnectionError):
            while more := client.recv(4096):
                found += more
        assert b"[DONE]" not in found
        assert httpx.get(f"{url}/health").status_code == 200
    loud = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.exc_info for record in loud] == [None]


@pytest.mark.usefixtures("little_room")
def test_an_answer_that_nobody_fetches_is_not_kept(address: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the connection was to stay or to close: what lies unread is thrown away, and the client is told so."""
    monkeypatch.setitem(connection.SLOWEST, "another request", 0.5)
    for kept in ("keep-alive", "close"):
        with socket.socket() as client:
            asked = b"GET /openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: %s\r\n\r\n" % kept.encode()
            ask_with_little_room(client, address, asked)
            time.sleep(1.5)
            found = b""
            client.settimeout(2)
            with contextlib.suppress(ConnectionError):
                while more := client.recv(4096):
                    found += more
        head, _, body = found.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split()[0])
        assert head.startswith(b"HTTP/1.1 200") and len(body) < length


def test_whoever_is_idle_does_not_keep_the_server_from_stopping() -> None:
    refused = b"POST /v1/models HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx"
    with contextlib.ExitStack() as clients:
        with listening(Fake()) as url:
            for sent in (b"", b"GET /hea", HEAD + b"\r\n", refused):
                client = clients.enter_context(socket.create_connection(("127.0.0.1", urlsplit(url).port or 0)))
                client.sendall(sent)
            time.sleep(0.3)
            start = time.monotonic()
        assert time.monotonic() - start < 5
