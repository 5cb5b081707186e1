"""The docs keep up: every verb and preset is mentioned, and every command they show is one that exists."""

import re
from pathlib import Path

import pytest

from medmind.cli.main import VERBS
from medmind.recipe.load import list_presets

REPOSITORY = Path(__file__).parent.parent
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
TARGETS = re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


def text() -> str:
    return "\n".join(page.read_text(encoding="utf-8") for page in PAGES)


def commands(word: str) -> list[str]:
    """What follows `word` in the pages' code, fenced or inline."""
    code = re.findall(r"```\w*\n(.*?)```|`([^`\n]+)`", text(), re.DOTALL)
    lines = [line for block, inline in code for line in (block or inline).splitlines()]
    return [match.group(1) for line in lines if (match := re.match(rf"\s*(?:\$ )?{word} ([a-z][\w-]*)", line))]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_mentioned(verb: str) -> None:
    assert f"medmind {verb}" in text()


@pytest.mark.parametrize("preset", list_presets())
def test_every_preset_is_mentioned(preset: str) -> None:
    assert f"`{preset}`" in text() or f" {preset} " in text()


def test_every_command_shown_exists() -> None:
    assert commands("medmind")
    assert set(commands("medmind")) <= set(VERBS)
    assert commands("make")
    assert set(commands("make")) <= set(TARGETS)
