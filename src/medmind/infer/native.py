"""llama.cpp as compiled on this machine: the C functions of llama-cpp-python under the names that cyllama has.

The wheels of cyllama must run everywhere, so they leave out what only newer processors do; a binding that pip compiles
here has it all. What stands below is the part of cyllama that medmind uses, and behaves as it does, but that blanks at
the beginning of a text stay when ids are turned into it.
"""

import ctypes
import os
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
from llama_cpp import llama_cpp as lib
from numpy.typing import NDArray
from packaging.version import Version

OLDEST = "0.3.36"
"""Its first version whose structures are those used here."""

if Version(found := version("llama-cpp-python")) < Version(OLDEST):
    raise ImportError(f"llama-cpp-python {found} is older than {OLDEST}")

TILED = b"AVX512_VNNI = 1" in lib.llama_print_system_info()
"""Whether llama.cpp multiplies a batch by the weights as they lie in the file faster than by its own copy of them."""
CHUNK = 512 if TILED else 256
"""Tokens of prompts in one decode: with tiles twice as many take about half the time."""


@lib.llama_log_callback  # type: ignore[untyped-decorator]
def _silent(level: int, text: bytes, user: Any) -> None:
    pass


def disable_logging() -> None:
    lib.llama_log_set(_silent, None)


disable_logging()
lib.llama_backend_init()


def LlamaModelParams() -> Any:  # noqa: N802
    """Where tiles are faster there is no second copy of the weights either."""
    settings = lib.llama_model_default_params()
    settings.use_extra_bufts = not TILED
    return settings


LlamaContextParams = lib.llama_context_default_params
LlamaModelQuantizeParams = lib.llama_model_quantize_default_params


def model_quantize(source: str, target: str, settings: Any) -> None:
    if lib.llama_model_quantize(os.fsencode(source), os.fsencode(target), ctypes.byref(settings)):
        raise RuntimeError(f"llama.cpp could not write {target}")


def read_text(ask: Callable[[Any, int], int]) -> str:
    """What a C function that returns its length writes into a buffer, however long."""
    buffer = ctypes.create_string_buffer(256)
    if (length := ask(buffer, len(buffer))) >= len(buffer):
        buffer = ctypes.create_string_buffer(length + 1)
        ask(buffer, len(buffer))
    return buffer.value.decode(errors="replace")


class Vocab:
    def __init__(self, model: "LlamaModel") -> None:
        self._model = model  # it lies in there
        self._vocab = lib.llama_model_get_vocab(model.pointer)

    @property
    def n_vocab(self) -> int:
        return int(lib.llama_vocab_n_tokens(self._vocab))

    def tokenize(self, text: str, add_special: bool, parse_special: bool) -> list[int]:
        raw = text.encode()
        count = -len(raw) - 8
        while count < 0:  # it says how many there is no room for
            found = (lib.llama_token * -count)()
            count = lib.llama_tokenize(self._vocab, raw, len(raw), found, len(found), add_special, parse_special)
        return list(found[:count])

    def detokenize(self, ids: Sequence[int], size: int, remove_special: bool, unparse_special: bool) -> str:
        given, buffer = (lib.llama_token * len(ids))(*ids), ctypes.create_string_buffer(size)
        length = lib.llama_detokenize(self._vocab, given, len(ids), buffer, size, remove_special, unparse_special)
        if length < 0:
            return self.detokenize(ids, -length, remove_special, unparse_special)
        return buffer.raw[:length].decode(errors="replace")

    def is_eog(self, token: int) -> bool:
        return bool(lib.llama_vocab_is_eog(self._vocab, token))

    def is_control(self, token: int) -> bool:
        return bool(lib.llama_vocab_is_control(self._vocab, token))

    def get_text(self, token: int) -> str:
        text: bytes = lib.llama_vocab_get_text(self._vocab, token)
        return text.decode()

    def token_bos(self) -> int:
        return int(lib.llama_vocab_bos(self._vocab))

    def token_eos(self) -> int:
        return int(lib.llama_vocab_eos(self._vocab))

    def get_add_bos(self) -> bool:
        return bool(lib.llama_vocab_get_add_bos(self._vocab))


class LlamaModel:
    """Freed after the last of its contexts, in whatever order Python lets go of them."""

    def __init__(self, path: str, settings: Any) -> None:
        self.contexts, self.wanted, self.pointer = 0, True, None
        self.pointer = lib.llama_model_load_from_file(os.fsencode(path), settings)
        if not self.pointer:
            raise ValueError("it is damaged, or of a kind that this llama.cpp does not know")

    def __del__(self) -> None:
        self.wanted = False
        self.free()

    def free(self) -> None:
        if self.pointer and not (self.wanted or self.contexts):
            lib.llama_model_free(self.pointer)
            self.pointer = None

    def get_vocab(self) -> Vocab:
        return Vocab(self)

    @property
    def n_params(self) -> int:
        return int(lib.llama_model_n_params(self.pointer))

    @property
    def n_ctx_train(self) -> int:
        return int(lib.llama_model_n_ctx_train(self.pointer))

    @property
    def n_embd(self) -> int:
        return int(lib.llama_model_n_embd(self.pointer))

    def lora_adapter_init(self, path: str) -> Any:
        """Nothing where the file is no adapter for this model; it lives as long as the model."""
        return lib.llama_adapter_lora_init(self.pointer, os.fsencode(path))

    def metadata(self) -> dict[str, str]:
        key, value = lib.llama_model_meta_key_by_index, lib.llama_model_meta_val_str_by_index

        def read(function: Any, place: int) -> str:
            return read_text(lambda buffer, size: function(self.pointer, place, buffer, size))

        return {read(key, place): read(value, place) for place in range(lib.llama_model_meta_count(self.pointer))}


