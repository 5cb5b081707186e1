"""Merge and GGUF at a published shape, against llama.cpp's own converter and quantiser, step by step in one run.

python bench/export.py SHAPE WORK LLAMA_CPP: SHAPE from `medmind models make`, WORK an empty folder with 30 GB for a 7B,
LLAMA_CPP the unpacked vendor/llama.cpp of llama-cpp-python's source archive. $RESULTS (runs/export.jsonl) keeps a line
for each step, so that a second call goes on. Our steps run under a limit of 4 GiB of private memory (RLIMIT_DATA).
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from threading import Thread
from typing import Any

import numpy as np

from medmind.core.jsonl import read_jsonl
from medmind.export.header import read_tensors

RESULTS = Path(os.environ.get("RESULTS", "runs/export.jsonl"))
KINDS = ("f16", "q8_0", "q4_k_m")
GATED = "q4_k_m"
LIMIT = 1 << 32
PEAK_EVERY = 0.05


def make_adapter(base: Path, folder: Path) -> None:
    """r=32 on all seven matrices, drawn from PEFT's own names and shapes."""
    import torch
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
    from safetensors.torch import save_file

    from medmind.models.catalog import describe_folder
    from medmind.models.load import load_random

    spec = describe_folder(base)
    config = LoraConfig(r=32, lora_alpha=64, target_modules=list(spec.lora_targets), task_type="CAUSAL_LM")
    with torch.device("meta"):
        model = get_peft_model(load_random(spec, 0), config)
    torch.manual_seed(0)
    state = {name: torch.randn(part.shape) * 0.01 for name, part in get_peft_model_state_dict(model).items()}
    folder.mkdir()
    save_file(state, folder / "adapter_model.safetensors")
    config.save_pretrained(str(folder))


def prepare(shape: Path, work: Path) -> None:
    """The shape with its true vocabulary, as llama.cpp's converter asks for it."""
    sys.path.append(str(Path(__file__).parent.parent / "tests"))
    from vocabularies import byte_level_json, mistral_file

    base = work / "base"
    base.mkdir()
    for file in shape.iterdir():
        (base / file.name).symlink_to(file)
    if json.loads((base / "config.json").read_text())["model_type"] == "llama":
        (base / "tokenizer.json").unlink()
        (base / "tokenizer.json").write_text(byte_level_json("llama-bpe"))
    else:
        shutil.copy(mistral_file(), work / "tokenizer.model")
    make_adapter(base, work / "adapter")


def merge(work: Path) -> None:
    from medmind.export.merge import merge
    from medmind.models.catalog import describe_folder

    merge(describe_folder(work / "base"), work / "adapter", work / "merged")


def ours(work: Path, kind: str) -> None:
    from medmind.export import gguf
    from medmind.export.metadata import Facts

    gguf.write(work / "merged", work / f"ours-{kind}.gguf", kind, Facts("bench", "MIT", "bench", ""))


def theirs(work: Path, kind: str) -> None:
    from cyllama.llama import llama_cpp

    llama_cpp.disable_logging()
    settings = llama_cpp.LlamaModelQuantizeParams()
    settings.ftype, settings.nthread = {"q8_0": 7, "q4_k_m": 15}[kind], 2
    llama_cpp.model_quantize(str(work / "theirs-f16.gguf"), str(work / f"theirs-{kind}.gguf"), settings)


def measure(command: list[str], limit: int) -> dict[str, float]:
    """Seconds on the wall and of the processor, and the peak of anonymous memory in GB; `limit` in bytes, 0: none."""
    start, peak = time.monotonic(), 0
    limited = ["prlimit", f"--data={limit}"] if limit else []
    process = subprocess.Popen([*limited, *command], stdout=subprocess.DEVNULL)
    before = children_seconds()

    def watch() -> None:
        nonlocal peak
        while process.poll() is None:
            peak = max(peak, anonymous(process.pid))
            time.sleep(PEAK_EVERY)

    watcher = Thread(target=watch)
    watcher.start()
    watcher.join()
    if process.returncode:
        raise SystemExit(f"failed: {' '.join(command)}")
    spent = children_seconds() - before
    return {"s": round(time.monotonic() - start, 1), "cpu_s": round(spent, 1), "rss_anon_gb": round(peak / 1e9, 2)}


