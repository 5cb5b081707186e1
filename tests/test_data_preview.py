"""The preview shows exactly the tokens training sees, and which of them it learns."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from medmind.cli.main import main
from medmind.core.types import Example, Message
from medmind.data.preview import as_text, preview, show, token_texts
from medmind.models.catalog import find_model
from medmind.models.tokenizer import open_tokenizer
from medmind.prompts.chat import Renderer
from medmind.prompts.families import open_renderer


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    spec = find_model("nano")
    return open_renderer(spec.renderer, open_tokenizer(spec))


def ask(number: int = 0) -> Example:
    turns = (Message(role="user", text=f"What is β-{number}?"),)
    return Example(id=f"row-{number}", source="made", task="qa", turns=turns, target="A letter 漢.")


def test_supervised_tokens_are_the_reply_and_the_end(renderer: Renderer) -> None:
    (row,) = preview([ask()], renderer, "Be brief.", count=3, seed=0)
    text = as_text(row, colour=False).plain
    learnt = text[text.index("«") + 1 : text.index("»")].replace("│", "")
    assert learnt == " A letter 漢.</s>"
    assert "Be brief." in text[: text.index("«")].replace("│", "")
    assert text.replace("│", "").replace("⏎", "").replace("«", "").replace("»", "") == "".join(row.tokens)
    assert row.supervised == sum(row.rendered.loss_mask) > 2


def test_plain_passages_are_learnt_whole(renderer: Renderer) -> None:
    (row,) = preview([Example(id="p", source="made", task="text", target="Some text.")], renderer, "", 1, 0)
    assert as_text(row, colour=False).plain.replace("│", "") == "<s>«Some text.</s>»"


def test_colour_stands_in_for_the_marks(renderer: Renderer) -> None:
    (row,) = preview([ask()], renderer, "", count=1, seed=0)
    text = as_text(row, colour=True)
    assert "«" not in text.plain
    assert any("green" in str(span.style) and text.plain[span.start : span.end] == "</s>" for span in text.spans)


def test_characters_of_several_tokens_are_whole(renderer: Renderer) -> None:
    ids = renderer.tokenizer.encode("é漢字😀!")
    texts = token_texts(ids, renderer.tokenizer)
    assert len(texts) == len(ids)
    assert "".join(texts) == "é漢字😀!"


def test_the_header_counts_and_the_sample_is_seeded(renderer: Renderer) -> None:
    examples = [ask(number) for number in range(30)]
    rows = preview(examples, renderer, "", count=3, seed=5)
    assert rows == preview(examples, renderer, "", count=3, seed=5)
    assert [row.id for row in rows] != ["row-0", "row-1", "row-2"]
    out = io.StringIO()
    show(rows, len(examples), "train.jsonl", Console(file=out, width=200))
    head = out.getvalue().splitlines()[0]
    assert f"3 of 30 rows, {sum(len(row.tokens) for row in rows)} tokens" in head
    assert f"{sum(row.supervised for row in rows)} supervised" in head


def test_the_verb_runs_the_stage_and_previews_a_run_or_a_recipe(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = tmp_path / "run"
    assert main(["data", "demo", "--out", str(run)]) == 0
    assert (run / "data" / "train.jsonl").is_file()
    capsys.readouterr()
    assert main(["data", "preview", str(run), "--rows", "2", "--json"]) == 0
    from_run = json.loads(capsys.readouterr().out)
    assert main(["data", "preview", "demo", "--rows", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == from_run
    assert {"id", "text", "ids", "roles", "loss_mask"} == set(from_run[0])
    assert main(["data", "preview", "demo"]) == 0
    assert "«" in capsys.readouterr().out
    assert main(["data", "preview", "demo", "--rows", "0"]) == 2


def test_a_bad_file_is_exit_2_and_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("question,anwser\nWhat,That\n")
    settings = ["--set", "data.source=csv", "--set", f"data.path={path}"]
    assert main(["data", "base", "--out", str(tmp_path / "run"), *settings]) == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert told.startswith('error: no column "answer" (did you mean "anwser"?)')
    assert str(path) in told
    assert not (tmp_path / "run" / "data").exists()
