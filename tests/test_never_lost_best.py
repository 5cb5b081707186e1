"""Early stopping and the best checkpoint: what the held-out loss decides, and that a killed run decides the same."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_train_engine import CONFIG, prepared, run

from medmind.core.errors import DataError
from medmind.core.jsonl import read_json, read_jsonl, write_jsonl
from medmind.core.rundir import RunDir
from medmind.recipe.load import load_recipe
from medmind.train import checkpoint, engine, held_out
from medmind.train.config import TrainConfig
from medmind.train.held_out import Best

LOSSES = [9.0, 4.0, 3.0, 3.5, 3.0, 2.0, 1.0]
"""Before training, then after each step: the lowest before patience ends is that of step 2."""
STOPS_EARLY = CONFIG.model_copy(
    update={"max_steps": 6, "save_steps": 100, "eval_steps": 1, "early_stopping_patience": 2, "save_total_limit": 1}
)
KEEPS_THE_BEST = STOPS_EARLY.model_copy(update={"load_best_model_at_end": True})


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """The held-out losses, from the first or a later measurement on."""

    def script(first: int = 0) -> None:
        losses = iter(LOSSES[first:])
        monkeypatch.setattr(held_out, "held_out_loss", lambda *_: {"eval_loss": next(losses)})

    return script


def steps_of(rundir: RunDir) -> list[int]:
    return [line["step"] for line in read_jsonl(rundir.metrics) if "loss" in line]


def test_the_best_is_the_first_of_the_lowest_and_never_the_untrained() -> None:
    best = Best()
    found = [best.add(step, loss) for step, loss in enumerate([1.0, 5.0, 4.0, 4.0, float("nan"), 3.0])]
    assert found == [False, True, True, False, False, True]
    assert (best.step, best.loss, best.later) == (5, 3.0, 0)


def test_training_stops_early_and_the_last_weights_are_the_result(
    tiny_model: Path, tmp_path: Path, scripted: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    rundir = prepared(tmp_path)
    scripted()
    run(rundir, tiny_model, STOPS_EARLY)
    assert steps_of(rundir) == [1, 2, 3, 4] and read_json(rundir.plan)["result_step"] == 4
    assert "in 2 measurements none was below that of step 2" in capsys.readouterr().err


def test_the_best_weights_are_the_result(tiny_model: Path, tmp_path: Path, scripted: Callable[..., None]) -> None:
    rundir, two = prepared(tmp_path / "best"), prepared(tmp_path / "two")
    scripted()
    run(rundir, tiny_model, KEEPS_THE_BEST)
    assert steps_of(rundir) == [1, 2, 3, 4] and read_json(rundir.plan)["result_step"] == 2
    kept = rundir.checkpoints / "checkpoint-2" / "adapter_model.safetensors"
    assert kept.read_bytes() == (rundir.adapter / kept.name).read_bytes()
    scripted()
    run(two, tiny_model, STOPS_EARLY)
    last, best = load_file(two.adapter / kept.name), load_file(rundir.adapter / kept.name)
    assert not all(torch.equal(tensor, best[name]) for name, tensor in last.items())


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_killed_run_keeps_the_same_best_and_stops_at_the_same_step(
    tiny_model: Path, tmp_path: Path, scripted: Callable[..., None], monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    config = KEEPS_THE_BEST.model_copy(update={"method": method, "save_steps": 3})
    if method == "full":
        config = config.model_copy(update={"lora": TrainConfig().lora})
    whole, killed = prepared(tmp_path / "whole"), prepared(tmp_path / "killed")
    scripted()
    run(whole, tiny_model, config)
    scripted()
    with monkeypatch.context() as patch:  # after the checkpoint of step 3, in the middle of the measurement of step 4
        losses = iter(LOSSES[:4])
        patch.setattr(held_out, "held_out_loss", lambda *_: {"eval_loss": next(losses)})
        with pytest.raises((StopIteration, RuntimeError)):
            run(killed, tiny_model, config)
    scripted(first=4)
    run(killed, tiny_model, config)
    plan = read_json(killed.plan)
    assert (plan["resumed_from"], plan["result_step"], steps_of(killed)) == (3, 2, [1, 2, 3, 4])
    folder = "model" if method == "full" else "adapter"
    name = "model.safetensors" if method == "full" else "adapter_model.safetensors"
    assert (killed.train / folder / name).read_bytes() == (whole.train / folder / name).read_bytes()


def test_killed_after_it_had_stopped_early_it_stays_stopped(
    tiny_model: Path, tmp_path: Path, scripted: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = KEEPS_THE_BEST.model_copy(update={"save_steps": 4})
    rundir = prepared(tmp_path)
    scripted()
    with monkeypatch.context() as patch:
        patch.setattr(engine, "finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(rundir, tiny_model, config)
    assert {checkpoint.step_of(folder) for folder in checkpoint.by_step(rundir.checkpoints)} == {2, 4}
    scripted(first=5)
    run(rundir, tiny_model, config)
    assert steps_of(rundir) == [1, 2, 3, 4] and read_json(rundir.plan)["result_step"] == 2


@pytest.mark.parametrize("config", [KEEPS_THE_BEST, CONFIG.model_copy(update={"eval_steps": 1})])
def test_without_a_held_out_row_all_that_need_its_loss_are_refused(
    config: TrainConfig, tiny_model: Path, tmp_path: Path
) -> None:
    rundir = prepared(tmp_path)
    write_jsonl(rundir.split("validation"), [])
    with pytest.raises(DataError, match=r"no row is held out.* train.eval_steps"):
        run(rundir, tiny_model, config)


@pytest.mark.parametrize("setting", ["early_stopping_patience=2", "load_best_model_at_end=true"])
def test_they_need_to_know_how_often_to_measure(setting: str) -> None:
    with pytest.raises(Exception, match=r"needs train.eval_steps"):
        load_recipe("base", [f"train.{setting}"])
    assert load_recipe("base", [f"train.{setting}", "train.eval_steps=5"]).train.eval_steps == 5


def test_trackers_hear_of_every_step_and_of_the_held_out_loss(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accumulator: Any = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    rundir = prepared(tmp_path)
    run(rundir, tiny_model, CONFIG.model_copy(update={"max_steps": 3, "report_to": ("tensorboard",)}))
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    events = accumulator.EventAccumulator(str(rundir.tensorboard))
    events.Reload()
    told = {tag: [(one.step, one.value) for one in events.Scalars(tag)] for tag in ("train/loss", "eval/loss")}
    lines = list(read_jsonl(rundir.metrics))
    for name, tag in (("loss", "train/loss"), ("eval_loss", "eval/loss")):
        written = [(line["step"], pytest.approx(line[name], rel=1e-3)) for line in lines if name in line]
        assert told[tag] == written
    assert not (rundir.checkpoints / "runs").exists()


def test_a_tracker_that_is_not_installed_is_named_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from medmind.core.errors import EnvironmentFault
    from medmind.train import trackers

    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentFault, match=r"wandb, which is not installed, pip install 'medmind\[wandb\]'"):
        trackers.check_trackers(("wandb",), RunDir(tmp_path))
