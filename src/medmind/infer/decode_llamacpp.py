"""Continuous batching with llama.cpp: one context, one sequence a slot, everyone's next tokens in one decode."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medmind.core.protocols import Tokenizer
from medmind.infer.decoder import Judged, Sampling, Step, Work, judge
from medmind.infer.llamacpp import (
    FILE_TYPES,
    SMALL_MODEL,
    check_tokenizer,
    library_version,
    load_library,
    load_model,
    set_precision,
)
from medmind.infer.slots import LOGITS, judge_prompt

CHUNK = 256
"""Tokens of prompts in one decode, beside one token of everyone who is writing; a fast binding says its own."""


@dataclass
class Growing:
    """A slot at work: `pending` is what the model has not seen yet, `seen` how many it has."""

    work: Work
    sampler: Any
    pending: list[int]
    seen: int = 0

    @property
    def reading(self) -> bool:
        return self.seen < len(self.work.prompt)


class LlamaCppDecoder:
    name = "llama.cpp"
    can_embed = can_judge = takes_ids = True

    def __init__(
        self, path: Path, slots: int, context: int, threads: int | None = None, tokenizer: Tokenizer | None = None
    ) -> None:
        """The file must make the ids that `tokenizer` makes, if one is given."""
        self._library, self.version = load_library(), library_version()
        self._model = load_model(self._library, path)
        if tokenizer:
            check_tokenizer(self._model, tokenizer, path)
        self.dtype = FILE_TYPES.get(self._model.metadata().get("general.file_type", ""), "quantised")
        self.slots, self.context = slots, min(context, self._model.n_ctx_train)
        wanted = 1 if self._model.n_params < SMALL_MODEL else os.cpu_count() or 1
        self._threads = threads or wanted
        self._chunk: int = getattr(self._library, "CHUNK", CHUNK)
        self._session = self._open_session(slots)
        self._batch = self._library.LlamaBatch(n_tokens=self._chunk + slots, embd=0, n_seq_max=1)
        self._echo_chunk = max(16, min(self._chunk, LOGITS // self._model.n_vocab))
        self._underway: dict[int, Growing] = {}
        self._embedder: Any = None

    def _open_session(self, slots: int, embeddings: bool = False) -> Any:
        settings = self._library.LlamaContextParams()
        settings.n_ctx, settings.n_seq_max = self.context * slots, slots
        settings.n_batch = self._chunk + slots
        settings.n_threads = settings.n_threads_batch = self._threads
        settings.pooling_type = 0
        set_precision(settings, self.dtype)
        session = self._library.LlamaContext(self._model, settings, verbose=False)
        session.set_embeddings_mode(embeddings)
        return session

    def begin(self, slot: int, work: Work) -> None:
        self._session.memory_seq_rm(slot, -1, -1)
        sampler = self._sampler(work.sampling)
        if work.sampling.penalises:
            for token in work.prompt[-work.sampling.repeat_last_n :]:
                sampler.accept(token)
        self._underway[slot] = Growing(work, sampler, list(work.prompt))

    def drop(self, slot: int) -> None:
        if self._underway.pop(slot, None):
            self._session.memory_seq_rm(slot, -1, -1)

    def embed(self, ids: Sequence[int], voice: str = "") -> list[float]:
        """The mean of the last layer's states over the text, from a context of its own, made when first asked."""
        if self._embedder is None:
            self._embedder = self._open_session(slots=1, embeddings=True)
        self._embedder.kv_cache_clear()
        total = np.zeros(self._model.n_embd)
        for start in range(0, len(ids), self._chunk):
            part = ids[start : start + self._chunk]
            self._batch.clear()
            for offset, token in enumerate(part):
                self._batch.add(token, start + offset, [0], True)
            self._embedder.decode(self._batch)
            total += np.sum([self._embedder.get_embeddings_ith(place) for place in range(len(part))], axis=0)
        found: list[float] = (total / np.linalg.norm(total)).tolist()
        return found

    def step(self) -> list[Step]:
        if not self._underway:
            return []
        self._batch.clear()
        laid = self._lay_out()
        self._session.decode(self._batch)
        return [self._collect(slot, first, count) for slot, first, count in laid]

    def _lay_out(self) -> list[tuple[int, int, int]]:
        """Fills the batch; (slot, place of its first token in the batch, how many) of all that take part.

        Writers come first; what room is left goes to prompts, the shortest rest first.
        """
        room, place, laid = self._chunk, 0, []
        order = sorted(self._underway.items(), key=lambda pair: (pair[1].reading, len(pair[1].pending), pair[0]))
        for slot, one in order:
            limit = self._echo_chunk if one.work.echo else self._chunk
            count = min(len(one.pending), limit, room) if one.reading else 1
            if not count:
                continue
            room -= count if one.reading else 0
            for offset, token in enumerate(one.pending[:count]):
                last = offset == len(one.pending) - 1
                self._batch.add(token, one.seen + offset, [slot], last or (one.work.echo and one.reading))
            laid.append((slot, place, count))
            place += count
        return laid

    def _collect(self, slot: int, first: int, count: int) -> Step:
        one, step = self._underway[slot], Step(slot)
        if one.work.echo and one.reading:
            step.read = judge_prompt(one.work, one.seen, [self._logits(first + offset) for offset in range(count)])
        one.seen += count
        one.pending = one.pending[count:]
        if not one.pending:
            place = first + count - 1
            token: int = one.sampler.sample(self._session, place)
            top = one.work.top_logprobs
            step.new = Judged(token) if top is None else judge(self._logits(place), token, top)
            one.pending = [token]
        return step

    def _logits(self, place: int) -> np.ndarray:
        return np.array(self._session.get_logits_ith(place), dtype=np.float32)

    def _sampler(self, wanted: Sampling) -> Any:
        sampler = self._library.LlamaSampler()
        if wanted.penalises:
            sampler.add_penalties(
                wanted.repeat_last_n, wanted.repeat_penalty, wanted.frequency_penalty, wanted.presence_penalty
            )
        if wanted.temperature <= 0:
            sampler.add_greedy()
            return sampler
        sampler.add_top_k(wanted.top_k)
        sampler.add_top_p(wanted.top_p, 1)
        sampler.add_min_p(wanted.min_p, 1)
        sampler.add_temp(wanted.temperature)
        seed = int.from_bytes(os.urandom(4), "big") if wanted.seed is None else wanted.seed & 0xFFFFFFFF
        sampler.add_dist(seed)
        return sampler
