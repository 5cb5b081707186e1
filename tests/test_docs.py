"""The docs keep up: verbs, flags, presets and metrics are named, links lead somewhere, what is shown works."""

import argparse
import importlib
import re
import shlex
from pathlib import Path

import pytest

from medmind.cli import main as door
from medmind.core import errors
from medmind.core.types import Example, Message, Outcome, Prediction
from medmind.data.stage.assemble import assemble
from medmind.evaluate.agreement import Sampled
from medmind.evaluate.canary import CanaryLoss
from medmind.evaluate.score import Origin, score
from medmind.evaluate.support import Support
from medmind.prompts.tasks.known import TASKS
from medmind.recipe.faults import keys_of
from medmind.recipe.load import list_presets, load_recipe
from medmind.recipe.schema import Recipe

REPOSITORY = Path(__file__).parent.parent
DOCS = REPOSITORY / "docs"
PAGES = [
    *sorted(REPOSITORY.glob("*.md")),
    *sorted(DOCS.glob("*.md")),
    REPOSITORY / "src" / "medmind" / "models" / "nano" / "README.md",
]
TARGETS = re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
HELP = {"-h", "--help"}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def text() -> str:
    return "\n".join(map(read, PAGES))


def blocks(language: str) -> list[str]:
    return [body for kind, body in FENCE.findall(text()) if kind == language]


def block(page: str, language: str, part: str) -> str:
    """The one fenced block of a page that contains `part`."""
    (found,) = [body for kind, body in FENCE.findall(read(DOCS / page)) if kind == language and part in body]
    return str(found)


def commands(word: str) -> list[list[str]]:
    """The words after `word` of every line of shell the pages show."""
    lines = [line for body in blocks("sh") for line in body.splitlines()]
    return [words[1:] for line in lines if (words := shlex.split(line, comments=True)) and words[0] == word]


def inline(word: str) -> set[str]:
    """What follows `word` in code within the text."""
    return set(re.findall(rf"`{word} ([a-z][\w-]*)", text()))


def flags_of(parser: argparse.ArgumentParser, name: str) -> dict[str, set[str]]:
    """Command → its flags; of a verb with words, one entry a word."""
    found: dict[str, set[str]] = {}
    own: set[str] = set()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, child in action.choices.items():
                found |= flags_of(child, f"{name} {word}")
        else:
            own |= set(action.option_strings) - HELP
    return found if found and not own else found | {name: own}


def flags_in_code() -> dict[str, set[str]]:
    found = flags_of(door.frame(), "medmind")
    for verb in door.VERBS:
        parser = door.Parser(prog=f"medmind {verb}")
        importlib.import_module(f"medmind.cli.{verb}").add_arguments(parser)
        found |= flags_of(parser, f"medmind {verb}")
    return found


def test_the_one_list_of_flags_is_whole() -> None:
    section = read(DOCS / "cli.md").partition("## Flags")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(medmind[ a-z]*)` \|(.*)\|$", section, re.MULTILINE)
    listed = {command: set(re.findall(r"`(--?[\w-]+)`", flags)) for command, flags in rows}
    assert listed == flags_in_code()
    explained = set(re.findall(r"^\| `(--[\w-]+)", section, re.MULTILINE))
    assert explained == set().union(*listed.values())


def test_the_exit_codes_are_those_of_the_errors() -> None:
    classes = [
        value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, errors.MedmindError)
    ]
    listed = re.findall(r"^\| (\d+) \|", read(DOCS / "cli.md"), re.MULTILINE)
    assert set(map(int, listed)) == {0} | {kind.exit_code for kind in classes}


@pytest.mark.parametrize("verb", door.VERBS)
def test_every_verb_is_explained(verb: str) -> None:
    assert f"`medmind {verb}" in read(DOCS / "cli.md")


@pytest.mark.parametrize("preset", list_presets())
def test_every_preset_is_in_both_tables(preset: str) -> None:
    for page in (REPOSITORY / "README.md", DOCS / "recipe.md"):
        assert f"\n| `{preset}` |" in read(page)


