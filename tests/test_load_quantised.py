"""Loading: which dtype, what is quantised and how, in how much memory, and whose code may run."""

import json
import subprocess
import sys
from array import array
from dataclasses import replace
from pathlib import Path
from typing import Any

import bitsandbytes
import pytest
import torch
from peft import prepare_model_for_kbit_training
from safetensors.torch import load_file
from tiny import tiny_mistral
from transformers import BitsAndBytesConfig

from medmind.core.errors import EnvironmentFault, UsageError
from medmind.models import quantised
from medmind.models.catalog import find_model
from medmind.models.load import load_base, pick_dtype
from medmind.models.stored import open_tensors
from medmind.train.adapter import prepare_model, quantization
from medmind.train.batches import Row, pack
from medmind.train.config import QuantizationConfig, TrainConfig
from medmind.train.loss import completion_loss


def settings(method: str, dtype: torch.dtype = torch.float32, **said: Any) -> BitsAndBytesConfig:
    return quantization(TrainConfig(method=method, quantization=QuantizationConfig(**said)), dtype)  # type: ignore[arg-type]


def load(folder: Path, method: str, dtype: torch.dtype = torch.float32, **said: Any) -> Any:
    return load_base(find_model(str(folder)), dtype, settings(method, dtype, **said))


@pytest.mark.parametrize(
    ("cuda", "bfloat16", "expected"),
    [
        (True, True, torch.bfloat16),
        (True, False, torch.float16),
        (False, True, torch.bfloat16),
        (False, False, torch.float32),
    ],
)
def test_auto_takes_what_the_hardware_has(
    cuda: bool, bfloat16: bool, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A T4 is a GPU that only emulates bfloat16."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or bfloat16
    )
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bfloat16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert pick_dtype("auto") is expected
    assert pick_dtype("float16") is torch.float16


@pytest.mark.parametrize(("method", "kind"), [("qlora", "Linear4bit"), ("lora8", "Linear8bitLt")])
def test_every_matrix_but_the_output_layer_is_quantised(method: str, kind: str, tiny_model: Path) -> None:
    model = load(tiny_model, method)
    expected = getattr(bitsandbytes.nn, kind)
    narrow = [name for name, module in model.named_modules() if isinstance(module, expected)]
    assert len(narrow) == 2 * 7 and all(".layers." in name for name in narrow)
    assert type(model.lm_head) is torch.nn.Linear
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_4_bits_are_of_the_kind_asked_for(tiny_model: Path) -> None:
    for kind, double in (("nf4", True), ("fp4", False)):
        state = load(tiny_model, "qlora", bnb_4bit_quant_type=kind, bnb_4bit_use_double_quant=double)
        layer = state.model.layers[0].mlp.up_proj.weight.quant_state
        assert (layer.quant_type, layer.nested, layer.blocksize) == (kind, double, 64)


def test_modules_to_skip_stay_whole(tiny_model: Path) -> None:
    model = load(tiny_model, "lora8", llm_int8_skip_modules=("q_proj", "lm_head"), llm_int8_threshold=4.0)
    attention = model.model.layers[1].self_attn
    assert type(attention.q_proj) is torch.nn.Linear
    assert attention.k_proj.state.threshold == 4.0