def children_seconds() -> float:
    used = getrusage(RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def anonymous(process: int) -> int:
    try:
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("RssAnon"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def digest(file: Path) -> dict[str, str]:
    """Of each tensor's bytes, so that two large files need not lie side by side."""
    return {name: blake2b(part, digest_size=16).hexdigest() for name, part in parts_of(file)}


def parts_of(file: Path) -> Iterator[tuple[str, Any]]:
    data = np.memmap(file, np.uint8, "r")
    for name, info in read_tensors(file).items():
        yield name, data[info.offset : info.offset + info.size]


def count_same(one: dict[str, str], other: dict[str, str]) -> list[int]:
    """How many tensors are the same bit for bit, and of how many."""
    return [sum(other.get(name) == found for name, found in one.items()), len(one.keys() | other.keys())]


class Notes:
    """What $RESULTS knows of this shape: a step that is there is not done again."""

    def __init__(self, shape: str) -> None:
        self.shape = shape
        lines = read_jsonl(RESULTS) if RESULTS.exists() else iter(())
        self.found: dict[str, Any] = {line["step"]: line["found"] for line in lines if line["shape"] == shape}

    def keep(self, step: str, measure: Callable[[], Any]) -> None:
        if step in self.found:
            return
        self.found[step] = measure()
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        with open(RESULTS, "a") as out:
            print(json.dumps({"shape": self.shape, "step": step, "found": self.found[step]}), file=out)
        if not step.startswith("digest"):
            print(step, self.found[step], file=sys.stderr, flush=True)


def run(shape: Path, work: Path, llama_cpp: Path) -> dict[str, Any]:
    """What a step needed is deleted once it is measured: a 7B never takes more than two files of 14 GB at a time."""
    notes = Notes(shape.name)
    me = [sys.executable, __file__]

    def convert(name: str, kind: str, command: list[str], limit: int) -> None:
        file = work / f"{name}-{kind}.gguf"
        notes.keep(f"{name} {kind}", lambda: measure(command, limit) | {"gb": round(file.stat().st_size / 1e9, 3)})
        notes.keep(f"digest {name} {kind}", lambda: digest(file))

    notes.keep("prepare", lambda: measure([*me, "prepare", str(shape), str(work)], LIMIT))
    notes.keep("merge", lambda: measure([*me, "merge", str(work)], LIMIT))
    for kind in KINDS:
        convert("ours", kind, [*me, "ours", str(work), kind], LIMIT)
        (work / f"ours-{kind}.gguf").unlink(missing_ok=True)
    if (work / "tokenizer.model").exists() and (work / "merged").exists():
        shutil.copy(work / "tokenizer.model", work / "merged")
    full = work / "theirs-f16.gguf"
    script = [sys.executable, str(llama_cpp / "convert_hf_to_gguf.py"), str(work / "merged")]
    convert("theirs", "f16", [*script, "--outtype", "f16", "--outfile", str(full)], 0)
    shutil.rmtree(work / "merged", ignore_errors=True)
    for kind in KINDS[1:]:
        convert("theirs", kind, [*me, "theirs", str(work), kind], 0)
        (work / f"theirs-{kind}.gguf").unlink(missing_ok=True)
    full.unlink(missing_ok=True)
    return notes.found


def summary(name: str, found: dict[str, Any]) -> dict[str, Any]:
    """From the merged checkpoint to each kind, in seconds of the processor: ours needs no file between."""
    base = found["theirs f16"]["cpu_s"]
    theirs = {kind: base + (0 if kind == "f16" else found[f"theirs {kind}"]["cpu_s"]) for kind in KINDS}
    mine = {kind: found[f"ours {kind}"]["cpu_s"] for kind in KINDS}
    return {
        "bench": f"export {name}",
        "ours": mine[GATED],
        "anchor": round(theirs[GATED], 1),
        "ratio": round(mine[GATED] / theirs[GATED], 3),
        "runs": 1,
        "ratios": {kind: round(mine[kind] / theirs[kind], 3) for kind in KINDS},
        "same": {kind: count_same(found[f"digest ours {kind}"], found[f"digest theirs {kind}"]) for kind in KINDS},
        **{step: figures for step, figures in found.items() if not step.startswith("digest")},
    }


def main() -> None:
    if len(sys.argv) < 3:
        raise SystemExit("usage: python bench/export.py SHAPE WORK LLAMA_CPP")
    word, *rest = sys.argv[1:]
    if word == "prepare":
        prepare(*map(Path, rest))
    elif word == "merge":
        merge(Path(rest[0]))
    elif word in ("ours", "theirs"):
        (ours if word == "ours" else theirs)(Path(rest[0]), rest[1])
    else:
        shape, (work, llama_cpp) = Path(word).resolve(), map(Path, rest)
        work.mkdir(parents=True, exist_ok=True)
        print(json.dumps(summary(shape.name, run(shape, work, llama_cpp))))


if __name__ == "__main__":
    main()
