"""The faults that the README of the shared data counts are found again, through what `medmind data check` calls."""

from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from medmind.data.check import check
from medmind.data.config import DataConfig
from medmind.data.quality.inspect import Inspector
from medmind.data.sniff import sniff
from medmind.data.sources.known import SOURCES
from medmind.data.sources.seam import Row


@cache
def checked(source: str, path: Path) -> dict[str, Any]:
    return check(DataConfig(source=source, path=str(path)), lengths=None)


def found(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {finding["name"]: finding for finding in report["findings"]}


@pytest.fixture(scope="module")
def medquad(shared_data: Path) -> dict[str, Any]:
    """Read as any CSV with a question and an answer: the source medquad drops 14 rows without a topic first."""
    return checked("csv", shared_data / "medquad" / "medquad_kaggle_form.csv.gz")


def test_the_repeats_of_medquad(medquad: dict[str, Any]) -> None:
    faults = found(medquad)
    assert medquad["rows"] == 16_412
    assert faults["repeated_questions"]["rows"] == 2_110
    assert faults["conflicting_answers"]["kinds"] == {"questions": 1_438}
    assert faults["repeated_answers"]["rows"] == 599
    assert faults["repeated_answers"]["kinds"] == {"the most frequent, times": 348}
    assert faults["boilerplate_answers"]["examples"][0]["kind"] == "under 348 questions"
    assert faults["exact_duplicates"]["rows"] == faults["near_duplicates"]["kinds"]["identical"] == 48


def test_the_dropped_letters_of_medquad(medquad: dict[str, Any]) -> None:
    """The README counts letters in a row, and so 221 for "bodys": one of them is "bodystretches"."""
    kinds = found(medquad)["dropped_letters"]["kinds"]
    assert (kinds["Sjögren, answer"], kinds["doesn't, answer"], kinds["body's, answer"]) == (37, 98, 220)
    assert "mojibake" not in found(medquad)


def test_the_layout_and_the_contacts_of_medquad(medquad: dict[str, Any]) -> None:
    """The README counts addresses with http(s) and numbers that are free or have brackets; medmind also the others."""
    faults = found(medquad)
    assert faults["blank_before_mark"]["kinds"]["question"] == 16_095
    assert faults["urls"]["kinds"]["answer, with http(s)://"] == 90
    assert faults["phones"]["kinds"]["answer, free number or area code in brackets"] == 45
    assert faults["emails"]["rows"] == 11


def test_the_lengths_of_medquad(medquad: dict[str, Any]) -> None:
    sizes = medquad["characters"]["in_file"]
    assert (sizes["median"], sizes["longest"]) == (889.5, 29_046)
    assert sizes["p95"] == pytest.approx(3_400, abs=2)


def test_the_source_medquad_mends_the_layout(shared_data: Path) -> None:
    config = DataConfig(source="medquad", path=str(shared_data / "medquad" / "medquad_kaggle_form.csv.gz"))
    inspector = Inspector(config)
    for row in islice(SOURCES.get("medquad").read(config), 2_000):
        assert isinstance(row, Row)
        inspector.add(row)
    report = inspector.report()
    fault = found(report)["blank_before_mark"]
    assert fault["rows"] > 1_900
    assert 0 < fault["rows"] - fault["mended"] <= fault["kinds"]["answer"]  # blanks within answers stay
    assert report["characters"]["in_file"]["p95"] > report["characters"]["learnt"]["p95"]


def test_pubmedqa(shared_data: Path) -> None:
    report = checked("pubmedqa", shared_data / "pubmedqa" / "ori_pqal.json.gz")
    assert report["labels"] == {"yes": 552, "no": 338, "maybe": 110}
    faults = found(report)
    assert faults["label_imbalance"]["rows"] == 110
    assert len(faults["label_imbalance"]["ids"]) == 100
    clean = {"mojibake", "markup", "phones", "emails", "runs_of_blanks", "repeated_questions", "near_duplicates"}
    assert clean & faults.keys() == set()
    assert faults["dropped_letters"]["rows"] == 1  # "womens'adhesion": its author's own


def test_medmcqa(shared_data: Path) -> None:
    faults = found(checked("medmcqa", shared_data / "medmcqa" / "dev.json.gz"))
    assert faults["missing_explanations"]["rows"] == 1_977
    assert faults["revealing_explanations"]["kinds"]['begins with "Ans"'] == 1_090
    assert faults["repeated_questions"]["rows"] == 20
    assert faults["equal_options"]["rows"] == 31
    assert faults["equal_options"]["kinds"] == {"the same": 21, "but for signs": 10}
    assert "conflicting_answers" not in faults


def test_wikidoc(shared_data: Path) -> None:
    faults = found(checked("alpaca", shared_data / "instruct" / "medical_meadow_small_wikidoc.json.gz"))
    assert faults["repeated_questions"]["rows"] == 175
    assert faults["short_answers"]["rows"] == 50
    assert faults["mojibake"]["rows"] == 2


def test_casimedicos(shared_data: Path) -> None:
    folder = shared_data / "multilingual"
    reports = {name: checked("casimedicos", folder / f"casimedicos_{name}.jsonl.gz") for name in ("es", "fr", "it")}
    (key,) = reports["it"]["unusable"].values()
    assert (key["rows"], reports["it"]["rows"]) == (1, 553)
    assert not reports["es"]["unusable"]
    assert all({"mojibake", "dropped_letters"}.isdisjoint(found(report)) for report in reports.values())
    assert "blank_before_mark" not in found(reports["fr"])  # French puts one there


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("medquad/medquad_kaggle_form.csv.gz", "medquad"),
        ("pubmedqa/ori_pqal.json.gz", "pubmedqa"),
        ("medmcqa/dev.json.gz", "medmcqa"),
        ("medqa/phrases_no_exclude_test.jsonl.gz", "medqa"),
        ("medical_o1/medical_o1_sft_demo198.json.gz", "medical_o1"),
        ("instruct/medical_meadow_small_wikidoc.json.gz", "alpaca"),
        ("multilingual/casimedicos_fr.jsonl.gz", "casimedicos"),
    ],
)
def test_a_published_file_is_recognised(file: str, source: str, shared_data: Path) -> None:
    assert sniff(shared_data / file).source == source
