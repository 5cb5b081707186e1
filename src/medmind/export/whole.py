"""Files and folders that appear under their name only when they are whole and on disk.

Until then they lie in a hidden folder beside their place, `.NAME.new`. Its writer holds a lock: where none does, the
writer was killed, and what it left is cleared away.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from medmind.core.errors import EnvironmentFault, UsageError
from medmind.core.lock import alone
from medmind.core.log import say
from medmind.core.rundir import LOCK

SUFFIX = ".new"


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yields a path to write a file or a folder at; it takes the place of `path` when the block ends well."""
    try:
        with working(path.with_name(f".{path.name}{SUFFIX}")) as folder:
            temporary = folder / "new"
            yield temporary
            for file in temporary.rglob("*") if temporary.is_dir() else [temporary]:
                if file.is_file():
                    flush(file)
            if path.is_dir():
                path.rename(folder / "old")
            temporary.replace(path)
    except OSError as error:
        todo = "check the path, its permissions and the free space"
        raise EnvironmentFault(f"cannot write: {error.strerror or error}", where=str(path), todo=todo) from error


@contextmanager
def working(folder: Path) -> Iterator[Path]:
    """Empty, this process's alone while the block lasts, and gone after it."""
    with alone(folder, "writing the same", "wait for it"):
        try:
            clear(folder)
            yield folder
        finally:
            clear(folder)
            shutil.rmtree(folder)


def clear(folder: Path) -> None:
    """A folder that was moved aside, and for which nothing came yet, goes back to its place."""
    place, old = folder.with_name(folder.name[1 : -len(SUFFIX)]), folder / "old"
    if old.exists() and not place.exists():
        old.rename(place)
        say(f"{place}: put back as it was before it was to be replaced")
    for left in folder.iterdir():
        if left.is_dir():
            shutil.rmtree(left)
        elif left.name != LOCK:
            left.unlink()


def sweep(folder: Path) -> None:
    """Clears away what killed writers left here, whatever they wrote; what is being written stays."""
    for left in folder.glob(f".*{SUFFIX}"):
        with suppress(UsageError, FileExistsError), working(left):
            pass


def flush(file: Path) -> None:
    with open(file, "rb") as handle:
        os.fsync(handle.fileno())
