"""`medmind models`: every row listed, and a conversation rendered as training renders it."""

import io
import json
import re
from pathlib import Path

import pytest

from medmind.cli.main import main
from medmind.core.types import Message
from medmind.models.catalog import CATALOG, find_model
from medmind.models.tokenizer import open_tokenizer
from medmind.prompts.families import open_renderer

TALK = [{"role": "user", "content": " Why? "}, {"role": "assistant", "content": "So."}]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "talk.json"
    path.write_text(json.dumps(TALK), encoding="utf-8")
    return path


def rendered(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, object]:
    assert main(["models", "render", *words]) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def test_every_model_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "ls"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == [spec.id for spec in CATALOG]
    assert lines[3].split() == ["Mistral-7B-Instruct-v0.3", "7,248M", "32,768", "mistral-v3", "Apache-2.0"]
    assert lines[4].endswith("unverified: licence, context, shape") and lines[5].endswith("gated")
    assert main(["models", "ls", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows[5]["shape"]["rope_scaling"]["factor"] == 32.0 and rows[0]["parameters"] < 1e7


def test_a_conversation_is_rendered_as_training_renders_it(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    renderer = open_renderer("mistral-v3", open_tokenizer(find_model("nano")))
    expected = renderer.render([Message(role="user", text=" Why? "), Message(role="assistant", text="So.")])
    found = rendered(capsys, "nano", str(file))
    assert found == {
        "text": "<s>[INST]  Why? [/INST] So.</s>",
        "ids": list(expected.ids),
        "roles": list(expected.roles),
        "loss_mask": list(expected.loss_mask),
    }


def test_a_recipe_says_its_system_prompt_unless_one_is_there(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = rendered(capsys, "base", str(file), "--set", "data.system_prompt=Be brief.")
    assert told["text"] == "<s>[INST] Be brief.\n\n Why? [/INST] So.</s>"
    assert told == rendered(capsys, "nano", "--set", "data.system_prompt=Be brief.", str(file))
    own = json.dumps([{"role": "system", "content": "Be kind."}, *TALK])
    monkeypatch.setattr("sys.stdin", io.StringIO(own))
    kind = rendered(capsys, "nano", "-", "--set", "data.system_prompt=Be brief.")
    assert kind["text"] == "<s>[INST] Be kind.\n\n Why? [/INST] So.</s>"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{", "not JSON"),
        ("[]", "not a list of messages"),
        ('{"role": "user"}', "not a list of messages"),
        ('[{"role": "user", "content": "x"}, {"role": "user"}]', "not a message, .*message 2"),
        ('[{"role": "doctor", "content": "x"}]', "not a message, .*message 1"),
        ('[{"role": "user", "content": 5}]', "not a text"),
        (r'[{"role": "user", "content": "\ud800"}]', "not a text"),
        ('[{"role": "assistant", "content": "x"}]', "begin with the user"),
    ],
)
def test_what_is_no_conversation_is_told(
    text: str, fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "talk.json"
    file.write_text(text)
    assert main(["models", "render", "nano", str(file)]) == 2
    assert re.search(fault, capsys.readouterr().err)
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    assert main(["models", "render", "nano", "-"]) == 2
    assert re.search(fault, capsys.readouterr().err)
