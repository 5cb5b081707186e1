"""What data.filters takes out, what stays without them, token lengths, and the command `medmind data check`."""

import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from test_quality_checks import CLEAN, inspect, row

from medmind.cli.main import main
from medmind.core.errors import DataError
from medmind.core.jsonl import read_jsonl
from medmind.core.rundir import RunDir
from medmind.data.config import DataConfig
from medmind.data.filters import FILTERS
from medmind.data.quality.inspect import Inspector
from medmind.data.quality.lengths import Lengths
from medmind.data.sniff import sniff
from medmind.data.sources.seam import Fault, Part
from medmind.data.stage.prepare import prepare
from medmind.models.catalog import find_model
from medmind.models.tokenizer import open_tokenizer
from medmind.prompts.families import open_renderer
from medmind.recipe.load import load_recipe
from medmind.report.collect import collect
from medmind.report.config import ReportConfig
from medmind.report.html import render

LINK = "You will find all of it at https://example.org/page, and no more."


def lengths(sample: int = 25_000) -> Lengths:
    spec = find_model("nano")
    return Lengths(open_renderer(spec.renderer, open_tokenizer(spec)), "", sample)


def test_without_filters_only_what_cannot_be_used_goes() -> None:
    _, dropped = inspect([row(answer=LINK), row(answer="", number=3)])
    assert [one.fault if one else None for one in dropped] == [None, Fault.NO_ANSWER]


def test_a_filter_takes_out_its_rows_with_the_reason() -> None:
    _, (dropped, other) = inspect([row(answer=LINK), row(answer="Brief.", number=3)], urls="drop")
    assert dropped
    assert (dropped.fault, dropped.row, dropped.id) == (Fault.URL, 2, "r2")
    assert dropped.reason == "data.filters, urls: answer, answer, with http(s)://"
    assert other is None


def test_test_rows_of_a_source_and_rows_left_to_pretraining_are_never_filtered() -> None:
    rows = [row(answer=LINK, part="test"), row(answer=LINK, number=3, part="pretrain")]
    inspector, dropped = inspect(rows, urls="drop", repeated_questions="drop")
    assert dropped == [None, None]
    assert inspector.late_drops() == {}
    assert inspector.findings()[0].drop


REPEATS = [
    row("What is it?", "one " * 20, 2),
    row("what is it", "two " * 20, 3, part="test"),
    row("Why is it so?", "three " * 20, 4),
    row("Why is it so?", "four " * 20, 5),
    row("Else?", "three " * 20, 6),
]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("repeated_questions", {0: "asked in row 3", 3: "asked in row 4"}),
        ("repeated_answers", {4: "also the answer of row 4"}),
        ("conflicting_answers", dict.fromkeys((0, 2, 3), "its question has 2 different answers")),
        (
            "near_duplicates",
            {0: "90% of its word runs are row 3's", 4: "80% of its word runs are row 4's"},
        ),
        ("urls", {}),
    ],
)
def test_filters_that_need_every_row(name: str, expected: dict[int, str]) -> None:
    """Of rows that say the same the first stays, a test row before all others."""
    inspector, _ = inspect(REPEATS, **{name: "drop"})
    inspector.note_near([(0, 1, 0.9), (2, 4, 0.8)])
    drops = inspector.late_drops()
    assert {index: reason for index, (_, reason) in drops.items()} == expected
    assert {fault for fault, _ in drops.values()} <= {Fault(FILTERS[name])}


def test_two_filters_never_take_out_a_row_and_the_one_it_stayed_for() -> None:
    inspector, _ = inspect(REPEATS, conflicting_answers="drop", near_duplicates="drop")
    inspector.note_near([(2, 4, 0.8)])
    assert 4 not in inspector.late_drops()


def test_a_row_that_cannot_be_used_is_no_reason_to_drop_its_repeat() -> None:
    inspector, _ = inspect([row(answer="\0" + CLEAN), row(answer=CLEAN, number=3)], repeated_questions="drop")
    assert inspector.late_drops() == {}


def test_an_unknown_filter_is_told_with_what_was_meant() -> None:
    (fault,) = DataConfig(filters={"url": "drop"}).conflicts()
    assert fault.startswith('data.filters.url is no check (did you mean "urls"?): ')
    assert load_recipe("demo", ["data.filters.near_duplicates=drop"]).data.filters == {"near_duplicates": "drop"}


def test_lengths_are_those_of_training() -> None:
    measured = lengths()
    for count in (10, 300, 2000):
        measured.add(row(answer="word " * count, number=count).example)
    report = measured.report()
    assert (report["measured"], report["every"]) == (3, 1)
    assert sum(report["histogram"].values()) == 3
    assert report["limits"]["256"]["rows_cut"] == report["limits"]["256"]["answers_cut"] == 2
    assert report["limits"]["1024"] == report["limits"]["512"] | {"tokens_cut": report["limits"]["1024"]["tokens_cut"]}
    assert report["limits"]["1024"]["tokens_cut"] == report["longest"] - 1024


def test_an_answer_behind_the_limit_is_lost_whole() -> None:
    measured = lengths()
    measured.add(row("word " * 400, "yes").example)
    assert measured.report()["limits"]["256"]["answers_lost"] == 1
    assert measured.report()["limits"]["512"]["answers_lost"] == 0


