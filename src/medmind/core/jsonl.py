"""JSON lines and JSON, read strictly and written atomically; only a newline ends a line (U+2028 does not)."""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from medmind.core.errors import DataError, EnvironmentFault


@contextmanager
def atomic(path: Path, mode: str = "w", durable: bool = True) -> Iterator[IO[Any]]:
    """A file that appears under its name only when it is whole and on disk.

    Not durable: it outlives its process, not the machine; for what is written again and again.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    encoding = None if "b" in mode else "utf-8"
    newline = None if "b" in mode else "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, mode, encoding=encoding, newline=newline) as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        todo = "check the path, its permissions and the free space"
        raise EnvironmentFault(f"cannot write: {error.strerror}", where=str(path), todo=todo) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_text(path: Path, text: str) -> None:
    with atomic(path) as file:
        file.write(text)


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError("no such file", where=str(path)) from None
    except UnicodeDecodeError as error:
        raise DataError("not UTF-8", where=f"{path}, byte {error.start}", todo="save it as UTF-8") from None
    except json.JSONDecodeError as error:
        raise DataError(f"not JSON: {error.msg}", where=f"{path}, line {error.lineno}") from None
    except (ValueError, RecursionError):
        raise DataError("not JSON that can be read: a number too long, or nested too deep", where=str(path)) from None


def write_jsonl(path: Path, rows: Iterable[Any], durable: bool = True) -> int:
    """Writes dictionaries or records, one a line; returns how many."""
    count = 0
    with atomic(path, durable=durable) as file:
        for row in rows:
            line = row.model_dump_json() if hasattr(row, "model_dump_json") else json.dumps(row, ensure_ascii=False)
            file.write(line + "\n")
            count += 1
    return count


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(line number from 1, text) of a UTF-8 file without a byte-order mark; blank lines are passed over."""
    try:
        with open(path, "rb") as file:
            for number, raw in enumerate(file, start=1):
                try:
                    line = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip("\r\n")
                except UnicodeDecodeError as error:
                    where = f"{path}, line {number}, byte {error.start}"
                    raise DataError("not UTF-8", where=where, todo="save the file as UTF-8") from None
                if line.strip():
                    yield number, line
    except FileNotFoundError:
        raise DataError("no such file", where=str(path)) from None


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSONL file that medmind wrote itself; any fault is an error with its line."""
    for number, line in read_lines(path):
        try:
            yield json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"not JSON: {error.msg}", where=f"{path}, line {number}") from None
