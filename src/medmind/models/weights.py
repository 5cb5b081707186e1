"""A checkpoint's weights, all of them: fetched if need be, and looked at before anything is loaded."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from medmind.core.errors import DataError, EnvironmentFault
from medmind.core.jsonl import read_json
from medmind.models.files import CONFIG, fetch, find_file
from medmind.models.resume import fetch_large
from medmind.models.spec import ModelSpec

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
FETCH_AGAIN = "the files are cut or not of this config: fetch the checkpoint again"
NO_MEMORY = "allocate memory"
"""What torch and the system say alike when there is none."""


@contextmanager
def open_weights(file: Path) -> Iterator[Any]:
    """A safetensors file, mapped as a whole: a limit on memory may forbid that, which is no fault of the file."""
    try:
        opened = safe_open(file, framework="pt")
    except (MemoryError, RuntimeError) as error:
        if NO_MEMORY not in str(error):
            raise
        todo = "raise the limit on memory (ulimit -d, ulimit -v, the container's); medmind estimate says what fits"
        raise EnvironmentFault(f"too little memory: {error}", where=str(file), todo=todo) from None
    with opened as weights:
        yield weights


def find_weights(spec: ModelSpec) -> Path:
    """The folder in which the config and all of the weights lie."""
    folder = find_file(spec, CONFIG).parent
    if not spec.local:
        fetch_weights(spec)
    check_weights(folder)
    return folder


def check_weights(folder: Path) -> None:
    """Every file there, none cut, each tensor where the index says it is; reads the heads of the files only."""
    places = find_places(folder)
    for file in list_weights(folder):
        if not file.is_file():
            raise DataError(f"no {file.name}", where=str(folder), todo="only safetensors are read: fetch them")
        try:
            with open_weights(file) as shard:
                held = set(shard.keys())
        except (SafetensorError, OSError) as error:
            raise DataError(f"the weights cannot be read: {error}", where=str(file), todo=FETCH_AGAIN) from None
        if places and (unfit := held ^ {key for key, place in places.items() if place == file.name}):
            raise DataError(f"it and {INDEX} disagree on {min(unfit)}", where=str(file), todo=FETCH_AGAIN)


def list_weights(folder: Path) -> list[Path]:
    """The files that make up the checkpoint; what else lies there (a second format, older shards) is not of it."""
    return [folder / name for name in sorted(set(find_places(folder).values())) or [WEIGHTS]]


def find_places(folder: Path) -> dict[str, str]:
    """Tensor → file; empty where there is one file and no index is needed."""
    index = folder / INDEX
    return {} if (folder / WEIGHTS).is_file() or not index.is_file() else read_places(index)


def read_places(index: Path) -> dict[str, str]:
    said: Any = read_json(index)
    places: Any = said.get("weight_map") if isinstance(said, dict) else None
    names = list(places.values()) if isinstance(places, dict) else []
    if not names or not all(isinstance(name, str) and name == Path(name).name for name in names):
        raise DataError("not an index of weights", where=str(index), todo=FETCH_AGAIN)
    found: dict[str, str] = places
    return found


def fetch_weights(spec: ModelSpec) -> None:
    """Those the index names, or the one file; never a second format beside them."""
    fetch(spec.source, "generation_config.json", spec.revision, spec.how_to_get)
    index = fetch(spec.source, INDEX, spec.revision, spec.how_to_get)
    fetch_large(spec, sorted(set(read_places(index).values())) if index else [WEIGHTS])
