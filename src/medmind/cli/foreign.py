"""What others made and a user only points at: a bundle is proven before it is opened, and nothing is fetched for it."""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from medmind.core.errors import UsageError
from medmind.core.jsonl import read_json
from medmind.core.log import say
from medmind.core.offline import is_kept_home, keep_home, keep_quiet
from medmind.core.rundir import RunDir
from medmind.models.catalog import find_row, is_hub_id, names_a_model
from medmind.recipe.load import load_recipe
from medmind.recipe.schema import Recipe
from medmind.recipe.yamls import parse_value, read_mapping

ADAPTER = "adapter_config.json"
INDEX = "bundle.json"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
WHOSE = "say whose tokenizer and chat format it has: --set model=NAME"


def settle_hub(texts: Sequence[str], sets: Sequence[str]) -> None:
    """Reachable if the user named a model there: by a setting, by its name, or in a recipe or run."""
    if all(names_nothing(text, sets) for text in texts):
        keep_home()
        return
    if says_model(sets):
        named = [str(parse_value(one.partition("=")[2])) for one in sets if says_model([one])]
    else:
        mine = [text for text in texts if not names_nothing(text, sets) and not is_url(text)]
        named = [text if names_a_model(text) else load_recipe(text, sets).model for text in mine]
    keep_quiet(allow_hub=any(map(on_hub, named)))


@contextmanager
def laid_out(texts: Sequence[str]) -> Iterator[list[str]]:
    """The same TARGETs with each bundle proven and, packed, in a folder for this user alone until the block ends."""
    from medmind.export.bundle import unpack, verify  # with it comes huggingface_hub, which looks once who is at home

    with ExitStack() as stack:
        found = []
        for text in texts:
            path = Path(text)
            if path.suffix == ".tar" and not path.is_file():
                raise UsageError("no such bundle", where=text, todo="medmind export RUN --bundle makes one")
            if path.suffix == ".tar":
                bundle = verify(path)
                folder = Path(stack.enter_context(TemporaryDirectory(prefix="medmind-"))) / path.stem
                unpack(bundle, folder)
                say(f"{text}: {len(bundle.members)} files as they were made, until the end in {folder}")
                found.append(str(folder))
                continue
            if is_bundle(path):
                verify(path)
            found.append(text)
        yield found


def is_url(text: str) -> bool:
    return text.startswith(("http://", "https://"))


def is_bundle(path: Path) -> bool:
    """Unpacked."""
    return (path / INDEX).is_file()


def names_nothing(text: str, sets: Sequence[str]) -> bool:
    """Whether the user names a file alone: what it says of the Hub then is another's word."""
    path = Path(text)
    folder = any((path / name).is_file() for name in (ADAPTER, INDEX, "config.json"))
    given = folder or path.suffix in (".gguf", ".tar")
    return given and not says_model(sets)


def says_model(sets: Sequence[str]) -> bool:
    return any(one.partition("=")[0].strip() == "model" for one in sets)


def base_of(adapter: Path) -> str:
    """What its own configuration calls its base."""
    said: Any = read_json(adapter / ADAPTER)
    return str(said.get("base_model_name_or_path") or "") if isinstance(said, dict) else ""


def based_on(model: str, sets: Sequence[str], where: str, wanted: Sequence[str] = WEIGHTS) -> Recipe:
    """The settings for a model without a run; `--set model=` has the last word."""
    return load_recipe("base", with_model(model, sets, where, wanted))


def with_model(model: str, sets: Sequence[str], where: str, wanted: Sequence[str]) -> Sequence[str]:
    """`sets`, in which `model` is named unless another is; of `wanted` files one must be here."""
    if says_model(sets):
        return sets
    if not names_a_model(model):
        raise UsageError("it does not tell what it was made from, or that is not here", where=where, todo=WHOSE)
    if is_kept_home() and on_hub(model) and not is_cached(model, wanted):
        todo = f"--set model={model} fetches it, --set model=FOLDER says where it lies"
        what = f"it was made from {model}, which is not on this machine, and the Hub is asked only for what you name"
        raise UsageError(what, where=where, todo=todo)
    return [*sets, f"model={json.dumps(model)}"]


def on_hub(model: str) -> bool:
    row = find_row(model)
    return not row.local if row else is_hub_id(model) and not Path(model).is_dir()


def check_named(texts: Sequence[str], sets: Sequence[str]) -> None:
    """While the Hub is asked for one model the user named, it hears of no other."""
    for text in texts:
        if names_nothing(text, sets) and on_hub(model := asked_for(Path(text))) and model not in texts:
            todo = f"serve it by itself, or name {model} too"
            raise UsageError(f"it was made from {model} of the Hub, which you did not name", where=text, todo=todo)


def asked_for(path: Path) -> str:
    """The base model that a bundle or an adapter names."""
    if (path / ADAPTER).is_file():
        return base_of(path)
    bundled = is_bundle(path) and not (RunDir(path).merged / "config.json").is_file()
    return str(read_mapping(RunDir(path).recipe)[0].get("model", "")) if bundled else ""


def is_cached(model: str, wanted: Sequence[str]) -> bool:
    from huggingface_hub import try_to_load_from_cache

    row, (source, _, revision) = find_row(model), model.partition("@")
    source = row.source if row else source

    def has(name: str) -> bool:
        return isinstance(try_to_load_from_cache(source, name, revision=revision or None), str)

    return has("config.json") and has("tokenizer.json") and (not wanted or any(map(has, wanted)))


def read_bundle(path: Path, sets: Sequence[str]) -> tuple[Recipe, Path | None, Path | None]:
    """Its recipe, weights and GGUF. How it is served, and whether its code may run, is the user's word alone."""
    rundir = RunDir(path)
    if not rundir.recipe.is_file():
        raise UsageError("the bundle has no recipe", where=str(path), todo="name the files in it one by one")
    merged = rundir.merged if (rundir.merged / "config.json").is_file() else None
    adapter = rundir.adapter if (rundir.adapter / ADAPTER).is_file() else None
    ggufs = sorted(rundir.export.glob("model-*.gguf"))
    model = str(merged or asked_for(path))
    sets = with_model(model, sets, str(path), () if ggufs else WEIGHTS)
    recipe, own = load_recipe(str(path), sets), load_recipe("base", sets)
    if own.serve.base and merged and model == str(merged):
        raise UsageError("the bundle holds no base model", where=str(path), todo="--set model=NAME says which it is")
    if not (merged or adapter or (ggufs and own.serve.engine != "transformers")):
        raise UsageError("the bundle holds no model for this engine", where=str(path), todo="--set serve.engine=auto")
    recipe = recipe.model_copy(update={"serve": own.serve, "trust_remote_code": own.trust_remote_code})
    usual = rundir.gguf(recipe.export.modelfile_from)
    return recipe, merged or adapter, usual if usual in ggufs else next(iter(ggufs), None)