@pytest.mark.skipif(torch.cuda.is_available(), reason="of a machine without a GPU")
def test_what_has_no_effect_here_is_said(tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The seed's settings are accepted."""
    load(tiny_model, "lora8", llm_int8_enable_fp32_cpu_offload=True, llm_int8_skip_modules=("lm_head",))
    said = " ".join(capsys.readouterr().err.split())
    assert "llm_int8_enable_fp32_cpu_offload has no effect: without a GPU" in said
    assert "llm_int8_skip_modules: lm_head has no effect" in said
    assert "threshold" not in said
    load(tiny_model, "lora8", llm_int8_threshold=1.0)
    assert "llm_int8_threshold has no effect" in capsys.readouterr().err
    load(tiny_model, "qlora")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("shape", [(64, 128), (7, 192), (3, 64)])
def test_pieces_give_what_the_whole_gives(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    quantised.quantise_in_pieces()
    torch.manual_seed(0)
    weight = torch.randn(shape)
    found = []
    for piece in (2**30, 2**7):
        monkeypatch.setattr(quantised, "PIECE", piece)
        packed, state = bitsandbytes.functional.quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
        rounded, largest, _ = bitsandbytes.functional.int8_vectorwise_quant(weight.half())
        found.append([packed, state.absmax, state.offset, rounded, largest])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
    error = bitsandbytes.functional.dequantize_4bit(packed, state) - weight
    assert error.abs().mean() < 0.1 * weight.abs().mean()


def test_a_width_that_4_bits_would_garble_is_refused(tmp_path: Path) -> None:
    """bitsandbytes' kernel for CPUs counts blocks of 64 by the row, its quantiser by the matrix."""
    tiny_mistral(1, intermediate_size=96).save_pretrained(tmp_path)
    spec = replace(find_model("nano"), source=str(tmp_path))
    with pytest.raises(UsageError, match="down_proj has 96 columns, not a multiple of 64"):
        load_base(spec, torch.float32, settings("qlora"))
    load_base(spec, torch.float32, settings("lora8"))


def test_what_the_checkpoint_has_in_float32_is_trained_with_in_float32(tiny_model: Path) -> None:
    model = load(tiny_model, "qlora", torch.bfloat16)
    assert model.model.norm.weight.dtype == torch.bfloat16
    quantised.prepare(model, open_tensors(tiny_model))
    whole = {name: value for name, value in model.named_parameters() if type(value) is torch.nn.Parameter}
    stored = load_file(tiny_model / "model.safetensors")
    assert len(whole) == 2 * 2 + 2
    assert all(torch.equal(value, stored[name]) and value.dtype == torch.float32 for name, value in whole.items())
    assert not any(value.requires_grad for value in model.parameters())


def prepare_as_peft_does(model: Any, _: Any) -> None:
    prepare: Any = prepare_model_for_kbit_training
    prepare(model, use_gradient_checkpointing=False)


@pytest.mark.parametrize("method", ["qlora", "lora8"])
@pytest.mark.parametrize("tied", [False, True])
def test_narrow_embeddings_stay_narrow_and_train_as_wide_ones(
    tied: bool, method: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit as in PEFT's preparation: what it widens is rounded to where it came from before every product."""
    tiny_mistral(2, tie_word_embeddings=tied).bfloat16().save_pretrained(tmp_path)
    tokens = [array("i", range(3, 13)), array("i", range(90, 104))]
    batch = pack([Row("", ids, ids, 1) for ids in tokens])
    spec = replace(find_model("nano"), source=str(tmp_path))
    dtypes, learnt = [], []
    for preparation in (quantised.prepare, prepare_as_peft_does):
        monkeypatch.setattr(quantised, "prepare", preparation)
        model: Any = prepare_model(TrainConfig(method=method, dtype="bfloat16"), spec, 0)
        with torch.autocast("cpu", torch.bfloat16):
            loss = completion_loss(model, batch)
        loss.backward()
        learnt.append([loss, *(value.grad for value in model.parameters() if value.requires_grad)])
        dtypes.append(model.get_output_embeddings().weight.dtype)
    assert dtypes == [torch.bfloat16, torch.float32]
    assert len(learnt[0]) == 1 + 2 * 2 * 7
    assert all(torch.equal(one, other) for one, other in zip(*learnt, strict=True))


def test_a_large_tensor_is_widened_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.torch import save_file

    weights = {"a": torch.randn(33, 8).bfloat16(), "b": torch.randn(5).half()}
    save_file(weights, tmp_path / "model.safetensors")
    monkeypatch.setattr("medmind.models.stored.PIECE", 40)
    for name, tensor in open_tensors(tmp_path).items():
        assert torch.equal(tensor.widen(), weights[name].float())


LOADING = """
import re, sys
from dataclasses import replace
from pathlib import Path

import torch

from medmind.models.catalog import find_model
from medmind.models.load import load_base
from medmind.train.adapter import quantization
from medmind.train.config import TrainConfig

def memory(name):  # VmRSS, what this process holds, or VmHWM, the most it held
    return 1024 * int(re.search(rf"{name}:\\s+(\\d+)", Path("/proc/self/status").read_text()).group(1))

spec = replace(find_model("nano"), source=sys.argv[1])
bits = quantization(TrainConfig(method="qlora"), torch.bfloat16)
load_base(replace(spec, source=sys.argv[2]), torch.bfloat16, bits)  # all that is imported on the way
before = memory("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
model = load_base(spec, torch.bfloat16, bits)
print(memory("VmHWM") - before, model.get_memory_footprint())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for the peak")
def test_a_model_is_never_whole_in_memory(tmp_path: Path, tiny_model: Path) -> None:
    """In 4 bits it takes little more than it will keep: neither the 16 bits nor the file are held beside it."""
    tiny_mistral(
        1, hidden_size=1024, intermediate_size=4096, num_hidden_layers=4, head_dim=64, num_attention_heads=16
    ).to(torch.bfloat16).save_pretrained(tmp_path)
    command = [sys.executable, "-c", LOADING, str(tmp_path), str(tiny_model)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    peak, footprint = map(int, said.split()[-2:])
    linear = 4 * (2 * 1024 * 1024 + 2 * 1024 * 128 + 3 * 1024 * 4096)
    assert peak < 1.5 * linear  # 16 bits alone take twice as much
    assert footprint < 0.55 * linear + 2 * 2 * 8192 * 1024


def test_without_bitsandbytes_the_way_out_is_named(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(EnvironmentFault, match=r"need bitsandbytes.*pip install"):
        load(tiny_model, "qlora")


OWN_CODE = """
from transformers import MistralForCausalLM
class Own(MistralForCausalLM):
    pass
"""


def test_a_checkpoints_own_code_runs_only_where_the_recipe_trusts_it(tmp_path: Path) -> None:
    tiny_mistral(1).save_pretrained(tmp_path)
    (tmp_path / "own.py").write_text(OWN_CODE)
    config = json.loads((tmp_path / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "own.Own"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    spec = replace(find_model("nano"), source=str(tmp_path))
    assert type(load_base(spec)).__name__ == "MistralForCausalLM"
    assert type(load_base(replace(spec, trust_remote_code=True))).__name__ == "Own"
