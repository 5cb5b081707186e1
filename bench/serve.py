"""Serving against the same binding called in process: total tokens per second at 1 and 16 streams, and the first token.

make bench BENCH=serve    (FILE.gguf as $MEDMIND_GGUF; measures what $RESULTS, runs/serve-<file>.jsonl, lacks)

Each stream reads 128 random tokens and gets 64. In process means the engine's own thread, without HTTP, JSON and text;
the HTTP client's own work counts against us. Who goes first changes from pair to pair.
"""

import asyncio
import json
import os
import random
import statistics
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import httpx

from medmind.core.jsonl import read_jsonl
from medmind.core.log import say
from medmind.infer.decode_llamacpp import LlamaCppDecoder
from medmind.infer.decoder import Sampling, Work
from medmind.models.catalog import find_model
from medmind.models.tokenizer import open_tokenizer
from medmind.prompts.families import open_renderer
from medmind.serve.app import create_app
from medmind.serve.config import ServeConfig
from medmind.serve.engine import Engine, follow
from medmind.serve.run import server
from medmind.serve.served import Facts, Index, Served

FILE = Path(os.environ.get("MEDMIND_GGUF", "runs/demo/export/model-q4_k_m.gguf"))
MODEL = os.environ.get("MEDMIND_GGUF_MODEL", "nano")
"""Whose tokenizer the GGUF has: a catalogue name or a checkpoint folder."""
RESULTS = Path(os.environ.get("RESULTS", f"runs/serve-{FILE.stem}.jsonl"))
READ, WRITE, STREAMS = 128, 64, 16
THREADS = int(os.environ.get("THREADS", "0")) or None
"""Of the model; on a machine that others use too one thread and the CPU seconds tell most: more of them spin."""
PAIRS = {"1 stream": 5, f"{STREAMS} streams": 5, "first token": 45}
"""How often each part is measured, in both arms."""
PORT = 11999
Arm = Callable[[list[list[int]], int], Awaitable[float]]
"""Prompts and how many tokens each is to get; the seconds to the first token that anyone got."""


def prompts(count: int, vocabulary: int) -> list[list[int]]:
    dice = random.Random(time.time_ns())
    return [[dice.randrange(300, min(vocabulary, 8000)) for _ in range(READ)] for _ in range(count)]


def in_process(engine: Engine) -> Arm:
    async def one(ids: list[int], wanted: int) -> float:
        start, first = time.perf_counter(), 0.0
        (ticket,) = engine.submit([Work(tuple(ids), wanted)])
        async for update in follow(ticket):
            if update.new and not first:
                first = time.perf_counter() - start
        return first

    async def all_of(rows: list[list[int]], wanted: int) -> float:
        return min(await asyncio.gather(*(one(ids, wanted) for ids in rows)))

    return all_of


def over_http(client: httpx.AsyncClient) -> Arm:
    async def one(ids: list[int], wanted: int) -> float:
        start, first = time.perf_counter(), 0.0
        body = {"model": "bench", "prompt": ids, "max_tokens": wanted, "stream": True, "logprobs": None}
        async with client.stream("POST", "/v1/completions", json=body) as found:
            async for line in found.aiter_lines():
                if line.startswith("data: {"):
                    json.loads(line[6:])
                    first = first or time.perf_counter() - start
        return first

    async def all_of(rows: list[list[int]], wanted: int) -> float:
        return min(await asyncio.gather(*(one(ids, wanted) for ids in rows)))

    return all_of


async def measure(engine: Engine, vocabulary: int) -> list[dict[str, Any]]:
    done = list(read_jsonl(RESULTS)) if RESULTS.exists() else []
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{PORT}", timeout=3600) as client:
        arms = {"ours": over_http(client), "anchor": in_process(engine)}
        await arms["ours"](prompts(2, vocabulary), 4)
        for number, part in sorted((number, part) for part, pairs in PAIRS.items() for number in range(pairs)):
            if number < sum(line["part"] == part for line in done):
                continue
            line: dict[str, Any] = {"part": part}
            for arm in sorted(arms, reverse=bool(number % 2)):
                cpu = time.process_time()
                line[arm] = await figure(arms[arm], part, vocabulary)
                line[f"{arm} cpu"] = time.process_time() - cpu
            say(json.dumps(line))
            done.append(line)
            with open(RESULTS, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
    return done


async def figure(arm: Arm, part: str, vocabulary: int) -> float:
    """Milliseconds to the first token, or tokens written a second."""
    if part == "first token":
        return 1000 * await arm(prompts(1, vocabulary), 1)
    streams = int(part.partition(" ")[0])
    rows, start = prompts(streams, vocabulary), time.perf_counter()
    await arm(rows, WRITE)
    return streams * WRITE / (time.perf_counter() - start)


def report(done: list[dict[str, Any]]) -> None:
    for part in PAIRS:
        lines = [line for line in done if line["part"] == part]
        more = median(line["ours cpu"] / line["anchor cpu"] for line in lines)
        later = {"ms_later": median(line["ours"] - line["anchor"] for line in lines)} if part == "first token" else {}
        tell(f"serve {part}", [(line["ours"], line["anchor"]) for line in lines], cpu_ratio=more, **later)
    alone, many = ([line for line in done if line["part"] == part] for part in ("1 stream", f"{STREAMS} streams"))
    less = median(STREAMS * one["ours cpu"] / all_["ours cpu"] for one, all_ in zip(alone, many, strict=False))
    pairs = [(all_["ours"], one["ours"]) for one, all_ in zip(alone, many, strict=False)]
    tell(f"serve {STREAMS} streams against 1", pairs, cpu_ratio=less, ceiling=ceiling(done))


def ceiling(done: list[dict[str, Any]]) -> float:
    """How many times one stream's tokens many could write if writing cost nothing and only prompts had to be read."""
    rate, first = (
        median(line["anchor"] for line in done if line["part"] == part) for part in ("1 stream", "first token")
    )
    return median([WRITE / (first / 1000) / rate])


def tell(name: str, pairs: list[tuple[float, float]], **more: float) -> None:
    ours, anchor = (round(median(arm), 2) for arm in zip(*pairs, strict=True))
    ratio = median(mine / theirs for mine, theirs in pairs)
    print(json.dumps({"bench": name, "ours": ours, "anchor": anchor, "ratio": ratio, "runs": len(pairs)} | more))


def median(values: Iterable[float]) -> float:
    return round(statistics.median(values), 3)


def main() -> None:
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    spec = find_model(MODEL)
    renderer = open_renderer(spec.renderer, open_tokenizer(spec))
    engine = Engine(lambda: LlamaCppDecoder(FILE, STREAMS, 256, threads=THREADS), queue=64)
    engine.wait_ready()
    facts = Facts(0, 0, "0" * 64, spec.family, 0, engine.dtype)
    model = Served("bench", engine, renderer, "", Sampling(), facts, WRITE)
    app = create_app(Index([model]), ServeConfig())
    inner = server(app, ServeConfig(port=PORT))
    thread = threading.Thread(target=inner.run, daemon=True)
    thread.start()
    while not inner.started:
        time.sleep(0.01)
    say(f"{FILE.name}, {engine.dtype}, {READ} tokens in, {WRITE} out")
    done = asyncio.run(measure(engine, renderer.tokenizer.vocab_size))
    inner.should_exit = True
    thread.join()
    report(done)


if __name__ == "__main__":
    main()
