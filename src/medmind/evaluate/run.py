"""Evaluates one model on every suite of a run, and takes up a killed evaluation where it stopped."""

from collections.abc import Callable, Sequence
from dataclasses import astuple
from itertools import pairwise
from pathlib import Path
from typing import Any

from medmind.core.errors import DataError, UsageError
from medmind.core.jsonl import write_json, write_jsonl
from medmind.core.log import say
from medmind.core.protocols import Generator, Progress, Sampler
from medmind.core.registry import did_you_mean
from medmind.core.rundir import RunDir, sha256_file, sha256_value
from medmind.core.sampling import sample
from medmind.core.types import Example, Prediction, Scores
from medmind.evaluate.agreement import Drawing, Sampled, sample_replies
from medmind.evaluate.canary import CanaryLoss, rank_secrets
from medmind.evaluate.choices import Asked, ask_protocols
from medmind.evaluate.config import EvaluateConfig
from medmind.evaluate.files import make_once, read_records
from medmind.evaluate.forced import answers_of
from medmind.evaluate.metrics.loss import ItemLoss, heldout_losses
from medmind.evaluate.predict import CHOICES, predict, prompt_ids
from medmind.evaluate.score import Origin, score
from medmind.evaluate.subject import Subject
from medmind.evaluate.support import Entails, Support, judge_support
from medmind.evaluate.texts import FREE
from medmind.prompts.chat import Renderer

Measure = Callable[[Generator, Renderer, Sequence[Example], str, Progress | None], list[ItemLoss]]
USUAL_LOSSES: tuple[type[ItemLoss], Measure, str] = (ItemLoss, heldout_losses, "held-out loss")
LOSSES: dict[str, tuple[type[ItemLoss], Measure, str]] = {"canary": (CanaryLoss, rank_secrets, "ranks of the secrets")}
"""Where a task's losses are not the usual ones."""
UNASKED = ("text", "canary")
"""Tasks that are not asked again: nothing to agree on."""
FEWEST_TO_REFUSE = 20
"""Questions whose answers show that the file they head is sorted."""


def evaluate_model(
    config: EvaluateConfig,
    rundir: RunDir,
    which: str,
    model_name: str,
    generator: Generator,
    renderer: Renderer,
    system_prompt: str,
    seed: int,
    key: str = "",
    entails: Entails | None = None,
) -> list[Path]:
    """Writes predictions, losses and scores of every suite; returns their paths.

    Answers are made again only if the engine, the decoding, a prompt or `key` changed; `key` names the weights
    where the run directory may outlive them. `entails` is the support model of the recipe, opened.
    """
    subject = Subject(which, model_name, generator, renderer, system_prompt, key)
    return [
        path
        for suite in chosen_suites(rundir, config.suites)
        for path in evaluate_suite(config, rundir, suite, subject, seed, entails)
    ]


def evaluate_suite(
    config: EvaluateConfig, rundir: RunDir, suite: str, subject: Subject, seed: int, entails: Entails | None = None
) -> list[Path]:
    examples = read_suite(rundir, suite, config.max_items, seed)
    task, title = examples[0].task, f"{suite}, {subject.which}"
    if task == "text" and not subject.judges:
        say(f"{title}: left out: of plain passages there are only losses, and {subject.generator.name} tells none")
        return []
    questions = [
        [example.model_dump(mode="json") for example in examples],
        [] if task == "text" else prompt_ids(subject.renderer, examples, subject.system_prompt),
    ]
    choices = ask_protocols(config, rundir, suite, subject, examples, seed) if task in CHOICES else Asked()
    predictions = [] if task == "text" else answer(config, rundir, suite, subject, examples, questions, choices)
    losses = measure_losses(rundir, suite, subject, examples, questions)
    sampled = [] if task in UNASKED else ask_again(config, rundir, suite, subject, examples, questions, seed)
    support = hold_up(config, rundir, suite, subject, examples, predictions, entails)
    engine = subject.generator
    origin = Origin(suite, subject.model_name, engine.dtype, engine.name, sha256_file(rundir.suite(suite)))
    scores = score(origin, examples, predictions, losses, seed, sampled, support)
    limit = None if task == "text" else config.max_new_tokens
    asked = {"max_new_tokens": limit, "asked": settings_of(config, scores)}
    scores = scores.model_copy(update={"protocols": choices.metrics} | asked)
    path = rundir.scores(suite, subject.which)
    write_json(path, scores.model_dump(mode="json"))
    say(f"{title}: {describe(scores)}")
    made = {rundir.predictions: predictions, rundir.losses: losses, rundir.samples: sampled, rundir.support: support}
    return [*(name(suite, subject.which) for name, rows in made.items() if rows), *choices.files, path]


def measure_losses(
    rundir: RunDir, suite: str, subject: Subject, examples: Sequence[Example], questions: list[Any]
) -> list[ItemLoss]:
    """None of an engine that tells no likelihoods, and it is said."""
    kind, measure, what = LOSSES.get(examples[0].task, USUAL_LOSSES)
    if not subject.judges:
        say(f"{suite}, {subject.which}: no {what}: {subject.generator.name} tells no log-likelihoods")
        return []
    return make_once(
        rundir,
        rundir.losses(suite, subject.which),
        sha256_value([subject.engine, questions]),
        kind,
        f"{suite}, {subject.which}: {what}",
        lambda bar: measure(subject.generator, subject.renderer, examples, subject.system_prompt, bar),
    )


