"""Every bad input a person can hand in: named with file, row and reason, and nothing half-written."""

import gzip
import json
from pathlib import Path

import pytest

from medmind.core.errors import DataError
from medmind.core.rundir import RunDir
from medmind.data.config import DataConfig
from medmind.data.stage.prepare import prepare

GOOD = [{"question": f"What is disease {n}?", "answer": f"It is number {n}."} for n in range(20)]


def jsonl(path: Path, *lines: str | bytes, good: int = 20) -> Path:
    texts = [json.dumps(row) for row in GOOD[:good]]
    path.write_bytes(b"\n".join(one.encode() if isinstance(one, str) else one for one in (*texts, *lines)) + b"\n")
    return path


def table(path: Path, *lines: str, header: str = "question,answer", good: int = 20) -> Path:
    rows = [f'{row["question"]},"{row["answer"]}"' for row in GOOD[:good]]
    path.write_text("\n".join((header, *rows, *lines)), encoding="utf-8", newline="")
    return path


def run(path: Path, source: str = "jsonl", **settings: object) -> tuple[RunDir, list[dict]]:
    rundir = RunDir(path.parent / "run")
    prepare(DataConfig(source=source, path=str(path), **settings), rundir, seed=0)
    return rundir, [json.loads(line) for line in rundir.split("dropped").read_text().split("\n") if line]


def refused(path: Path, source: str = "jsonl", **settings: object) -> DataError:
    with pytest.raises(DataError) as caught:
        run(path, source, **settings)
    assert not (path.parent / "run").exists(), "a fault of the whole file must leave nothing behind"
    assert path.name in caught.value.where
    assert caught.value.todo
    return caught.value


def test_misspelt_columns_are_named_with_those_that_exist(tmp_path: Path) -> None:
    for source, path in (("csv", table(tmp_path / "a.csv")), ("jsonl", jsonl(tmp_path / "a.jsonl"))):
        error = refused(path, source, columns={"answer": "anwser", "group": "topic"})
        assert 'no column "anwser" (did you mean "answer"?)' in error.what
        assert 'no column "topic"' in error.what
        assert "question, answer" in error.todo
        assert "data.columns.answer" in error.todo


def test_missing_columns_of_the_fixed_sources(tmp_path: Path) -> None:
    assert 'no column "focus_area"' in refused(table(tmp_path / "a.csv"), "medquad").what
    assert 'no column "instruction"' in refused(jsonl(tmp_path / "a.jsonl"), "four_part").what


def test_a_column_that_stands_twice_is_refused(tmp_path: Path) -> None:
    assert (
        "stands twice"
        in refused(table(tmp_path / "a.csv", header="answer,answer"), "csv", columns={"question": "answer"}).what
    )


