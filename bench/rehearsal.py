"""The models of the published systems at their true shape, with random weights, as far as this machine carries them.

`make bench BENCH=rehearsal` loads each one quantised, takes one optimiser step of each method and reads the adapter
back with plain PEFT; $RESULTS (runs/rehearsal.jsonl) keeps a line for each, so that a second call goes on. ONLY in the
environment names one; SHAPES is the folder of checkpoints, made if missing.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from medmind.cli.models_make import make_checkpoint
from medmind.core.jsonl import read_json, read_jsonl
from medmind.models.catalog import find_model

RESULTS = Path(os.environ.get("RESULTS", "runs/rehearsal.jsonl"))
SHAPES = Path(os.environ.get("SHAPES", "runs/shapes"))
RUNS = {
    f"{model} {method}": (model, method)
    for model in ("Llama-3.2-1B", "Llama-3.2-3B", "Mistral-7B-Instruct-v0.3")
    for method in ("qlora", "lora8")
}
SETTINGS = (
    "data.validation_fraction=0",
    "data.max_train_rows=3",
    "train.per_device_train_batch_size=3",
    "train.gradient_accumulation_steps=1",
    "train.max_steps=1",
    "train.max_length=512",
    "train.gradient_checkpointing=true",
    "train.lora.target_modules=[q_proj,v_proj]",
)
SAMPLING = 0.01


def own_memory(pid: int | str = "self") -> float:
    """GB of a process's own pages."""
    try:
        found = re.search(r"RssAnon:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return int(found.group(1)) * 1024 / 1e9 if found else 0.0


def watch(command: list[str]) -> tuple[float, float, str]:
    """The peak of its memory, its seconds, and what it printed."""
    started, peak = time.monotonic(), 0.0
    with tempfile.TemporaryFile("w+") as printed:
        process = subprocess.Popen(command, stdout=printed, stderr=subprocess.STDOUT)
        while process.poll() is None:
            peak = max(peak, own_memory(process.pid))
            time.sleep(SAMPLING)
        printed.seek(0)
        said = printed.read()
    assert process.returncode == 0, said[-2000:]
    return peak, time.monotonic() - started, said


def load(method: str, folder: str) -> None:
    """The child: a quantised base and what preparing it adds, in the process's memory and by transformers' count."""
    import torch

    from medmind.models.load import load_base, pick_dtype
    from medmind.models.quantised import prepare
    from medmind.models.stored import open_tensors
    from medmind.train.adapter import quantization
    from medmind.train.config import TrainConfig

    spec, config = find_model(folder), TrainConfig(method="qlora" if method == "qlora" else "lora8")
    dtype = pick_dtype(config.dtype)
    torch.zeros(1)
    empty = own_memory()
    model = load_base(spec, dtype, quantization(config, dtype))
    held = {"empty_gb": empty, "loaded_gb": own_memory(), "loaded_footprint_gb": model.get_memory_footprint() / 1e9}
    prepare(model, open_tensors(Path(spec.source)))
    footprint = model.get_memory_footprint() / 1e9
    print(json.dumps({**held, "prepared_gb": own_memory(), "prepared_footprint_gb": footprint}))


def reload(folder: str, adapter: Path) -> int:
    """How many adapter tensors plain PEFT puts on the bare shape; it must know every one."""
    import torch
    from peft import LoraConfig, get_peft_model, load_peft_weights, set_peft_model_state_dict
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        base = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
        model = get_peft_model(base, LoraConfig.from_pretrained(str(adapter)))
    weights = load_peft_weights(str(adapter), device="cpu")
    outcome = set_peft_model_state_dict(model, weights, low_cpu_mem_usage=True)
    wrong = [*outcome.unexpected_keys, *(name for name in outcome.missing_keys if "lora_" in name)]
    assert not wrong, wrong[:3]
    return len(weights)


def rehearse(name: str) -> dict[str, Any]:
    model, method = RUNS[name]
    folder = SHAPES / model
    if not folder.is_dir():
        make_checkpoint(find_model(model), folder)
    load_peak, load_seconds, said = watch([sys.executable, __file__, "load", method, str(folder)])
    with tempfile.TemporaryDirectory() as out:
        words = [f"model={folder}", f"train.method={method}", *SETTINGS]
        sets = [word for setting in words for word in ("--set", setting)]
        step_peak, seconds, _ = watch([sys.executable, "-m", "medmind", "train", "base", "--out", out, *sets])
        steps = [line for line in read_jsonl(Path(out) / "train" / "metrics.jsonl") if "loss" in line]
        adapter = Path(out) / "train" / "adapter"
        tensors = reload(str(folder), adapter)
        parameters = read_json(Path(out) / "train" / "plan.json")["parameters"]
        size = (adapter / "adapter_model.safetensors").stat().st_size
    held = json.loads(said.strip().splitlines()[-1])
    rounded = {key: round(value, 2) for key, value in held.items()}
    return {
        "run": name,
        **rounded,
        "load_peak_gb": round(load_peak, 2),
        "load_seconds": round(load_seconds),
        "step_peak_gb": round(step_peak, 2),
        "above_empty_gb": round(step_peak - held["empty_gb"], 2),
        "train_seconds": round(seconds),
        "step_seconds": steps[0]["seconds"],
        "loss": steps[0]["loss"],
        "tokens": steps[0]["tokens"],
        "parameters": parameters,
        "adapter_bytes": size,
        "adapter_tensors_read_by_peft": tensors,
    }


def main() -> None:
    done = {line["run"]: line for line in (read_jsonl(RESULTS) if RESULTS.exists() else ())}
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    for name in [os.environ["ONLY"]] if "ONLY" in os.environ else RUNS:
        if name not in done:
            done[name] = rehearse(name)
            with open(RESULTS, "a", encoding="utf-8") as file:
                file.write(json.dumps(done[name]) + "\n")
        print(json.dumps(done[name]))
    bar = 4.8
    ours = max((line["prepared_footprint_gb"] for name, line in done.items() if name.endswith("qlora")), default=0.0)
    print(json.dumps({"bench": "rehearsal", "ours": ours, "anchor": bar, "ratio": ours / bar, "runs": len(done)}))


if __name__ == "__main__":
    load(*sys.argv[2:]) if sys.argv[1:2] == ["load"] else main()
