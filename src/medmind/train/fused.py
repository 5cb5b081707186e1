"""Faster twins of a decoder's parts on a CPU: the same mathematics in fewer passes over memory.

`fuse` changes the class of the parts it knows; the original class is the slow twin, and does all they do not know.
"""

from typing import Any

import torch
from peft.tuners.lora import Linear as LoraLinear
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRMSNorm
from transformers.models.mistral.modeling_mistral import MistralDecoderLayer, MistralRMSNorm

from medmind.train.compiled import passes_for
from medmind.train.heads import Documents, Heads
from medmind.train.layer import CUTS, Facts, Layer
from medmind.train.norm import Normalise
from medmind.train.precision import product_dtype
from medmind.train.products import Products


class Adapt(torch.autograd.Function):
    """x W' + scale (x A') B' for a frozen W: products in the dtype of the computation, A and B kept in their own."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        a: torch.Tensor,
        b: torch.Tensor,
        scale: float,
        dtype: torch.dtype,
    ) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1]).to(dtype)
        narrow_a, narrow_b = a.to(dtype), b.to(dtype)
        low = rows @ narrow_a.T
        result = (rows @ weight.to(dtype).T).addmm_(low, narrow_b.T, alpha=scale)
        ctx.save_for_backward(rows, low, weight, narrow_a, narrow_b)
        ctx.scale, ctx.shape, ctx.dtypes = scale, x.shape, (x.dtype, a.dtype, b.dtype)
        return result.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        rows, low, weight, a, b = ctx.saved_tensors
        d_out = gradients[0].reshape(len(rows), -1)
        d_low = (d_out @ b).mul_(ctx.scale)
        d_a, d_b = d_low.T @ rows, (d_out.T @ low).mul_(ctx.scale)
        d_x = None
        if ctx.needs_input_grad[0]:
            d_x = (d_out @ weight.to(rows.dtype)).addmm_(d_low, a).view(ctx.shape).to(ctx.dtypes[0])
        return d_x, None, d_a.to(ctx.dtypes[1]), d_b.to(ctx.dtypes[2]), None, None


class FusedNorm(MistralRMSNorm):
    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        if hidden_states.device.type != "cpu":
            slow: torch.Tensor = super().forward(hidden_states)
            return slow
        function: Any = Normalise
        dtype = product_dtype(hidden_states)
        result: torch.Tensor = function.apply(hidden_states, self.weight, self.variance_epsilon, dtype)
        return result


class FusedLlamaNorm(FusedNorm, LlamaRMSNorm):
    """The two classes differ in nothing but their name."""


class FusedLora(LoraLinear):
    def forward(self, x: torch.Tensor, *args: Any, **settings: Any) -> torch.Tensor:
        if args or settings or self.disable_adapters or self.merged or x.device.type != "cpu":
            slow: torch.Tensor = super().forward(x, *args, **settings)
            return slow
        [name] = self.lora_A
        a, b = self.lora_A[name].weight, self.lora_B[name].weight
        function: Any = Adapt
        dtype = product_dtype(x)
        with torch.autocast("cpu", enabled=False):
            result: torch.Tensor = function.apply(x, self.base_layer.weight, a, b, self.scaling[name], dtype)
        return result


class FastLayer:
    """Before the class of a decoder layer."""

    def forward(self: Any, hidden_states: torch.Tensor, attention_mask: Any = None, **settings: Any) -> torch.Tensor:
        documents = documents_of(hidden_states, attention_mask, **settings)
        known = facts_of(self, hidden_states, documents) if documents else None
        if known is None:
            twin: Any = super()
            slow: torch.Tensor = twin.forward(hidden_states, attention_mask=attention_mask, **settings)
            return slow
        facts, adapters = known
        function: Any = Layer
        with torch.autocast("cpu", enabled=False):
            result: torch.Tensor = function.apply(
                hidden_states, *settings["position_embeddings"], facts, documents, *adapters
            )
        return result


def documents_of(
    hidden: torch.Tensor,
    mask: torch.Tensor | None,
    segments: torch.Tensor | None = None,
    shared: int = 0,
    past_key_values: Any = None,
    **settings: Any,
) -> Documents | None:
    """Those packed; None where this is not a packed row on a CPU."""
    if segments is None or past_key_values is not None or hidden.device.type != "cpu" or len(hidden) != 1:
        return None
    lengths: list[int] = segments.tolist()
    packed = mask is None if len(lengths) == 1 else mask is not None and mask.numel() == 0
    return Documents(lengths, shared) if packed and sum(lengths) == hidden.shape[1] else None


def facts_of(layer: Any, hidden: torch.Tensor, documents: Documents) -> tuple[Facts, list[torch.Tensor | None]] | None:
    """What the function needs to know of a layer, and its adapters; None where there is more to it."""
    attention, groups = layer.self_attn, getattr(layer, "products", None)
    config = attention.config
    window = getattr(config, "sliding_window", None) or documents.longest
    if documents.shared and not passes_for(hidden):
        return None
    if groups is None or window < documents.longest or (layer.training and attention.attention_dropout):
        return None
    if product_dtype(hidden) != hidden.dtype or any(is_watched(module) for module in layer.modules()):
        return None
    modules = matrices(layer)
    if not all(map(is_known, modules)) or not all(one.matrix.dtype == hidden.dtype and one.hold for one in groups):
        return None
    norms = (layer.input_layernorm, layer.post_attention_layernorm)
    if any(norm.weight.requires_grad for norm in norms):
        return None
    gains = tuple((norm.weight, norm.variance_epsilon) for norm in norms)
    scales = tuple(tuple(scale_of(module) for module in modules[cut]) for cut in CUTS)
    shape = Heads(config.num_key_value_heads, attention.num_key_value_groups, attention.head_dim, attention.scaling)
    return Facts(gains, groups, scales, shape), [one for module in modules for one in adapters_of(module)]


def matrices(layer: Any) -> list[Any]:
    attention, mlp = layer.self_attn, layer.mlp
    modules = (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj)
    return [*modules, mlp.gate_proj, mlp.up_proj, mlp.down_proj]


def is_known(module: torch.nn.Module) -> bool:
    """Frozen, with one plain adapter in use or none."""
    if isinstance(module, LoraLinear):
        return is_plain(module) and not (module.merged or module.disable_adapters)
    return is_frozen(module)


def adapters_of(module: Any) -> tuple[Any, Any]:
    if not isinstance(module, LoraLinear):
        return None, None
    [name] = module.lora_A
    return module.lora_A[name].weight, module.lora_B[name].weight


def scale_of(module: Any) -> float:
    return module.scaling[next(iter(module.lora_A))] if isinstance(module, LoraLinear) else 1.0


def join_products(layer: Any) -> None:
    """Lays the layer's matrices side by side for the function, where it knows them all."""
    modules = matrices(layer)
    bases: list[Any] = [module.base_layer if isinstance(module, LoraLinear) else module for module in modules]
    same = len({(base.weight.dtype, base.weight.device.type) for base in bases}) == 1
    if layer.self_attn.config.hidden_act != "silu" or not same or not all(map(is_known, modules)):
        return
    if torch.cuda.is_available() or bases[0].weight.device.type != "cpu":  # on a GPU the twin does it
        return
    ranks = [0 if a is None else len(a) for a, _ in map(adapters_of, modules)]
    layer.products = tuple(Products(bases[cut], ranks[cut]) for cut in CUTS)