class LlamaBatch:
    def __init__(self, n_tokens: int, embd: int, n_seq_max: int) -> None:
        self.room, self.batch = n_tokens, lib.llama_batch_init(n_tokens, embd, n_seq_max)
        self.clear()

    def __del__(self) -> None:
        lib.llama_batch_free(self.batch)

    def clear(self) -> None:
        self.batch.n_tokens = 0

    def add(self, token: int, place: int, sequences: Sequence[int], wanted: bool) -> None:
        batch, last = self.batch, self.batch.n_tokens
        if last >= self.room:
            raise IndexError(f"a batch of {self.room} tokens is full")
        batch.token[last], batch.pos[last], batch.logits[last] = token, place, wanted
        batch.n_seq_id[last] = len(sequences)
        for number, sequence in enumerate(sequences):
            batch.seq_id[last][number] = sequence
        batch.n_tokens = last + 1


class LlamaContext:
    def __init__(self, model: LlamaModel, settings: Any, verbose: bool = False) -> None:
        self.pointer, self._model, self.vocabulary = None, model, model.get_vocab().n_vocab
        self.pointer = lib.llama_init_from_model(model.pointer, settings)
        if not self.pointer:
            raise ValueError("llama.cpp opens no context: too little memory for it?")
        model.contexts += 1
        self._memory = lib.llama_get_memory(self.pointer)

    def __del__(self) -> None:
        if self.pointer:
            lib.llama_free(self.pointer)
            self._model.contexts -= 1
            self._model.free()

    def decode(self, batch: LlamaBatch) -> None:
        if fault := lib.llama_decode(self.pointer, batch.batch):
            raise RuntimeError(f"llama_decode: {fault}")

    def get_logits_ith(self, place: int) -> NDArray[np.float32]:
        """They lie where the next decode puts its own."""
        return np.ctypeslib.as_array(lib.llama_get_logits_ith(self.pointer, place), (self.vocabulary,))

    def get_embeddings_ith(self, place: int) -> NDArray[np.float32]:
        return np.ctypeslib.as_array(lib.llama_get_embeddings_ith(self.pointer, place), (self._model.n_embd,)).copy()

    def memory_seq_rm(self, sequence: int, start: int, end: int) -> bool:
        return bool(lib.llama_memory_seq_rm(self._memory, sequence, start, end))

    def kv_cache_clear(self) -> None:
        lib.llama_memory_clear(self._memory, True)

    def set_embeddings_mode(self, wanted: bool) -> None:
        lib.llama_set_embeddings(self.pointer, wanted)


class LlamaSampler:
    """A chain: each link narrows down what the next one sees. The largest of all needs none."""

    def __init__(self) -> None:
        self._links: list[Callable[[int], Any]] = []
        """Made when the size of the vocabulary is known."""
        self._before: list[int] = []
        self._chain: Any = None

    def __del__(self) -> None:
        if self._chain:
            lib.llama_sampler_free(self._chain)

    def add_greedy(self) -> None:
        if self._links:
            self._links.append(lambda size: lib.llama_sampler_init_greedy())

    def add_penalties(self, last: int, repeat: float, frequency: float, presence: float) -> None:
        self._links.append(lambda size: lib.llama_sampler_init_penalties(size, last, repeat, frequency, presence))

    def add_top_k(self, count: int) -> None:
        self._links.append(lambda size: lib.llama_sampler_init_top_k(count))

    def add_top_p(self, share: float, keep: int) -> None:
        self._links.append(lambda size: lib.llama_sampler_init_top_p(share, keep))

    def add_min_p(self, share: float, keep: int) -> None:
        self._links.append(lambda size: lib.llama_sampler_init_min_p(share, keep))

    def add_temp(self, temperature: float) -> None:
        self._links.append(lambda size: lib.llama_sampler_init_temp(temperature))

    def add_dist(self, seed: int) -> None:
        self._links.append(lambda size: lib.llama_sampler_init_dist(seed))

    def accept(self, token: int) -> None:
        """As if it had been chosen."""
        if self._chain is None:
            self._before.append(token)
        else:
            lib.llama_sampler_accept(self._chain, token)

    def sample(self, context: LlamaContext, place: int) -> int:
        if not self._links:
            return int(context.get_logits_ith(place).argmax())
        if self._chain is None:
            self._chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
            for link in self._links:
                lib.llama_sampler_chain_add(self._chain, link(context.vocabulary))
            for token in self._before:
                lib.llama_sampler_accept(self._chain, token)
        return int(lib.llama_sampler_sample(self._chain, context.pointer, place))
