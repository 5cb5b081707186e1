"""Text and log-likelihoods from a transformers model: greedy, batched, and the same as one prompt at a time."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import DynamicCache, PreTrainedModel

from medmind.core.protocols import Progress
from medmind.core.types import Completion
from medmind.infer.decoder import Sampling
from medmind.infer.limits import check_rows, reply_limit
from medmind.infer.reading import read
from medmind.infer.slots import choose

HEAD_LINES = 512
"""Positions that go through the output layer at once: with a vocabulary of 128,000, a quarter of a gigabyte."""

CPU_IDS = 1024
"""Ids read at once on a CPU, where larger batches fall out of its caches: nano then needs a third more time."""
Pick = Callable[[Sequence[int], torch.Tensor], list[int]]
"""The next token of each of these prompts, by their places, out of a line of logits each."""
Pass = tuple[tuple[int, ...], list[int]]
"""Ids to be read, and the rows they are read for."""


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
        if getattr(model, "is_loaded_in_4bit", False):
            self.dtype = f"nf4, {self.dtype}"
        self.context = int(model.config.max_position_embeddings)

    def generate(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int, progress: Progress | None = None
    ) -> list[Completion]:
        return self._write(prompts, max_new_tokens, lambda _, logits: logits.argmax(-1).tolist(), progress)

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        temperature: float,
        seeds: Sequence[int],
        progress: Progress | None = None,
    ) -> list[Completion]:
        """Each prompt draws from a source of its own, so that no neighbour in the batch changes it."""
        draws, wanted = [np.random.default_rng(seed) for seed in seeds], Sampling(temperature=temperature)

        def pick(places: Sequence[int], logits: torch.Tensor) -> list[int]:
            lines = logits.float().cpu().numpy()
            return [choose(line, wanted, (), draws[place]) for place, line in zip(places, lines, strict=True)]

        return self._write(prompts, max_new_tokens, pick, progress)

    def _write(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int, pick: Pick, progress: Progress | None
    ) -> list[Completion]:
        """Longest prompts first, so that memory runs out at the start or not at all."""
        limits = [reply_limit(self.context, prompt, max_new_tokens) for prompt in prompts]
        order = sorted(range(len(prompts)), key=lambda place: -len(prompts[place]))
        done: dict[int, Completion] = {}
        for start in range(0, len(order), self._batch_size):
            places = order[start : start + self._batch_size]
            replies = self._continue(places, prompts, limits, pick)
            done |= dict(zip(places, replies, strict=True))
            if progress:
                progress(len(done), len(prompts))
        return [done[place] for place in range(len(prompts))]

    def log_likelihoods(self, rows: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[float]]:
        """Teacher-forced, log-softmax in float32, only the continuations' positions through the output layer.

        What one pass can tell is read off one pass: the answers of a forced choice share their context.
        """
        check_rows(self.context, rows)
        shared: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for place, (context, continuation) in enumerate(rows):
            shared[(*context, *continuation)[:-1]].append(place)
        passes: list[Pass] = []
        for ids in sorted(shared, reverse=True):
            if passes and passes[-1][0][: len(ids)] == ids:
                passes[-1][1].extend(shared[ids])
            else:
                passes.append((ids, shared[ids]))
        done: dict[int, list[float]] = {}
        on_cpu = self._model.device.type == "cpu"
        budget = CPU_IDS if on_cpu else self._batch_size * max((len(ids) for ids, _ in passes), default=0)
        for batch in batches(passes, budget):
            done |= self._judge([ids for ids, _ in batch], [[(place, *rows[place]) for place in p] for _, p in batch])
        return [done[place] for place in range(len(rows))]

    @torch.inference_mode()
    def logits(self, ids: Sequence[int], first: int) -> NDArray[np.float32]:
        """After each of these tokens from place `first` on: (len(ids) - first, vocabulary)."""
        read = torch.tensor([list(ids)], device=self._model.device)
        hidden = self._model.get_decoder()(input_ids=read, use_cache=False).last_hidden_state[0, first:]
        found: NDArray[np.float32] = self._model.get_output_embeddings()(hidden).float().cpu().numpy()
        return found

    @torch.inference_mode()
    def _continue(
        self, places: Sequence[int], prompts: Sequence[Sequence[int]], limits: Sequence[int], pick: Pick
    ) -> list[Completion]:
        """The prompts at these places, left-padded, so that every reply grows at the right edge; a finished row leaves
        the batch at once.
        """
        prompts, limits = [prompts[place] for place in places], [limits[place] for place in places]
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
            tokens = pick([places[row] for row in rows], output.logits[:, -1])
            keep = []
            for place, (row, token) in enumerate(zip(rows, tokens, strict=True)):
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
                mask, positions = mask[chosen], positions[chosen]
            ids = torch.tensor([[tokens[place]] for place in keep], device=device)
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
            positions = positions[:, -1:] + 1
        return [
            Completion(text=self._decode(reply), ids=tuple(reply), stopped=stop is not None, stop_id=stop)
            for reply, stop in zip(replies, stops, strict=True)
        ]

    @torch.inference_mode()
    def _judge(
        self, ids: Sequence[Sequence[int]], wanted: Sequence[Sequence[tuple[int, Sequence[int], Sequence[int]]]]
    ) -> dict[int, list[float]]:
        """For ids that are read: the log-likelihoods of each (place, context, continuation) they are read for."""
        asked = [(number, row) for number, rows in enumerate(wanted) for row in rows]
        spots = [(n, len(c) - 1 + at) for n, (_, c, tail) in asked for at in range(len(tail))]
        once = sorted(set(spots))
        line_of = {spot: line for line, spot in enumerate(once)}
        hidden = read(self._model, ids, once)
        tokens = [token for _, (_, _, tail) in asked for token in tail]
        values = iter(self._logs(hidden, [line_of[spot] for spot in spots], tokens))
        return {place: [next(values) for _ in tail] for _, (place, _, tail) in asked}

    def _logs(self, hidden: torch.Tensor, lines: Sequence[int], tokens: Sequence[int]) -> list[float]:
        """The log-likelihood of each token after the state in its line; a line goes through the head once."""
        places, wanted = (torch.tensor(list(one), device=hidden.device) for one in (lines, tokens))
        found = torch.empty(len(tokens), device=hidden.device)
        for start in range(0, len(hidden), HEAD_LINES):
            logits = self._model.get_output_embeddings()(hidden[start : start + HEAD_LINES]).float()
            here = (places >= start) & (places < start + HEAD_LINES)
            local = places[here] - start
            found[here] = logits[local, wanted[here]] - logits.logsumexp(1)[local]
        return [float(value) for value in found.tolist()]


def batches(passes: Sequence[Pass], budget: int) -> Iterator[Sequence[Pass]]:
    """Longest first, so that memory runs out at the start or not at all; no more ids to a batch than the budget."""
    passes = sorted(passes, key=lambda one: len(one[0]), reverse=True)
    start = 0
    while start < len(passes):
        end = start + max(1, budget // len(passes[start][0]))
        yield passes[start:end]
        start = end
