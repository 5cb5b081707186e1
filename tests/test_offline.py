"""Nothing leaves the machine: with every connection forbidden, every engine imports and the Hub stays shut."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from medmind.core import offline

DENY = """
import socket, sys
def deny(*words, **settings):
    print("CONNECT", words, file=sys.stderr)
    raise SystemExit(9)
socket.socket.connect = socket.socket.connect_ex = socket.create_connection = socket.getaddrinfo = deny
{quiet}
import torch, transformers, peft, huggingface_hub
{more}
print("quiet")
"""


KERNELS = """
def get_kernel(*words, **settings):
    import socket
    socket.create_connection(("hub", 443))
has_kernel = get_kernel
"""
"""Stands for the package of that name, which asks the Hub for compiled code."""


def run_denied(tmp_path: Path, quiet: str, more: str = "") -> subprocess.CompletedProcess[str]:
    (tmp_path / "kernels.py").write_text(KERNELS)
    clean = {name: value for name, value in os.environ.items() if name not in offline.OFFLINE}
    code = DENY.format(quiet=quiet, more=more)
    environment = clean | {"PYTHONPATH": str(tmp_path)}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)


def test_importing_every_engine_connects_to_nothing_even_when_the_hub_is_allowed(tmp_path: Path) -> None:
    """bitsandbytes on a CPU asks the Hub for kernels as soon as the package of that name is there."""
    quiet = "from medmind.core.offline import keep_quiet; keep_quiet(allow_hub=True)"
    done = run_denied(
        tmp_path, quiet, "import bitsandbytes, medmind.train.engine, medmind.infer.open, medmind.export.run"
    )
    assert (done.returncode, done.stdout.strip()) == (0, "quiet"), done.stderr


def test_without_our_setting_bitsandbytes_would_have_connected(tmp_path: Path) -> None:
    done = run_denied(tmp_path, "", "import bitsandbytes")
    assert "CONNECT" in done.stderr


def test_the_hub_opens_only_when_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in offline.OFFLINE:
        monkeypatch.delenv(name, raising=False)
    offline.set_here.clear()
    offline.keep_quiet(allow_hub=False)
    assert all(os.environ[name] == "1" for name in offline.OFFLINE)
    offline.keep_quiet(allow_hub=True)
    assert not any(name in os.environ for name in offline.OFFLINE)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    offline.keep_quiet(allow_hub=True)
    assert os.environ["HF_HUB_OFFLINE"] == "1", "what the user set stays"


def test_only_one_place_touches_these_settings() -> None:
    source = Path(offline.__file__).parent.parent
    named = [path.name for path in source.rglob("*.py") if "HF_HUB_OFFLINE" in path.read_text(encoding="utf-8")]
    assert named == ["offline.py"]
