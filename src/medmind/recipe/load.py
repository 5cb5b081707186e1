"""From a name, a file or a run directory to a Recipe: presets, `extends`, `--set`, and all faults at once."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from medmind.core.errors import RecipeError, UsageError
from medmind.core.registry import did_you_mean
from medmind.core.rundir import RunDir
from medmind.recipe.faults import check, name_fault
from medmind.recipe.schema import Recipe
from medmind.recipe.yamls import parse_value, read_mapping

PRESETS = Path(__file__).parent / "presets"
OWN = ("name", "description")
"""What a recipe never inherits."""


@dataclass
class Draft:
    """A recipe before it is checked: its values, where each dotted key was said, and the faults met so far."""

    values: dict[str, Any] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def lay_over(self, values: dict[str, Any], places: dict[str, str]) -> None:
        self.values = merge(self.values, values)
        self.places |= places


def load_recipe(target: str, sets: Sequence[str] = ()) -> Recipe:
    """The recipe `target` names (preset, YAML file, run directory) with `key=value` settings laid over it.

    Raises RecipeError with every fault, each with its place, or UsageError if there is no such recipe.
    """
    path = find_recipe(target)
    draft = Draft()
    read_chain(path, draft, ())
    for text in sets:
        lay_setting(text, draft)
    draft.values.setdefault("name", run.name if (run := run_directory(target)) else path.stem)
    recipe, faults = check(draft.values, draft.places)
    if draft.faults or faults:
        raise RecipeError([*draft.faults, *faults], where=target)
    return recipe


def find_recipe(target: str) -> Path:
    """The YAML file of a target; a preset's name wins over a file of the same name."""
    if target in preset_names():
        return PRESETS / f"{target}.yaml"
    path = Path(target)
    if path.is_dir():
        if not RunDir(path).recipe.is_file():
            raise UsageError(f"not a run directory: it has no {RunDir(path).recipe.name}", where=target)
        return RunDir(path).recipe
    if path.is_file():
        return path
    if path.suffix in (".yaml", ".yml"):
        raise UsageError("no such recipe file", where=target)
    raise UsageError(
        f'unknown recipe "{target}"{did_you_mean(target, preset_names())}',
        todo=f"known: {', '.join(preset_names())}; or the path of a YAML file or of a run directory",
    )


def run_directory(target: str) -> Path | None:
    """The run directory a target is, if it is one."""
    return Path(target) if target not in preset_names() and Path(target).is_dir() else None


def read_chain(path: Path, draft: Draft, above: tuple[Path, ...]) -> None:
    """Lays a file over what it extends, the furthest ancestor first; `above` are the files that led here."""
    values, places, faults = read_mapping(path)
    draft.faults += faults
    parent = values.pop("extends", None)
    if above:
        values = {key: value for key, value in values.items() if key not in OWN}
    if parent is not None:
        where = places.get("extends", str(path))
        base = find_parent(parent, path)
        chain = (*above, path.resolve())
        if base is None:
            hint = did_you_mean(str(parent), preset_names())
            known = ", ".join(preset_names())
            draft.faults.append(f'{where}: extends: no recipe "{parent}"{hint}; a preset ({known}) or a relative file')
        elif base.resolve() in chain:
            names = " → ".join(step.name for step in (*chain, base))
            draft.faults.append(f"{where}: extends goes round in a circle: {names}")
        else:
            read_chain(base, draft, chain)
    draft.lay_over(values, places)


def find_parent(name: Any, path: Path) -> Path | None:
    """What `extends: name` in the file `path` means: a preset, or a file relative to that file."""
    if name in preset_names():
        return PRESETS / f"{name}.yaml"
    if isinstance(name, str) and (path.parent / name).is_file():
        return path.parent / name
    return None


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """A mapping merges into a mapping; anything else replaces what was there."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def lay_setting(text: str, draft: Draft) -> None:
    """One `section.key=value` from the command line."""
    where = f"--set {text}"
    key, sign, raw = text.partition("=")
    names = key.strip().split(".")
    if not sign or not all(names):
        draft.faults.append(f"{where}: write it as section.key=value")
        return
    try:
        value = parse_value(raw)
    except ValueError as error:
        draft.faults.append(f"{where}: {error}")
        return
    for depth, name in reversed(list(enumerate(names, start=1))):
        draft.places.setdefault(".".join(names[:depth]), where)
        value = {name: value}
    draft.lay_over(value, {".".join(names): where})


def preset_names() -> list[str]:
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def list_presets() -> dict[str, str]:
    """Name → description of every preset that ships."""
    return {name: str(read_mapping(PRESETS / f"{name}.yaml")[0].get("description", "")) for name in preset_names()}


def preset_text(name: str) -> str:
    """A preset as its author wrote it, comments included."""
    if name not in preset_names():
        raise UsageError(
            f'unknown preset "{name}"{did_you_mean(name, preset_names())}', todo=f"known: {', '.join(preset_names())}"
        )
    return (PRESETS / f"{name}.yaml").read_text(encoding="utf-8")


def copy_of(name: str, file: Path) -> str:
    """The text of a new recipe that extends a preset: what the preset itself says, ready to be changed."""
    fault = name_fault(file.stem)
    if fault:
        raise UsageError(fault, where=str(file), todo="choose another file name")
    lines = preset_text(name).splitlines(keepends=True)
    own = "".join(line for line in lines if not line.startswith(("extends:", "description:")))
    return f"extends: {name}\ndescription: a copy of {name}\n{own}"


def dump_recipe(recipe: Recipe) -> str:
    """Every setting as YAML, in the order of the schema; loading it gives the same recipe."""
    values = recipe.model_dump(mode="json")
    text: str = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=110)
    return text
