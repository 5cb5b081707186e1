"""The stage as a whole: leaks stop it, nothing half-written is left, suites come with it, the bench's small twin."""

import errno
import importlib.util
import json
import random
from pathlib import Path
from types import ModuleType

import pytest

from medmind.cli.main import as_told
from medmind.core.errors import DataError, GateError, UsageError
from medmind.core.jsonl import read_jsonl, write_jsonl
from medmind.core.rundir import RunDir
from medmind.data.config import DataConfig
from medmind.data.stage import prepare as stage
from medmind.data.stage.prepare import prepare
from medmind.data.stage.spool import OPEN, Spool, close
from medmind.evaluate.config import EvaluateConfig
from medmind.evaluate.run import evaluate_model
from medmind.infer.fake import FakeGenerator
from medmind.models.catalog import find_model
from medmind.models.tokenizer import open_tokenizer
from medmind.prompts.families import open_renderer

BENCH = Path(__file__).parent.parent / "bench" / "data_scale.py"


def facts(start: int, count: int) -> list[dict[str, str]]:
    numbers = range(start, start + count)
    return [{"question": f"What is sign {n}?", "answer": f"Sign {n} is number {n} of the book."} for n in numbers]


def rows_file(path: Path, rows: list[dict[str, str]]) -> str:
    write_jsonl(path, rows)
    return str(path)


def config(tmp_path: Path, **settings: object) -> DataConfig:
    """A hundred training rows, and a suite of twenty of which one stands in them."""
    train = rows_file(tmp_path / "train.jsonl", facts(0, 100))
    suite = rows_file(tmp_path / "exam.jsonl", [*facts(200, 19), *facts(7, 1)])
    suites = {"exam": {"source": "jsonl", "path": suite}}
    known = {"source": "jsonl", "path": train, "test_fraction": 0, "suites": suites}
    return DataConfig.model_validate(known | settings)


def below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_leak_stops_the_stage_and_leaves_what_was(tmp_path: Path) -> None:
    rundir = RunDir(tmp_path / "run")
    with pytest.raises(GateError, match=r"exam, 20 rows: .*1 by pair") as caught:
        prepare(config(tmp_path), rundir, 0)
    assert "data.allow_leaks" in caught.value.todo
    assert not rundir.root.exists()
    prepare(DataConfig(), rundir, 0)
    before = below(rundir.root)
    with pytest.raises(GateError):
        prepare(config(tmp_path), rundir, 0)
    assert below(rundir.root) == before


def test_a_leak_can_be_allowed_and_is_told(tmp_path: Path) -> None:
    rundir = RunDir(tmp_path / "run")
    prepare(config(tmp_path, allow_leaks="a rehearsal"), rundir, 0)
    report = json.loads(rundir.data_report.read_text())
    assert report["leaks"]["allowed"] == rundir.read_manifest()["data"]["leaks_allowed"] == "a rehearsal"
    assert report["leaks"]["suites"]["exam"]["methods"]["pair"]["count"] == 1


@pytest.mark.parametrize("name", ["custom", "test", "canary"])
def test_a_suite_cannot_take_the_name_of_rows_the_stage_writes(tmp_path: Path, name: str) -> None:
    """Under the source's own name a suite was compared with nothing, and replaced by test rows."""
    path = rows_file(tmp_path / "a.jsonl", facts(0, 300))
    suites = {name: {"source": "jsonl", "path": path}}
    known = DataConfig.model_validate({"source": "jsonl", "path": path, "suites": suites})
    if name == "custom":
        with pytest.raises(UsageError, match=r"data\.suites\.custom: the test rows of data\.source") as caught:
            prepare(known, RunDir(tmp_path / "run"), 0)
        assert caught.value.exit_code == 2
        with pytest.raises(GateError, match="270 by"):
            prepare(known.model_copy(update={"suites": {"other": known.suites["custom"]}}), RunDir(tmp_path / "run"), 0)
    else:
        assert f"data.suites.{name} is the name of rows the stage writes itself" in known.conflicts()[0]


