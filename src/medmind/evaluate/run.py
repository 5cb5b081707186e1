"""Evaluates one model on every suite of a run, and takes up a killed evaluation where it stopped."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from medmind.core.errors import DataError, UsageError
from medmind.core.jsonl import read_jsonl, write_json, write_jsonl
from medmind.core.log import progress_bar, say
from medmind.core.protocols import Generator, Progress
from medmind.core.registry import did_you_mean
from medmind.core.rundir import RunDir, sha256_file, sha256_value
from medmind.core.sampling import sample
from medmind.core.types import Example, Metric, Prediction, Record
from medmind.evaluate.canary import CanaryLoss, rank_secrets
from medmind.evaluate.config import EvaluateConfig
from medmind.evaluate.metrics.loss import ItemLoss, heldout_losses
from medmind.evaluate.predict import predict, prompt_ids
from medmind.evaluate.score import Origin, score
from medmind.prompts.chat import Renderer

R = TypeVar("R", bound=Record)
Measure = Callable[[Generator, Renderer, Sequence[Example], str, Progress | None], list[ItemLoss]]
USUAL_LOSSES: tuple[type[ItemLoss], Measure, str] = (ItemLoss, heldout_losses, "held-out loss")
LOSSES: dict[str, tuple[type[ItemLoss], Measure, str]] = {"canary": (CanaryLoss, rank_secrets, "ranks of the secrets")}
"""Where a task's losses are not the usual ones."""


@dataclass(frozen=True)
class Subject:
    """The model under test and how it is spoken to; `which` is base or tuned."""

    which: str
    model_name: str
    generator: Generator
    renderer: Renderer
    system_prompt: str
    key: str


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
) -> list[Path]:
    """Writes predictions, losses and scores of every suite; returns their paths.

    Answers are made again only if the engine, the decoding, a prompt or `key` changed; `key` names the weights
    where the run directory may outlive them.
    """
    subject = Subject(which, model_name, generator, renderer, system_prompt, key)
    return [
        path
        for suite in chosen_suites(rundir, config.suites)
        for path in evaluate_suite(config, rundir, suite, subject, seed)
    ]


def evaluate_suite(config: EvaluateConfig, rundir: RunDir, suite: str, subject: Subject, seed: int) -> list[Path]:
    generator, renderer, system_prompt = subject.generator, subject.renderer, subject.system_prompt
    examples = read_suite(rundir, suite, config.max_items, seed)
    title = f"{suite}, {subject.which}"
    engine = [subject.key, generator.name, generator.dtype, generator.context]
    contents = [example.model_dump(mode="json") for example in examples]
    asked = [contents, prompt_ids(renderer, examples, system_prompt)]

    predictions = make_once(
        rundir,
        rundir.predictions(suite, subject.which),
        sha256_value([engine, asked, config.max_new_tokens]),
        Prediction,
        f"{title}: answers",
        lambda bar: predict(generator, renderer, examples, system_prompt, config.max_new_tokens, bar),
    )
    kind, measure, what = LOSSES.get(examples[0].task, USUAL_LOSSES)
    losses = make_once(
        rundir,
        rundir.losses(suite, subject.which),
        sha256_value([engine, asked]),
        kind,
        f"{title}: {what}",
        lambda bar: measure(generator, renderer, examples, system_prompt, bar),
    )
    origin = Origin(suite, subject.model_name, generator.dtype, generator.name, sha256_file(rundir.suite(suite)))
    scores = score(origin, examples, predictions, losses, seed)
    path = rundir.scores(suite, subject.which)
    write_json(path, scores.model_dump(mode="json"))
    say(f"{title}: {describe(scores.metrics)}")
    return [rundir.predictions(suite, subject.which), rundir.losses(suite, subject.which), path]


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
    return [examples[place] for place in sample(len(examples), max_items, seed)]


def read_records(path: Path, kind: type[R]) -> list[R]:
    found = []
    for number, row in enumerate(read_jsonl(path), start=1):
        try:
            found.append(kind.model_validate(row))
        except ValidationError as error:
            fault = error.errors()[0]
            what = f"not a {kind.__name__}: {'.'.join(map(str, fault['loc']))}: {fault['msg']}"
            raise DataError(what, where=f"{path}, row {number}", todo="make the file again") from None
    return found


def make_once(
    rundir: RunDir, path: Path, key: str, kind: type[R], title: str, make: Callable[[Progress], list[R]]
) -> list[R]:
    """Reads the file if it was made with this key and is as it was; makes, writes and records it otherwise."""
    if rundir.is_made(path, key):
        say(f"{title}: up to date")
        return read_records(path, kind)
    with progress_bar(title) as bar:
        records = make(bar)
    write_jsonl(path, records)
    rundir.note_made(path, key)
    return records


def describe(metrics: dict[str, Metric]) -> str:
    """The first metric, and the loss or exposure, in a line."""
    primary, figure = next(iter(metrics.items()))
    line = f"{primary} {figure.value:.1%} ({figure.low:.1%} to {figure.high:.1%}, n = {figure.n})"
    loss = metrics.get("heldout_loss")
    bits = metrics.get("canary_exposure")
    line += f", held-out loss {loss.value:.3f} nats a token" if loss else ""
    return line + (f", exposure {bits.value:.2f} bits ({bits.low:.2f} to {bits.high:.2f})" if bits else "")
