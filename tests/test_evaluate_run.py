"""The evaluate stage over a run directory: same questions to both, files per contracts, nothing done twice."""

import json
from pathlib import Path

import pytest

from medmind.core.errors import DataError, UsageError
from medmind.core.jsonl import read_json, read_jsonl, write_jsonl
from medmind.core.rundir import RunDir, sha256_file, sha256_lines
from medmind.core.sampling import sample
from medmind.core.types import Comparison, Example, Message, Prediction, Scores
from medmind.evaluate.compare import compare
from medmind.evaluate.config import EvaluateConfig
from medmind.evaluate.differences import compare_losses, compare_shares
from medmind.evaluate.metrics.loss import ItemLoss, gold_row
from medmind.evaluate.run import evaluate_model
from medmind.infer.fake import FakeGenerator
from medmind.models.catalog import find_model
from medmind.models.tokenizer import open_tokenizer
from medmind.prompts.chat import Renderer
from medmind.prompts.families import open_renderer

SYSTEM = "Answer briefly."
CONFIG = EvaluateConfig(max_new_tokens=50)


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return open_renderer("mistral-v3", open_tokenizer(find_model("nano")))


def question(number: int, task: str) -> Example:
    label = ("yes", "no", "maybe")[number // 10 % 3]
    return Example(
        id=f"q{number}",
        source="test",
        task=task,
        turns=(Message(role="user", text=f"Question {number}: is it so?"),),
        options=("yes", "no", "maybe") if task == "choice" else (),
        target=label if task == "choice" else f"It is answer {number}.",
    )


@pytest.fixture
def rundir(tmp_path: Path) -> RunDir:
    """Thirty choices sorted by label, and twenty free questions."""
    run = RunDir(tmp_path / "run")
    write_jsonl(run.suite("sorted"), [question(number, "choice") for number in range(30)])
    write_jsonl(run.suite("free"), [question(number, "qa") for number in range(20)])
    return run


def evaluate(
    run: RunDir, renderer: Renderer, which: str, reply: str, config: EvaluateConfig = CONFIG, logprob: float = -1.0
) -> FakeGenerator:
    generator = FakeGenerator(renderer.tokenizer, lambda _: reply, logprob=logprob)
    files = evaluate_model(config, run, which, "nano", generator, renderer, SYSTEM, 0)
    assert all(path.is_file() for path in files)
    return generator


def test_files_are_as_contracts_say(rundir: RunDir, renderer: Renderer) -> None:
    evaluate(rundir, renderer, "base", "Yes.")
    rows = [Prediction.model_validate(row) for row in read_jsonl(rundir.predictions("sorted", "base"))]
    assert [row.id for row in rows] == [f"q{number}" for number in range(30)]
    assert rows[3].prompt == f"<s>[INST] {SYSTEM}\n\nQuestion 3: is it so?\nAnswer yes, no or maybe.[/INST]"
    assert [row.correct for row in rows] == [True] * 10 + [False] * 20
    scores = Scores.model_validate(read_json(rundir.scores("sorted", "base")))
    assert (scores.suite, scores.model, scores.n, scores.engine, scores.dtype) == (
        "sorted", "nano", 30, "fake", "float32"
    )  # fmt: skip
    assert scores.metrics["accuracy"].value == pytest.approx(1 / 3)
    assert scores.class_balance == {"maybe": 10, "no": 10, "yes": 10}
    assert scores.ids_sha256 == sha256_lines(row.id for row in rows)
    assert scores.data_sha256 == sha256_file(rundir.suite("sorted"))
    assert scores.metrics["heldout_loss"].value == pytest.approx(1.0)


def test_the_loss_is_over_the_supervised_tokens_with_eos(renderer: Renderer) -> None:
    item = question(1, "qa")
    context, reply = gold_row(renderer, item, SYSTEM)
    assert renderer.read(reply) == item.target
    assert reply[-1] in renderer.stop_ids
    assert context[-1] == renderer.tokenizer.token_id("[/INST]")


def test_base_and_tuned_are_asked_the_same(rundir: RunDir, renderer: Renderer) -> None:
    asked = [evaluate(rundir, renderer, which, reply).asked for which, reply in (("base", "Yes."), ("tuned", "No."))]
    assert asked[0] == asked[1]
    assert len(asked[0]) == 50


def test_finished_predictions_are_not_made_again(rundir: RunDir, renderer: Renderer) -> None:
    evaluate(rundir, renderer, "base", "Yes.")
    before = rundir.predictions("sorted", "base").read_bytes()
    rundir.scores("sorted", "base").unlink()
    assert evaluate(rundir, renderer, "base", "No.").asked == []
    assert rundir.predictions("sorted", "base").read_bytes() == before
    assert rundir.scores("sorted", "base").is_file()


def test_a_lost_damaged_or_outdated_file_is_made_again(rundir: RunDir, renderer: Renderer) -> None:
    evaluate(rundir, renderer, "base", "Yes.")
    rundir.predictions("free", "base").unlink()
    assert len(evaluate(rundir, renderer, "base", "Yes.").asked) == 20
    with open(rundir.predictions("sorted", "base"), "a") as file:
        file.write(" \n")
    assert len(evaluate(rundir, renderer, "base", "Yes.").asked) == 30
    assert len(evaluate(rundir, renderer, "base", "Yes.", EvaluateConfig(max_new_tokens=9)).asked) == 50
    generator = FakeGenerator(renderer.tokenizer, lambda _: "Yes.")
    evaluate_model(CONFIG, rundir, "base", "nano", generator, renderer, SYSTEM, 0, key="other weights")
    assert len(generator.asked) == 50


def test_a_killed_suite_leaves_the_finished_one(rundir: RunDir, renderer: Renderer) -> None:
    def die(text: str) -> str:
        if "Answer yes" in text:
            raise KeyboardInterrupt
        return "Yes."

    with pytest.raises(KeyboardInterrupt):
        evaluate_model(CONFIG, rundir, "base", "nano", FakeGenerator(renderer.tokenizer, die), renderer, SYSTEM, 0)
    assert not rundir.predictions("sorted", "base").exists()
    assert len(evaluate(rundir, renderer, "base", "Yes.").asked) == 30


def test_fewer_items_are_a_seeded_sample_never_a_prefix(rundir: RunDir, renderer: Renderer) -> None:
    evaluate(rundir, renderer, "base", "Yes.", EvaluateConfig(max_items=10, suites=("sorted",)))
    scores = Scores.model_validate(read_json(rundir.scores("sorted", "base")))
    assert scores.n == 10
    assert len(scores.class_balance) == 3
    assert scores.ids_sha256 == sha256_lines(f"q{number}" for number in sample(30, 10, 0))
    assert not rundir.scores("free", "base").exists()


def test_a_prompt_or_row_beyond_the_context_is_counted(
    rundir: RunDir, renderer: Renderer, capsys: pytest.CaptureFixture[str]
) -> None:
    long = question(99, "qa").model_copy(update={"turns": (Message(role="user", text="word " * 300),)})
    write_jsonl(rundir.suite("free"), [question(1, "qa"), long])
    generator = FakeGenerator(renderer.tokenizer, lambda _: "Fine.", context=200)
    evaluate_model(EvaluateConfig(suites=("free",)), rundir, "base", "nano", generator, renderer, SYSTEM, 0)
    rows = list(read_jsonl(rundir.predictions("free", "base")))
    assert [(row["outcome"], row["correct"]) for row in rows] == [("answered", True), ("truncated", False)]
    assert "leave no room" in rows[1]["reason"]
    scores = Scores.model_validate(read_json(rundir.scores("free", "base")))
    assert (scores.metrics["answered"].n, scores.metrics["heldout_loss"].n) == (2, 1)
    told = " ".join(capsys.readouterr().err.split())
    assert "1 of 2 prompts" in told
    assert "held-out loss without 1 of 2 items" in told


def test_bad_suites_are_named(rundir: RunDir, renderer: Renderer, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match='did you mean "sorted"'):
        evaluate(rundir, renderer, "base", "Yes.", EvaluateConfig(suites=("sortde",)))
    with pytest.raises(DataError, match="no suite"):
        evaluate(RunDir(tmp_path / "nothing"), renderer, "base", "Yes.")
    for rows, fault in (
        ([], "empty"),
        ([question(1, "qa"), question(2, "choice")], "mixes tasks"),
        ([question(1, "qa"), question(1, "qa")], "an id twice"),
        ([question(1, "qa"), {"id": "x"}], "not a Example: source"),
    ):
        write_jsonl(rundir.suite("free"), rows)
        with pytest.raises(DataError, match=fault):
            evaluate(rundir, renderer, "base", "Yes.")


def test_comparison_of_a_choice_and_of_a_loss(rundir: RunDir, renderer: Renderer) -> None:
    evaluate(rundir, renderer, "base", "I cannot say.", logprob=-2.0)
    evaluate(rundir, renderer, "tuned", "Yes.", logprob=-1.5)
    written = compare(CONFIG, rundir)
    assert written == [rundir.comparison("free"), rundir.comparison("sorted")]
    loss, choice = (Comparison.model_validate(read_json(path)) for path in written)
    assert (choice.metric, choice.n, choice.gained, choice.lost, choice.verdict) == ("accuracy", 30, 10, 0, "better")
    assert choice.p_value == pytest.approx(2**-10)
    assert choice.difference == pytest.approx(1 / 3)
    assert 0 < choice.low < choice.difference < choice.high
    assert (loss.metric, loss.lower_is_better, loss.verdict) == ("heldout_loss", True, "better")
    assert loss.difference == pytest.approx(-0.5)
    # A loss has a p-value since suites are adjusted for one another: the least that 2,000 draws can show.
    assert loss.p_value == pytest.approx(2 / 2001)
    assert [one.adjusted_p for one in (loss, choice)] == pytest.approx([2 / 1024] * 2)
    assert loss.family == choice.family == 2
    assert json.loads(written[0].read_text())["gained"] is None


def test_comparison_refuses_different_questions(rundir: RunDir, renderer: Renderer) -> None:
    evaluate(rundir, renderer, "base", "Yes.")
    generator = FakeGenerator(renderer.tokenizer, lambda _: "Yes.")
    evaluate_model(CONFIG, rundir, "tuned", "nano", generator, renderer, "Another system prompt.", 0)
    with pytest.raises(DataError, match="not asked the same"):
        compare(CONFIG, rundir)


def test_verdicts() -> None:
    right, wrong = [True] * 50, [False] * 50
    assert compare_shares("s", "accuracy", wrong, right, 0.02).verdict == "better"
    assert compare_shares("s", "accuracy", right, wrong, 0.02).verdict == "worse"
    same = compare_shares("s", "accuracy", right, right, 0.02)
    assert (same.verdict, same.p_value, same.smallest_detectable) == ("cannot tell", 1.0, None)
    few = compare_shares("s", "accuracy", [False] * 4 + [True] * 46, right, 0.001)
    assert (few.verdict, few.p_value) == ("cannot tell", pytest.approx(1 / 16))


def test_verdicts_of_losses() -> None:
    base = [ItemLoss(id=str(number), nats=20.0 + number % 3, tokens=10) for number in range(40)]

    def shifted(*changes: float) -> list[ItemLoss]:
        return [row.model_copy(update={"nats": row.nats + changes[n % len(changes)]}) for n, row in enumerate(base)]

    assert compare_losses("s", base, shifted(-1.0, -2.0), 0.02, seed=0).verdict == "better"
    assert compare_losses("s", base, shifted(1.0, 2.0), 0.02, seed=0).verdict == "worse"
    unclear = compare_losses("s", base, shifted(5.0, -5.0), 0.02, seed=0)
    assert unclear.verdict == "cannot tell"
    # sd .5 nats a token over 40 items: a standard error of .079, and 2.8 of them to be seen with 80 %.
    assert unclear.smallest_detectable == pytest.approx(2.8016 * 0.0791, rel=0.05)
    assert 0.05 < unclear.power < 0.15
    assert compare_losses("s", base, base, 0.02, seed=0).verdict == "cannot tell"  # forty items, so wide a margin:
    assert compare_losses("s", base, base, 0.1, seed=0).verdict == "no worse"
    with pytest.raises(DataError, match="same items"):
        compare_losses("s", base, base[1:], 0.02, seed=0)
