"""Thousands of broken rows and files through every source: no traceback, every fault placed, no row lost."""

import gzip
import io
import itertools
import json
import tarfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic_core import to_json
from source_rows import write

from medmind.core.errors import MedmindError
from medmind.core.rundir import RunDir
from medmind.data.check import check
from medmind.data.checks import check_row
from medmind.data.config import DataConfig
from medmind.data.kinds import KINDS
from medmind.data.leaks.files import evaluation_rows
from medmind.data.leaks.index import LeakIndex
from medmind.data.sniff import sniff
from medmind.data.sources import pubmedqa
from medmind.data.sources.known import SOURCES
from medmind.data.sources.seam import Dropped, Fault, Row
from medmind.data.stage.prepare import prepare
from medmind.prompts.tasks.known import TASKS

FEW, MANY, WHOLE = 1_200, 10_000, 10
OFFICIAL = {"1": "yes", "2": "no", "3": "maybe"}
PAGE = (
    '<?xml version="1.0"?><Document id="{n}" source="{s}" url="u"><Focus>Ague {n}</Focus><QAPairs><QAPair pid="1">'
    '<Question qid="1" qtype="t">What is (are) Ague {n} ?</Question><Answer>A fever.</Answer></QAPair></QAPairs>'
    "</Document>"
)
SIGNS = ["\ud800", "", " ", "\ufeff", "\u2028", "\0", "\N{REPLACEMENT CHARACTER}", '"', "\r", "\n", 10**30]
BLANKS = st.sampled_from(SIGNS)
SCALARS = st.one_of(BLANKS, st.text(max_size=12), st.none(), st.booleans(), st.integers(-3, 9), st.floats())
ODD = st.recursive(
    SCALARS, lambda one: st.one_of(st.lists(one, max_size=3), st.dictionaries(st.text(), one, max_size=3))
)


def base_rows(source: str) -> list[dict[str, Any]]:
    """Six rows in the source's own schema."""
    return [base_row(source, number) for number in range(1, 7)]


def base_row(source: str, n: int) -> dict[str, Any]:
    ask, options = f"{n}?", {"A": "one", "B": "two", "C": "three", "D": "four"}
    contexts, decision = {"contexts": ["Text."], "labels": ["METHODS"]}, OFFICIAL.get(str(n), "yes")
    shapes: dict[str, dict[str, Any]] = {
        "medquad": {"question": f"What is (are) {n} ?", "answer": "A.", "source": "GARD", "focus_area": f"{n}"},
        "pubmedqa": {"pubid": n, "question": ask, "context": contexts, "long_answer": "A.", "final_decision": decision},
        "medical_o1": {"Question": ask, "Complex_CoT": "Well.", "Response": "So."},
        "synthetic_qa": {"question": ask, "response": "So."},
        "medqa": {"question": ask, "options": options, "answer_idx": "B", "answer": "two", "meta_info": "s"},
        "medmcqa": {"question": ask, **{f"op{c}": c for c in "abcd"}, "cop": n % 4 + 1, "exp": "x", "id": f"i{n}"},
        "mmlu_medical": {"question": ask, "choices": list("abcd"), "answer": n % 4, "subject": "anatomy"},
        "casimedicos": {"id": f"{n}", "lang": "es", "question": ask, "options": options, "correct_answer": "C"},
        "sharegpt": {"conversations": [{"from": "human", "value": ask}, {"from": "gpt", "value": "So."}]},
        "messages": {"messages": [{"role": "user", "content": ask}, {"role": "assistant", "content": "So."}]},
        "alpaca": {"instruction": ask, "input": "", "output": "So."},
        "four_part": {"instruction": f"Explain the medical term: {n}", "input": "", "output": "So."},
        "prose": {"text": f"Passage {n}.", "title": f"{n}"},
    }
    return shapes.get(source, {"question": ask, "answer": "So."})


TABLES = [name for name in KINDS if name not in ("terms", "nano_corpus")]
"""terms reads what four_part reads; nano_corpus is the shared folder, which tests read and nobody hands in."""
DAMAGE = ["cut", "insert", "delete", "flip", "double", "crlf", "cr", "bom", "utf16", "gzip"]
SUFFIX = {"csv": "csv", "json": "json", "jsonl": "jsonl", "parquet": "parquet"}


