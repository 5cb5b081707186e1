"""Killed midway, or out of room: nothing half under a final name, and the next call ends as an undisturbed one."""

from pathlib import Path
from typing import Any

import pytest
from dying import killed, without_room

from medmind.core.errors import EnvironmentFault
from medmind.export import gguf, lora, merge, quantise, whole
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


@pytest.mark.parametrize(("holder", "name"), [(Path, "rename"), (Path, "replace"), (whole, "remove")])
def test_a_kill_between_two_names(holder: Any, name: str, tmp_path: Path) -> None:
    """A folder cannot take the place of another in one step: there may be none for a moment, never half a one."""
    place = tmp_path / "folder"

    def work(text: str = "new") -> None:
        with whole.whole(place) as temporary:
            temporary.mkdir()
            (temporary / "file").write_text(text)

    work("old")
    killed(work, holder, name)
    assert files(place) in ({"file": b"old"}, {}, {"file": b"new"})
    work()
    assert files(tmp_path) == {"folder/file": b"new"}


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


def test_only_its_own_leftovers_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".m[1].new").mkdir()
    (tmp_path / ".m1.new").mkdir()
    with whole.whole(tmp_path / "m[1]") as folder:
        folder.mkdir()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".m1.new", "m[1]"]
