"""The published training sets in all their forms: the known counts on the real files, and what each form lacks."""

import csv
import gzip
import json
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from source_rows import FORMATS, read, refused, write

from medmind.data.config import DataConfig
from medmind.data.sources import pubmedqa
from medmind.data.sources.known import SOURCES
from medmind.data.sources.medquad import focus_of
from medmind.data.sources.seam import Fault, Row
from medmind.prompts.tasks.known import TASKS

KAGGLE = "medquad/medquad_kaggle_form.csv.gz"
PAGE = """<?xml version="1.0" encoding="UTF-8"?>
<Document id="1" source="GARD" url="https://example.org/1"><Focus>Ague</Focus><QAPairs><QAPair pid="1">
<Question qid="1-1" qtype="information">What is (are) Ague ?</Question><Answer>A fever,
   layout   and all.</Answer></QAPair></QAPairs></Document>"""


def ids(rows: list[Row]) -> set[str]:
    return {row.example.id for row in rows}


@pytest.fixture(scope="module")
def kaggle(shared_data: Path) -> list[dict[str, Any]]:
    with gzip.open(shared_data / KAGGLE, "rt", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_medquads_xml_holds_the_kaggle_rows_and_the_withdrawn_and_the_oldest_ones(shared_data: Path) -> None:
    """16,412 pairs; 260 whose answers were withdrawn; 16 in older tags; six pages without a pair."""
    table, no_focus = read("medquad", shared_data / KAGGLE)
    pages, dropped = read("medquad", shared_data / "medquad" / "medquad_xml.tar.gz")
    assert len(table) + len(no_focus) == 16412
    faults = Counter(one.fault for one in dropped)
    assert faults == {Fault.WITHDRAWN: 260, Fault.NO_GROUP: 14, Fault.CUT: 6}
    assert len(pages) + len(dropped) - faults[Fault.WITHDRAWN] - faults[Fault.CUT] == 16412 + 16
    assert len(ids(pages) - ids(table)) == 16
    assert ids(table) < ids(pages)
    parts = {row.example.id: row.part for row in pages}
    assert all(parts[row.example.id] == row.part for row in table)
    assert pages[0].raw["file"].endswith(".xml")
    assert pages[0].example.metadata["url"].startswith("https://")


def test_a_folder_of_pages_a_page_and_a_damaged_one(tmp_path: Path) -> None:
    folder = tmp_path / "MedQuAD" / "2_GARD_QA"
    folder.mkdir(parents=True)
    (folder / "1.xml").write_text(PAGE)
    (folder / "2.xml").write_text(PAGE[:-30])
    (folder / "3.xml").write_text(PAGE.replace("<QAPair ", "<Gone ").replace("</QAPair>", "</Gone>"))
    (folder.parent / "readme.txt").write_text("not a page")
    (row,), dropped = read("medquad", folder.parent)
    assert row.example.target == "A fever, layout and all."
    assert row.example.turns[0].text == "What is (are) Ague?"
    assert (row.example.group, row.example.metadata["type"]) == ("Ague", "information")
    assert [(one.row, one.fault) for one in dropped] == [(2, Fault.CUT), (3, Fault.CUT)]
    assert "2_GARD_QA/2.xml" in dropped[0].reason
    (origin,) = SOURCES.get("medquad").origins(DataConfig(source="medquad", path=str(folder.parent)))
    assert origin.path == folder
    assert len(read("medquad", folder / "1.xml")[0]) == 1
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(folder / "1.xml", "1.xml")
    assert ids(read("medquad", tmp_path / "a.tar")[0]) == {row.example.id}
    (tmp_path / "cut.tar").write_bytes((tmp_path / "a.tar").read_bytes()[:700])
    assert "cut" in refused("medquad", tmp_path / "cut.tar").what


def test_the_hubs_copies_of_medquad_are_the_same_rows(kaggle: list[dict[str, Any]], tmp_path: Path) -> None:
    some = kaggle[::40]
    whole = write(
        tmp_path / "lavita.parquet",
        [
            {
                "document_source": row["source"],
                "document_url": "https://example.org",
                "question_focus": row["focus_area"],
                "question_type": "information",
                "question": row["question"],
                "answer": row["answer"],
            }
            for row in some
        ],
    )
    original, _ = read("medquad", write(tmp_path / "kaggle.csv", some))
    assert ids(read("medquad", whole)[0]) == ids(original)
    withdrawn = {"document_source": "ADAM", "question_focus": "Arm", "question": "What is Arm ?", "answer": None}
    ((), (one,)) = read("medquad", write(tmp_path / "none.jsonl", [withdrawn | {"question_type": "x"}]))
    assert one.fault == Fault.WITHDRAWN


def test_the_copy_without_a_focus_is_told_it_by_the_wording_or_left_out(
    kaggle: list[dict[str, Any]], tmp_path: Path
) -> None:
    """A focus that is told wrongly would put a topic on both sides of the split."""
    rows = [{"qtype": "", "Question": row["question"], "Answer": row["answer"]} for row in kaggle]
    kept, dropped = read("medquad", write(tmp_path / "keivalya.csv", rows))
    true = {row.number: kaggle[row.number - 2]["focus_area"] for row in kept}
    assert {row.number: row.example.group for row in kept} == {
        number: " ".join(focus.split()) for number, focus in true.items()
    }
    assert len(kept) == 16369
    assert {one.fault for one in dropped} == {Fault.NO_GROUP}
    assert focus_of("what is botulism?") == ""


def test_a_table_that_is_no_medquad_lists_its_columns(tmp_path: Path) -> None:
    error = refused("medquad", write(tmp_path / "a.csv", [{"question": "?", "answer": "!", "topic": "x"}]))
    assert 'no column "focus_area"' in error.what
    assert "question, answer, topic" in error.todo


def test_the_truncated_medquad_csv_loses_its_last_record_only(shared_data: Path) -> None:
    rows, (last,) = read("medquad", shared_data / "medquad" / "medquad_truncated_791.csv")
    assert (len(rows), last.row, last.fault) == (790, 792, Fault.CUT)


def pubmedqa_rows(shared_data: Path) -> list[dict[str, Any]]:
    """As the Hub has them: nested."""
    items = json.loads(gzip.decompress((shared_data / "pubmedqa" / "ori_pqal.json.gz").read_bytes()))
    return [
        {
            "pubid": int(name),
            "question": item["QUESTION"],
            "context": {"contexts": item["CONTEXTS"], "labels": item["LABELS"], "meshes": item["MESHES"]},
            "long_answer": item["LONG_ANSWER"],
            "final_decision": item["final_decision"],
        }
        for name, item in items.items()
    ]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.parquet", "a.csv", "a.jsonl.gz"])
def test_pubmedqa_from_the_hub_is_pubmedqa_from_github(shared_data: Path, tmp_path: Path, name: str) -> None:
    github, _ = read("pubmedqa", shared_data / "pubmedqa")
    rows = pubmedqa_rows(shared_data)
    if name == "a.csv":
        rows = [row | {"context": row["context"]["contexts"]} for row in rows]
    hub, dropped = read("pubmedqa", write(tmp_path / name, rows))
    assert not dropped
    titles = {"passages": {"__all__": {"title"}}} if name == "a.csv" else None
    assert [row.example.model_dump(exclude=titles) for row in hub] == [
        row.example.model_dump(exclude=titles) for row in github
    ]
    assert Counter(row.part for row in hub) == {"train": 500, "test": 500}
    assert Counter(row.example.target for row in hub) == {"yes": 552, "no": 338, "maybe": 110}


def test_pubmedqas_settings_show_what_they_say(shared_data: Path) -> None:
    shown = {}
    for setting in ("reasoning-required", "reasoning-free", "question-only"):
        row = read("pubmedqa", shared_data / "pubmedqa", setting=setting)[0][0]
        shown[setting] = [passage.text for passage in row.example.passages], row.example.reasoning
        assert row.example.metadata["setting"] == setting
    (abstract, conclusion) = shown["reasoning-required"]
    assert len(abstract) == 2
    assert shown["reasoning-free"] == ([conclusion], "")
    assert shown["question-only"] == ([], conclusion)


def test_pubmedqa_with_two_labels_leaves_maybe_out_and_is_another_suite(shared_data: Path) -> None:
    rows, dropped = read("pubmedqa", shared_data / "pubmedqa", labels="yes/no")
    assert (len(rows), {one.fault for one in dropped}, len(dropped)) == (890, {Fault.LEFT_OUT}, 110)
    assert {row.example.options for row in rows} == {("yes", "no")}
    names = [
        pubmedqa.PUBMEDQA.suite_of(DataConfig(source="pubmedqa", **settings))
        for settings in ({}, {"setting": "question-only"}, {"setting": "reasoning-free", "labels": "yes/no"})
    ]
    assert names == ["pubmedqa", "pubmedqa-question-only", "pubmedqa-reasoning-free-yes-no"]


def test_medical_o1_with_its_reasoning_and_without(shared_data: Path) -> None:
    rows, dropped = read("medical_o1", shared_data / "medical_o1")
    assert (len(rows), dropped) == (198, [])
    example, task = rows[0].example, TASKS.get("reasoned")
    reply = task.reply(example)
    assert reply == f"## Thinking\n\n{example.reasoning}\n\n## Final Response\n\n{example.target}"
    assert task.read(reply, example).text == example.target
    for bad in (example.target, reply.replace("## Thinking", "Thinking:"), reply.partition(example.target)[0]):
        assert task.read(bad, example).outcome == "malformed"
    plain, _ = read("medical_o1", shared_data / "medical_o1", task="qa")
    assert [row.example.id for row in plain] == [row.example.id for row in rows]
    assert TASKS.get("qa").reply(plain[0].example) == example.target
    assert not any(row.example.reasoning for row in plain)


@pytest.mark.parametrize("name", FORMATS)
def test_older_spellings_of_medical_o1_and_an_empty_reasoning(tmp_path: Path, name: str) -> None:
    rows = [
        {"question": "Why?", "complex_cot": "Because of this.", "response": "So."},
        {"question": "How?", "complex_cot": "", "response": "Thus."},
    ]
    (kept,), (dropped,) = read("medical_o1", write(tmp_path / f"a.{name}", rows))
    assert (kept.example.reasoning, dropped.fault) == ("Because of this.", Fault.NO_REASONING)
    assert len(read("medical_o1", tmp_path / f"a.{name}", task="qa")[0]) == 2
    error = refused("medical_o1", write(tmp_path / f"b.{name}", [{"question": "Why?", "text": "So."}]))
    assert "question, text" in error.todo


@pytest.mark.parametrize("name", FORMATS)
def test_synthetic_medical_qa(tmp_path: Path, name: str) -> None:
    rows = [{"question": "Why?", "response": "So."}, {"question": "How?", "response": "Thus."}]
    kept, _ = read("synthetic_qa", write(tmp_path / f"a.{name}", rows))
    assert [(row.example.turns[0].text, row.example.target) for row in kept] == [("Why?", "So."), ("How?", "Thus.")]
    renamed = [{"question": row["question"], "answer": row["response"]} for row in rows]
    assert [row.example.id for row in read("synthetic_qa", write(tmp_path / f"b.{name}", renamed))[0]] == [
        row.example.id for row in kept
    ]
    error = refused("synthetic_qa", write(tmp_path / f"c.{name}", [{"frage": "Why?"}]))
    assert ('no column "question"' in error.what, "the file has: frage" in error.todo) == (True, True)


def test_the_published_four_part_set_and_wikidoc(shared_data: Path) -> None:
    rows, dropped = read("four_part", shared_data / "seed_terms")
    assert (Counter(row.part for row in rows), dropped) == ({"train": 65, "test": 50}, [])
    rows, dropped = read("alpaca", shared_data / "instruct")
    assert (len(rows), dropped) == (5942, [])
    assert (
        rows[0].example.turns[0].text.startswith("Answer this question truthfully\nWhat are the symptoms of Allergy?")
    )
