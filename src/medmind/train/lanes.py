"""A batch's documents shared out among threads, each of which takes loss and gradients of its own alone.

Threads that share every operation wait for each other after each; these meet once a step. On a CPU, where nothing in
the model is drawn by chance: what one generator gives several threads has no order.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from heapq import heapify, heappop, heappush
from operator import add
from typing import Any, TypeVar

import torch

from medmind.train.batches import IGNORED
from medmind.train.config import TrainConfig
from medmind.train.loss import completion_loss

MOST = 4
"""Lanes; Python itself is one for all."""
TOKENS = 1024
"""Of a pass that has more than one document, or not many more: larger ones would take memory and hardly be faster."""
Batch = dict[str, Any]
Part = TypeVar("Part")
Result = TypeVar("Result")


class Lanes:
    """`documents` is how many a lane holds at a time, one or two more where they are short."""

    def __init__(self, count: int, documents: int) -> None:
        self.count, self.documents = count, documents
        self.threads = torch.get_num_threads()
        self.pool = ThreadPoolExecutor(count, thread_name_prefix="lane")

    def each(self, work: Callable[[Part], Result], parts: Iterable[Part]) -> list[Result]:
        """What `work` gives of each part, in their order; autocast and gradients are on where they are on here."""
        dtype, cast = torch.get_autocast_dtype("cpu"), torch.is_autocast_enabled("cpu")
        learns = torch.is_grad_enabled()

        def alone(part: Part) -> Result:
            torch.set_num_threads(self.threads // self.count)
            with torch.autocast("cpu", dtype, enabled=cast), torch.set_grad_enabled(learns):
                return work(part)

        try:
            return list(self.pool.map(alone, parts))
        finally:
            torch.set_num_threads(self.threads)  # of this thread, and of libraries that know but one number for all

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """As completion_loss; the gradients are taken at once, pass by pass, so that no more is held."""
        learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
        function: Any = SharedLoss
        loss: torch.Tensor = function.apply(self, model, batch, *learnt)
        return loss


class SharedLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, lanes: Lanes, model: Any, batch: Batch, *learnt: torch.Tensor) -> torch.Tensor:
        passes = share(batch, lanes.count, lanes.documents, model.config.hidden_size)
        (total, ctx.gradients), *rest = lanes.each(lambda own: add_up(model, own, learnt), passes)
        for loss, gradients in rest:
            total += loss
            for mine, other in zip(ctx.gradients, gradients, strict=True):
                mine.add_(other)
        return torch.tensor(total)

    @staticmethod
    def backward(ctx: Any, *outer: torch.Tensor) -> Any:
        return None, None, None, *(gradient.mul_(outer[0]) for gradient in ctx.gradients)


@torch.enable_grad()
def add_up(
    model: torch.nn.Module, passes: Sequence[Batch], learnt: Sequence[torch.Tensor]
) -> tuple[float, list[torch.Tensor]]:
    """The loss of all passes and its gradients."""
    total, sums = 0.0, [torch.zeros_like(parameter) for parameter in learnt]
    for batch in passes:
        loss = completion_loss(model, batch)
        for gathered, gradient in zip(sums, torch.autograd.grad(loss, learnt, allow_unused=True), strict=True):
            if gradient is not None:
                gathered.add_(gradient)
        total += loss.item()
    return total, sums


def share(batch: Batch, lanes: int, documents: int, width: int) -> list[list[Batch]]:
    """The passes of each lane over a packed batch."""
    lengths = batch["segments"].tolist()
    parts = {name: torch.split(batch[name], lengths, 1) for name in ("input_ids", "labels", "position_ids")}

    def lay(places: Sequence[int]) -> Batch:
        chosen = {name: [part[place][0] for place in places] for name, part in parts.items()}
        shared = count_shared(chosen["input_ids"], chosen["labels"])
        rest = {name: [part[0], *(one[shared:] for one in part[1:])] for name, part in chosen.items()}
        laid: Batch = {name: torch.cat(part)[None] for name, part in rest.items()}
        laid["segments"] = torch.tensor([len(one) for one in rest["labels"]])
        return laid | {"shared": shared} if shared else laid

    return [[lay(places) for places in own] for own in divide(lengths, lanes, documents, width)]


def count_shared(ids: Sequence[torch.Tensor], labels: Sequence[torch.Tensor]) -> int:
    """With how many tokens all begin, of which nothing is learnt, so that some of each are left."""
    most = min(map(len, ids)) - 1 if len(ids) > 1 else 0
    tokens, learnt = (torch.stack([one[:most] for one in each]) for each in (ids, labels))
    same = (tokens == tokens[0]).all(0) & (learnt == IGNORED).all(0)
    return int(same.int().cumprod(0).sum())


def divide(lengths: Sequence[int], lanes: int, documents: int, width: int) -> list[list[list[int]]]:
    """By lane and pass the places of documents: for each lane about as much work, in passes of a bounded size.

    Neighbours begin at opposite ends, so that not all hold their longest document at once.
    """
    divided = []
    work = [length * (1 + length / (6 * width)) for length in lengths]  # products by the token, attention by the pair
    for lane, places in enumerate(even(range(len(lengths)), work, lanes)):
        tokens = sum(lengths[place] for place in places)
        count = max(-(-tokens // TOKENS), -(-len(places) // documents))
        passes = sorted(even(places, lengths, count), key=lambda one: max(lengths[place] for place in one))
        divided.append(passes[::-1] if lane % 2 else passes)
    return divided


def even(places: Sequence[int], weights: Sequence[float], count: int) -> list[list[int]]:
    """At most so many parts of about the same weight, by the largest differencing method.

    Each place begins as a division of its own, one part of which is not empty; the two least even divisions become one,
    the heavier parts of one with the lighter of the other.
    """

    def weigh(part: Sequence[int]) -> float:
        return sum(weights[place] for place in part)

    divisions: list[Any] = [(-weights[place], place, [*[[]] * (count - 1), [place]]) for place in places]
    heapify(divisions)
    while len(divisions) > 1:
        (_, _, one), (_, tie, other) = heappop(divisions), heappop(divisions)
        parts = sorted(map(add, one, reversed(other)), key=weigh)
        heappush(divisions, (weigh(parts[0]) - weigh(parts[-1]), tie, parts))
    return [part for part in divisions[0][2] if part]


def count_lanes(config: TrainConfig, processes: int = 1) -> int:
    """As many as there are threads and documents at a time; 1 where they may not be."""
    by_chance = config.lora.lora_dropout or config.neftune_noise_alpha
    plain = config.method == "lora" and config.packing and not (by_chance or config.lora.use_dora)
    if torch.cuda.is_available() or processes > 1 or not plain or config.gradient_checkpointing:
        return 1
    return min(torch.get_num_threads(), config.per_device_train_batch_size, MOST)


def is_unsteady(config: Any) -> bool:
    """Whether a pass draws by chance, or leaves rotary positions behind that the next pass does not expect."""
    rotary = getattr(config, "rope_parameters", None) or {}
    return bool(config.attention_dropout) or rotary.get("rope_type") in ("dynamic", "longrope")


def open_lanes(config: TrainConfig, model: Any, processes: int = 1) -> Lanes | None:
    count = 1 if is_unsteady(model.config) else count_lanes(config, processes)
    return Lanes(count, config.per_device_train_batch_size // count) if count > 1 else None
