"""What begins with a slash, what is shown first, and what is left behind: nothing, unless it is asked for."""

import argparse
import io
import json
import os
import readline
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from talking import FakeModel

from medmind.chat.samples import read_samples
from medmind.chat.saved import LARGEST
from medmind.chat.session import Chat
from medmind.chat.show import Screen
from medmind.chat.speaker import Speaker
from medmind.cli import chat as verb
from medmind.core.errors import EnvironmentFault, UsageError
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


def saved(system: str = "", *asked: str, **said: object) -> str:
    turns = [{"role": role, "text": text} for text in asked for role in ("user", "assistant")]
    return json.dumps({"system": {"tuned": system}, "turns": {"tuned": turns}, **said})


FAULTY = {
    "[" * 100_000: "nested too deep",
    '{"medmind_chat": ' + "9" * 5_000: "a number too long",
    "{": "not JSON",
    "": "not JSON",
    saved("\ud800"): "lone surrogate",
    saved("", "A\udc80?"): "lone surrogate",
    saved(medmind_chat=99): "saved by a newer medmind, in format 99",
    saved(medmind_chat=99, speakers=[]): "saved by a newer medmind",
    saved(medmind_chat=0): "not a conversation",
    saved("", "A?", turns={"old": []}): "nobody here took part in it, FILE (of old)",
}
ODD = {
    "/load ~nosuchuser/x": "no such user",
    "/save ~nosuchuser/x": "no such user",
    "/load a\0b": "NUL",
    "/save a\0b": "NUL",
    "/load DIR": "not a file",
    "/save DIR": "not a file",
    "/save DIR/socket": "not a file",
    "/load /dev/zero": "not a file",
    "/load " + "n" * 300: "File name too long",
    "/save " + "n" * 300: "File name too long",
    "/system caf\udce9": "the system prompt is not UTF-8",
    "/" + "9" * 5_000: "no command",
    "/": "no command",
    "/compare x": "only one model here",
}


@pytest.mark.parametrize("line", ODD, ids=range(len(ODD)))
def test_no_fault_of_a_command_ends_the_conversation(
    monkeypatch: pytest.MonkeyPatch,
    renderer: Renderer,
    fake: FakeModel,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    line: str,
) -> None:
    os.mknod(tmp_path / "socket", stat.S_IFSOCK)
    text = f"A?\n{line.replace('DIR', str(tmp_path))}\nB?\n"
    speaker = talk(monkeypatch, renderer, fake, text, samples=("caf\udce9?",))
    assert [turn.text for turn in speaker.turns[::2]] == ["A?", "B?"]
    assert speaker.system == "Be kind."
    told = [one for one in capsys.readouterr().err.splitlines() if "error" in one]
    assert len(told) == 1
    assert told[0].startswith("error: ")
    assert ODD[line] in told[0]
    assert "internal" not in told[0]


@pytest.mark.parametrize("content", FAULTY, ids=range(len(FAULTY)))
def test_a_faulty_file_is_not_loaded_and_not_written_over(
    monkeypatch: pytest.MonkeyPatch,
    renderer: Renderer,
    fake: FakeModel,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    content: str,
) -> None:
    file = tmp_path / "talk.json"
    file.write_text(content)
    speaker = talk(monkeypatch, renderer, fake, f"A?\n/load {file}\nB?\n")
    assert [turn.text for turn in speaker.turns[::2]] == ["A?", "B?"]
    told = capsys.readouterr().err
    assert FAULTY[content].replace("FILE", str(file)) in told
    assert "internal" not in told
    talk(monkeypatch, renderer, fake, f"A?\n/save {file}\n")
    assert file.read_text() == content or FAULTY[content].startswith("nobody")


