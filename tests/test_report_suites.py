"""What evaluation found beside its verdict reaches the page: gain, protocols and their spread, calibration, risk."""

import re
from pathlib import Path

import pytest
from report_run import make_run, metric, scores
from test_docs import metric_names

from medmind.core.jsonl import read_json, write_json, write_text
from medmind.core.rundir import RunDir
from medmind.core.types import Comparison, Metric
from medmind.evaluate.differences import compare_shares
from medmind.evaluate.gain import PARTS, Gain
from medmind.evaluate.metrics.calibration import calibration_metrics
from medmind.evaluate.metrics.confidence import Choice, confidence_metrics
from medmind.report import words
from medmind.report.config import ReportConfig
from medmind.report.html import write_report

STEPS = ("unbiased", "raw", "chat", "read", "strict")


def text_of(run: RunDir) -> str:
    (path,) = write_report(ReportConfig(), run, 7)
    page = re.sub(r"<style>.*?</style>", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return make_run(tmp_path / "demo")


def part(value: float) -> Metric:
    return Metric(value=value, low=value - 0.02, high=value + 0.02, n=40)


def test_the_gain_is_told_part_by_part(run: RunDir) -> None:
    assert "Where the gain comes from" not in text_of(run)
    gain = Gain(
        suite="terms",
        n=40,
        base=dict.fromkeys(STEPS, 0.25),
        tuned={name: 0.25 + place / 10 for place, name in enumerate(STEPS)},
        whole=part(0.4),
        parts=dict(zip(PARTS, map(part, (0.01, 0.09, -0.03, 0.33)), strict=True)),
    )
    write_json(run.gain("terms"), gain.model_dump(mode="json"))
    text = text_of(run)
    assert "Where the gain comes from: the parts add up to the whole" in text
    for said in ("Knowledge", "+1.0 % -1.0 to +3.0", "Format", "-3.0 %", "Together", "+40.0 % +38.0 to +42.0"):
        assert said in text
    assert "written reply; unread is wrong 25.0 % 65.0 %" in text
    assert set(words.PARTS) == set(PARTS) and set(words.STEPS) == set(STEPS)
    for damaged in ('{"parts": 3}', '{"parts": {"knowledge": {"value": "x"}}}', "[]", "{"):
        write_text(run.gain("terms"), damaged)
        assert "Where the gain comes from" not in text_of(run)


def test_the_figures_beside_the_one_that_decides(run: RunDir) -> None:
    other = compare_shares("terms", "choice_accuracy", [False] * 20 + [True] * 20, [True] * 40, 0.02)
    note = other.model_copy(update={"metric": "unsupported_nli", "note": "18 of 40 questions, answered by both"})
    found = Comparison.model_validate(read_json(run.comparison("terms")))
    found = found.model_copy(update={"others": (other, note)})
    write_json(run.comparison("terms"), found.model_dump(mode="json"))
    text = text_of(run)
    assert "not adjusted for there being several: hints" in text
    assert "Forced choice 50.0 % 100.0 % +50.0 %" in text
    assert "18 of 40 questions, answered by both" in text
    write_json(run.comparison("terms"), found.model_dump(mode="json") | {"others": [3, {"metric": None}]})
    assert "not recorded" in text_of(run)


def test_the_protocols_and_how_far_they_lie_apart(run: RunDir) -> None:
    for which, shift in (("base", 0.0), ("tuned", 0.1)):
        protocols = {"lm-eval": metric(0.55 + shift), "helm": metric(0.25), "chat": metric(0.4)}
        told = scores(which).model_copy(update={"protocols": protocols})
        write_json(run.scores("terms", which), told.model_dump(mode="json"))
    text = text_of(run)
    assert "figures of two protocols never compare" in text
    assert "base: lm-eval 55.0 %, helm 25.0 %, chat 40.0 %: 30.0 points apart by protocol alone." in text
    assert "tuned: lm-eval 65.0 %, helm 25.0 %, chat 40.0 %: 40.0 points apart by protocol alone." in text


def test_calibration_and_risk_over_coverage_reach_the_page(run: RunDir) -> None:
    choices = [Choice((0.9, 0.06, 0.04), int(n % 3 == 0)) for n in range(30)]
    choices += [Choice((0.5, 0.3, 0.2), int(n % 2)) for n in range(30)]
    found = calibration_metrics(choices, 0) | confidence_metrics(choices, 0)
    assert {"ece_15_width", "ece_15_width_null", "ece_10_mass", "ece_10_mass_null"} < set(found)
    assert {"brier", "nll", "auroc", "aupr", "aurc", "accuracy_at_80", "accuracy_at_50", "accuracy_at_10"} < set(found)
    told = scores("tuned")
    told = told.model_copy(update={"metrics": told.metrics | found})
    write_json(run.scores("terms", "tuned"), told.model_dump(mode="json"))
    text = text_of(run)
    for name, one in found.items():
        assert f"{words.title_of(name)} {words.meaning_of(name)}" in text
        assert words.value_of(name, one.model_dump()) in text


def test_every_metric_has_words_of_its_own() -> None:
    assert {name for name in metric_names() if not words.meaning_of(name)} == set()
