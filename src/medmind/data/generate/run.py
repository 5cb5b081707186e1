"""`medmind data generate`: the packaged terms in other words, and new terms answered by the user's own model."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medmind.core.errors import DataError, EnvironmentFault
from medmind.core.jsonl import read_jsonl, read_lines, write_jsonl
from medmind.core.log import progress_bar, say
from medmind.core.registry import did_you_mean
from medmind.data.generate.ask import Endpoint, NoReply, Patience, ask, dead
from medmind.data.generate.judge import DAMAGED, Answers, Reason, Rejected, grams, judge, names_of, names_of_facts
from medmind.data.generate.variants import grow, make_row, read_all
from medmind.data.sources.facts import WORDING, read_facts

PATIENCE = Patience()
MOST_LISTED = 5
"""Terms named in the report's line; the JSON names all."""


@dataclass(frozen=True)
class Term:
    """A line of the terms file."""

    category: str
    name: str


def question_of(term: Term) -> str:
    return f"{WORDING[term.category]}{term.name}"


@dataclass
class Growth:
    """The set as it grows: what is in OUT, what was rejected, and what the two splits already know."""

    out: Path
    from_facts: list[dict[str, str]]
    from_model: list[dict[str, str]] = field(default_factory=list)
    kept: int = 0
    """Of from_model: those an earlier run had written."""
    rejected: list[Rejected] = field(default_factory=list)
    without_answer: list[str] = field(default_factory=list)
    """Terms asked for in vain."""
    answers: Answers = field(default_factory=list)
    known: set[str] = field(default_factory=set)

    @property
    def rejected_file(self) -> Path:
        return self.out.with_name(f"{self.out.stem}.rejected.jsonl")

    def save(self) -> None:
        write_jsonl(self.out, [*self.from_facts, *self.from_model])

    def save_rejected(self) -> None:
        """Of this run; an earlier run's file does not stay behind as if it were this one's."""
        if self.rejected or self.rejected_file.exists():
            write_jsonl(self.rejected_file, self.rejected)

    def take(self, found: str | tuple[Reason, str], term: Term, attempt: int, raw: str, model: str) -> bool:
        """Puts a judged answer where it belongs; whether that is in the set."""
        if not isinstance(found, str):
            self.reject(term, attempt, *found, raw=raw)
            return False
        self.from_model.append(make_row(question_of(term), found, term.category, term.name, model=model))
        self.answers.append((term.name, grams(found)))
        return True

    def reject(self, term: Term, attempt: int, reason: Reason, detail: str, raw: str = "") -> None:
        self.rejected.append(
            Rejected(term=term.name, category=term.category, attempt=attempt, reason=reason, detail=detail, raw=raw)
        )

    def report(self) -> dict[str, Any]:
        return {
            "file": str(self.out),
            "rows": len(self.from_facts) + len(self.from_model),
            "from_facts": len(self.from_facts),
            "from_model": len(self.from_model),
            "kept_from_before": self.kept,
            "without_answer": self.without_answer,
            "rejected": dict(Counter(one.reason.value for one in self.rejected)),
            "rejected_file": str(self.rejected_file) if self.rejected else "",
        }


def generate(
    out: Path,
    count: int,
    seed: int,
    terms: Sequence[Term] = (),
    find: Callable[[], Endpoint] | None = None,
    patience: Patience = PATIENCE,
) -> dict[str, Any]:
    """Writes OUT and returns the report. Rows of a model that OUT already holds stay if they are still valid.

    `find` names the endpoint; it is called only if there is something to ask. If it dies, EnvironmentFault is raised
    after everything accepted so far is in OUT.
    """
    growth = Growth(out, grow(count, seed))
    growth.known = names_of_facts(read_all())
    growth.answers = [(row.example.metadata["term"], grams(row.example.target)) for row in read_facts()]
    keep_earlier(growth)
    try:
        growth.save()
        wanted = list(choose(terms, growth))
        if find and wanted:
            ask_all(find(), wanted, growth, seed, patience)
    finally:
        growth.save_rejected()
    tell(growth)
    return growth.report()


def read_terms(path: Path) -> list[Term]:
    """The terms file, one `category<TAB>term` a line; the first line that is none is an error."""
    found: list[Term] = []
    for number, line in read_lines(path):
        category, _, name = (part.strip() for part in line.partition("\t"))
        where = f"{path}, line {number}"
        if not names_of(name) or DAMAGED.search(name):
            raise DataError("no term", where=where, todo="a line is: category, a tab, the term")
        if category not in WORDING:
            hint = did_you_mean(category, WORDING)
            raise DataError(f'unknown category "{category}"{hint}', where=where, todo=f"known: {', '.join(WORDING)}")
        found.append(Term(category, " ".join(name.split())))
    if not found:
        raise DataError("no terms", where=str(path), todo="a line is: category, a tab, the term")
    return found


