"""The bench behind docs/results.md: it climbs to the best rate, pools seeds, counts no question twice, resumes."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from medmind.core.jsonl import write_jsonl
from medmind.core.rundir import RunDir
from medmind.core.types import Example, Message, Outcome, Prediction
from medmind.evaluate.metrics.loss import ItemLoss

BENCH = Path(__file__).parent.parent / "bench"
PAGE = "\n".join(
    f"<!-- {name}: here -->\nold\n<!-- end -->"
    for name in ("rates", "predicted", "terms cost", "terms quality", "medquad cost", "medquad quality")
)
RATES = [{"kind": "rate", "task": "terms", "arm": "full", "rate": 1e-3, "before": 5.0, "validation_loss": 3.0}]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCH))
    import lora_vs_full

    monkeypatch.setattr(lora_vs_full, "WORK", tmp_path / "runs")
    module: ModuleType = lora_vs_full
    return module


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCH))
    import lora_vs_full_page

    module: ModuleType = lora_vs_full_page
    return module


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    (tmp_path / "results.md").write_text(PAGE, encoding="utf-8")
    return tmp_path


def line(folder: Path, arm: str, seed: int, losses: dict[str, float], right: set[str]) -> dict[str, Any]:
    """A run's line, with the files it leaves: each question has ten tokens of so many nats each."""
    run = RunDir(folder / f"{arm}-{seed}")
    asked = [
        Example(id=name, source="s", task="terms", turns=(Message(role="user", text="Explain: x"),), target="a b c")
        for name in losses
    ]
    replies = [
        Prediction(
            id=name, prompt=f"p {name}", text="a b c", answer="", outcome=Outcome.ANSWERED, correct=name in right
        )
        for name in losses
    ]
    write_jsonl(run.suite("test"), asked)
    write_jsonl(run.predictions("test", "tuned"), replies)
    write_jsonl(run.losses("test", "tuned"), [ItemLoss(id=n, nats=10 * v, tokens=10) for n, v in losses.items()])
    figures = {"format_adherence": len(right) / len(losses), "heldout_loss": sum(losses.values()) / len(losses)}
    sizes = {"full": (100, 400, 1000), "lora-16": (10, 300, 100)}[arm]
    return {
        "kind": "run",
        "task": "terms",
        "arm": arm,
        "title": arm,
        "seed": seed,
        "rate": 1e-3,
        "folder": str(run.root),
        "suite": "test",
        "parameters": {"total": 100, "trainable": sizes[0]},
        "step_seconds": 0.1,
        "peak_bytes": sizes[1] * 10**6,
        "processor_seconds": 30.0,
        "result_bytes": sizes[2],
        "cost": 0.1,
        "tuned": figures | {"chrf": 1.0},
        "base": {"format_adherence": 0.0, "heldout_loss": 5.0, "chrf": 0.1},
    }


def two_seeds(folder: Path, change: Callable[[int], float]) -> list[dict[str, Any]]:
    """Twenty questions both seeds ask; LoRA's loss is full's and what the change says of the question."""
    names = [f"q{number:02}" for number in range(20)]
    full = {name: 1 + number / 20 for number, name in enumerate(names)}
    lora = {name: full[name] + change(number) for number, name in enumerate(names)}
    return [
        line(folder, arm, seed, losses, set(names[:right]))
        for seed in (0, 1)
        for arm, losses, right in (("full", full, 15), ("lora-16", lora, 9))
    ]


@pytest.mark.parametrize(("other", "told"), [(0.1, "better"), (0.0, "cannot tell"), (-0.1, "cannot tell")])
def test_seeds_that_point_different_ways_show_nothing(page: ModuleType, other: float, told: str) -> None:
    """The interval knows questions only."""

    def found(gain: float) -> Any:
        return page.compare([(0.0, 1, gain, 1)] * 50, "format_adherence")

    assert page.verdict(found(0.2), [found(0.3), found(other)]) == told


def test_the_climb_ends_where_both_neighbours_are_worse(bench: ModuleType) -> None:
    tried: list[float] = []

    def loss_at(rate: float) -> float:
        tried.append(rate)
        return abs(rate - 0.009) if rate < 0.02 else float("inf")

    assert bench.climb(1e-3, loss_at) == 9e-3
    assert sorted(set(tried)) == [3.3e-4, 1e-3, 3e-3, 9e-3, 2.7e-2]