def test_semicolons_are_recognised(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("question;answer\nWhat;That\n")
    assert "separated by commas" in refused(path, "csv").todo


@pytest.mark.parametrize("answer", ['""', '"  \\n"', "null"])
def test_empty_answers_are_dropped(tmp_path: Path, answer: str) -> None:
    _, dropped = run(jsonl(tmp_path / "a.jsonl", f'{{"question": "Why?", "answer": {answer}}}'))
    assert [(row["row"], row["fault"]) for row in dropped] == [(21, "empty answer")]
    assert dropped[0]["raw"]["question"] == "Why?"
    assert dropped[0]["source"] == "jsonl"
    assert dropped[0]["file"].endswith("a.jsonl")


def test_empty_questions_and_absent_answers_are_dropped(tmp_path: Path) -> None:
    _, dropped = run(jsonl(tmp_path / "a.jsonl", '{"question": " ", "answer": "Yes."}', '{"question": "Why?"}'))
    assert [row["fault"] for row in dropped] == ["empty question", "empty answer"]


def test_an_answer_that_is_no_text_is_dropped(tmp_path: Path) -> None:
    _, dropped = run(jsonl(tmp_path / "a.jsonl", '{"question": "Why?", "answer": ["a", "b"]}'))
    assert [row["fault"] for row in dropped] == ["not text"]


def test_duplicates_differ_in_case_blanks_and_punctuation_at_most(tmp_path: Path) -> None:
    same = '{"question": "what is  disease 3", "answer": "It is  NUMBER 3."}'
    other = '{"question": "What is disease 3?", "answer": "Another answer."}'
    _, dropped = run(jsonl(tmp_path / "a.jsonl", same, other))
    assert [(row["row"], row["fault"], row["reason"]) for row in dropped] == [
        (21, "duplicate", "same question and answer as row 4")
    ]


def test_an_id_used_twice_is_dropped(tmp_path: Path) -> None:
    lines = [json.dumps({"n": min(n, 18), **row}) for n, row in enumerate(GOOD)]
    _, dropped = run(jsonl(tmp_path / "a.jsonl", *lines, good=0), columns={"id": "n"})
    assert [(row["row"], row["id"], row["fault"]) for row in dropped] == [(20, "18", "id used twice")]


def test_not_utf8_is_refused_with_its_line(tmp_path: Path) -> None:
    error = refused(jsonl(tmp_path / "a.jsonl", b'{"question": "Sj\xf6gren?", "answer": "x"}'))
    assert error.what == "not UTF-8"
    assert "line 21, byte" in error.where
    path = tmp_path / "b.csv"
    path.write_bytes(b"question,answer\nWhat,Sj\xf6gren\n")
    assert "line 2" in refused(path, "csv").where


def test_a_nul_is_dropped(tmp_path: Path) -> None:
    for source, path in (
        ("csv", table(tmp_path / "a.csv", "Wh\0y?,Because.")),
        ("jsonl", jsonl(tmp_path / "a.jsonl", '{"question": "Why?", "answer": "Be\\u0000cause."}')),
    ):
        _, dropped = run(path, source)
        assert [(row["fault"], "NUL" in row["reason"]) for row in dropped] == [("damaged encoding", True)]


def test_a_lost_character_is_dropped(tmp_path: Path) -> None:
    _, dropped = run(jsonl(tmp_path / "a.jsonl", '{"question": "Sj\ufffdgren?", "answer": "x"}'))
    assert dropped[0]["fault"] == "damaged encoding"
    assert "U+FFFD" in dropped[0]["reason"]


def test_half_a_character_is_dropped(tmp_path: Path) -> None:
    _, dropped = run(jsonl(tmp_path / "a.jsonl", r'{"question": "\ud83d?", "answer": "x"}'))
    assert [(row["row"], row["fault"]) for row in dropped] == [(21, "damaged encoding")]


@pytest.mark.parametrize("line", ['{"question": "Why?", "ans', "[1, 2]", "Why?,Because", '"text"', "[" * 100_000])
def test_a_line_that_is_no_json_object_is_dropped(tmp_path: Path, line: str) -> None:
    _, dropped = run(jsonl(tmp_path / "a.jsonl", line))
    assert [(row["row"], row["fault"], row["raw"]) for row in dropped] == [(21, "not JSON", line)]


def test_a_json_array_is_refused_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(GOOD, indent=1))
    assert "jq -c" in refused(path).todo


def test_u2028_does_not_end_a_line(tmp_path: Path) -> None:
    answer = "First.\u2028Second.\x85Third."
    line = json.dumps({"question": "Why so?", "answer": answer}, ensure_ascii=False)
    rundir, dropped = run(jsonl(tmp_path / "a.jsonl", line), validation_fraction=0, test_fraction=0)
    assert not dropped
    rows = [json.loads(text) for text in rundir.split("train").read_text(encoding="utf-8").split("\n") if text]
    assert rows[-1]["target"] == answer
    rundir, dropped = run(table(tmp_path / "a.csv", f'Why so?,"{answer}"'), "csv")
    assert not dropped


@pytest.mark.parametrize("source", ["jsonl", "csv", "medquad", "four_part", "pubmedqa"])
@pytest.mark.parametrize("content", [b"", b"\n \n", gzip.compress(b"", mtime=0)])
def test_an_empty_file_is_refused(tmp_path: Path, source: str, content: bytes) -> None:
    path = tmp_path / "a.data"
    path.write_bytes(content)
    assert refused(path, source).what == "the file is empty"


def test_a_header_alone_is_refused(tmp_path: Path) -> None:
    assert refused(table(tmp_path / "a.csv", good=0), "csv").what == "a header and no rows"


def test_a_cut_last_record_is_dropped(tmp_path: Path) -> None:
    for cut in ('Why so?,"Because of', '"Why s', "Why so?"):
        _, dropped = run(table(tmp_path / "a.csv", cut), "csv")
        assert [(row["row"], row["fault"], row["raw"]) for row in dropped] == [(22, "cut or damaged record", cut)]