def keep_earlier(growth: Growth) -> None:
    """The rows a model wrote in an earlier run, each judged anew; a file of another kind is not overwritten."""
    if not growth.out.exists():
        return
    columns = set(growth.from_facts[0])
    for number, row in enumerate(read_jsonl(growth.out), start=1):
        if not is_ours(row, columns):
            where = f"{growth.out}, row {number}"
            raise DataError("not a row of `medmind data generate`", where=where, todo="choose another file name")
        if not row["model"]:
            continue
        term = Term(row["category"], row["term"])
        names, answered = names_of(term.name), names_in(growth.from_model)
        found: str | tuple[Reason, str]
        if names & (growth.known | answered):
            found = (Reason.KNOWN, "it ships") if names & growth.known else (Reason.TWICE, "an earlier row tells it")
        else:
            found = judge(row["output"], True, term.name, growth.answers)
        growth.take(found, term, 0, row["output"], row["model"])
    growth.kept = len(growth.from_model)


def is_ours(row: Any, columns: set[str]) -> bool:
    texts = isinstance(row, dict) and set(row) == columns and all(isinstance(value, str) for value in row.values())
    return texts and row["category"] in WORDING


def names_in(rows: list[dict[str, str]]) -> set[str]:
    return {name for row in rows for name in names_of(row["term"])}


def choose(terms: Sequence[Term], growth: Growth) -> Iterator[Term]:
    """The terms to ask for: not those of either split, nor those already answered, each once."""
    answered = names_in(growth.from_model)
    seen: set[str] = set()
    for term in terms:
        names = names_of(term.name)
        if names & growth.known:
            growth.reject(term, 0, Reason.KNOWN, "it is, or is another name of, a packaged term")
        elif names & seen:
            growth.reject(term, 0, Reason.TWICE, "an earlier line of the terms file names it")
        elif not names & answered:
            yield term
        seen |= names


def ask_all(endpoint: Endpoint, wanted: list[Term], growth: Growth, seed: int, patience: Patience) -> None:
    """Asks for one term after another; OUT is written after each that is accepted."""
    say(f"asking {endpoint.model} at {endpoint.url} for {len(wanted)} terms")
    failures = 0
    with progress_bar("asking") as advance:
        for done, term in enumerate(wanted):
            advance(done, len(wanted))
            failures = ask_for(endpoint, term, growth, seed, patience, failures)
        advance(len(wanted), len(wanted))


def ask_for(endpoint: Endpoint, term: Term, growth: Growth, seed: int, patience: Patience, failures: int) -> int:
    """One term, as often as `patience` allows; returns how many times in a row the endpoint has now failed."""
    for attempt in range(1, patience.tries + 1):
        try:
            reply = ask(endpoint, question_of(term), seed + attempt, patience.timeout)
        except NoReply as fault:
            failures += 1
            growth.reject(term, attempt, fault.reason, fault.detail, fault.raw)
            if failures >= patience.dead_after:
                growth.without_answer.append(term.name)
                raise stopped(endpoint, failures, fault, growth) from None
            time.sleep(patience.pause * 2 ** (attempt - 1))
            continue
        failures = 0
        found = judge(reply.text, reply.finished, term.name, growth.answers)
        if growth.take(found, term, attempt, reply.text, endpoint.model):
            growth.save()
            return failures
    growth.without_answer.append(term.name)
    return failures


def stopped(endpoint: Endpoint, failures: int, last: NoReply, growth: Growth) -> EnvironmentFault:
    return dead(endpoint.url, failures, last, f"{len(growth.from_model)} answers are kept in {growth.out}; ")


def tell(growth: Growth) -> None:
    report = growth.report()
    kept = f", {growth.kept} of them from before" if growth.kept else ""
    say(
        f"{report['rows']} rows in {growth.out}: {report['from_facts']} from the packaged facts, "
        f"{report['from_model']} from a model{kept}"
    )
    if growth.rejected:
        counts = ", ".join(f"{count} × {reason}" for reason, count in report["rejected"].items())
        say(f"rejected: {counts} (each with its text in {growth.rejected_file})")
    if growth.without_answer:
        more = len(growth.without_answer) - MOST_LISTED
        listed = ", ".join(growth.without_answer[:MOST_LISTED]) + (f" and {more} more" if more > 0 else "")
        say(f"without an answer: {listed}; the same command asks again")
    say(f"train on it: medmind run demo --set data.path={growth.out} --out runs/{growth.out.stem}")
