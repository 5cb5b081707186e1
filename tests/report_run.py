"""A whole run directory made by hand, as the stages would leave it, with hostile text in it."""

from pathlib import Path

from medmind.core.jsonl import write_json, write_jsonl, write_text
from medmind.core.rundir import RunDir
from medmind.core.types import Comparison, Example, Message, Metric, Outcome, Prediction, Scores
from medmind.prompts.tasks.terms import render as four_part

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
    return Metric(
        value=value, low=max(0.0, value - spread), high=min(1.0, value + spread) if value <= 1 else value + 0.1, n=n
    )


def predictions(which: str, fail: int) -> list[Prediction]:
    rows = []
    for place in range(40):
        term = TERMS[place % len(TERMS)]
        good = which == "tuned" and place != fail
        relevance = "It is common in practice and worth recognising early."
        note = "This is educational information only. Always consult healthcare professionals for medical decisions."
        text = four_part(
            f"{term} is a finding that a clinician names.", f"What happens in {term} is this.", relevance, note
        )
        rows.append(
            Prediction(
                id=f"q{place:02d}",
                prompt=f"[INST] Explain the medical term: {term}[/INST]",
                text=text
                if good
                else f"the patient of the {EVIL} in the of the patients with " + "the study of the " * 30,
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


def parity(passed: bool) -> dict[str, object]:
    side = {"reference": "transformers", "reference_dtype": "float32", "candidate": "llama.cpp", "bound": 0.02, "n": 40}
    return {
        "passed": passed,
        **side,
        **{"equal": 38, "tie_diverged": 2, "wrong": 0 if passed else 1, "prompts": []},
        "too_long": 0,
        "token_ids": {"n": 40, "equal": 40, "look_alike": 0, "wrong": 0, "wrong_ids": []},
        "files": {"q4_k_m": side | {"equal": 9, "tie_diverged": 3, "wrong": 28, "prompts": []}},
    }


def make_run(root: Path) -> RunDir:
    """A whole demo run as the stages would leave it."""
    run = RunDir(root)
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
    for name, size in (
        ("model-f16.gguf", 20_100_000),
        ("model-q8_0.gguf", 10_800_000),
        ("model-q4_k_m.gguf", 6_300_000),
    ):
        run.export.mkdir(exist_ok=True)
        with open(run.export / name, "wb") as file:
            file.truncate(size)
    write_text(run.modelfile, "FROM ./model-q4_k_m.gguf\n")
    write_json(run.parity, parity(passed=True))
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
    write_json(
        run.plan, {"parameters": parameters, "dtype": "float32", "threads": 2, "train": counts, "resumed_from": 0}
    )
    run.adapter.mkdir()
