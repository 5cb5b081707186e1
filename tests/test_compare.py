"""`medmind compare` and what a comparison holds: margin, Holm, the split of a gain, refusals that name the cause."""

import json
from pathlib import Path

import numpy as np
import pytest

from medmind.cli.main import main
from medmind.core.jsonl import read_json, write_json, write_jsonl
from medmind.core.rundir import RunDir
from medmind.core.types import Comparison, Example, Message, Metric, Outcome, Prediction, Scores
from medmind.evaluate.compare import adjust, compare, describe
from medmind.evaluate.config import EvaluateConfig
from medmind.evaluate.differences import Ratio, compare_losses, compare_ratios, compare_shares, judge, would_show
from medmind.evaluate.forced import Chosen
from medmind.evaluate.gain import PARTS, levels, split_gain, write_gain
from medmind.evaluate.metrics.loss import ItemLoss
from medmind.report.words import fine_print

OPTIONS = ("yes", "no", "maybe")
N = 60


def question(number: int, task: str = "choice") -> Example:
    return Example(
        id=f"q{number}",
        source="test",
        task=task,
        turns=(Message(role="user", text=f"Question {number}?"),),
        options=OPTIONS if task == "choice" else (),
        target=OPTIONS[number % 2] if task == "choice" else "It is so.",
    )


def answer(number: int, right: bool, outcome: Outcome = Outcome.ANSWERED, prompt: str = "") -> Prediction:
    said = OPTIONS[number % 2] if right else OPTIONS[1 - number % 2]
    said = said if outcome is Outcome.ANSWERED else ""
    sums = tuple(0.0 if option == said else -3.0 for option in OPTIONS)
    return Prediction(
        id=f"q{number}", prompt=prompt or f"p{number}", text=said, answer=said, outcome=outcome, correct=right,
        logprobs=sums,
    )  # fmt: skip


def make_run(root: Path, right: int, items: int = N, prompt: str = "") -> RunDir:
    """A suite of choices of which the tuned model has the first `right`, the base none, and one of free answers."""
    run = RunDir(root)
    write_jsonl(run.suite("choices"), [question(number) for number in range(items)])
    write_jsonl(run.suite("free"), [question(number, "qa") for number in range(items)])
    for which, known in (("base", 0), ("tuned", right)):
        rows = [answer(number, number < known, prompt=prompt) for number in range(items)]
        said = [row.model_copy(update={"text": "It is so.", "answer": "It is so.", "logprobs": None}) for row in rows]
        for suite, predictions in (("choices", rows), ("free", said)):
            write_jsonl(run.predictions(suite, which), predictions)
            losses = [ItemLoss(id=f"q{n}", nats=9.0 - known / 60 + n % 3, tokens=3) for n in range(items)]
            write_jsonl(run.losses(suite, which), losses)
            zero = Metric(value=0, low=0, high=0, n=items)
            scores = Scores(
                suite=suite, model="m", n=items, dtype="float32", engine="fake", metrics={"accuracy": zero},
                outcomes={}, class_balance={}, ids_sha256="", data_sha256="",
            )  # fmt: skip
            write_json(run.scores(suite, which), scores.model_dump(mode="json"))
    return run