def formats(source: str) -> list[str]:
    """The formats a source reads; those that are named after one read that one."""
    return [SUFFIX[source]] if source in SUFFIX else list(SUFFIX.values())


def mutate_rows(rows: list[Any], draw: Callable[[Any], Any]) -> list[Any]:
    for _ in range(draw(st.integers(1, 4))):
        row = draw(st.sampled_from(rows))
        name = draw(st.sampled_from([*row, "new"])) if row else "new"
        match draw(st.sampled_from(["set", "set", "set", "delete", "rename", "inside"])):
            case "set":
                row[name] = draw(ODD)
            case "delete":
                row.pop(name, None)
            case "rename":
                row[draw(st.text(max_size=8))] = row.pop(name, None)
            case "inside":
                inner = row.get(name)
                if isinstance(inner, dict) and inner:
                    row[name] = inner | {draw(st.sampled_from(list(inner))): draw(ODD)}
                elif isinstance(inner, list) and inner:
                    row[name] = [*inner[1:], draw(ODD)]
    return rows


def mutate_bytes(raw: bytes, draw: Callable[[Any], Any]) -> bytes:
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(raw)))
        end = min(len(raw), place + draw(st.integers(0, 40)))
        match draw(st.sampled_from(DAMAGE)):
            case "cut":
                raw = raw[:place]
            case "insert":
                raw = raw[:place] + draw(st.binary(max_size=20)) + raw[place:]
            case "delete":
                raw = raw[:place] + raw[end:]
            case "flip" if raw:
                place = min(place, len(raw) - 1)
                raw = raw[:place] + bytes([raw[place] ^ (1 << draw(st.integers(0, 7)))]) + raw[place + 1 :]
            case "double":
                raw = raw[:end] + raw[place:]
            case "crlf":
                raw = raw.replace(b"\n", b"\r\n")
            case "cr":
                raw = raw.replace(b"\n", b"\r")
            case "bom":
                raw = b"\xef\xbb\xbf" + raw
            case "utf16":
                raw = raw.decode("latin-1").encode("utf-16")
            case "gzip":
                raw = gzip.compress(raw)[: draw(st.integers(1, len(raw) + 1))]
    return raw


