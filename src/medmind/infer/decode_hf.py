"""Decoding with transformers: every conversation has a cache of its own; a base and its adapters share its weights."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import DynamicCache

from medmind.infer.slots import Slot, SlotDecoder
from medmind.models.adapters import FIRST
from medmind.models.load import add_adapter, load_base, load_tuned, pick_dtype
from medmind.models.spec import ModelSpec

BASE = "base"
"""The voice of the weights beneath the adapters."""


class HfDecoder(SlotDecoder):
    """`model` may be a PEFT model: its first adapter is voice "", others go by name, "base" is beneath them."""

    name = "transformers"
    version = f"{transformers.__version__}-torch-{torch.__version__}"
    can_embed = True

    def __init__(self, model: Any, slots: int, context: int) -> None:
        super().__init__(slots, model.config.vocab_size)
        self._model: Any = model.train(False)
        self.dtype = str(model.dtype).removeprefix("torch.")
        self.context = min(context, int(model.config.max_position_embeddings))

    @torch.inference_mode()
    def _read(self, slot: Slot, ids: Sequence[int], wanted: int) -> np.ndarray:
        if slot.state is None:
            slot.state = DynamicCache(config=self._model.config)
        with self._voice(slot.work.voice):
            output = self._model(
                input_ids=torch.tensor([list(ids)], device=self._model.device),
                past_key_values=slot.state,
                use_cache=True,
                logits_to_keep=max(wanted, 1),
            )
        logits: np.ndarray = output.logits[0].float().cpu().numpy()
        return logits

    @torch.inference_mode()
    def embed(self, ids: Sequence[int], voice: str = "") -> list[float]:
        """The mean of the last layer's states over the text."""
        tokens = torch.tensor([list(ids)], device=self._model.device)
        with self._voice(voice):
            states = self._model(
                input_ids=tokens, output_hidden_states=True, use_cache=False, logits_to_keep=1
            ).hidden_states[-1]
        vector = states[0].float().mean(0)
        found: list[float] = (vector / vector.norm()).tolist()
        return found

    def _voice(self, voice: str) -> Any:
        if voice == BASE:
            return self._model.disable_adapter()
        if getattr(self._model, "active_adapter", FIRST) != (voice or FIRST):
            self._model.set_adapter(voice or FIRST)
        return nullcontext()


def open_hf(spec: ModelSpec, trained: Sequence[Path], slots: int, context: int, dtype: str = "float32") -> HfDecoder:
    """The base, a whole checkpoint, or adapters over one base: the voices "", "2", "3", … in this order, and "base"."""
    precision = pick_dtype(dtype)
    model: Any = load_tuned(spec, trained[0], precision) if trained else load_base(spec, precision)
    for number, adapter in enumerate(trained[1:], start=2):
        add_adapter(model, spec, adapter, str(number))
    return HfDecoder(model.to("cuda" if torch.cuda.is_available() else "cpu"), slots, context)