def test_runs_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    roots = [str(make_run(tmp_path / name, right).root) for name, right in (("a", 20), ("b", 50), ("c", 20))]
    assert main(["compare", *roots, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(Path(one["against"]).name, one["suite"]) for one in found] == [
        ("b", "choices"), ("c", "choices"), ("b", "free"), ("c", "free")
    ]  # fmt: skip
    better, same = found[0], found[1]
    assert (better["metric"], better["gained"], better["lost"], better["verdict"]) == ("accuracy", 30, 0, "better")
    assert better["p_value"] < better["adjusted_p"] <= 4 * better["p_value"]
    assert better["family"] == 4
    assert better["bootstrap_low"] == pytest.approx(better["low"], abs=0.05)
    assert (same["difference"], same["verdict"]) == (0.0, "cannot tell")  # sixty items cannot prove two points
    assert [one["metric"] for one in better["others"]] == ["choice_accuracy", "heldout_loss"]
    assert [one["metric"] for one in found[2]["others"]] == ["chrf", "unsupported"]
    assert (found[3]["high"], found[3]["verdict"]) == (0.0, "cannot tell")  # nor where no loss differs at all
    assert main(["compare", *roots, "--suite", "free", "--margin", "0.5"]) == 0
    shown = capsys.readouterr().out
    assert "no worse by more than 0.5" in shown and "choices" not in shown and "Holm's p" in shown


def losses(items: int, nats: float) -> list[ItemLoss]:
    return [ItemLoss(id=f"q{n}", nats=nats, tokens=1) for n in range(items)]


def test_a_few_items_prove_nothing_by_a_mean() -> None:
    """A bootstrap of one item has no width; five of one sign are chance once in sixteen, six once in thirty-two."""
    for items, verdict in ((1, "cannot tell"), (5, "cannot tell"), (6, "better")):
        found = compare_losses("s", losses(items, 9.0), losses(items, 3.0), 0.02, 0)
        assert (found.verdict, found.p_value) == (verdict, 0.5 ** (items - 1))
        same = losses(94, 5.0)  # items that do not differ tell as little as ones that are not there
        found = compare_losses("s", losses(items, 9.0) + same, losses(items, 3.0) + same, 0.02, 0)
        assert found.verdict == verdict and (found.p_value or 0) >= 0.5 ** (items - 1)


@pytest.mark.parametrize(("items", "verdict"), [(5, "cannot tell"), (182, "cannot tell"), (183, "no worse")])
def test_items_that_are_all_equal_need_be_as_many_as_would_have_shown_a_loss(items: int, verdict: str) -> None:
    """0.98^183 is the first power below 2.5 %: so many items show it if one in fifty is lost."""
    flags = [number % 2 == 0 for number in range(items)]
    for found in (
        compare_losses("s", losses(items, 5.0), losses(items, 5.0), 0.02, 0),
        compare_shares("s", "accuracy", flags, flags, 0.02),
    ):
        assert (found.difference, found.verdict) == (0.0, verdict)
        assert found.smallest_detectable is None
        assert found.power == pytest.approx(0.0 if items == 5 else 0.95, abs=0.05)  # never sure of what it has not seen


@pytest.mark.parametrize(("changed", "verdict"), [(29, "cannot tell"), (30, "no worse")])
def test_a_mean_of_many_that_differ_is_taken_at_its_word(changed: int, verdict: str) -> None:
    new = losses(60, 5.0)
    for number in range(changed):
        new[number] = ItemLoss(id=f"q{number}", nats=5.0 + (-1) ** number / 500, tokens=1)
    assert compare_losses("s", losses(60, 5.0), new, 0.02, 0).verdict == verdict
    rounded = losses(60, 5.00001)  # what another batch makes of the same model is no difference
    assert compare_losses("s", losses(60, 5.0), rounded, 0.02, 0).verdict == "cannot tell"


def test_figures_asked_for_differently_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [make_run(tmp_path / name, right) for name, right in (("a", 20), ("b", 50))]
    for run, protocol in zip(runs, ("lm-eval", "chat"), strict=True):
        file = run.scores("choices", "tuned")
        write_json(file, read_json(file) | {"asked": {"choice_accuracy": protocol}})
    words = ["compare", *(str(run.root) for run in runs), "--suite", "choices"]
    assert main([*words, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert [one["metric"] for one in found["others"]] == ["heldout_loss"]
    assert found["note"] == "choice_accuracy is left out: asked for by lm-eval and chat"
    assert main(words) == 0
    assert f"choices, accuracy: {found['note']}" in capsys.readouterr().out
    write_json(runs[1].scores("choices", "tuned"), [])
    assert main(["compare", *(str(run.root) for run in runs)]) == 2
    assert "not the scores of a suite" in capsys.readouterr().err


def test_settings_that_were_not_the_same_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [make_run(tmp_path / name, 20) for name in "abc"]
    file = runs[1].scores("choices", "tuned")
    write_json(file, read_json(file) | {"dtype": "bfloat16", "max_new_tokens": 64})
    words = ["compare", *(str(run.root) for run in runs), "--suite", "choices"]
    assert main([*words, "--json"]) == 0
    notes = [one["note"] for one in json.loads(capsys.readouterr().out)]
    assert notes == ["dtype was float32 and bfloat16; max_new_tokens was not recorded and 64", ""]
    assert main(words) == 0
    assert f"{runs[1].root}: choices, accuracy: {notes[0]}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"items": 59}, "60 items in one run and 59"),
        ({"prompt": "other"}, 'the prompts of "q0" differ'),
    ],
)
def test_runs_that_were_not_asked_the_same_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, int], said: str
) -> None:
    roots = [str(make_run(tmp_path / "a", 9).root), str(make_run(tmp_path / "b", 9, **change).root)]
    assert main(["compare", *roots]) == 2
    assert said in capsys.readouterr().err


