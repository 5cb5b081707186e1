"""The screen on records: numbers, nested fields, groups, names of columns and snippets; pseudonyms that tell apart."""

import json
from pathlib import Path
from typing import Any

import pytest

from medmind.cli.main import main
from medmind.core.jsonl import read_jsonl
from medmind.core.rundir import RunDir
from medmind.data.config import DataConfig, PhiConfig
from medmind.data.phi.screen import Screen, change_texts
from medmind.data.quality.view import quote
from medmind.data.stage.prepare import prepare
from medmind.privacy.redact import Pseudonyms
from medmind.privacy.screen import find


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    return path


def rows(count: int, **of_patient: Any) -> list[dict[str, Any]]:
    """Row n is of patient 7741000 + n // 2: two rows a group."""
    return [
        {"question": f"What helps in case {n}?", "answer": f"Rest for {n} days.", "key": 7741000 + n // 2}
        | {name: make(7741000 + n // 2) for name, make in of_patient.items()}
        for n in range(count)
    ]


def staged(
    folder: Path, rows: list[dict[str, Any]], action: Any, **columns: str
) -> tuple[dict[str, Any], list[Any], str]:
    """report.json, the rows written, and everything written."""
    rundir = RunDir(folder / "run")
    path = write(folder / "in.jsonl", rows)
    prepare(DataConfig(source="jsonl", path=str(path), columns=columns, phi=PhiConfig(action=action)), rundir, seed=0)
    parts = [one for part in ("train", "validation", "test") for one in read_jsonl(rundir.split(part))]
    written = "".join(one.read_text(encoding="utf-8") for one in rundir.root.rglob("*") if one.is_file())
    return json.loads(rundir.data_report.read_text()), parts, written


@pytest.mark.parametrize("action", ["redact", "pseudonym"])
@pytest.mark.parametrize(
    "patient",
    [
        {"mrn": lambda number: number},
        {"patient": lambda number: {"mrn": number}},
        {"mrn": str, "code": str},
        {"visits": lambda number: [{"mrn": str(number)}]},
    ],
)
def test_a_labelled_number_is_taken_out_of_the_group_and_the_groups_stay(
    action: Any, patient: dict[str, Any], tmp_path: Path
) -> None:
    report, parts, written = staged(tmp_path, rows(60, **patient), action, group="key")
    assert report["phi"]["rows_with"] == 60
    assert "77410" not in written
    groups = [one["group"] for one in parts]
    assert len(parts) == 60
    assert len(set(groups)) == 30
    assert all(groups.count(group) == 2 for group in groups)


def test_an_identifier_inside_another_text_of_the_row_is_taken_out_too(tmp_path: Path) -> None:
    given = [{"question": "Why?", "answer": f"Seen again (7741{n:03}).", "id": f"7741{n:03}", "mrn": f"7741{n:03}"}
             for n in range(30)]  # fmt: skip
    _, parts, written = staged(tmp_path, given, "redact", id="id", context="question")
    assert parts[0]["target"] == "Seen again ([RECORD])."
    assert "77410" not in written


def test_names_of_fields_are_texts_and_none_is_lost() -> None:
    screen = Screen(PhiConfig(action="redact"))
    given = {"555-867-5309": 1, "555-867-5310": {"zq@example.org": "x"}, "plain": 2}
    assert change_texts(given, screen.change) == {"[PHONE]": 1, "[PHONE] 2": {"[EMAIL]": "x"}, "plain": 2}


def test_a_file_without_a_header_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = tmp_path / "nohead.csv", tmp_path / "out.csv"
    source.write_text("John Roe,555-867-5309,zq@example.org\nJane Roe,555-867-5310,zr@example.org\n")
    for words in ([], ["--redact", str(out)]):
        assert main(["data", "phi", str(source), *words]) == 2
        told = capsys.readouterr().err
        assert "the name of column 2 is a patient identifier (phone)" in told
        assert "5309" not in told
    assert not out.exists()


def test_json_names_are_counted_and_replaced(tmp_path: Path) -> None:
    path, out = write(tmp_path / "a.jsonl", [{"555-867-5309": "x", "n": {"zq@example.org": 1}}]), tmp_path / "o.jsonl"
    assert main(["data", "phi", str(path)]) == 1
    assert main(["data", "phi", str(path), "--redact", str(out)]) == 0
    assert json.loads(out.read_text()) == {"[PHONE]": "x", "n": {"[EMAIL]": 1}}


def test_names_within_a_parquet_record_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"a": [{"555-867-5309": "x"}]}), path)
    assert main(["data", "phi", str(path), "--redact", str(tmp_path / "o.parquet")]) == 2
    assert "within a record" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [path]


def test_a_number_json_cannot_hold_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "a.jsonl", tmp_path / "o.jsonl"
    path.write_text('{"a": 1}\n{"a": 1e400}\n')
    assert main(["data", "phi", str(path), "--redact", str(out)]) == 2
    assert "row 2" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("action", ["redact", "pseudonym"])
def test_what_was_redacted_holds_nothing_more(action: str, tmp_path: Path) -> None:
    path, out = (
        write(tmp_path / "a.jsonl", [{"ssn": f"{n:09}"} for n in range(100_000_000, 100_001_100)]),
        tmp_path / "o.jsonl",
    )
    assert main(["data", "phi", str(path), "--redact", str(out), "--set", f"data.phi.action={action}"]) == 0
    assert main(["data", "phi", str(out)]) == 0


def test_a_snippet_is_screened_before_it_is_cut() -> None:
    text = "MRN is on the file and the number of the card is 7741999 as was told; see http://a.example.org/x for more."
    shown = quote(text, text.index("http"), text.index("http") + 4)
    assert "7741999" not in shown
    assert "[RECORD]" in shown
    assert "7741999"[:3] not in quote(text, text.index("as was"), text.index("as was"))
    assert quote("plain " * 30, 60, 65) == "…" + ("plain " * 30)[20:105].strip() + "…"


def names(*texts: str) -> list[str]:
    pseudonyms = Pseudonyms()
    return [pseudonyms.replace(text, find(text)) for text in texts]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("DOB 1/11/2000", "DOB 11/1/2000"),
        ("a.b@x.com", "ab@x.com"),
        ("10.1.1.11", "10.11.1.1"),
        ("see https://x.com/1/11", "see https://x.com/11/1"),
    ],
)
def test_two_identifiers_have_two_stand_ins(first: str, second: str) -> None:
    stand_ins = names(first, second)
    assert [one[-3:] for one in stand_ins] == ["-1]", "-2]"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("505-867-5309", "５０５-８６７-５３０９"),
        ("505-867-5309", "5O5-867-5309"),
        ("505-867-5309", "(505) 867 5309"),
        ("john@exaco.com", "jоhn@exасо.com"),
        ("john.doe@example.com", "john dot doe at example dot com"),
        ("john.doe@example.com", "JOHN.DOE @ example.com"),
        ("call 5551234567", "call five five five, one two three, four five six seven"),
        ("DOB 03/14/1962", "DOB 3-14-1962"),
    ],
)
def test_one_identifier_has_one_stand_in_however_it_is_written(first: str, second: str) -> None:
    assert [one[-3:] for one in names(first, second)] == ["-1]", "-1]"]
