"""Parts of training on a CPU alone: products beside torch's, and a batch whose rows begin alike beside each row whole.

make bench BENCH=train_parts

Two threads, as two lanes are; in turn, medians of ROUNDS. PARTS_MODEL (nano) reads the batch, PARTS_PROMPT (80) is how
many tokens its rows begin with.
"""

import os
import statistics
import time
from array import array
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import patch

import torch

from medmind.models.catalog import find_model
from medmind.train import lanes
from medmind.train.adapter import prepare_model
from medmind.train.batches import IGNORED, Row, pack
from medmind.train.config import LoraConfig, TrainConfig
from medmind.train.lanes import Lanes
from medmind.train.multiply import multiply, multiply_by_rows

THREADS, ROUNDS = 2, 5
ROWS = (100, 250, 700)
SHAPES = [(2048, 2112, 3072), (2048, 2080, 16384), (8192, 8224, 2048), (128256, 128256, 2048)]
"""Of Llama-3.2-1B's matrices: columns that are multiplied, those a row has in memory, and rows."""
LENGTHS = (120, 160, 200, 240, 280, 320, 360, 400, 440, 150, 210, 330)


def in_turn(*arms: Callable[[], float]) -> list[float]:
    """What each gives, the median of rounds; the first round, which compiles, is left out."""
    rounds = [[arm() for arm in arms] for _ in range(ROUNDS + 1)]
    return [statistics.median(found) for found in zip(*rounds[1:], strict=True)]


def at_once(work: Callable[[int], object]) -> float:
    """Seconds of the slowest thread."""

    def alone(i: int) -> float:
        torch.set_num_threads(1)
        start = time.perf_counter()
        work(i)
        return time.perf_counter() - start

    with ThreadPoolExecutor(THREADS) as pool:
        return max(pool.map(alone, range(THREADS)))


def products(rows: int, by_rows: bool, width: int, stride: int, count: int) -> None:
    matrix = torch.randn(count, stride).bfloat16()[:, :width]
    entering, leaving = (width, count) if by_rows else (count, width)
    a, out = ([torch.randn(rows, each).bfloat16() for _ in range(THREADS)] for each in (entering, leaving))
    flop = 2 * rows * width * count
    times = range(max(1, int(1e11 / flop)))

    def ours(i: int) -> None:
        for _ in times:
            (multiply_by_rows if by_rows else multiply)(a[i], matrix, out[i])

    def theirs(i: int) -> None:
        for _ in times:
            torch.matmul(a[i], matrix.T if by_rows else matrix, out=out[i])

    speeds = in_turn(*(lambda work=work: THREADS * len(times) * flop / at_once(work) / 1e9 for work in (ours, theirs)))
    way = "along" if by_rows else "across"
    print(f"{rows} rows {way} {count} x {width}: {speeds[0]:.0f} GFLOP/s, torch {speeds[1]:.0f}", flush=True)


def beginnings(name: str, prompt: int) -> None:
    torch.set_num_threads(THREADS)
    model = prepare_model(TrainConfig(lora=LoraConfig(r=16)), find_model(name), seed=0).to(torch.bfloat16).train()
    generator = torch.Generator().manual_seed(0)
    start = torch.randint(3, 8000, (prompt,), generator=generator).tolist()
    rows = []
    for length in LENGTHS:
        ids = [*start, *torch.randint(3, 8000, (length,), generator=generator).tolist()]
        labels = [IGNORED] * prompt + ids[prompt + 1 :] + [IGNORED]
        rows.append(Row("bench", array("i", ids), array("i", labels), 1))
    batch, shared = pack(rows), Lanes(THREADS, len(rows) // THREADS)

    def step() -> float:
        begun = time.perf_counter()
        shared.loss(model, batch).backward()
        return time.perf_counter() - begun

    def whole() -> float:
        with patch.object(lanes, "count_shared", lambda *parts: 0):
            return step()

    once, each = in_turn(step, whole)
    tokens = sum(LENGTHS) + prompt * len(LENGTHS)
    print(f"{name}, {tokens} tokens, the first {prompt} of each row alike: {once:.3f} s, each row whole {each:.3f} s")


if __name__ == "__main__":
    for rows in ROWS:
        for shape in SHAPES:
            for by_rows in (True, False):
                products(rows, by_rows, *shape)
    beginnings(os.environ.get("PARTS_MODEL", "nano"), int(os.environ.get("PARTS_PROMPT", "80")))
