"""Tuned against base on the same items, with a verdict that may be "cannot tell"."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medmind.core.errors import DataError
from medmind.core.jsonl import write_json
from medmind.core.log import say
from medmind.core.rundir import RunDir
from medmind.core.types import Comparison, Example, Prediction
from medmind.evaluate.agreement import Sampled, agreement
from medmind.evaluate.canary import CanaryLoss, compare_canaries
from medmind.evaluate.config import EvaluateConfig
from medmind.evaluate.differences import LEVEL, Ratio, compare_losses, compare_ratios, compare_shares
from medmind.evaluate.files import read_items
from medmind.evaluate.forced import answers_of
from medmind.evaluate.gain import write_gain
from medmind.evaluate.metrics.loss import ItemLoss
from medmind.evaluate.metrics.paired import holm
from medmind.evaluate.metrics.text import chrf
from medmind.evaluate.predict import CHOICES
from medmind.evaluate.run import chosen_suites, read_suite
from medmind.evaluate.support import Support
from medmind.evaluate.texts import FREE
from medmind.evaluate.unsupported import by_rule, compare_unsupported
from medmind.prompts.tasks.known import TASKS

PRIMARY = {
    "terms": "format_adherence",
    "choice": "accuracy",
    "multiple_choice": "accuracy",
    "qa": "heldout_loss",
    "reasoned": "heldout_loss",
    "text": "heldout_loss",
    "canary": "canary_exposure",
}


@dataclass(frozen=True)
class Side:
    """What one model made of a suite; of a file from elsewhere only its replies are known."""

    name: str
    predictions: Sequence[Prediction]
    losses: Sequence[ItemLoss] = ()
    sampled: Sequence[Sampled] = ()
    support: Sequence[Support] = ()


def compare(config: EvaluateConfig, rundir: RunDir, seed: int = 0) -> list[Path]:
    """Writes comparison.json of each suite evaluated, and gain.json; both models must have been evaluated."""
    found, written = [], []
    for suite in chosen_suites(rundir, config.suites):
        examples = read_suite(rundir, suite, config.max_items, seed)
        base, tuned = (read_side(rundir, suite, which, examples[0].task) for which in ("base", "tuned"))
        found.append(compare_sides(suite, examples, base, tuned, config.margin, seed))
        if examples[0].task in CHOICES and write_gain(rundir, suite, examples, seed):
            written.append(rundir.gain(suite))
    for one in adjust(found):
        write_json(rundir.comparison(one.suite), one.model_dump(mode="json"))
        written.append(rundir.comparison(one.suite))
        say(describe(one))
    return written


def read_side(rundir: RunDir, suite: str, which: str, task: str) -> Side:
    predictions = [] if task == "text" else read_items(rundir.predictions(suite, which), Prediction)
    losses = read_items(rundir.losses(suite, which), CanaryLoss if task == "canary" else ItemLoss)
    if not (losses if task == "text" else predictions):
        file = rundir.losses(suite, which) if task == "text" else rundir.predictions(suite, which)
        raise DataError("the file is empty", where=str(file), todo="evaluate it again")
    samples, support = rundir.samples(suite, which), rundir.support(suite, which)
    return Side(
        which,
        predictions,
        losses,
        read_items(samples, Sampled) if samples.is_file() else (),
        read_items(support, Support) if support.is_file() else (),
    )


def compare_sides(
    suite: str, examples: Sequence[Example], base: Side, tuned: Side, margin: float, seed: int
) -> Comparison:
    """The figure that decides, and beside it all that both sides have."""
    refuse_other_questions(suite, base, tuned)
    task = examples[0].task
    if task == "canary":
        before, after = ([row for row in side.losses if isinstance(row, CanaryLoss)] for side in (base, tuned))
        return compare_canaries(suite, examples, (base.predictions, tuned.predictions), (before, after), seed)
    found: list[Comparison] = []
    if task in CHOICES or task == "terms":
        found.append(compare_shares(suite, PRIMARY[task], correct(base), correct(tuned), margin, seed))
    if task in CHOICES and all(row.logprobs for side in (base, tuned) for row in side.predictions):
        old, new = (likeliest(examples, side) for side in (base, tuned))
        found.append(compare_shares(suite, "choice_accuracy", old, new, margin, seed))
    if base.losses and tuned.losses:
        found.append(compare_losses(suite, base.losses, tuned.losses, margin, seed))
    if task in FREE:
        found.append(compare_chrf(suite, examples, base, tuned, margin, seed))
        found += unsupported_sentences(suite, examples, base, tuned, margin, seed)
    if base.sampled and [row.id for row in base.sampled] == [row.id for row in tuned.sampled]:
        found.append(compare_agreement(suite, task, base, tuned, margin, seed))
    if not found:
        raise DataError(f"nothing to compare in suite {suite}", todo="evaluate both again")
    return found[0].model_copy(update={"others": tuple(found[1:])})


def refuse_other_questions(suite: str, base: Side, tuned: Side) -> None:
    """The first difference is named; a side that keeps no prompts (a file from elsewhere) is believed."""
    todo = "evaluate both again, on the same data and with the same settings"
    for old, new in zip(base.predictions, tuned.predictions, strict=False):
        what = ""
        if old.id != new.id:
            what = f'{base.name} has "{old.id}" where {tuned.name} has "{new.id}"'
        elif old.prompt and new.prompt and old.prompt != new.prompt:
            what = f'the prompts of "{old.id}" differ'
        if what:
            raise DataError(
                f"{base.name} and {tuned.name} were not asked the same in suite {suite}: {what}",
                todo=todo,
            )
    if len(base.predictions) != len(tuned.predictions):
        counts = f"{len(base.predictions)} and {len(tuned.predictions)} questions"
        raise DataError(f"{base.name} and {tuned.name} were not asked the same in suite {suite}: {counts}", todo=todo)


def correct(side: Side) -> list[bool]:
    return [row.correct for row in side.predictions]


def likeliest(examples: Sequence[Example], side: Side) -> list[bool]:
    """Whether the option the model finds likeliest is the right one."""
    for example, row in zip(examples, side.predictions, strict=True):
        if row.logprobs and len(row.logprobs) != len(answers_of(example)):
            what = f'"{row.id}" of {side.name} has {len(row.logprobs)} likelihoods'
            todo = f"its question has {len(answers_of(example))} answers: evaluate again"
            raise DataError(what, where=side.name, todo=todo)
    return [
        answers_of(example)[row.logprobs.index(max(row.logprobs))] == example.target
        for example, row in zip(examples, side.predictions, strict=True)
        if row.logprobs
    ]


def compare_chrf(
    suite: str, examples: Sequence[Example], base: Side, tuned: Side, margin: float, seed: int
) -> Comparison:
    """Likeness of the wording to the gold reply, on average."""
    old, new = (
        [chrf(row.text, TASKS.get(e.task).reply(e)) for e, row in zip(examples, side.predictions, strict=True)]
        for side in (base, tuned)
    )
    ones = [1.0] * len(examples)
    return compare_ratios(suite, "chrf", Ratio(old, ones), Ratio(new, ones), margin, seed, lower_is_better=False)


def unsupported_sentences(
    suite: str, examples: Sequence[Example], base: Side, tuned: Side, margin: float, seed: int
) -> list[Comparison]:
    """By the rules, and by the support model where it judged both."""
    replies = base.predictions, tuned.predictions
    judged = [("unsupported", (by_rule(examples, replies[0]), by_rule(examples, replies[1])))]
    if base.support and tuned.support:
        flags = [[row.unsupported for row in side.support] for side in (base, tuned)]
        judged.append(("unsupported_nli", (flags[0], flags[1])))
    found = [compare_unsupported(suite, *replies, flags, margin, seed, metric) for metric, flags in judged]
    return [one for one in found if one]


def compare_agreement(suite: str, task: str, base: Side, tuned: Side, margin: float, seed: int) -> Comparison:
    old, new = ([agreement(row, task) for row in side.sampled] for side in (base, tuned))
    ones = [1.0] * len(old)
    return compare_ratios(
        suite, "self_agreement", Ratio(old, ones), Ratio(new, ones), margin, seed, lower_is_better=False
    )


def adjust(found: Sequence[Comparison]) -> list[Comparison]:
    """Holm's p beside each suite's own, over all suites compared together; planted patients are another question."""
    p_values = {place: one.p_value for place, one in enumerate(found) if one.margin is not None}
    adjusted = dict(zip(p_values, holm([p for p in p_values.values() if p is not None]), strict=True))
    return [
        one.model_copy(update={"adjusted_p": adjusted[place], "family": len(adjusted)}) if place in adjusted else one
        for place, one in enumerate(found)
    ]


def describe(one: Comparison) -> str:
    verdict = f"tuned is {one.verdict}" if one.verdict in ("better", "worse", "no worse") else one.verdict
    line = f"{one.suite}: {one.metric} {one.base:.3f} → {one.tuned:.3f}: {verdict}"
    if one.verdict == "no worse":
        line += f" by more than {one.margin}"
    if one.verdict in ("better", "worse") and (one.adjusted_p or 0.0) >= LEVEL:
        line += f", but among {one.family} suites chance may do that (Holm's p {one.adjusted_p:.2f})"
    return line
