"""How well unsupported sentences are found: perturbed gold answers against whole ones, beside "longer is worse".

Gold answers of PubMedQA (supported by their abstracts) and MedQuAD (their own reference) are changed in one place: a
dose, a unit, a negation, a disease of another answer, a sentence of another answer. Nothing here knows the detector's
rules; the names come from the data alone. Every second answer is kept for measuring, the others were used for tuning.
"""

import argparse
import csv
import gzip
import json
import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from medmind.core.jsonl import write_json
from medmind.evaluate.metrics.grounded import sentences, unsupported_counts
from medmind.evaluate.support import ENOUGH, best_chances, pieces
from medmind.infer.entail import open_entailer

DOSE = re.compile(
    r"(\d+(?:\.\d+)?)(\s*)(mg|g|mcg|ml|kg|cm|mm|%|percent|years|days|weeks|months|hours|minutes)\b|(\d+(?:\.\d+)?)(%)"
)
OTHER_UNIT = {"mg": "g", "g": "mg", "mcg": "mg", "ml": "l", "kg": "g", "cm": "mm", "mm": "cm", "percent": "mg"} | {
    "%": " mg",
    "years": "weeks",
    "days": "months",
    "weeks": "days",
    "months": "years",
    "hours": "days",
    "minutes": "hours",
}
VERB = re.compile(r"\b(is|are|was|were|can|may|should|does|do|did|will|could)\b( not)?", re.IGNORECASE)
ITEMS = 400
RESAMPLES = 500


class Case:
    """One gold answer, the texts that may support it, and the name it is about."""

    def __init__(self, answer: str, texts: Sequence[str], name: str) -> None:
        self.answer, self.texts, self.name = answer, tuple(texts), name


def pubmedqa(folder: Path) -> list[Case]:
    """The question's and abstract's words support; the name is a MeSH heading the answer mentions."""
    rows = json.loads(gzip.decompress((folder / "pubmedqa" / "ori_pqal.json.gz").read_bytes()))
    return [
        Case(
            row["LONG_ANSWER"],
            [*row["CONTEXTS"], row["QUESTION"]],
            next((one for one in row["MESHES"] if one.lower() in row["LONG_ANSWER"].lower() and len(one) > 5), ""),
        )
        for row in rows.values()
    ]


def medquad(folder: Path) -> list[Case]:
    with gzip.open(folder / "medquad" / "medquad_kaggle_form.csv.gz", "rt", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if 200 < len(row["answer"] or "") < 1500]
    return [Case(row["answer"], [row["answer"], row["question"]], row["focus_area"].partition(" (")[0]) for row in rows]


def dose(case: Case, _: Case, draw: random.Random) -> str:
    """The number beside a unit becomes another of the same length."""

    def change(match: re.Match[str]) -> str:
        number = match[1] or match[4]
        digits = [place for place, one in enumerate(number) if one.isdigit()]
        place = digits[0]
        other = draw.choice([one for one in "123456789" if one != number[place]])
        return match[0].replace(number, number[:place] + other + number[place + 1 :], 1)

    return DOSE.sub(change, case.answer, count=1)


def unit(case: Case, _: Case, draw: random.Random) -> str:
    def change(match: re.Match[str]) -> str:
        old = match[3] or match[5]
        return match[0].removesuffix(old) + OTHER_UNIT[old]

    return DOSE.sub(change, case.answer, count=1)


def negation(case: Case, _: Case, draw: random.Random) -> str:
    return VERB.sub(lambda match: match[1] if match[2] else f"{match[1]} not", case.answer, count=1)


def entity(case: Case, other: Case, draw: random.Random) -> str:
    """What the answer is about gives way to what another is about."""
    if not case.name or not other.name:
        return case.answer
    return re.sub(re.escape(case.name), lambda _: other.name, case.answer, count=1, flags=re.IGNORECASE)


