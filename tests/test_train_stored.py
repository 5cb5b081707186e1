"""Rows on disk: the same rows as in memory, taken up only when they are made of the same things."""

from pathlib import Path

import pytest

from medmind.core.errors import DataError
from medmind.core.jsonl import write_jsonl
from medmind.core.rundir import RunDir
from medmind.core.types import Example, Message
from medmind.models.catalog import find_model
from medmind.models.spec import ModelSpec
from medmind.models.tokenizer import open_tokenizer
from medmind.prompts.chat import Renderer
from medmind.prompts.families import open_renderer
from medmind.train import rows as stored
from medmind.train.batches import BATCH, IGNORED, tokenise
from medmind.train.config import TrainConfig
from medmind.train.rows import StoredRows, index_of, load_rows

CONFIG = TrainConfig(max_length=64, overflow="truncate")
ODD = ["β-blocker 漢字 😀", "[INST] not a command [/INST]</s>", " leading", "two\n\nlines\u2028and more", "x"]


@pytest.fixture(scope="module")
def spec() -> ModelSpec:
    return find_model("nano")


@pytest.fixture(scope="module")
def renderer(spec: ModelSpec) -> Renderer:
    return open_renderer(spec.renderer, open_tokenizer(spec))


def ask(number: int) -> Example:
    question = Message(role="user", text=f"{ODD[number % len(ODD)]} {number}?")
    answer = f"{ODD[-number % len(ODD)]} " * (1 + number % 40)
    return Example(id=f"row-{number}", source=f"s{number % 3}", task="qa", turns=(question,), target=answer)


def prepared(root: Path, count: int = 40) -> RunDir:
    rundir = RunDir(root)
    write_jsonl(rundir.split("train"), map(ask, range(count)))
    return rundir


def load(rundir: RunDir, spec: ModelSpec, renderer: Renderer, config: TrainConfig = CONFIG) -> StoredRows:
    return load_rows(rundir, "train", spec, renderer, "Be brief.", config)


def test_batches_are_encoded_as_single_texts_are(renderer: Renderer) -> None:
    tokenizer = renderer.tokenizer
    ids = [tokenizer.encode(text) for text in ODD]
    assert tokenizer.encode_batch(ODD) == ids
    assert tokenizer.decode_batch(ids) == [tokenizer.decode(row) for row in ids]
    chats = [(*ask(number).turns, Message(role="assistant", text=ask(number).target)) for number in range(20)]
    assert renderer.encode_batch([renderer.lay_out(chat) for chat in chats]) == [renderer.render(c) for c in chats]
    passages = renderer.encode_batch([renderer.lay_out_passage(text) for text in ODD])
    assert passages == [renderer.passage(text) for text in ODD]


def test_stored_rows_are_the_rows_in_memory(spec: ModelSpec, renderer: Renderer, tmp_path: Path) -> None:
    count = BATCH + 8
    rows, counts = tokenise(map(ask, range(count)), renderer, "Be brief.", CONFIG)
    found = load(prepared(tmp_path, count), spec, renderer)
    assert list(found) == rows
    assert found[5:900:7] == rows[5:900:7]
    assert found[-1] == rows[-1]
    assert found.longest == max(len(row.ids) for row in rows) == 64
    assert found.counts == vars(counts)
    assert counts.rows_over_limit > 0
    assert {row.source for row in found} == {"s0", "s1", "s2"}
    with pytest.raises(IndexError):
        found[len(rows)]


def test_each_row_is_what_it_is_alone(renderer: Renderer) -> None:
    """The slow twin: one text at a time, as a chat is rendered."""
    rows, _ = tokenise(map(ask, range(20)), renderer, "", TrainConfig())
    for example, row in zip(map(ask, range(20)), rows, strict=True):
        rendered = renderer.render([*example.turns, Message(role="assistant", text=example.target)])
        assert tuple(row.ids) == rendered.ids
        learnt = [label for label in row.labels if label != IGNORED]
        assert learnt == [token for token, learn in zip(rendered.ids, rendered.loss_mask, strict=True) if learn]
        assert row.bytes == len(renderer.tokenizer.decode(learnt).encode())


def test_rows_are_taken_up_only_if_nothing_changed(
    spec: ModelSpec, renderer: Renderer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    stream = stored.stream
    monkeypatch.setattr(stored, "stream", lambda *settings: made.append(1) or stream(*settings))
    rundir = prepared(tmp_path)
    first = list(load(rundir, spec, renderer))
    assert list(load(rundir, spec, renderer)) == first
    assert len(made) == 1
    load(rundir, spec, renderer, TrainConfig(max_length=32, overflow="truncate"))
    load(rundir, spec, renderer)
    assert len(made) == 3
    index_of(rundir.rows("train")).unlink()  # as a process killed in between leaves it
    load(rundir, spec, renderer)
    write_jsonl(rundir.split("train"), map(ask, range(10)))
    assert len(load(rundir, spec, renderer)) == 10
    assert len(made) == 5


def test_rows_that_fail_leave_nothing(spec: ModelSpec, renderer: Renderer, tmp_path: Path) -> None:
    rundir = prepared(tmp_path)
    with pytest.raises(DataError, match="row-"):
        load(rundir, spec, renderer, TrainConfig(max_length=32))
    assert list(rundir.rows("train").parent.iterdir()) == []
