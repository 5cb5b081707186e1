"""The key of a server that others can reach: at rest only its hash, compared in constant time."""

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterable
from pathlib import Path

from medmind.core.errors import DataError, UsageError
from medmind.core.log import say

VARIABLE = "MEDMIND_API_KEY"
SHORTEST = 16
FORM = re.compile(r"sha256:([0-9a-f]{64})")


def digest_of(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def find_key(key_file: str) -> bytes | None:
    """The digest of the key to demand, or None where there is none; it does not stay in the environment."""
    key = os.environ.pop(VARIABLE, "")
    if key and key_file:
        raise UsageError(f"two keys: {VARIABLE} and serve.key_file", todo="give one of them")
    if key:
        if len(key) < SHORTEST:
            raise UsageError(f"{VARIABLE} has fewer than {SHORTEST} characters", todo="choose a longer key")
        if not key.isascii() or not key.isprintable() or key != key.strip():
            raise UsageError(f"no header can carry the key in {VARIABLE}", todo="letters, digits, - and _ can")
        return digest_of(key)
    return read_key(Path(key_file)) if key_file else None


def read_key(file: Path) -> bytes:
    if not file.exists():
        make_key(file)
    found = FORM.fullmatch(file.read_text(encoding="utf-8", errors="replace").strip())
    if not found:
        todo = "remove the file, and a new key is made and shown once"
        raise DataError("not the hash of a key (sha256: and 64 hex digits)", where=str(file), todo=todo)
    return bytes.fromhex(found[1])


def make_key(file: Path) -> None:
    """Shown this once; the file, its owner's alone, holds only the hash."""
    key = secrets.token_urlsafe(32)
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as out:
        out.write(f"sha256:{digest_of(key).hex()}\n")
    say(f"a new key, shown only now: {key}")


def is_right(digest: bytes, offered: Iterable[str]) -> bool:
    """Every offer is compared, none sooner than another."""
    return sum(hmac.compare_digest(digest, digest_of(key)) for key in offered) > 0
