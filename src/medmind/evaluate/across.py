"""Several runs, or several files of predictions, side by side: each against the first, suite by suite."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from medmind.core.errors import DataError, UsageError
from medmind.core.jsonl import read_json, read_jsonl
from medmind.core.log import say
from medmind.core.registry import did_you_mean
from medmind.core.rundir import RunDir
from medmind.core.types import Comparison, Example, Prediction, Scores
from medmind.evaluate.compare import Side, adjust, compare_sides, read_side
from medmind.evaluate.differences import compare_shares
from medmind.evaluate.elsewhere import judge, read_predictions
from medmind.evaluate.files import read_items
from medmind.evaluate.run import read_suite

SETTINGS = ("engine", "dtype", "max_new_tokens")
"""Of scores.json: how the replies were made. Weights alone should differ, or the difference is not theirs alone."""
Found = list[tuple[str, Comparison]]
"""(whom the first is compared with, on what)."""


def compare_runs(roots: Sequence[Path], wanted: Sequence[str], margin: float, seed: int) -> Found:
    """The tuned models, on every suite that all the runs evaluated and share item for item, or on those named."""
    runs = [RunDir(root) for root in roots]
    have = [{name for name in run.suites() if run.scores(name, "tuned").is_file()} for run in runs]
    shared = sorted(set.intersection(*have))
    suites = list(wanted) or shared
    for suite in suites:
        for run, names in zip(runs, have, strict=True):
            if suite not in names:
                raise UsageError(f'suite "{suite}" was not evaluated', where=str(run.root), todo="medmind evaluate …")
    if not suites:
        told = "; ".join(
            f"{root}: {', '.join(sorted(names)) or 'none evaluated'}" for root, names in zip(roots, have, strict=True)
        )
        raise DataError("the runs share no suite", where=told, todo="evaluate one in each")
    for left in sorted(set.union(*have) - set(suites)):
        say(f'suite "{left}" is left out')
    found: Found = []
    for suite in suites:
        examples = same_suite(runs, suite)
        first, *others = (tuned_side(run, suite, examples[0].task) for run in runs)
        how, *ways = (read_scores(run, suite) for run in runs)
        asked = {row.id for row in first.predictions or first.losses}
        kept = [example for example in examples if example.id in asked]
        for other, way in zip(others, ways, strict=True):
            found.append((other.name, like_with_like(compare_sides(suite, kept, first, other, margin, seed), how, way)))
    return adjusted(found)


def read_scores(run: RunDir, suite: str) -> Scores:
    path = run.scores(suite, "tuned")
    try:
        return Scores.model_validate(read_json(path))
    except ValidationError:
        raise DataError("not the scores of a suite", where=str(path), todo="evaluate it again") from None


def like_with_like(found: Comparison, how: Scores, way: Scores) -> Comparison:
    """Without the figures that the two runs were asked for differently; that, and settings all else hangs on that were
    not the same, stand in the note.
    """
    apart = [
        f"{name} was {told(getattr(how, name))} and {told(getattr(way, name))}"
        for name in SETTINGS
        if getattr(how, name) != getattr(way, name)
    ]
    unlike = [one.metric for one in found.others if how.asked.get(one.metric) != way.asked.get(one.metric)]
    apart += [
        f"{name} is left out: asked for by {told(how.asked.get(name))} and {told(way.asked.get(name))}"
        for name in unlike
    ]
    others = tuple(one for one in found.others if one.metric not in unlike)
    return found.model_copy(update={"others": others, "note": "; ".join([found.note] * bool(found.note) + apart)})


def told(setting: object) -> str:
    return str(setting or "not recorded")


def same_suite(runs: Sequence[RunDir], suite: str) -> list[Example]:
    """Its items, which must be the same everywhere: the first that differs is named."""
    first, *others = (read_suite(run, suite, None, 0) for run in runs)
    for run, other in zip(runs[1:], others, strict=True):
        for number, (one, same) in enumerate(zip(first, other, strict=False), start=1):
            if one != same:
                what = f'item {number} of suite {suite} differs: "{one.id}" and "{same.id}"'
                raise DataError(what, where=f"{runs[0].root}, {run.root}", todo="evaluate both on the same data")
        if len(first) != len(other):
            what = f"suite {suite} has {len(first)} items in one run and {len(other)} in the other"
            raise DataError(what, where=f"{runs[0].root}, {run.root}", todo="evaluate both on the same data")
    return first


def tuned_side(run: RunDir, suite: str, task: str) -> Side:
    return replace(read_side(run, suite, "tuned", task), name=str(run.root))


def compare_files(files: Sequence[Path], examples: Sequence[Example], suite: str, margin: float, seed: int) -> Found:
    """Predictions of one suite: {id, text} lines, which need its items, or a predictions.jsonl, which does not."""
    sides = [Side(str(file), read_file(file, examples)) for file in files]
    if examples:
        return adjusted([(one.name, compare_sides(suite, examples, sides[0], one, margin, seed)) for one in sides[1:]])
    refuse_other_items(sides)
    right = [[row.correct for row in side.predictions] for side in sides]
    return adjusted(
        [
            (side.name, compare_shares(suite, "correct", right[0], own, margin, seed))
            for side, own in zip(sides[1:], right[1:], strict=True)
        ]
    )


def read_file(file: Path, examples: Sequence[Example]) -> list[Prediction]:
    """In the suite's order where its items are known."""
    own = next(read_jsonl(file), None)
    if own is None:
        raise DataError("the file is empty", where=str(file), todo="a line for each question")
    if isinstance(own, dict) and "correct" in own:
        rows = {row.id: row for row in read_items(file, Prediction)}
        refuse_unknown(file, rows, examples)
    elif examples:
        lines = read_predictions(file, examples)
        rows = {one.id: judge(one, lines[one.id]) for one in examples if one.id in lines}
    else:
        raise UsageError("lines of id and text need the suite they answer", where=str(file), todo="add --suite NAME")
    missing = [one.id for one in examples if one.id not in rows]
    if missing:
        what = f"{len(missing)} of {len(examples)} questions have no prediction (first: {', '.join(missing[:3])})"
        raise DataError(what, where=str(file), todo="add them")
    return [rows[one.id] for one in examples] if examples else list(rows.values())


def refuse_unknown(file: Path, rows: Iterable[str], examples: Sequence[Example]) -> None:
    """Where the suite's items are known."""
    known = {one.id for one in examples}
    for number, name in enumerate(rows, start=1):
        if known and name not in known:
            what = f'id "{name}" is none of the suite\'s{did_you_mean(name, known)}'
            raise DataError(what, where=f"{file}, row {number}", todo="compare answers to the same questions")


def refuse_other_items(sides: Sequence[Side]) -> None:
    first = sides[0]
    for other in sides[1:]:
        for number, (one, same) in enumerate(zip(first.predictions, other.predictions, strict=False), start=1):
            if one.id != same.id or (one.prompt and same.prompt and one.prompt != same.prompt):
                what = f'row {number} differs: "{one.id}" and "{same.id}"' + " by the prompt" * (one.id == same.id)
                raise DataError(what, where=f"{first.name}, {other.name}", todo="compare answers to the same questions")
        if len(first.predictions) != len(other.predictions):
            what = f"{len(first.predictions)} and {len(other.predictions)} rows"
            raise DataError(what, where=f"{first.name}, {other.name}", todo="compare answers to the same questions")


def adjusted(found: Found) -> Found:
    return list(zip([name for name, _ in found], adjust([one for _, one in found]), strict=True))
