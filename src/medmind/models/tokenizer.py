"""`tokenizer.json` through the tokenizers library, without transformers or torch."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tokenizers

from medmind.core.errors import DataError
from medmind.core.jsonl import read_json
from medmind.models.files import find_file
from medmind.models.spec import ModelSpec


class JsonTokenizer:
    """A Hugging Face fast tokenizer whose `encode` never makes a control token out of text."""

    def __init__(self, file: Path) -> None:
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises bare Exception for a damaged file
            raise DataError(f"not a tokenizer file: {error}", where=str(file)) from None
        self.blank = ""
        if getattr(self._tokenizer.model, "byte_fallback", False):
            self.blank = " "
            self._tokenizer = without_own_blank(file)
        self._tokenizer.encode_special_tokens = True
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.vocab_size = self._tokenizer.get_vocab_size()
        self.word_count = self._tokenizer.get_vocab_size(with_added_tokens=False)
        """Without tokens that were added later, which a text cannot give and a model need not have."""
        added = self._tokenizer.get_added_tokens_decoder()
        self.control = {one.content: token for token, one in added.items() if one.special}
        self._refuse_look_alikes(file)

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [found.ids for found in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    def decode(self, ids: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    def decode_batch(self, rows: Sequence[Sequence[int]]) -> list[str]:
        texts: list[str] = self._tokenizer.decode_batch([list(ids) for ids in rows], skip_special_tokens=True)
        return texts

    def token_id(self, name: str) -> int:
        token: int | None = self._tokenizer.token_to_id(name)
        if token is None:
            raise DataError(f'the tokenizer has no control token "{name}"', todo="choose a model of another family")
        return token

    def token_text(self, token: int) -> str:
        text: str = self._tokenizer.decode([token], skip_special_tokens=False)
        return text

    def _refuse_look_alikes(self, file: Path) -> None:
        """`encode` gives text only, whatever merges the file holds."""
        known = set(self.control.values())
        for name, ids in zip(self.control, self.encode_batch(list(self.control)), strict=True):
            if known & set(ids):
                raise DataError(f'its merges make a control token of the text "{name}"', where=str(file))


def without_own_blank(file: Path) -> Any:
    """A converted SentencePiece tokenizer that adds no blank to what it encodes and takes none from what it decodes.

    Published files lay it before the whole text, before every part, or nowhere; renderers say it where it belongs.
    """
    whole = read_json(file)
    whole |= {name: spell_out(whole.get(name)) for name in ("normalizer", "pre_tokenizer", "decoder")}
    return tokenizers.Tokenizer.from_str(json.dumps(whole))


def spell_out(part: dict[str, Any] | None) -> dict[str, Any] | None:
    if part is None or part["type"] in ("Prepend", "Strip"):
        return None
    if part["type"] == "Metaspace":
        return part | {"prepend_scheme": "never"}
    if part["type"] == "Sequence":
        (name,) = part.keys() - {"type"}
        return part | {name: [kept for one in part[name] if (kept := spell_out(one))]}
    return part


def open_tokenizer(spec: ModelSpec) -> JsonTokenizer:
    file = find_file(spec, "tokenizer.json")
    tokenizer = JsonTokenizer(file)
    if tokenizer.word_count > spec.shape.vocab_size:
        what = f"{tokenizer.word_count:,} tokens, where {spec.id} has {spec.shape.vocab_size:,} embeddings"
        raise DataError(what, where=str(file), todo="it is of another model: fetch its own")
    return tokenizer
