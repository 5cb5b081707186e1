"""The estimate is arithmetic on what training really keeps: here the two are held side by side."""

import json
import math
from array import array
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from medmind.cli.main import main
from medmind.core.rundir import RunDir
from medmind.estimate import activations, memory, predict, work
from medmind.estimate.activations import Batch, kept
from medmind.estimate.advise import as_settings, changed, disk_changes, first_that_fits, lighter, memory_changes
from medmind.estimate.counts import count
from medmind.estimate.disk import SMALL, gguf_size, predict_disk
from medmind.estimate.machine import Room
from medmind.estimate.predict import estimate, open_subject
from medmind.estimate.times import predict_times
from medmind.estimate.work import Steps, count_steps, lay_out, shape_of
from medmind.models.catalog import find_model
from medmind.recipe.load import load_recipe
from medmind.recipe.schema import Recipe
from medmind.train import blockwise, loss
from medmind.train.adapter import count_parameters, prepare_model
from medmind.train.batches import Counts, Row, pack, pad
from medmind.train.config import Optimiser
from medmind.train.probe import Line, Pace, line, probe, shorten

LENGTHS = (200, 231, 150, 180, 260, 140)
PROMPT = 10
NANO = find_model("nano")


def rows_of(lengths: Sequence[int]) -> list[Row]:
    generator = torch.Generator().manual_seed(0)
    rows = []
    for length in lengths:
        ids = torch.randint(3, 8192, (length,), generator=generator).tolist()
        labels = [-100] * PROMPT + ids[PROMPT + 1 :] + [-100]
        rows.append(Row("test", array("i", ids), array("i", labels), 1))
    return rows