def random_words(count: int, seed: int) -> str:
    return " ".join(f"w{random.Random(f'{seed} {place}').randrange(10**6)}" for place in range(count))


@pytest.mark.parametrize("count", [60, 180])
def test_a_small_set_with_a_disclaimer_under_every_answer_is_trained_on(tmp_path: Path, count: int) -> None:
    disclaimer = random_words(34, 10**7)
    rows = [
        {"question": random_words(10, n), "answer": f"{random_words(30, 10**6 + n)} {disclaimer}"} for n in range(count)
    ]
    rundir = RunDir(tmp_path / "run")
    prepare(DataConfig(source="jsonl", path=rows_file(tmp_path / "a.jsonl", rows)), rundir, 0)
    report = json.loads(rundir.data_report.read_text())
    assert report["dropped"]["total"] == 0
    assert report["leaks"]["suites"]["custom"]["excused"] == count // 10


def test_where_no_training_row_is_left_it_is_said_what_became_of_them(tmp_path: Path) -> None:
    rows = [{"question": random_words(10, n), "answer": random_words(30, 1)} for n in range(10)]
    config = DataConfig(source="jsonl", path=rows_file(tmp_path / "a.jsonl", rows), validation_fraction=0)
    with pytest.raises(DataError, match=r"left: 1 are for test or validation, 9 × gives a test row away"):
        prepare(config, RunDir(tmp_path / "run"), 0)


def test_of_near_duplicates_one_stays_when_a_filter_takes_the_first(tmp_path: Path) -> None:
    rows = []
    for n in range(40):
        said = random_words(60, n)
        for more in (" see https://example.org/page", " one", " two"):
            rows.append({"question": f"What is sign {n}?", "answer": said + more})
    filters = {"urls": "drop", "near_duplicates": "drop"}
    rundir = RunDir(tmp_path / "run")
    known = {"source": "jsonl", "path": rows_file(tmp_path / "a.jsonl", rows), "test_fraction": 0, "filters": filters}
    prepare(DataConfig.model_validate(known), rundir, 0)
    report = json.loads(rundir.data_report.read_text())
    assert report["parts"]["train"] + report["parts"]["validation"] == 40
    assert {fault: found["count"] for fault, found in report["dropped"]["by_reason"].items()} == {
        "web address": 40,
        "near duplicate": 40,
    }


def test_a_file_whose_rows_stand_three_times_can_be_used(tmp_path: Path) -> None:
    rundir = RunDir(tmp_path / "run")
    prepare(DataConfig(source="jsonl", path=rows_file(tmp_path / "a.jsonl", 3 * facts(0, 100))), rundir, 0)
    assert json.loads(rundir.data_report.read_text())["dropped"]["by_reason"]["duplicate"]["count"] == 200


def test_a_killed_move_is_mended_by_the_next_run(tmp_path: Path) -> None:
    """Between the two renames the data of before lie aside."""
    rundir = RunDir(tmp_path / "run")
    prepare(DataConfig(), rundir, 0)
    before = below(rundir.data)
    (rundir.root / ".data.tmp").mkdir()
    rundir.data.rename(rundir.root / ".data.tmp" / "before")
    with pytest.raises(GateError):
        prepare(config(tmp_path), rundir, 0)
    assert below(rundir.data) == before


