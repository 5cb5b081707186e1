"""A run in one file to hand on: what it made, how good it is and how it was made, each file with its hash.

The file is a plain tar of regular files in which no byte is free: names sorted, times and owners zero, nothing
compressed. Whoever reads it makes each header again from name and size and compares, so every flipped bit shows,
and a link, a device or a place outside the folder cannot be said.
"""

import glob
import hashlib
import io
import json
import re
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

from medmind.core.errors import DataError, EnvironmentFault, GateError, UsageError
from medmind.core.jsonl import atomic
from medmind.core.rundir import SCHEMA_VERSION, RunDir, sha256_file, sha256_value
from medmind.export.header import read_tensors

INDEX = "bundle.json"
NAME = re.compile(r"(?!.*(^|/)\.{1,2}(/|$))[\w.+-]+(/[\w.+-]+)*")
BLOCK, LONGEST_NAME, LARGEST_INDEX, MOST_FILES = 512, 100, 1 << 24, 10_000
PIECE = 1 << 20
AGAIN = "fetch or make it again; do not use it as it is"


@dataclass(frozen=True)
class Member:
    """A file of a bundle: where its bytes begin in the tar, or which file of the folder it is."""

    name: str
    size: int
    place: int | Path


class Bundle:
    """A tar or an unpacked folder, opened; what it holds is known and bounded before a byte of it is used."""

    def __init__(self, path: Path) -> None:
        self.path = path
        members = list_folder(path) if path.is_dir() else list_tar(path)
        if INDEX not in members:
            raise GateError(f"not a bundle: it has no {INDEX}", where=str(path), todo=AGAIN)
        index = members.pop(INDEX)
        if index.size > LARGEST_INDEX:
            raise GateError(f"{INDEX} has {index.size:,} bytes", where=str(path), todo=AGAIN)
        self.members = members
        self.index = read_index(b"".join(self.pieces(index)), str(path))

    def pieces(self, member: Member) -> Iterator[bytes]:
        with open(self.path if isinstance(member.place, int) else member.place, "rb") as file:
            file.seek(member.place if isinstance(member.place, int) else 0)
            yield from read_pieces(file, member.size, member.name)

    def faults(self) -> list[str]:
        """Missing, extra and changed files, in words; none when every byte is as it was."""
        expected: dict[str, Any] = self.index["files"]
        found = [f"{name}: missing" for name in expected if name not in self.members]
        found += [f"{name}: not of this bundle" for name in self.members if name not in expected]
        for name, member in self.members.items():
            if name in expected and not self.is_whole(member, expected[name]):
                found.append(f"{name}: changed")
        return found

    def is_whole(self, member: Member, expected: dict[str, Any]) -> bool:
        if member.size != expected["size"]:
            return False  # and nothing of it is read
        digest = hashlib.sha256()
        for piece in self.pieces(member):
            digest.update(piece)
        return digest.hexdigest() == str(expected["sha256"])


def make_bundle(rundir: RunDir, parts: Sequence[Path], name: str, out: Path) -> str:
    """Writes `out` with `parts` and all that tells of them; returns the sha256 that vouches for all of it."""
    files = {path.relative_to(rundir.root).as_posix(): path for path in (*parts, *companions(rundir, parts))}
    for one in files:
        if not is_safe(one):
            raise UsageError("a bundle cannot hold a file of this name", where=one, todo="rename the suite or folder")
    said: dict[str, dict[str, Any]] = {
        one: {"size": path.stat().st_size, "sha256": sha256_file(path)} for one, path in files.items()
    }
    index: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "name": name, "files": dict(sorted(said.items()))}
    raw = dump_index(index | {"sha256": sha256_value(index)})
    for leftover in out.parent.glob(f".{glob.escape(out.name)}.*.tmp"):
        with suppress(OSError):
            leftover.unlink()  # of a process that was killed
    with atomic(out, "wb") as file:
        add(file, INDEX, len(raw), io.BytesIO(raw))
        for one in sorted(files):
            with open(files[one], "rb") as source:
                if add(file, one, said[one]["size"], source) != said[one]["sha256"]:
                    raise DataError("it changed while it was read", where=str(files[one]), todo="run the command again")
        file.write(bytes(2 * BLOCK))
    return sha256_value(index)


def companions(rundir: RunDir, parts: Sequence[Path]) -> list[Path]:
    """Everything that tells how a model came about and how good it is; no row and no reply is among it."""
    told = [
        rundir.recipe,
        rundir.manifest,
        rundir.licences,
        rundir.plan,
        rundir.card,
        rundir.parity,
        rundir.merged_from,
    ]
    if any(path.suffix == ".gguf" for path in parts):
        told.append(rundir.modelfile)
    told += sorted(rundir.evaluate.glob("*/*/scores.json")) + sorted(rundir.evaluate.glob("*/comparison.json"))
    return [path for path in told if path.is_file()]


def verify(path: Path) -> Bundle:
    """Raises GateError, naming every file that is missing, extra or changed, and for a GGUF that is not sound."""
    bundle = Bundle(path)
    if found := bundle.faults():
        raise GateError(
            f"not as it was made: {'; '.join(found[:10])}{' …' * (len(found) > 10)}", where=str(path), todo=AGAIN
        )
    for member in bundle.members.values():
        if member.name.endswith(".gguf"):
            start = member.place if isinstance(member.place, int) else 0
            try:
                read_tensors(path if isinstance(member.place, int) else member.place, start, member.size)
            except DataError as error:
                raise GateError(error.what, where=f"{path}, {member.name}", todo=AGAIN) from None
    return bundle


