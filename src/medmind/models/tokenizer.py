"""`tokenizer.json` through the tokenizers library, without transformers or torch."""

from collections.abc import Sequence
from pathlib import Path

import tokenizers

from medmind.core.errors import DataError, EnvironmentFault
from medmind.models.spec import ModelSpec


class JsonTokenizer:
    """A Hugging Face fast tokenizer whose `encode` never makes a control token out of text."""

    def __init__(self, file: Path) -> None:
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises bare Exception for a damaged file
            raise DataError(f"not a tokenizer file: {error}", where=str(file)) from None
        self._tokenizer.encode_special_tokens = True
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.vocab_size = self._tokenizer.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    def token_id(self, name: str) -> int:
        token: int | None = self._tokenizer.token_to_id(name)
        if token is None:
            raise DataError(f'the tokenizer has no control token "{name}"', todo="choose a model of another family")
        return token

    def token_text(self, token: int) -> str:
        text: str = self._tokenizer.decode([token], skip_special_tokens=False)
        return text


def open_tokenizer(spec: ModelSpec) -> JsonTokenizer:
    return JsonTokenizer(find_file(spec, "tokenizer.json"))


def find_file(spec: ModelSpec, name: str) -> Path:
    """A file of the model's folder, or from the Hub for a model the user named there."""
    if spec.local:
        return Path(spec.source) / name
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(spec.source, name))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise EnvironmentFault(
            f"cannot fetch {name} of {spec.source}: {str(error).rstrip('.')}",
            todo="check the network, or name a local folder",
        ) from None
