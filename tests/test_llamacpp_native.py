"""The binding compiled here beside the wheel: what one says of a file and makes of a prompt, the other does too."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from medmind.export import gguf
from medmind.export.metadata import Facts
from medmind.infer import llamacpp
from medmind.infer.decode_llamacpp import LlamaCppDecoder
from medmind.infer.decoder import Sampling, Step, Work
from medmind.infer.llamacpp import BINDINGS, LlamaCppGenerator, find_library, load_library, load_model

pytest.importorskip("llama_cpp", reason="make native compiles it")
pytest.importorskip("cyllama")
PROMPTS = [[1, 3, 500 + n, 600, 700, 4] for n in range(4)]
TEXTS = ["Rhinitis is swelling of the nose.", "naïve 5 µg 鼻炎 🫁", " two  spaces\n\n", "[INST] x", "", "a\0b"]


def use(package: str) -> Any:
    """The library of one binding, from now on."""
    find_library.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(llamacpp, "BINDINGS", {package: BINDINGS[package]})
        return load_library()


@pytest.fixture(autouse=True)
def afresh() -> Iterator[None]:
    find_library.cache_clear()
    yield
    find_library.cache_clear()


def by_both(make: Callable[[], Any]) -> list[Any]:
    """What it makes with the compiled one, and with the wheel."""
    found = []
    for package in BINDINGS:
        use(package)
        found.append(make())
    return found


def test_the_compiled_one_is_taken() -> None:
    assert load_library().__name__ == "medmind.infer.native"


def test_an_older_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "medmind.infer.native", raising=False)
    monkeypatch.setattr("importlib.metadata.version", lambda _: "0.3.35")
    assert load_library().__name__ == "cyllama.llama.llama_cpp"


def test_a_file_is_read_alike(gguf_file: Path) -> None:
    ours, theirs = by_both(lambda: load_model(load_library(), gguf_file))
    assert ours.metadata() == theirs.metadata()
    assert max(map(len, ours.metadata().values())) > 256
    assert (ours.n_params, ours.n_ctx_train, ours.n_embd) == (theirs.n_params, theirs.n_ctx_train, theirs.n_embd)
    mine, other = ours.get_vocab(), theirs.get_vocab()
    assert mine.n_vocab == other.n_vocab
    for text in TEXTS:
        for flags in ((False, False), (True, True)):
            assert mine.tokenize(text, *flags) == list(other.tokenize(text, *flags)), text
    for token in range(mine.n_vocab):
        assert mine.is_eog(token) == other.is_eog(token)
        assert mine.is_control(token) == other.is_control(token)
        assert mine.get_text(token) == other.get_text(token)
    assert (mine.token_bos(), mine.token_eos(), mine.get_add_bos()) == (
        other.token_bos(),
        other.token_eos(),
        other.get_add_bos(),
    )
    for text in (*TEXTS, TEXTS[1] * 50):
        ids = mine.tokenize(text, False, False)
        written = mine.detokenize(ids, 1, True, False)
        assert written.lstrip() == other.detokenize(ids, 16 * len(ids) + 16, True, False).lstrip()
        assert len(written) >= len(text), "blanks at the beginning stay"


def test_replies_and_likelihoods_are_alike(gguf_file: Path) -> None:
    ours, theirs = by_both(lambda: LlamaCppGenerator(gguf_file, [2], 64))
    assert ours.generate(PROMPTS, 20) == theirs.generate(PROMPTS, 20)
    rows = [([1, 3, 90], [200, 300, 2]), (list(range(10, 70)), [9, 8, 7])]
    for mine, other in zip(ours.log_likelihoods(rows), theirs.log_likelihoods(rows), strict=True):
        assert mine == pytest.approx(other, abs=1e-4)


def write(decoder: LlamaCppDecoder, sampling: Sampling) -> list[list[int]]:
    """Every prompt's first ten tokens, all in one batch."""
    for slot, prompt in enumerate(PROMPTS):
        decoder.begin(slot, Work(tuple(prompt), 10, sampling=sampling))
    found: list[list[int]] = [[] for _ in PROMPTS]
    while any(len(one) < 10 for one in found):
        steps: list[Step] = decoder.step()
        for step in steps:
            if step.new is not None:
                found[step.slot].append(step.new.token)
    for slot in range(len(PROMPTS)):
        decoder.drop(slot)
    return found


