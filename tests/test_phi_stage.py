"""The screen in the data stage and over a file: every action, every format, and nothing of a patient left behind."""

import csv
import datetime
import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from medmind.cli.main import main
from medmind.core.errors import EnvironmentFault
from medmind.core.jsonl import read_jsonl
from medmind.core.rundir import RunDir
from medmind.core.types import Example, Message
from medmind.data.config import DataConfig, PhiConfig
from medmind.data.phi.screen import Screen, tell_phi
from medmind.data.sources.seam import Dropped, Fault, Row
from medmind.data.stage.prepare import prepare
from medmind.privacy.ner import MODEL, drop_eponyms, open_ner
from medmind.privacy.redact import Pseudonyms, redact, scrub
from medmind.privacy.screen import find
from medmind.privacy.spans import Category, Span

MARKERS = ("555-867-5309", "zq.marker@example.org", "7741999", "03/14/1931", "078-05-1120")
NOTE = "Call {} or {}. MRN: {}. DOB {}. SSN {}.".format(*MARKERS)


def row(question: str, answer: str = "Rest.", **raw: Any) -> Row:
    turns = (Message(role="user", text=question),)
    example = Example(id=f"id-{len(question)}", source="s", task="qa", turns=turns, target=answer)
    return Row(2, "f.csv", {"question": question, "answer": answer, **raw}, example)


def screened(action: Any, *rows: Row | Dropped) -> tuple[list[Row | Dropped], dict[str, Any]]:
    screen = Screen(PhiConfig(action=action))
    return list(screen.rows(rows)), screen.summary()


def said(value: object) -> str:
    return repr(value)


def test_report_counts_and_changes_nothing() -> None:
    rows, summary = screened("report", row(NOTE), row("What is asthma?"))
    assert rows == [row(NOTE), row("What is asthma?")]
    assert (summary["rows"], summary["rows_with"]) == (2, 1)
    assert summary["by_category"]["phone"] == {"found": 1, "rows": 1, "first_row": 2}
    assert summary["not_seen"] == ["name", "place"]
    assert not any(marker in said(summary) for marker in MARKERS)


def test_redact_reaches_the_example_the_raw_row_and_what_cannot_be_read() -> None:
    broken = Dropped(row=3, id=MARKERS[1], source="s", file="f", fault=Fault.CUT, reason=f"at {NOTE}", raw=[NOTE])
    (first, second), _ = screened("redact", row("Why?", NOTE, mrn=7741999, note=[NOTE, {"phone": "8675309"}]), broken)
    assert isinstance(first, Row)
    assert first.example.target == "Call [PHONE] or [EMAIL]. MRN: [RECORD]. DOB [DATE]. SSN [SSN]."
    assert first.raw["mrn"] == "[RECORD]"
    assert first.raw["note"][1] == {"phone": "[PHONE]"}
    assert not any(marker in said((first, second)) for marker in (*MARKERS, "8675309"))
    assert Row(2, "f.csv", None, first.example).example.id == "id-4"


def test_the_name_of_a_column_says_what_a_short_cell_is() -> None:
    source = Row(2, "f.csv", {"q": "Which?", "mrn": "7741999"}, row("Which?", MARKERS[2]).example)
    (changed,), summary = screened("redact", source)
    assert isinstance(changed, Row)
    assert (changed.example.target, changed.raw["mrn"]) == ("[RECORD]", "[RECORD]")
    assert summary["by_category"]["record"]["found"] == 1


def test_an_id_that_is_an_identifier_is_replaced() -> None:
    plain = row("Why?")
    marked = Row(2, "f", None, plain.example.model_copy(update={"id": f"mrn: {MARKERS[2]}"}))
    (changed,), _ = screened("redact", marked)
    assert isinstance(changed, Row)
    assert changed.example.id.startswith("s-")
    assert MARKERS[2] not in said(changed)


def test_block_leaves_the_row_out_and_does_not_show_it() -> None:
    (blocked, kept), _ = screened("block", row(NOTE), row("What is asthma?"))
    assert isinstance(blocked, Dropped)
    assert (blocked.fault, blocked.reason) == (Fault.PHI, "date, email, phone, record, ssn; shown without")
    assert not any(marker in said(blocked) for marker in MARKERS)
    assert kept == row("What is asthma?")


def test_pseudonyms_are_the_same_throughout_a_run() -> None:
    (first, second), _ = screened("pseudonym", row(f"Call {MARKERS[0]}"), row("Call 555-111-2222. Then 555 867 5309."))
    assert isinstance(first, Row)
    assert isinstance(second, Row)
    assert first.example.turns[0].text == "Call [PHONE-1]"
    assert second.example.turns[0].text == "Call [PHONE-2]. Then [PHONE-1]."


