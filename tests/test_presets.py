"""The published systems as presets: every value they state, word for word; two steps of each with nano."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from preset_rows import settings, suite_settings

from medmind.cli.main import main
from medmind.core.jsonl import read_json, read_jsonl
from medmind.core.rundir import RunDir
from medmind.core.types import Example
from medmind.data.sources.facts import read_facts
from medmind.data.sources.known import SOURCES
from medmind.data.sources.pubmedqa import official_labels
from medmind.data.sources.seam import Row
from medmind.data.stage.assemble import assemble
from medmind.models.catalog import find_model
from medmind.models.load import pick_dtype
from medmind.models.tokenizer import open_tokenizer
from medmind.prompts.families import open_renderer
from medmind.prompts.tasks.known import TASKS
from medmind.recipe.load import PRESETS, list_presets, load_recipe
from medmind.recipe.schema import Recipe
from medmind.recipe.yamls import read_mapping

SEEDS = Path(__file__).parent.parent.parent / "shared" / "seeds"
ALL_SEVEN = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
Stated = list[tuple[str, Any, str]]
"""A recipe's key, its value, and the words of the seed that say so."""

MEDQUAD: Stated = [
    ("model", "Mistral-7B-Instruct-v0.3", "huggingface.co/mistralai/Mistral-7B-Instruct-v0.3"),
    ("data.source", "medquad", "kaggle.com/datasets/pythonafroz/medquad-medical-question-answer-for-ai-research"),
    ("train.method", "lora", "By freezing the base model weights and fine-tuning only the LoRA adapter modules"),
    ("train.lora.target_modules", ("q_proj", "v_proj"), "LoRA adapter modules(Q and V modules)"),
]
TERMS: Stated = [
    ("model", "Mistral-7B-Instruct-v0.3", "Base: Mistral 7B Instruct v0.3"),
    ("train.method", "qlora", "4-bit quantization maintains quality while reducing memory"),
    ("train.lora.r", 32, "LoRA (rank=32, alpha=32)"),
    ("train.lora.lora_alpha", 32, "LoRA (rank=32, alpha=32)"),
    ("train.lora.target_modules", ALL_SEVEN, "target modules (attention + MLP layers)"),
    ("train.num_train_epochs", 5, "Epochs: 5"),
    ("train.per_device_train_batch_size", 2, "Batch Size: 2 (gradient accumulation: 4)"),
    ("train.gradient_accumulation_steps", 4, "Batch Size: 2 (gradient accumulation: 4)"),
    ("train.learning_rate", 3e-4, "Learning Rate: 3e-4 (cosine scheduler)"),
    ("train.lr_scheduler_type", "cosine", "Learning Rate: 3e-4 (cosine scheduler)"),
    ("train.optim", "adamw_8bit", "Optimizer: AdamW 8-bit"),
    ("data.validation_fraction", 0, "Training: 150 examples, 5 epochs"),
    ("export.modelfile_from", "q4_k_m", "GGUF q4_k_m quantized model"),
]
O1_REASONING: Stated = [
    ("model", "Mistral-7B-v0.3", "Model: Mistral-7B v0.3 (7B)"),
    ("data.source", "medical_o1", "Dataset: FreedomIntelligence/medical-o1-reasoning-SFT"),
    ("data.path", "FreedomIntelligence/medical-o1-reasoning-SFT", "FreedomIntelligence/medical-o1-reasoning-SFT"),
    ("data.task", "reasoned", "multi-step reasoning, explanation, and critical thinking"),
    ("train.method", "qlora", "Supports 4-bit/8-bit quantization and LoRA"),
]
PUBMEDQA: Stated = [
    ("model", "Mistral-7B-v0.3", "mistralai/Mistral-7B-v0.3"),
    ("data.source", "pubmedqa", "`qiaojin/PubMedQA` (pqa_labeled subset)"),
    ("data.path", "qiaojin/PubMedQA", "`qiaojin/PubMedQA` (pqa_labeled subset)"),
    ("data.setting", "question-only", "Question: [MEDICAL_QUESTION]"),
    ("data.system_prompt", "Answer the following medical question concisely.", "Answer the following medical question"),
    ("train.method", "qlora", "load_in_4bit=True"),
    ("train.lora.r", 16, "r=16"),
    ("train.lora.lora_alpha", 32, "lora_alpha=32"),
    ("train.lora.lora_dropout", 0.05, "lora_dropout=0.05"),
    ("train.lora.target_modules", ("q_proj", "v_proj"), 'target_modules=["q_proj", "v_proj"]'),
    ("train.dtype", "float16", "**Precision:** FP16"),
    ("train.max_length", 512, "**Sequence Length:** 512 tokens"),
    ("train.overflow", "truncate", "Limited to 512 tokens"),
    ("train.per_device_train_batch_size", 4, "**Batch Size:** 4 (per device)"),
    ("train.gradient_accumulation_steps", 4, "**Gradient Accumulation:** 4 steps"),
    ("train.learning_rate", 2e-4, "**Learning Rate:** 2e-4"),
    ("train.num_train_epochs", 7, "**Training Epochs:** 7"),
    ("train.warmup_steps", 100, "**Warmup Steps:** 100"),
    ("train.logging_steps", 10, "logging every 10 steps"),
]
SYNTHETIC_QA: Stated = [
    ("model", "alecocc/mistral-7B-SFT-medqa-graph-cot", 'model_name = "alecocc/mistral-7B-SFT-medqa-graph-cot"'),
    ("data.source", "synthetic_qa", 'load_dataset("thesven/SyntheticMedicalQA-4336")'),
    ("data.path", "thesven/SyntheticMedicalQA-4336", 'load_dataset("thesven/SyntheticMedicalQA-4336")'),
    ("train.method", "lora8", "The model is trained with 8-bit quantization"),
    ("train.quantization.llm_int8_enable_fp32_cpu_offload", True, "llm_int8_enable_fp32_cpu_offload=True"),
    ("train.quantization.llm_int8_skip_modules", ("lm_head",), 'llm_int8_skip_modules=["lm_head"]'),
    ("train.lora.r", 16, "r=16"),
    ("train.lora.lora_alpha", 32, "lora_alpha=32"),
    ("train.lora.lora_dropout", 0.1, "lora_dropout=0.1"),
    ("train.lora.target_modules", ALL_SEVEN, '"gate_proj", "up_proj", "down_proj"'),
    ("train.dtype", "float32", "torch_dtype=torch.float32"),
    ("train.per_device_train_batch_size", 1, "per_device_train_batch_size=1"),
    ("train.gradient_accumulation_steps", 16, "gradient_accumulation_steps=16"),
    ("train.gradient_checkpointing", True, "gradient_checkpointing=True"),
    ("train.num_train_epochs", 3, "num_train_epochs=3"),
    ("train.learning_rate", 1e-4, "learning_rate=1e-4"),
    ("train.warmup_steps", 100, "warmup_steps=100"),
    ("train.optim", "adamw_torch", 'optim="adamw_torch"'),
    ("train.max_grad_norm", 0.3, "max_grad_norm=0.3"),
    ("train.weight_decay", 0.01, "weight_decay=0.01"),
    ("train.max_length", 1024, "max_length=1024"),
    ("train.overflow", "truncate", "truncation=True"),
    ("train.save_strategy", "epoch", 'save_strategy="epoch"'),
    ("train.eval_steps", 50, "eval_steps=50"),
    ("train.logging_steps", 10, "logging_steps=10"),
]


