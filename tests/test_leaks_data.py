"""Leaks planted among real rows are found; sets that share nothing are clean.

One worker runs all of it, as the sets are read once.
"""

import random
from functools import cache
from pathlib import Path

import pytest
from leaking import compare

from medmind.core.types import Example, Message
from medmind.data.config import DataConfig, PhiConfig
from medmind.data.leaks.report import Method, SuiteLeaks
from medmind.data.sources.known import SOURCES
from medmind.data.sources.seam import Row
from medmind.data.split import normalise_name
from medmind.data.stage.assemble import assemble

FILES = {
    "medquad": "medquad/medquad_kaggle_form.csv.gz",
    "medmcqa": "medmcqa/dev.json.gz",
    "medqa": "medqa/phrases_no_exclude_test.jsonl.gz",
    "pubmedqa": "pubmedqa/ori_pqal.json.gz",
    "medical_o1": "medical_o1/medical_o1_sft_demo198.json.gz",
}
SETS = ("medquad", "medqa", "medmcqa")
PLANTED = 200

pytestmark = pytest.mark.xdist_group("leaks")


@cache
def rows(folder: Path, source: str, part: str | None) -> tuple[Example, ...]:
    read = SOURCES.get(source).read(DataConfig(source=source, path=str(folder / FILES[source])))
    return tuple(row.example for row in read if isinstance(row, Row) and row.part == part)


def innocent(folder: Path) -> tuple[Example, ...]:
    return rows(folder, "medquad", "train")[:500]


def planted_in(folder: Path, source: str) -> tuple[list[Example], random.Random]:
    """Some test rows with an answer that is a text, where there are such."""
    rng = random.Random(source)
    test = [row for row in rows(folder, source, "test") if row.options or len(row.target.split()) >= 8]
    return rng.sample(test, PLANTED), rng


def copy(row: Example, question: str, answer: str) -> Example:
    """As a training row of somebody who knows neither the id nor the group."""
    turns = (Message(role="user", text=question),)
    return Example(id=f"copy {row.id}", source="theirs", task="qa", turns=turns, target=answer)


def recall(folder: Path, source: str, copies: list[Example]) -> float:
    found = judge([*innocent(folder), *copies], rows(folder, source, "test"))
    caught = {leak.test for leak in found.leaks if leak.train.startswith("copy ")}
    return len(caught & {one.id.removeprefix("copy ") for one in copies}) / len(copies)


def judge(train: list[Example], test: tuple[Example, ...]) -> SuiteLeaks:
    return compare(train, {"suite": test}, allow="a test").suites["suite"]


def asked(row: Example) -> str:
    """The question as a text, with the options below it where it has some."""
    return "\n".join((row.turns[0].text, *row.options))


def exchange(text: str, vocabulary: list[str], rng: random.Random, share: float = 0.3) -> str:
    words = text.split()
    for place in rng.sample(range(len(words)), round(share * len(words))):
        words[place] = rng.choice(vocabulary)
    return " ".join(words)


@pytest.mark.parametrize("source", [*SETS, "pubmedqa"])
def test_every_copy_is_found_whatever_its_case_and_blanks(shared_data: Path, source: str) -> None:
    chosen, _ = planted_in(shared_data, source)
    verbatim = [copy(row, row.turns[0].text, row.target).model_copy(update={"options": row.options}) for row in chosen]
    shouted = [copy(row, f"  {asked(row).upper()} ", row.target.replace(" ", "  ").lower()) for row in chosen]
    assert recall(shared_data, source, verbatim) == 1
    assert recall(shared_data, source, shouted) == 1


def test_answers_moved_to_other_questions_are_found(shared_data: Path) -> None:
    chosen, rng = planted_in(shared_data, "medquad")
    others = innocent(shared_data)
    moved = [copy(row, rng.choice(others).turns[0].text, row.target) for row in chosen]
    assert recall(shared_data, "medquad", moved) >= 0.95


@pytest.mark.parametrize("source", SETS)
def test_rows_with_three_words_in_ten_exchanged_are_found(shared_data: Path, source: str) -> None:
    chosen, rng = planted_in(shared_data, source)
    vocabulary = sorted({word for row in rows(shared_data, source, "test") for word in asked(row).split()})
    noisy = [copy(row, *(exchange(text, vocabulary, rng) for text in (asked(row), row.target))) for row in chosen]
    assert recall(shared_data, source, noisy) >= 0.8


@pytest.mark.parametrize("source", ["medmcqa", "medqa", "pubmedqa"])
def test_medquad_gives_nothing_of_other_sets_away(shared_data: Path, source: str) -> None:
    found = judge([*rows(shared_data, "medquad", "train")], rows(shared_data, source, "test"))
    assert {method: one.count for method, one in found.methods.items()} == dict.fromkeys(Method, 0)


def test_medquad_cut_by_group_gives_nothing_of_itself_away(shared_data: Path) -> None:
    """As the data stage leaves it: some topics share their answers, and few rows go for it."""
    path = str(shared_data / FILES["medquad"])
    parts = assemble(DataConfig(source="medquad", path=path, phi=PhiConfig(action="off")), seed=0).parts
    for train in (list(parts["train"]), random.Random(0).sample(list(parts["train"]), 1000)):
        found = judge(train, tuple(parts["test"]))
        assert {method: one.count for method, one in found.methods.items()} == dict.fromkeys(Method, 0)
    groups = [{normalise_name(row.group) for row in parts[name]} for name in ("train", "test")]
    assert not groups[0] & groups[1]
    assert len(parts["train"]) + len(parts["validation"]) > 0.95 * len(rows(shared_data, "medquad", "train"))


def test_the_answers_that_topics_share_are_seen_before(shared_data: Path) -> None:
    found = judge([*rows(shared_data, "medquad", "train")], rows(shared_data, "medquad", "test"))
    assert (
        found.methods[Method.ID].count == found.methods[Method.PAIR].count == found.methods[Method.QUESTION].count == 0
    )
    assert 0.01 < found.by_words < 0.06
    asked_of = {row.id: row.group for part in ("train", "test") for row in rows(shared_data, "medquad", part)}
    pairs = {(asked_of[leak.train], asked_of[leak.test]) for leak in found.leaks}
    assert ("Axenfeld-Rieger syndrome type 1", "Axenfeld-Rieger syndrome type 2") in pairs


def test_a_set_made_of_an_exam_by_rewording_it_is_seen(shared_data: Path) -> None:
    """medical-o1 rewrites exam questions; the 13-grams its demo shares with MedQA are stock phrases."""
    train = [*rows(shared_data, "medical_o1", None)]
    assert judge(train, rows(shared_data, "medqa", "test")).leaks == ()
    reworded = judge(train, rows(shared_data, "medmcqa", "test")).methods[Method.MINHASH]
    assert reworded.count == 2
    assert "uvula" in next(row.turns[0].text for row in train if row.id == reworded.examples[0].train)