def unpack(bundle: Bundle, out: Path) -> list[Path]:
    """Lays a verified bundle out as a folder that was not there; what is read now is held against the hashes again."""
    if out.exists():
        raise UsageError("it exists already", where=str(out), todo="name a folder that does not")
    size = sum(member.size for member in bundle.members.values())
    out.parent.mkdir(parents=True, exist_ok=True)
    if (free := shutil.disk_usage(out.parent).free) < size:
        todo = f"it needs {size / 1e6:,.0f} MB, {free / 1e6:,.0f} MB are free"
        raise EnvironmentFault("no space to unpack", where=str(out.parent), todo=todo)
    growing = out.with_name(f".{out.name}.unpacking")
    shutil.rmtree(growing, ignore_errors=True)
    with ExitStack() as undo:
        undo.callback(shutil.rmtree, growing, ignore_errors=True)
        for name, member in bundle.members.items():
            with atomic(growing / name, "wb") as file:
                for piece in bundle.pieces(member):
                    file.write(piece)
            if sha256_file(growing / name) != bundle.index["files"][name]["sha256"]:
                raise GateError("it changed while it was read", where=f"{bundle.path}, {name}", todo=AGAIN)
        with atomic(growing / INDEX, "wb") as file:
            file.write(dump_index(bundle.index))
        growing.rename(out)
    return [out / name for name in (INDEX, *bundle.members)]


def list_folder(path: Path) -> dict[str, Member]:
    found: dict[str, Member] = {}
    for child in sorted(path.rglob("*")):
        name = child.relative_to(path).as_posix()
        if child.is_symlink() or not (child.is_dir() or child.is_file()):
            raise GateError("neither a file nor a folder", where=str(child), todo=AGAIN)
        if child.is_file():
            found[name] = Member(name, child.stat().st_size, child)
        if len(found) > MOST_FILES:
            raise GateError(f"more than {MOST_FILES:,} files", where=str(path), todo=AGAIN)
    return found


def list_tar(path: Path) -> dict[str, Member]:
    """Walks the headers alone; their sizes together with the padding are exactly the file, so none can be a bomb."""
    size = path.stat().st_size
    found: dict[str, Member] = {}
    with open(path, "rb") as file:
        while (raw := file.read(BLOCK)) != bytes(BLOCK):
            member = read_tar_header(raw, file.tell(), str(path))
            if member.name in found or len(found) > MOST_FILES:
                raise GateError(f"{member.name} comes twice, or too many files", where=str(path), todo=AGAIN)
            end = file.tell() + padded(member.size)
            if end > size:
                raise GateError(f"{member.name} ends after the file", where=str(path), todo=AGAIN)
            file.seek(file.tell() + member.size)
            if any(file.read(padded(member.size) - member.size)):
                raise GateError(f"something behind {member.name}", where=str(path), todo=AGAIN)
            found[member.name] = member
        if file.read(BLOCK + 1) != bytes(BLOCK):
            raise GateError("something behind the last file", where=str(path), todo=AGAIN)
    return found


def read_tar_header(raw: bytes, place: int, where: str) -> Member:
    """Only the header that `add` would have written for such a file is one."""
    try:
        info = tarfile.TarInfo.frombuf(raw, "utf-8", "strict")
        if is_safe(info.name) and info.size >= 0 and header(info.name, info.size) == raw:
            return Member(info.name, info.size, place)
    except (tarfile.TarError, ValueError):
        pass
    what = f"not a bundle: no header of a file at byte {place - len(raw):,}"
    raise GateError(what, where=where, todo=AGAIN)


def header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info.tobuf(tarfile.GNU_FORMAT)


def add(file: IO[bytes], name: str, size: int, source: BinaryIO) -> str:
    """Returns the sha256 of what was written of it."""
    digest = hashlib.sha256()
    file.write(header(name, size))
    for piece in read_pieces(source, size, name):
        digest.update(piece)
        file.write(piece)
    file.write(bytes(padded(size) - size))
    return digest.hexdigest()


def read_pieces(file: BinaryIO, size: int, name: str) -> Iterator[bytes]:
    while size:
        piece = file.read(min(size, PIECE))
        if not piece:
            raise DataError("it ends early", where=name, todo="run the same command again")
        size -= len(piece)
        yield piece


def is_safe(name: str) -> bool:
    """Below the folder on every system: letters, digits, . + - _ and single slashes; short enough for a tar header."""
    return len(name.encode()) <= LONGEST_NAME and NAME.fullmatch(name) is not None


def padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def dump_index(index: dict[str, Any]) -> bytes:
    return (json.dumps(index, ensure_ascii=False, indent=2) + "\n").encode()


def read_index(raw: bytes, where: str) -> dict[str, Any]:
    """Byte for byte what `make_bundle` writes, or it is none."""
    try:
        index = json.loads(raw)
        rest = {key: value for key, value in index.items() if key != "sha256"}
        files: dict[str, Any] = rest["files"]
        sound = dump_index(rest | {"sha256": sha256_value(rest)}) == raw and all(
            is_safe(name) and one.keys() == {"size", "sha256"} and isinstance(one["size"], int)
            for name, one in files.items()
        )
    except (ValueError, LookupError, AttributeError, TypeError, RecursionError):
        sound = False
    if not sound:
        raise GateError(f"{INDEX} is not as it was made", where=where, todo=AGAIN)
    found: dict[str, Any] = index
    return found