def sentence(case: Case, other: Case, draw: random.Random) -> str:
    """A whole sentence of another answer at the end."""
    own = [one for one in re.split(r"(?<=[.?!]) ", other.answer) if len(one.split()) > 5]
    return f"{case.answer} {draw.choice(own)}" if own else case.answer


Detect = Callable[[str, Sequence[str]], tuple[int, int]]
"""(unsupported, all) sentences of an answer that these texts should support."""
KINDS: dict[str, Callable[[Case, Case, random.Random], str]] = {
    "dose": dose, "unit": unit, "negation": negation, "entity": entity, "sentence": sentence
}  # fmt: skip


def perturbed(cases: Sequence[Case], kind: str, seed: int) -> list[tuple[Case, str]]:
    """Up to ITEMS cases in which this kind of change could be made."""
    draw = random.Random(f"{seed} {kind}")
    order = draw.sample(range(len(cases)), len(cases))
    found = []
    for place, partner in zip(order, order[1:] + order[:1], strict=True):
        changed = KINDS[kind](cases[place], cases[partner], draw)
        if changed != cases[place].answer:
            found.append((cases[place], changed))
        if len(found) == ITEMS:
            break
    return found


def auroc(good: Sequence[float], bad: Sequence[float]) -> float:
    """The chance that a changed answer scores higher than a whole one, a tie counted half."""
    low, high = np.asarray(good)[:, None], np.asarray(bad)[None, :]
    return float(((low < high) + (low == high) / 2).mean())


def with_interval(good: Sequence[float], bad: Sequence[float], seed: int) -> dict[str, float]:
    """Cases are drawn with both their versions."""
    draw, first, second = np.random.default_rng(seed), np.asarray(good), np.asarray(bad)
    draws = [auroc(first[chosen], second[chosen]) for chosen in draw.integers(len(first), size=(RESAMPLES, len(first)))]
    low, high = np.quantile(draws, (0.025, 0.975))
    return {"value": round(auroc(good, bad), 3), "low": round(float(low), 3), "high": round(float(high), 3)}


def measure(cases: Sequence[Case], kind: str, seed: int, detect: Detect = unsupported_counts) -> dict[str, object]:
    pairs = perturbed(cases, kind, seed)
    counts = [[detect(text, case.texts) for text in (case.answer, changed)] for case, changed in pairs]
    good, bad = ([found / max(1, total) for found, total in side] for side in zip(*counts, strict=True))
    lengths = [
        [float(len(text.split())) for text in side] for side in zip(*((c.answer, t) for c, t in pairs), strict=True)
    ]
    return {
        "n": len(pairs),
        "auroc": with_interval(good, bad, seed),
        "length_auroc": with_interval(lengths[0], lengths[1], seed),
        "flagged_gold": round(float(np.mean([one > 0 for one in good])), 3),
        "caught": round(float(np.mean([one < other for one, other in zip(good, bad, strict=True)])), 3),
    }


def by_model(source: str) -> Detect:
    """The support model of evaluate.support_model in place of the rules."""
    entails = open_entailer(source)

    def detect(text: str, texts: Sequence[str]) -> tuple[int, int]:
        (chances,) = best_chances(entails, [(sentences(text), pieces(texts))])
        return sum(chance < ENOUGH for chance in chances), len(chances)

    return detect


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tune", action="store_true", help="on the half of the answers the rules were chosen with")
    parser.add_argument("--support-model", metavar="SOURCE", help="a folder or Hub id; unsaid, the rules detect")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    detect = by_model(args.support_model) if args.support_model else unsupported_counts
    found = {
        name: {kind: measure(read(args.data)[not args.tune :: 2], kind, args.seed, detect) for kind in KINDS}
        for name, read in (("pubmedqa", pubmedqa), ("medquad", medquad))
    }
    for name, kinds in found.items():
        for kind, row in kinds.items():
            print(f"{name:9} {kind:9} {row}")
    if args.out:
        write_json(args.out, found)


if __name__ == "__main__":
    main()
