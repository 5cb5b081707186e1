"""Text and log-likelihoods from a GGUF through llama.cpp (cyllama, or native.py): what people will run, run here."""

import importlib
import os
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmind.core.errors import DataError, EnvironmentFault
from medmind.core.protocols import Progress, Tokenizer
from medmind.core.types import Completion
from medmind.infer.limits import PROBE, check_rows, reply_limit

FILE_TYPES = {"0": "f32", "1": "f16", "7": "q8_0", "15": "q4_k_m", "17": "q5_k_m", "18": "q6_k", "32": "bf16"}
"""general.file_type as a file name says it."""
CACHE_F32, CACHE_F16 = 0, 1
BINDINGS = {"llama_cpp": "medmind.infer.native", "cyllama": "cyllama.llama.llama_cpp"}
"""The packages, the better first, and the modules that have cyllama's names."""
SMALL_MODEL = 100_000_000
"""Parameters below which one thread is as fast: llama.cpp's threads spin, so on a busy machine a second costs 60×."""


def has_library() -> bool:
    """Whether a binding is here; one that is here and does not load is an error."""
    return find_library()[0] is not None


def load_library() -> Any:
    """The low-level module of the best binding here, with llama.cpp's own log switched off."""
    library, missing = find_library()
    if library is None:
        raise EnvironmentFault(
            f"llama.cpp is not here ({missing})", todo='install it with: pip install "medmind[llamacpp]"'
        )
    return library


def library_version() -> str:
    """The binding's: each has a llama.cpp of its own."""
    package = "cyllama" if "cyllama" in load_library().__name__ else "llama-cpp-python"
    return f"{package}-{version(package)}"


@cache
def find_library() -> tuple[Any, str]:
    """It, or why there is none."""
    missing = []
    for package, module in BINDINGS.items():
        try:
            library = importlib.import_module(module)
        except ImportError as error:
            missing.append(str(error))
        except (OSError, RuntimeError) as error:
            todo = f"install it again, or uninstall it and use the other: {', '.join(BINDINGS)}"
            raise EnvironmentFault(f"the binding {package} does not load: {error}", todo=todo) from None
        else:
            library.disable_logging()
            return library, ""
    return None, "; ".join(missing)