def saved_bytes(model: torch.nn.Module, batch: dict[str, Any], dtype: torch.dtype) -> int:
    """Of all tensors autograd keeps at the end of the forward pass, parameters left out, each storage once."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    seen: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage
        return tensor

    autocast = torch.autocast("cpu", dtype, enabled=dtype != torch.float32)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), autocast:
        total = loss.completion_loss(model, batch)
    assert total > 0
    return sum(storage.nbytes() for storage in seen.values())


VARIANTS = {
    "all linear": [],
    "q and v": ["train.lora.target_modules=[q_proj,v_proj]", "train.lora.r=64"],
    "dropout": ["train.lora.lora_dropout=0.05"],
    "unpacked": ["train.packing=false"],
    "full": ["train.method=full"],
    "float32": ["train.dtype=float32"],
    "qlora": ["train.method=qlora"],
    "lora8": ["train.method=lora8"],
}


@pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS)
def test_the_formula_counts_what_autograd_keeps(settings: list[str]) -> None:
    config = load_recipe("base", ["train.dtype=bfloat16", *settings]).train
    dtype = getattr(torch, config.dtype)
    rows = rows_of(LENGTHS)
    model = prepare_model(config, NANO, seed=0).train()
    found = saved_bytes(model, (pack if config.packing else pad)(rows), dtype)
    batch, kind, counts = shape_of(rows, config), memory.kind_of(config, dtype.itemsize), count(NANO, config)
    head = batch.supervised * NANO.shape.hidden_size * kind.narrow
    if config.method == "full":
        head += 4 * counts.embedding
    if not config.packing:
        head += 4 * batch.supervised * NANO.shape.vocab_size
    expected = kept(NANO, config, batch, kind) + memory.copies(config, counts, kind) + head
    assert expected == pytest.approx(found, rel=0.02)


def test_with_checkpointing_each_layer_keeps_what_came_in() -> None:
    config = load_recipe("base", ["train.gradient_checkpointing=true"]).train
    kind = memory.kind_of(config, 2)
    batch = Batch(LENGTHS, 1000, packed=True)
    one = activations.kept_by_layer(NANO, config, batch, kind)
    assert kept(NANO, config, batch, kind) - one == 8 * sum(LENGTHS) * 256 * 2


def test_long_documents_keep_no_probabilities() -> None:
    assert (activations.BLOCK, activations.KEPT, memory.ROWS) == (blockwise.BLOCK, blockwise.KEPT, loss.ROWS)
    config = load_recipe("base").train
    kind = memory.kind_of(config, 2)

    def by_token(length: int) -> float:
        return activations.kept_by_layer(NANO, config, Batch((length,), length, packed=True), kind) / length

    assert by_token(512) > by_token(256) > by_token(513)
    assert activations.scores(130) == 128 * 128 + 2 * 130


@pytest.mark.parametrize("settings", [[], ["train.lora.target_modules=[v_proj]"], ["train.method=full"]])
def test_parameters_are_counted_as_the_model_counts_them(settings: list[str]) -> None:
    config = load_recipe("base", settings).train
    told = count_parameters(prepare_model(config, NANO, seed=0))
    counts = count(NANO, config)
    assert (counts.trainable, counts.total + counts.adapters) == (told["trainable"], told["total"])


def test_the_seeds_counts_at_real_shape() -> None:
    spec = find_model("Mistral-7B-Instruct-v0.3")
    assert count(spec, load_recipe("base", ["train.lora.r=32"]).train).trainable == 83_886_080
    small = load_recipe("base", ["train.lora.target_modules=[q_proj,v_proj]"]).train
    assert count(spec, small).trainable == 6_815_744
    assert gguf_size(spec.shape, "q4_k_m") == pytest.approx(4.37e9, rel=0.01)
    assert gguf_size(spec.shape, "q8_0") == pytest.approx(7.70e9, rel=0.01)


def test_every_optimiser_has_its_states() -> None:
    assert memory.STATES.keys() == set(get_args(Optimiser))


def test_four_bits_are_a_seventh_of_bfloat16_and_more_is_needed_by_more() -> None:
    spec, batch = find_model("Mistral-7B-v0.3"), Batch((300, 300), 500, packed=True)

    def need(*settings: str) -> dict[str, int]:
        return memory.predict(spec, load_recipe("base", settings).train, batch, 2)

    quantised, whole = need("train.method=qlora"), need()
    assert quantised["weights"] == pytest.approx(4.14e9, rel=0.01)
    assert whole["weights"] == pytest.approx(14.5e9, rel=0.01)
    assert sum(need("train.gradient_checkpointing=true").values()) < sum(whole.values())
    assert need("train.optim=adamw_8bit")["optimiser"] * 4 == whole["optimiser"]
    assert need("train.lora.r=32")["gradients"] == 2 * whole["gradients"]


def made(rows: list[Row], share: float = 1.0, validation: int = 0) -> work.Work:
    counts = Counts()
    for row in rows:
        counts.add(row)
    return work.Work(rows, share, validation, counts, "its own tokenizer", "nowhere", [])


def test_steps_are_counted_as_the_trainer_counts_them() -> None:
    config = load_recipe("base", ["train.gradient_accumulation_steps=3", "train.num_train_epochs=2"]).train
    rows = made(rows_of([20] * 50))
    assert count_steps(rows, config) == Steps(epochs=2.0, steps=10, batches=13, examples_per_step=12)
    sampled = made(rows_of([20] * 50), share=0.1)
    assert (sampled.row_count, sampled.tokens) == (500, 10_000)
    assert count_steps(sampled, config).batches == 125
    batches = list(lay_out(rows, config, seed=1))
    assert len(batches) == 13
    assert sum(map(len, batches)) == 50
    assert shape_of(rows_of([20, 30]), config.model_copy(update={"packing": False})).tokens == 60


def test_of_a_batch_that_lanes_share_a_pass_of_each_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_recipe("base", ["train.per_device_train_batch_size=6"]).train
    rows = rows_of([900, 800, 300, 200, 100, 50])
    monkeypatch.setattr("medmind.train.lanes.torch.get_num_threads", lambda: 1)
    assert work.held_at_once(rows, config, 256) == rows
    monkeypatch.setattr("medmind.train.lanes.torch.get_num_threads", lambda: 2)
    held = work.held_at_once(rows, config, 256)
    assert 900 <= sum(len(row.ids) for row in held) < 2350
    short = rows_of([20] * 6)
    assert sorted(map(id, work.held_at_once(short, config, 256))) == sorted(map(id, short)), "one pass a lane"
    parts = [memory.predict(NANO, config, shape_of(held, config), 4, lanes) for lanes in (1, 2)]
    assert parts[1]["gradients"] == 4 * parts[0]["gradients"]


def test_time_is_drawn_on_to_every_batch() -> None:
    config = load_recipe("base", ["train.gradient_accumulation_steps=2"]).train
    pace = Pace(Line(1.0, 0.01), forward_share=0.5, update=3.0, load=7.0)
    batches = [Batch((100, 100), 150, packed=True)] * 4
    found = predict_times(pace, batches, Steps(2.0, 4, 4, 4), config, validation=8)
    assert found.step == 2 * 3.0 + 3.0
    assert found.epoch == 4 * 3.0 + 2 * 3.0
    assert found.held_out == 2 * 4 * 3.0 * 0.5
    assert found.total == 7.0 + 2 * found.epoch + found.held_out
    assert found.tokens_per_second == pytest.approx(800 / found.epoch)


def test_a_line_never_falls_nor_begins_below_zero() -> None:
    assert line([(10, 2.0), (30, 4.0)]) == Line(pytest.approx(1.0), pytest.approx(0.1))
    assert line([(10, 5.0), (30, 4.0)]) == Line(4.0, 0.0)
    assert line([(10, 0.1), (30, 6.0)]) == Line(pytest.approx(0.0), pytest.approx(0.2))
    assert line([(10, -1.0), (30, -2.0)]) == Line(0.0, 0.0)


def test_of_a_large_model_two_layers_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_recipe("base", ["train.dtype=float32"]).train
    monkeypatch.setattr("medmind.train.probe.SMALL", 0)
    monkeypatch.setattr("medmind.train.probe.SECONDS", 0.2)
    pace = probe(config, NANO, [rows_of([60, 60])], seed=0)
    assert pace.batch.at(120) > 0
    assert 0.1 < pace.forward_share < 0.9


def test_a_shortened_batch_has_as_many_documents() -> None:
    rows = rows_of([100, 20, 300, 3])
    short = [len(row.ids) for row in shorten(rows, 100)]
    assert short == [23, 4, 70, 2] and shorten(rows, 1000) == rows
    assert [row.labels[-1] for row in shorten(rows, 100)] == [row.labels[-1] for row in rows]


def test_the_first_remedy_that_is_enough_is_told() -> None:
    recipe = load_recipe("base", ["model=Mistral-7B-v0.3"])
    names = [next(iter(change)) for change in lighter(recipe)]
    assert [name.removeprefix("train.") for name in names] == [
        "per_device_train_batch_size",
        "gradient_checkpointing",
        "method",
        "max_length",
        "max_length",
    ]
    changes = memory_changes(recipe, find_model(recipe.model))
    assert changes[-1] == {"model": "nano"}
    sizes = iter([9, 8, 5, 4])
    assert first_that_fits(changes, lambda _: next(sizes), 5) == ({"train.method": "qlora"}, 5)
    assert first_that_fits(changes, lambda _: None, 5) == ({}, 0)


def test_a_remedy_can_be_typed_as_it_is_told() -> None:
    recipe = load_recipe("base")
    for change in memory_changes(recipe, find_model("Mistral-7B-v0.3")):
        typed = as_settings(change).replace("--set ", "").split()
        assert load_recipe("base", typed).model_dump() == changed(recipe, change).model_dump()  # type: ignore[union-attr]
    for change in disk_changes(recipe):
        typed = as_settings(change).replace("--set ", "").split()
        assert load_recipe("base", typed).model_dump() == changed(recipe, change).model_dump()  # type: ignore[union-attr]
    refused = load_recipe("base", ["train.lora.init_lora_weights=pissa"])
    assert changed(refused, {"train.method": "qlora"}) is None


def test_what_does_not_fit_is_told_with_what_would(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    recipe = load_recipe("base", ["model=Mistral-7B-Instruct-v0.3"])
    monkeypatch.setattr(predict, "main_memory", lambda: Room(12_000_000_000, 16_000_000_000))
    monkeypatch.setattr(predict, "disk", lambda _: Room(20_000_000_000, 20_000_000_000))
    found = estimate(open_subject(recipe, RunDir(tmp_path / "run")), RunDir(tmp_path / "run"), timed=False)
    assert found.memory.advice == "--set train.method=qlora"
    assert found.memory.advised <= 12_000_000_000 < found.memory.total
    assert not found.fits
    assert found.disk.advice == "--set stages=[data,train,evaluate,report]"
    assert found.disk.advised <= 20_000_000_000 < found.disk.total
    assert found.download.parts == {"base model": pytest.approx(14.5e9, rel=0.01)}
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr(predict, "disk", lambda _: Room(1_000, 1_000))
    assert estimate(open_subject(recipe, RunDir(tmp_path / "run")), RunDir(tmp_path), timed=False).disk.advice == ""


def test_a_model_too_short_for_the_rows_is_not_advised(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It would fit: nano needs least of all, but cannot read them."""
    recipe = load_recipe("base", ["model=Mistral-7B-Instruct-v0.3", "train.max_length=2048"])
    monkeypatch.setattr(predict, "main_memory", lambda: Room(900_000_000, 900_000_000))
    subject, rundir = open_subject(recipe, RunDir(tmp_path)), RunDir(tmp_path)
    assert estimate(subject, rundir, timed=False).memory.advice == "--set model=nano"
    longer = replace(subject, work=replace(subject.work, rows=[*subject.work.rows, *rows_of([1100])]))
    assert estimate(longer, rundir, timed=False).memory.advice == ""


