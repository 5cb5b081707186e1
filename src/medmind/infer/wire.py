"""JSON to and from the one server a user named: no proxy, no redirect, a bounded number of tries, a bounded answer."""

import http.client
import json
import socket
import threading
import time
import weakref
from collections.abc import Generator
from contextlib import closing, suppress
from typing import Any

from medmind.core.address import read_address
from medmind.core.errors import EnvironmentFault

LONGEST_ANSWER = 256 << 20
"""Bytes; likelihoods of a batch of long prompts are a few megabytes."""
LONGEST_LINE = 1 << 20
LONGEST_PAUSE = 30.0
TO_CONNECT = 10.0
"""Seconds; after it an answer may take its time."""
SHOWN = 200
"""Characters of a server's own message within an error."""
AGAIN = (408, 425, 429, 500, 502, 503, 504)
"""Statuses a second try may not meet."""


class Refused(Exception):
    """The server understood and said no: it will say so again."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"status {status}: {message}")
        self.status = status


class Wire:
    """Connections to one server, kept open between requests; several threads may ask at once."""

    def __init__(self, root: str, key: str = "", timeout: float = 600.0, tries: int = 4, pause: float = 1.0) -> None:
        parts = read_address(root)
        self.root = root
        self._parts, self._timeout, self._tries, self._pause = parts, timeout, tries, pause
        self._headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        self._idle: list[http.client.HTTPConnection] = []
        weakref.finalize(self, close_all, self._idle)

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """What the server answers to a GET, or to a POST of `body`; Refused or EnvironmentFault where it does not."""
        fault = ""
        for attempt in range(self._tries):
            if attempt:
                time.sleep(min(self._pause * 2 ** (attempt - 1), LONGEST_PAUSE))
            try:
                status, raw = self._send(path, body)
            except (OSError, http.client.HTTPException) as error:
                fault = "timed out" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
                continue
            if status == 200:
                return read(raw, self.root + path)
            if status not in AGAIN:
                raise Refused(status, message_of(raw))
            fault = f"status {status}: {message_of(raw)}"
        raise EnvironmentFault(
            f"the endpoint gave no answer in {self._tries} tries (last: {fault})",
            where=self.root + path,
            todo="start it and run the same command again",
        )

    def stream(self, path: str, body: dict[str, Any]) -> "Stream":
        """The same for an answer that comes in lines; asked once, when the first line is."""
        return Stream(self, path, body)

    def post(self, connection: http.client.HTTPConnection, path: str, body: dict[str, Any]) -> http.client.HTTPResponse:
        place = self._parts.path.rstrip("/") + path
        connection.request("POST", place, json.dumps(body).encode(), self._headers)
        return connection.getresponse()

    def _send(self, path: str, body: dict[str, Any] | None) -> tuple[int, bytes]:
        """The whole answer within the time, so that a server that drips cannot hold us."""
        deadline = time.monotonic() + self._timeout
        data = None if body is None else json.dumps(body).encode()
        method, place = "GET" if data is None else "POST", self._parts.path.rstrip("/") + path
        connection = self._connection()
        try:
            connection.request(method, place, data, self._headers)
            response = connection.getresponse()
            raw = read_within(response, deadline)
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)
        return response.status, raw

    def _connection(self) -> http.client.HTTPConnection:
        """One that is at rest, or a new one."""
        try:
            return self._idle.pop()
        except IndexError:
            return self.connect()

    def connect(self) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(str(self._parts.hostname), self._parts.port, timeout=TO_CONNECT)
        connection.connect()
        connection.timeout = self._timeout
        connection.sock.settimeout(self._timeout)
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection


class Stream:
    """An answer line by line, on a connection of its own; `close`, by any thread, ends it."""

    def __init__(self, wire: Wire, path: str, body: dict[str, Any]) -> None:
        self._wire, self._path, self._body = wire, path, body
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._closed = False

    def lines(self) -> Generator[bytes]:
        with closing(self._wire.connect()) as connection:
            with self._lock:
                self._socket = connection.sock
            if self._closed:
                return
            with self._wire.post(connection, self._path, self._body) as response:
                if response.status != 200:
                    raise Refused(response.status, message_of(response.read(SHOWN)))
                while not self._closed and (line := response.readline(LONGEST_LINE)):
                    if line := line.strip():
                        yield line

    def close(self) -> None:
        with self._lock, suppress(OSError):
            self._closed = True
            if self._socket:
                self._socket.shutdown(socket.SHUT_RDWR)


def close_all(connections: list[http.client.HTTPConnection]) -> None:
    while connections:
        connections.pop().close()


def read_within(response: http.client.HTTPResponse, deadline: float) -> bytes:
    pieces, size = [], 0
    while piece := response.read1(1 << 16):
        pieces.append(piece)
        size += len(piece)
        if size > LONGEST_ANSWER:
            raise OSError(f"more than {LONGEST_ANSWER:,} bytes")
        if time.monotonic() > deadline:
            raise TimeoutError
    if response.length:
        raise OSError("the connection broke off")
    response.close()  # or the connection is not free for the next request
    return b"".join(pieces)


def read(raw: bytes, where: str) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        raise EnvironmentFault(
            f"the endpoint's answer is no JSON: {raw[:SHOWN].decode(errors='replace')!r}",
            where=where,
            todo="check the address",
        ) from None


def message_of(raw: bytes) -> str:
    """What a refusal says, in either dialect."""
    text = raw.decode(errors="replace")
    try:
        said = json.loads(text)
        error = said.get("error", said) if isinstance(said, dict) else said
        text = str(error.get("message", error) if isinstance(error, dict) else error)
    except (ValueError, RecursionError):
        pass
    return " ".join(text.split())[:SHOWN]
