"""`medmind compare` on what people really hand it: each fault is told with its file, its row and what to do."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from test_compare import N, make_run

from medmind.cli.main import main
from medmind.core.jsonl import read_jsonl, write_jsonl
from medmind.core.rundir import RunDir


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[RunDir, RunDir]:
    monkeypatch.chdir(tmp_path)
    return make_run(Path("runs/a"), 20), make_run(Path("runs/b"), 40)


def rewrite(file: Path, change: Callable[[list[str]], list[str]]) -> None:
    lines = file.read_text(encoding="utf-8").splitlines()
    file.write_text("".join(f"{line}\n" for line in change(lines)), encoding="utf-8")


def told(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["compare", *words]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert said.startswith("error: ") and "Traceback" not in said
    return said


def swap(lines: list[str], place: int, old: str, new: str) -> list[str]:
    assert old in lines[place]
    return [*lines[:place], lines[place].replace(old, new), *lines[place + 1 :]]


DAMAGE: dict[str, tuple[str, Callable[[list[str]], list[str]], str]] = {
    "empty": ("predictions", lambda _: [], "predictions.jsonl, evaluate it again"),
    "cut in a line": ("predictions", lambda lines: [*lines[:-1], lines[-1][:40]], f"line {N}"),
    "an item missing": ("predictions", lambda lines: lines[:9] + lines[10:], 'has "q9" where runs/b has "q10"'),
    "the end missing": ("predictions", lambda lines: lines[:50], f"{N} and 50 questions"),
    "an id twice": ("predictions", lambda lines: [*lines, lines[3]], f"row {N + 1}, make"),
    "another prompt": ("predictions", lambda lines: swap(lines, 4, '"p4"', '"other"'), 'the prompts of "q4" differ'),
    "NaN": ("losses", lambda lines: ['{"id": "q0", "nats": NaN, "tokens": 3}', *lines[1:]], "losses.jsonl, row 1"),
    "infinity": ("predictions", lambda lines: swap(lines, 2, "-3.0", "-Infinity"), "predictions.jsonl, row 3"),
    "a likelihood missing": (
        "predictions",
        lambda lines: swap(lines, 5, ",-3.0]", "]"),
        '"q5" of runs/b has 2 likelihoods',
    ),
    "null": ("losses", lambda lines: ['{"id": "q0", "nats": null, "tokens": 3}', *lines[1:]], "losses.jsonl, row 1"),
    "no prediction": ("predictions", lambda lines: ['{"id": "q0"}', *lines[1:]], "predictions.jsonl, row 1"),
    "a list": ("predictions", lambda lines: ["[1]", *lines[1:]], "predictions.jsonl, row 1"),
    "other losses": ("losses", lambda lines: lines[1:], "no losses of the same items"),
}


@pytest.mark.parametrize(("part", "change", "said"), DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_run(
    runs: tuple[RunDir, RunDir],
    capsys: pytest.CaptureFixture[str],
    part: str,
    change: Callable[[list[str]], list[str]],
    said: str,
) -> None:
    rewrite(getattr(runs[1], part)("choices", "tuned"), change)
    found = told(capsys, "runs/a", "runs/b")
    assert said in found
    assert "again" in found  # what to do


def test_an_id_twice_is_told_with_both_its_rows(
    runs: tuple[RunDir, RunDir], capsys: pytest.CaptureFixture[str]
) -> None:
    file = runs[1].predictions("choices", "tuned")
    rewrite(file, lambda lines: [*lines, lines[3]])
    assert f'id "q3" stands twice, first in row 4, {file}, row {N + 1}' in told(capsys, "runs/a", "runs/b")
    assert 'id "q3" stands twice' in told(capsys, str(runs[0].predictions("choices", "tuned")), str(file))


def test_both_runs_empty(runs: tuple[RunDir, RunDir], capsys: pytest.CaptureFixture[str]) -> None:
    for run in runs:
        run.predictions("choices", "tuned").write_text("")
    assert "runs/a/evaluate/choices/tuned/predictions.jsonl" in told(capsys, "runs/a", "runs/b")


def test_runs_of_different_suites(runs: tuple[RunDir, RunDir], capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("choices", "free"):
        shutil.rmtree(runs[1].evaluate / name)
    found = told(capsys, "runs/a", "runs/b")
    assert "share no suite, runs/a: choices, free; runs/b: none evaluated" in found
    assert 'suite "choices" was not evaluated, runs/b' in told(capsys, "runs/a", "runs/b", "--suite", "choices")
    Path("runs/c").mkdir()
    assert "runs/c: none evaluated" in told(capsys, "runs/a", "runs/c")


def test_files_of_predictions(runs: tuple[RunDir, RunDir], capsys: pytest.CaptureFixture[str]) -> None:
    own = str(runs[0].predictions("choices", "tuned"))
    shutil.rmtree("runs/b")
    lines = [{"id": f"q{number}", "text": "yes"} for number in range(N)]
    trials: list[tuple[list[dict[str, object]], list[str], str]] = [
        ([], [], "the file is empty, other.jsonl"),
        ([], ["--suite", "choices"], "the file is empty, other.jsonl"),
        (lines[:-2], ["--suite", "choices"], "2 of 60 questions have no prediction (first: q58, q59), other.jsonl"),
        ([*lines, lines[7]], ["--suite", "choices"], 'id "q7" stands twice, first in row 8, other.jsonl, row 61'),
        ([*lines, {"id": "q99", "text": ""}], ["--suite", "choices"], 'id "q99" is none of the suite\'s'),
        ([{"id": "q0"}], ["--suite", "choices"], "other.jsonl, row 1"),
        (lines, [], "add --suite NAME"),
        (lines, ["--suite", "choices", "--suite", "free"], "answer one suite"),
        (lines, ["--suite", "nothing"], '0 runs here have a suite "nothing"'),
    ]
    for rows, words, said in trials:
        write_jsonl(Path("other.jsonl"), rows)
        assert said in told(capsys, own, "other.jsonl", *words), said
    # A run's own file that also answers what the suite does not ask.
    strange = [*read_jsonl(Path(own)), json.loads(Path(own).read_text().splitlines()[0].replace('"q0"', '"q77"'))]
    write_jsonl(Path("other.jsonl"), strange)
    assert 'id "q77" is none of the suite\'s' in told(capsys, own, "other.jsonl", "--suite", "choices")
    Path("other.jsonl").write_bytes(b"\xff\xfe\x00")
    assert "not UTF-8, other.jsonl, line 1" in told(capsys, own, "other.jsonl")
