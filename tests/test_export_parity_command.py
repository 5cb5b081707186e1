"""Each of the eight causes, planted in a GGUF beside a run, is caught by `medmind export parity` and called by name."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from medmind.cli.main import main
from medmind.core.jsonl import read_json, write_json, write_jsonl, write_text
from medmind.core.rundir import RunDir
from medmind.core.types import Example, Message
from medmind.export import gguf
from medmind.export.merge import merge
from medmind.export.metadata import Facts
from medmind.export.parity.diagnose import Cause
from medmind.models.catalog import describe_folder
from medmind.recipe.load import dump_recipe, load_recipe

FACTS = Facts("tiny", "MIT", "nano", "")
ROWS = [
    Example(
        id=f"e{n}", source="t", task="qa", turns=(Message(role="user", text=f"What is {n}?"),), target="A swelling."
    )
    for n in range(3)
]
SCALED = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
SCALED |= {"original_max_position_embeddings": 32}


@dataclass
class Shop:
    run: RunDir
    source: Path
    """What the GGUF is written from: a copy of the run's merged checkpoint."""
    base: Path
    patch: pytest.MonkeyPatch

    @property
    def file(self) -> Path:
        return self.source.with_name("x.gguf")

    def parity(self, kind: str = "f16") -> int:
        gguf.write(self.source, self.file, kind, FACTS)
        return main(["export", "parity", str(self.run.merged), str(self.file)])

    def change(self, file: Path, **entries: object) -> None:
        write_json(file, read_json(file) | entries)

    def edit_template(self, change: Callable[[str], str]) -> None:
        file = self.source / "chat_template.jinja"
        file.write_text(change(file.read_text()))


@pytest.fixture(scope="module")
def made(wide_model: Path, wide_adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    run = RunDir(tmp_path_factory.mktemp("planted") / "run")
    said = [f"model={wide_model}", "export.max_new_tokens=8", "export.parity.q4_k_m.nmse=null"]
    write_text(run.recipe, dump_recipe(load_recipe("base", said)))
    shutil.copytree(wide_adapter, run.adapter)
    merge(describe_folder(wide_model), run.adapter, run.merged)
    write_jsonl(run.split("test"), ROWS)
    return run


@pytest.fixture
def shop(made: RunDir, wide_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    run = RunDir(Path(shutil.copytree(made.root, tmp_path / "run")))
    return Shop(run, Path(shutil.copytree(run.merged, tmp_path / "source")), wide_model, monkeypatch)


def double_bos(shop: Shop) -> None:
    shop.edit_template(lambda text: "{{- bos_token -}}" + text)


def missing_stop(shop: Shop) -> None:
    shop.change(shop.source / "tokenizer_config.json", eos_token="<unk>")


def rope_base(shop: Shop) -> None:
    shop.change(shop.source / "config.json", rope_theta=500.0)


def rope_freqs(shop: Shop) -> None:
    for folder in (shop.run.merged, shop.source):
        rope = read_json(folder / "config.json")["rope_parameters"] | SCALED
        shop.change(folder / "config.json", rope_parameters=rope, rope_scaling=SCALED)
    with shop.patch.context() as during:
        during.setattr(gguf, "rope_factors", lambda config: [])
        gguf.write(shop.source, shop.file, "f16", FACTS)
    shop.patch.setattr(gguf, "write", lambda *_: None)


def not_merged(shop: Shop) -> None:
    shutil.copy(shop.base / "model.safetensors", shop.source)


def drift(shop: Shop) -> None:
    shop.edit_template(lambda text: text.replace("[INST] ", "[INST]"))


def swapped(shop: Shop) -> None:
    real = gguf.heads_of
    with shop.patch.context() as during:
        during.setattr(gguf, "heads_of", lambda name, config: {0: 0, 4: 2, 2: 4}[real(name, config)])
        gguf.write(shop.source, shop.file, "f16", FACTS)
    shop.patch.setattr(gguf, "write", lambda *_: None)


def padded(shop: Shop) -> None:
    weights = load_file(shop.source / "model.safetensors")
    rows = weights["model.embed_tokens.weight"]
    weights["model.embed_tokens.weight"] = torch.cat([rows, torch.zeros(64, rows.shape[1], dtype=rows.dtype)])
    save_file(weights, shop.source / "model.safetensors", {"format": "pt"})
    shop.change(shop.source / "config.json", vocab_size=len(rows) + 64)


@pytest.mark.parametrize(
    ("plant", "cause"),
    [
        (double_bos, Cause.DOUBLE_BOS),
        (missing_stop, Cause.STOP),
        (rope_base, Cause.ROPE_BASE),
        (rope_freqs, Cause.ROPE_FREQS),
        (not_merged, Cause.NOT_MERGED),
        (drift, Cause.TEMPLATE),
        (swapped, Cause.PERMUTATION),
        (padded, Cause.PADDED),
    ],
)
def test_the_command_names_it(
    plant: Callable[[Shop], None], cause: Cause, shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(shop)
    assert shop.parity() == 1
    told = capsys.readouterr().err
    assert f"{cause.value}: " in told
    assert [one.value for one in Cause if f"{one.value}: " in told] == [cause.value], "that one and no other"


def test_without_a_fault_it_says_yes(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    assert shop.parity() == 0
    assert not [one for one in Cause if f"{one.value}: " in capsys.readouterr().err]
