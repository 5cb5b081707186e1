"""A GGUF as the reference of another one: how it is spoken to, and what the two heads and their numbers tell."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import torch

from medmind.core.errors import DataError, UsageError
from medmind.export.parity.diagnose import Cause, Finding, Part, half_split, name_order, open_parts
from medmind.infer.llamacpp import LlamaCppGenerator
from medmind.prompts.chat import Renderer
from medmind.prompts.families import RENDERERS

FACTORS = "rope_freqs.weight"
COUNTS = {"attn_q": "llama.attention.head_count", "attn_k": "llama.attention.head_count_kv"}
"""Where the head says by how many heads the rows of a matrix are reordered."""


class FileTokenizer:
    """What a renderer asks of a tokenizer, answered by llama.cpp with the file's own vocabulary."""

    def __init__(self, engine: LlamaCppGenerator) -> None:
        self._engine, self.control = engine, engine.control
        self.vocab_size = engine.vocab_size
        self.blank = " " if engine.metadata.get("tokenizer.ggml.model") == "llama" else ""

    def encode(self, text: str) -> list[int]:
        return self._engine.encode(text)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        return self._engine.decode(ids)

    def decode_batch(self, rows: Sequence[Sequence[int]]) -> list[str]:
        return [self.decode(ids) for ids in rows]

    def token_id(self, name: str) -> int:
        if name not in self.control:
            raise DataError(f'the file has no control token "{name}"')
        return self.control[name]

    def token_text(self, token: int) -> str:
        return next((name for name, known in self.control.items() if known == token), self.decode([token]))


def renderer_of(engine: LlamaCppGenerator, file: Path) -> Renderer:
    """The one whose template the file holds, word for word."""
    tokenizer = FileTokenizer(engine)
    for name in RENDERERS:
        with suppress(DataError):  # of another family: its control tokens are not there
            renderer = RENDERERS.get(name)(tokenizer)
            if renderer.chat_template == engine.chat_template and renderer.stop_ids:
                return renderer
    raise UsageError(
        "its chat template is none that medmind writes, so it cannot be the reference",
        where=str(file),
        todo="compare each with the checkpoint it was made from, export/merged of its run",
    )


def find_differences(one: Path, other: Path, said: Mapping[str, str], theirs: Mapping[str, str]) -> Iterator[Finding]:
    """`said` and `theirs` are the keys of the two heads; the first file is right."""
    right, found = open_parts(one), open_parts(other)
    bases = [float(keys.get("llama.rope.freq_base", 10000.0)) for keys in (said, theirs)]
    if not math.isclose(*bases, rel_tol=1e-6):
        yield Finding(cause=Cause.ROPE_BASE, detail=f"the file says {bases[1]:g}, the other {bases[0]:g}")
    yield from compare_factors(right.get(FACTORS), found.get(FACTORS))
    rows = [tensors["token_embd.weight"].shape[0] for tensors in (right, found)]
    if rows[0] != rows[1]:
        yield Finding(cause=Cause.PADDED, detail=f"the file's embedding has {rows[1]} tokens, the other's {rows[0]}")
    counts = {part: int(said.get(key, said[COUNTS["attn_q"]])) for part, key in COUNTS.items()}
    for part, heads in counts.items():
        name = f"blk.0.{part}.weight"
        if name in found and found[name].shape == right[name].shape:
            values = right[name].values()
            yield from name_order(name, found[name].values(), values, half_split(values, heads), part, counts)


def compare_factors(right: Part | None, found: Part | None) -> Iterator[Finding]:
    if right is None and found is None:
        return
    if right is None or found is None:
        which = "the file does not hold it" if found is None else "the other file does not hold it"
        yield Finding(cause=Cause.ROPE_FREQS, detail=f"{FACTORS}: {which}")
    elif not torch.allclose(right.values(), found.values(), rtol=1e-4):
        yield Finding(cause=Cause.ROPE_FREQS, detail=f"{FACTORS} holds other factors than the other file's")