def test_off_looks_at_nothing() -> None:
    rows, summary = screened("off", row(NOTE))
    assert rows == [row(NOTE)]
    assert summary == {"action": "off"}


def test_what_stands_for_an_identifier_keeps_its_line_breaks() -> None:
    text = "Call 555-\n867-5309 now"
    assert redact(text, find(text)) == "Call [PHONE]\n now"
    assert scrub(NOTE).count("[") == 5
    assert Pseudonyms().replace(text, find(text)) == "Call [PHONE-1]\n now"


def test_names_are_required_and_the_model_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(EnvironmentFault, match=r"names and places cannot be seen.*medmind\[ner\]"):
        Screen(PhiConfig(require=(Category.NAME,)))
    assert open_ner((Category.PHONE,)) is None


def fake_spacy(text: str) -> types.SimpleNamespace:
    """Knows two people and a town."""
    known = {"Ada Byron": "PERSON", "Parkinson": "PERSON", "Springfield": "GPE", "Monday": "DATE"}
    ents = [
        types.SimpleNamespace(start_char=text.index(word), end_char=text.index(word) + len(word), label_=label)
        for word, label in known.items()
        if word in text
    ]
    return types.SimpleNamespace(ents=ents)


def test_a_model_that_sees_names_is_asked_and_eponyms_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str) -> Any:
        assert name == MODEL
        return fake_spacy

    monkeypatch.setitem(sys.modules, "spacy", types.SimpleNamespace(load=load))
    screen = Screen(PhiConfig(action="redact", require=(Category.NAME, Category.PLACE)))
    (changed,) = screen.rows([row("Ada Byron of Springfield has Parkinson's disease since Monday, call 555-867-5309.")])
    assert isinstance(changed, Row)
    asked = changed.example.turns[0].text
    assert asked == "[NAME] of [PLACE] has Parkinson's disease since Monday, call [PHONE]."
    assert screen.summary()["not_seen"] == []
    name = Span(0, 6, Category.NAME)
    assert drop_eponyms("Wilson disease", [name]) == []
    assert drop_eponyms("Wilson called", [name]) == [name]


def test_the_terminal_line_counts_and_names_what_cannot_be_seen(capsys: pytest.CaptureFixture[str]) -> None:
    for action in ("report", "redact", "block", "pseudonym", "off"):
        tell_phi(screened(action, row(NOTE))[1])
    lines = capsys.readouterr().err.splitlines()
    assert "in 1 of 1 rows" in lines[0]
    assert "1 phone" in lines[0]
    assert "names and places cannot be seen" in lines[0]
    assert "not looked for" in lines[-1]


def write_rows(path: Path, count: int = 30) -> Path:
    rows = [{"question": f"Question {n}?", "answer": f"Answer {n}."} for n in range(count)]
    rows[4]["answer"] = NOTE
    rows[5]["question"] = f"Who has {MARKERS[0]}?"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows) + f'"{NOTE}"\n', encoding="utf-8")
    return path


@pytest.mark.parametrize("action", ["redact", "block", "pseudonym"])
def test_the_data_stage_writes_no_identifier(action: Any, tmp_path: Path) -> None:
    rundir = RunDir(tmp_path / "run")
    config = DataConfig(source="jsonl", path=str(write_rows(tmp_path / "a.jsonl")), phi=PhiConfig(action=action))
    prepare(config, rundir, seed=0)
    report = json.loads(rundir.data_report.read_text())
    assert report["phi"]["rows_with"] == 2
    assert report["phi"]["by_category"]["ssn"]["found"] == 1
    assert sum(report["parts"].values()) == (28 if action == "block" else 30)
    written = "".join(path.read_text(encoding="utf-8") for path in rundir.root.rglob("*") if path.is_file())
    assert not any(marker in written for marker in MARKERS)


def test_by_default_the_data_stage_reports_and_keeps(tmp_path: Path) -> None:
    rundir = RunDir(tmp_path / "run")
    prepare(DataConfig(source="jsonl", path=str(write_rows(tmp_path / "a.jsonl"))), rundir, seed=0)
    report = rundir.data_report.read_text()
    assert json.loads(report)["phi"]["rows_with"] == 2
    assert not any(marker in report for marker in MARKERS)
    kept = [one["target"] for part in ("train", "validation", "test") for one in read_jsonl(rundir.split(part))]
    assert NOTE in kept


def table(tmp_path: Path) -> Path:
    path = tmp_path / "notes.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerows([["id", "note", "mrn"], ["1", NOTE, "7741999"], ["2", 'says "nothing",\nreally', ""]])
    return path


