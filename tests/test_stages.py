"""The chain: every stage on a model small enough for a test, skipped when up to date, begun anew when not."""

import json
import shutil
from pathlib import Path

import pytest

from medmind.cli.main import main
from medmind.core.jsonl import read_json, read_jsonl, write_jsonl
from medmind.core.rundir import RunDir
from medmind.export.proven import doubt
from medmind.recipe.stages import input_digest


def test_a_folder_renamed_within_is_another_input(tmp_path: Path) -> None:
    """fold/test becoming fold/train changes which rows are trained on."""
    (tmp_path / "fold" / "test").mkdir(parents=True)
    (tmp_path / "fold" / "test" / "a.jsonl").write_text("{}")
    before = input_digest(str(tmp_path))
    (tmp_path / "fold" / "test").rename(tmp_path / "fold" / "train")
    assert input_digest(str(tmp_path)) != before


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("rows") / "mine.jsonl"
    organs = ("heart", "lung", "liver", "kidney", "brain", "spleen", "skin", "bone", "eye", "ear", "nose", "tongue")
    rows = ({"q": f"What does the {organ} do?", "a": f"The {organ} does its own work."} for organ in organs)
    write_jsonl(file, rows)
    return file


def command(questions: Path, model: Path, out: Path, *more: str) -> list[str]:
    settings = [
        f"model={model}",
        "data.source=jsonl",
        f"data.path={questions}",
        "data.columns={question: q, answer: a}",
        "data.test_fraction=0.3",
        "train.max_steps=2",
        "train.save_steps=1",
        "evaluate.max_new_tokens=8",
        "export.gguf=[f16]",
        "export.modelfile_from=f16",
        "export.max_new_tokens=8",
        "export.num_ctx=256",
    ]
    return ["run", "base", "--out", str(out), *(word for text in settings for word in ("--set", text)), *more]