def test_each_arm_is_a_recipe(bench: ModuleType) -> None:
    from medmind.recipe.load import load_recipe

    for task in bench.TASKS:
        for arm, one in bench.ARMS.items():
            recipe = load_recipe("base", bench.settings(task, arm, 1e-3))
            assert recipe.train.method == one.method
            assert recipe.train.lora.lora_alpha == 2 * recipe.train.lora.r
            assert one.as_arm in bench.ARMS if one.as_arm else one.start
    assert {*bench.grid()} == {(task, arm, seed) for task in bench.TASKS for arm in bench.ARMS for seed in bench.SEEDS}


def test_a_question_of_two_seeds_counts_once(page: ModuleType, tmp_path: Path) -> None:
    lines = two_seeds(tmp_path, lambda number: 0.1 if number % 2 else -0.08)
    together, alone = page.compare_seeds(lines, "terms", "lora-16", "heldout_loss")
    assert together.n == 20
    assert together.difference == pytest.approx(0.01)
    assert (together.low, together.high) == pytest.approx((alone[0].low, alone[0].high))
    assert together.verdict == "cannot tell"
    kept, _ = page.compare_seeds(lines, "terms", "lora-16", "format_adherence")
    assert (kept.base, kept.tuned, kept.verdict) == (0.75, 0.45, "worse")


def test_the_page_gets_tables_and_plots(page: ModuleType, docs: Path) -> None:
    lines = two_seeds(docs, lambda number: -0.1)
    everywhere = [*lines, *({**one, "task": "medquad", "tuned": one["tuned"] | {"rouge_l": 1.0}} for one in lines)]
    for one in everywhere:
        one["base"] = one["base"] | {"rouge_l": 0.1}
    rates = [*RATES, RATES[0] | {"rate": 3e-3, "validation_loss": None}]
    page.write_page([*rates, *everywhere, RATES[0] | {"task": "medquad"}], docs)
    written = (docs / "results.md").read_text(encoding="utf-8")
    assert "old" not in written
    assert "| terms | full | 5.000 | 0.001: **3.000**, 0.003: exploded |" in written
    assert "| lora-16 | 0.001 | 10.0% | 300 MB | -25% | 30 s | +0% | 0.00 MB | -90% | 0.1000 | 2 |" in written
    assert "| lora-16 | 1.375, 1.375 | 1.375 | -0.100 | -0.100 to -0.100 | -0.100, -0.100 | better |" in written
    assert "| LoRA 128, q and v | 0." in written
    assert "| lora-16 | 45 %, 45 % | 45 % | -30 % |" in written
    for name in ("lora-quality", "lora-cost"):
        assert 2_000 < (docs / f"{name}.svg").stat().st_size < 60_000


@pytest.mark.slow
def test_the_smallest_grid(bench: ModuleType, page: ModuleType, docs: Path) -> None:
    """Two steps and two questions; what is done is not done again."""
    small = ("train.max_steps=2", "evaluate.max_items=2", "evaluate.max_new_tokens=4")
    record = bench.Record(docs / "results.jsonl")
    record.add(bench.try_rate("terms", "full", 1e-3, small))
    for arm in ("full", "lora-4"):
        record.add(bench.measure("terms", arm, 0, 1e-3, small))
    lines = bench.Record(docs / "results.jsonl").lines
    assert lines == record.lines
    _, full, lora = lines
    assert full["parameters"]["trainable"] == full["parameters"]["total"] > 20 * lora["parameters"]["trainable"]
    assert full["result_bytes"] > 20 * lora["result_bytes"]
    assert 0.3e9 < lora["peak_bytes"] < full["peak_bytes"] < 3e9
    assert (full["steps"], full["tokens"]) == (lora["steps"], lora["tokens"])
    assert full["cost"] == pytest.approx(full["processor_seconds"] / 3600 * bench.PRICE, rel=0.01)
    assert full["base"] == lora["base"] != lora["tuned"]
    found, _ = page.compare_seeds(lines, "terms", "lora-4", "heldout_loss")
    assert found.n == 2
    assert found.base == pytest.approx(full["tuned"]["heldout_loss"])
    assert json.loads(json.dumps(lora)) == lora