def is_watched(module: torch.nn.Module) -> bool:
    """Whether someone waits for its call."""
    return bool(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks)


LAYERS: Any = (MistralDecoderLayer, LlamaDecoderLayer)
SWAPS: Any = {MistralRMSNorm: FusedNorm, LlamaRMSNorm: FusedLlamaNorm}
SWAPS |= {slow: type(f"Fused{slow.__name__}", (FastLayer, slow), {}) for slow in LAYERS}


def fuse(model: torch.nn.Module) -> None:
    """Turns the parts it knows into their faster twins, where they are."""
    for module in model.modules():
        if type(module) in SWAPS:
            if type(module) in LAYERS:
                join_products(module)
            module.__class__ = SWAPS[type(module)]
        elif type(module) is LoraLinear and is_plain(module):
            module.__class__ = FusedLora


def is_plain(module: LoraLinear) -> bool:
    """One adapter without dropout, bias or variant, over a frozen matrix without bias."""
    dropout = [part for part in module.lora_dropout.values() if not isinstance(part, torch.nn.Identity)]
    whole = len(module.lora_A) == 1 and is_frozen(module.base_layer)
    return whole and not (dropout or module.lora_variant or any(module.lora_bias.values()))


def is_frozen(module: torch.nn.Module) -> bool:
    return type(module) is torch.nn.Linear and module.bias is None and not module.weight.requires_grad
