"""Replies of systems that know nothing, through every scorer, get what theory demands; so do PubMedQA's annotators."""

import gzip
import json
import random
from collections.abc import Callable
from math import log
from pathlib import Path

import pytest

from medmind.core.jsonl import read_json, write_jsonl
from medmind.core.rundir import RunDir
from medmind.core.types import Example, Message, Outcome, Scores
from medmind.data.config import DataConfig
from medmind.data.sources.known import SOURCES
from medmind.data.sources.seam import Row
from medmind.evaluate.config import EvaluateConfig
from medmind.evaluate.elsewhere import score_elsewhere
from medmind.evaluate.protocols import yes_no_100
from medmind.evaluate.run import evaluate_model
from medmind.infer.fake import FakeGenerator
from medmind.models.catalog import find_model
from medmind.models.tokenizer import open_tokenizer
from medmind.prompts.families import open_renderer
from medmind.prompts.tasks.terms import render

ANSWERS = ("yes", "no", "maybe")
LABELS = ["yes"] * 276 + ["no"] * 169 + ["maybe"] * 55
"""The official test's."""
LETTERS = "ABCD"


def choices() -> list[Example]:
    asked = (Message(role="user", text="Is it so?"),)
    return [
        Example(id=f"p{n}", source="pubmedqa", task="choice", turns=asked, options=ANSWERS, target=label)
        for n, label in enumerate(LABELS)
    ]


def exam() -> list[Example]:
    asked = (Message(role="user", text="Which one?"),)
    options = ("fever", "cough", "rash", "pain")
    return [
        Example(id=f"e{n}", source="medqa", task="multiple_choice", turns=asked, options=options, target=LETTERS[n % 4])
        for n in range(200)
    ]


def free(task: str) -> list[Example]:
    parts = ("A thing in the body.", "It works like this.", "It matters to doctors.", "For educational use only.")
    target = {"terms": render(*parts), "reasoned": "Rest.", "qa": "Rest and drink enough."}[task]
    asked = (Message(role="user", text="Explain: Thing"),)
    return [Example(id=f"f{n}", source="x", task=task, turns=asked, target=target, reasoning="So.") for n in range(40)]


def scored(folder: Path, examples: list[Example], reply: Callable[[Example], str]) -> Scores:
    run = RunDir(folder / "run")
    write_jsonl(run.suite("s"), examples)
    write_jsonl(folder / "replies.jsonl", [{"id": one.id, "text": reply(one)} for one in examples])
    return score_elsewhere(EvaluateConfig(suites=("s",)), run, folder / "replies.jsonl", 0)[0]


def any_answer(example: Example) -> str:
    options = example.options if example.task == "choice" else LETTERS
    return random.Random(example.id).choice(options)


F1_YES, F1_MAYBE = 2 * 276 / 776 / 3, 2 * 55 / 555 / 3
NULL: dict[str, tuple[Callable[[Example], str], float, float, Outcome]] = {
    "always yes": (lambda _: "Yes.", 0.552, F1_YES, Outcome.ANSWERED),
    "always maybe": (lambda _: "Maybe.", 0.11, F1_MAYBE, Outcome.ANSWERED),
    "empty": (lambda _: "", 0, 0, Outcome.MALFORMED),
    "refusal": (lambda _: "I'm sorry, I cannot give medical advice.", 0, 0, Outcome.REFUSED),
    "garbage": (lambda _: "%% 00 qx yesno B9", 0, 0, Outcome.MALFORMED),
    "not sure": (lambda _: "Not sure.", 0, 0, Outcome.MALFORMED),
    "no inside not": (lambda _: "I am not able to answer that.", 0, 0, Outcome.REFUSED),
    "right word, wrong sentence": (lambda e: f"It is wrong that {e.target} holds.", 0, 0, Outcome.MALFORMED),
    "letters where words are asked": (lambda _: "A", 0, 0, Outcome.MALFORMED),
}


@pytest.mark.parametrize(("reply", "accuracy", "f1", "outcome"), NULL.values(), ids=NULL.keys())
def test_choices(tmp_path: Path, reply: Callable[[Example], str], accuracy: float, f1: float, outcome: Outcome) -> None:
    found = scored(tmp_path, choices(), reply)
    assert found.metrics["accuracy"].value == pytest.approx(accuracy)
    assert found.metrics["macro_f1"].value == pytest.approx(f1)
    assert found.outcomes == {one.value: 500 * (one is outcome) for one in Outcome}
    assert found.metrics["parse_rate"].value == float(outcome is Outcome.ANSWERED)
    assert ("accuracy_if_parsed" in found.metrics) == (outcome is Outcome.ANSWERED)


