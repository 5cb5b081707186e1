"""Splits: whole groups, every label in proportion, the same as a plain reading of the rules; and what is refused."""

import csv
import json
import random
from pathlib import Path

import numpy as np
import pytest

from medmind.core.errors import DataError
from medmind.core.types import Example, Message
from medmind.data.checks import text_key
from medmind.data.config import DataConfig
from medmind.data.sources.seam import Fault
from medmind.data.split import carve
from medmind.data.stage.assemble import assemble
from medmind.data.stage.decide import OPEN, TEST, TRAIN, VALIDATION, alive, drop_leaks, drop_repeats
from medmind.data.stage.spool import FACTS, FAULTS
from medmind.data.stage.topics import shared_topics

LABELS = ("yes", "no", "maybe")


def write_rows(path: Path, rows: list[dict[str, str]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def slow_carve(groups: list[str], fraction: float, seed: int) -> set[int]:
    """The rule without labels, in words: shuffle the names, take every whole group for which there is room."""
    names = sorted(set(groups))
    random.Random(seed).shuffle(names)
    chosen: set[int] = set()
    for name in names:
        members = {index for index, group in enumerate(groups) if group == name}
        if len(chosen | members) <= round(fraction * len(groups)):
            chosen |= members
    return chosen


def keyed(names: list[str]) -> tuple[np.ndarray, dict[int, str]]:
    return np.array([text_key(name) for name in names], "u8"), {text_key(name): name for name in names}


@pytest.mark.parametrize("seed", range(5))
def test_without_labels_it_is_the_plain_rule(seed: int) -> None:
    names = [f"group {random.Random(seed * 1000 + n).randrange(40)}" for n in range(200)]
    groups, known = keyed(names)
    for fraction in (0.0, 0.1, 0.33):
        chosen = carve(groups, np.zeros(200, int), known, fraction, seed)
        assert set(np.flatnonzero(chosen)) == slow_carve(names, fraction, seed)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("large", [600, 900])
def test_one_large_group_stays_in_train(seed: int, large: int, tmp_path: Path) -> None:
    rows = [
        {"question": f"What is sign {n}?", "answer": f"Number {n}.", "who": "one" if n < large else f"other {n}"}
        for n in range(1000)
    ]
    columns = {"question": "question", "answer": "answer", "group": "who"}
    config = DataConfig(source="jsonl", path=write_rows(tmp_path / "a.jsonl", rows), columns=columns)
    prepared = assemble(config, seed)
    sizes = {part: len(found) for part, found in prepared.parts.items()}
    assert sizes == {"train": 800, "validation": 100, "test": 100} if large == 600 else sizes["train"] == 900
    assert prepared.uneven == ({} if large == 600 else {"validation": {"asked_for": 100, "rows": 0}})


def test_where_no_group_is_small_enough_the_smallest_is_taken_but_never_the_only_one() -> None:
    groups, names = keyed(["a"] * 50 + ["b"] * 20 + ["c"] * 30)
    assert np.flatnonzero(carve(groups, np.zeros(100, int), names, 0.1, 0)).tolist() == [*range(50, 70)]
    groups, names = keyed(["a"] * 50)
    assert not carve(groups, np.zeros(50, int), names, 0.1, 0).any()


@pytest.mark.parametrize("seed", range(5))
def test_every_label_keeps_its_share(seed: int) -> None:
    strata = np.array([0] * 700 + [1] * 200 + [2] * 100)
    np.random.default_rng(seed).shuffle(strata)
    groups, _ = keyed([f"{n}" for n in range(1000)])
    chosen = carve(groups, strata, {}, 0.1, seed)
    assert np.bincount(strata[chosen]).tolist() == [70, 20, 10]
    assert not np.array_equal(chosen, carve(groups, strata, {}, 0.1, seed + 1))


def test_a_label_of_one_group_does_not_empty_the_training_rows() -> None:
    names = [f"group {n // 10}" for n in range(100)]
    groups, known = keyed(names)
    chosen = carve(groups, np.arange(100) // 10, known, 0.2, 0)
    assert chosen.sum() == 20
    assert len({name for name, taken in zip(names, chosen, strict=True) if taken}) == 2


def test_labels_that_are_all_different_do_not_favour_the_first() -> None:
    groups, _ = keyed([f"{n}" for n in range(200)])
    chosen = np.flatnonzero(carve(groups, np.arange(200), {}, 0.1, 0))
    assert len(chosen) == 20
    assert chosen.max() > 150


def choice(name: str, label: str) -> Example:
    turns = (Message(role="user", text=f"Is {name} so?"),)
    return Example(id=name, source="s", task="choice", turns=turns, options=LABELS, target=label)


def test_pubmedqa_validation_has_the_labels_of_its_training_rows(shared_data: Path) -> None:
    config = DataConfig(source="pubmedqa", path=str(shared_data / "pubmedqa" / "ori_pqal.json.gz"))
    prepared = assemble(config, seed=0)
    counts = {
        part: [sum(row.target == label for row in prepared.parts[part]) for label in LABELS]
        for part in ("train", "validation")
    }
    for train, validation in zip(counts["train"], counts["validation"], strict=True):
        assert validation == pytest.approx((train + validation) / 10, abs=1)


def test_repeats_and_leaks_are_those_of_a_plain_reading() -> None:
    rng = np.random.default_rng(0)
    rows = np.zeros(600, FACTS)
    rows["fault"], rows["other"], rows["asks"] = OPEN, OPEN, rng.random(600) < 0.95
    rows["part"] = rng.choice([OPEN, TRAIN, VALIDATION, TEST], 600)
    for name, size in (("question", 150), ("pair", 300), ("id", 900)):
        rows[name] = rng.integers(0, size, 600)
    before = rows.copy()
    drop_repeats(rows)
    strength = {TEST: 0, VALIDATION: 1}
    pairs: dict[int, int] = {}
    names: dict[int, int] = {}
    for index in sorted(range(600), key=lambda index: (strength.get(int(before["part"][index]), 2), index)):
        row, fault, other = before[index], OPEN, OPEN
        if (first := pairs.setdefault(int(row["pair"]), index)) != index:
            fault, other = FAULTS.index(Fault.DUPLICATE), first
        elif (first := names.setdefault(int(row["id"]), index)) != index:
            fault, other = FAULTS.index(Fault.SAME_ID), first
        assert (rows["fault"][index], rows["other"][index]) == (fault, other)
    drop_leaks(rows)
    used = rows[alive(rows) & rows["asks"]]
    asked = [{*used["question"][used["part"] == part]} for part in (TRAIN, VALIDATION, TEST)]
    assert not asked[0] & asked[1] | asked[0] & asked[2] | asked[1] & asked[2]
    for fault, held in ((Fault.LEAK, TEST), (Fault.VALIDATION_LEAK, VALIDATION)):
        leaks = rows[rows["fault"] == FAULTS.index(fault)]
        assert len(leaks) > 5
        assert (rows["question"][leaks["other"]] == leaks["question"]).all()
        assert (rows["part"][leaks["other"]] == held).all()


MEDQUAD = ("What is glaucoma ?", "Glaucoma is a disease of the eye.", "NEI", "Glaucoma")
COPIES = {
    "kaggle": ("question", "answer", "source", "focus_area"),
    "hub": ("question", "answer", "document_source", "question_focus"),
    "bare": ("Question", "Answer", "qtype", "extra"),
}


@pytest.mark.parametrize("copy", COPIES)
def test_a_random_row_split_of_medquad_is_refused(copy: str, tmp_path: Path) -> None:
    header, path = COPIES[copy], tmp_path / "a.csv"
    rows = [tuple(f"{text} {n}" for text in MEDQUAD) for n in range(20)]
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    columns = {"question": header[0], "answer": header[1]}
    with pytest.raises(DataError, match=r"20 % of the test questions and 87 %") as caught:
        assemble(DataConfig(source="csv", path=str(path), columns=columns), seed=0)
    assert str(path) in caught.value.where
    assert "data.source to medquad" in caught.value.todo
    assert ("data.columns.group" in caught.value.todo) == (copy != "bare")
    for allowed in ({"columns": columns | {"group": header[3]}}, {"test_fraction": 0, "validation_fraction": 0}):
        config = {"source": "csv", "path": str(path), "columns": columns} | allowed
        assert len(assemble(DataConfig.model_validate(config), seed=0).parts["train"]) > 0


def test_a_topic_on_both_sides_is_found() -> None:
    words = ("What is", "What causes", "What are the symptoms of", "How is")
    things = [f"disease {n}" for n in range(30)]
    rows = [choice(f"{word} {thing}", "yes") for word in words for thing in things]
    asked = [row.model_copy(update={"turns": (Message(role="user", text=f"{row.id}?"),)}) for row in rows]
    held = [row for n, row in enumerate(asked) if n % 7 == 0]
    learnt = [row for n, row in enumerate(asked) if n % 7]
    assert len(shared_topics(held, learnt)) == len(held)
    assert shared_topics(held, learnt)[0] == "0"
    of_one_kind = [row for row in asked if row.id.startswith("What is")]
    assert shared_topics(of_one_kind[:5], of_one_kind[5:]) == []


def test_the_person_is_told_of_topics_on_both_sides(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    from medmind.core.rundir import RunDir
    from medmind.data.stage.prepare import prepare

    words = ("What is", "What causes", "What are the symptoms of")
    rows = [
        {"question": f"{word} disease {n}?", "answer": f"{word} {n}: {'blood ' * n}.", "topic": f"disease {n}"}
        for n in range(30)
        for word in words
    ]
    path = write_rows(tmp_path / "a.jsonl", rows)
    prepare(DataConfig(source="jsonl", path=path), RunDir(tmp_path / "run"), 0)
    told = capsys.readouterr().err
    assert "ask about a thing that training rows ask about too" in " ".join(told.split())
    grouped = DataConfig(source="jsonl", path=path, columns={"group": "topic"})
    prepare(grouped, RunDir(tmp_path / "run"), 0)
    assert "ask about a thing" not in " ".join(capsys.readouterr().err.split())