def test_a_file_is_counted_and_its_identifiers_are_not_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = table(tmp_path)
    assert main(["data", "phi", str(path)]) == 1
    out, err = capsys.readouterr()
    assert "phone" in out
    assert "1 of 2 rows" in err
    assert "names and places cannot be seen" in err
    assert not any(marker in out + err for marker in MARKERS)
    assert main(["data", "phi", str(path), "--json", "--show"]) == 1
    result = json.loads(capsys.readouterr().out)
    assert result["by_category"]["record"] == {"found": 2, "rows": 1, "first_row": 2}
    assert {"row": 2, "category": "phone", "text": MARKERS[0]} in result["found"]
    assert list(tmp_path.iterdir()) == [path]


def test_redacting_keeps_rows_order_and_fields(tmp_path: Path) -> None:
    source, out = table(tmp_path), tmp_path / "out.csv"
    assert main(["data", "phi", str(source), "--redact", str(out)]) == 0
    with open(out, newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    note = "Call [PHONE] or [EMAIL]. MRN: [RECORD]. DOB [DATE]. SSN [SSN]."
    assert rows == [["id", "note", "mrn"], ["1", note, "[RECORD]"], ["2", 'says "nothing",\nreally', ""]]
    assert main(["data", "phi", str(out)]) == 0


@pytest.mark.parametrize("ending", ["json", "jsonl"])
def test_redacting_json(ending: str, tmp_path: Path) -> None:
    rows = [{"b": NOTE, "a": [1, None, True]}, {"b": "x", "mrn": 7741999, "a": {"n": 2.5}}]
    path, out = tmp_path / f"in.{ending}", tmp_path / f"out.{ending}"
    path.write_text(json.dumps(rows) if ending == "json" else "".join(json.dumps(one) + "\n" for one in rows))
    assert main(["data", "phi", str(path), "--redact", str(out)]) == 0
    text = out.read_text()
    written = json.loads(text) if ending == "json" else [json.loads(line) for line in text.splitlines()]
    assert [list(one) for one in written] == [list(one) for one in rows]
    assert written[0]["a"] == [1, None, True]
    assert written[1] == {"b": "x", "mrn": "[RECORD]", "a": {"n": 2.5}}


def test_redacting_plain_text_keeps_its_lines(tmp_path: Path) -> None:
    path, out = tmp_path / "note.txt", tmp_path / "out.txt"
    path.write_text(f"Name\nMRN: {MARKERS[2]}\n\ncall 555-\n867-5309\nend")
    assert main(["data", "phi", str(path), "--redact", str(out), "--set", "data.phi.action=pseudonym"]) == 0
    assert out.read_text() == "Name\nMRN: [RECORD-1]\n\ncall [PHONE-1]\n\nend"


def test_redacting_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path, out = tmp_path / "in.parquet", tmp_path / "out.parquet"
    born = [datetime.date(1931, 3, 14), None]
    parquet.write_table(pyarrow.table({"t": [NOTE, "x"], "dob": born, "n": [1, 2], "l": [["a"], [NOTE]]}), path)
    assert main(["data", "phi", str(path), "--redact", str(out)]) == 0
    written = parquet.read_table(out)
    assert written.column_names == ["t", "dob", "n", "l"]
    assert written["n"].to_pylist() == [1, 2]
    assert written["dob"].to_pylist() == ["[DATE]", None]
    assert not any(marker in said(written.to_pylist()) for marker in MARKERS)


def test_a_row_that_cannot_be_read_is_looked_through_but_never_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "a.jsonl", tmp_path / "out.jsonl"
    path.write_text(f'{{"a": "x"}}\n"{NOTE}"\n')
    assert main(["data", "phi", str(path), "--json"]) == 1
    result = json.loads(capsys.readouterr().out)
    assert (result["unreadable"], result["rows"], result["rows_with"]) == (1, 2, 1)
    assert main(["data", "phi", str(path), "--redact", str(out)]) == 2
    assert "row 2" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--redact", "IN"], "overwrite"),
        (["--redact", "x.csv.gz"], "no .gz"),
        (["--set", "train.max_steps=1"], "only data.phi"),
        (["--set", "data.phi.action=block"], "no effect with phi"),
        (["--set", "data.phi.require=[phones]"], "data.phi.require"),
        (["--out", "x"], "--redact names"),
    ],
)
def test_wrong_use_is_said(words: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = table(tmp_path)
    words = [str(path) if word == "IN" else word for word in words]
    assert main(["data", "phi", str(path), *words]) == 2
    assert told in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [path]


def test_the_flags_of_phi_go_with_phi(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "demo", "--show"]) == 2
    assert "medmind data phi" in capsys.readouterr().err