def test_a_model_that_likes_all_options_the_same(tmp_path: Path) -> None:
    """By forced choice it takes the first: always yes, always A; its confidence, a third or a quarter, says nothing."""
    run, spec = RunDir(tmp_path), find_model("nano")
    write_jsonl(run.suite("choices"), choices())
    write_jsonl(run.suite("exam"), exam())
    renderer = open_renderer(spec.renderer, open_tokenizer(spec))
    protocols = ("lm-eval", "helm")  # in the chat's words "Yes" is two tokens, which a sum counts twice
    config = EvaluateConfig(protocols=protocols, max_new_tokens=4)
    generator = FakeGenerator(renderer.tokenizer, lambda _: "")
    evaluate_model(config, run, "base", "none", generator, renderer, "", 0)
    for suite, first, options in (("choices", 0.552, 3), ("exam", 0.25, 4)):
        found = Scores.model_validate(read_json(run.scores(suite, "base")))
        assert {name: one.value for name, one in found.protocols.items()} == dict.fromkeys(protocols, first)
        assert found.metrics["choice_accuracy"].value == first
        assert found.metrics["ece_15_width"].value == pytest.approx(abs(first - 1 / options))
        assert (found.metrics["auroc"].value, found.metrics["aupr"].value) == (0.5, pytest.approx(first))
        assert found.metrics["accuracy_at_10"].value == pytest.approx(first)
        assert found.metrics["brier"].value == pytest.approx(1 - 1 / options)
        assert found.metrics["nll"].value == pytest.approx(log(options))
        assert found.metrics["accuracy"].value == 0


def test_a_random_answer_is_at_chance(tmp_path: Path) -> None:
    assert scored(tmp_path, choices(), any_answer).metrics["accuracy"].value == pytest.approx(1 / 3, abs=0.065)
    found = scored(tmp_path, exam(), any_answer)
    assert found.metrics["accuracy"].value == pytest.approx(1 / 4, abs=0.1)
    assert found.metrics["parse_rate"].value == 1


@pytest.mark.parametrize(
    ("reply", "accuracy", "parsed"),
    [
        (lambda _: "A", 0.25, 1),
        (lambda _: "B. cough", 0.25, 1),
        (lambda e: f"({e.target}) as said", 1, 1),
        (lambda _: "", 0, 0),
        (lambda _: "As an AI I do not diagnose.", 0, 0),
        (lambda e: f"The wrong one is {e.target}.", 0, 0),
        (lambda _: "A fever it is", 0, 0),
        (lambda _: "E", 0, 0),
        (lambda _: "yes", 0, 0),
    ],
)
def test_exams(tmp_path: Path, reply: Callable[[Example], str], accuracy: float, parsed: float) -> None:
    found = scored(tmp_path, exam(), reply).metrics
    assert (found["accuracy"].value, found["parse_rate"].value) == (accuracy, parsed)


@pytest.mark.parametrize("task", ["terms", "reasoned"])
@pytest.mark.parametrize("reply", ["", "yes", "I'm sorry, no.", "xx 12 %%", "**Definition**: ## Thinking"])
def test_forms_nobody_kept(tmp_path: Path, task: str, reply: str) -> None:
    found = scored(tmp_path, free(task), lambda _: reply)
    assert found.metrics["format_adherence" if task == "terms" else "answered"].value == 0
    assert found.outcomes["answered"] == 0


def test_free_answers_are_only_empty_or_refused(tmp_path: Path) -> None:
    for reply, answered in (("", 0), ("I cannot help.", 0), ("Yes.", 1)):
        found = scored(tmp_path, free("qa"), lambda _, reply=reply: reply).metrics
        assert found["answered"].value == answered
        assert found["chrf"].value < 0.2


def test_the_published_yes_no_rule_reads_words_alone() -> None:
    read = yes_no_100.read
    assert [read(text) for text in ("Yes, it is", "\n\nno.", "It is not known", "eyes", "", "maybe")] == [
        "yes", "no", "", "", "", ""
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("setting", "field", "accuracy", "f1"),
    [
        ("reasoning-required", "reasoning_required_pred", 78.0, 72.19),
        ("reasoning-free", "reasoning_free_pred", 90.4, 84.18),
        ("question-only", None, 55.2, 23.71),
    ],
)
def test_the_human_annotators_and_always_yes_on_the_official_500(
    tmp_path: Path, shared_data: Path, setting: str, field: str | None, accuracy: float, f1: float
) -> None:
    path = shared_data / "pubmedqa" / "ori_pqal.json.gz"
    config = DataConfig(source="pubmedqa", path=str(path), setting=setting)
    rows = [row for row in SOURCES.get("pubmedqa").read(config) if isinstance(row, Row)]
    raw = json.loads(gzip.decompress(path.read_bytes()))
    official = [row.example for row in rows if row.part == "test"]
    found = scored(tmp_path, official, lambda e: raw[e.id][field] if field else "Yes.")
    assert found.n == 500
    assert round(100 * found.metrics["accuracy"].value, 2) == accuracy
    assert round(100 * found.metrics["macro_f1"].value, 2) == f1
    assert found.class_balance == {"maybe": 55, "no": 169, "yes": 276}
