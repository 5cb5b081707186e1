"""Attention over packed rows, one document at a time, through transformers' own attention interface.

It works only where the call brings the segment lengths; a padding mask or a cache goes to sdpa as always, and to
nobody where several documents came with it: sdpa would let them see each other.
"""

from contextlib import suppress
from importlib import import_module
from itertools import accumulate
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from medmind.train.blockwise import causal_attention

varlen_attn: Any = None  # where torch has no such kernel
with suppress(ImportError):
    varlen_attn = import_module("torch.nn.attention.varlen").varlen_attn

NAME = "medmind_packed"


def packed_mask(batch_size: int, q_length: int, kv_length: int, **settings: Any) -> torch.Tensor | None:
    """An empty tensor stands for "packed: the segments say it all"; anything else is sdpa's own mask.

    transformers finds restarting positions by itself and then forbids the causal short cut.
    """
    packed = not settings.get("allow_is_causal_skip", True) and settings.get("attention_mask") is None
    if packed and batch_size == 1 and q_length == kv_length:
        return torch.empty(1, 1, 0, 0, dtype=torch.bool)
    return sdpa_mask(batch_size=batch_size, q_length=q_length, kv_length=kv_length, **settings)


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    segments: torch.Tensor | None = None,
    shared: int = 0,
    **settings: Any,
) -> tuple[torch.Tensor, None]:
    """query (1, heads, tokens, size) → (1, tokens, heads, size); no token sees another document.

    But for the tokens that all `shared`, which only the first document brings.
    """
    is_packed = attention_mask is not None and attention_mask.numel() == 0
    lengths = [] if segments is None else segments.tolist()
    whole = query.shape[2] == key.shape[2] == sum(lengths)
    if (is_packed and not whole) or (len(lengths) > 1 and not is_packed):
        raise ValueError("packed documents need their segment lengths, restarting positions, and no mask or cache")
    if not whole or not (is_packed or attention_mask is None):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **settings
        )
    windowed = sliding_window is not None and max(lengths) > sliding_window
    if query.device.type == "cpu" and not (dropout or windowed or shared):
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        return causal_attention(query, key, value, lengths, scale), None
    if query.is_cuda and varlen_attn and not (dropout or shared) and query.dtype in (torch.bfloat16, torch.float16):
        return by_varlen(query, key, value, lengths, scaling, sliding_window), None
    grouped = query.shape[1] != key.shape[1]
    parts = []
    documents = (torch.split(states, lengths, 2) for states in (query, key, value))
    for i, (q, *own) in enumerate(zip(*documents, strict=True)):
        before = shared if i else 0
        k, v = (torch.cat([states[:, :, :before], part], 2) for states, part in zip((key, value), own, strict=True))
        mask = window_mask(q.shape[2], sliding_window, q.device, before)
        part = scaled_dot_product_attention(
            q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=mask is None, scale=scaling, enable_gqa=grouped
        )
        parts.append(part.transpose(1, 2))
    return torch.cat(parts, dim=1), None


def by_varlen(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    lengths: list[int],
    scale: float | None,
    window: int | None,
) -> torch.Tensor:
    """All documents in one call of a kernel that knows where each begins: flash attention, as torch brings it."""
    q, k, v = (states[0].transpose(0, 1).contiguous() for states in (query, key, value))
    starts = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=query.device)
    seen = (-1 if window is None else window - 1, 0)  # how far before a position, and after it
    longest = max(lengths)
    grouped = q.shape[1] != k.shape[1]
    result: torch.Tensor = varlen_attn(
        q, k, v, starts, starts, longest, longest, scale=scale, window_size=seen, enable_gqa=grouped
    )
    return result[None]


def window_mask(length: int, window: int | None, device: torch.device, before: int = 0) -> torch.Tensor | None:
    """Causal within the sliding window, with so many keys before the document.

    None where there are none and the window is no shorter than the document.
    """
    whole = before + length
    if not before and (window is None or length <= window):
        return None
    distance = torch.arange(before, whole, device=device)[:, None] - torch.arange(whole, device=device)[None, :]
    return (distance >= 0) & (distance < (window or whole))


def register(compiled: bool = False) -> None:
    """compiled: the layers around it will be; it is left out, as every batch has other lengths."""
    leave_out: Any = torch.compiler.disable
    AttentionInterface.register(NAME, leave_out(packed_attention) if compiled else packed_attention)
    AttentionMaskInterface.register(NAME, packed_mask)