def test_the_truncated_medquad_file(shared_data: Path, tmp_path: Path) -> None:
    rundir = RunDir(tmp_path)
    prepare(DataConfig(source="medquad", path=str(shared_data / "medquad" / "medquad_truncated_791.csv")), rundir, 0)
    rows = [json.loads(line) for line in rundir.split("dropped").read_text().strip().split("\n")]
    (dropped,) = [row for row in rows if row["fault"] != "gives a test row away"]  # twins of test rows
    assert (dropped["row"], dropped["fault"]) == (792, "cut or damaged record")
    assert dropped["raw"].startswith("What are the treatments for Vulvar Cancer ?")
    assert json.loads(rundir.data_report.read_text())["rows_read"] == 791


def test_a_stray_quote_drops_its_record_and_says_what_it_swallowed(tmp_path: Path) -> None:
    lines = ('Stray?,"an open quote', "Lost 1?,a", "Lost 2?,b", 'Next?,"fine"', "Last?,fine")
    rundir, dropped = run(table(tmp_path / "a.csv", *lines), "csv", validation_fraction=0, test_fraction=0)
    assert [row["row"] for row in dropped] == [22]
    assert "about 3 rows" in dropped[0]["reason"]
    assert "Last?" in rundir.split("train").read_text()


def test_a_quote_that_swallows_most_of_the_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("\n".join(["question,answer", "A?,fine", 'B?,"open', *(f"C{n}?,lost" for n in range(9))]))
    assert "about 9 rows" in refused(path, "csv").todo


def test_a_cut_gzip_file_is_refused(tmp_path: Path) -> None:
    whole = gzip.compress(table(tmp_path / "b.csv").read_bytes())
    path = tmp_path / "a.csv.gz"
    path.write_bytes(whole[: len(whole) // 2])
    assert "damaged or cut" in refused(path, "csv").what


def test_a_file_that_loses_more_than_half_is_refused_with_the_reasons(tmp_path: Path) -> None:
    error = refused(jsonl(tmp_path / "a.jsonl", *(f"line {n}" for n in range(21))))
    assert error.what == "21 of 41 rows would be dropped"
    assert "21 × not JSON, first in row 21" in error.todo
    run(jsonl(tmp_path / "a.jsonl", *(f"line {n}" for n in range(20))))


def test_packaged_test_rows_do_not_outweigh_a_bad_file(tmp_path: Path) -> None:
    error = refused(jsonl(tmp_path / "a.jsonl", '{"instruction": "", "output": ""}', good=0), "four_part")
    assert error.what == "1 of 1 rows would be dropped"


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"1": "text"}', '{"1": {"question": "?"}}', r'{"1": {"QUESTION": "\ud83d"}}']
)
def test_a_file_that_is_not_pubmedqa_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    assert "ori_pqal.json" in refused(path, "pubmedqa").todo


def test_odd_numbers_reach_dropped_as_they_are(tmp_path: Path) -> None:
    line = '{"question": "Why?", "answer": "", "n": 123456789012345678901234567890}'
    _, dropped = run(jsonl(tmp_path / "a.jsonl", line))
    assert dropped[0]["raw"]["n"] == 123456789012345678901234567890


@pytest.mark.parametrize("source", ["csv", "jsonl", "medquad", "four_part", "pubmedqa"])
def test_no_path_no_file_and_a_folder(tmp_path: Path, source: str) -> None:
    for path in ("", str(tmp_path / "absent.csv"), str(tmp_path)):
        with pytest.raises(DataError) as caught:
            prepare(DataConfig(source=source, path=path), RunDir(tmp_path / "run"), 0)
        assert "data.path" in caught.value.todo
    assert not (tmp_path / "run").exists()


def test_config_conflicts_are_found_before_anything_runs() -> None:
    assert "did you mean" in DataConfig(source="pubmedq").conflicts()[0]
    assert 'did you mean "answer"' in DataConfig(source="csv", columns={"anser": "a"}).conflicts()[0]
    assert "no effect" in DataConfig(source="medquad", columns={"answer": "a"}).conflicts()[0]
    assert "does not fit" in DataConfig(source="medquad", task="choice").conflicts()[0]
    assert [DataConfig(source=name).task for name in ("terms", "medquad", "pubmedqa", "jsonl", "nano_corpus")] == [
        "terms",
        "qa",
        "choice",
        "qa",
        "text",
    ]
