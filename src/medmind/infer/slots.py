"""Decoding for engines that hand out logits: slots, chunks of the prompt, sampling; one slot after the other."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from medmind.infer.decoder import Judged, Sampling, Step, Work, judge

CHUNK = 256
"""Tokens of a prompt that are read in one step: others wait no longer than that."""
LOGITS = 1 << 24
"""Most logits kept at a time when a prompt is judged: 64 MiB."""


@dataclass
class Slot:
    work: Work
    rng: np.random.Generator
    ids: list[int]
    """The prompt, then what was written."""
    read: int = 0
    """How many of them the engine has seen."""
    state: Any = None
    """The engine's own, such as its cache."""
    written: list[int] = field(default_factory=list)


class SlotDecoder(ABC):
    """`_read` is all an engine has to know."""

    name: str
    version = ""
    dtype: str
    context: int
    can_embed = False
    can_judge = takes_ids = True

    def __init__(self, slots: int, vocab_size: int) -> None:
        self.slots = slots
        self._echo_chunk = max(16, min(CHUNK, LOGITS // vocab_size))
        self._underway: dict[int, Slot] = {}

    @abstractmethod
    def _read(self, slot: Slot, ids: Sequence[int], wanted: int) -> np.ndarray:
        """Takes `ids` in after what the slot has read; the logits after each of the last `wanted` of them."""

    def begin(self, slot: int, work: Work) -> None:
        self._underway[slot] = Slot(work, np.random.default_rng(work.sampling.seed), list(work.prompt))

    def drop(self, slot: int) -> None:
        self._underway.pop(slot, None)

    def step(self) -> list[Step]:
        return [self._advance(number, slot) for number, slot in sorted(self._underway.items())]

    def embed(self, ids: Sequence[int], voice: str = "") -> list[float]:
        raise NotImplementedError

    def _advance(self, number: int, slot: Slot) -> Step:
        work, step = slot.work, Step(number)
        chunk = slot.ids[slot.read : slot.read + (self._echo_chunk if work.echo else CHUNK)]
        whole = slot.read + len(chunk) == len(slot.ids)
        judging = work.echo and not slot.written
        wanted = len(chunk) if judging else int(whole)
        logits = self._read(slot, chunk, wanted)
        if judging:
            step.read = judge_prompt(work, slot.read, logits)
        slot.read += len(chunk)
        if whole:
            step.new = self._pick(slot, logits[-1])
        return step

    def _pick(self, slot: Slot, logits: np.ndarray) -> Judged:
        sampling, top = slot.work.sampling, slot.work.top_logprobs
        token = choose(logits, sampling, slot.ids[-sampling.repeat_last_n :], slot.rng)
        slot.written.append(token)
        slot.ids.append(token)
        return Judged(token) if top is None else judge(logits, token, top)


def judge_prompt(work: Work, start: int, logits: Sequence[np.ndarray] | np.ndarray) -> list[Judged]:
    """The prompt's tokens that these rows tell of: row i stands after token `start + i`; the first has no row."""
    found = [Judged(work.prompt[0])] if start == 0 else []
    following = work.prompt[start + 1 : start + 1 + len(logits)]
    top = work.top_logprobs or 0
    return found + [judge(np.asarray(row), token, top) for row, token in zip(logits, following, strict=False)]


def choose(logits: np.ndarray, sampling: Sampling, before: Sequence[int], rng: np.random.Generator) -> int:
    """Penalties, then top-k, top-p, min-p, then the temperature: the order of llama.cpp."""
    raw = penalised(logits.astype(np.float64), sampling, before)
    if sampling.temperature <= 0:
        return int(raw.argmax())
    order = np.argsort(-raw, kind="stable")
    if sampling.top_k:
        order = order[: sampling.top_k]
    weights = np.exp(raw[order] - raw[order[0]])
    shares = weights / weights.sum()
    keep = max(int(np.searchsorted(shares.cumsum(), sampling.top_p)) + 1, 1)
    kept = order[:keep][shares[:keep] >= sampling.min_p * shares[0]]
    with np.errstate(over="ignore"):  # of next to no temperature
        heated = np.exp((raw[kept] - raw[kept[0]]) / sampling.temperature)
    return int(rng.choice(kept, p=heated / heated.sum()))


def penalised(raw: np.ndarray, sampling: Sampling, before: Sequence[int]) -> np.ndarray:
    if not sampling.penalises:
        return raw
    for token, count in Counter(before).items():
        raw[token] *= sampling.repeat_penalty if raw[token] <= 0 else 1 / sampling.repeat_penalty
        raw[token] -= count * sampling.frequency_penalty + sampling.presence_penalty
    return raw