def test_disk_counts_what_the_stages_write() -> None:
    recipe = load_recipe("base", ["train.save_total_limit=1", "train.save_steps=5", "export.gguf=[f16,q4_k_m]"])
    spec = find_model("nano")
    parts = predict_disk(recipe, spec, Steps(1.0, 15, 15, 4), tokens=1000)
    trainable = count(spec, recipe.train).trainable
    assert parts["adapter"] == 4 * trainable
    assert parts["checkpoints"] == 2 * (12 * trainable + SMALL)  # of three: one is kept, one is being written
    assert {"GGUF f16", "GGUF q4_k_m", "merged"} <= parts.keys()
    assert parts["GGUF f32, while it is checked"] > 1.5 * parts["GGUF f16"]
    trained = recipe.model_copy(update={"stages": ("data", "train")})
    assert "merged" not in predict_disk(trained, spec, Steps(1.0, 15, 15, 4), tokens=1000)


def command(recipe: Recipe | str, *words: str) -> list[str]:
    return [str(recipe), "--set", "train.max_steps=2", *words]


def test_the_command_writes_nothing_and_says_whether_it_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("medmind.train.probe.SECONDS", 0.1)
    monkeypatch.setattr("medmind.train.probe.LEAST", 1)
    assert main(["estimate", *command("demo", "--json")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rows"] == 150
    assert found["times"]["total"] > found["times"]["step"] > 0
    assert found["memory"]["total"] == sum(found["memory"]["parts"].values())
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(predict, "main_memory", lambda: Room(1_000, 1_000))
    assert main(["estimate", *command("demo")]) == 1
    assert "memory does not suffice" in capsys.readouterr().out


def test_a_dry_run_shows_three_rows_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("medmind.train.probe.SECONDS", 0.1)
    monkeypatch.setattr("medmind.train.probe.LEAST", 1)
    assert main(["train", *command("demo", "--dry-run")]) == 0
    told = capsys.readouterr().out
    assert "2 steps of 4 rows" in told
    assert told.count("[/INST]« ") == 3
    assert not list(tmp_path.iterdir())
    assert main(["train", *command("demo", "--dry-run", "--json")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["rows"]) == 3
    assert math.isfinite(found["estimate"]["times"]["total"])


def test_a_run_with_data_lends_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["data", "demo"]) == 0
    recipe, rundir = load_recipe("demo"), RunDir(tmp_path / "runs" / "demo")
    there = open_subject(recipe, rundir).work
    assert there.source.endswith("train.jsonl")
    elsewhere = open_subject(recipe, RunDir(tmp_path / "none")).work
    assert sorted(len(row.ids) for row in there.rows) == sorted(len(row.ids) for row in elsewhere.rows)
    assert replace(there.counts, lengths=[]) == replace(elsewhere.counts, lengths=[])