def but_with(stated: Stated, model: str, words: str) -> Stated:
    return [("model", model, words), *stated[1:]]


SEED_OF = {"medquad": "000", "terms": "001", "o1-reasoning": "002", "pubmedqa": "003", "synthetic-qa": "004"}
STATED = {
    "medquad": MEDQUAD,
    "terms": TERMS,
    "o1-reasoning": O1_REASONING,
    "pubmedqa": PUBMEDQA,
    "pubmedqa-llama-3.2-1b": but_with(PUBMEDQA, "Llama-3.2-1B", "Meta Llama 3.2 1B"),
    "pubmedqa-llama-3.2-3b": but_with(PUBMEDQA, "Llama-3.2-3B", "Meta Llama 3.2 3B"),
    "synthetic-qa": SYNTHETIC_QA,
}
NOT_FOLLOWED: dict[str, list[tuple[str, str]]] = {
    "medquad": [],
    "terms": [("bare question", "Base Model**: Unstructured paragraph")],
    "o1-reasoning": [("Complex_CoT", "instruction, input, and output fields")],
    "pubmedqa": [
        ("outside the official test", "subset of 100 samples from the PubMedQA test set"),
        ('first 100 are all "yes"', "subset of 100 samples from the PubMedQA test set"),
        ("It counts yes and no", "binary classification accuracy (yes/no answers)"),
        (
            "A line names the possible answers",
            "### Instruction:\nAnswer the following medical question concisely.\n\nQ",
        ),
        ("cuts after 10", "max 10 new tokens"),
        ("Padding to a fixed length", "**Padding:** Standardized input lengths"),
        ("its library's default is fp4", "load_in_4bit=True"),
    ],
    "synthetic-qa": [
        ("load_in_7Bit", "load_in_7Bit=True"),
        ("padding included", 'tokenized["labels"] = tokenized["input_ids"].copy()'),
        ("EOS is the padding", "tokenizer.pad_token = tokenizer.eos_token"),
        ("trust_remote_code=True", "trust_remote_code=True"),
        ("20 %, which all watch the loss", "**80% training** and **20% validation**"),
    ],
}
"""What the comments of a preset say about the places where it leaves its seed, and the seed's words there."""
RUN = sorted({*list_presets()} - {"nano"})
"""All but the pre-training of nano, which reads 118 MB of prose."""


