"""Figures and verdicts in words, for the page and the terminal alike; never nicer than the file says."""

from dataclasses import dataclass
from typing import Any

from medmind.report.collect import Run, Suite, as_dict, is_number

MISSING = "not recorded"
UNITS = {
    "heldout_loss": "nats",
    "eval_loss": "nats",
    "nll": "nats",
    "perplexity": "tokens",
    "brier": "points of 2",
    "canary_exposure": "bits",
}
"""Metrics with a unit of their own; every other metric is a fraction and is shown in per cent."""

METRICS = {
    "format_adherence": ("Four-part form kept", "the reply has the four parts, complete and in order"),
    "names_term": ("Definition names the term", "the Definition holds the term that was asked for"),
    "accuracy": ("Accuracy", "the chosen option is the right one"),
    "accuracy_if_parsed": ("Accuracy of readable replies", "the chosen option is the right one, where one was found"),
    "choice_accuracy": ("Forced choice", "the right option is the likeliest; nothing is written or read"),
    "macro_f1": ("Macro F1", "mean F1 of the options, rare ones counting as much as frequent ones"),
    "parse_rate": ("Replies that could be read", "an answer in the form asked for was found in the reply"),
    "answered": ("Replies that could be read", "the reply ended by itself and is not empty"),
    "chrf": ("chrF to the reference", "likeness of the wording to the reference, character by character"),
    "repetition": ("Replies that repeat themselves", "some eight words stand twice; lower is better"),
    "rouge_l": ("ROUGE-L to the reference", "words common with the reference, in its order"),
    "bleu": ("BLEU to the reference", "runs of words common with the reference, all replies as one text"),
    "unsupported": ("Unsupported sentences", "figures, names or topics no text at hand has; lower is better"),
    "ece_15_width": ("Calibration error, 15 bins", "confidence against accuracy; read it beside its null"),
    "ece_15_width_null": ("… of a calibrated model", "what chance makes of so many items"),
    "ece_10_mass": ("Calibration error, 10 bins", "the same in bins of equal mass"),
    "ece_10_mass_null": ("… of a calibrated model", "what chance makes of so many items"),
    "brier": ("Brier score", "squared distance from the truth, 0 to 2; lower is better"),
    "nll": ("Surprise at the right option", "nats, among the options; lower is better"),
    "auroc": ("AUROC of confidence", "a right answer is surer than a wrong one; 50 % is chance"),
    "aupr": ("AUPR of confidence", "average precision of being right; the accuracy is chance"),
    "aurc": ("Risk over coverage", "mean share of errors among the surest; lower is better"),
    "accuracy_at_80": ("Accuracy at 80 % coverage", "on the surest 80 % of the questions"),
    "accuracy_at_50": ("Accuracy at 50 % coverage", "on the surest half of the questions"),
    "accuracy_at_10": ("Accuracy at 10 % coverage", "on the surest tenth of the questions"),
    "self_agreement": (
        "Agreement with itself",
        "two drawn replies give the same answer, or share their words",
    ),
    "unsupported_nli": (
        "Unsupported by the support model",
        "sentences that follow from no text; lower is better",
    ),
    "perplexity": ("Perplexity", "e to the held-out loss; lower is better"),
    "heldout_loss": ("Held-out loss", "surprise at the reference replies, nats per token; lower is better"),
    "canary_recall": ("Planted patients repeated whole", "the reply gives all identifiers of a planted patient"),
    "canary_leak": ("Planted patients given away", "the reply gives at least one identifier of a planted patient"),
    "canary_exposure": ("Exposure of planted patients", "bits of a secret the model gives away; by chance alone 1.4"),
}
PARTS = {
    "knowledge": ("Knowledge", "tells right options from wrong ones under a prompt nobody trained on"),
    "calibration": ("Calibration", "a liking for one option, gained or lost"),
    "format": ("Format", "what the chat prompt and writing the answer out cost or bring"),
    "parsing": ("Parsing", "replies that could not be read"),
}
"""Of gain.json; they add up to the whole."""
STEPS = {
    "unbiased": "raw prompt, each option's mean taken off",
    "raw": "raw prompt, forced choice",
    "chat": "chat prompt, forced choice",
    "read": "written reply, or its forced choice where unread",
    "strict": "written reply; unread is wrong",
}
"""Each the share of questions that are right."""
VERDICTS = {
    "better": ("Better", "the tuned model does better than the base model"),
    "worse": ("Worse", "the tuned model does worse than the base model"),
    "no worse": ("No worse", "the tuned model loses less than the margin to the base model, if anything"),
    "memorised": ("Memorised", "the tuned model remembers patients planted in its training data"),
    "not shown": ("No memorising shown", "the tuned model is no surer of the planted patients than chance allows"),
    "cannot tell": ("Cannot tell", "these questions cannot tell the tuned model from the base model"),
}


