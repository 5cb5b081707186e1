"""The report: one file, self-contained, escaped, honest about what is missing, equal for equal input."""

import io
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from medmind.core.jsonl import write_json, write_jsonl, write_text
from medmind.core.rundir import RunDir
from medmind.core.types import Comparison, Example, Message, Metric, Outcome, Prediction, Scores
from medmind.prompts.tasks.terms import render as four_part
from medmind.report import plots, terminal, words
from medmind.report.collect import choose, collect
from medmind.report.config import ReportConfig
from medmind.report.html import prose, write_report

EVIL = "<script>alert('x')</script><img src=https://evil.example/x.png>"
TERMS = ("Hypertension", "Tachycardia", "Anaemia", "Dyspnoea", "Sepsis", "Ischaemia", "Oedema", "Neutropenia")
CATEGORIES = ("cardiology", "haematology", "$general$ & <b>other</b> 糖尿病")
RECIPE = """\
name: demo
description: Medical terms explained in four parts, by a model small enough for a laptop.
model: nano
seed: 7
stages: [data, train, evaluate, export, report]
data:
  source: terms
train:
  method: lora
  learning_rate: 1e-4
"""


def metric(value: float, n: int = 40, spread: float = 0.08) -> Metric:
    return Metric(value=value, low=max(0.0, value - spread), high=min(1.0, value + spread) if value <= 1 else value + 0.1, n=n)


def predictions(which: str, fail: int) -> list[Prediction]:
    rows = []
    for place in range(40):
        term = TERMS[place % len(TERMS)]
        good = which == "tuned" and place != fail
        relevance = "It is common in practice and worth recognising early."
        note = "This is educational information only. Always consult healthcare professionals for medical decisions."
        text = four_part(f"{term} is a finding that a clinician names.", f"What happens in {term} is this.", relevance, note)
        rows.append(
            Prediction(
                id=f"q{place:02d}",
                prompt=f"[INST] Explain the medical term: {term}[/INST]",
                text=text if good else f"the patient of the {EVIL} in the of the patients with " + "the study of the " * 30,
                answer=term if good else "",
                outcome=Outcome.ANSWERED if good else Outcome.TRUNCATED if place % 3 else Outcome.MALFORMED,
                correct=good,
                reason="" if good else "**Definition**: stands 0 times",
            )
        )
    return rows


def scores(which: str) -> Scores:
    tuned = which == "tuned"
    form = metric(0.975 if tuned else 0.0)
    metrics = {
        "format_adherence": form,
        "names_term": metric(0.8 if tuned else 0.1),
        "chrf": metric(0.42 if tuned else 0.14, spread=0.03),
        "repetition": metric(0.05 if tuned else 0.9),
        "heldout_loss": metric(1.31 if tuned else 4.87, spread=0.1),
    }
    categories = {name: {"format_adherence": metric(form.value, 13, 0.2)} for name in CATEGORIES}
    outcomes = {"answered": 39, "malformed": 0, "refused": 0, "truncated": 1}
    return Scores(
        suite="terms",
        model="nano",
        n=40,
        dtype="float32",
        engine="transformers",
        metrics=metrics,
        by_category=categories,
        outcomes=outcomes if tuned else {"answered": 0, "malformed": 14, "refused": 0, "truncated": 26},
        class_balance={},
        ids_sha256="a" * 64,
        data_sha256="b" * 64,
    )


def comparison(verdict: str = "better") -> Comparison:
    return Comparison(
        suite="terms",
        metric="format_adherence",
        n=40,
        base=0.0,
        tuned=0.975,
        difference=0.975,
        low=0.86,
        high=0.99,
        lower_is_better=False,
        gained=39,
        lost=0,
        discordance=0.975,
        p_value=1.8e-12,
        power=0.06,
        power_for=0.05,
        smallest_detectable=0.44,
        verdict=verdict,
    )


