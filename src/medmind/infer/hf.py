"""Text and log-likelihoods from a transformers model: greedy, batched, and the same as one prompt at a time."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedModel

from medmind.core.protocols import Progress
from medmind.core.types import Completion
from medmind.infer.limits import check_rows, reply_limit


class HfGenerator:
    """`decode` turns the ids of a reply into its text; ids and text are without the stop id."""

    name = "transformers"

    def __init__(
        self,
        model: PreTrainedModel,
        stop_ids: Sequence[int],
        decode: Callable[[Sequence[int]], str],
        batch_size: int = 16,
    ) -> None:
        self._model: Any = model.train(False)
        self._stop_ids = frozenset(stop_ids)
        self._decode = decode
        self._batch_size = batch_size
        self.dtype = str(model.dtype).removeprefix("torch.")
        self.context = int(model.config.max_position_embeddings)

    def generate(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int, progress: Progress | None = None
    ) -> list[Completion]:
        """Longest prompts first, so that memory runs out at the start or not at all."""
        limits = [reply_limit(self.context, prompt, max_new_tokens) for prompt in prompts]
        order = sorted(range(len(prompts)), key=lambda place: -len(prompts[place]))
        done: dict[int, Completion] = {}
        for start in range(0, len(order), self._batch_size):
            places = order[start : start + self._batch_size]
            replies = self._continue([prompts[place] for place in places], [limits[place] for place in places])
            done |= dict(zip(places, replies, strict=True))
            if progress:
                progress(len(done), len(prompts))
        return [done[place] for place in range(len(prompts))]

    def log_likelihoods(self, rows: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[float]]:
        """Teacher-forced, log-softmax in float32, only the continuation's positions through the output layer."""
        check_rows(self.context, rows)
        order = sorted(range(len(rows)), key=lambda place: -len(rows[place][0]) - len(rows[place][1]))
        done: dict[int, list[float]] = {}
        for start in range(0, len(order), self._batch_size):
            places = order[start : start + self._batch_size]
            done |= dict(zip(places, self._judge([rows[place] for place in places]), strict=True))
        return [done[place] for place in range(len(rows))]

    @torch.inference_mode()
    def _continue(self, prompts: Sequence[Sequence[int]], limits: Sequence[int]) -> list[Completion]:
        """Left-padded, so that every reply grows at the right edge; a finished row leaves the batch at once."""
        device = self._model.device
        width = max(len(prompt) for prompt in prompts)
        ids = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=device)
        real = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        mask = torch.tensor(real, device=device)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        cache = DynamicCache(config=self._model.config)
        replies: list[list[int]] = [[] for _ in prompts]
        stops: list[int | None] = [None] * len(prompts)
        rows = list(range(len(prompts)))
        while rows:
            output = self._model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            following = output.logits[:, -1].argmax(-1)
            keep = []
            for place, (row, token) in enumerate(zip(rows, following.tolist(), strict=True)):
                if token in self._stop_ids:
                    stops[row] = token
                    continue
                replies[row].append(token)
                if len(replies[row]) < limits[row]:
                    keep.append(place)
            if len(keep) < len(rows):
                rows = [rows[place] for place in keep]
                chosen = torch.tensor(keep, device=device, dtype=torch.long)
                cache.batch_select_indices(chosen)
                following, mask, positions = following[chosen], mask[chosen], positions[chosen]
            ids = following[:, None]
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
            positions = positions[:, -1:] + 1
        return [
            Completion(text=self._decode(reply), ids=tuple(reply), stopped=stop is not None, stop_id=stop)
            for reply, stop in zip(replies, stops, strict=True)
        ]

    @torch.inference_mode()
    def _judge(self, rows: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[float]]:
        """Right-padded without a mask: under causal attention the padding comes too late to be seen."""
        full = [[*context, *continuation][:-1] for context, continuation in rows]
        width = max(len(row) for row in full)
        ids = torch.tensor([row + [0] * (width - len(row)) for row in full], device=self._model.device)
        hidden = self._model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
        head = self._model.get_output_embeddings()
        found = []
        for states, (context, continuation) in zip(hidden, rows, strict=True):
            start = len(context) - 1
            logits = head(states[start : start + len(continuation)]).float()
            wanted = torch.tensor(list(continuation), device=logits.device)[:, None]
            found.append((logits.gather(1, wanted)[:, 0] - logits.logsumexp(1)).tolist())
        return found
