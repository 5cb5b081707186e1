"""What tests share: where the real data lies, and a model small enough to train in a second."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data; the test is skipped, by name, where it is absent."""
    folder = Path(os.environ.get("MEDMIND_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"needs the real data folder ({folder} is absent)")
    return folder


@pytest.fixture
def one_thread() -> Iterator[None]:
    """torch has no other, as each lane of training has."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder in nano's format, two layers of 64 with random weights and nano's own tokenizer."""
    from tiny import tiny_mistral

    from medmind.models.catalog import NANO

    folder = tmp_path_factory.mktemp("tiny")
    model = tiny_mistral(
        1, head_dim=16, max_position_embeddings=512, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2
    )
    model.save_pretrained(folder)
    shutil.copy(NANO / "tokenizer.json", folder)
    return folder


@pytest.fixture(scope="session")
def wide_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers of nano itself (256 wide, so that K-quants are possible), random bfloat16 weights."""
    import torch
    from transformers import AutoConfig, MistralForCausalLM

    from medmind.models.catalog import NANO

    folder = tmp_path_factory.mktemp("wide")
    torch.manual_seed(1)
    model = MistralForCausalLM(AutoConfig.from_pretrained(NANO, num_hidden_layers=2))
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.1)
    model.to(torch.bfloat16).save_pretrained(folder)
    shutil.copy(NANO / "tokenizer.json", folder)
    return folder


@pytest.fixture(scope="session")
def wide_adapter(wide_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter of `wide_model` that changes what it says."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("adapter")
    torch.manual_seed(2)
    base = AutoModelForCausalLM.from_pretrained(wide_model, dtype=torch.float32)
    targets = ["q_proj", "k_proj", "down_proj"]
    adapted = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules=targets, task_type="CAUSAL_LM"))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    adapted.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def gguf_file(wide_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`wide_model` in float32, beside its checkpoint in merged/."""
    from medmind.export import gguf
    from medmind.export.merge import merge
    from medmind.export.metadata import Facts
    from medmind.models.catalog import describe_folder

    pytest.importorskip("cyllama")
    folder = tmp_path_factory.mktemp("export")
    merge(describe_folder(wide_model), wide_model, folder / "merged")
    gguf.write(folder / "merged", folder / "model.gguf", "f32", Facts("tiny", "MIT", "nano", ""))
    return folder / "model.gguf"