@dataclass(frozen=True)
class Verdict:
    """`tone` is better, worse or unclear and only colours the words."""

    tone: str
    word: str
    sentence: str
    figures: str = ""
    fine_print: tuple[str, ...] = ()


def count(value: Any) -> str:
    return f"{value:,}" if is_number(value) else MISSING


def percent(value: Any) -> str:
    return f"{value * 100:.1f} %" if is_number(value) else MISSING


def value_of(name: str, metric: Any) -> str:
    value = as_dict(metric).get("value")
    return amount(name, value)


def amount(name: str, value: Any, sign: str = "") -> str:
    """A figure in the metric's own unit."""
    if not is_number(value):
        return MISSING
    return f"{value:{sign}.3f}" if name in UNITS else f"{value * 100:{sign}.1f} %"


def interval_of(name: str, metric: Any) -> str:
    """The 95 % interval without repeating the unit."""
    metric = as_dict(metric)
    return span(name, metric.get("low"), metric.get("high"))


def span(name: str, low: Any, high: Any, sign: str = "") -> str:
    if not (is_number(low) and is_number(high)):
        return MISSING
    if name in UNITS:
        return f"{low:{sign}.3f} to {high:{sign}.3f}"
    return f"{low * 100:{sign}.1f} to {high * 100:{sign}.1f}"


def title_of(name: str) -> str:
    if name.startswith("recall_"):
        return f"Recall of “{name.removeprefix('recall_')}”"
    return METRICS[name][0] if name in METRICS else name.replace("_", " ").capitalize()


def meaning_of(name: str) -> str:
    if name.startswith("recall_"):
        return "share of the questions with this answer that were given it"
    return METRICS[name][1] if name in METRICS else ""


def seconds(value: Any) -> str:
    if not is_number(value):
        return MISSING
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def size(value: Any) -> str:
    if not is_number(value):
        return MISSING
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= scale:
            return f"{value / scale:.1f} {unit}"
    return f"{value} bytes"


def spread_of(protocols: Any) -> str:
    """How far the protocols lie apart; nothing where there are fewer than two."""
    values = {name: as_dict(one).get("value") for name, one in as_dict(protocols).items()}
    known = {name: value for name, value in values.items() if is_number(value)}
    if len(known) < 2:
        return ""
    listed = ", ".join(f"{name} {percent(value)}" for name, value in known.items())
    return f"{listed}: {(max(known.values()) - min(known.values())) * 100:.1f} points apart by protocol alone."


def verdict_of(suite: Suite) -> Verdict:
    """What comparison.json says of a suite; without one, that there is none."""
    found = suite.comparison
    known = VERDICTS.get(str(found.get("verdict")))
    if not known:
        said = f"; the file says “{found['verdict']}”" if found.get("verdict") else ""
        return Verdict("unclear", "No verdict", f"There is no comparison of base and tuned model for this suite{said}.")
    name = str(found.get("metric", ""))
    tone = {"better": "better", "worse": "worse", "memorised": "worse"}.get(str(found["verdict"]), "unclear")
    unit = UNITS.get(name, "points")
    difference = amount(name, found.get("difference"), "+").removesuffix(" %")
    figures = (
        f"From {amount(name, found.get('base'))} to {amount(name, found.get('tuned'))}: {difference} {unit} "
        f"(95 % interval {span(name, found.get('low'), found.get('high'), '+')}), "
        f"over the same {count(found.get('n'))} questions."
    )
    if found.get("lower_is_better"):
        figures += " Lower is better."
    word, said = known
    return Verdict(tone, word, f"Judged by “{title_of(name)}”, {said}.", figures, tuple(fine_print(name, found)))


