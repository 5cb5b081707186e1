"""Several adapters over one base that is loaded once: each speaks as it does alone."""

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from medmind.cli.targets import open_targets, read_target
from medmind.core.errors import UsageError
from medmind.infer.decode_hf import HfDecoder, open_hf
from medmind.infer.decoder import Work
from medmind.models.catalog import describe_folder
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