def value_of(recipe: Recipe, key: str) -> Any:
    found: Any = recipe
    for name in key.split("."):
        found = getattr(found, name)
    return found


@pytest.mark.parametrize("preset", STATED)
def test_a_preset_is_what_its_seed_states(preset: str) -> None:
    recipe = load_recipe(preset)
    stated = [(key, value) for key, value, _ in STATED[preset]]
    assert [(key, value_of(recipe, key)) for key, _ in stated] == stated


@pytest.mark.parametrize("preset", STATED)
def test_the_seed_says_so_in_these_words(preset: str) -> None:
    if not SEEDS.is_dir():
        pytest.skip(f"needs the texts of the published systems ({SEEDS} is absent)")
    seed = preset.partition("-llama")[0]
    (file,) = SEEDS.glob(f"{SEED_OF[seed]}_*.txt")
    said = [words for *_, words in STATED[preset]] + [words for _, words in NOT_FOLLOWED[seed]]
    text = file.read_text(encoding="utf-8")
    assert [words for words in said if words not in text] == []


@pytest.mark.parametrize("preset", NOT_FOLLOWED)
def test_a_preset_says_where_it_leaves_its_seed(preset: str) -> None:
    comments = re.findall(r"# (.*)", (PRESETS / f"{preset}.yaml").read_text(encoding="utf-8"))
    assert [words for words, _ in NOT_FOLLOWED[preset] if words not in " ".join(comments)] == []


@pytest.mark.parametrize("preset", [*STATED, "pubmedqa-context", "exams"])
def test_what_no_seed_states_has_a_comment(preset: str) -> None:
    """On its own line: why this value."""
    file = PRESETS / f"{preset}.yaml"
    values, places, _ = read_mapping(file)
    lines = file.read_text(encoding="utf-8").splitlines()
    stated = {key for key, _, _ in STATED.get(preset, [])} | {"extends", "description"}
    own = [key for key in places if not any(other.startswith(f"{key}.") for other in places)]
    unsaid = [key for key in own if key not in stated and "  # " not in lines[int(places[key].split()[-1]) - 1]]
    assert values and unsaid == []


def test_the_family_of_pubmedqa_differs_only_where_it_says_so() -> None:
    own = {"name", "description"}
    seed = load_recipe("pubmedqa").model_dump(exclude=own)
    for preset, model in (("pubmedqa-llama-3.2-1b", "Llama-3.2-1B"), ("pubmedqa-llama-3.2-3b", "Llama-3.2-3B")):
        assert load_recipe(preset).model_dump(exclude=own) == seed | {"model": model}
    context = {"data.setting": "reasoning-required", "train.max_length": 1024, "train.overflow": "drop"}
    told = load_recipe("pubmedqa", [f"{key}={value}" for key, value in context.items()])
    assert load_recipe("pubmedqa-context").model_dump(exclude=own) == told.model_dump(exclude=own)


def test_the_demo_trains_as_it_always_did() -> None:
    """Its figures are published: what `terms` becomes must not reach it."""
    train = load_recipe("demo").train.model_dump()
    base = load_recipe("base").train.model_dump()
    changed = {key: value for key, value in train.items() if value != base[key]}
    lora = base["lora"] | {"r": 32, "lora_alpha": 64, "target_modules": ALL_SEVEN}
    assert changed == {"lora": lora, "num_train_epochs": 16, "learning_rate": 2e-3}
    assert (train["method"], train["optim"], train["per_device_train_batch_size"]) == ("lora", "adamw_torch", 4)


def test_medquads_adapter_has_the_size_its_seed_names() -> None:
    """200 to 300 MB in float32: the only trace of a rank in its text."""
    recipe, shape = load_recipe("medquad"), find_model("Mistral-7B-Instruct-v0.3").shape
    q, v = shape.num_attention_heads * shape.head_dim, shape.num_key_value_heads * shape.head_dim
    parameters = shape.num_hidden_layers * recipe.train.lora.r * (2 * shape.hidden_size + q + v)
    assert parameters * 4 == 218_103_808


def test_the_packaged_terms_have_the_seeds_categories() -> None:
    counts = [
        (50, 13, "medical_terminology"),
        (40, 16, "abbreviations"),
        (25, 8, "disease_mechanisms"),
        (20, 6, "anatomy_physiology"),
        (15, 7, "diagnostic_tests"),
    ]
    rows = [(row.part, row.example.metadata["category"]) for row in read_facts()]
    assert [(rows.count(("train", name)), rows.count(("test", name)), name) for *_, name in counts] == counts


