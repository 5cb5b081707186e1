"""One arm of train_cpu or train_gpu in a process of its own: python bench/train_arms.py ARM FOLDER, settings on stdin.

All arms get the same token ids, adapter, optimiser and clock: the clock starts at the end of the first step and stops
at the end of the last, before anything is saved. What they measured goes to stdout as one line of JSON.
"""

import json
import os
import sys
import time
from array import array
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.trainer_callback import CallbackHandler

from medmind.core.heap import share_heap
from medmind.core.jsonl import read_jsonl
from medmind.core.rundir import RunDir
from medmind.models.catalog import find_model
from medmind.models.load import DTYPES, load_base, silence
from medmind.models.tokenizer import open_tokenizer
from medmind.models.weights import find_weights
from medmind.prompts.families import open_renderer
from medmind.train import lanes
from medmind.train.batches import IGNORED, Row
from medmind.train.config import LoraConfig, TrainConfig
from medmind.train.held_out import held_out_loss
from medmind.train.progress import memory_gb
from medmind.train.trainer import PackedTrainer

STARTED = time.perf_counter()
TRL = os.environ.get("TRL", "runs/trl")
TRL_INSTALL = (
    "pip install --target runs/trl --no-deps trl==1.16.0 datasets dill multiprocess xxhash pandas python-dateutil "
    "pytz six"
)
SEED = 0
LEARNING_RATE = 1e-3
"""On random weights the seeds' own would hardly move the loss, and a fault in the gradient would not show."""
MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LARGE = ((4096, 4096, 4096), (4096, 2048, 8192), (8192, 8192, 2048))
"""Matrix products whose best speed is called the peak."""


@dataclass
class Step:
    tokens: int
    supervised: int
    pairs: int
    """Of positions that attend to each other, where the documents of a packed row are known."""
    spared: int = 0
    """Tokens that are there but once although several documents begin with them."""
    wall: float = 0.0
    cpu: float = 0.0
    """Both at its end."""


@dataclass
class Clock:
    """Sees every step of any transformers.Trainer: what it reads, and when it ends."""

    steps: list[Step] = field(default_factory=list)

    def attach(self) -> None:
        end: Any = CallbackHandler.on_step_end

        def watch(fetch: Any) -> Any:
            def fetched(trainer: Any, *args: Any, **settings: Any) -> Any:
                batches, count = fetch(trainer, *args, **settings)
                self.steps.append(Step(*(sum(part) for part in zip(*map(measure, batches), strict=True))))
                return batches, count

            return fetched

        def ended(handler: Any, *args: Any, **settings: Any) -> Any:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.steps[-1].wall, self.steps[-1].cpu = time.perf_counter(), time.process_time()
            return end(handler, *args, **settings)

        share = lanes.share

        def shared(*given: Any) -> Any:
            passes = share(*given)
            for one in chain(*passes):
                self.steps[-1].spared += one.get("shared", 0) * (len(one["segments"]) - 1)
            return passes

        lanes.share = shared
        kinds: tuple[Any, ...] = (transformers.Trainer, PackedTrainer)
        for kind in kinds:
            kind.get_batch_samples = watch(kind.get_batch_samples)
        handler: Any = CallbackHandler
        handler.on_step_end = ended

    def summary(self) -> dict[str, Any]:
        first, *rest = (step for step in self.steps if step.wall)
        return {
            "until_first_step": first.wall - STARTED,
            "steps": len(rest),
            "seconds": rest[-1].wall - first.wall,
            "cpu_seconds": rest[-1].cpu - first.cpu,
            "tokens": sum(step.tokens for step in rest),
            "supervised": sum(step.supervised for step in rest),
            "pairs": sum(step.pairs for step in rest),
            "spared": sum(step.spared for step in rest),
            "memory_gb": memory_gb() if not torch.cuda.is_available() else torch.cuda.max_memory_allocated() / 1e9,
        }


