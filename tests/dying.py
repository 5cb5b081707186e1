"""Work done in a forked process that is killed at a chosen call, or has no room: what tests of half-done work share."""

import os
import resource
import signal
import traceback
from collections.abc import Callable
from typing import Any

import torch

from medmind.core.errors import MedmindError

ENDED_BADLY = 99


def in_child(work: Callable[[], object], before: Callable[[], None]) -> int:
    """The exit code: that of our error if one was raised; negative, the signal it died of."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code = ENDED_BADLY
    try:
        torch.set_num_threads(1)  # those of this process are not there after a fork
        before()
        work()
        code = 0
    except MedmindError as error:
        code = error.exit_code if error.todo else ENDED_BADLY
    except BaseException:
        traceback.print_exc()
    os._exit(code)


def killed(work: Callable[[], object], holder: Any, name: str, call: int = 1) -> None:
    """Does `work` up to the given call of `holder.name`, which is the end of it."""
    calls = 0

    def before() -> None:
        real = getattr(holder, name)

        def count(*words: Any, **more: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*words, **more)

        setattr(holder, name, count)

    assert in_child(work, before) == -signal.SIGKILL


def without_room(work: Callable[[], object], size: int) -> int:
    """Its exit code where no file may grow beyond `size` bytes, which ends a write as a full disk does."""
    return in_child(work, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)))
