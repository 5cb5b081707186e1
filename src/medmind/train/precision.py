"""What dtype products are computed in: autocast's word, for functions that autocast does not know."""

import torch


def product_dtype(tensor: torch.Tensor) -> torch.dtype:
    device = tensor.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else tensor.dtype
