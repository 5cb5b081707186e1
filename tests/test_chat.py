"""The terminal chat: turns are kept, both models hear the same, and a pipe gets answers on stdout alone."""

import argparse
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from talking import FakeModel

from medmind.chat.session import Chat
from medmind.chat.speaker import Speaker
from medmind.cli import chat
from medmind.core.errors import DataError, UsageError
from medmind.core.jsonl import write_jsonl, write_text
from medmind.core.rundir import RunDir
from medmind.core.types import Example, Message
from medmind.models.catalog import find_model
from medmind.models.tokenizer import open_tokenizer
from medmind.prompts.chat import Renderer
from medmind.prompts.families import open_renderer


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return open_renderer("mistral-v3", open_tokenizer(find_model("nano")))


@pytest.fixture
def fakes(renderer: Renderer) -> list[FakeModel]:
    return [FakeModel(renderer, lambda _, name=name: f"I am {name}.") for name in ("old", "new")]


@pytest.fixture
def speakers(renderer: Renderer, fakes: list[FakeModel]) -> list[Speaker]:
    pairs = zip(("base", "tuned"), fakes, strict=True)
    return [Speaker(name, fake, renderer, "Be kind.", max_new_tokens=20) for name, fake in pairs]


def pipe(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))


def type_lines(monkeypatch: pytest.MonkeyPatch, lines: Sequence[str | type[BaseException]]) -> None:
    """What a person types at the prompt; an exception stands for Ctrl-C or Ctrl-D."""
    waiting: Iterator[str | type[BaseException]] = iter(lines)

    def answer(_: str) -> str:
        line = next(waiting)
        if isinstance(line, str):
            return line
        raise line

    monkeypatch.setattr("builtins.input", answer)