@pytest.fixture(scope="module")
def finished(questions: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    out = tmp_path_factory.mktemp("runs") / "chain"
    assert main(command(questions, tiny_model, out)) == 0
    return RunDir(out)


def test_a_finished_export_may_be_served_until_the_run_is_trained_again(
    finished: RunDir, questions: Path, tiny_model: Path, tmp_path: Path
) -> None:
    run = RunDir(Path(shutil.copytree(finished.root, tmp_path / "moved")))
    assert doubt(run, run.gguf("f16")) == ""
    _, *rest = command(questions, tiny_model, run.root)
    again = ["train", *rest, "--set", "train.max_steps=1"]
    assert main(again) == 0
    assert doubt(run, run.gguf("f16")) == "the run was trained again since it was made"


def test_a_refused_command_leaves_the_recipe_of_what_was_trained(
    finished: RunDir, questions: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = finished.recipe.read_text()
    _, *rest = command(questions, tiny_model, finished.root)
    assert main(["evaluate", *rest, "--set", "data.system_prompt=Rhyme."]) == 2
    assert "has not finished with this recipe" in capsys.readouterr().err
    assert finished.recipe.read_text() == before


def test_the_whole_chain_leaves_what_the_contract_names(finished: RunDir) -> None:
    expected = [
        finished.recipe,
        finished.split("train"),
        finished.split("test"),
        finished.split("dropped"),
        finished.data_report,
        finished.licences,
        finished.suite("custom"),
        finished.plan,
        finished.metrics,
        finished.processes,
        finished.adapter / "adapter_config.json",
        finished.predictions("custom", "base"),
        finished.scores("custom", "tuned"),
        finished.comparison("custom"),
        finished.merged / "config.json",
        finished.gguf("f16"),
        finished.modelfile,
        finished.card,
        finished.parity,
        finished.report,
    ]
    assert [str(path) for path in expected if not path.is_file()] == []
    assert read_json(finished.parity)["passed"] is True
    manifest = finished.read_manifest()
    assert list(manifest["stages"]) == ["data", "train", "evaluate", "export", "report"]
    assert manifest["packages"]["torch"].startswith("2.")
    assert manifest["threads"] >= 1 and manifest["dtype"] in ("float32", "bfloat16")


def test_base_and_tuned_were_asked_the_same(finished: RunDir) -> None:
    asked = [
        [(line["id"], line["prompt"]) for line in read_jsonl(finished.predictions("custom", which))]
        for which in ("base", "tuned")
    ]
    assert asked[0] == asked[1] and len(asked[0]) >= 3


def test_no_pickle_is_left_outside_the_checkpoints(finished: RunDir) -> None:
    found = [path for path in finished.root.rglob("*") if path.suffix in (".bin", ".pt", ".pth", ".pkl")]
    assert [path for path in found if finished.checkpoints not in path.parents] == []
    assert not [path for path in finished.root.rglob("*") if path.name.endswith(".tmp")]


def test_a_second_run_does_nothing(
    finished: RunDir, questions: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.train.rglob("*")}
    (finished.root / ".data.tmp").mkdir()  # as a killed process leaves it
    assert main(command(questions, tiny_model, finished.root)) == 0
    assert capsys.readouterr().err.count("up to date") == 5
    assert {path: path.stat().st_mtime_ns for path in finished.train.rglob("*")} == before
    assert not (finished.root / ".data.tmp").exists()


def test_a_changed_setting_redoes_its_stage_and_those_that_read_it(
    questions: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stages = "stages=[data, train]"
    assert main(command(questions, tiny_model, tmp_path, "--set", stages)) == 0
    capsys.readouterr()
    assert main(command(questions, tiny_model, tmp_path, "--set", stages, "--set", "train.learning_rate=1e-3")) == 0
    told = capsys.readouterr().err
    assert "[1/2] data: up to date" in told
    assert "[2/2] train: training" in told
    assert json.loads(RunDir(tmp_path).plan.read_text())["resumed_from"] == 0


def test_a_damaged_artefact_is_made_again(
    questions: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = command(questions, tiny_model, tmp_path, "--set", "stages=[data]")
    assert main(words) == 0
    rundir = RunDir(tmp_path)
    whole = rundir.split("train").read_text()
    rundir.split("train").write_text(whole[:-10])
    capsys.readouterr()
    assert main(words) == 0
    assert "up to date" not in capsys.readouterr().err
    assert rundir.split("train").read_text() == whole


def test_a_stage_alone_needs_the_ones_before_it(
    questions: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = command(questions, tiny_model, tmp_path)
    assert main(["evaluate", *words[1:]]) == 2
    assert "evaluate needs data" in capsys.readouterr().err
    assert main(["train", *words[1:]]) == 0, "reading the data first is quick and spoils nothing"
    assert main(["export", *words[1:]]) == 0, "an export needs no scores"
    assert main(["evaluate", *words[1:]]) == 0


def test_a_second_process_on_the_run_directory_is_refused(
    questions: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import fcntl

    with open(RunDir(tmp_path).lock, "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert main(command(questions, tiny_model, tmp_path)) == 2
    assert "another process" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_refused_export_is_still_reported(
    questions: Path,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from medmind.core.errors import GateError
    from medmind.recipe import stages

    def refuse(*_: object) -> list[Path]:
        raise GateError("the export does not say what the model says")

    monkeypatch.setitem(stages.RUN, "export", refuse)
    assert main(command(questions, tiny_model, tmp_path)) == 1
    assert "does not say" in capsys.readouterr().err
    assert RunDir(tmp_path).report.is_file()
    assert "export" not in RunDir(tmp_path).read_manifest()["stages"]


def test_one_suite_alone_leaves_the_others_answers(finished: RunDir, questions: Path, tiny_model: Path) -> None:
    other = finished.predictions("elsewhere", "base")
    other.parent.mkdir(parents=True)
    other.write_text("{}\n")
    before = finished.predictions("custom", "tuned").stat().st_mtime_ns
    words = command(questions, tiny_model, finished.root)
    assert main(["evaluate", *words[1:], "--suite", "custom"]) == 0
    assert finished.predictions("custom", "tuned").stat().st_mtime_ns == before
    assert other.is_file()
