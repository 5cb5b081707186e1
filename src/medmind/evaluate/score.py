"""Folds the predictions of one suite into figures: pure, the same predictions always give the same scores."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import exp

from medmind.core.errors import DataError
from medmind.core.rundir import sha256_lines
from medmind.core.types import Example, Metric, Outcome, Prediction, Scores
from medmind.evaluate.agreement import Sampled, agreement_metrics
from medmind.evaluate.canary import CanaryLoss, canary_metrics
from medmind.evaluate.forced import answers_of
from medmind.evaluate.metrics.accuracy import accuracy, macro_f1, recalls
from medmind.evaluate.metrics.calibration import calibration_metrics
from medmind.evaluate.metrics.confidence import Choice, confidence_metrics, softmax
from medmind.evaluate.metrics.format import asked_term, names_term
from medmind.evaluate.metrics.intervals import ratio, share
from medmind.evaluate.metrics.loss import ItemLoss
from medmind.evaluate.predict import CHOICES
from medmind.evaluate.support import Support, support_metrics
from medmind.evaluate.texts import Wording, text_metrics, wording

UNWORDED = (*CHOICES, "canary")
"""Tasks whose replies are no texts to be compared."""


@dataclass(frozen=True)
class Judged:
    """One item with all that is known of it."""

    example: Example
    prediction: Prediction
    loss: ItemLoss | None
    wording: Wording | None


@dataclass(frozen=True)
class Origin:
    """Where the predictions come from, as scores.json says it."""

    suite: str
    model: str
    dtype: str
    engine: str
    data_sha256: str


def score(
    origin: Origin,
    examples: Sequence[Example],
    predictions: Sequence[Prediction],
    losses: Sequence[ItemLoss],
    seed: int,
    sampled: Sequence[Sampled] = (),
    support: Sequence[Support] = (),
) -> Scores:
    """Every example needs its prediction, in the same order; a loss may be missing (too long a row).

    Of plain passages, which nobody answers, there are only losses.
    """
    ids = [example.id for example in examples]
    passages = bool(examples) and examples[0].task == "text"
    if not ids or (ids != [prediction.id for prediction in predictions] and not passages):
        raise DataError(f"the predictions are not those of suite {origin.suite}", todo="evaluate it again")
    loss_of = {loss.id: loss for loss in losses}
    items = [
        Judged(example, prediction, loss_of.get(example.id), judge_wording(example, prediction))
        for example, prediction in zip(examples, predictions, strict=not passages)
    ]
    categories = sorted({category(item.example) for item in items} - {""})
    counts = Counter(item.prediction.outcome for item in items)
    return Scores(
        suite=origin.suite,
        model=origin.model,
        n=len(ids),
        dtype=origin.dtype,
        engine=origin.engine,
        metrics=loss_metrics(losses, seed)
        if passages
        else measure(items, seed)
        | confidence(items, seed)
        | agreement_metrics(sampled, examples[0].task, seed)
        | support_metrics(support, seed),
        by_category={
            name: measure([item for item in items if category(item.example) == name], seed) for name in categories
        },
        outcomes={outcome.value: counts[outcome] for outcome in Outcome},
        class_balance=dict(sorted(Counter(e.target for e in examples if e.task in CHOICES).items())),
        ids_sha256=sha256_lines(ids),
        data_sha256=origin.data_sha256,
    )


def measure(items: Sequence[Judged], seed: int) -> dict[str, Metric]:
    """The metrics of a task, the primary one first; a metric no item can have is left out."""
    task = items[0].example.task
    if task == "canary":
        ranked = [item.loss for item in items if isinstance(item.loss, CanaryLoss)]
        return canary_metrics([i.example for i in items], [i.prediction for i in items], ranked, seed)
    answered = share([item.prediction.outcome is Outcome.ANSWERED for item in items])
    if task in CHOICES:
        found = choice_metrics(items, answered, seed)
    elif task == "terms":
        found = {"format_adherence": share([item.prediction.correct for item in items])}
        found |= (
            term_metrics(items)
            | {"parse_rate": answered}
            | text_metrics([item.wording for item in items if item.wording], seed)
        )
    else:
        found = {"answered": answered} | text_metrics([item.wording for item in items if item.wording], seed)
    return found | loss_metrics([item.loss for item in items if item.loss], seed)


def loss_metrics(losses: Sequence[ItemLoss], seed: int) -> dict[str, Metric]:
    """The same surprise twice: nats per token, and the perplexity they make."""
    if not losses:
        return {}
    loss = ratio([one.nats for one in losses], [one.tokens for one in losses], seed)
    perplexity = Metric(value=exp(loss.value), low=exp(loss.low), high=exp(loss.high), n=loss.n)
    return {"heldout_loss": loss, "perplexity": perplexity}


def choice_metrics(items: Sequence[Judged], answered: Metric, seed: int) -> dict[str, Metric]:
    """The four that belong together first: strict accuracy, parse rate, accuracy where parsed, forced choice."""
    targets = [item.example.target for item in items]
    answers = [item.prediction.answer for item in items]
    read = [(target, answer) for target, answer in zip(targets, answers, strict=True) if answer]
    found = {"accuracy": accuracy(targets, answers), "parse_rate": answered}
    if read:
        found["accuracy_if_parsed"] = accuracy(*zip(*read, strict=True))
    forced = [likeliest(item) for item in items]
    if all(forced):
        found["choice_accuracy"] = accuracy(targets, forced)
    by_class = {f"recall_{name}": metric for name, metric in recalls(targets, answers).items()}
    return found | {"macro_f1": macro_f1(targets, answers, seed)} | by_class


def likeliest(item: Judged) -> str:
    """The option the model finds likeliest; empty where that was not measured."""
    sums = item.prediction.logprobs
    return answers_of(item.example)[sums.index(max(sums))] if sums else ""


def term_metrics(items: Sequence[Judged]) -> dict[str, Metric]:
    terms = [(item.prediction, asked_term(item.example)) for item in items]
    named = [names_term(prediction, term) for prediction, term in terms if term]
    return {"names_term": share(named)} if named else {}


def confidence(items: Sequence[Judged], seed: int) -> dict[str, Metric]:
    """Of the whole suite alone, where every item's options were judged: calibration needs hundreds."""
    choices = [
        Choice(softmax(item.prediction.logprobs), answers_of(item.example).index(item.example.target))
        for item in items
        if item.example.task in CHOICES and item.prediction.logprobs
    ]
    if len(choices) < len(items):
        return {}
    return calibration_metrics(choices, seed) | confidence_metrics(choices, seed)


def judge_wording(example: Example, prediction: Prediction) -> Wording | None:
    return None if example.task in UNWORDED else wording(example, prediction)


def category(example: Example) -> str:
    return str(example.metadata.get("category", ""))