@pytest.fixture
def rundir(tmp_path: Path) -> RunDir:
    """A whole demo run as the stages would leave it."""
    run = RunDir(tmp_path / "demo")
    write_text(run.recipe, RECIPE)
    examples = [
        Example(
            id=f"q{place:02d}",
            source="terms",
            task="terms",
            turns=(Message(role="user", text=f"Explain the medical term: {TERMS[place % len(TERMS)]}"),),
            target=four_part("It is a finding.", "It happens like this.", "It is seen often.", "For educational use."),
        )
        for place in range(40)
    ]
    write_jsonl(run.suite("terms"), examples)
    for name, count in (("train", 320), ("validation", 40), ("test", 40)):
        write_jsonl(run.split(name), (examples * 8)[:count])
    write_jsonl(run.split("dropped"), [{"row": 12, "reason": EVIL}])
    write_data_report(run)
    write_training(run)
    for which in ("base", "tuned"):
        write_jsonl(run.predictions("terms", which), predictions(which, fail=17))
        write_json(run.scores("terms", which), scores(which).model_dump(mode="json"))
    write_json(run.comparison("terms"), comparison().model_dump(mode="json"))
    for name, size in (("model-f16.gguf", 20_100_000), ("model-q8_0.gguf", 10_800_000), ("model-q4_k_m.gguf", 6_300_000)):
        run.export.mkdir(exist_ok=True)
        with open(run.export / name, "wb") as file:
            file.truncate(size)
    write_text(run.modelfile, "FROM ./model-q4_k_m.gguf\n")
    write_json(run.parity, {"equal": 38, "tie_diverged": 2, "wrong": 0, "prompts": 40})
    for stage, seconds in (("data", 0.8), ("train", 131.4), ("evaluate", 61.0), ("export", 22.5)):
        run.finish(stage, "key", [run.recipe], seconds)
    run.note(seed=7, model="nano", medmind="0.1.0", python="3.11.2", packages={"torch": "2.13.0", "peft": "0.21.0"})
    return run


def write_data_report(run: RunDir) -> None:
    row = {"file": "terms.jsonl", "row": 12, "id": "", "reason": EVIL}
    report = {
        "source": "terms",
        "rows_read": 404,
        "parts": {"train": 320, "validation": 40, "test": 40},
        "ids_sha256": {"train": "c" * 64, "validation": "d" * 64, "test": "e" * 64},
        "dropped": {"total": 4, "by_reason": {"duplicate": {"count": 3, "examples": [row]}, "not JSON": {"count": 1}}},
        "left_to_pretraining": 0,
        "not_sampled": {"train": 12, "validation": 0, "test": 0},
    }
    write_json(run.data_report, report)
    write_json(run.licences, [{"source": "terms", "file": "terms.jsonl", "licence": "Apache-2.0", "sha256": "f" * 64}])


def write_training(run: RunDir) -> None:
    lines: list[dict[str, object]] = [{"step": 0, "eval_loss": 4.9}]
    for step in range(1, 121):
        lines.append(
            {
                "step": step,
                "epoch": step / 40,
                "loss": 1.2 + 3.6 / (1 + step / 9) + 0.1 * ((step * 7919) % 13) / 13,
                "learning_rate": 2e-4 * (1 - step / 120),
                "tokens": 1500,
                "supervised_tokens": 1200,
                "seconds": 1.05,
                "tokens_per_second": 1428.6,
                "memory_gb": 0.61,
            }
        )
        if step % 40 == 0:
            lines.append({"step": step, "eval_loss": 1.3 + 3 / (1 + step / 9)})
    write_jsonl(run.metrics, lines)
    counts = {"rows": 320, "tokens": 180_000, "supervised_tokens": 144_000, "rows_over_limit": 0}
    parameters = {"total": 10_100_000, "trainable": 131_072}
    write_json(run.plan, {"parameters": parameters, "dtype": "float32", "threads": 2, "train": counts, "resumed_from": 0})
    run.adapter.mkdir()


