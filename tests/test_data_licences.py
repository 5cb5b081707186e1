"""Licences as people write them, what they ask, and what follows for the weights, the data and commercial use."""

import json
from pathlib import Path

import pytest

from medmind.cli.main import main
from medmind.core.rundir import RunDir
from medmind.data.config import DataConfig
from medmind.data.licences import Ingredient, May, attribution, find_licences, flags, judge
from medmind.data.provenance import ingredients
from medmind.data.stage.prepare import prepare

STATED = {
    "MIT": ["MIT"],
    "Apache-2.0": ["Apache-2.0"],
    "Apache 2.0 (README)": ["Apache-2.0"],
    "CC BY 4.0": ["CC-BY-4.0"],
    "cc-by-nc-sa-4.0": ["CC-BY-NC-SA-4.0"],
    "CC BY-SA": ["CC-BY-SA"],
    "CC0-1.0": ["CC0-1.0"],
    "CC BY 4.0 (README); LICENSE file is CC0 1.0": ["CC-BY-4.0", "CC0-1.0"],
    "CC BY (per story; the 51 CC BY-NC / NC-SA stories left out)": ["CC-BY"],
    "per article: CC BY 2.0/2.5/3.0/4.0, CC0 or public domain": ["CC-BY-4.0", "CC0-1.0", "LicenseRef-public-domain"],
    "GPL-3.0 (repository LICENSE); text from WikiDoc, CC BY-SA (upstream): share-alike": ["CC-BY-SA", "GPL-3.0-only"],
    "llama3.2": ["LicenseRef-llama"],
    "not stated": [],
    "permitted by the hospital": [],
}


@pytest.mark.parametrize("statement", STATED)
def test_what_people_write_is_understood(statement: str) -> None:
    assert [one.spdx for one in find_licences(statement)] == STATED[statement]


def test_what_a_licence_asks() -> None:
    seen = {
        name: flags(find_licences(name)) for name in ("CC BY 4.0", "CC BY-NC-ND 4.0", "ODbL", "llama3", "who knows")
    }
    assert seen == {
        "CC BY 4.0": [],
        "CC BY-NC-ND 4.0": ["non-commercial", "no derivatives"],
        "ODbL": ["share-alike"],
        "llama3": ["own terms"],
        "who knows": ["unknown"],
    }


def may(*ingredients: tuple[str, str]) -> dict[str, str]:
    found = judge(Ingredient(f"set {number}", use, licence) for number, (use, licence) in enumerate(ingredients))  # type: ignore[arg-type]
    return {name: answer.may.name for name, answer in found.items()}


def test_what_may_be_shipped() -> None:
    free = ("base model", "Apache-2.0")
    assert may(free, ("training", "CC BY 4.0")) == {"weights": "YES", "data": "YES", "commercial use": "YES"}
    assert may(free, ("training", "CC BY-SA 4.0")) == {"weights": "ASK", "data": "YES", "commercial use": "YES"}
    assert may(free, ("training", "CC BY-NC 4.0")) == {"weights": "ASK", "data": "YES", "commercial use": "NO"}
    assert may(free, ("training", "CC BY-ND 4.0")) == {"weights": "ASK", "data": "NO", "commercial use": "YES"}
    assert may(free, ("training", "not stated")) == {"weights": "ASK", "data": "NO", "commercial use": "ASK"}
    assert may(("base model", "llama3"), ("training", "MIT"))["weights"] == "ASK"
    assert may(free, ("evaluation", "not stated")) == {"weights": "YES", "data": "NO", "commercial use": "YES"}
    assert May.YES < May.ASK < May.NO


def test_the_strictest_counts_and_every_reason_is_given() -> None:
    answer = judge([Ingredient("a", "training", "CC BY-NC 4.0"), Ingredient("b", "training", "not stated")])
    assert answer["data"].may is May.NO
    assert [reason.split(":")[0] for reason in answer["data"].because] == ["a (CC BY-NC 4.0)", "b (not stated)"]


def test_the_attribution_names_whom_it_must() -> None:
    text = attribution(
        [
            Ingredient("nano", "base model", "Apache-2.0"),
            Ingredient("medquad", "training", "CC BY 4.0", "Ben Abacha and Demner-Fushman"),
            Ingredient("medquad", "training", "CC BY 4.0", "Ben Abacha and Demner-Fushman"),
            Ingredient("free", "training", "CC0-1.0"),
            Ingredient("mine", "training", "not stated"),
        ]
    )
    lines = text.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("Base model: nano, under Apache-2.0 https://")
    assert "Ben Abacha and Demner-Fushman, under CC-BY-4.0 https://creativecommons.org/licenses/by/4.0/" in lines[1]
    assert "selected and reformatted" in lines[1]


def test_the_command_prints_them_without_reading_a_row(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text("not a row\n")
    settings = ["--set", "data.source=jsonl", "--set", f"data.path={path}"]
    assert main(["data", "licences", "base", *settings, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["may_ship"]["data"]["may"] == "no"
    assert [one["flags"] for one in found["ingredients"]] == [[], ["unknown"]]
    assert main(["data", "licences", "demo"]) == 0
    told = capsys.readouterr().out
    assert "weights: yes" in told
    assert "Attribution" in told and "Apache-2.0" in told
    assert not (tmp_path / "run").exists()


def test_the_run_says_where_its_rows_come_from(tmp_path: Path) -> None:
    rundir = RunDir(tmp_path / "run")
    prepare(DataConfig(), rundir, 0)
    origins = json.loads(rundir.licences.read_text())
    assert {"source", "use", "file", "revision", "licence", "flags", "credit", "sha256"} <= origins[0].keys()
    facts = rundir.read_manifest()["data"]
    assert facts["origins"] == origins
    assert facts["rows"] == {"train": 135, "validation": 15, "test": 50}
    assert facts["rows_read"] == 200
    assert facts["ids_sha256"] == json.loads(rundir.data_report.read_text())["ids_sha256"]
    assert "Apache-2.0" in facts["attribution"]


def test_a_file_read_through_a_published_schema_is_not_taken_for_the_published_one(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"question": "?", "options": {"A": "a", "B": "b"}, "answer_idx": "A", "answer": "a"}\n')
    (mine,) = ingredients(DataConfig(source="medqa", path=str(path)))
    assert (mine.licence, mine.flags) == ("MIT", ["unverified"])
    assert {answer.may.name for answer in judge([mine]).values()} == {"ASK"}
    assert "if the file is the published one" in attribution([mine])
    (known,) = ingredients(DataConfig(source="medqa", path=str(path), licence="CC BY-NC 4.0"))
    assert (known.licence, known.flags) == ("CC BY-NC 4.0", ["non-commercial"])
    (own,) = ingredients(DataConfig(source="jsonl", path=str(path), licence="CC0-1.0"))
    assert {answer.may.name for answer in judge([own]).values()} == {"YES"}
    assert DataConfig(licence="MIT").conflicts() == [
        "data.licence is for data of your own: it has no effect without data.path"
    ]


@pytest.mark.parametrize("source", ["medical_o1", "synthetic_qa"])
def test_text_that_a_model_wrote_is_flagged(tmp_path: Path, source: str) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text("{}\n")
    (one,) = ingredients(DataConfig(source=source, path=str(path), licence="Apache-2.0"))
    assert one.flags == ["generated text"]
    assert {answer.may.name for answer in judge([one]).values()} == {"ASK"}
