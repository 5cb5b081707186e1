"""Merge and quantisation in less private memory than the model itself has: the case of a 7B at a small size."""

import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, MistralForCausalLM

from medmind.core.jsonl import write_text
from medmind.models.catalog import NANO

STEPS = ("merge", "q4_k_m", "whole")
WORKER = """
import sys
from pathlib import Path
import torch
from medmind.export import gguf, merge
from medmind.export.metadata import Facts
from medmind.infer.llamacpp import load_library
from medmind.models.catalog import describe_folder

folder = Path(sys.argv[1])
torch.set_num_threads(1)
load_library()
spec = describe_folder(folder / "base")
merge.read_plain(spec, folder / "adapter")  # imports what it needs
print("ready", flush=True)
for line in sys.stdin:
    step = line.strip()
    if step == "merge":
        merge.merge(spec, folder / "adapter", folder / "merged")
    elif step == "whole":
        merge.read_plain = lambda spec, trained: None
        merge.merge(spec, folder / "adapter", folder / "whole")
    else:
        gguf.write(folder / "merged", folder / "model.gguf", step, Facts("tiny", "MIT", "nano", ""))
    print("done", flush=True)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A base of 170 MB in bfloat16, in files of 40 MB, and an adapter on all its matrices."""
    shape = {"num_hidden_layers": 24, "hidden_size": 512, "intermediate_size": 1536, "num_attention_heads": 8}
    torch.manual_seed(0)
    with torch.device("meta"):
        model = MistralForCausalLM(AutoConfig.from_pretrained(NANO, **shape, num_key_value_heads=8, head_dim=64))
    model = model.to(torch.bfloat16).to_empty(device="cpu")
    for weight in model.parameters():
        weight.data.uniform_(-0.05, 0.05)
    model.save_pretrained(tmp_path / "base", max_shard_size="40MB")
    write_text(tmp_path / "base" / "tokenizer.json", (NANO / "tokenizer.json").read_text(encoding="utf-8"))
    config = LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    get_peft_model(model, config).save_pretrained(tmp_path / "adapter")
    return tmp_path


def private(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("RssAnon")), 0)


def peaks(worker: "subprocess.Popen[str]") -> Iterator[int]:
    """Of each step, in bytes above the idle process, looked at every 5 ms."""
    said, asked = worker.stdout, worker.stdin
    assert said and asked and said.readline() == "ready\n"
    idle = private(worker.pid)
    for step in STEPS:
        asked.write(f"{step}\n")
        asked.flush()
        peak = 0
        while not select.select([said], [], [], 0.005)[0]:
            peak = max(peak, private(worker.pid))
        assert said.readline() == "done\n"
        yield peak - idle


@pytest.mark.slow
def test_the_model_never_lies_in_memory(folder: Path) -> None:
    """Measured: 14 to 25 MB, 42 to 50 MB, and of PEFT's own merge, which shows that it would be seen, 715 to 738."""
    size = sum(file.stat().st_size for file in (folder / "base").glob("*.safetensors"))
    words = [sys.executable, "-c", WORKER, str(folder)]
    with subprocess.Popen(words, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        merged, quantised, in_one_piece = peaks(worker)
    assert merged < size / 2 and quantised < size / 2 < size < in_one_piece
