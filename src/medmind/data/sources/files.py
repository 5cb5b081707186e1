"""Which files a source reads, here or from the Hub, and their bytes: unpacked, checked and never whole in memory."""

import codecs
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import IO

import zstandard

from medmind.core.errors import DataError
from medmind.data.config import DataConfig
from medmind.data.kinds import KINDS
from medmind.data.sources.hub import CARD, card_licence, fetch, is_hub_id
from medmind.data.sources.seam import Doubt, Origin
from medmind.data.sources.unpack import MAGIC, Unpacked

TABLES = ("csv", "json", "jsonl", "parquet")
NOT_STATED = "not stated"
GZIP = b"\x1f\x8b"
NOT_ROWS = ("dataset_info.json", "dataset_infos.json", "config.json", "package.json")
LONGEST = 1 << 26
"""Bytes of one line or record; a longer one is a fault of the file, not a reason to run out of memory."""
PIECE = 1 << 20
SPLIT = re.compile(r"(?<![a-z])(train|dev|validation|valid|val|test)(?![a-z])")


@dataclass(frozen=True)
class Input:
    """A file to read; `split` is what its name (or its folder's) says it holds: train, dev, validation, test.
    `licence` is what the card of a data set of the Hub states.
    """

    path: Path
    split: str = ""
    revision: str = ""
    licence: str = ""


def find_files(config: DataConfig, endings: tuple[str, ...] = TABLES) -> list[Input]:
    """The files data.path and data.files name, in the order of their names."""
    if not config.path:
        what = f'data.source "{config.source}" reads a file and data.path is empty'
        raise DataError(what, todo="set data.path to the file, the folder or the Hub data set")
    path = Path(config.path)
    known = tuple(f"*.{ending}{packed}" for ending in endings for packed in ("", ".gz", ".zst"))
    usual = config.files or KINDS[config.source].files
    if is_hub_id(config.path):
        wanted = usual or known
        folder, revision = fetch(config.path, wanted)
        licence = card_licence(folder)
        if wanted == (CARD,):
            return [Input(folder / CARD, revision=revision, licence=licence)]
        found = _in_folder(config, folder, [wanted], known)
        return [replace(one, revision=revision, licence=licence) for one in found]
    if path.is_dir():
        return _in_folder(config, path, [config.files] if config.files else [usual, known], known)
    if not path.exists():
        raise DataError("no such file", where=str(path), todo="check data.path")
    if config.files:
        what = "data.files chooses among the files of a folder, and data.path is one file"
        raise DataError(what, where=str(path), todo="name their folder in data.path, or leave data.files out")
    return [Input(path, split_of(path.name))]


def _in_folder(config: DataConfig, folder: Path, choices: list[tuple[str, ...]], known: tuple[str, ...]) -> list[Input]:
    """The files matching the first patterns that match anything."""
    names = sorted(child.relative_to(folder).as_posix() for child in folder.rglob("*") if child.is_file())
    rows = [name for name in names if not name.startswith(".") and name.rpartition("/")[2] not in NOT_ROWS]
    for patterns in choices:
        told = patterns if patterns == config.files else known
        found = [name for name in rows if _matches(name, patterns) and _matches(name, told)]
        if found:
            return [Input(folder / name, split_of(name)) for name in found]
    wanted = ", ".join(choices[0] or known)
    listed = f"; there are {', '.join(names[:5])}{' …' * (len(names) > 5)}" if names else ""
    todo = f"set data.path to a file, or data.files to patterns of files{listed}"
    raise DataError(f"no file matches {wanted}", where=config.path, todo=todo)


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def split_of(name: str) -> str:
    """The split a file's name tells, its own before its folders'."""
    for part in reversed(name.lower().split("/")):
        found = SPLIT.findall(part)
        if found:
            return str(found[-1])
    return ""


def origins_of(
    config: DataConfig, published: str, endings: tuple[str, ...] = TABLES, generated: bool = False
) -> list[Origin]:
    """`published` is the licence of the data set whose schema this is. The user knows better, and so does the card of
    a data set of the Hub; a file of the same schema need not be the published one. `generated`: a model wrote it.
    """
    doubts: tuple[Doubt, ...] = ("generated text",) if generated else ()
    found = []
    for file in find_files(config, endings):
        card = f"{file.licence} (its card on the Hub)" if file.licence else ""
        known = config.licence or card or published
        unsure: tuple[Doubt, ...] = ("unverified",) if known == published != NOT_STATED else ()
        found.append(Origin(file.path, known, file.revision, (*unsure, *doubts)))
    return found


def only_card(config: DataConfig) -> DataConfig:
    """To learn the licence of a data set of the Hub without fetching its rows."""
    return config.model_copy(update={"files": (CARD,)}) if is_hub_id(config.path) else config


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The file's bytes, unpacked if it is gzip or zstandard."""
    try:
        with open(path, "rb") as raw:
            head = raw.read(4)
            raw.seek(0)
            if head == MAGIC:
                yield io.BufferedReader(Unpacked(raw), PIECE)
            else:
                yield gzip.GzipFile(fileobj=raw) if head[:2] == GZIP else raw  # type: ignore[misc]
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"the gzip file is damaged or cut: {error}", where=str(path), todo="fetch it again") from None
    except zstandard.ZstdError as error:
        raise DataError(f"the zstandard file is damaged: {error}", where=str(path), todo="fetch it again") from None
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(path)) from None


def first_bytes(path: Path) -> bytes:
    """The first bytes that are no blank, at least four of them where there are so many."""
    with opened(path) as file:
        while head := file.read(PIECE):
            shown = head.removeprefix(codecs.BOM_UTF8).lstrip()
            if shown:
                return shown[:PIECE]
    raise DataError("the file is empty", where=str(path), todo="check data.path, or fetch the file again")


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number from 1, UTF-8 text with its end) of every line; only a newline ends one (U+2028 does not)."""
    offset, blank = 0, True
    with opened(path) as file:
        for number, raw in enumerate(iter(lambda: file.readline(LONGEST), b""), start=1):
            if len(raw) == LONGEST:
                raise DataError("a line of more than 64 MB", where=f"{path}, line {number}", todo="check data.path")
            try:
                text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise not_utf8(path, f"line {number}, byte {offset + error.start}") from None
            offset += len(raw)
            blank = blank and not text.strip()
            yield number, text
    if blank:
        raise DataError("the file is empty", where=str(path), todo="check data.path, or fetch the file again")


def read_pieces(path: Path) -> Iterator[str]:
    """UTF-8 text of about a megabyte at a time."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    offset = 0
    with opened(path) as file:
        while True:
            raw = file.read(PIECE)
            try:
                text = decoder.decode(raw, final=not raw)
            except UnicodeDecodeError as error:
                raise not_utf8(path, f"byte {offset + error.start} or a few before") from None
            offset += len(raw)
            if not raw:
                return
            yield text


def not_utf8(path: Path, place: str) -> DataError:
    with opened(path) as file:
        wide = file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    todo = f"save it as UTF-8, for instance: iconv -f {'UTF-16' if wide else 'WINDOWS-1252'} -t UTF-8 {path.name}"
    return DataError("not UTF-8", where=f"{path}, {place}", todo=todo)