class LlamaCppGenerator:
    """One sequence at a time with an empty cache, so that a reply depends on its prompt alone."""

    name = "llama.cpp"

    def __init__(self, path: Path, stop_ids: Sequence[int], context: int, threads: int | None = None) -> None:
        library = load_library()
        self._model = load_model(library, path)
        self._vocab = self._model.get_vocab()
        self.metadata: dict[str, str] = self._model.metadata()
        self.dtype = FILE_TYPES.get(self.metadata.get("general.file_type", ""), "quantised")
        self.chat_template: str = self.metadata.get("tokenizer.chat_template", "")
        self.bos_id, self.eos_id = self._vocab.token_bos(), self._vocab.token_eos()
        self.bos, self.eos = (self._vocab.get_text(token) if token >= 0 else "" for token in (self.bos_id, self.eos_id))
        self.adds_bos: bool = self._vocab.get_add_bos()
        self.context = context
        self._stop_ids = frozenset(stop_ids)
        settings = library.LlamaContextParams()
        settings.n_ctx = settings.n_batch = context
        wanted = 1 if self._model.n_params < SMALL_MODEL else os.cpu_count() or 1
        settings.n_threads = settings.n_threads_batch = threads or wanted
        set_precision(settings, self.dtype)
        self._session = library.LlamaContext(self._model, settings, verbose=False)
        self._batch = library.LlamaBatch(n_tokens=context, embd=0, n_seq_max=1)
        self._sampler = library.LlamaSampler()
        self._sampler.add_greedy()

    def generate(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int, progress: Progress | None = None
    ) -> list[Completion]:
        limits = [reply_limit(self.context, prompt, max_new_tokens) for prompt in prompts]
        completions = []
        for prompt, limit in zip(prompts, limits, strict=True):
            completions.append(self._continue(prompt, limit))
            if progress:
                progress(len(completions), len(prompts))
        return completions

    def log_likelihoods(self, rows: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[float]]:
        """Teacher-forced, log-softmax of the raw logits in float64."""
        check_rows(self.context, rows)
        return [self._judge(context, continuation) for context, continuation in rows]

    def logits(self, ids: Sequence[int], first: int) -> NDArray[np.float32]:
        """After each of these tokens from place `first` on: (len(ids) - first, vocabulary)."""
        self._session.kv_cache_clear()
        self._decode(ids, 0, first)
        places = range(first, len(ids))
        return np.stack([np.array(self._session.get_logits_ith(place), dtype=np.float32) for place in places])

    def encode(self, text: str) -> list[int]:
        """Text alone: no BOS, and what looks like a control token stays text."""
        ids: list[int] = self._vocab.tokenize(text, False, False)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        text: str = self._vocab.detokenize(list(ids), 16 * len(ids) + 16, True, False)
        return text

    def ends(self, token: int) -> bool:
        """Whether every user of llama.cpp stops here, whatever the stops it was told."""
        return bool(self._vocab.is_eog(token))

    @property
    def vocab_size(self) -> int:
        return int(self._vocab.n_vocab)

    @property
    def control(self) -> dict[str, int]:
        """The control tokens by name."""
        every = range(self.vocab_size)
        return {self._vocab.get_text(token): token for token in every if self._vocab.is_control(token)}

    def encode_template(self, text: str) -> list[int]:
        """The ids a server makes of a rendered template without BOS: control tokens are read, BOS is added."""
        ids: list[int] = self._vocab.tokenize(text, True, True)
        return ids

    def stream(self, prompt: Sequence[int], max_new_tokens: int) -> Iterator[int]:
        """Greedy, as they come; a reply that ends by itself gives the stop id last."""
        limit = reply_limit(self.context, prompt, max_new_tokens)
        self._session.kv_cache_clear()
        self._decode(prompt, 0, len(prompt) - 1)
        for written in range(1, limit + 1):
            token = int(self._sampler.sample(self._session, -1))
            yield token
            if token in self._stop_ids:
                return
            if written < limit:
                self._decode([token], len(prompt) + written - 1, 0)

    def _continue(self, prompt: Sequence[int], limit: int) -> Completion:
        *reply, last = self.stream(prompt, limit)
        if last in self._stop_ids:
            return Completion(text=self._read(reply), ids=tuple(reply), stopped=True, stop_id=last)
        return Completion(text=self._read([*reply, last]), ids=(*reply, last), stopped=False)

    def _judge(self, context: Sequence[int], continuation: Sequence[int]) -> list[float]:
        self._session.kv_cache_clear()
        first = len(context) - 1
        self._decode([*context, *continuation][:-1], 0, first)
        found = []
        for place, token in enumerate(continuation, start=first):
            logits = np.array(self._session.get_logits_ith(place), dtype=np.float64)
            found.append(float(logits[token] - np.logaddexp.reduce(logits)))
        return found

    def _decode(self, ids: Sequence[int], start: int, first_wanted: int) -> None:
        """Logits are kept from the `first_wanted` of these tokens on."""
        self._batch.clear()
        for place, token in enumerate(ids):
            self._batch.add(token, start + place, [0], place >= first_wanted)
        self._session.decode(self._batch)

    def _read(self, ids: Sequence[int]) -> str:
        return self.decode(ids).strip()


def load_model(library: Any, path: Path) -> Any:
    class Model(library.LlamaModel):  # type: ignore[misc]
        @property
        def n_vocab(self) -> int:
            """cyllama 0.2.18 reads this in get_logits_ith and does not have it."""
            size: int = self.get_vocab().n_vocab
            return size

    if not path.is_file():
        raise DataError("no such file", where=str(path), todo="run the export stage first")
    try:
        return Model(str(path), library.LlamaModelParams())
    except (ValueError, RuntimeError, OSError) as error:
        raise DataError(f"llama.cpp cannot load the file: {error}", where=str(path), todo="export it again") from None


def set_precision(settings: Any, dtype: str) -> None:
    """A float32 file has a float32 cache and plain attention; the others float16 and the fused, a tenth faster."""
    exact = dtype == "f32"
    settings.type_k = settings.type_v = CACHE_F32 if exact else CACHE_F16
    settings.flash_attn_type = 0 if exact else 1


def check_tokenizer(model: Any, tokenizer: Tokenizer, path: Path) -> None:
    """Whether the file makes the ids of a text that this tokenizer makes: else all it hears is noise."""
    vocab = model.get_vocab()
    same = list(vocab.tokenize(PROBE, False, False)) == tokenizer.encode(tokenizer.blank + PROBE)
    if not same or vocab.n_vocab < tokenizer.vocab_size:
        raise DataError("its tokenizer is another than the model's", where=str(path), todo="--set model=NAME")
