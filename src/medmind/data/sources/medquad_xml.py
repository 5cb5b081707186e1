"""MedQuAD's own XML: one file a page, in folders or a tar archive; a damaged page is a dropped row, not the end."""

import tarfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

from medmind.core.errors import DataError
from medmind.data.sources.files import LONGEST, first_bytes
from medmind.data.sources.seam import Dropped, Entry, Fault

ARCHIVES = ("tar", "tgz")


def is_xml(path: Path) -> bool:
    if path.suffix == ".xml":
        return True
    if path.stat().st_size == 0:
        return False
    head = first_bytes(path)
    return head.startswith(b"<") or head[257:262] == b"ustar"


def read_pairs(files: Sequence[Path], named: Path) -> Iterator[Entry | Dropped]:
    """All questions with their answers, numbered over the whole; the page each stands in is its field "file".

    `named` is what the user calls all of it.
    """
    number = 0
    for name, content in pages(files, named):
        for values in read_page(content):
            number += 1
            entry = Entry(number, {"file": name} | values, str(named), "medquad")
            fault = values.pop("fault", "")
            yield entry.drop(Fault.CUT, f"{fault} in {name}") if fault else entry
    if not number:
        raise DataError("no XML page in it", where=str(named), todo="check data.path, or fetch the files again")


def pages(files: Sequence[Path], named: Path) -> Iterator[tuple[str, bytes]]:
    """(name, content) of every page."""
    for path in files:
        if path.suffix == ".xml":
            name = str(path.relative_to(named)) if path.is_relative_to(named) and path != named else path.name
            yield name, path.read_bytes()
            continue
        try:
            with tarfile.open(path, "r|*") as archive:
                for member in archive:
                    if member.isfile() and member.name.endswith(".xml") and member.size < LONGEST:
                        file = archive.extractfile(member)
                        yield member.name, file.read() if file else b""
        except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
            raise DataError(f"the archive is damaged or cut: {error}", where=str(path), todo="fetch it again") from None


def read_page(content: bytes) -> Iterator[dict[str, str]]:
    """The pairs of a page, also in the lower-case names of four old ones; a page without any is told as a fault."""
    try:
        page = ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        yield {"fault": f"not XML ({error})", "page": content.decode(errors="replace")}
        return
    focus = next((told(one) for one in page.iter() if one.tag.lower() in ("focus", "doctitle-focus")), "")
    pairs = [one for one in page.iter() if one.tag.lower() in ("qapair", "pair")]
    collection = page.get("source") or page.get("corpus") or ""
    shared = {"focus": focus, "collection": collection, "url": page.get("url") or ""}
    for pair in pairs:
        parts = {one.tag.lower(): one for one in pair}
        question, answer = parts.get("question"), parts.get("answer")
        yield shared | {
            "pair": pair.get("pid") or "",
            "question": told(question),
            "answer": told(answer),
            "type": (question.get("qtype") or "") if question is not None else "",
        }
    if not pairs:
        yield shared | {"fault": "no question"}


def told(element: ElementTree.Element | None) -> str:
    return "".join(element.itertext()) if element is not None else ""
