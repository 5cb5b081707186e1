"""One process at a time in a folder; the system drops the lock when the process ends, however it ends."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medmind.core.errors import EnvironmentFault, UsageError
from medmind.core.rundir import LOCK, RunDir


@contextmanager
def locked(rundir: RunDir, todo: str = "wait, or use --out") -> Iterator[None]:
    with alone(rundir.root, "working in this run directory", todo):
        yield


@contextmanager
def alone(folder: Path, doing: str, todo: str) -> Iterator[None]:
    """`doing` is what another process that holds the folder is told to be doing."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOCK, "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip()
            what = f"another process{holder and f' ({holder})'} is {doing}"
            raise UsageError(what, where=str(folder), todo=todo) from None
        except OSError as error:
            what = f"this file system cannot lock a folder: {error.strerror}"
            raise EnvironmentFault(what, where=str(folder), todo="choose a local folder with --out") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def is_locked(rundir: RunDir) -> bool:
    """Whether a process is working there now; looking leaves no trace."""
    try:
        with open(rundir.lock, encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