def archive(pages: list[bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as file:
        for number, page in enumerate(pages):
            info = tarfile.TarInfo(f"MedQuAD/{number}.xml")
            info.size = len(page)
            file.addfile(info, io.BytesIO(page))
    return out.getvalue()


def outcome(source: str, path: Path) -> list[Row | Dropped] | MedmindError:
    """What came of reading a file, after everything a row must stand downstream."""
    try:
        found = list(SOURCES.get(source).read(DataConfig(source=source, path=str(path))))
    except MedmindError as error:
        assert str(path.parent) in error.where, f"no file is named: {error}"
        assert error.what
        return error
    for one in found:
        if isinstance(one, Row):
            assert to_json(one.raw)
            assert one.example.model_dump_json()
            fault = check_row(one)
            if fault is None and one.example.task != "text":  # a passage is no question
                task = TASKS.get(one.example.task)
                assert task.learn(one.example, "")[-1].role == "assistant"
            one = fault or one
        if isinstance(one, Dropped):
            assert one.model_dump_json()
            assert (one.row > 0, one.reason != "", one.file.startswith(str(path.parent))) == (True, True, True)
    return found


def flat(value: Any) -> Any:
    """A column of Parquet has one type."""
    return json.dumps(value) if isinstance(value, dict | list) else value


def check_rows(source: str, folder: Path, draw: Callable[[Any], Any]) -> None:
    """Odd rows in a sound file: each comes out, as a row or with its reason; or the file is refused."""
    rows = mutate_rows(base_rows(source), draw)
    form = draw(st.sampled_from(formats(source)))
    if form == "parquet":
        rows = [{str(name): flat(value) for name, value in row.items()} for row in rows]
    path = folder / f"anatomy_es.{form}"
    try:
        write(path, rows, ascii_only=draw(st.booleans()))
    except (ValueError, TypeError, OverflowError):  # no file of this format can hold these rows
        return
    found = outcome(source, path)
    if isinstance(found, MedmindError):
        return
    numbers = {one.number if isinstance(one, Row) else one.row for one in found if str(path) == one.file}
    first = 2 if form == "csv" else 1
    said = [any(value not in (None, "") for value in row.values()) for row in rows]
    blank = {number for number, any_said in enumerate(said, start=first) if form == "csv" and not any_said}
    assert numbers | blank == set(range(first, first + len(rows)))


def check_bytes(source: str, folder: Path, draw: Callable[[Any], Any]) -> None:
    """A damaged file of any kind."""
    special = {"medquad": ["tar", "xml"], "pubmedqa": ["keyed"]}
    form = draw(st.sampled_from(formats(source) + special.get(source, [])))
    rows = base_rows(source)
    path = folder / f"anatomy_es.{form}"
    if form in ("tar", "xml"):
        pages = [PAGE.format(n=n, s="GARD").encode() for n in range(3)]
        sound = archive(pages) if form == "tar" else pages[0]
    elif form == "keyed":
        sound = json.dumps({str(row.pop("pubid")): row | {"contexts": ["Text."]} for row in rows}, indent=1).encode()
    else:
        sound = write(path, rows).read_bytes()
    path.write_bytes(mutate_bytes(sound, draw))
    outcome(source, path)


def whole_stage(source: str, folder: Path) -> None:
    """The file written last through the stage, the checks and the comparison: done, or refused by name."""
    path = max(folder.glob("anatomy_es.*"), key=lambda one: one.stat().st_mtime_ns, default=folder / "none")
    config = DataConfig(source=source, path=str(path))
    for work in (
        lambda: prepare(config, RunDir(folder / "run"), 0),
        lambda: check(config, None),
        lambda: check(sniff(path), None),
        lambda: LeakIndex(evaluation_rows(str(path))).report(),
    ):
        with suppress(MedmindError):
            work()


def run(source: str, kind: str, count: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many cases every tenth goes through all of the data stage."""
    cases = itertools.count(1)
    monkeypatch.setattr(pubmedqa, "official_labels", lambda: OFFICIAL)

    @settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def one_case(data: st.DataObject) -> None:
        (check_rows if kind == "rows" else check_bytes)(source, folder, data.draw)
        if next(cases) % WHOLE == 0 and count > WHOLE * 10:
            whole_stage(source, folder)

    one_case()


@pytest.mark.parametrize("kind", ["rows", "bytes"])
@pytest.mark.parametrize("source", TABLES)
def test_broken_rows_and_files(source: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(source, kind, FEW // (2 * len(TABLES)), tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["rows", "bytes"])
@pytest.mark.parametrize("source", TABLES)
def test_ten_thousand_broken_rows_and_files(
    source: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(source, kind, MANY // (2 * len(TABLES)) + 1, tmp_path, monkeypatch)


def test_the_sound_files_are_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the fuzz would only prove that nothing is read."""
    monkeypatch.setattr(pubmedqa, "official_labels", lambda: OFFICIAL)
    for source in TABLES:
        for form in formats(source):
            found = outcome(source, write(tmp_path / f"anatomy_es.{form}", base_rows(source)))
            assert isinstance(found, list), found
            assert len([one for one in found if one.file.startswith(str(tmp_path))]) == 6, (source, form)


def test_half_a_character_inside_a_list_is_a_fault_of_its_row(tmp_path: Path) -> None:
    file = tmp_path / "anatomy_test.csv"
    file.write_text("question,subject,choices,answer\nWhich?,anatomy,\"['\\ud800', 'b', 'c', 'd']\",1\n")
    (row,) = SOURCES.get("mmlu_medical").read(DataConfig(source="mmlu_medical", path=str(file), first_option=0))
    assert isinstance(row, Dropped)
    assert (row.row, row.fault) == (2, Fault.NOT_TEXT)
