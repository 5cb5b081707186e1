"""What the data stage writes: parts that do not leak, the published sets with their known counts."""

import json
from pathlib import Path

import pytest

from medmind.core.errors import DataError
from medmind.core.jsonl import read_jsonl
from medmind.core.rundir import RunDir, sha256_file, sha256_lines
from medmind.core.types import Example
from medmind.data.config import DataConfig
from medmind.data.sources import pubmedqa
from medmind.data.sources.facts import read_facts
from medmind.data.sources.known import SOURCES
from medmind.data.split import medquad_part, normalise_name
from medmind.data.stage.assemble import assemble
from medmind.data.stage.prepare import prepare
from medmind.prompts.tasks.terms import four_parts
from medmind.safety.texts import NOTE

PARTS = ("train", "validation", "test")


def ids(rundir: RunDir, part: str) -> list[str]:
    return [row["id"] for row in read_jsonl(rundir.split(part))]


def write_rows(path: Path, rows: list[dict[str, str]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def numbered(count: int, groups: int = 0) -> list[dict[str, str]]:
    rows = [{"question": f"Question {n}?", "answer": f"Answer {n}."} for n in range(count)]
    return [row | {"topic": f"topic {n % groups}"} for n, row in enumerate(rows)] if groups else rows


def four_part_row(term: str) -> dict[str, str]:
    reply = f"**Definition**: {term} is a word.\n\n**Explanation**: It has some letters.\n\n"
    reply += f"**Clinical Relevance**: It helps in tests.\n\n**Note**: {NOTE}"
    return {"instruction": f"Explain the medical term: {term}", "input": "", "output": reply, "category": "words"}


def test_the_packaged_terms(tmp_path: Path) -> None:
    rundir = RunDir(tmp_path)
    written = prepare(DataConfig(), rundir, seed=0)
    assert {name: len(ids(rundir, name)) for name in PARTS} == {"train": 135, "validation": 15, "test": 50}
    assert all(path.is_file() for path in written)
    assert {path.relative_to(rundir.data).as_posix() for path in written} == {
        *(f"{name}.jsonl" for name in (*PARTS, "dropped")),
        "suites/terms.jsonl",
        "report.json",
        "findings.jsonl",
        "licences.json",
    }
    assert rundir.suite("terms").read_bytes() == rundir.split("test").read_bytes()
    first = Example.model_validate(next(read_jsonl(rundir.split("train"))))
    assert first.turns[-1].text == "Explain the medical abbreviation: BP"
    assert first.metadata["category"] == "abbreviations"
    for row in read_facts():
        parts = four_parts(row.example.target)
        assert isinstance(parts, dict), parts
        assert parts["Note"] == NOTE


def test_the_report_and_the_licences_say_what_happened(tmp_path: Path) -> None:
    rundir = RunDir(tmp_path / "run")
    rows = [*numbered(30), {"question": "", "answer": "x"}, numbered(1)[0]]
    path = write_rows(tmp_path / "a.jsonl", rows)
    prepare(DataConfig(source="jsonl", path=path), rundir, seed=0)
    report = json.loads(rundir.data_report.read_text())
    assert report["rows_read"] == 32
    assert sum(report["parts"].values()) == 30
    assert {name: found["count"] for name, found in report["dropped"]["by_reason"].items()} == {
        "empty question": 1,
        "duplicate": 1,
    }
    assert report["dropped"]["by_reason"]["duplicate"]["examples"][0]["row"] == 32
    assert report["ids_sha256"] == {name: sha256_lines(ids(rundir, name)) for name in PARTS}
    (licence,) = json.loads(rundir.licences.read_text())
    assert licence["sha256"] == sha256_file(Path(path))


def test_four_part_rows_never_ask_for_a_test_term(tmp_path: Path) -> None:
    test_term = next(row.example.metadata["term"] for row in read_facts() if row.part == "test")
    terms = ["Ague", "Humours", "Phlegm", test_term.upper()]
    path = write_rows(tmp_path / "a.jsonl", [four_part_row(term) for term in terms])
    for source in ("four_part", "terms"):
        prepared = assemble(DataConfig(source=source, path=path, validation_fraction=0), seed=0)
        assert [row.group for row in prepared.parts["train"]] == terms[:3]
        assert [(one.row, one.fault.value) for one in prepared.dropped] == [(4, "term of the test rows")]
        assert len(prepared.parts["test"]) == 50


def test_a_reply_that_is_not_in_four_parts_is_dropped(tmp_path: Path) -> None:
    bad = four_part_row("Ague") | {"output": "Ague is a fever."}
    path = write_rows(tmp_path / "a.jsonl", [four_part_row("Humours"), four_part_row("Phlegm"), bad])
    (dropped,) = assemble(DataConfig(path=path, validation_fraction=0), seed=0).dropped
    assert (dropped.row, dropped.fault.value) == (3, "answer not in the task's form")
    assert "**Definition**" in dropped.reason


def test_the_published_four_part_set(shared_data: Path) -> None:
    prepared = assemble(DataConfig(path=str(shared_data / "seed_terms" / "medical_qa_train.jsonl")), seed=0)
    assert len(prepared.parts["train"]) + len(prepared.parts["validation"]) == 65
    assert not prepared.dropped
    asked = {normalise_name(row.group) for name in ("train", "validation") for row in prepared.parts[name]}
    assert not asked & {normalise_name(row.group) for row in prepared.parts["test"]}


def test_medquad_keeps_to_its_groups(shared_data: Path) -> None:
    path = str(shared_data / "medquad" / "medquad_kaggle_form.csv.gz")
    prepared = assemble(
        DataConfig.model_validate({"source": "medquad", "path": path, "phi": {"action": "off"}}), seed=0
    )
    counts = {name: len(rows) for name, rows in prepared.parts.items()}
    assert prepared.rows_read == {path: 16412}
    assert prepared.left_to_pretraining == 6433
    assert sum(counts.values()) + prepared.left_to_pretraining + len(prepared.dropped) == 16412
    assert counts["test"] == 1616
    groups = {name: {normalise_name(row.group) for row in rows} for name, rows in prepared.parts.items()}
    for name, found in groups.items():
        wanted = "test" if name == "test" else "train"
        assert {medquad_part(group) for group in found} == {wanted}
    assert not groups["train"] & groups["validation"]
    assert not any(row.turns[-1].text.endswith(" ?") or "  " in row.target for row in prepared.parts["train"])
    empty = [one for one in prepared.dropped if one.fault.value == "empty answer"]
    assert [one.row for one in empty] == [3647]


def test_pubmedqa_official_ids_are_the_test_and_nothing_else(shared_data: Path) -> None:
    path = str(shared_data / "pubmedqa" / "ori_pqal.json.gz")
    prepared = assemble(DataConfig(source="pubmedqa", path=path), seed=0)
    labels = pubmedqa.official_labels()
    assert {row.id: row.target for row in prepared.parts["test"]} == labels
    learnt = {row.id for name in ("train", "validation") for row in prepared.parts[name]}
    assert len(learnt) == 500
    assert not learnt & set(labels)
    row = prepared.parts["train"][0]
    assert row.options == ("yes", "no", "maybe")
    assert row.passages
    assert row.reasoning


def official(extra: dict[str, dict[str, object]]) -> dict[str, dict[str, object]]:
    items = {
        name: {"QUESTION": f"Is {name} so?", "CONTEXTS": ["Text."], "LONG_ANSWER": "Why.", "final_decision": label}
        for name, label in pubmedqa.official_labels().items()
    }
    return items | extra


def test_pubmedqa_refuses_a_file_that_is_not_the_official_one(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    items = official({})
    first, second = list(items)[:2]
    del items[first]
    items[second]["final_decision"] = "maybe"
    path.write_text(json.dumps(items))
    with pytest.raises(DataError, match="1 of the 500 official test ids are missing, 1 have another label"):
        assemble(DataConfig(source="pubmedqa", path=str(path)), seed=0)


def test_pubmedqa_rows_with_faults_are_dropped(tmp_path: Path) -> None:
    row = {"QUESTION": "Is it?", "CONTEXTS": ["A."], "LONG_ANSWER": "B.", "final_decision": "yes"}
    extra = {"a": row, "b": row | {"final_decision": "perhaps"}, "c": row | {"CONTEXTS": "A."}}
    path = tmp_path / "a.json"
    path.write_text(json.dumps(official(extra)))
    prepared = assemble(DataConfig(source="pubmedqa", path=str(path), validation_fraction=0), seed=0)
    assert [(one.id, one.fault.value) for one in prepared.dropped] == [
        ("b", "answer not in the task's form"),
        ("c", "not text"),
    ]
    assert [one.id for one in prepared.parts["train"]] == ["a"]


def test_changed_test_ids_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = tmp_path / "ids.json"
    changed.write_bytes(pubmedqa.LABELS.read_bytes().replace(b"yes", b"no", 1))
    monkeypatch.setattr(pubmedqa, "LABELS", changed)
    with pytest.raises(DataError, match="not as shipped"):
        pubmedqa.official_labels()


def test_groups_stay_whole_and_questions_too(tmp_path: Path) -> None:
    rows = numbered(200, groups=40)
    rows = [row | {"topic": row["topic"].upper()} if n % 2 else row for n, row in enumerate(rows)]
    path = write_rows(tmp_path / "a.jsonl", rows)
    prepared = assemble(DataConfig(source="jsonl", path=path, columns={"group": "topic"}), seed=3)
    groups = [{row.group.lower() for row in prepared.parts[name]} for name in PARTS]
    assert [len(prepared.parts[name]) for name in PARTS] == [160, 20, 20]
    assert not groups[0] & groups[1] | groups[0] & groups[2] | groups[1] & groups[2]
    again = [{"question": f"Question {n % 50}?", "answer": f"Answer {n}."} for n in range(200)]
    prepared = assemble(DataConfig(source="jsonl", path=write_rows(tmp_path / "b.jsonl", again)), seed=3)
    asked = [{row.turns[-1].text for row in prepared.parts[name]} for name in PARTS]
    assert not prepared.dropped
    assert not asked[0] & asked[1] | asked[0] & asked[2] | asked[1] & asked[2]


def test_a_question_in_two_parts_leaves_the_training_rows(tmp_path: Path) -> None:
    rows = numbered(100, groups=100)
    rows += [{"question": f"QUESTION {n}", "answer": "Another.", "topic": "all the same"} for n in range(40)]
    config = DataConfig(source="jsonl", path=write_rows(tmp_path / "a.jsonl", rows), columns={"group": "topic"})
    prepared = assemble(config, seed=1)
    asked = [{normalise_name(row.turns[-1].text) for row in prepared.parts[name]} for name in PARTS]
    assert not asked[0] & asked[1] | asked[0] & asked[2] | asked[1] & asked[2]
    assert {one.fault.value for one in prepared.dropped} == {"question also in test", "question also in validation"}


def test_one_seed_one_result_and_rows_in_file_order(tmp_path: Path) -> None:
    config = DataConfig(source="jsonl", path=write_rows(tmp_path / "a.jsonl", numbered(60)))
    first, second, other = (
        {name: list(rows) for name, rows in assemble(config, seed=seed).parts.items()} for seed in (1, 1, 2)
    )
    assert first == second
    assert first["test"] != other["test"]
    for rows in first.values():
        numbers = [int(row.target.split()[1].rstrip(".")) for row in rows]
        assert numbers == sorted(numbers)


def test_samples_are_no_prefix_and_are_counted(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", numbered(100))
    whole = list(assemble(DataConfig(source="jsonl", path=path), seed=0).parts["train"])
    prepared = assemble(DataConfig(source="jsonl", path=path, max_train_rows=20, max_test_rows=4), seed=0)
    assert {name: len(rows) for name, rows in prepared.parts.items()} == {"train": 20, "validation": 2, "test": 4}
    assert prepared.not_sampled == {"train": 60, "validation": 8, "test": 6}
    taken = list(prepared.parts["train"])
    assert taken != whole[:20]
    assert [row for row in whole if row in taken] == taken


def test_no_training_rows_is_an_error(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", numbered(10, groups=1))
    with pytest.raises(DataError, match="no training rows"):
        prepare(DataConfig(source="jsonl", path=path, columns={"group": "topic"}), RunDir(tmp_path / "run"), 0)
    assert not (tmp_path / "run").exists()


def test_a_context_column_becomes_a_passage_and_part_of_the_question(tmp_path: Path) -> None:
    rows = [{"question": "What is it?", "answer": "A cold.", "note": f"Patient {n}."} for n in range(10)]
    config = DataConfig(
        source="jsonl", path=write_rows(tmp_path / "a.jsonl", rows), columns={"context": "note"}, test_fraction=0.2
    )
    prepared = assemble(config, seed=0)
    assert not prepared.dropped
    assert prepared.parts["train"][0].passages[0].text == "Patient 0."


def test_a_suite_of_an_earlier_source_does_not_stay(tmp_path: Path) -> None:
    rundir = RunDir(tmp_path / "run")
    prepare(DataConfig(), rundir, seed=0)
    prepare(DataConfig(source="jsonl", path=write_rows(tmp_path / "a.jsonl", numbered(30))), rundir, seed=0)
    assert rundir.suites() == ["custom"]


def test_passages_for_pretraining_have_parts_but_no_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(path: str) -> list[tuple[Example, str]]:
        texts = [f"Passage {n}." for n in range(20)] + ["PASSAGE  3.", "Held out.", "Passage 5."]
        parts = ["train"] * 21 + ["validation"] * 2
        return [
            (Example(id=f"p{n}", source="prose", task="text", target=text), part)
            for n, (text, part) in enumerate(zip(texts, parts, strict=True))
        ]

    monkeypatch.setattr("medmind.data.sources.nano_corpus.read", fake)
    prepared = assemble(DataConfig(source="nano_corpus", path=str(tmp_path)), seed=0)
    assert [row.target for row in prepared.parts["validation"]] == ["Held out.", "Passage 5."]
    assert {(one.row, one.fault.value) for one in prepared.dropped} == {(21, "duplicate"), (6, "duplicate")}
    assert (len(prepared.parts["train"]), len(prepared.parts["test"])) == (19, 0)
    assert SOURCES.get("nano_corpus").suite == ""
