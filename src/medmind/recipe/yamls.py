"""YAML read strictly: nothing but plain data, no key twice, no aliases, and the line of every key."""

from pathlib import Path
from typing import Any

import yaml

from medmind.core.errors import RecipeError

DATE = "tag:yaml.org,2002:timestamp"


class Loader(yaml.SafeLoader):
    """Plain data only; a date stays text."""

    yaml_implicit_resolvers = {
        first: [rule for rule in rules if rule[0] != DATE]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def read_mapping(path: Path) -> tuple[dict[str, Any], dict[str, str], list[str]]:
    """(values, dotted key → "file, line n", faults) of a YAML file; raises RecipeError if it cannot be read at all."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        refuse_aliases(text)
        loader = Loader(text)
        node = loader.get_single_node()
    except OSError as error:
        raise RecipeError([f"{path}: cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError as error:
        raise RecipeError([f"{path}, byte {error.start}: not UTF-8; save the file as UTF-8"]) from None
    except (yaml.YAMLError, RecursionError) as error:
        raise RecipeError([f"{path}{place_in(error)}: {in_words(error)}"]) from None
    if node is None:
        return {}, {}, [f"{path}: the file is empty; write settings, or extends: base"]
    if not isinstance(node, yaml.MappingNode):
        return {}, {}, [f"{path}: a recipe is a mapping of keys to values, not a list or a text"]
    places: dict[str, str] = {}
    faults: list[str] = []
    note_places(node, "", path, places, faults)
    try:
        values: dict[str, Any] = loader.construct_document(node)
    except (yaml.YAMLError, ValueError) as error:
        raise RecipeError([f"{path}{place_in(error)}: {in_words(error)}"]) from None
    return values, places, faults


def note_places(node: yaml.MappingNode, prefix: str, path: Path, places: dict[str, str], faults: list[str]) -> None:
    """Where each dotted key stands; a key said twice is a fault, since YAML would silently take the last."""
    for key, value in node.value:
        dotted = f"{prefix}{key.value}"
        where = f"{path}, line {key.start_mark.line + 1}"
        if dotted in places:
            first = places[dotted].rpartition(" ")[2]
            faults.append(f"{where}: {dotted} is said twice (first in line {first}); keep one")
        elif isinstance(value, yaml.MappingNode):
            note_places(value, f"{dotted}.", path, places, faults)
        places.setdefault(dotted, where)


def refuse_aliases(text: str) -> None:
    """An alias can make a file refer to itself or grow without end; `extends` is how recipes share."""
    for token in yaml.scan(text, Loader):
        if isinstance(token, yaml.AliasToken):
            problem = "a recipe has no aliases, write the value out"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=token.start_mark)


def parse_value(text: str) -> Any:
    """The value of a --set: YAML if it is a list, a mapping or quoted, else a number, true, false, null or text.

    Plain text keeps its ": " and " #", which YAML would read as a mapping and a comment; nothing is the empty text.
    """
    text = text.strip()
    if text.startswith(("[", "{", '"', "'")):
        try:
            return yaml.load(text, Loader)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise ValueError(in_words(error)) from None
    if not text or " #" in f" {text}":
        return text
    try:
        value = yaml.load(text, Loader)
    except (yaml.YAMLError, ValueError):
        return text
    return value if value is None or isinstance(value, bool | int | float) else text


def place_in(error: Exception) -> str:
    mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
    return f", line {mark.line + 1}" if mark else ""


def in_words(error: Exception) -> str:
    """Why a text is not YAML."""
    if isinstance(error, RecursionError):
        return "not YAML: nested too deep"
    problem = error.problem if isinstance(error, yaml.MarkedYAMLError) else str(error).splitlines()[0]
    return f"not YAML: {problem}"
