"""The nouns that cross stages: every one frozen, every one closed, so a field means the same everywhere."""

from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

Role = Literal["system", "user", "assistant"]


class Record(BaseModel):
    """Base of all records: immutable, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Message(Record):
    role: Role
    text: str


class Passage(Record):
    """A piece of context a question is asked about, or that supports an answer."""

    id: str
    text: str
    title: str = ""


class Example(Record):
    """One row of data: the conversation up to the question, and the reply to be learnt or judged.

    `turns` ends with the user's question and never holds the system prompt (the recipe says that one).
    A plain passage (`task` "text") has no turns; its text is the target.
    `group` names what must not be divided by a split (the focus of a MedQuAD question, for instance).
    """

    id: str
    source: str
    task: str
    turns: tuple[Message, ...] = ()
    passages: tuple[Passage, ...] = ()
    options: tuple[str, ...] = ()
    target: str
    reasoning: str = ""
    group: str = ""
    language: str = "en"
    metadata: dict[str, Any] = {}


class Outcome(StrEnum):
    """What became of a reply; never a bare bool, so nothing unreadable is counted as wrong in silence."""

    ANSWERED = "answered"
    MALFORMED = "malformed"
    REFUSED = "refused"
    TRUNCATED = "truncated"


class Answer(Record):
    """What a task's parser read out of a reply: the extracted answer, and why if there is none."""

    text: str
    outcome: Outcome
    reason: str = ""


class Completion(Record):
    """What an engine wrote: `stopped` is true when it ended by itself, false when the length limit cut it."""

    text: str
    ids: tuple[int, ...]
    stopped: bool
    stop_id: int | None = None
    """Which of the tokens that end a reply ended this one, where the engine tells."""


class Prediction(Record):
    """One line of predictions.jsonl."""

    id: str
    prompt: str
    text: str
    answer: str
    outcome: Outcome
    correct: bool
    reason: str = ""
    logprobs: tuple[float, ...] | None = None


class Metric(Record):
    """A figure with its 95 % interval and the number of items it rests on; fractions, never percentages."""

    value: float
    low: float
    high: float
    n: int


class Scores(Record):
    """scores.json of one suite and one model."""

    suite: str
    model: str
    n: int
    dtype: str
    engine: str
    max_new_tokens: int | None = None
    """The longest reply allowed; None where none was asked for, or another system wrote them."""
    metrics: dict[str, Metric]
    by_category: dict[str, dict[str, Metric]] = {}
    protocols: dict[str, Metric] = {}
    """Accuracy under each protocol of asking, by name."""
    asked: dict[str, str] = {}
    """By metric, how it was asked for where a recipe chooses: figures asked for differently do not compare."""
    outcomes: dict[str, int]
    class_balance: dict[str, int]
    ids_sha256: str
    data_sha256: str


Verdict = Literal["better", "worse", "no worse", "memorised", "not shown", "cannot tell"]
"""Of planted patients a model can have memorised some, or not be shown to; of all else it is better or worse, or no
worse by more than the margin.
"""


class Comparison(Record):
    """comparison.json: tuned against base on one suite's primary metric, item by item.

    `difference` is tuned minus base; for a loss, lower is better. `gained` and `lost` count the items only the
    tuned, only the base model has right (gives away, of planted patients); they, `p_value` and `discordance` are
    None for a loss. `adjusted_p` is Holm's over the `family` suites compared together; both bootstrap bounds resample
    the items. `others` are figures beside the one that decides. `power` is the chance that as many such items would
    show a true difference of `power_for`; `smallest_detectable` is the difference they would show with a chance of
    80 %, None when no item tells the two apart.
    """

    suite: str
    metric: str
    n: int
    base: float
    tuned: float
    difference: float
    low: float
    high: float
    lower_is_better: bool
    gained: int | None
    lost: int | None
    discordance: float | None
    p_value: float | None
    power: float
    power_for: float
    smallest_detectable: float | None
    verdict: Verdict
    margin: float | None = None
    adjusted_p: float | None = None
    family: int = 1
    bootstrap_low: float | None = None
    bootstrap_high: float | None = None
    note: str = ""
    others: tuple["Comparison", ...] = ()