@pytest.mark.parametrize(
    "sampling",
    [Sampling(), Sampling(repeat_penalty=1.3), Sampling(temperature=0.9, top_k=40, top_p=0.9, min_p=0.05, seed=7)],
)
def test_a_batch_writes_alike(gguf_file: Path, sampling: Sampling) -> None:
    ours, theirs = by_both(lambda: LlamaCppDecoder(gguf_file, 4, 64))
    assert write(ours, sampling) == write(theirs, sampling) == write(ours, sampling)
    assert ours.embed(PROMPTS[0]) == pytest.approx(theirs.embed(PROMPTS[0]), abs=1e-4)


@pytest.mark.parametrize("kind", ["q4_k_m", "q6_k", "q8_0", "f16"])
@pytest.mark.parametrize("count", [1, 16, 17, 60])
def test_whatever_it_multiplies_by_it_is_the_same_model(
    kind: str, count: int, gguf_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few rows and many, weights copied or not: each has kernels of its own, and the patch changes some."""
    gguf.write(gguf_file.parent / "merged", tmp_path / "small.gguf", kind, Facts("tiny", "MIT", "nano", ""))
    ids = [1, *range(500, 499 + count)]

    def logits() -> Any:
        return LlamaCppGenerator(tmp_path / "small.gguf", [2], 64).logits(ids, 0)

    ours, theirs = by_both(logits)
    native = use("llama_cpp")
    monkeypatch.setattr(native, "TILED", not native.TILED)
    for found in (ours, logits()):
        assert found.shape == theirs.shape == (count, found.shape[1])
        assert abs(found - theirs).mean() < 0.02 * theirs.std()


def test_a_model_outlives_its_contexts(gguf_file: Path) -> None:
    library = use("llama_cpp")
    model = load_model(library, gguf_file)
    session = library.LlamaContext(model, library.LlamaContextParams())
    model.__del__()
    assert model.pointer, "a context still reads it"
    session.__del__()
    assert model.pointer is None
    session.pointer = None


def test_k_quants_are_the_same_bytes(gguf_file: Path, tmp_path: Path) -> None:
    """An export does not depend on which of the two is installed."""

    def make() -> bytes:
        gguf.write(gguf_file.parent / "merged", tmp_path / "q.gguf", "q4_k_m", Facts("tiny", "MIT", "nano", ""))
        return (tmp_path / "q.gguf").read_bytes()

    ours, theirs = by_both(make)
    assert ours == theirs


def test_refusals(tmp_path: Path, gguf_file: Path) -> None:
    library = use("llama_cpp")
    batch = library.LlamaBatch(n_tokens=1, embd=0, n_seq_max=1)
    batch.add(1, 0, [0], True)
    with pytest.raises(IndexError, match="1 tokens is full"):
        batch.add(1, 1, [0], True)
    with pytest.raises(RuntimeError, match="could not write"):
        library.model_quantize(str(tmp_path / "absent"), str(tmp_path / "out"), library.LlamaModelQuantizeParams())
    model = load_model(library, gguf_file)
    settings = library.LlamaContextParams()
    settings.n_ctx = settings.n_batch = 8
    settings.n_seq_max = 1
    session = library.LlamaContext(model, settings)
    batch.clear()
    batch.add(model.n_vocab + 5, 0, [0], True)
    with pytest.raises(RuntimeError, match="llama_decode"):
        session.decode(batch)
