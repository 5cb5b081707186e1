"""What begins with a slash, what is shown first, and what is left behind: nothing, unless it is asked for."""

import io
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from talking import FakeModel

from medmind.chat.samples import read_samples
from medmind.chat.session import Chat
from medmind.chat.show import Screen
from medmind.chat.speaker import Speaker
from medmind.cli import chat as verb
from medmind.core.jsonl import write_jsonl, write_text
from medmind.core.rundir import RunDir
from medmind.core.types import Example, Message
from medmind.models.catalog import find_model
from medmind.models.tokenizer import open_tokenizer
from medmind.prompts.chat import Renderer
from medmind.prompts.families import open_renderer
from medmind.safety.texts import NOTE, Additions


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return open_renderer("mistral-v3", open_tokenizer(find_model("nano")))


@pytest.fixture
def fake(renderer: Renderer) -> FakeModel:
    return FakeModel(renderer, lambda _: "It is naïve β, 38 °C 🩺.")


def talk(
    monkeypatch: pytest.MonkeyPatch,
    renderer: Renderer,
    fake: FakeModel,
    text: str,
    additions: Additions | None = None,
    samples: tuple[str, ...] = (),
) -> Speaker:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    speaker = Speaker("tuned", fake, renderer, "Be kind.", 60)
    Chat([speaker], samples, interactive=False, additions=additions).run()
    return speaker


def test_pieces_are_whole_characters_and_together_the_reply(renderer: Renderer, fake: FakeModel) -> None:
    speaker = Speaker("tuned", fake, renderer, "", 60)
    pieces = list(speaker.stream("Why?"))
    assert len(pieces) > 4
    assert all("\ufffd" not in piece for piece in pieces)
    assert "".join(pieces) == speaker.reply.text == "It is naïve β, 38 °C 🩺."
    assert speaker.reply.stopped


def test_the_system_prompt_is_shown_changed_and_left_out(
    monkeypatch: pytest.MonkeyPatch, renderer: Renderer, fake: FakeModel, capsys: pytest.CaptureFixture[str]
) -> None:
    talk(monkeypatch, renderer, fake, "/system\nA?\n/system Be rude.\n/clear\nB?\n/system off\n/clear\nC?\n")
    asked = [" ".join(text.split()) for text in fake.heard]
    assert asked == ["Be kind. A?", "Be rude. B?", "C?"]
    told = capsys.readouterr().err
    assert "system prompt: Be kind." in told
    assert "system prompt: none" in told


def test_retry_takes_the_last_answer_back(
    monkeypatch: pytest.MonkeyPatch, renderer: Renderer, fake: FakeModel, capsys: pytest.CaptureFixture[str]
) -> None:
    speaker = talk(monkeypatch, renderer, fake, "/retry\nA?\nB?\n/retry\n")
    assert fake.heard[1] == fake.heard[2]
    assert [turn.text for turn in speaker.turns[::2]] == ["A?", "B?"]
    assert "nothing was asked yet" in capsys.readouterr().err


