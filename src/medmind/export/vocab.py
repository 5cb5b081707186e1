"""A byte-level BPE tokenizer.json in the words of GGUF."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf

from medmind.core.errors import UsageError
from medmind.core.jsonl import read_json

SMOLLM = {
    "type": "Sequence",
    "pretokenizers": [
        {"type": "Digits", "individual_digits": True},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    ],
}
PRE_TOKENIZERS = {"smollm": SMOLLM}
"""llama.cpp's name of a way to cut text into words, and the same as tokenizer.json declares it."""


@dataclass(frozen=True)
class Vocabulary:
    """Tokens in the order of their ids, with llama.cpp's type of each; merges are two pieces with a space between."""

    pre: str
    tokens: list[str]
    types: list[int]
    merges: list[str]

    def write(self, writer: gguf.GGUFWriter) -> None:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        writer.add_token_merges(self.merges)


def read_vocabulary(file: Path, size: int) -> Vocabulary:
    """`size` is the number of rows of the embedding; ids the tokenizer leaves free become unused tokens."""
    tokenizer = read_json(file)
    model = tokenizer["model"]
    if model["type"] != "BPE" or model.get("byte_fallback") or tokenizer.get("normalizer") is not None:
        raise UsageError(
            f"export knows byte-level BPE tokenizers only, this is {model['type']} with byte fallback or a normaliser",
            where=str(file),
            todo="SentencePiece tokenizers (Mistral 7B, Llama 2) are not supported yet",
        )
    ids: dict[str, int] = model["vocab"] | {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    by_id = {token: text for text, token in ids.items()}
    if max(by_id) >= size:
        raise UsageError(
            f"the tokenizer has ids up to {max(by_id)}, the model only {size} rows",
            where=str(file),
            todo="use the tokenizer the model was trained with",
        )
    added = {token["id"]: token["special"] for token in tokenizer["added_tokens"]}
    return Vocabulary(
        pre=find_pre_tokenizer(tokenizer["pre_tokenizer"], file),
        tokens=[by_id.get(token, f"[PAD{token}]") for token in range(size)],
        types=[int(token_type(token, by_id, added)) for token in range(size)],
        merges=[merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]],
    )


def find_pre_tokenizer(declared: Any, file: Path) -> str:
    for name, known in PRE_TOKENIZERS.items():
        if declared == known:
            return name
    raise UsageError(
        f"no llama.cpp name is known for the pre-tokeniser {json.dumps(declared)}",
        where=str(file),
        todo=f"known: {', '.join(PRE_TOKENIZERS)}",
    )


def token_type(token: int, by_id: dict[int, str], added: dict[int, bool]) -> gguf.TokenType:
    if token not in by_id:
        return gguf.TokenType.UNUSED
    if token not in added:
        return gguf.TokenType.NORMAL
    return gguf.TokenType.CONTROL if added[token] else gguf.TokenType.USER_DEFINED
