"""Unsupported sentences: what each rule sees, what it must let pass, and the perturbed gold answers of real data."""

import random
import runpy
from pathlib import Path

import pytest

from medmind.core.types import Comparison, Example, Message, Outcome, Prediction
from medmind.evaluate.metrics.grounded import Evidence, findings, sentences, unsupported_counts
from medmind.evaluate.metrics.quantities import quantities
from medmind.evaluate.unsupported import by_rule, compare_unsupported, equal_length

BENCH = runpy.run_path(str(Path(__file__).parent.parent / "bench" / "grounded.py"))
TEXT = (
    "Metformin 500 mg is given twice a day for type 2 diabetes. It does not cause hypoglycemia. "
    "In the trial of 123 patients, 36.7% had nausea within 12 weeks. "
    "Age-related macular degeneration (AMD) is painless."
)
EVIDENCE = Evidence((TEXT,))


@pytest.mark.parametrize(
    ("sentence", "kinds"),
    [
        ("Metformin 500 mg is given twice a day.", set()),
        ("Metformin 0.5 g is given twice a day.", set()),
        ("Metformin 850 mg is given twice a day.", {"number"}),
        ("Metformin 500 g is given twice a day.", {"number"}),
        ("Metformin 500 mcg is given twice a day.", {"number"}),
        ("Metformin 0.5 liters is given twice a day.", {"number"}),
        ("Nausea within twelve weeks was seen in 37% of the patients.", set()),
        ("Nausea within twelve weeks was seen in 38% of the patients.", {"number"}),
        ("The trial had 123 patients.", set()),
        ("The trial had 132 patients.", {"number"}),
        ("It does cause hypoglycemia, which type 2 diabetes patients know.", set()),
        ("Metformin is not given twice a day for type 2 diabetes.", {"negation"}),
        ("Gliclazide 500 mg is given twice a day.", set()),  # no ending the rules know: missed
        ("Sitagliptin 500 mg is given twice a day.", {"name"}),
        ("Metformin is given twice a day for hepatitis.", {"name"}),
        ("Pain is rare in AMD.", set()),
        ("Pain is rare in COPD.", {"name"}),
        ("Smoking damages arteries throughout adult life.", {"topic"}),
        ("Yes.", set()),
    ],
)
def test_what_is_found(sentence: str, kinds: set[str]) -> None:
    assert {one.kind for one in findings(sentence, EVIDENCE)} == kinds


def test_a_text_supports_itself() -> None:
    assert unsupported_counts(TEXT, [TEXT]) == (0, 4)
    assert unsupported_counts("", [TEXT]) == (0, 0)


def test_sentences() -> None:
    assert sentences("Take 0.5 g, e.g. Metformin. It helps! Does it?") == [
        "Take 0.5 g, e.g. Metformin.",
        "It helps!",
        "Does it?",
    ]
    assert sentences("Causes: - Smoking - Obesity\nAge") == ["Causes:", "Smoking", "Obesity", "Age"]


def test_quantities() -> None:
    def read(text: str) -> list[tuple[float, str]]:
        return [(round(one.value, 6), one.kind) for one in quantities(text)]

    assert read("5 to 10 mg, 1,200 patients, twenty-one days") == [
        (0.005, "g"), (0.01, "g"), (1200.0, ""), (21 * 86400.0, "s")
    ]  # fmt: skip
    assert read("one of them\n1. First\n2) second") == []  # a pronoun, and the numbers of a list
    assert read("HbA1c and B12 and CD4") == []  # digits within a name are no numbers
    assert read("a 3-year-old and .5 ml") == [(36.0, "month"), (0.0005, "l")]


@pytest.mark.parametrize(("read", "stride", "least"), [
    ("pubmedqa", 2, {"dose": 0.65, "unit": 0.65, "negation": 0.5, "entity": 0.8, "sentence": 0.75}),
    ("medquad", 60, {"dose": 0.9, "unit": 0.95, "negation": 0.9, "entity": 0.8, "sentence": 0.85}),
])  # fmt: skip
def test_perturbed_gold_answers(shared_data: Path, read: str, stride: int, least: dict[str, float]) -> None:
    """As docs/evaluation.md has it, on fewer: each kind beats the length rule save added sentences on PubMedQA."""
    cases = BENCH[read](shared_data)[1::stride]
    for kind in BENCH["KINDS"]:
        found = BENCH["measure"](cases, kind, seed=0)
        assert found["auroc"]["value"] >= least[kind], (kind, found)
        if kind != "sentence":
            assert found["auroc"]["value"] > found["length_auroc"]["value"]


def test_the_generator_changes_one_place() -> None:
    case = BENCH["Case"](TEXT, [TEXT], "Metformin")
    other = BENCH["Case"]("Asthma narrows the airways of the lungs quite often.", [], "Asthma")
    made = {kind: change(case, other, random.Random(0)) for kind, change in BENCH["KINDS"].items()}
    assert made["unit"] == TEXT.replace("500 mg", "500 g")
    assert made["negation"] == TEXT.replace("is given", "is not given")
    assert made["entity"] == TEXT.replace("Metformin", "Asthma")
    assert made["sentence"] == f"{TEXT} {other.answer}"
    assert "500 mg" not in made["dose"] and "00 mg" in made["dose"]


def reply(text: str, outcome: Outcome = Outcome.ANSWERED) -> Prediction:
    return Prediction(id="1", prompt="p", text=text, answer=text, outcome=outcome, correct=True)


def asked(number: int) -> Example:
    return Example(id=str(number), source="s", task="qa", turns=(Message(role="user", text="Metformin?"),), target=TEXT)


def compared(examples: list[Example], base: list[Prediction], tuned: list[Prediction]) -> Comparison | None:
    return compare_unsupported("s", base, tuned, (by_rule(examples, base), by_rule(examples, tuned)), 0.02, seed=0)


def test_unsupported_sentences_are_compared_at_equal_length_and_refusal() -> None:
    good, bad = "Metformin 500 mg is given twice a day.", "Sitagliptin 850 mg cures hepatitis in 9 days."
    base = [reply(f"{good} {bad} {bad} {bad}")] * 30 + [reply("no", Outcome.REFUSED)] * 10
    tuned = [reply(good)] * 40
    examples = [asked(number) for number in range(40)]
    found = compared(examples, base, tuned)
    assert isinstance(found, Comparison)
    assert (found.n, found.base, found.tuned) == (30, 0.0, 0.0)  # cut to one sentence, the base is as good
    assert "30 of 40 questions" in found.note
    found = compared(examples, [reply(f"{bad} {good}")] * 40, [reply(f"{good} {good}")] * 40)
    assert found is not None
    assert (found.base, found.tuned, found.verdict) == (0.5, 0.0, "better")
    assert compared(examples, [reply("x", Outcome.TRUNCATED)] * 40, tuned) is None
    # One long sentence cannot be cut: too far apart in length to say anything.
    long = [reply(" ".join(["Sitagliptin 850 mg cures hepatitis and"] * 5) + " more.")] * 40
    found = compared(examples, long, tuned)
    assert found is not None and found.verdict == "cannot tell" and found.tuned == 0.0 < found.base


def test_the_longer_is_cut_at_a_sentence() -> None:
    assert equal_length(["one two three"], ["a b", "c", "d e f g"]) == (["one two three"], ["a b", "c"])
    assert equal_length([], ["a b"]) == ([], ["a b"])