def test_a_pipe_gets_answers_on_stdout_alone(
    speakers: list[Speaker], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe(monkeypatch, "Who are you?\n\nAnd now")
    Chat(speakers, ["Sample?"], interactive=False).run()
    shown = capsys.readouterr()
    assert shown.out == "base: I am old.\ntuned: I am new.\n" * 2
    assert shown.err == ""


def test_what_is_not_utf8_is_refused(speakers: list[Speaker], monkeypatch: pytest.MonkeyPatch) -> None:
    pipe(monkeypatch, b"caf\xe9?".decode(errors="surrogateescape"))
    with pytest.raises(UsageError, match="not UTF-8"):
        Chat(speakers, [], interactive=False).run()


def test_one_model_in_a_pipe_needs_no_label(
    speakers: list[Speaker], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe(monkeypatch, "Who?\n")
    Chat(speakers[:1], [], interactive=False).run()
    assert capsys.readouterr().out == "I am old.\n"


def test_turns_are_kept_and_reset(
    speakers: list[Speaker], fakes: list[FakeModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe(monkeypatch, "First?\nSecond?\n/reset\nThird?\n")
    Chat(speakers, [], interactive=False).run()
    texts = [" ".join(text.split()) for text in fakes[1].heard]
    assert texts == ["Be kind. First?", "First? I am new. Be kind. Second?", "Be kind. Third?"]


def test_compare_toggles_and_begins_anew(
    speakers: list[Speaker],
    fakes: list[FakeModel],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pipe(monkeypatch, "One?\n/compare\nTwo?\n/compare\nThree?\n/quit\nFour?\n")
    Chat(speakers, [], interactive=False).run()
    assert [len(fake.heard) for fake in fakes] == [2, 3]
    assert "One?" not in fakes[0].heard[1] + fakes[1].heard[1]
    assert "I am new.\n" in capsys.readouterr().out


def test_a_talk_of_the_tuned_model_alone_is_taken_up_by_it_alone(
    speakers: list[Speaker], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "talk.json"
    pipe(monkeypatch, f"/compare\nOne?\nTwo?\n/save {file}\n")
    Chat(speakers, [], interactive=False).run()
    capsys.readouterr()
    pipe(monkeypatch, f"Now?\n/load {file}\nThree?\n")
    Chat(speakers, [], interactive=False).run()
    shown = capsys.readouterr()
    assert shown.out == "base: I am old.\ntuned: I am new.\nI am new.\n"
    assert [len(speaker.turns) // 2 for speaker in speakers] == [0, 3]
    assert "now answering: tuned: base did not hear the same; /compare begins anew with both" in shown.err
    assert "loaded: 2 questions" in shown.err


def test_a_talk_of_both_is_taken_up_by_both(
    speakers: list[Speaker], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "talk.json"
    pipe(monkeypatch, f"One?\nTwo?\n/save {file}\n/compare\nElse?\n/load {file}\nThree?\n/retry\n")
    Chat(speakers, [], interactive=False).run()
    told = capsys.readouterr().err
    assert [len(speaker.turns) // 2 for speaker in speakers] == [3, 3]
    assert "now answering: base and tuned\n" in told
    assert "did not hear" not in told
    speakers[0].forget(1)
    pipe(monkeypatch, f"/save {file}\n/load {file}\n")
    Chat(speakers, [], interactive=False).run()
    assert "now answering: tuned: base did not hear the same" in capsys.readouterr().err, "other questions"


def test_the_oldest_questions_may_be_gone_from_one_of_two(
    speakers: list[Speaker], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "talk.json"
    pipe(monkeypatch, "One?\nTwo?\n")
    Chat(speakers, [], interactive=False).run()
    del speakers[0].turns[:2]
    pipe(monkeypatch, f"/save {file}\n/load {file}\nThree?\n")
    Chat(speakers, [], interactive=False).run()
    assert [len(speaker.turns) // 2 for speaker in speakers] == [2, 3]
    assert "loaded: 2 questions; of these base has the last 1\n" in capsys.readouterr().err


def test_samples_can_be_asked_by_number(
    speakers: list[Speaker],
    fakes: list[FakeModel],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    long = "word " * 100 + "end?"
    pipe(monkeypatch, "/samples\n/1\n/2\n/what\n")
    Chat(speakers, [long], interactive=False).run()
    assert len(fakes[0].heard) == 1
    assert "end?" in fakes[0].heard[0]
    told = capsys.readouterr().err
    assert "/1  word" in told
    assert "end?" not in told
    assert 'no command "/2"' in told
    assert 'no command "/what"' in told


def test_old_turns_are_dropped_openly(
    renderer: Renderer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = FakeModel(renderer, lambda _: "Fine.", context=100)
    pipe(monkeypatch, "".join(f"This is question number {number}, quite long?\n" for number in range(6)))
    Chat([Speaker("base", fake, renderer, "", 30)], [], interactive=False).run()
    assert "number 0" in fake.heard[1]
    assert "number 0" not in fake.heard[5]
    assert "number 4" in fake.heard[5]
    told = " ".join(capsys.readouterr().err.split())
    assert re.search(r"\(base: the oldest question and its answer, \d+ tokens, no longer fit 100 tokens", told)


def test_a_question_beyond_the_context_is_an_error(renderer: Renderer, monkeypatch: pytest.MonkeyPatch) -> None:
    speaker = Speaker("base", FakeModel(renderer, str, context=4), renderer, "", 30)
    pipe(monkeypatch, "Too long?\n")
    with pytest.raises(DataError, match="no room"):
        Chat([speaker], [], interactive=False).run()
    type_lines(monkeypatch, ["Too long?", EOFError])
    Chat([speaker], [], interactive=True).run()


def test_a_question_too_long_by_itself_costs_no_older_ones(
    renderer: Renderer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    speaker = Speaker("base", FakeModel(renderer, lambda _: "Fine.", context=100), renderer, "", 30)
    type_lines(monkeypatch, ["A?", "B?", "long " * 200, EOFError])
    Chat([speaker], [], interactive=True).run()
    assert [turn.text for turn in speaker.turns[::2]] == ["A?", "B?"]
    assert "dropped" not in capsys.readouterr().err


def test_a_long_talk_is_cut_without_reading_it_for_each_turn(
    renderer: Renderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    speaker = Speaker("base", FakeModel(renderer, str, context=100), renderer, "", 30)
    speaker.turns = [Message(role=role, text="Well?") for _ in range(2000) for role in ("user", "assistant")]
    rendered: list[int] = []
    prompt = renderer.prompt
    monkeypatch.setattr(renderer, "prompt", lambda talk: (rendered.append(len(talk)), prompt(talk))[1])
    kept = len(speaker.fit("So?"))
    assert len(rendered) < 20
    assert kept + 30 <= 100
    assert (
        len(
            prompt(
                [*[Message(role=role, text="Well?") for role in ("user", "assistant")], *speaker.conversation("So?")]
            )
        )
        + 30
        > 100
    ), "no more is dropped than must be"


def test_an_engine_that_fails_on_a_terminal_ends_its_answer_alone(
    renderer: Renderer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def write(text: str) -> str:
        if text.endswith("hard?"):
            raise RuntimeError("out of memory")
        return "Fine."

    speaker = Speaker("base", FakeModel(renderer, write), renderer, "", 30)
    type_lines(monkeypatch, ["A?", "hard?", "B?", EOFError])
    Chat([speaker], [], interactive=True).run()
    assert [turn.text for turn in speaker.turns[::2]] == ["A?", "B?"]
    assert "error: internal error: RuntimeError: out of memory" in capsys.readouterr().err


def test_ctrl_c_takes_the_question_back_and_leaves_at_the_prompt(
    renderer: Renderer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def write(text: str) -> str:
        if text.endswith("slow?"):
            raise KeyboardInterrupt
        return "Fine."

    old, new = FakeModel(renderer, lambda _: "Yes."), FakeModel(renderer, write)
    pair = [Speaker("base", old, renderer, "", 30), Speaker("tuned", new, renderer, "", 30)]
    type_lines(monkeypatch, ["slow?", "next?", KeyboardInterrupt])
    Chat(pair, [], interactive=True).run()
    shown = capsys.readouterr()
    assert "forgotten" in shown.err
    assert "tuned: Fine." in shown.out
    assert "slow" not in old.heard[1] + new.heard[1]


def test_a_cut_reply_is_said_to_be_cut(
    renderer: Renderer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = FakeModel(renderer, lambda _: "A very long answer indeed, my friend.")
    pipe(monkeypatch, "Why?\n")
    Chat([Speaker("base", fake, renderer, "", 4)], [], interactive=False).run()
    assert "cut after 4 tokens" in capsys.readouterr().err


def namespace(target: Path | str, *sets: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    chat.add_arguments(parser)
    return parser.parse_args([str(target), *(word for text in sets for word in ("--set", text))])


@pytest.fixture
def finished(tmp_path: Path) -> RunDir:
    """A run whose training is done, as far as the manifest says."""
    rundir = RunDir(tmp_path / "run")
    write_text(rundir.recipe, "name: run\nmodel: nano\nstages: [data, train]\ndata: {system_prompt: Be brief.}\n")
    turn = Message(role="user", text="What is edema?")
    items = [Example(id=str(n), source="t", task="qa", turns=(turn,), target="Swelling.") for n in range(5)]
    write_jsonl(rundir.split("test"), items)
    rundir.finish("train", "key", [], 1.0)
    return rundir


def test_a_run_speaks_as_base_and_tuned(
    finished: RunDir, renderer: Renderer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: list[tuple[object, ...]] = []

    def open_fake(_spec: object, trained: list[Path], slots: int, _context: int) -> FakeModel:
        opened.append((*trained, slots))
        return FakeModel(renderer, lambda text: f"{'Be brief.' in text}, {len(opened)}")

    monkeypatch.setattr("medmind.infer.decode_hf.open_hf", open_fake)
    pipe(monkeypatch, "/1\n")
    assert chat.run(namespace(finished.root)) == 0
    assert opened == [(finished.adapter, 1), (1,)], "a whole model has no base beneath it"
    assert capsys.readouterr().out == "base: True, 2\ntuned: True, 2\n"
    write_text(finished.adapter / "adapter_config.json", "{}")
    pipe(monkeypatch, "/1\n")
    chat.run(namespace(finished.root))
    assert opened[2:] == [(finished.adapter, 1)], "an adapter shares its base"
    assert capsys.readouterr().out == "base: True, 3\ntuned: True, 3\n"


def test_a_model_name_speaks_alone(
    renderer: Renderer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = FakeModel(renderer, lambda text: text)
    monkeypatch.setattr("medmind.infer.decode_hf.open_hf", lambda *_, **__: fake)
    pipe(monkeypatch, "/compare\n/samples\nHello?\n")
    assert chat.run(namespace("NANO", "data.system_prompt=Be kind.")) == 0
    shown = capsys.readouterr()
    assert shown.out.split() == ["Be", "kind.", "Hello?"]
    assert "only one model here, chat with a run or an adapter to compare, with a GGUF add --set serve.base=true" in (
        shown.err
    )
    assert "/1 Explain the medical term: Hypertension" in " ".join(shown.err.split())


def test_an_unfinished_run_says_what_to_do(tmp_path: Path) -> None:
    rundir = RunDir(tmp_path / "run")
    write_text(rundir.recipe, "name: run\nmodel: nano\n")
    with pytest.raises(UsageError, match="takes it up where it stopped") as caught:
        chat.run(namespace(rundir.root))
    assert str(rundir.root) in str(caught.value)
    with pytest.raises(UsageError, match="not a run directory"):
        chat.run(namespace(tmp_path))
    with pytest.raises(UsageError, match="unknown recipe"):
        chat.run(namespace("nanoo"))
