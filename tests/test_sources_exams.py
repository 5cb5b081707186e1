"""Exam sets for evaluation: the known counts, right answers told by letter or number, never guessed."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from source_rows import FORMATS, read, refused, write

from medmind.core.types import Example, Message
from medmind.data.sources.seam import Fault
from medmind.data.split import normalise_name
from medmind.prompts.tasks.known import TASKS

MEDMCQA = {"question": "Which?", "opa": "one", "opb": "two", "opc": "three", "opd": "four", "exp": "Ans. b", "id": "x"}
MMLU = {"question": "Which?", "A": "one", "B": "two", "C": "three", "D": "four"}


def test_medqa(shared_data: Path) -> None:
    rows, dropped = read("medqa", shared_data / "medqa")
    assert (len(rows), dropped, {row.part for row in rows}) == (1273, [], {"test"})
    assert Counter(row.example.target for row in rows) == {"A": 353, "B": 309, "C": 346, "D": 265}
    example = rows[0].example
    assert example.options["ABCD".index(example.target)].startswith("Tell the attending that he cannot fail")
    assert example.metadata == {"category": "step1"}


@pytest.mark.parametrize("name", ["json", "jsonl", "parquet"])
def test_medqa_with_five_options_and_its_other_forms(tmp_path: Path, name: str) -> None:
    options = dict(zip("ABCDE", ("one", "two", "three", "four", "five"), strict=True))
    row = {"question": "Which?", "answer": "five", "options": options, "meta_info": "step1", "answer_idx": "E"}
    kept, _ = read("medqa", write(tmp_path / f"US_train.{name}", [row]))
    assert (kept[0].example.options[4], kept[0].example.target, kept[0].part) == ("five", "E", "train")
    listed = [{"key": key, "value": value} for key, value in options.items()]
    textual = row | {"options": listed, "answer_idx": None}
    assert read("medqa", write(tmp_path / f"a_train.{name}", [textual, row | {"options": listed}]))[0][0].example == (
        kept[0].example
    )


def test_medqa_whose_letter_and_text_disagree_is_dropped(tmp_path: Path) -> None:
    row = {"question": "Which?", "options": {"A": "one", "B": "two"}, "answer": "one", "answer_idx": "B"}
    rows = [row, row | {"answer_idx": "C"}, row | {"answer_idx": "", "answer": "six"}, row | {"options": ["a"]}]
    kept, dropped = read("medqa", write(tmp_path / "a.jsonl", rows))
    assert not kept
    assert [one.fault for one in dropped] == [Fault.KEY, Fault.KEY, Fault.NO_ANSWER, Fault.NOT_TEXT]


def test_medmcqa_counts_from_one_in_the_original(shared_data: Path) -> None:
    rows, dropped = read("medmcqa", shared_data / "medmcqa")
    assert (len(rows), dropped, {row.part for row in rows}) == (4183, [], {"test"})
    assert Counter(row.example.target for row in rows) == {"A": 1348, "B": 1085, "C": 925, "D": 825}
    assert all(row.example.target == "ABCD"[row.raw["cop"] - 1] for row in rows)
    assert sum(not row.example.reasoning for row in rows) == 1977
    assert sum(len({normalise_name(one) for one in row.example.options}) < 4 for row in rows) == 31


@pytest.mark.parametrize("name", FORMATS)
def test_the_base_of_medmcqas_numbers_is_told_never_guessed(tmp_path: Path, name: str) -> None:
    def targets(numbers: tuple[Any, ...], file: str = "dev", **settings: Any) -> list[str]:
        rows = [MEDMCQA | {"cop": number, "id": str(place)} for place, number in enumerate(numbers)]
        path = write(tmp_path / f"{file}.{name}", rows)
        return [row.example.target for row in read("medmcqa", path, **settings)[0]]

    assert targets((1, 2, 4)) == ["A", "B", "D"]
    assert targets((0, 1, 3)) == ["A", "B", "D"]
    assert targets((1, 2), first_option=1) == ["A", "B"]
    assert targets((1, 2), first_option=0) == ["B", "C"]
    rows = [MEDMCQA | {"cop": number} for number in (1, 3)]
    assert "data.first_option" in refused("medmcqa", write(tmp_path / f"a.{name}", rows)).todo
    rows = [MEDMCQA | {"cop": number} for number in (0, 4)]
    assert "no way of counting" in refused("medmcqa", write(tmp_path / f"a.{name}", rows)).what


def test_medmcqas_secret_answers_are_dropped_with_the_reason(tmp_path: Path) -> None:
    write(tmp_path / "validation-0.parquet", [MEDMCQA | {"cop": number, "id": str(number)} for number in range(4)])
    write(tmp_path / "test-0.parquet", [MEDMCQA | {"cop": -1, "id": "secret"}])
    write(tmp_path / "train-0.parquet", [MEDMCQA | {"cop": 7, "id": "bad"}, MEDMCQA | {"cop": 2, "id": "good"}])
    kept, dropped = read("medmcqa", tmp_path)
    assert Counter(row.part for row in kept) == {"test": 4, "train": 1}
    assert [(one.id, one.fault) for one in dropped] == [("secret", Fault.NO_ANSWER), ("bad", Fault.KEY)]


def test_mmlus_medical_subjects(shared_data: Path) -> None:
    rows, dropped = read("mmlu_medical", shared_data / "mmlu")
    assert (len(rows), dropped, {row.part for row in rows}) == (1089, [], {"test"})
    assert Counter(row.example.metadata["category"] for row in rows) == {
        "anatomy": 135,
        "clinical_knowledge": 265,
        "college_biology": 144,
        "college_medicine": 173,
        "medical_genetics": 100,
        "professional_medicine": 272,
    }
    repaired = [row.example for row in rows if "repaired" in row.example.metadata]
    assert [one.metadata["category"] for one in repaired] == ["college_medicine"] * 2
    texts = [text for row in rows for text in (row.example.turns[0].text, *row.example.options)]
    assert not any("\ufeff" in text or "\r" in text for text in texts)
    assert len({row.example.id for row in rows}) == 1089, "78 questions stand in two subjects"
    assert rows[0].number == 1, "the first line of a file without header is a question"


def test_mmlu_with_a_header_is_told_from_mmlu_without(tmp_path: Path) -> None:
    def targets(path: Path, **settings: Any) -> list[str]:
        return [row.example.target for row in read("mmlu_medical", path, **settings)[0]]

    plain = tmp_path / "anatomy_test.csv"
    plain.write_bytes("\ufeffWhich?,one,two,three,four,D\r\nWho?,one,two,three,four,A\r\n".encode())
    assert targets(plain) == ["D", "A"]
    lettered = write(tmp_path / "anatomy_a.csv", [MMLU | {"answer": "D"}, MMLU | {"answer": "A"}])
    assert targets(lettered) == ["D", "A"]
    for numbers, wanted in (((0, 3), ["A", "D"]), ((1, 4), ["A", "D"])):
        assert targets(write(tmp_path / "anatomy_b.csv", [MMLU | {"answer": one} for one in numbers])) == wanted
    unclear = write(tmp_path / "anatomy_c.csv", [MMLU | {"answer": one} for one in (1, 2)])
    assert "data.first_option" in refused("mmlu_medical", unclear).todo
    assert targets(unclear, first_option=1) == ["A", "B"]
    neither = write(tmp_path / "anatomy_d.csv", [{"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6}])
    assert 'no column "question"' in refused("mmlu_medical", neither).what


@pytest.mark.parametrize("name", FORMATS)
def test_mmlu_as_the_hub_has_it(tmp_path: Path, name: str) -> None:
    (tmp_path / "anatomy").mkdir()
    rows = [{"question": "Which?", "subject": "anatomy", "choices": ["a", "b", "c", "d"], "answer": n} for n in (0, 2)]
    write(tmp_path / "anatomy" / f"test-00000-of-00001.{name}", rows)
    write(tmp_path / "anatomy" / f"dev-00000-of-00001.{name}", rows[:1])
    (tmp_path / "astronomy").mkdir()
    write(tmp_path / "astronomy" / f"test.{name}", rows)
    kept, _ = read("mmlu_medical", tmp_path)
    assert [(row.example.target, row.part) for row in kept] == [("A", "train"), ("A", "test"), ("C", "test")]
    assert (
        "six medical subjects" in refused("mmlu_medical", write(tmp_path / f"b.{name}", [MMLU | {"answer": "A"}])).what
    )


def test_casimedicos_in_four_languages_without_one_broken_key(shared_data: Path) -> None:
    rows, (dropped,) = read("casimedicos", shared_data / "multilingual")
    assert Counter(row.example.language for row in rows) == {"en": 553, "es": 553, "fr": 553, "it": 552}
    assert (dropped.id, dropped.fault) == ("casimedicos-it-train-0272", Fault.KEY)
    assert dropped.reason == 'the right answer "3" is none of 1, 4'
    groups = Counter(row.example.group for row in rows)
    assert (len(groups), set(groups.values())) == (553, {3, 4})
    assert len({row.example.id for row in rows}) == len(rows)
    parts = {(row.example.group, row.part) for row in rows}
    assert len(parts) == 553, "a question has one part in all languages"
    assert all(row.example.reasoning for row in rows)
    assert Counter(len(row.example.options) for row in rows) == {5: 1020, 4: 1190, 3: 1}
    assert not any(option.lower() == "nan" for row in rows for option in row.example.options)


def test_casimedicos_in_the_hubs_spelling_tells_its_language_by_the_file(tmp_path: Path) -> None:
    row = {"id": 7, "full_question": "¿Cuál?", "options": {"1": "uno", "2": "dos", "5": None}, "correct_option": 2}
    (kept,), _ = read("casimedicos", write(tmp_path / "es.test_casimedicos.jsonl", [row | {"full_answer": "La 2."}]))
    assert (kept.example.language, kept.example.options, kept.example.target) == ("es", ("uno", "dos"), "2")
    assert kept.part == "test"
    (), (dropped,) = read("casimedicos", write(tmp_path / "unnamed.jsonl", [row]))
    assert "the language is none of" in dropped.reason


def exam(target: str, **changes: Any) -> Example:
    shape = {"id": "x", "source": "s", "task": "multiple_choice", "turns": (Message(role="user", text="Which?"),)}
    return Example(**shape | {"options": ("one", "two"), "target": target} | changes)


def test_a_question_is_asked_and_read_by_the_labels_its_source_uses() -> None:
    task = TASKS.get("multiple_choice")
    lettered = exam("B", reasoning="Because.")
    assert task.question(lettered) == "Which?\n\nA. one\nB. two\n\nAnswer with the letter of the right option."
    assert task.reply(lettered) == "B. two\n\nBecause."
    numbered = exam("4", metadata={"labels": ["1", "4"]}, language="it")
    assert task.question(numbered).endswith("1. one\n4. two\n\nRispondi con il numero dell'opzione corretta.")
    for text, answer in (
        (task.reply(lettered), "B"),
        ("b", "B"),
        ("(A) one", "A"),
        ("C. three", ""),
        ("Because two is right: B", ""),
        ("A patient", ""),
        ("", ""),
    ):
        assert task.read(text, lettered).text == answer
    assert task.read("4. two", numbered).text == "4"
    assert task.read("2. two", numbered).outcome == "malformed"