def row_text(preset: str, folder: Path) -> tuple[Example, str]:
    """The first row of a preset as its own model's format lays it out; nano's tokenizer stands in."""
    recipe = load_recipe(preset, settings(load_recipe(preset).data.source, folder))
    rows = SOURCES.get(recipe.data.source).read(recipe.data)
    example = next(row.example for row in rows if isinstance(row, Row))
    renderer = open_renderer(find_model(recipe.model).renderer, open_tokenizer(find_model("nano")))
    return example, renderer.text(TASKS.get(example.task).learn(example, recipe.data.system_prompt))


@pytest.mark.parametrize("preset", [name for name in STATED if name.startswith("pubmedqa")])
def test_pubmedqa_rows_have_the_seeds_template(preset: str, tmp_path: Path) -> None:
    """One line is ours; the reply is the decision, then why."""
    example, text = row_text(preset, tmp_path)
    assert text == (
        "<s>### Instruction:\nAnswer the following medical question concisely.\n\n"
        f"Question: {example.turns[0].text}\nAnswer yes, no or maybe.\n\n"
        f"### Response:\n{example.target.capitalize()}. {example.reasoning}</s>"
    )


def test_the_other_base_models_rows_have_theirs(tmp_path: Path) -> None:
    example, text = row_text("synthetic-qa", tmp_path)
    assert text == f"<s>### Question:\n{example.turns[0].text}\n\n### Answer:\n{example.target}</s>"
    example, text = row_text("o1-reasoning", tmp_path)
    reply = f"## Thinking\n\n{example.reasoning}\n\n## Final Response\n\n{example.target}"
    assert text == f"<s>### Instruction:\n{example.turns[0].text}\n\n### Response:\n{reply}</s>"
    assert find_model(load_recipe("terms").model).renderer == "mistral-v3"


@pytest.mark.parametrize("preset", ["pubmedqa", "pubmedqa-context"])
def test_pubmedqa_is_trained_on_none_of_the_official_test(preset: str, tmp_path: Path) -> None:
    recipe = load_recipe(preset, settings("pubmedqa", tmp_path))
    parts = {name: list(rows) for name, rows in assemble(recipe.data, recipe.seed).parts.items()}
    official = official_labels()
    assert {row.id for row in parts["test"]} == {*official}
    assert len(parts["train"]) + len(parts["validation"]) == 60
    assert not {row.id for row in [*parts["train"], *parts["validation"]]} & {*official}
    assert {bool(row.passages) for row in parts["train"]} == {preset == "pubmedqa-context"}


def test_synthetic_qa_trains_on_80_of_100(tmp_path: Path) -> None:
    recipe = load_recipe("synthetic-qa", settings("synthetic_qa", tmp_path))
    parts = assemble(recipe.data, recipe.seed).parts
    assert {name: len(rows) for name, rows in parts.items()} == {"train": 40, "validation": 5, "test": 5}
    assert recipe.data.max_validation_rows >= 0.1 * 4336


@pytest.mark.parametrize("preset", RUN)
def test_a_preset_takes_two_steps_with_nano(preset: str, tmp_path: Path) -> None:
    """Its own method, optimiser and schedule, through the real stages; only the model and the data are small.

    Without a GPU float16 is refused, so there auto decides.
    """
    recipe = load_recipe(preset)
    refused = recipe.train.dtype == "float16" and not torch.cuda.is_available()
    dtype = "auto" if refused else recipe.train.dtype
    sets = ["model=nano", "train.max_steps=2", "train.logging_steps=1", f"train.dtype={dtype}"]
    sets += settings(recipe.data.source, tmp_path) + suite_settings(recipe.data.suites, tmp_path)
    out = tmp_path / "run"
    assert main(["train", preset, "--out", str(out), *(word for one in sets for word in ("--set", one))]) == 0
    rundir = RunDir(out)
    losses = [line["loss"] for line in read_jsonl(rundir.metrics) if "loss" in line]
    assert len(losses) == 2 and all(0 < loss < 10 for loss in losses)
    written, lora = read_json(rundir.adapter / "adapter_config.json"), recipe.train.lora
    found = [written[name] for name in ("r", "lora_alpha", "lora_dropout")]
    assert found == [lora.r, lora.lora_alpha, lora.lora_dropout]
    assert set(written["target_modules"]) == set(lora.target_modules or ALL_SEVEN)
    assert read_json(rundir.plan)["dtype"] == str(pick_dtype(dtype)).removeprefix("torch.")
