"""Threads that each take documents of their own give the loss and the gradients of one that takes them all."""

import math
from array import array
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from test_train_engine import open_renderer_of, prepared
from test_train_layer import LENGTHS, adapted, batch_of
from transformers import LlamaConfig

from medmind.core.jsonl import read_jsonl
from medmind.core.rundir import RunDir
from medmind.models.catalog import NANO, find_model
from medmind.train import compiled, lanes
from medmind.train.batches import IGNORED, Row, pack
from medmind.train.config import LoraConfig, TrainConfig
from medmind.train.engine import train
from medmind.train.held_out import cut, held_out_loss
from medmind.train.lanes import Lanes, count_lanes, divide, even, open_lanes
from medmind.train.loss import completion_loss

FOUR_EXAMPLES = {"per_device_train_batch_size": 4}
MODEL: Any = SimpleNamespace(config=LlamaConfig())


@pytest.fixture
def threads() -> Iterator[Any]:
    """Sets how many torch has, until the test is over."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def learn(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    return {"loss": loss.detach()} | {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("count", "documents"), [(2, 1), (2, 3), (3, 2), (4, 9)])
def test_lanes_equal_one_pass(threads: Any, count: int, documents: int, monkeypatch: pytest.MonkeyPatch) -> None:
    threads(count)
    monkeypatch.setattr(lanes, "TOKENS", 40)
    model = adapted("llama", True, torch.float32)
    slow = learn(model, completion_loss(model, batch_of()))
    fast = learn(model, Lanes(count, documents).loss(model, batch_of()) * 1)
    assert slow.keys() == fast.keys() and len(slow) == 1 + 2 * 14
    for name in slow:
        torch.testing.assert_close(fast[name], slow[name], rtol=1e-4, atol=1e-4)
    assert torch.get_num_threads() == count


def batch_that_begins_alike(begun: int = 6, lengths: tuple[int, ...] = (9, 140, 8, 7, 31, 150)) -> dict[str, Any]:
    """As documents with one system prompt do."""
    generator = torch.Generator().manual_seed(4)
    beginning, *rest = (torch.randint(3, 8192, (length,), generator=generator).tolist() for length in (begun, *lengths))
    rows = []
    for own in rest:
        ids = [*beginning, *own[begun:]]
        rows.append(Row("test", array("i", ids), array("i", [*[IGNORED] * begun, *ids[begun + 1 :], IGNORED]), 1))
    return pack(rows)


@pytest.mark.parametrize("family", ["llama", "mistral"])
@pytest.mark.parametrize("how", ["compiled", "no probabilities kept", "torch", "windowed", "twin"])
def test_what_documents_begin_with_is_computed_once_a_pass(
    threads: Any, family: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads(2)
    if how == "torch":
        monkeypatch.setattr(compiled, "load", lambda: None)
    if how == "no probabilities kept":
        monkeypatch.setattr("medmind.train.heads.KEPT", 8)
    model = adapted(family, how != "twin", torch.float32)
    model.config.sliding_window = 20 if how == "windowed" else None
    batch = batch_that_begins_alike()
    slow = learn(model, completion_loss(model, batch))
    seen: list[Any] = []

    def watched(model: Any, one: Any) -> torch.Tensor:
        seen.append(one)
        return completion_loss(model, one)

    monkeypatch.setattr(lanes, "completion_loss", watched)
    fast = learn(model, Lanes(2, 3).loss(model, batch) * 1)
    assert [(len(one["segments"]), one["shared"]) for one in seen] == [(3, 6), (3, 6)]
    assert sum(one["input_ids"].numel() for one in seen) == batch["input_ids"].numel() - 4 * 6
    assert slow.keys() == fast.keys() and len(slow) == 1 + 2 * 14
    for name in slow:
        torch.testing.assert_close(fast[name], slow[name], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("ids", "learnt_from", "shared"),
    [
        (([1, 2, 3, 4], [1, 2, 5]), 2, 2),
        (([1, 2, 3, 4], [1, 2, 5]), 1, 1),  # what is learnt is not shared
        (([1, 2, 3], [1, 2, 3]), 3, 2),  # some of each is left
        (([1, 2, 3], [2, 2, 3]), 3, 0),
        (([1, 2, 3], [1]), 3, 0),
        (([1, 2, 3],), 3, 0),
    ],
)
def test_what_documents_share_is_neither_learnt_nor_all_of_one(
    ids: tuple[list[int], ...], learnt_from: int, shared: int
) -> None:
    labels = [torch.tensor([IGNORED if place < learnt_from else 7 for place in range(len(one))]) for one in ids]
    assert lanes.count_shared([torch.tensor(one) for one in ids], labels) == shared


def test_what_lanes_find_is_the_same_to_the_bit_each_time(threads: Any) -> None:
    threads(2)
    model, two = adapted("mistral", True, torch.bfloat16), Lanes(2, 2)
    first, *others = (learn(model, two.loss(model, batch_of())) for _ in range(4))
    for other in others:
        assert all(torch.equal(first[name], other[name]) for name in first)


def test_a_loss_that_is_scaled_scales_its_gradients(threads: Any) -> None:
    threads(2)
    model, two = adapted("mistral", True, torch.float32), Lanes(2, 2)
    whole, half = (learn(model, two.loss(model, batch_of()) * scale) for scale in (1, 0.5))
    for name in whole:
        torch.testing.assert_close(half[name], whole[name] / 2)


@pytest.mark.parametrize("lengths", [LENGTHS, (900, 800, 700, 20), (5,), (10,) * 13])
def test_every_document_is_taken_once_in_passes_that_are_bounded(lengths: tuple[int, ...]) -> None:
    divided = divide(lengths, 3, 4, 64)
    assert sorted(place for own in divided for one in own for place in one) == list(range(len(lengths)))
    assert len(divided) == min(3, len(lengths))
    for own in divided:
        assert all(len(one) <= 4 for one in own)
        assert all(len(one) == 1 or sum(lengths[place] for place in one) <= 1.5 * lanes.TOKENS for one in own)
    loads = [sum(lengths[place] for one in own for place in one) for own in divided]
    assert max(loads) - min(loads) <= max(lengths)


def test_work_is_shared_out_more_evenly_than_by_giving_the_heaviest_to_who_has_least() -> None:
    weights = (8, 7, 6, 5, 4)  # that gives 17 and 13
    assert sorted(sum(weights[place] for place in part) for part in even(range(5), weights, 2)) == [14, 16]
    assert even([3], weights, 2) == [[3]]


def test_neighbours_begin_at_opposite_ends() -> None:
    up, down = ([max(one) for one in own] for own in divide((800, 810, 820, 830, 840, 850), 2, 1, 64))
    assert up == sorted(up) and down == sorted(down, reverse=True), "places rise with the lengths"


def test_an_error_in_a_lane_is_an_error(threads: Any) -> None:
    threads(2)
    model = adapted("mistral", True, torch.float32)
    with pytest.raises(IndexError):
        Lanes(2, 1).loss(model, batch_of() | {"input_ids": torch.full((1, sum(LENGTHS)), 9000)})
    assert torch.get_num_threads() == 2


def test_lanes_are_as_many_as_threads_and_documents(threads: Any) -> None:
    threads(3)
    plain = TrainConfig(per_device_train_batch_size=7)
    found = open_lanes(plain, MODEL)
    assert found is not None and (found.count, found.documents) == (3, 2)
    assert count_lanes(plain.model_copy(update={"per_device_train_batch_size": 2})) == 2
    threads(9)
    assert count_lanes(plain) == lanes.MOST
    threads(1)
    assert open_lanes(plain, MODEL) is None


@pytest.mark.parametrize(
    "settings",
    [
        {"per_device_train_batch_size": 1},
        {"lora": LoraConfig(lora_dropout=0.1)},
        {"lora": LoraConfig(use_dora=True)},
        {"neftune_noise_alpha": 5.0},
        {"gradient_checkpointing": True},
        {"packing": False},
        {"method": "full"},
        {"method": "qlora"},
    ],
)
def test_where_chance_or_memory_speak_against_it_there_is_one(threads: Any, settings: dict[str, Any]) -> None:
    threads(2)
    assert open_lanes(TrainConfig(**(FOUR_EXAMPLES | settings)), MODEL) is None
    assert open_lanes(TrainConfig(**FOUR_EXAMPLES), MODEL, processes=2) is None
    assert open_lanes(TrainConfig(**FOUR_EXAMPLES), MODEL) is not None


@pytest.mark.parametrize(
    "settings",
    [{"attention_dropout": 0.1}, {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}],
)
def test_a_model_that_is_not_the_same_at_every_pass_has_one(threads: Any, settings: dict[str, Any]) -> None:
    threads(2)
    unsteady: Any = SimpleNamespace(config=LlamaConfig(**settings))
    assert open_lanes(TrainConfig(**FOUR_EXAMPLES), unsteady) is None


def test_the_held_out_loss_is_the_same(threads: Any) -> None:
    threads(2)
    model, config = adapted("mistral", True, torch.float32), TrainConfig(per_device_train_batch_size=2)
    rows = []
    for length in (9, 40, 3, 17, 26):
        ids = array("i", range(10, 10 + length))
        rows.append(Row("test", ids, array("i", [*ids[1:], IGNORED]), 1))
    one, two = (held_out_loss(model, rows, config, torch.float32, some) for some in (None, Lanes(2, 1)))
    assert one["eval_loss"] == pytest.approx(two["eval_loss"], rel=1e-6)


@pytest.mark.parametrize(
    ("count", "tokens", "expected"),
    [(2, math.inf, [[9, 40], [3, 17], [26]]), (4, 50, [[9, 40], [3, 17, 26]]), (4, 30, [[9], [40], [3, 17], [26]])],
)
def test_held_out_batches_are_bounded_in_rows_and_tokens(count: int, tokens: float, expected: list[list[int]]) -> None:
    rows = [Row("test", array("i", range(length)), array("i", range(length)), 1) for length in (9, 40, 3, 17, 26)]
    assert [[len(row.ids) for row in part] for part in cut(rows, count, tokens)] == expected


def test_a_run_learns_the_same_with_lanes_and_whatever_a_step_is_made_of(threads: Any, tmp_path: Path) -> None:
    def losses(folder: str, count: int, at_once: int, rounds: int) -> list[float]:
        threads(count)
        rundir: RunDir = prepared(tmp_path / folder)
        config = TrainConfig(
            dtype="float32",
            learning_rate=1e-3,
            max_steps=5,
            per_device_train_batch_size=at_once,
            gradient_accumulation_steps=rounds,
        )
        train(config, rundir, find_model("nano"), open_renderer_of(NANO), "Be brief.", seed=3)
        return [line.get("loss", line.get("eval_loss")) for line in read_jsonl(rundir.metrics)]

    slow = losses("slow", 1, 2, 2)
    assert losses("lanes", 2, 2, 2) == pytest.approx(slow, rel=1e-4)
    assert losses("whole", 2, 4, 1) == pytest.approx(slow, rel=1e-4)