def test_a_conversation_is_saved_and_taken_up(
    monkeypatch: pytest.MonkeyPatch,
    renderer: Renderer,
    fake: FakeModel,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "talk.json"
    talk(monkeypatch, renderer, fake, f"A?\n/system Be brief.\n/save {file}\n")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    speaker = talk(monkeypatch, renderer, fake, f"/load {file}\nB?\n/save {file}\n")
    assert [turn.text for turn in speaker.turns[::2]] == ["A?", "B?"]
    assert speaker.system == "Be brief."
    other = tmp_path / "other.json"
    other.write_text('{"a": 1}')
    talk(monkeypatch, renderer, fake, f"/save {other}\n/save\n/load {tmp_path / 'none'}\n")
    half = tmp_path / "half.json"
    half.write_text('{"system": {}, "turns": {"tuned": [{"role": "user", "text": "A?"}]}}')
    told = capsys.readouterr().err
    half_speaker = talk(monkeypatch, renderer, fake, f"/load {half}\nA?\n/retry\n")
    assert [turn.role for turn in half_speaker.turns] == ["user", "assistant"]
    assert other.read_text() == '{"a": 1}'
    assert "not a conversation that medmind chat saved" in capsys.readouterr().err
    told = " ".join(told.split())
    assert "not a conversation that medmind chat saved" in told
    assert "which file?" in told
    assert "no such file" in told


def test_the_emergency_text_comes_first_and_is_no_part_of_the_conversation(
    monkeypatch: pytest.MonkeyPatch, renderer: Renderer, fake: FakeModel, capsys: pytest.CaptureFixture[str]
) -> None:
    speaker = talk(monkeypatch, renderer, fake, "I have crushing chest pain\nWhat is chest pain?\n")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("medmind (chest pain): **This may be an emergency.**")
    assert lines[1:] == ["It is naïve β, 38 °C 🩺."] * 2
    assert not any("emergency" in turn.text for turn in speaker.turns)
    talk(monkeypatch, renderer, fake, "I can't breathe\n", Additions(red_flags=False))
    assert "emergency" not in capsys.readouterr().out
    talk(monkeypatch, renderer, fake, "I can't breathe\n", Additions(emergency_text="Ring the ward."))
    assert "Ring the ward." in capsys.readouterr().out


def test_the_note_is_told_beside_the_reply(
    monkeypatch: pytest.MonkeyPatch, renderer: Renderer, fake: FakeModel, capsys: pytest.CaptureFixture[str]
) -> None:
    talk(monkeypatch, renderer, fake, "A?\n", Additions(note=True))
    shown = capsys.readouterr()
    assert NOTE in " ".join(shown.err.split())
    assert NOTE not in shown.out


def test_help_names_every_command_and_context_counts(
    monkeypatch: pytest.MonkeyPatch, renderer: Renderer, fake: FakeModel, capsys: pytest.CaptureFixture[str]
) -> None:
    talk(monkeypatch, renderer, fake, "/help\nA?\n/context\n/sav x\n")
    told = capsys.readouterr().err
    for name in ("/system", "/save", "/load", "/retry", "/compare", "/help", "/clear", "/quit", "/samples"):
        assert name in told
    assert "tuned: 1 turns," in told
    assert 'did you mean "save"' in told


def test_nothing_a_model_says_steers_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    Screen(markdown=False).show("", iter(["a\x1b[2Jb", "\x07c\n\td", "\x9b31m"]))
    assert capsys.readouterr().out == "a[2Jbc\n\td31m\n"


def test_a_terminal_gets_markdown_that_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    Screen(markdown=True).show("tuned", iter(["**Defi", "nition**: ", "\x1b[2Ja rash.\n\n- one\n- two"]))
    shown = out.getvalue()
    assert "**" not in shown
    assert "Definition: [2Ja rash." in shown
    assert "• one" in shown


def test_half_an_answer_is_shown_when_it_is_stopped(capsys: pytest.CaptureFixture[str]) -> None:
    def pieces() -> Iterator[str]:
        yield "Half of"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Screen(markdown=False).show("tuned", pieces())
    assert capsys.readouterr().out == "tuned: Half of\n"


def test_samples_come_from_the_run_and_the_task(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    rows = [
        Example(id=str(n), source="t", task="qa", turns=(Message(role="user", text=f"Q{n}?"),), target="x")
        for n in range(9)
    ]
    write_jsonl(run.split("test"), rows[:5])
    write_jsonl(run.suite("more"), rows[5:])
    write_jsonl(run.suite("prose"), [Example(id="p", source="t", task="text", target="words")])
    found = read_samples(run, "qa", 0)
    assert len(found) == 5
    assert {"Q5?", "Q6?", "Q7?", "Q8?"} & set(found)
    assert found[-1] == "What are the symptoms of glaucoma?"
    assert read_samples(None, "terms", 0) == ["Explain the medical term: Hypertension"]


def test_all_of_stdin_can_be_one_question(
    monkeypatch: pytest.MonkeyPatch, renderer: Renderer, fake: FakeModel, tmp_path: Path
) -> None:
    run = RunDir(tmp_path / "run")
    write_text(run.recipe, "name: run\nmodel: nano\n")
    run.finish("train", "key", [], 1.0)
    monkeypatch.setattr("medmind.infer.decode_hf.open_hf", lambda *_, **__: fake)
    monkeypatch.setattr("sys.stdin", io.StringIO("One?\n\n/quit is no command here.\n"))
    import argparse

    parser = argparse.ArgumentParser()
    verb.add_arguments(parser)
    assert verb.run(parser.parse_args([str(run.root), "--whole"])) == 0
    assert len(fake.heard) == 2
    assert "One?" in fake.heard[0]
    assert "/quit is no command here." in fake.heard[0]


def test_what_was_typed_is_kept_only_where_the_user_says(tmp_path: Path) -> None:
    with verb.history(None):
        pass
    assert list(tmp_path.iterdir()) == []
    with verb.history(tmp_path / "typed"):
        pass
    assert stat.S_IMODE((tmp_path / "typed").stat().st_mode) == 0o600
