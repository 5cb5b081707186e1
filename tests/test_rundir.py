"""The run directory's own book: what is done, what is made, and what a damaged book says."""

from pathlib import Path

import pytest

from medmind.core.errors import DataError, EnvironmentFault
from medmind.core.jsonl import write_text
from medmind.core.rundir import RunDir


@pytest.mark.parametrize("text", ["{bad", "[]", "5", '{"stages": {"data": 5}}', '{"begun": []}', '{"made": 1}'])
def test_a_damaged_manifest_says_what_to_do(text: str, tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    write_text(run.manifest, text)
    with pytest.raises(DataError) as caught:
        run.is_done("data", "key")
    assert "manifest.json" in caught.value.where
    assert caught.value.todo == "remove it, and every stage runs again"


def test_a_file_is_made_while_its_key_and_its_bytes_are_the_same(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    write_text(run.card, "a card")
    assert not run.is_made(run.card, "key")
    run.note_made(run.card, "key")
    assert run.is_made(run.card, "key")
    assert not run.is_made(run.card, "another")
    write_text(run.card, "another card")
    assert not run.is_made(run.card, "key")
    run.card.unlink()
    assert not run.is_made(run.card, "key")


def test_a_stage_is_done_while_its_files_are_as_they_were(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    write_text(run.plan, "{}")
    run.finish("train", "key", [run.plan], 1.0)
    assert run.is_done("train", "key")
    assert not run.is_done("train", "another")
    write_text(run.plan, "[]")
    assert not run.is_done("train", "key")


def test_a_path_that_cannot_be_is_one_error_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFault, match=r"cannot write: .*file.x, check the path"):
        write_text(tmp_path / "file" / "x", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