def examples_of(task: str) -> list[Example]:
    targets = {"choice": ("yes", "no", "maybe"), "multiple_choice": ("A",)}.get(task, ("a reply",))
    asked = (Message(role="user", text="Explain: x"),)
    return [Example(id=name, source="s", task=task, turns=asked, options=targets, target=name) for name in targets]


def metric_names() -> set[str]:
    """Every name scores.json can hold: those of each task that can be evaluated, with losses."""
    found: set[str] = set()
    for task in TASKS:
        examples = examples_of(task)
        predictions = [
            Prediction(
                id=one.id,
                prompt="",
                text="x",
                answer="x",
                outcome=Outcome.ANSWERED,
                correct=True,
                logprobs=tuple(-1.0 - place for place in range(len(one.options))) or None,
            )
            for one in examples
        ]
        sampled = [
            Sampled(id=one.id, texts=("x", "x"), answers=("x", "x"), outcomes=(Outcome.ANSWERED,) * 2)
            for one in examples
        ]
        support = [Support(id=one.id, chances=(1.0,)) for one in examples]
        losses = [CanaryLoss(id=one.id, nats=1.0, tokens=1, rank=1, among=2) for one in examples]
        origin = Origin("s", "m", "float32", "e", "")
        found |= set(score(origin, examples, predictions, losses, 0, sampled, support).metrics)
    return found


def test_every_metric_is_explained() -> None:
    listed = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", read(DOCS / "evaluation.md"), re.M))))
    assert listed == metric_names()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", read(page)))
    for link in links:
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), f"{link} leads nowhere"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", read(target), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w -]", "", one).lower().replace(" ", "-") for one in headings], link


@pytest.mark.parametrize("words", commands("medmind"), ids=" ".join)
def test_every_command_shown_is_understood(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Read by the real door, which then finds nothing to do; the settings must be ones a recipe has."""
    taken: list[argparse.Namespace] = []
    monkeypatch.setattr(door, "keep_quiet", lambda **_: None)
    module = importlib.import_module(f"medmind.cli.{words[0]}")

    def run(args: argparse.Namespace) -> int:
        taken.append(args)
        return 0

    monkeypatch.setattr(module, "run", run)
    assert door.main(words) == 0
    (args,) = taken
    assert {text.partition("=")[0] for text in getattr(args, "sets", [])} <= set(keys_of(Recipe))
    target = getattr(args, "target", "")
    known = target in list_presets() or target == "mine.yaml" or target.startswith("runs/")
    assert known or not target, f"{target} is no preset"


def test_every_command_within_the_text_exists() -> None:
    assert inline("medmind") <= set(door.VERBS)
    assert inline("make") | {words[0] for words in commands("make")} <= set(TARGETS)
    assert {"demo", "test"} <= {words[0] for words in commands("make")}


def test_the_example_of_own_data_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("questions.csv").write_text(block("recipe.md", "csv", "Frage"), encoding="utf-8")
    Path("mine.yaml").write_text(block("recipe.md", "yaml", "source: csv"), encoding="utf-8")
    recipe = load_recipe("mine.yaml")
    made = assemble(recipe.data, recipe.seed)
    assert not made.dropped
    assert all(made.parts[name] for name in ("train", "validation", "test"))
    assert sum(map(len, made.parts.values())) == made.rows_read["questions.csv"] == 8


@pytest.mark.parametrize("recipe", blocks("yaml"))
def test_every_recipe_shown_is_valid(recipe: str, tmp_path: Path) -> None:
    file = tmp_path / "shown.yaml"
    file.write_text(recipe, encoding="utf-8")
    assert load_recipe(str(file)).name == "shown"


def test_every_setting_named_exists() -> None:
    named = set(re.findall(r"`((?:data|train|evaluate|export|report)\.[a-z_.]+)[`=]", text()))
    assert named
    files = {name for name in named if name.rpartition(".")[2] in ("json", "jsonl", "yaml", "py", "html")}
    assert named - files <= set(keys_of(Recipe))


@pytest.mark.parametrize("page", [*PAGES, REPOSITORY / "NOTICE"], ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_no_figure_is_still_to_be_measured(page: Path) -> None:
    assert re.findall(r"FIGURE:\w+", read(page)) == []