def test_the_first_item_that_differs_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [make_run(tmp_path / name, 9) for name in "ab"]
    rows = [question(number) for number in range(N)]
    rows[7] = rows[7].model_copy(update={"target": "maybe"})
    write_jsonl(runs[1].suite("choices"), rows)
    assert main(["compare", *(str(run.root) for run in runs)]) == 2
    assert 'item 8 of suite choices differs: "q7"' in capsys.readouterr().err


def test_files_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run = make_run(tmp_path / "runs" / "a", 30)
    own = [str(run.predictions("choices", which)) for which in ("base", "tuned")]
    assert main(["compare", *own, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["metric"], found["gained"], found["lost"]) == ("correct", 30, 0)
    lines = [{"id": f"q{number}", "text": OPTIONS[number % 2] if number < 45 else "?"} for number in range(N)]
    write_jsonl(tmp_path / "other.jsonl", reversed(lines))  # the order of a file from elsewhere is its own
    words = ["compare", own[1], "other.jsonl"]
    assert main(words) == 2
    assert "need the suite they answer" in capsys.readouterr().err
    assert main([*words, "--suite", "choices", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["metric"], found["gained"], found["lost"], found["n"]) == ("accuracy", 15, 0, N)
    write_jsonl(tmp_path / "other.jsonl", lines[1:])
    assert main([*words, "--suite", "choices"]) == 2
    assert "1 of 60 questions have no prediction (first: q0)" in capsys.readouterr().err


def test_what_cannot_be_compared_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = str(make_run(tmp_path / "a", 9).root)
    file = f"{root}/evaluate/choices/base/predictions.jsonl"
    short = tmp_path / "short.jsonl"
    write_jsonl(short, [answer(number, True) for number in range(1, N)])
    for words, said in (
        ([root], "one alone"),
        ([root, str(tmp_path / "nowhere")], "no such run or file"),
        ([root, file], "runs and files do not compare"),
        ([root, root, "--margin", "2"], "between 0 and 1"),
        ([root, root, "--suite", "x"], 'suite "x" was not evaluated'),
        ([file, str(short)], 'row 1 differs: "q0" and "q1"'),
    ):
        assert main(["compare", *words]) == 2
        assert said in capsys.readouterr().err


def test_the_verdict_of_the_interval() -> None:
    assert judge(0.01, 0.05, 0.02, enough=False) == "better"
    assert judge(0.01, 0.05, 0.02, shown=False) == "no worse"
    assert judge(-0.015, 0.05, 0.02) == "no worse"
    assert judge(-0.015, 0.05, 0.02, enough=False) == "cannot tell"
    assert judge(-0.02, 0.05, 0.02) == "cannot tell"
    assert judge(-0.015, -0.005, 0.02, enough=False) == "worse"  # surely, though by little
    assert (would_show(183, 0, 0.02), would_show(182, 0, 0.02), would_show(200, 1, 0.02)) == (True, False, False)
    many = compare_shares("s", "accuracy", [True, False] * 3000, [True, False] * 3000, 0.02)
    assert (many.verdict, many.margin) == ("no worse", 0.02)


def test_a_ratio_resamples_both_models_together() -> None:
    draw = np.random.default_rng(0)
    hard = draw.normal(5, 2, size=80)
    old, new = Ratio(list(hard), [1.0] * 80), Ratio(list(hard - 0.3 + draw.normal(0, 0.1, 80)), [1.0] * 80)
    found = compare_ratios("s", "chrf", old, new, 0.02, 0, lower_is_better=True)
    assert found.verdict == "better"
    assert found.high - found.low == pytest.approx(2 * 1.96 * 0.1 / 80**0.5, rel=0.25)  # not the 2 of the items


def test_holm_stands_beside_the_raw_p_and_is_told() -> None:
    found = [
        compare_shares(name, "accuracy", [False] * lost + [True] * (50 - lost), [True] * 50, 0.02)
        for name, lost in (("a", 6), ("b", 0), ("c", 0))
    ]
    first, *_ = adjust(found)
    assert first.p_value == pytest.approx(1 / 64) and first.adjusted_p == pytest.approx(3 / 64)
    first, *_ = adjust([*found, found[1]])
    assert first.adjusted_p == pytest.approx(4 / 64)
    assert "among 4 suites chance may do that" in describe(first)


def test_the_report_tells_holm_and_the_margin() -> None:
    same = [compare_shares(name, "accuracy", [True, False] * 3000, [True, False] * 3000, 0.02) for name in "ab"]
    lines = fine_print("accuracy", adjust(same)[0].model_dump())
    assert "Among 2 suites compared at once: p 1 (Holm)." in lines
    assert "The margin of “no worse” is 2.0 points." in lines
    assert not any("Holm" in line for line in fine_print("accuracy", adjust(same[:1])[0].model_dump()))


def chosen(right: str, sums: tuple[float, ...], number: int) -> Chosen:
    said = OPTIONS[sums.index(max(sums))]
    return Chosen(id=f"q{number}", answer=said, correct=said == right, answers=OPTIONS, logprobs=sums)


def test_the_parts_add_up_to_the_whole_gain() -> None:
    draw = np.random.default_rng(0)
    targets = {f"q{number}": OPTIONS[draw.integers(3)] for number in range(200)}

    def model(skill: float, unread: float, liking: float) -> dict[str, np.ndarray]:
        raw, chat, said = [], [], []
        for number, (name, target) in enumerate(targets.items()):
            for rows in (raw, chat):
                sums = draw.normal(size=3) + skill * (np.array(OPTIONS) == target) + np.array([0, liking, 0])
                rows.append(chosen(target, tuple(map(float, sums)), number))
            lost = draw.random() < unread
            word = "" if lost else OPTIONS[draw.integers(3)]
            outcome = Outcome.MALFORMED if lost else Outcome.ANSWERED
            said.append(Prediction(id=name, prompt="", text=word, answer=word, outcome=outcome, correct=word == target))
        return levels(targets, said, raw, chat)

    base, tuned = model(2.0, 0.9, 4.0), model(2.0, 0.1, 0.0)
    found = split_gain("s", base, tuned, seed=0)
    assert set(found.parts) == set(PARTS) == {"knowledge", "calibration", "format", "parsing"}
    assert sum(part.value for part in found.parts.values()) == pytest.approx(found.whole.value, abs=1e-12)
    assert found.whole.value == pytest.approx(found.tuned["strict"] - found.base["strict"])
    # A liking for "no" that went away is calibration, and no knowledge.
    assert found.parts["calibration"].value > 0.1 > abs(found.parts["knowledge"].value)


def test_a_model_that_always_says_the_commonest_gains_no_knowledge(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 30)
    examples = [question(number).model_copy(update={"target": "yes"}) for number in range(N)]
    assert write_gain(run, "choices", examples, 0) is None  # the recipe did not ask by both prompts
    draw = np.random.default_rng(0)
    noise = draw.normal(size=(N, 3))
    for which, liking in (("base", (0, 0, 9)), ("tuned", (9, 0, 0))):
        rows = [chosen("yes", tuple(map(float, noise[n] + liking)), n) for n in range(N)]
        for name in ("lm-eval", "chat"):
            write_jsonl(run.protocol("choices", which, name), rows)
    found = write_gain(run, "choices", examples, 0)
    assert found is not None
    assert (found.base["raw"], found.tuned["raw"]) == (0.0, 1.0)
    assert found.parts["knowledge"].value == 0.0  # only the liking differs
    assert found.parts["calibration"].value == 1.0
    assert read_json(run.gain("choices"))["whole"]["value"] == found.whole.value


def test_passages_are_compared_by_their_loss_alone(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    write_jsonl(run.suite("prose"), [Example(id=f"q{n}", source="s", task="text", target="Words.") for n in range(20)])
    for which, nats in (("base", 3.0), ("tuned", 3.5)):
        write_jsonl(run.losses("prose", which), [ItemLoss(id=f"q{n}", nats=nats + n % 2, tokens=2) for n in range(20)])
    compare(EvaluateConfig(), run)
    found = Comparison.model_validate(read_json(run.comparison("prose")))
    assert (found.metric, found.verdict, found.difference) == ("heldout_loss", "worse", 0.25)  # it forgot