class Page(HTMLParser):
    """What a browser would see: open tags, ids, addresses, text."""

    VOID = {"meta", "br", "img", "link", "hr", "input"}

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.unclosed: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.text = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        found = {name: value or "" for name, value in attrs}
        self.ids += [found["id"]] if "id" in found else []
        self.addresses += [value for name, value in found.items() if name.split(":")[-1] in ("href", "src", "srcset", "data")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.unclosed.append(tag)

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def page_of(run: RunDir, **settings: float) -> tuple[str, Page]:
    (path,) = write_report(ReportConfig(**settings), run, 7)
    text = path.read_text(encoding="utf-8")
    return text, Page(text)


def test_report_needs_nothing_else(rundir: RunDir) -> None:
    text, page = page_of(rundir)
    assert len(text.encode()) < 600_000
    assert page.addresses
    assert all(address.startswith("#") for address in page.addresses)
    assert not page.tags & {"script", "link", "img", "iframe", "object"}
    assert not re.search(r"@import|url\((?!#)|@font-face", text)
    assert "default-src 'none'" in text


def test_markup_is_whole_and_accessible(rundir: RunDir) -> None:
    text, page = page_of(rundir)
    assert page.open == []
    assert page.unclosed == []
    assert len(set(page.ids)) == len(page.ids)
    assert {address[1:] for address in page.addresses} <= set(page.ids)
    plots = re.findall(r'<div class="plot" ([^>]*)>', text)
    assert len(plots) == 3
    assert all('role="img" aria-label="' in plot for plot in plots)
    for number in ("97.5 %", "80.0 %", "1.310", "120", "0.61"):
        assert number in page.text


def test_sections_stand_in_the_order_a_reader_asks(rundir: RunDir) -> None:
    _, page = page_of(rundir)
    order = ["headline", "scores", "loss", "examples", "data", "export", "cost", "reproduce", "limits"]
    assert [name for name in page.ids if name in order] == order


def test_text_of_models_and_data_is_escaped(rundir: RunDir) -> None:
    text, page = page_of(rundir)
    assert "<script" not in text
    assert "evil.example" in page.text
    assert "<b>other</b>" not in text
    assert "$general$ &amp; &lt;b&gt;other&lt;/b&gt; 糖尿病" in text


def test_same_input_same_bytes(rundir: RunDir) -> None:
    assert page_of(rundir)[0] == page_of(rundir)[0]


def test_headline_says_what_the_file_says(rundir: RunDir) -> None:
    _, page = page_of(rundir)
    assert "The tuned model does better than the base model." in page.text
    assert "difference +97.5 points (95 % interval +86.0 to +99.0), the same 40 questions" in page.text
    for verdict, sentence in (
        ("worse", "The tuned model does worse than the base model."),
        ("cannot tell", "These questions cannot tell the tuned model from the base model."),
    ):
        write_json(rundir.comparison("terms"), comparison(verdict).model_dump(mode="json"))
        _, page = page_of(rundir)
        assert sentence in page.text
        assert "does better" not in page.text


@pytest.mark.parametrize("verdict", [None, "superb", 3])
def test_unknown_verdict_is_no_verdict(rundir: RunDir, verdict: object) -> None:
    write_json(rundir.comparison("terms"), comparison().model_dump(mode="json") | {"verdict": verdict})
    _, page = page_of(rundir)
    assert "No verdict" in page.text
    assert "does better" not in page.text


def test_a_failure_of_the_tuned_model_is_among_the_examples(rundir: RunDir) -> None:
    for seed in range(5):
        (suite,) = collect(rundir, seed, 3).suites
        assert [case.id for case in suite.examples].count("q17") == 1
        assert len(suite.examples) == 3
    assert collect(rundir, 1, 3).suites[0].examples != collect(rundir, 2, 3).suites[0].examples
    right = {f"q{place}": {"correct": True, "outcome": "answered"} for place in range(9)}
    assert len(choose({}, right, 0, 4)) == 4
    assert choose(right, right, 0, 0) == []


def test_dropped_rows_export_cost_and_limits_are_there(rundir: RunDir) -> None:
    _, page = page_of(rundir, price_per_hour=3.6)
    for said in (
        "404 rows read from source “terms”, 4 dropped",
        "12 good train rows were left out",
        "Apache-2.0",
        "export/model-q4_k_m.gguf",
        "6.3 MB",
        "3 min 36 s",
        "0.22",
        "180,000",
        "a demonstration model, not a source of medical knowledge",
        "medmind run recipe.yaml",
        "2.13.0",
    ):
        assert said in page.text, said


@pytest.mark.parametrize("stage", ["data", "train", "evaluate", "export"])
def test_a_stage_that_did_not_run_is_said(rundir: RunDir, stage: str) -> None:
    shutil.rmtree(rundir.root / stage)
    stages = rundir.read_manifest()["stages"]
    del stages[stage]
    rundir.note(stages=stages)
    _, page = page_of(rundir)
    assert f"The stage “{stage}” has not run" in page.text


def test_a_recipe_without_evaluation(rundir: RunDir) -> None:
    write_text(rundir.recipe, RECIPE.replace("evaluate, export, ", ""))
    for stage in ("evaluate", "export"):
        shutil.rmtree(rundir.root / stage)
    shutil.rmtree(rundir.data / "suites")
    write_jsonl(rundir.metrics, [{"step": 0, "eval_loss": 9.0, "bits_per_byte": {"medquad": 2.91}}])
    _, page = page_of(rundir)
    assert "“evaluate” is not part of this recipe (its stages: data, train, report)" in page.text
    assert "medquad, bits per byte" in page.text


def test_an_empty_run_directory_gives_a_page(tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    _, page = page_of(RunDir(tmp_path / "bare"))
    assert "Nothing trained yet" in page.text
    assert page.unclosed == []


@pytest.mark.parametrize("damage", ["", "{", "{}", "[]", "null", '{"metrics": null, "stages": 3}', "\x00", "[1, 2]"])
def test_damaged_files_never_crash_and_are_named(
    rundir: RunDir, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plots, "drawn", lambda figure, name: "<svg></svg>")
    found = [path for path in rundir.root.rglob("*") if path.suffix in (".json", ".jsonl", ".yaml")]
    assert len(found) > 10
    for path in found:
        whole = path.read_bytes()
        path.write_text(damage)
        _, page = page_of(rundir)
        assert page.unclosed == []
        if damage == "{" and path.parent != rundir.data or path == rundir.data_report and damage in ("{", "[]"):
            assert str(path.relative_to(rundir.root)) in page.text.partition("Skip")[2].partition("Scores")[2]
        path.write_bytes(whole)


def test_long_text_is_cut_only_aloud() -> None:
    assert "and 2,000 more characters" in prose("x" * 6000)
    assert prose("**Note**: <i>") == "<b><i>**</i>Note<i>**</i></b>: &lt;i&gt;"


def test_figures_in_words() -> None:
    assert words.percent(0.5) == "50.0 %"
    assert words.percent(None) == words.count("x") == words.seconds(None) == words.MISSING
    assert [words.seconds(value) for value in (2.04, 61, 3725)] == ["2.0 s", "1 min 01 s", "1 h 02 min"]
    assert [words.size(value) for value in (12, 1500, 6.3e6, 2e9)] == ["12 bytes", "1.5 kB", "6.3 MB", "2.0 GB"]
    assert words.amount("heldout_loss", 1.25) == "1.250"


def test_summary_on_the_terminal(rundir: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    write_report(ReportConfig(), rundir, 7)
    page = Console(file=io.StringIO(), width=120)
    monkeypatch.setattr(terminal, "console", lambda: page)
    monkeypatch.setattr(terminal, "say", lambda text, style=None: page.print(text, style=style, markup=False))
    terminal.show_summary(rundir)
    shown = page.file.getvalue()
    for said in ("97.5 % (89.5 to 100.0)", "Better. The tuned model", "report.html", "medmind chat", "ollama create demo"):
        assert said in shown, shown
    assert "Explain the medical term" in shown


def test_summary_of_an_empty_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    terminal.show_summary(RunDir(tmp_path))
    assert json.dumps(capsys.readouterr().out) == '""'
