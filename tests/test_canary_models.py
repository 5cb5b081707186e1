"""The canary check on weights: a model that never read the patients is at chance, one that learnt them is caught."""

from pathlib import Path

import pytest
import torch
from tiny import tiny_mistral

from medmind.cli import evaluate as evaluate_verb
from medmind.cli.main import main
from medmind.core.errors import DataError
from medmind.core.jsonl import read_json, read_jsonl, write_jsonl
from medmind.core.rundir import RunDir
from medmind.core.types import Comparison, Scores
from medmind.data.canaries import canary_suite
from medmind.data.config import CanaryConfig
from medmind.evaluate.compare import compare
from medmind.evaluate.config import EvaluateConfig
from medmind.evaluate.metrics.loss import gold_row
from medmind.evaluate.run import evaluate_model
from medmind.infer.hf import HfGenerator
from medmind.models.catalog import find_model
from medmind.models.tokenizer import open_tokenizer
from medmind.prompts.chat import Renderer
from medmind.prompts.families import open_renderer

CANARIES = CanaryConfig(count=4, repeats=(1, 4), candidates=15)
CONFIG = EvaluateConfig(max_new_tokens=60, batch_size=64)


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return open_renderer("mistral-v3", open_tokenizer(find_model("nano")))


def evaluate(rundir: RunDir, which: str, model: torch.nn.Module, renderer: Renderer) -> Scores:
    generator = HfGenerator(model, renderer.stop_ids, renderer.read, CONFIG.batch_size)
    evaluate_model(CONFIG, rundir, which, "tiny", generator, renderer, "", 0)
    return Scores.model_validate(read_json(rundir.scores("canary", which)))


def learn(model: torch.nn.Module, renderer: Renderer) -> None:
    """Every patient by heart; how often each is planted does not matter here."""
    rows = [gold_row(renderer, row, "") for row in canary_suite(CANARIES, 0)]
    width = max(len(before) + len(reply) for before, reply in rows)
    pads = [width - len(before) - len(reply) for before, reply in rows]
    ids = torch.tensor([[*before, *reply] + [0] * pad for (before, reply), pad in zip(rows, pads, strict=True)])
    wanted = torch.tensor(
        [[-100] * len(before) + [*reply] + [-100] * pad for (before, reply), pad in zip(rows, pads, strict=True)]
    )
    model.train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.95), weight_decay=0.0)
    for _ in range(300):
        loss = model(input_ids=ids, labels=wanted).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        if loss < 0.01:
            return


def test_base_at_chance_and_a_memorising_model_caught(
    tmp_path: Path, renderer: Renderer, capsys: pytest.CaptureFixture[str]
) -> None:
    rundir = RunDir(tmp_path)
    write_jsonl(rundir.suite("canary"), canary_suite(CANARIES, 0))
    model = tiny_mistral(1, max_position_embeddings=512, tie_word_embeddings=True, hidden_size=128)
    base = evaluate(rundir, "base", model, renderer).metrics
    assert base["canary_recall"].value == base["canary_leak"].value == 0
    assert base["canary_exposure"].value < 3, "four patients: 1.44 on average, above 3 once in thirty seeds"

    learn(model, renderer)
    tuned = evaluate(rundir, "tuned", model, renderer)
    assert tuned.metrics["canary_recall"].value == tuned.metrics["canary_leak"].value == 1
    assert tuned.metrics["canary_exposure"].value == 4, "first among 16"
    assert list(tuned.by_category) == ["repeats 1", "repeats 4"]
    assert {row["rank"] for row in read_jsonl(rundir.losses("canary", "tuned"))} == {1}

    (path,) = compare(CONFIG, rundir)
    found = Comparison.model_validate(read_json(path))
    assert (found.metric, found.verdict, found.gained, found.n) == ("canary_exposure", "memorised", 4, 4)
    assert found.low > 0
    assert "4.000: memorised" in capsys.readouterr().err


def test_a_secret_that_does_not_fit_is_an_error(tmp_path: Path, renderer: Renderer) -> None:
    rundir = RunDir(tmp_path)
    write_jsonl(rundir.suite("canary"), canary_suite(CanaryConfig(count=1, candidates=1), 0))
    with pytest.raises(DataError, match="does not fit"):
        evaluate(rundir, "base", tiny_mistral(1, max_position_embeddings=40), renderer)


def test_one_suite_is_a_flag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(evaluate_verb, "run_one_stage", lambda args, stage: asked.append(args.sets) or 0)
    words = ["evaluate", "demo", "--out", str(tmp_path)]
    assert main([*words, "--suite", "canary", "--suite", "terms"]) == 0
    assert main(words) == 0
    assert asked == [['evaluate.suites=["canary", "terms"]'], []]
