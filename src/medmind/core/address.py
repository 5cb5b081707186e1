"""Addresses of servers a user names, and which of them are this machine's own."""

import ipaddress
import urllib.parse

from medmind.core.errors import UsageError
from medmind.core.log import say


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def read_address(url: str) -> urllib.parse.SplitResult:
    """The parts of an --endpoint; what would leave this machine in clear is said."""
    try:
        parts = urllib.parse.urlsplit(url)
        whole = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        whole = False
    if not whole:
        raise UsageError(f'--endpoint "{url}" is not an address', todo="such as http://127.0.0.1:11434")
    if "@" in parts.netloc:
        raise UsageError("an address with a name or password in it", where=str(parts.hostname), todo="leave it out")
    if parts.scheme == "http" and not is_loopback(str(parts.hostname)):
        say(f"what goes to {parts.hostname} is not encrypted: https, or a tunnel, keeps it private", style="yellow")
    return parts
