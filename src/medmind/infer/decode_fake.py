"""A decoder without a model: what it says and how probable it finds everything follow from the prompt alone."""

import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from medmind.core.protocols import Tokenizer
from medmind.infer.decoder import Work
from medmind.infer.slots import Slot, SlotDecoder


class FakeDecoder(SlotDecoder):
    """`write` gives the reply to a prompt's text; after it comes `stop_id`. `asked` keeps the ids that arrived."""

    name = "fake"
    dtype = "float32"
    can_embed = True

    def __init__(
        self, tokenizer: Tokenizer, write: Callable[[str], str], stop_id: int, *, slots: int = 4, context: int = 1024
    ) -> None:
        super().__init__(slots, tokenizer.vocab_size)
        self.context = context
        self.asked: list[tuple[int, ...]] = []
        self._tokenizer, self._write, self._stop_id = tokenizer, write, stop_id

    def begin(self, slot: int, work: Work) -> None:
        super().begin(slot, work)
        self.asked.append(work.prompt)
        reply = self._write(self._tokenizer.decode(work.prompt))
        self._underway[slot].state = [*self._tokenizer.encode(reply), self._stop_id]

    def embed(self, ids: Sequence[int], voice: str = "") -> list[float]:
        vector = noise(ids, 8)
        return [float(part) for part in vector / np.linalg.norm(vector)]

    def _read(self, slot: Slot, ids: Sequence[int], wanted: int) -> np.ndarray:
        end = slot.read + len(ids)
        rows = [noise(slot.ids[: place + 1], self._tokenizer.vocab_size) for place in range(end - wanted, end)]
        if end >= len(slot.work.prompt) and rows:
            said = slot.state[min(len(slot.written), len(slot.state) - 1)]
            rows[-1][said] = rows[-1].max() + 1
        return np.array(rows)


def noise(ids: Sequence[int], size: int) -> np.ndarray:
    """The same numbers for the same ids, on every machine."""
    seed = hashlib.sha256(b",".join(b"%d" % token for token in ids)).digest()[:8]
    return np.random.default_rng(int.from_bytes(seed, "big")).standard_normal(size, dtype=np.float32)
