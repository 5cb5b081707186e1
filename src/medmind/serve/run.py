"""Listens, until it is told to stop."""

import logging
import socket
import sys

import uvicorn
from starlette.types import ASGIApp

from medmind.core.address import is_loopback
from medmind.core.errors import EnvironmentFault, UsageError
from medmind.core.log import say
from medmind.privacy.logs import install
from medmind.serve.app import create_app
from medmind.serve.config import ServeConfig
from medmind.serve.connection import Connection
from medmind.serve.keys import VARIABLE, find_key
from medmind.serve.served import Index

SWITCH = 5e-4
"""Seconds the engine's thread waits for the interpreter while answers are sent; Python's own 5 ms cost every step."""


def demand_key(config: ServeConfig) -> bytes | None:
    """The digest of the key; without one nobody but this machine is served. Asked before a model is loaded."""
    digest = find_key(config.key_file)
    if digest is None and not is_loopback(config.host):
        raise UsageError(
            f"others can reach {config.host}, and there is no key",
            where="serve.host",
            todo=f"set serve.key_file or {VARIABLE}, or keep to 127.0.0.1",
        )
    return digest


def open_door(config: ServeConfig) -> socket.socket:
    """Where clients will knock; taken before a model is loaded, so that a port in use is told at once."""
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    try:
        return socket.create_server((config.host, config.port), family=family, backlog=2048)
    except OSError as error:
        raise EnvironmentFault(
            f"cannot listen: {error.strerror}", where=f"{config.host}:{config.port}", todo="--port N takes another"
        ) from None


def serve(index: Index, config: ServeConfig, digest: bytes | None, door: socket.socket) -> None:
    install()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    server(create_app(index, config, digest), config).run(sockets=[door])


def server(app: ASGIApp, config: ServeConfig) -> uvicorn.Server:
    """Nothing is logged by uvicorn itself: its access lines hold paths and addresses."""
    sys.setswitchinterval(SWITCH)
    host = f"[{config.host}]" if ":" in config.host else config.host
    say(f"serving at http://{host}:{config.port} (Ctrl-C stops)")
    settings = uvicorn.Config(
        app,
        host=config.host,
        port=config.port,
        access_log=False,
        log_config=None,
        http=Connection,
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=1 << 16,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=10,
        ws="none",
    )
    return uvicorn.Server(settings)
