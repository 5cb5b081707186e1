"""Nothing leaves the machine: with every connection forbidden, all libraries import and a model trains."""

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
from medmind.core.offline import keep_quiet
keep_quiet(allow_hub={allow})
import torch, transformers, peft, datasets, huggingface_hub
{more}
print("quiet")
"""


def run_denied(allow: bool, more: str = "") -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name not in offline.OFFLINE}
    code = DENY.format(allow=allow, more=more)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=clean)


@pytest.mark.parametrize("allow", [False, True])
def test_imports_connect_to_nothing_even_when_the_hub_is_allowed(allow: bool) -> None:
    """bitsandbytes on a CPU asks the hub for kernels when the package of that name is installed, as it is here."""
    done = run_denied(allow, "import bitsandbytes")
    assert (done.returncode, done.stdout.strip()) == (0, "quiet"), done.stderr


def test_the_denial_itself_works() -> None:
    done = run_denied(True, "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9')")
    assert done.returncode == 9
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
