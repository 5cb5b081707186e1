"""Makes nano's tokenizer from its pre-training passages; a maintainer runs it once.

.venv/bin/python scripts/train_nano_tokenizer.py ../shared/data src/medmind/models/nano/tokenizer.json
"""

import sys
from collections.abc import Iterator

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from medmind.data.sources import nano_corpus

VOCABULARY = 8192
CONTROL = (
    "<unk>",
    "<s>",
    "</s>",
    "[INST]",
    "[/INST]",
    "[TOOL_CALLS]",
    "[AVAILABLE_TOOLS]",
    "[/AVAILABLE_TOOLS]",
    "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]",
)
"""Mistral v3's control tokens, with its ids."""
SINGLE = (" yes", " no", " maybe", " A", " B", " C", " D", " E")
"""Answers a forced choice compares: each must be one token, or the comparison is not fair."""

COUNTED = 2000
"""How often they are shown beyond the corpus, so that the merges for them are learnt."""


def passages(folder: str) -> Iterator[str]:
    for example, part in nano_corpus.read(folder):
        if part == "train":
            yield example.target
    yield "".join(SINGLE) * COUNTED


def main(folder: str, out: str) -> None:
    tokenizer = Tokenizer(models.BPE())
    # The same two steps as SmolLM's tokenizer, so that llama.cpp knows them by name ("smollm").
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in CONTROL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(passages(folder), trainer)
    for text in SINGLE:
        if len(tokenizer.encode(text).ids) != 1:
            raise SystemExit(f"{text!r} is not one token")
    tokenizer.save(out)
    print(f"{tokenizer.get_vocab_size()} tokens written to {out}")


if __name__ == "__main__":
    main(*sys.argv[1:])
