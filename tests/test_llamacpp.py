"""llama.cpp as a generator: the same contract as transformers, and clear words when something is missing."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from medmind.core.errors import DataError, EnvironmentFault
from medmind.export import gguf
from medmind.export.merge import merge
from medmind.export.metadata import Facts
from medmind.infer.hf import HfGenerator
from medmind.infer.llamacpp import BINDINGS, LlamaCppGenerator, find_library, has_library, load_library
from medmind.models.catalog import describe_folder

PROMPTS = [[1, 3, 500 + n, 600, 700, 4] for n in range(4)]


@pytest.fixture(scope="module")
def file(wide_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    merge(describe_folder(wide_model), wide_model, folder / "merged")
    gguf.write(folder / "merged", folder / "model.gguf", "f32", Facts("tiny", "MIT", "nano", ""))
    return folder / "model.gguf"


@pytest.fixture(scope="module")
def engine(file: Path) -> LlamaCppGenerator:
    return LlamaCppGenerator(file, [2], 64)


def test_replies_depend_on_the_prompt_alone(engine: LlamaCppGenerator) -> None:
    seen: list[tuple[int, int]] = []
    together = engine.generate(PROMPTS, 20, lambda done, total: seen.append((done, total)))
    backwards = engine.generate(PROMPTS[::-1], 20)[::-1]
    alone = [engine.generate([prompt], 20)[0] for prompt in PROMPTS]
    assert together == backwards == alone
    assert len({reply.ids for reply in together}) > 1
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_the_stop_id_ends_a_reply_and_is_no_part_of_it(file: Path, engine: LlamaCppGenerator) -> None:
    free = engine.generate(PROMPTS[:1], 10)[0]
    assert (len(free.ids), free.stopped) == (10, False)
    stop = free.ids[4]
    ended = LlamaCppGenerator(file, [stop], 64).generate(PROMPTS[:1], 10)[0]
    assert ended.ids == free.ids[: free.ids.index(stop)]
    assert ended.stopped
    assert ended.text == engine.generate(PROMPTS[:1], len(ended.ids))[0].text


def test_the_context_is_never_exceeded(engine: LlamaCppGenerator) -> None:
    reply = engine.generate([list(range(10, 70))], 100)[0]
    assert (len(reply.ids), reply.stopped) == (4, False)
    with pytest.raises(DataError, match="64 tokens leaves no room"):
        engine.generate([list(range(10, 74))], 5)
    with pytest.raises(DataError, match="an empty prompt"):
        engine.generate([[]], 5)
    with pytest.raises(DataError, match=r"60 \+ 6 tokens does not fit"):
        engine.log_likelihoods([(list(range(10, 70)), [5] * 6)])
    with pytest.raises(DataError, match="at least one token"):
        engine.log_likelihoods([([1], [])])


def test_log_likelihoods_are_those_of_transformers(file: Path, engine: LlamaCppGenerator) -> None:
    model = AutoModelForCausalLM.from_pretrained(file.parent / "merged", dtype=torch.float32)
    rows = [([1, 3, 90], [200, 300, 2]), ([1], [4000]), (list(range(10, 70)), [9, 8, 7, 6, 5])]
    expected = HfGenerator(model, [2], str).log_likelihoods(rows)
    for ours, theirs in zip(engine.log_likelihoods(rows), expected, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)


def test_control_tokens_and_bos_of_a_template(engine: LlamaCppGenerator) -> None:
    ids = engine.encode_template("[INST] a[/INST]")
    assert ids[:2] == [1, 3]
    assert ids[-1] == 4
    assert engine.chat_template.startswith("{%-")


def test_the_library_is_silent(file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    LlamaCppGenerator(file, [2], 64).generate(PROMPTS[:1], 2)
    assert capfd.readouterr() == ("", "")


def test_files_that_cannot_be_read(tmp_path: Path, file: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        LlamaCppGenerator(tmp_path / "absent.gguf", [2], 64)
    (tmp_path / "text.gguf").write_text("not a model")
    with pytest.raises(DataError, match="cannot load"):
        LlamaCppGenerator(tmp_path / "text.gguf", [2], 64)
    (tmp_path / "cut.gguf").write_bytes(file.read_bytes()[:100_000])
    with pytest.raises(DataError, match="cannot load"):
        LlamaCppGenerator(tmp_path / "cut.gguf", [2], 64)


@pytest.fixture
def no_library(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in [name for name in sys.modules if name.split(".")[0] in BINDINGS or name in BINDINGS.values()]:
        monkeypatch.delitem(sys.modules, name)
    for package in BINDINGS:
        monkeypatch.setitem(sys.modules, package, None)
    find_library.cache_clear()
    yield
    find_library.cache_clear()


@pytest.mark.usefixtures("no_library")
def test_without_the_library(file: Path) -> None:
    assert not has_library()
    with pytest.raises(EnvironmentFault, match=r'pip install "medmind\[llamacpp\]"'):
        LlamaCppGenerator(file, [2], 64)


@pytest.mark.usefixtures("no_library")
def test_a_binding_that_does_not_load_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One that was compiled for another machine: the other binding would hide that."""
    (tmp_path / "broken_binding.py").write_text("raise RuntimeError('Failed to load shared library')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(BINDINGS, "llama_cpp", "broken_binding")
    with pytest.raises(EnvironmentFault, match="llama_cpp does not load: Failed to load shared library"):
        load_library()
