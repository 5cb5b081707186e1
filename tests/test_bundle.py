"""A bundle: what is in it, that nothing in it can change unseen, and that a hostile one does no harm."""

import json
import os
import random
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dying import killed, without_room
from gguf import GGUFWriter

from medmind.cli.main import main
from medmind.core.errors import EnvironmentFault, GateError, UsageError
from medmind.core.jsonl import write_json, write_text
from medmind.core.rundir import RunDir, sha256_value
from medmind.export import bundle
from medmind.export.bundle import Bundle, make_bundle, unpack, verify


def write_gguf(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = GGUFWriter(path, "llama")
    writer.add_array("tokenizer.ggml.tokens", ["a", "b", "é"])
    writer.add_array("tokenizer.ggml.scores", [0.5, 1.5])
    for name in ("output.weight", "token_embd.weight"):
        writer.add_tensor(name, np.ones((2, 32), np.float16))
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    rundir = RunDir(tmp_path / "run")
    write_gguf(rundir.gguf("f16"))
    for path in (rundir.manifest, rundir.licences, rundir.parity, rundir.scores("terms", "tuned")):
        write_json(path, {"of": path.name})
    for path in (
        rundir.recipe,
        rundir.card,
        rundir.modelfile,
        rundir.split("train"),
        rundir.predictions("terms", "base"),
    ):
        write_text(path, f"{path.name}\n")
    return rundir


@pytest.fixture
def packed(run: RunDir) -> Path:
    make_bundle(run, [run.gguf("f16")], "mine", run.bundle)
    return run.bundle


def test_it_holds_what_tells_of_the_model_and_no_row(packed: Path) -> None:
    found = verify(packed)
    assert set(found.members) == {
        *("recipe.yaml", "manifest.json", "data/licences.json", "evaluate/terms/tuned/scores.json"),
        *("export/README.md", "export/Modelfile", "export/parity.json", "export/model-f16.gguf"),
    }
    with tarfile.open(packed) as tar:
        assert tar.getnames() == ["bundle.json", *sorted(found.members)], "any tar reads it"
        assert {member.mtime for member in tar} == {0}


def test_the_same_run_makes_the_same_bytes(run: RunDir, packed: Path) -> None:
    before = packed.read_bytes()
    os.utime(run.card, (1, 1))
    make_bundle(run, [run.gguf("f16")], "mine", packed)
    assert packed.read_bytes() == before
    write_text(run.card, "another\n")
    assert make_bundle(run, [run.gguf("f16")], "mine", packed) == verify(packed).index["sha256"]
    assert packed.read_bytes() != before


def test_every_flipped_bit_is_found(packed: Path) -> None:
    whole = packed.read_bytes()
    picked = random.Random(1)
    first_blocks = [place * 8 for place in range(512)]
    for bit in (*first_blocks, *(picked.randrange(len(whole) * 8) for _ in range(700))):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        packed.write_bytes(damaged)
        with pytest.raises(GateError):
            verify(packed)
    for end in (0, 1, 511, 512, len(whole) // 2, len(whole) - 512, len(whole) - 1):
        packed.write_bytes(whole[:end])
        with pytest.raises(GateError):
            verify(packed)
    packed.write_bytes(whole + bytes(512))
    with pytest.raises(GateError, match="behind the last file"):
        verify(packed)


def test_an_unpacked_one_is_verified_too(packed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    unpack(verify(packed), out)
    assert verify(out).index == verify(packed).index
    assert (out / "export" / "model-f16.gguf").read_bytes() == (tmp_path / "run/export/model-f16.gguf").read_bytes()
    changes: dict[str, Callable[[Path], object]] = {
        "export/README.md: changed": lambda at: (at / "export/README.md").write_text("better\n"),
        "recipe.yaml: missing": lambda at: (at / "recipe.yaml").unlink(),
        "data/more.json: not of this bundle": lambda at: (at / "data/more.json").write_text("{}"),
        "has no bundle.json": lambda at: (at / "bundle.json").unlink(),
        "bundle.json is not as it was made": lambda at: (at / "bundle.json").write_text("{}"),
        "neither a file nor a folder": lambda at: (at / "data/link").symlink_to("/etc/passwd"),
    }
    for words, change in changes.items():
        shutil.rmtree(tmp_path / "copy", ignore_errors=True)
        shutil.copytree(out, tmp_path / "copy")
        change(tmp_path / "copy")
        with pytest.raises(GateError, match=words):
            verify(tmp_path / "copy")


def pack_by_hand(path: Path, files: dict[str, bytes], more: tuple[tarfile.TarInfo, ...] = ()) -> None:
    """What an attacker would do who knows the format: sound hashes, and whatever else a tar can say."""
    said = {name: {"size": len(raw), "sha256": bundle.hashlib.sha256(raw).hexdigest()} for name, raw in files.items()}
    index: dict[str, Any] = {"schema_version": 1, "name": "x", "files": said}
    raw = bundle.dump_index(index | {"sha256": sha256_value(index)})
    with open(path, "wb") as file:
        for name, body in {"bundle.json": raw, **files}.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(body), 0o644
            file.write(info.tobuf(tarfile.GNU_FORMAT) + body + bytes(-len(body) % 512))
        for info in more:
            file.write(info.tobuf(tarfile.PAX_FORMAT))
        file.write(bytes(1024))


def special(kind: bytes, name: str = "x", size: int = 0, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname, info.mode = kind, size, target, 0o644
    return info


@pytest.mark.parametrize(
    "name", ["../up", "a/../../up", "/etc/cron.d/x", "a//b", "./a", "a\\b", "C:x", "a/", "..", "new\nline", "x" * 101]
)
def test_no_name_leads_outside(name: str, tmp_path: Path) -> None:
    pack_by_hand(tmp_path / "b.tar", {name: b"x"})
    with pytest.raises(GateError):
        verify(tmp_path / "b.tar")
    assert not bundle.is_safe(name)


@pytest.mark.parametrize(
    "info",
    [
        special(tarfile.SYMTYPE, target="/etc/passwd"),
        special(tarfile.LNKTYPE, target="recipe.yaml"),
        special(tarfile.DIRTYPE),
        special(tarfile.CHRTYPE),
        special(tarfile.FIFOTYPE),
        special(tarfile.GNUTYPE_SPARSE, size=1 << 40),
        special(tarfile.XHDTYPE, size=1 << 33),
        special(tarfile.GNUTYPE_LONGNAME, size=1 << 33),
        special(tarfile.REGTYPE, size=1 << 40),
        special(tarfile.REGTYPE, name="recipe.yaml"),
    ],
    ids=["symlink", "link", "folder", "device", "pipe", "sparse", "pax", "long name", "terabyte", "twice"],
)
def test_nothing_but_small_plain_files(info: tarfile.TarInfo, tmp_path: Path) -> None:
    pack_by_hand(tmp_path / "b.tar", {"recipe.yaml": b"x"})
    verify(tmp_path / "b.tar")
    pack_by_hand(tmp_path / "b.tar", {"recipe.yaml": b"x"}, (info,))
    with pytest.raises(GateError):
        verify(tmp_path / "b.tar")


def test_too_many_files_and_a_broken_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack_by_hand(tmp_path / "b.tar", {f"f{n}": b"" for n in range(12)})
    assert len(Bundle(tmp_path / "b.tar").members) == 12
    monkeypatch.setattr(bundle, "MOST_FILES", 10)
    with pytest.raises(GateError, match="too many"):
        verify(tmp_path / "b.tar")
    for text in (b"[]", b"{}", b'{"files": {"a": 1}}', b"[" * 100_000, b"\xff", b'{"files": [], "sha256": ""}'):
        with pytest.raises(GateError, match="not as it was made"):
            bundle.read_index(text, "b.tar")


def test_a_gguf_that_lies_is_no_part_of_a_bundle(run: RunDir, tmp_path: Path) -> None:
    raw = run.gguf("f16").read_bytes()
    pack_by_hand(tmp_path / "b.tar", {"export/m.gguf": raw})
    verify(tmp_path / "b.tar")
    pack_by_hand(tmp_path / "b.tar", {"export/m.gguf": raw[:8] + b"\xff" * 8 + raw[16:]})
    with pytest.raises(GateError, match="not a whole GGUF"):
        verify(tmp_path / "b.tar")


def test_unpacking_is_whole_or_not_at_all(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, out = verify(packed), tmp_path / "out"
    raw = bytearray(packed.read_bytes())
    raw[raw.index(b"Modelfile\n")] = 0
    packed.write_bytes(raw)
    with pytest.raises(GateError, match="changed while"):
        unpack(opened, out)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    with pytest.raises(UsageError, match="exists already"):
        unpack(opened, tmp_path / "run")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 0))
    with pytest.raises(EnvironmentFault, match="no space"):
        unpack(opened, out)


def test_the_door(packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "verify", str(packed), "--out", str(tmp_path / "out"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "mine"
    assert main(["export", "verify", str(tmp_path / "out")]) == 0
    (tmp_path / "out" / "recipe.yaml").write_text("changed")
    assert main(["export", "verify", str(tmp_path / "out")]) == 1
    assert "error: not as it was made: recipe.yaml: changed" in capsys.readouterr().err
    assert main(["export", "verify", str(tmp_path / "none")]) == 2
    assert main(["export", "verify", str(packed), "--bundle"]) == 2
    assert main(["export", str(packed), "--dry-run"]) == 2


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_killed_while_packing_or_unpacking(run: RunDir, packed: Path, tmp_path: Path) -> None:
    before, out = packed.read_bytes(), tmp_path / "out"
    write_text(run.card, "another\n")
    killed(lambda: make_bundle(run, [run.gguf("f16")], "mine", packed), bundle, "add", 4)
    assert packed.read_bytes() == before, "the old one stays"
    make_bundle(run, [run.gguf("f16")], "mine", packed)
    assert verify(packed) and [path.name for path in run.root.glob(".bundle*")] == []
    killed(lambda: unpack(verify(packed), out), bundle, "atomic", 3)
    assert not out.exists()
    unpack(verify(packed), out)
    assert verify(out).index == verify(packed).index
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "run"]


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_no_room_to_pack_or_unpack(run: RunDir, packed: Path, tmp_path: Path) -> None:
    before = packed.read_bytes()
    write_text(run.card, "x" * 20_000)
    assert without_room(lambda: make_bundle(run, [run.gguf("f16")], "mine", packed), 10_000) == 3
    assert packed.read_bytes() == before
    make_bundle(run, [run.gguf("f16")], "mine", packed)
    assert without_room(lambda: unpack(verify(packed), tmp_path / "out"), 10_000) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_file_that_changes_while_it_is_packed(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    before = bundle.sha256_file
    monkeypatch.setattr(bundle, "sha256_file", lambda path: before(path)[::-1])
    with pytest.raises(bundle.DataError, match="changed while"):
        make_bundle(run, [run.gguf("f16")], "mine", run.bundle)
    assert not run.bundle.exists()