def test_a_file_too_large_is_not_read(
    monkeypatch: pytest.MonkeyPatch,
    renderer: Renderer,
    fake: FakeModel,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    huge = tmp_path / "huge"
    with huge.open("w") as file:
        file.truncate(LARGEST + 1)
    monkeypatch.setattr("medmind.chat.saved.read_json", lambda _: pytest.fail("it was read"))
    talk(monkeypatch, renderer, fake, f"/load {huge}\n")
    assert "not a conversation that medmind chat saved" in capsys.readouterr().err


def test_bytes_that_are_no_text_end_no_pipe(
    monkeypatch: pytest.MonkeyPatch, fake: FakeModel, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    lines = b"/load caf\xe9\n/caf\xe9\n/system caf\xe9\n/save caf\0\xe9\n/save caf\xe9\n/load caf\xe9\nA?\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines), encoding="utf-8"))
    monkeypatch.setattr("medmind.infer.decode_hf.open_hf", lambda *_: fake)
    monkeypatch.chdir(tmp_path)
    parser = argparse.ArgumentParser()
    verb.add_arguments(parser)
    assert verb.run(parser.parse_args(["nano"])) == 0
    shown = capfd.readouterr()
    assert shown.err.count("error: ") == 4
    assert "internal" not in shown.err
    assert "loaded: 0 questions" in shown.err
    assert shown.out.startswith("It is")


def test_a_fault_nobody_foresaw_is_told_and_the_talk_goes_on(
    monkeypatch: pytest.MonkeyPatch, renderer: Renderer, fake: FakeModel, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Speaker, "room", lambda _: 1 // 0)
    speaker = talk(monkeypatch, renderer, fake, "A?\n/context\nB?\n")
    assert len(speaker.turns) == 4
    assert "error: internal error: ZeroDivisionError" in capsys.readouterr().err


def test_a_reader_that_went_away_ends_it(monkeypatch: pytest.MonkeyPatch, renderer: Renderer, fake: FakeModel) -> None:
    def gone(*_: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(Screen, "show", gone)
    with pytest.raises(BrokenPipeError):
        talk(monkeypatch, renderer, fake, "/1\nA?\n", samples=("Q?",))


def test_quit_quits_whatever_follows_it(monkeypatch: pytest.MonkeyPatch, renderer: Renderer, fake: FakeModel) -> None:
    talk(monkeypatch, renderer, fake, "/quit now\nA?\n")
    assert fake.heard == []


def test_what_was_loaded_can_be_asked_again_and_steers_no_terminal(
    monkeypatch: pytest.MonkeyPatch,
    renderer: Renderer,
    fake: FakeModel,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "talk.json"
    file.write_text(saved("Be\x1b[2J brief.", "A?", "B?"))
    speaker = talk(monkeypatch, renderer, fake, f"/load {file}\n/retry\n/system\n")
    assert [turn.text for turn in speaker.turns] == ["A?", "A?", "B?", "It is naïve β, 38 °C 🩺."]
    told = capsys.readouterr().err
    assert "system prompt: Be[2J brief." in told
    assert "\x1b" not in told
    assert "nothing was asked" not in told


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
    parser = argparse.ArgumentParser()
    verb.add_arguments(parser)
    assert verb.run(parser.parse_args([str(run.root), "--whole"])) == 0
    assert len(fake.heard) == 2
    assert "One?" in fake.heard[0]
    assert "/quit is no command here." in fake.heard[0]


def test_what_was_typed_is_kept_only_where_the_user_says(tmp_path: Path) -> None:
    typed = tmp_path / "typed"
    readline.clear_history()
    with verb.history(None):
        readline.add_history("What is gout?")
    assert list(tmp_path.iterdir()) == []
    readline.clear_history()
    typed.write_text("What is edema?\n")
    typed.chmod(0o644)
    with verb.history(typed):
        assert stat.S_IMODE(typed.stat().st_mode) == 0o600, "from the start"
        assert readline.get_history_item(1) == "What is edema?"
        readline.add_history("What is gout?")
    assert typed.read_text() == "What is edema?\nWhat is gout?\n"
    assert stat.S_IMODE(typed.stat().st_mode) == 0o600
    readline.clear_history()


@pytest.mark.parametrize(
    ("name", "fault"), [(".", UsageError), ("socket", UsageError), ("none/typed", EnvironmentFault)]
)
def test_what_cannot_be_kept_is_told_before_anything_is_typed(
    tmp_path: Path, name: str, fault: type[Exception]
) -> None:
    os.mknod(tmp_path / "socket", stat.S_IFSOCK)
    with pytest.raises(fault, match=r"not a file|cannot be kept"), verb.history(tmp_path / name):
        pytest.fail("it began")


def test_a_question_asked_again_that_cannot_be_answered_ends_a_pipe(
    monkeypatch: pytest.MonkeyPatch, renderer: Renderer, fake: FakeModel
) -> None:
    asked = iter(("A rash.", None))

    def answer(*_: object) -> str:
        if (said := next(asked)) is None:
            raise EnvironmentFault("no memory")
        return said

    monkeypatch.setattr(Chat, "answer", lambda *_: answer())
    monkeypatch.setattr("medmind.chat.speaker.Speaker.remember", lambda *_: None)
    with pytest.raises(EnvironmentFault, match="no memory"):
        talk(monkeypatch, renderer, fake, "A?\n/retry\nB?\n")