def test_whatever_breaks_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rundir = RunDir(tmp_path / "run")
    (rundir.root / ".data.tmp" / "data").mkdir(parents=True)  # as a killed process leaves it

    def broken(*_: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(stage, "origins", broken)
        with pytest.raises(OSError, match="no space"):
            prepare(DataConfig(), rundir, 0)
    assert not rundir.root.exists()
    prepare(DataConfig(), rundir, 0)
    assert sorted(path.name for path in rundir.root.iterdir()) == ["data", "manifest.json"]


def test_suites_are_written_and_all_are_evaluated(tmp_path: Path) -> None:
    rundir = RunDir(tmp_path / "run")
    exam = rows_file(tmp_path / "other.jsonl", [*facts(200, 19), *facts(205, 1), {"question": "?", "answer": ""}])
    prepare(config(tmp_path, test_fraction=0.1, suites={"exam": {"source": "jsonl", "path": exam}}), rundir, 0)
    assert rundir.suites() == ["custom", "exam"]
    asked = [row["turns"][0]["text"] for row in read_jsonl(rundir.suite("exam"))]
    assert asked == [row["question"] for row in facts(200, 19)]
    found = json.loads(rundir.data_report.read_text())["suites"]["exam"]
    assert (found["rows"], found["dropped"]["total"]) == (19, 2)
    named = [row for row in read_jsonl(rundir.split("dropped")) if row["file"] == exam]
    assert [row["fault"] for row in named] == ["id used twice", "empty answer"]
    uses = {row["file"]: row["use"] for row in json.loads(rundir.licences.read_text())}
    assert uses[exam] == "evaluation"
    renderer = open_renderer("mistral-v3", open_tokenizer(find_model("nano")))
    generator = FakeGenerator(renderer.tokenizer, lambda _: "It is a sign.")
    evaluate_model(EvaluateConfig(max_new_tokens=20), rundir, "base", "nano", generator, renderer, "", 0)
    assert [json.loads(rundir.scores(name, "base").read_text())["n"] for name in rundir.suites()] == [10, 19]


def test_a_filter_takes_near_duplicates_out_and_names_them(tmp_path: Path) -> None:
    long = " ".join(f"word{n}" for n in range(60))
    rows = [*facts(0, 30), {"question": "Why?", "answer": long}, {"question": "Why?", "answer": f"{long} indeed"}]
    path = rows_file(tmp_path / "a.jsonl", rows)
    for filters, dropped in (({}, []), ({"near_duplicates": "drop"}, [32])):
        rundir = RunDir(tmp_path / f"run{len(filters)}")
        prepare(DataConfig(source="jsonl", path=path, filters=filters), rundir, 0)
        assert [row["row"] for row in read_jsonl(rundir.split("dropped"))] == dropped
        assert {row["row"] for row in read_jsonl(rundir.findings) if row["finding"] == "near_duplicates"} == {32}


def test_the_spool_gives_back_what_it_took(tmp_path: Path) -> None:
    from medmind.data.sources.known import SOURCES
    from medmind.data.sources.seam import Row

    spool = Spool(tmp_path)
    assert list(tmp_path.iterdir()) == [], "the file has no name"
    taken = [row for row in SOURCES.get("terms").read(DataConfig()) if isinstance(row, Row)]
    for row in taken:
        spool.keep(row)
    kept = spool.finish()
    assert len(kept) == len(spool) == len(taken) == 200
    assert [spool.example(index) for index in range(200)] == [row.example for row in taken]
    assert [spool.raw(index) for index in range(200)] == [row.raw for row in taken]
    assert (kept["fault"] == OPEN).all()
    assert kept.itemsize <= 64


@pytest.fixture
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("data_scale", BENCH)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_bench_at_a_small_size(bench: ModuleType, tmp_path: Path) -> None:
    found = bench.measure(400, tmp_path)
    assert found["rows"] == 400
    assert found["recall"] >= 0.95
    assert found["dropped"] == 20
    assert found["seconds"].keys() == {"check, dedup, split", "tokenise", "pack"}
    assert 250 < found["tokens_a_row"] < 350
    assert 0.1 < found["peak_gb"] < 4


def test_a_full_disk_is_told_once() -> None:
    """Closing the spool fails once more then: no second error may follow the one that counts."""

    class Full:
        def close(self) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    close(Full())  # type: ignore[arg-type]
    assert as_told(OSError(errno.EFBIG, "File too large")).exit_code == 3