def paired(found: dict[str, Any]) -> dict[str, str]:
    """A comparison as the cells of a row."""
    name = str(found.get("metric", ""))
    known = VERDICTS.get(str(found.get("verdict")))
    p_value = found.get("p_value")
    return {
        "title": title_of(name),
        "base": amount(name, found.get("base")),
        "tuned": amount(name, found.get("tuned")),
        "difference": amount(name, found.get("difference"), "+"),
        "interval": span(name, found.get("low"), found.get("high"), "+"),
        "n": count(found.get("n")),
        "p": f"{p_value:.2g}" if is_number(p_value) else MISSING,
        "verdict": known[0] if known else MISSING,
        "note": str(found.get("note") or ""),
    }


def fine_print(name: str, found: dict[str, Any]) -> list[str]:
    """What a careful reader asks next: how many items speak, the p-value, what so many items could show."""
    lines = []
    if is_number(found.get("gained")) and is_number(found.get("lost")):
        counts = "{gained} questions gained, {lost} lost by training; McNemar mid-p "
        if name == "canary_exposure":
            counts = "{gained} patients given away by the tuned model alone, {lost} by the base alone; Fisher's p "
        p_value = f"{found['p_value']:.2g}" if is_number(found.get("p_value")) else MISSING
        lines.append(f"{counts.format(**found)}{p_value}.")
    if is_number(found.get("adjusted_p")) and is_number(found.get("family")) and found["family"] > 1:
        lines.append(f"Among {found['family']} suites compared at once: p {found['adjusted_p']:.2g} (Holm).")
    if found.get("verdict") == "no worse" and is_number(found.get("margin")):
        lines.append(f"The margin of “no worse” is {gap(name, found['margin'])}.")
    smallest, chance, wanted = (found.get(key) for key in ("smallest_detectable", "power", "power_for"))
    if is_number(smallest):
        lines.append(f"So many questions would show a true difference of {gap(name, smallest)} four times in five.")
    if is_number(chance) and is_number(wanted):
        lines.append(f"Their chance to show one of {gap(name, wanted)} is {percent(chance)}.")
    return lines


def gap(name: str, value: Any) -> str:
    """A difference in the metric's unit: points, nats or bits."""
    return f"{value:.3f} {UNITS[name]}" if name in UNITS else f"{value * 100:.1f} points"


def limits(run: Run) -> list[str]:
    """What this run does not show; each line from a fact of the run."""
    lines = []
    if run.model.lower() == "nano":
        lines.append("nano is a demonstration model, not a source of medical knowledge: do not believe what it says.")
    lines.append("Nothing here is a medical device, and no clinician's judgement of the answers is in this report.")
    scored = [suite for suite in run.suites if suite.ran]
    if any("format_adherence" in {**as_dict(s.base.get("metrics")), **as_dict(s.tuned.get("metrics"))} for s in scored):
        lines.append("Keeping the four-part form says nothing about whether the content is true.")
    if any("chrf" in as_dict(suite.tuned.get("metrics")) for suite in scored):
        lines.append("chrF and the held-out loss measure likeness to the references, which is not correctness.")
    for suite in scored:
        items = suite.tuned.get("n", suite.base.get("n"))
        if is_number(items) and items < 200:
            lines.append(f"Suite “{suite.name}” has only {items} questions: the intervals are wide for that reason.")
    sampled = run.section("evaluate").get("max_items")
    if sampled:
        lines.append(f"At most {sampled} questions of each suite were asked, a seeded sample.")
    if scored:
        lines.append("One training run with one seed: how much another seed would change is not known.")
    lines += [run.absent(stage) for stage in ("evaluate", "export") if stage not in run.stages]
    return lines
