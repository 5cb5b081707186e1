"""Files and folders that appear under their name only when they are whole and on disk."""

import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from medmind.core.errors import EnvironmentFault


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yields a path to write a file or a folder at; it takes the place of `path` when the block ends well."""
    temporary, old = (path.with_name(f".{path.name}.{word}") for word in ("new", "old"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for leftover in path.parent.glob(f".{glob.escape(path.name)}.*"):
            remove(leftover)
        yield temporary
        for file in temporary.rglob("*") if temporary.is_dir() else [temporary]:
            if file.is_file():
                flush(file)
        if path.is_dir():
            path.rename(old)
        temporary.replace(path)
    except OSError as error:
        todo = "check the free space and the permissions"
        raise EnvironmentFault(f"cannot write: {error.strerror or error}", where=str(path), todo=todo) from error
    finally:
        remove(temporary)
        remove(old)


def flush(file: Path) -> None:
    with open(file, "rb") as handle:
        os.fsync(handle.fileno())


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        with suppress(FileNotFoundError, NotADirectoryError):
            path.unlink()
