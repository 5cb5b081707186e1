"""On a real terminal: Ctrl-C stops the answer, not the chat; the question counts as never asked, its line is kept."""

import os
import pty
import select
import sys
import time
from pathlib import Path

import pytest


def read_until(terminal: int, text: bytes, seconds: float = 60.0) -> bytes:
    seen, end = b"", time.monotonic() + seconds
    while text not in seen and time.monotonic() < end:
        if select.select([terminal], [], [], 0.2)[0]:
            seen += os.read(terminal, 65536)
    assert text in seen, seen.decode(errors="replace")
    return seen


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_ctrl_c_stops_the_answer_alone(tmp_path: Path) -> None:
    typed = tmp_path / "typed"
    words = ["-m", "medmind", "chat", "nano", "--history", str(typed), "--set", "evaluate.max_new_tokens=900"]
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, [sys.executable, *words])
    try:
        read_until(terminal, b"you: ")
        os.write(terminal, b"Tell me everything about the heart\n")
        read_until(terminal, b"base:")
        read_until(terminal, b"the")  # the answer has begun
        os.write(terminal, b"\x03")
        read_until(terminal, b"forgotten")
        os.write(terminal, b"/context\n")
        read_until(terminal, b"0 turns")
    finally:
        os.write(terminal, b"/quit\n")
        assert os.waitpid(child, 0)[1] == 0
        os.close(terminal)
    assert typed.read_text().splitlines() == ["Tell me everything about the heart", "/context", "/quit"]
