"""Killed midway, or out of room: nothing half under a final name, and the next call ends as an undisturbed one."""

import errno
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dying import killed, without_room

from medmind.cli.main import main
from medmind.core.errors import EnvironmentFault, UsageError
from medmind.export import gguf, lora, merge, quantise, whole
from medmind.export.adapter_gguf import write_adapter
from medmind.export.metadata import Facts
from medmind.models.catalog import describe_folder

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
FACTS = Facts("tiny", "MIT", "nano", "")


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def merged(wide_model: Path, wide_adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "merged"
    merge.merge(describe_folder(wide_model), wide_adapter, folder)
    return folder


@pytest.mark.parametrize("target", ["none", "another"])
@pytest.mark.parametrize(
    ("holder", "name", "call"),
    [(lora, "is_finite", 3), (merge, "write_tokenizer", 1), (whole, "flush", 2)],
)
def test_a_killed_merge(
    holder: Any, name: str, call: int, target: str, merged: Path, wide_model: Path, wide_adapter: Path, tmp_path: Path
) -> None:
    out = tmp_path / "export" / "merged"

    def work() -> None:
        merge.merge(describe_folder(wide_model), wide_adapter, out)

    if target == "another":
        out.mkdir(parents=True)
        (out / "config.json").write_text("{}")
    killed(work, holder, name, call)
    assert files(out) == {"config.json": b"{}"} if target == "another" else not out.exists()
    work()
    assert files(out) == files(merged)
    assert [path.name for path in out.parent.iterdir()] == ["merged"]


@pytest.mark.parametrize(("holder", "name", "call"), [(Path, "rename", 1), (Path, "replace", 1), (whole, "clear", 2)])
def test_a_kill_between_two_names(holder: Any, name: str, call: int, tmp_path: Path) -> None:
    """A folder cannot take the place of another in one step: for a moment there is none, and the next writer begins by
    putting the old one back.
    """
    place = tmp_path / "folder"

    def work(text: str = "new") -> None:
        with whole.whole(place) as temporary:
            temporary.mkdir()
            (temporary / "file").write_text(text)

    work("old")
    killed(work, holder, name, call)
    assert files(place) == ({} if name == "replace" else {"file": b"new" if name == "clear" else b"old"})
    with pytest.raises(ValueError, match="no more"), whole.whole(place):
        raise ValueError("no more")
    assert files(tmp_path) == {"folder/file": b"new" if name == "clear" else b"old"}
    work()
    assert files(tmp_path) == {"folder/file": b"new"}


def test_a_swap_that_fails_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Path, target: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    place = tmp_path / "folder"
    place.mkdir()
    (place / "file").write_text("old")
    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(EnvironmentFault, match="cannot write: Input/output error"), whole.whole(place) as temporary:
        temporary.mkdir()
    assert files(tmp_path) == {"folder/file": b"old"}


def test_what_another_process_is_writing_stays_until_it_is_killed(tmp_path: Path) -> None:
    place, half = tmp_path / "model.gguf", tmp_path / ".model.gguf.new" / "new"
    pid = os.fork()
    if not pid:
        try:
            with whole.whole(place) as temporary:
                temporary.write_text("half")
                signal.pause()
        finally:
            os._exit(1)
    try:
        while not (half.exists() and half.read_text()):
            assert not any(os.waitpid(pid, os.WNOHANG))
            time.sleep(0.01)
        with pytest.raises(UsageError, match=rf"another process \({pid}\) is writing the same"), whole.whole(place):
            pass
        whole.sweep(tmp_path)
        assert half.read_text() == "half"
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    (tmp_path / ".a file.new").write_text("no folder of ours")
    whole.sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".a file.new"]


@pytest.mark.parametrize(
    ("kind", "holder", "name", "call"),
    [
        ("f16", gguf, "encode", 7),
        ("f16", gguf, "verify", 1),
        ("f16", Path, "replace", 1),
        ("q8_0", gguf, "encode", 1),
        ("q4_k_m", quantise, "write_alone", 3),
        ("q4_k_m", quantise, "load_library", 3),
    ],
)
def test_a_killed_conversion(kind: str, holder: Any, name: str, call: int, merged: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "export" / f"model-{kind}.gguf", tmp_path / "undisturbed.gguf"
    gguf.write(merged, other, kind, FACTS)
    for old in (None, b"an older one"):
        if old:
            out.write_bytes(old)
        killed(lambda: gguf.write(merged, out, kind, FACTS), holder, name, call)
        assert (out.read_bytes() if out.exists() else None) == old
        gguf.write(merged, out, kind, FACTS)
        assert out.read_bytes() == other.read_bytes()
        assert [path.name for path in out.parent.iterdir()] == [out.name]


@pytest.mark.parametrize("kind", ["f16", "q8_0", "q4_k_m", "merged"])
def test_no_room(kind: str, merged: Path, wide_model: Path, wide_adapter: Path, tmp_path: Path) -> None:
    def work() -> None:
        if kind == "merged":
            merge.merge(describe_folder(wide_model), wide_adapter, tmp_path / "merged")
        else:
            gguf.write(merged, tmp_path / "model.gguf", kind, FACTS)

    assert without_room(work, 100_000) == EnvironmentFault.exit_code
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["f16", "merged", "adapter"])
@pytest.mark.parametrize("why", ["Read-only file system", "Not a directory"])
def test_a_target_that_cannot_be_written(
    why: str, kind: str, merged: Path, wide_model: Path, wide_adapter: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """chmod does not stop root: a folder whose file system refuses new ones, and a file in the folder's place."""
    folder, spec = tmp_path / "export", describe_folder(wide_model)
    if why == "Not a directory":
        folder.write_text("a file")
    else:
        folder.mkdir()
        (folder / "of before").write_text("whole")
        monkeypatch.setattr(os, "mkdir", refuse(os.mkdir))
    before, out = files(tmp_path), folder / kind
    write = {
        "f16": lambda: gguf.write(merged, out, "f16", FACTS),
        "merged": lambda: merge.merge(spec, wide_adapter, out),
        "adapter": lambda: write_adapter(spec, wide_adapter, out, FACTS),
    }[kind]
    with pytest.raises(EnvironmentFault, match=f"cannot write: {why}") as caught:
        write()
    assert (caught.value.where, caught.value.exit_code) == (str(out), 3) and "permissions" in caught.value.todo
    assert files(tmp_path) == before


def refuse(mkdir: Callable[..., None]) -> Callable[..., None]:
    """What a read-only file system answers: of a folder that is there, that it is there."""

    def made(path: Any, *words: Any, **more: Any) -> None:
        if not Path(path).is_dir():
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        mkdir(path, *words, **more)

    return made


def test_the_command_on_a_read_only_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "mkdir", refuse(os.mkdir))
    assert main(["export", "demo", "--out", str(tmp_path / "run")]) == 3
    told = "cannot be used: Read-only file system, {}, check the path and its permissions"
    assert told.format(tmp_path / "run") in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_only_its_own_leftovers_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".m[1].new").mkdir()
    (tmp_path / ".m1.new").mkdir()
    with whole.whole(tmp_path / "m[1]") as folder:
        folder.mkdir()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".m1.new", "m[1]"]