def ask_again(
    config: EvaluateConfig,
    rundir: RunDir,
    suite: str,
    subject: Subject,
    examples: Sequence[Example],
    questions: list[Any],
    seed: int,
) -> list[Sampled]:
    """The same questions answered by chance, as often as the recipe says."""
    generator = subject.generator
    if not config.samples:
        return []
    if not isinstance(generator, Sampler):
        say(f"{suite}, {subject.which}: no self-agreement: {generator.name} answers without chance here")
        return []
    drawing = Drawing(config.samples, config.temperature, config.max_new_tokens, seed)
    return make_once(
        rundir,
        rundir.samples(suite, subject.which),
        sha256_value([subject.engine, questions, astuple(drawing)]),
        Sampled,
        f"{suite}, {subject.which}: {config.samples} replies each",
        lambda bar: sample_replies(generator, subject.renderer, examples, questions[1], drawing, bar),
    )


def hold_up(
    config: EvaluateConfig,
    rundir: RunDir,
    suite: str,
    subject: Subject,
    examples: Sequence[Example],
    predictions: Sequence[Prediction],
    entails: Entails | None,
) -> list[Support]:
    """Every sentence of free answers held against its texts by the support model, if there is one."""
    if not entails or examples[0].task not in FREE:
        return []
    held = [[one.model_dump(mode="json") for one in rows] for rows in (examples, predictions)]
    folder = Path(config.support_model)
    judge = sha256_file(folder) if config.support_model and folder.is_dir() else config.support_model
    return make_once(
        rundir,
        rundir.support(suite, subject.which),
        sha256_value([judge, held]),
        Support,
        f"{suite}, {subject.which}: support by {config.support_model}",
        lambda bar: judge_support(entails, examples, predictions, bar),
    )


def answer(
    config: EvaluateConfig,
    rundir: RunDir,
    suite: str,
    subject: Subject,
    examples: Sequence[Example],
    questions: list[Any],
    choices: Asked,
) -> list[Prediction]:
    """The replies; other likelihoods beside them are no reason to make them again."""
    path = rundir.predictions(suite, subject.which)
    key = sha256_value([subject.engine, questions, config.max_new_tokens])
    made = make_once(
        rundir,
        path,
        key,
        Prediction,
        f"{suite}, {subject.which}: answers",
        lambda bar: choices.fill(
            predict(subject.generator, subject.renderer, examples, subject.system_prompt, config.max_new_tokens, bar)
        ),
    )
    filled = choices.fill(made)
    if filled != made:
        write_jsonl(path, filled)
        rundir.note_made(path, key)
    return filled


def settings_of(config: EvaluateConfig, scores: Scores) -> dict[str, str]:
    """By metric: what in the recipe makes it another figure, not a surer one."""
    said = {
        "choice_accuracy": config.protocols[0] if config.protocols else "",
        "self_agreement": f"temperature {config.temperature}",
        "unsupported_nli": config.support_model,
    }
    return {name: setting for name, setting in said.items() if name in scores.metrics}


def chosen_suites(rundir: RunDir, wanted: tuple[str, ...]) -> list[str]:
    """The suites asked for, or all the data stage wrote."""
    known = rundir.suites()
    if not known:
        raise DataError(
            "no suite to evaluate on", where=str(rundir.data), todo="run the data stage, with test rows in it"
        )
    for name in wanted:
        if name not in known:
            raise UsageError(f'no suite "{name}"{did_you_mean(name, known)}', todo=f"known here: {', '.join(known)}")
    return list(wanted) or known


def read_suite(rundir: RunDir, suite: str, max_items: int | None, seed: int) -> list[Example]:
    """A suite's items, all of one task; fewer only as a seeded sample."""
    path = rundir.suite(suite)
    examples = read_records(path, Example)
    if not examples:
        raise DataError("the suite is empty", where=str(path), todo="raise data.test_fraction")
    if len({example.task for example in examples}) > 1:
        raise DataError("the suite mixes tasks", where=str(path), todo="one suite holds one task")
    if len({example.id for example in examples}) < len(examples):
        raise DataError("the suite holds an id twice", where=str(path))
    if examples[0].task in CHOICES:
        refuse_head(path, examples)
    return [examples[place] for place in sample(len(examples), max_items, seed)]


def refuse_head(path: Path, examples: Sequence[Example]) -> None:
    """The head of a file sorted by answer: all have one answer, or they stand sorted and an answer never comes."""
    targets = [example.target for example in examples]
    seen = set(targets)
    unseen = [name for name in answers_of(examples[0]) if name not in seen]
    changes = sum(one != other for one, other in pairwise(targets))
    if len(seen) == 1:
        what = f'all {len(targets)} answers are "{targets[0]}": a model that always says so would score 100 %'
    elif unseen and changes == len(seen) - 1:
        what = f'the {len(targets)} answers stand sorted, and none is "{unseen[0]}"'
    else:
        return
    if len(targets) >= FEWEST_TO_REFUSE:
        todo = "is it the head of a file sorted by answer? take the whole; evaluate.max_items draws a fair sample of it"
        raise DataError(what, where=str(path), todo=todo)
    say(f"{path}: {what}", style="yellow")


def describe(scores: Scores) -> str:
    """The first metric, and the loss, the exposure or the protocols, in a line."""
    primary, figure = next(iter(scores.metrics.items()))
    loss = scores.metrics.get("heldout_loss")
    if primary == "heldout_loss":
        return f"held-out loss {figure.value:.3f} nats a token ({figure.low:.3f} to {figure.high:.3f}, n = {figure.n})"
    line = f"{primary} {figure.value:.1%} ({figure.low:.1%} to {figure.high:.1%}, n = {figure.n})"
    bits = scores.metrics.get("canary_exposure")
    line += f", held-out loss {loss.value:.3f} nats a token" if loss else ""
    line += f", exposure {bits.value:.2f} bits ({bits.low:.2f} to {bits.high:.2f})" if bits else ""
    return line + "".join(f", {name} {metric.value:.1%}" for name, metric in scores.protocols.items())
