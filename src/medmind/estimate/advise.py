"""What to change when a recipe does not fit: the first remedy, alone or together with those before it, that does."""

from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from typing import Any

from pydantic import ValidationError

from medmind.models.catalog import CATALOG
from medmind.models.spec import ModelSpec
from medmind.recipe.schema import Recipe

SHORT = (512, 256)
"""Tokens a row may be shortened to."""
Change = dict[str, Any]
"""Recipe keys and what to set them to."""


def memory_changes(recipe: Recipe, spec: ModelSpec) -> list[Change]:
    """In order of how little they take away."""
    singles = list(lighter(recipe))
    together = list(accumulate(singles, lambda before, added: before | added))
    smaller = sorted((one for one in CATALOG if parameters(one) < parameters(spec)), key=parameters, reverse=True)
    return [*singles, *together, *({"model": one.id} for one in smaller)]


def parameters(spec: ModelSpec) -> int:
    return spec.shape.parameters


def lighter(recipe: Recipe) -> Iterator[Change]:
    train = recipe.train
    if (size := train.per_device_train_batch_size) > 1:
        # As many examples in a step as before, so the result stays the same.
        rounds = train.gradient_accumulation_steps * size
        yield {"train.per_device_train_batch_size": 1, "train.gradient_accumulation_steps": rounds}
    if not train.gradient_checkpointing:
        yield {"train.gradient_checkpointing": True}
    if train.method != "qlora" and train.init == "pretrained":
        yield {"train.method": "qlora"}
    for length in SHORT:
        if length < train.max_length:
            yield {"train.max_length": length, "train.overflow": "chunk" if train.format == "text" else "drop"}


def disk_changes(recipe: Recipe) -> list[Change]:
    singles: list[Change] = [{"train.save_total_limit": 1}, {"export.gguf": [recipe.export.modelfile_from]}]
    if "export" not in recipe.stages:
        return singles[:1]
    # The adapter can be exported on a machine that has the room.
    elsewhere: Change = {"stages": [stage for stage in recipe.stages if stage != "export"]}
    return [*singles, singles[0] | singles[1], elsewhere, singles[0] | elsewhere]


def first_that_fits(changes: Iterable[Change], need: Callable[[Change], int | None], room: int) -> tuple[Change, int]:
    """The change and the bytes then needed; an empty change where none is enough. None: it cannot be made."""
    for change in changes:
        needed = need(change)
        if needed is not None and needed <= room:
            return change, needed
    return {}, 0


def changed(recipe: Recipe, change: Change) -> Recipe | None:
    """The recipe with the change; None where its other settings forbid it."""
    values: dict[str, Any] = recipe.model_dump()
    for key, value in change.items():
        *sections, name = key.split(".")
        part = values
        for section in sections:
            part = part[section]
        part[name] = value
    try:
        new = Recipe.model_validate(values)
    except ValidationError:
        return None
    return None if set(new.conflicts()) - set(recipe.conflicts()) else new


def as_settings(change: Change) -> str:
    """As it is typed after the command."""
    return " ".join(f"--set {key}={spelt(value)}" for key, value in change.items())


def spelt(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value).replace("'", "").replace(" ", "")
