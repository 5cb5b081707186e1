"""Picks the engine for a model: the base as published, or what a run trained from it."""

from pathlib import Path
from typing import Any

import torch

from medmind.core.errors import DataError
from medmind.core.protocols import Generator
from medmind.infer.hf import HfGenerator
from medmind.models.load import load_base, load_tuned, pick_dtype
from medmind.models.spec import ModelSpec
from medmind.prompts.chat import Renderer


def open_generator(
    spec: ModelSpec, trained: Path | None, renderer: Renderer, *, dtype: str = "float32", batch_size: int = 16
) -> Generator:
    """`trained` is an adapter or checkpoint folder, None for the base; on a GPU if there is one."""
    if trained is not None and not trained.is_dir():
        raise DataError("the trained weights are not here", where=str(trained), todo="run the train stage again")
    precision = pick_dtype(dtype)
    model: Any = load_base(spec, precision) if trained is None else load_tuned(spec, trained, precision)
    if precision is torch.float32 and hasattr(model, "merge_and_unload"):
        # As it will be exported, and twice as fast; narrower types would round the merged weights.
        model = model.merge_and_unload()
    model = model.to("cuda" if torch.cuda.is_available() else "cpu")
    return HfGenerator(model, renderer.stop_ids, renderer.read, batch_size)
