"""The gate: what each file was measured to be, which bound it breaks, and what probably is the cause."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medmind.core.errors import GateError
from medmind.core.types import Record
from medmind.export.config import Bounds
from medmind.export.parity.diagnose import Finding, in_words
from medmind.export.parity.greedy import Parity
from medmind.export.parity.logits import LogitParity
from medmind.export.parity.scores import ScoreParity
from medmind.export.parity.tokens import TokenParity


class Check(Record):
    """One figure against its bound."""

    check: str
    value: float
    bound: float
    passed: bool

    def __str__(self) -> str:
        return f"{self.check} {self.value:.3g} (bound {self.bound:g})"


@dataclass(frozen=True)
class FileParity:
    """One file against transformers in float32."""

    replies: Parity
    logits: LogitParity | None
    scores: Mapping[str, ScoreParity]
    findings: tuple[Finding, ...]
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        return self.replies.n > 0 and not self.findings and all(check.passed for check in self.checks)

    @property
    def faults(self) -> str:
        told = [str(check) for check in self.checks if not check.passed]
        told = told or ["no bound is broken" if self.replies.n else "no prompt was short enough to be asked"]
        cause = f", probably because of {in_words(self.findings)}" if self.findings else ""
        return f"{', '.join(told)}{cause}"

    def as_json(self) -> dict[str, Any]:
        return {
            **self.replies.model_dump(mode="json"),
            "logits": self.logits.model_dump(mode="json") if self.logits else None,
            "scores": {suite: found.model_dump(mode="json") for suite, found in self.scores.items()},
            "checks": [check.model_dump(mode="json") for check in self.checks],
            "findings": [finding.model_dump(mode="json") for finding in self.findings],
        }

    def __str__(self) -> str:
        told = str(self.replies)
        if self.logits:
            found = self.logits
            told += f"; top-1 {found.top1:.1%}, KL {found.kl:.2g} nats, NMSE {found.nmse:.2g}"
            told += f", perplexity {found.perplexity_change:+.2%}"
        scores = [f"{suite} {found.difference:+.3f}" for suite, found in self.scores.items()]
        return "; ".join([told, *scores])


@dataclass(frozen=True)
class Proof:
    """What parity.json says: every GGUF against transformers."""

    files: Mapping[str, FileParity]
    tokens: TokenParity
    too_long: int
    merged: tuple[Finding, ...] = ()
    """What is wrong with the merged checkpoint itself."""

    @property
    def passed(self) -> bool:
        return self.tokens.passed and not self.merged and all(found.passed for found in self.files.values())

    @property
    def replies(self) -> dict[str, Parity]:
        return {kind: found.replies for kind, found in self.files.items()}

    def as_json(self) -> dict[str, Any]:
        return {
            "passed": self.passed,
            **self.files["f32"].as_json(),
            "too_long": self.too_long,
            "token_ids": self.tokens.model_dump(mode="json"),
            "merged": [finding.model_dump(mode="json") for finding in self.merged],
            "files": {kind: found.as_json() for kind, found in self.files.items() if kind != "f32"},
        }

    def refuse(self, where: str) -> None:
        """Says which file breaks what, and the likely cause; the todo is that of the first cause."""
        if self.passed:
            return
        faults = [f"the merged checkpoint: {in_words(self.merged)}"] if self.merged else []
        if not self.tokens.passed:
            faults.append(f"{self.tokens}: {in_words(self.tokens.findings) or 'no cause was found'}")
        faults += [f"{kind}: {found.faults}" for kind, found in self.files.items() if not found.passed]
        causes = [
            *self.merged,
            *self.tokens.findings,
            *(one for found in self.files.values() for one in found.findings),
        ]
        todo = causes[0].todo if causes else "do not hand these files on; report the model and this file"
        raise GateError(f"the export does not say what the model says; {'; '.join(faults)}", where=where, todo=todo)


def judge(
    bounds: Bounds, replies: Parity, logits: LogitParity | None, scores: Mapping[str, ScoreParity]
) -> tuple[Check, ...]:
    found: list[Check] = []

    def at_most(name: str, value: float, bound: float | None) -> None:
        if bound is not None:
            found.append(Check(check=name, value=value, bound=bound, passed=value <= bound))

    if logits:
        at_most("nmse", logits.nmse, bounds.nmse)
        at_most("kl", logits.kl, bounds.kl)
        at_most("perplexity", logits.perplexity_change, bounds.perplexity)
        if bounds.top1 is not None:
            passed = logits.top1 >= bounds.top1
            found.append(Check(check="top1", value=logits.top1, bound=bounds.top1, passed=passed))
    at_most("wrong", replies.wrong, bounds.wrong)
    for suite, score in scores.items():
        at_most(f"score of {suite}, at least lost", max(0.0, -score.high), bounds.score)
    return tuple(found)
