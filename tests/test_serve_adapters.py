"""Several adapters over one base that is loaded once: each speaks as it does alone."""

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from medmind.cli.targets import open_targets, read_target
from medmind.core.errors import DataError, UsageError
from medmind.core.jsonl import read_json, write_json
from medmind.infer.decode_hf import HfDecoder, open_hf
from medmind.infer.decoder import Work
from medmind.models.catalog import describe_folder
from medmind.models.load import add_adapter, load_tuned
from medmind.serve.config import ServeConfig

PROMPTS = [(1, 3, 500 + n, *range(600, 600 + 40 * n)) for n in range(3)]
NEW = 8


@pytest.fixture(scope="module")
def other_adapter(wide_adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with its weights turned round."""
    folder = tmp_path_factory.mktemp("other")
    shutil.copy(wide_adapter / "adapter_config.json", folder)
    weights = load_file(wide_adapter / "adapter_model.safetensors")
    turned = {name: -weight if "lora_B" in name else weight for name, weight in weights.items()}
    save_file(turned, folder / "adapter_model.safetensors")
    return folder


def written(decoder: HfDecoder, works: list[Work]) -> list[list[int]]:
    """All at once, a slot each."""
    found: list[list[int]] = [[] for _ in works]
    for slot, work in enumerate(works):
        decoder.begin(slot, work)
    while any(len(new) < NEW for new in found):
        for step in decoder.step():
            found[step.slot] += [step.new.token] if step.new else []
    return found


def test_adapters_over_one_base_speak_side_by_side(wide_model: Path, wide_adapter: Path, other_adapter: Path) -> None:
    spec = describe_folder(wide_model)
    folders: list[list[Path]] = [[wide_adapter], [other_adapter], []]
    alone = [written(open_hf(spec, one, 3, 400), [Work(prompt, NEW) for prompt in PROMPTS]) for one in folders]
    together = open_hf(spec, [wide_adapter, other_adapter], 9, 400)
    works = [Work(prompt, NEW, voice=voice) for prompt in PROMPTS for voice in ("", "2", "base")]
    found = written(together, works)
    assert [found[0::3], found[1::3], found[2::3]] == alone
    assert alone[0] != alone[1] != alone[2] != alone[0]
    places = [tuple(together.embed(PROMPTS[1], voice)) for voice in ("", "2", "base", "")]
    assert places[0] == places[3]
    assert len(set(places)) == 3


def test_folders_over_one_base_are_opened_together(
    wide_model: Path, wide_adapter: Path, other_adapter: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    targets = [read_target(str(folder), []) for folder in (wide_adapter, other_adapter, wide_model)]
    models = open_targets(targets, ServeConfig(max_concurrent=2))
    assert [model.voice for model in models] == ["", "2", "base"]
    assert [model.name for model in models] == [folder.name for folder in (wide_adapter, other_adapter, wide_model)]
    assert len({model.engine for model in models}) == 1
    assert len({model.facts.digest for model in models}) == 3
    assert capsys.readouterr().err.count("loading") == 1
    models[0].engine.close()
    with pytest.raises(UsageError, match="two models of one name"):
        open_targets([targets[0], targets[0]], ServeConfig())


def test_a_whole_model_is_not_changed_by_an_adapter_over_it(
    wide_model: Path, wide_adapter: Path, tmp_path: Path
) -> None:
    over = Path(shutil.copytree(wide_adapter, tmp_path / "over"))
    config = read_json(over / "adapter_config.json")
    write_json(over / "adapter_config.json", config | {"base_model_name_or_path": str(wide_model)})
    tuned = read_target(str(over), [])
    whole = replace(tuned, name="whole", trained=wide_model)
    models = open_targets([whole, tuned], ServeConfig(max_concurrent=1))
    places = [asyncio.run(model.embed(PROMPTS[1])) for model in models]
    for model in models:
        model.engine.close()
    assert places[0] == open_hf(describe_folder(wide_model), [], 1, 400).embed(PROMPTS[1]) != places[1]


def test_what_is_no_adapter_of_the_base_is_refused(wide_model: Path, wide_adapter: Path, tmp_path: Path) -> None:
    spec = describe_folder(wide_model)
    for other, told in ((wide_model, "no adapter"), (tmp_path / "none", "no adapter")):
        with pytest.raises(DataError, match=told):
            open_hf(spec, [wide_adapter, other], 1, 400)
    cut = Path(shutil.copytree(wide_adapter, tmp_path / "cut"))
    weights = load_file(cut / "adapter_model.safetensors")
    save_file(dict(list(weights.items())[1:]), cut / "adapter_model.safetensors")
    with pytest.raises(DataError, match="1 weights missing"):
        open_hf(spec, [wide_adapter, cut], 1, 400)
    write_json(cut / "adapter_config.json", read_json(cut / "adapter_config.json") | {"base_model_name_or_path": "a/b"})
    with pytest.raises(DataError, match="was trained on a/b"):
        add_adapter(load_tuned(spec, wide_adapter), replace(spec, local=False), cut, "2")
