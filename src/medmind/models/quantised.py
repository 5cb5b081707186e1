"""Frozen weights in 4 or 8 bits, by bitsandbytes: loaded piece by piece, and the same numbers whatever the mode.

On a CPU three of its ways are changed here; each has its reason beside it.
"""

import copy
import functools
import importlib
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from transformers import BitsAndBytesConfig, PreTrainedModel
from transformers.quantizers.quantizers_utils import should_convert_module

from medmind.core.errors import EnvironmentFault, UsageError
from medmind.core.heap import return_large_blocks
from medmind.core.log import say
from medmind.models.stored import StoredTensor

HEAD = "lm_head"
"""The output layer is never quantised: it costs most in quality, and tied to the embeddings it cannot be."""
PIECE = 2**19
"""Weights quantised at a time: whole, one matrix of a 7B model would take a gigabyte of intermediate results."""
THRESHOLD = 6.0
"""bitsandbytes' own: what an input must exceed to be multiplied unrounded."""
SECTION = "train.quantization"
NARROW = (torch.bfloat16, torch.float16)


def import_bitsandbytes() -> Any:
    try:
        return importlib.import_module("bitsandbytes")
    except ImportError as error:
        raise EnvironmentFault(
            f"weights or optimisers in 4 or 8 bits need bitsandbytes: {error}", todo="pip install bitsandbytes"
        ) from None


def load_settings(config: BitsAndBytesConfig, tensors: Iterable[str]) -> dict[str, Any]:
    """What from_pretrained is to be told; `tensors` are the names in the checkpoint."""
    import_bitsandbytes()
    tell_idle(config, {HEAD, *(name.removesuffix(".weight") for name in tensors)})
    whole = copy.deepcopy(config)
    whole.llm_int8_skip_modules = [*config.llm_int8_skip_modules, HEAD]
    settings: dict[str, Any] = {"quantization_config": whole}
    if torch.cuda.is_available():
        return settings | ({"device_map": "auto"} if config.llm_int8_enable_fp32_cpu_offload else {})
    quantise_in_pieces()
    return settings | {"device_map": {"": "cpu"}}


def tell_idle(config: BitsAndBytesConfig, modules: set[str]) -> None:
    """Prints which settings have no effect here."""
    on_cpu = not torch.cuda.is_available()
    for name in config.llm_int8_skip_modules:
        if all(should_convert_module(module, [name]) for module in modules):
            raise UsageError(f'{SECTION}.llm_int8_skip_modules: the model has no module "{name}"')
        if name == HEAD:
            say(f"{SECTION}.llm_int8_skip_modules: {HEAD} has no effect: the output layer is left whole anyway")
    if config.llm_int8_enable_fp32_cpu_offload and on_cpu:
        say(f"{SECTION}.llm_int8_enable_fp32_cpu_offload has no effect: without a GPU all is on the CPU")
    if config.load_in_8bit and config.llm_int8_threshold != THRESHOLD and on_cpu:
        say(f"{SECTION}.llm_int8_threshold has no effect: on a CPU inputs are not rounded, so there are no outliers")


KEYS = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)


@functools.cache
def quantise_in_pieces() -> None:
    """Rows and blocks are quantised each by itself, so that the pieces give what the whole would."""
    own: dict[str, Any] = {"quantize_4bit": quantise_4bit, "int8_vectorwise_quant": quantise_int8}
    for name, work in own.items():
        operator = f"bitsandbytes::{name}"
        if not torch._C._dispatch_has_kernel_for_dispatch_key(operator, "CPU"):
            general: Any = torch.library.get_kernel(operator, "CPU")
            torch.library.impl(operator, "cpu")(functools.partial(work, general))


def quantise_4bit(general: Any, weight: torch.Tensor, blocksize: int, kind: str, storage: torch.dtype) -> Any:
    numbers = weight.reshape(-1)
    packed = torch.empty((len(numbers) + 1) // 2, 1, dtype=torch.uint8)
    largest = torch.empty(-(-len(numbers) // blocksize))
    for start in range(0, len(numbers), PIECE):
        part, part_largest = general.call_boxed(KEYS, numbers[start : start + PIECE], blocksize, kind, torch.uint8)
        packed[start // 2 :][: len(part)] = part
        largest[start // blocksize :][: len(part_largest)] = part_largest
    return packed.view(storage), largest


def quantise_int8(general: Any, rows: torch.Tensor, threshold: float = 0.0) -> Any:
    if threshold or rows.dim() != 2:
        return general.call_boxed(KEYS, rows, threshold)
    rounded, largest = torch.empty_like(rows, dtype=torch.int8), torch.empty(len(rows))
    step = max(1, PIECE // rows.shape[1])
    for start in range(0, len(rows), step):
        piece = slice(start, start + step)
        rounded[piece], largest[piece], _ = general.call_boxed(KEYS, rows[piece], 0.0)
    return rounded, largest, None


def settle(model: PreTrainedModel, config: BitsAndBytesConfig) -> None:
    """After loading: a forward pass on a CPU does the same in training and in evaluation."""
    places = getattr(model, "hf_device_map", {}).values()
    if config.llm_int8_enable_fp32_cpu_offload and torch.cuda.is_available() and "cpu" not in places:
        say(f"{SECTION}.llm_int8_enable_fp32_cpu_offload has no effect: all of the model fits on the GPU")
    bitsandbytes = import_bitsandbytes()
    for name, module in model.named_modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            if module.in_features % module.weight.blocksize and module.weight.device.type == "cpu":
                # Its kernel counts the blocks of a row, where its quantiser counts those of the matrix.
                raise UsageError(
                    f"{name} has {module.in_features} columns, not a multiple of {module.weight.blocksize}: "
                    "4 bits cannot be computed with on a CPU",
                    todo="choose train.method lora8 or lora",
                )
            # Else the first evaluation repacks the weights for a kernel without gradients, for training too.
            module.support_avx512bf16_for_cpu = False
        elif isinstance(module, bitsandbytes.nn.Linear8bitLt) and module.weight.device.type == "cpu":
            module.__class__ = unrounded(bitsandbytes)


@functools.cache
def unrounded(bitsandbytes: Any) -> Any:
    """Linear8bitLt as it trains on a CPU; its evaluation would round the inputs too, and measure another model."""

    class Linear8bit(bitsandbytes.nn.Linear8bitLt):  # type: ignore[misc]
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.weight.SCB is not None:  # DoRA's look at the weight puts CB back, without its scales
                self.init_8bit_state()
            self.state.is_training = True
            result: torch.Tensor = bitsandbytes.matmul(x, self.weight, bias=self.bias, state=self.state)
            return result

    return Linear8bit


def prepare(model: PreTrainedModel, tensors: Mapping[str, StoredTensor]) -> None:
    """Frozen, and the same numbers as PEFT's preparation for training, which widens all that is not quantised.

    Here only the norms are: a product rounds any matrix to where it came from, and what the embeddings give is widened
    token by token. `tensors` are the checkpoint's: what is float32 there is float32 here.
    """
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(False)
        stored = tensors.get(name)
        if parameter.dtype in NARROW and stored is not None and (parameter.dim() == 1 or stored.dtype not in NARROW):
            parameter.data = stored.widen().to(parameter.device)
    model.get_input_embeddings().register_forward_hook(lambda _module, _inputs, states: states.float())
    return_large_blocks()
