"""What is wrong with a recipe, in plain words: every fault at once, each with its place and a way out."""

import difflib
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from medmind.core.errors import UsageError
from medmind.core.registry import did_you_mean
from medmind.models.catalog import find_model
from medmind.recipe.schema import Recipe

RESERVED = frozenset(
    "check preview leaks phi generate licences parity verify push ls show new make render rm".split()  # noqa: SIM905
)
"""Tool words of the command line: a recipe of that name could not be told from them."""
ELSEWHERE = {
    "lr": "train.learning_rate",
    "epochs": "train.num_train_epochs",
    "num_epochs": "train.num_train_epochs",
    "batch_size": "train.per_device_train_batch_size",
    "micro_batch_size": "train.per_device_train_batch_size",
    "grad_accum": "train.gradient_accumulation_steps",
    "scheduler": "train.lr_scheduler_type",
    "warmup": "train.warmup_ratio",
    "optimizer": "train.optim",
    "max_seq_length": "train.max_length",
    "max_seq_len": "train.max_length",
    "sequence_len": "train.max_length",
    "cutoff_len": "train.max_length",
    "bf16": "train.dtype",
    "fp16": "train.dtype",
    "rank": "train.lora.r",
    "lora_r": "train.lora.r",
    "lora_rank": "train.lora.r",
    "alpha": "train.lora.lora_alpha",
    "dropout": "train.lora.lora_dropout",
    "base_model": "model",
    "model_name_or_path": "model",
    "dataset": "data.source",
}
"""What other tools call our keys."""
IN_WORDS = {
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "string_type": "must be text (in quotes if it looks like something else)",
    "tuple_type": "must be a list such as [a, b]",
    "dict_type": "must be a mapping of names to values",
    "model_type": "must be a section with keys of its own",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be one of {expected}",
}
FOLLOWS = "default_factory_not_called"
"""A default that waits for a faulty key: no fault of its own."""
Location = tuple[int | str, ...]


def check(values: dict[str, Any], places: dict[str, str]) -> tuple[Recipe, list[str]]:
    """The recipe, and all its faults; with faults, it is what remains when the faulty keys are left out."""
    faults: list[tuple[str, str]] = []
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        details = [detail for detail in error.errors(include_url=False) if detail["type"] != FOLLOWS]
        faults += [(dotted(detail["loc"]) or str(detail["loc"][-1]), in_words(detail)) for detail in details]
        values = without(values, [detail["loc"] for detail in details])
        recipe = Recipe.model_validate(values)
    faults += [(key, "must not be true or false") for key in misplaced_bools(values, recipe)]
    dropped = {key for key, _ in faults}
    if fault := name_fault(recipe.name):
        faults.append(("name", fault))
    try:
        find_model(recipe.model)
    except UsageError as error:
        faults.append(("model", str(error)))
    told = [f"{place_of(key, places)}{key}: {text}" for key, text in faults]
    for conflict in recipe.conflicts():
        keys = re.findall(r"[a-z_]+(?:\.[a-z_]+)+", conflict)
        if not dropped.intersection(keys):
            place = next((place_of(key, places) for key in keys if place_of(key, places)), "")
            told.append(f"{place}{conflict}")
    return recipe, told


def name_fault(name: str) -> str:
    """Why a recipe cannot have this name, or nothing."""
    if name in RESERVED:
        return f'"{name}" is a word of the command line and cannot name a recipe'
    if not re.fullmatch(r"\w[\w .+-]*", name):
        return f'"{name}" cannot name a folder: use letters, digits, "-", "_" and "."'
    return ""


def place_of(key: str, places: dict[str, str]) -> str:
    """ "file, line n: " of a key, or of the nearest section around it that was said somewhere."""
    while key and key not in places:
        key = key.rpartition(".")[0]
    return f"{places[key]}: " if key else ""


def dotted(location: Location) -> str:
    return ".".join(part for part in location if isinstance(part, str) and part != "[key]")


def in_words(detail: Any) -> str:
    """One of pydantic's findings for a person."""
    kind, given = detail["type"], detail["input"]
    if kind == "extra_forbidden":
        return unknown_key(detail["loc"])
    if kind == "invalid_key":
        return f"a key must be a word, given {shown(detail['loc'][-1])}"
    context = detail.get("ctx", {})
    rule = IN_WORDS.get(kind, detail["msg"][:1].lower() + detail["msg"][1:]).format(**context)
    hint = ""
    if kind == "literal_error" and isinstance(given, str):
        hint = did_you_mean(given, re.findall(r"'([^']+)'", context["expected"]))
    return f"{rule}, given {shown(given)}{hint}"


def shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else f"{text[:77]}…"


def unknown_key(location: Location) -> str:
    """Names the key that was probably meant: in another section, under another tool's name, or nearly so called."""
    *section, name = [str(part) for part in location]
    known = list(keys_of(Recipe))
    if name in known and "." in name:
        head, _, tail = name.rpartition(".")
        return f'no such key; in a file write it as "{tail}" inside the section "{head}"'
    meant = [ELSEWHERE[name]] if name in ELSEWHERE else []
    meant += [key for key in known if last(key) == name]
    siblings = [key for key in known if key.rpartition(".")[0] == ".".join(section)]
    if not meant:
        meant = nearest(name, siblings) or nearest(name, known)
    if meant:
        return "no such key (did you mean " + " or ".join(f'"{key}"' for key in meant) + "?)"
    return f"no such key; known here: {', '.join(map(last, siblings))}"


def nearest(name: str, keys: Sequence[str]) -> list[str]:
    """The keys whose last word is most like `name`, if any is like it."""
    found = difflib.get_close_matches(name, {last(key) for key in keys}, n=1)
    return [key for key in keys if last(key) in found]


def last(key: str) -> str:
    return key.rpartition(".")[2]


def keys_of(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every dotted key of the schema, sections included."""
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from keys_of(field.annotation, f"{prefix}{name}.")


def without(values: dict[str, Any], locations: Sequence[Location]) -> dict[str, Any]:
    """A copy that lacks the keys at these locations; of a list or a text, the whole value goes."""
    gone = {location[:depth] for location in locations for depth in [depth_of(values, location)]}

    def keep(part: dict[str, Any], path: Location) -> dict[str, Any]:
        return {
            key: keep(value, (*path, key)) if isinstance(value, dict) else value
            for key, value in part.items()
            if (*path, key) not in gone
        }

    return keep(values, ())


def depth_of(values: Any, location: Location) -> int:
    """How many steps of a location lead through mappings."""
    depth = 0
    while depth < len(location) and isinstance(values, dict) and location[depth] in values:
        values = values[location[depth]]
        depth += 1
    return depth


def misplaced_bools(values: dict[str, Any], model: BaseModel, prefix: str = "") -> Iterator[str]:
    """Keys given true or false that hold something else: pydantic would read 1 and 0."""
    for key, value in values.items():
        meant = getattr(model, key)
        if isinstance(value, dict) and isinstance(meant, BaseModel):
            yield from misplaced_bools(value, meant, f"{prefix}{key}.")
        elif isinstance(value, bool) and not isinstance(meant, bool):
            yield f"{prefix}{key}"