def measure(batch: dict[str, torch.Tensor]) -> tuple[int, int, int]:
    mask, segments = batch.get("attention_mask"), batch.get("segments")
    tokens = batch["input_ids"].numel() if mask is None else int(mask.sum())
    pairs = 0 if segments is None else int((segments * (segments + 1) // 2).sum())
    return tokens, int((batch["labels"] != IGNORED).sum()), pairs


def train_medmind(folder: Path, said: dict[str, Any]) -> None:
    """The stage itself, as `medmind train` runs it."""
    from medmind.train.engine import train

    share_heap()
    spec = find_model(said["model"])
    config = TrainConfig(
        method=said["method"],
        lora=LoraConfig(r=said["r"], lora_alpha=2 * said["r"]),
        dtype=said["dtype"],
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        warmup_ratio=0,
        num_train_epochs=1,
        per_device_train_batch_size=said["at_once"],
        gradient_accumulation_steps=said["examples"] // said["at_once"],
        save_steps=10**6,
        **said.get("settings", {}),
    )
    train(config, RunDir(folder), spec, open_renderer(spec.renderer, open_tokenizer(spec)), "", SEED)


def common(folder: Path, said: dict[str, Any], batch: int, rounds: int) -> dict[str, Any]:
    return {
        "output_dir": str(folder / "trainer"),
        "per_device_train_batch_size": batch,
        "gradient_accumulation_steps": rounds,
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "constant",
        "num_train_epochs": 1,
        "optim": "adamw_torch",
        "bf16": said["dtype"] == "bfloat16",
        "use_cpu": not torch.cuda.is_available(),
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "seed": SEED,
    }


def train_trl(folder: Path, said: dict[str, Any]) -> None:
    from peft import LoraConfig as PeftLora

    init: dict[str, Any] = {"dtype": said["dtype"]}
    if said["method"] == "qlora":
        four = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
        build: Any = transformers.BitsAndBytesConfig
        init["quantization_config"] = build(**four, bnb_4bit_compute_dtype=DTYPES[said["dtype"]])
    lora = PeftLora(r=said["r"], lora_alpha=2 * said["r"], target_modules=MODULES, task_type="CAUSAL_LM")
    base = find_weights(find_model(said["model"]))
    run_sft(folder, said, str(base), model_init_kwargs=init, peft_config=lora)


def train_unsloth(folder: Path, said: dict[str, Any]) -> None:
    from unsloth import FastLanguageModel  # before TRL, which it changes

    base = find_weights(find_model(said["model"]))
    model, _ = FastLanguageModel.from_pretrained(
        str(base), max_seq_length=said["limit"], dtype=DTYPES[said["dtype"]], load_in_4bit=said["method"] == "qlora"
    )
    model = FastLanguageModel.get_peft_model(
        model, r=said["r"], lora_alpha=2 * said["r"], target_modules=MODULES, use_gradient_checkpointing=False
    )
    run_sft(folder, said, model)


def run_sft(folder: Path, said: dict[str, Any], model: Any, peft_config: Any = None, **settings: Any) -> None:
    """TRL at its fastest: packed rows, nothing computed twice; the same ids and the same completions learnt."""
    sys.path.append(TRL)  # behind our own: the same torch and transformers
    try:
        from datasets import Dataset
        from trl import SFTConfig, SFTTrainer
    except ImportError as error:
        raise SystemExit(f"{error}; {TRL_INSTALL}") from None
    args = SFTConfig(
        **common(folder, said, said["batch"], said["bins"] // said["batch"]),
        packing=True,
        max_length=said["limit"],
        gradient_checkpointing=False,
        completion_only_loss=True,
        **settings,
    )
    rows = [{name: row[name] for name in ("input_ids", "completion_mask")} for row in read_jsonl(folder / "ids.jsonl")]
    words = find_weights(find_model(said["model"])) / "tokenizer.json"
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(words))
    tokenizer.eos_token = tokenizer.pad_token = tokenizer.convert_ids_to_tokens(2)  # the rows are ids already
    trainer = SFTTrainer(
        model=model,
        args=args,
        processing_class=tokenizer,
        train_dataset=Dataset.from_list(rows),
        peft_config=peft_config,
    )
    trainer.train()
    trainer.save_model(str(folder / "trl"))


def train_seed(folder: Path, said: dict[str, Any]) -> None:
    """As the fourth seed lays rows out: each filled up to the limit, padding learnt too, layers computed twice."""
    from peft import LoraConfig as PeftLora
    from peft import get_peft_model

    spec = find_model(said["model"])
    model: Any = load_base(spec, DTYPES[said["dtype"]])
    torch.manual_seed(SEED)
    lora = PeftLora(
        r=said["r"], lora_alpha=2 * said["r"], lora_dropout=0.1, target_modules=MODULES, task_type="CAUSAL_LM"
    )
    model = get_peft_model(model, lora)
    model.enable_input_require_grads()
    end = open_tokenizer(spec).vocab_size - 1 if model.config.eos_token_id is None else model.config.eos_token_id
    args = transformers.TrainingArguments(
        **common(folder, said, 1, said["examples"]), gradient_checkpointing=True, remove_unused_columns=False
    )
    rows = [fill(row["input_ids"], said["limit"], end) for row in read_jsonl(folder / "ids.jsonl")]
    trainer: Any = transformers.Trainer
    trainer(model=model, args=args, train_dataset=rows).train()
    model.save_pretrained(folder / "seed")


def fill(ids: list[int], limit: int, end: int | list[int]) -> dict[str, list[int]]:
    padding = end if isinstance(end, int) else end[0]
    whole, rest = [*ids, *[padding] * (limit - len(ids))], limit - len(ids)
    return {"input_ids": whole, "labels": whole, "attention_mask": [1] * len(ids) + [0] * rest}


def judge(folder: Path, said: dict[str, Any]) -> float:
    """Nats a token on the held-out rows: one evaluator for every adapter, padded, by transformers' own parts."""
    from peft import PeftModel

    base = load_base(find_model(said["model"]), DTYPES[said["dtype"]])
    model: Any = PeftModel.from_pretrained(base, folder / said["adapter"])
    rows = []
    for row in read_jsonl(folder / "held_out_ids.jsonl"):
        learnt = zip(row["input_ids"][1:], row["completion_mask"][1:], strict=True)
        labels = [*(token if learn else IGNORED for token, learn in learnt), IGNORED]
        rows.append(Row("held out", array("i", row["input_ids"]), array("i", labels), 1))
    config = TrainConfig(packing=False, per_device_train_batch_size=2)
    loss: float = held_out_loss(model, rows, config, DTYPES[said["dtype"]])["eval_loss"]
    return loss


def product_peak(dtype: torch.dtype) -> float:
    """FLOP a second of the best of three large matrix products on the CPU."""
    best = 0.0
    for rows, inner, columns in LARGE:
        left, right = torch.randn(rows, inner).to(dtype), torch.randn(inner, columns).to(dtype)
        for _ in range(3):
            start = time.perf_counter()
            left @ right
            best = max(best, 2 * rows * inner * columns / (time.perf_counter() - start))
    return best


ARMS = {"medmind": train_medmind, "trl": train_trl, "unsloth": train_unsloth, "seed": train_seed}


def main() -> None:
    arm, folder, said = sys.argv[1], Path(sys.argv[2]), json.load(sys.stdin)
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is not a result
    silence()
    if arm == "judge":
        found: dict[str, Any] = {"held_out_loss": judge(folder, said)}
    else:
        clock = Clock()
        clock.attach()
        ARMS[arm](folder, said)
        found = clock.summary()
        if arm == "medmind" and not torch.cuda.is_available():
            found["product_peak"] = product_peak(DTYPES[said["dtype"]])
    print(json.dumps(found), file=out, flush=True)


if __name__ == "__main__":
    main()
