"""A few rows in the schema of each data set the presets name, made up, no two alike."""

import random
from collections.abc import Callable, Mapping
from pathlib import Path

from source_rows import write

from medmind.data.config import SuiteConfig
from medmind.data.sources.pubmedqa import official_labels

SYLLABLES = ("car", "di", "a", "he", "pat", "ne", "phro", "der", "ma", "tis", "os", "te", "o", "my", "al", "gi")


class Maker:
    """Sentences drawn at random: long enough that no row gives another away."""

    def __init__(self) -> None:
        self._random = random.Random(5)

    def say(self, count: int) -> str:
        words = ("".join(self._random.choices(SYLLABLES, k=2)) for _ in range(count))
        return " ".join(words).capitalize()

    def ask(self) -> str:
        return f"{self.say(10)}?"

    def tell(self) -> str:
        return f"{self.say(15)}."


def medquad(folder: Path) -> Path:
    """The Kaggle CSV; the topics are many enough for every part of the one cut."""
    make = Maker()
    rows = [
        {"question": make.ask(), "answer": make.tell(), "source": "NIH", "focus_area": f"{make.say(2)} {number}"}
        for number in range(60)
    ]
    return write(folder / "medquad.csv", rows)


def pubmedqa(folder: Path) -> Path:
    """The Hub's pqa_labeled: the 500 official test rows with their labels, and 60 others."""
    make = Maker()
    labels = official_labels() | {str(number): ("yes", "no", "maybe")[number % 3] for number in range(60)}
    rows = [
        {
            "pubid": int(name),
            "question": make.ask(),
            "context": {"contexts": [make.tell(), make.tell()], "labels": ["BACKGROUND", "RESULTS"], "meshes": []},
            "long_answer": make.tell(),
            "final_decision": label,
        }
        for name, label in labels.items()
    ]
    return write(folder / "pqa_labeled.parquet", rows)


def o1_reasoning(folder: Path) -> Path:
    make = Maker()
    rows = [{"Question": make.ask(), "Complex_CoT": make.tell(), "Response": make.tell()} for _ in range(40)]
    return write(folder / "medical_o1_sft.json", rows)


def synthetic_qa(folder: Path) -> Path:
    make = Maker()
    return write(folder / "synthetic.jsonl", [{"question": make.ask(), "response": make.tell()} for _ in range(50)])


def medqa(folder: Path) -> Path:
    rows = [
        {"question": asked, "options": options, "answer_idx": right, "answer": options[right]}
        for asked, options, right in exam(30)
    ]
    return write(folder / "test.jsonl", rows)


def medmcqa(folder: Path) -> Path:
    rows = [
        {"id": str(number), "question": asked, "cop": "ABCD".index(right) + 1, "exp": ""}
        | {f"op{label.lower()}": text for label, text in options.items()}
        for number, (asked, options, right) in enumerate(exam(30))
    ]
    return write(folder / "dev.jsonl", rows)


def mmlu_medical(folder: Path) -> Path:
    rows = [{"question": asked, "choices": [*options.values()], "answer": right} for asked, options, right in exam(30)]
    return write(folder / "anatomy_test.jsonl", rows)


def casimedicos(folder: Path) -> Path:
    rows = [
        {"id": str(number), "lang": "es", "clinical_case": "", "question": asked}
        | {"options": options, "correct_answer": right}
        for number, (asked, options, right) in enumerate(exam(30))
    ]
    return write(folder / "es.jsonl", rows)


def exam(count: int) -> list[tuple[str, dict[str, str], str]]:
    """(question, options by letter, the right one's letter)."""
    make = Maker()
    return [(make.ask(), {label: make.say(4) for label in "ABCD"}, "ABCD"[number % 4]) for number in range(count)]


FILES: dict[str, Callable[[Path], Path]] = {
    "medquad": medquad,
    "pubmedqa": pubmedqa,
    "medical_o1": o1_reasoning,
    "synthetic_qa": synthetic_qa,
    "medqa": medqa,
    "medmcqa": medmcqa,
    "mmlu_medical": mmlu_medical,
    "casimedicos": casimedicos,
}
"""By data.source; `terms` ships with the package."""


def settings(source: str, folder: Path) -> list[str]:
    """What lays such a file over a recipe."""
    return [f"data.path={FILES[source](folder)}"] if source in FILES else []


def suite_settings(suites: Mapping[str, SuiteConfig], folder: Path) -> list[str]:
    """The same for the sets a recipe is evaluated on beside its own."""
    found = []
    for name, suite in suites.items():
        (folder / name).mkdir()
        found += [f"data.suites.{name}.path={FILES[suite.source](folder / name)}", f"data.suites.{name}.files=[]"]
    return found
