"""What a training made a model forget: plain prose and exams in other languages, from their files to the verdict."""

import json
from pathlib import Path

import pytest
import zstandard

from medmind.cli.main import main
from medmind.core.errors import DataError
from medmind.core.jsonl import read_json, read_jsonl, write_jsonl
from medmind.core.rundir import RunDir
from medmind.core.types import Comparison, Example, Scores
from medmind.data.config import DataConfig, SuiteConfig
from medmind.data.sources.known import SOURCES
from medmind.data.sources.seam import Dropped, Row
from medmind.data.stage.suites import read_suite
from medmind.evaluate.compare import compare
from medmind.evaluate.config import EvaluateConfig
from medmind.evaluate.run import evaluate_model
from medmind.infer.fake import FakeGenerator
from medmind.models.catalog import find_model
from medmind.models.tokenizer import open_tokenizer
from medmind.prompts.families import open_renderer
from medmind.recipe.load import load_recipe
from medmind.recipe.stages import run_stages


def rows_of(path: Path) -> list[Row | Dropped]:
    return list(SOURCES.get("prose").read(DataConfig(source="prose", path=str(path))))


def test_passages_in_any_packing(tmp_path: Path) -> None:
    lines = [{"title": "A tale", "text": "Once upon a time.\u2028Still one line."}, {"title": "B", "text": "The end."}]
    plain = tmp_path / "prose.jsonl"
    write_jsonl(plain, [*lines, {"title": "C", "text": None}, {"title": "D", "text": ["no text"]}])
    packed = tmp_path / "packed.jsonl.zst"
    packed.write_bytes(zstandard.compress(plain.read_bytes()))
    for path in (plain, packed):
        first, _, empty, odd = rows_of(path)
        assert isinstance(first, Row)
        assert (first.example.task, first.example.group, first.part) == ("text", "A tale", None)
        assert first.example.target == lines[0]["text"]
        assert isinstance(empty, Row) and empty.example.target == ""  # the checks drop it
        assert isinstance(odd, Dropped) and odd.row == 4
    packed.write_bytes(packed.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"zstandard file is damaged|ends|not JSON|empty"):
        assert len(rows_of(packed)) == 4, "a cut file must not be taken for a whole one: it ends too early"
    packed.write_bytes(b"\x28\xb5\x2f\xfd" + b"nonsense" * 9)
    with pytest.raises(DataError, match="zstandard file is damaged"):
        rows_of(packed)


def test_a_suite_of_fewer_is_drawn_by_answer(tmp_path: Path) -> None:
    rows = [
        {"question": f"Which sign is number {n}?", "options": {"A": "x", "B": "y"}, "answer_idx": "AB"[n >= 60]}
        for n in range(90)
    ]
    path = tmp_path / "test.jsonl"
    write_jsonl(path, [row | {"answer": row["options"][row["answer_idx"]]} for row in rows])
    config = SuiteConfig(source="medqa", path=str(path), max_items=30)
    drawn = list(read_suite(config.as_data(), tmp_path, config.max_items).rows)
    assert [one.target for one in drawn] == ["A"] * 20 + ["B"] * 10  # sorted as the file is, each in its share
    assert drawn == list(read_suite(config.as_data(), tmp_path, config.max_items).rows)
    assert [one.id for one in drawn] != [one.id for one in list(read_suite(config.as_data(), tmp_path, None).rows)[:30]]


def test_base_against_tuned_on_prose_and_other_languages(tmp_path: Path, shared_data: Path) -> None:
    """The suites of the docs; the tuned model finds every token less likely: it forgot."""
    suites = {
        "prose": {"source": "prose", "path": f"{shared_data}/prose_general", "files": ["african*"], "max_items": 6}
    } | {
        f"casimedicos-{language}": {
            "source": "casimedicos",
            "path": f"{shared_data}/multilingual/casimedicos_{language}.jsonl.gz",
            "max_items": 12,
        }
        for language in ("es", "fr", "it")
    }
    recipe = load_recipe("terms", [f"data.suites={json.dumps(suites)}", "data.max_train_rows=20"])
    run = RunDir(tmp_path / "run")
    run_stages(recipe, run, ("data",))
    assert [len(list(read_jsonl(run.suite(name)))) for name in suites] == [6, 12, 12, 12]
    assert Example.model_validate(next(read_jsonl(run.suite("casimedicos-fr")))).language == "fr"
    spec = find_model("nano")
    renderer = open_renderer(spec.renderer, open_tokenizer(spec))
    config = EvaluateConfig(suites=tuple(suites), max_new_tokens=2, protocols=("lm-eval", "chat"))
    for which, logprob in (("base", -1.0), ("tuned", -1.5)):
        generator = FakeGenerator(renderer.tokenizer, lambda _: "A.", logprob=logprob)
        evaluate_model(config, run, which, "nano", generator, renderer, "", 0)
    compare(config, run)
    found = {name: Comparison.model_validate(read_json(run.comparison(name))) for name in suites}
    prose = found["prose"]
    assert (prose.metric, prose.verdict, prose.n) == ("heldout_loss", "worse", 6)
    assert prose.difference == pytest.approx(0.5)
    scores = Scores.model_validate(read_json(run.scores("prose", "base")))
    assert scores.metrics["perplexity"].value == pytest.approx(2.718281828 ** scores.metrics["heldout_loss"].value)
    for language in ("es", "fr", "it"):
        one = found[f"casimedicos-{language}"]
        assert (one.metric, one.n) == ("accuracy", 12)
        assert [other.metric for other in one.others] == ["choice_accuracy", "heldout_loss"]
        assert one.others[1].verdict == "worse"


def test_the_recipe_shown_is_one(tmp_path: Path) -> None:
    assert main(["recipe", "show", "exams"]) == 0
    recipe = load_recipe("exams")
    for preset in ("exams", "pubmedqa", "pubmedqa-context"):
        assert load_recipe(preset).evaluate.protocols == ("lm-eval", "chat")
    assert {"pubmedqa-question-only", "medqa", "medmcqa", "mmlu_medical", "casimedicos-es"} <= set(recipe.data.suites)