def test_of_many_rows_an_even_sample_is_measured_and_said() -> None:
    measured = lengths(sample=64)
    for number in range(1000):
        measured.add(row(answer="word " * (10 + number % 2), number=number).example)
    report = measured.report()
    assert report["every"] in (16, 32)
    assert 16 < report["measured"] <= 64


def test_no_rows_have_no_findings() -> None:
    inspector = Inspector(DataConfig(filters=dict.fromkeys(FILTERS, "drop")), lengths())
    assert (inspector.findings(), inspector.late_drops(), inspector.report()["tokens"]) == ([], {}, {})


def test_the_state_is_small() -> None:
    """Rows of 300 words, each with an id like a hash: about 100 bytes stay of each."""
    inspector = Inspector(DataConfig())
    rows = [row(f"Question {n}?", f"answer {n} " * 100, n, id=f"medquad-{n:012x}") for n in range(1, 2001)]
    for one in rows[:1000]:
        inspector.add(one)
    tracemalloc.start()
    for one in rows[1000:]:
        inspector.add(one)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept / 1000 < 150


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


def own_rows() -> list[dict[str, Any]]:
    long = " ".join(f"word{n}" for n in range(100))
    clean = [{"Question": f"Question {n}?", "Answer": f"{long} {n}"} for n in range(30)]
    return [*clean, {"Question": "Where?", "Answer": LINK}, {"Question": "Nothing?", "Answer": ""}]


def test_the_command_shows_what_was_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path / "own.jsonl", own_rows())
    assert main(["data", "check", str(file)]) == 0
    shown = capsys.readouterr().out
    assert "32 rows, read as data.source jsonl" in shown.replace("\n", " ").replace("  ", " ")
    for word in ("empty answer", "urls", "near_duplicates", "train.max_length", "data.filters"):
        assert word in shown
    assert main(["data", "check", str(file), "--json", "--set", "data.filters.urls=drop"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["rows"], report["would_filter"], report["filters"]) == (32, 1, ["urls"])
    assert report["unusable"]["empty answer"]["first"]["row"] == 32
    assert report["tokens"]["measured"] == 30
    assert list(tmp_path.iterdir()) == [file]


def test_the_command_says_no_when_most_rows_cannot_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"question": "Q?", "answer": ""}] * 3 + [{"question": "Q?", "answer": CLEAN}] * 2
    assert main(["data", "check", str(write(tmp_path / "bad.jsonl", rows)), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["mostly_unusable"]


def test_a_file_that_does_not_tell_what_it_is_names_its_columns(tmp_path: Path) -> None:
    file = write(tmp_path / "odd.jsonl", [{"Frage": "x", "Antwort": "y"}])
    with pytest.raises(DataError, match="columns do not tell") as caught:
        sniff(file)
    assert "Frage, Antwort" in str(caught.value.todo)
    sets = ["data.source=jsonl", "data.columns.question=Frage", "data.columns.answer=Antwort"]
    assert main(["data", "check", str(file), "--json", *(word for one in sets for word in ("--set", one))]) == 0


def test_the_stage_reports_filters_and_keeps_every_hit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rundir = RunDir(tmp_path / "run")
    answers = (" ".join(f"word{100 * n + place}" for place in range(100)) for n in range(30))
    unlike = [{"Question": f"Question {n}?", "Answer": answer} for n, answer in enumerate(answers)]
    file = write(tmp_path / "own.jsonl", [*unlike, *own_rows()[-2:]])
    columns = {"question": "Question", "answer": "Answer"}
    config = DataConfig(source="jsonl", path=str(file), columns=columns, filters={"urls": "drop"})
    prepare(config, rundir, 0, lengths())
    report = json.loads(rundir.data_report.read_text())
    assert report["quality"]["filters"] == ["urls"]
    assert report["dropped"]["by_reason"]["web address"]["count"] == 1
    assert "web address" in {line["fault"] for line in read_jsonl(rundir.split("dropped"))}
    hits = [line for line in read_jsonl(rundir.findings) if line["finding"] == "urls"]
    assert [(hit["row"], hit["file"]) for hit in hits] == [(31, str(file))]
    told = capsys.readouterr().err
    assert "1 × web address (urls): dropped" in told
    assert "dropped by data.filters: urls" in told
    page = render(collect(rundir, 0, 3), ReportConfig())
    assert "What the checks found in 32 rows" in page
    assert "The recipe takes out: urls" in page
    assert "train.max_length" in page


def test_who_reads_the_first_lines_alone_gets_no_error(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", own_rows())
    reads, writes = os.pipe()
    os.close(reads)
    command = [sys.executable, "-m", "medmind", "data", "check", str(path)]
    with os.fdopen(writes, "w") as gone:
        done = subprocess.run(command, stdout=gone, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)


def test_the_lengths_of_the_stage_are_those_of_rows_it_can_train_on() -> None:
    parts: list[Part | None] = ["train", "test", "pretrain", None]
    measured = {}
    for wanted in ((), ("train", None)):
        inspector = Inspector(DataConfig(), lengths(), wanted)
        for number, part in enumerate(parts):
            inspector.add(row(number=number, part=part))
        measured[wanted] = inspector.report()["tokens"]["measured"]
    assert measured == {(): 4, ("train", None): 2}
