"""One run directory → one report.html that needs nothing else: no script, no network, no font, no other file."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup, escape

from medmind.core.jsonl import write_text
from medmind.core.log import say
from medmind.core.rundir import RunDir
from medmind.report import plots, words
from medmind.report.collect import STAGES, Run, Suite, as_dict, collect, is_number
from medmind.report.config import ReportConfig

LONGEST_TEXT = 4000
"""Characters of one text that are shown; what is left out is said, and stands in the run directory."""
TABLE_ROWS = 40
"""Steps in the table beside the loss curve; the whole series stands in metrics.jsonl."""
PLOT_ROWS = 40
BOOKKEEPING = ("stages", "begun", "made")
"""Of the manifest: what is skipped or taken up next time, no facts of the run."""
FILTERS = {
    "count": words.count,
    "percent": words.percent,
    "seconds": words.seconds,
    "size": words.size,
    "title_of": words.title_of,
    "meaning_of": words.meaning_of,
    "as_dict": as_dict,
}


def write_report(config: ReportConfig, rundir: RunDir, seed: int) -> list[Path]:
    """Reads the run directory, computes no statistics, and writes report.html into it."""
    run = collect(rundir, seed, config.examples)
    write_text(rundir.report, render(run, config))
    for problem in run.problems:
        say(f"report: {problem}", style="yellow")
    say(f"report: {rundir.report}")
    return [rundir.report]


def render(run: Run, config: ReportConfig) -> str:
    # Every value is escaped by default; only the plots, which escape their own labels, come in as markup.
    jinja = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    jinja.filters.update(FILTERS)
    jinja.filters["prose"] = prose
    jinja.globals.update(value_of=words.value_of, interval_of=words.interval_of, missing=words.MISSING)
    jinja.globals.update(amount=words.amount, span=words.span)
    return jinja.get_template("page.html.j2").render(
        run=run,
        config=config,
        suites=[suite_view(suite) for suite in run.suites],
        loss=loss_view(run),
        last_step=run.steps[-1]["step"] if run.steps else None,
        cost=cost_view(run, config.price_per_hour),
        facts=flatten({key: value for key, value in run.manifest.items() if key not in BOOKKEEPING}),
        parity=parity_view(run.parity),
        limits=words.limits(run),
        stages=STAGES,
    )


def prose(text: Any) -> Markup:
    """A text of the data or a model: escaped, the asterisks of its bold words kept and dimmed, cut only aloud."""
    whole = str(text or "")
    shown = str(escape(whole[:LONGEST_TEXT]))
    shown = re.sub(r"\*\*([^*\n]{1,80})\*\*", r"<b><i>**</i>\1<i>**</i></b>", shown)
    if len(whole) > LONGEST_TEXT:
        shown += f"<em>… and {len(whole) - LONGEST_TEXT:,} more characters, in the run directory</em>"
    return Markup(shown)


def suite_view(suite: Suite) -> dict[str, Any]:
    base, tuned = as_dict(suite.base.get("metrics")), as_dict(suite.tuned.get("metrics"))
    names = list(dict.fromkeys([*tuned, *base]))
    primary = str(suite.comparison.get("metric") or (names[0] if names else ""))
    shares = [(name, base.get(name), tuned.get(name)) for name in names if name not in words.UNITS]
    return {
        "suite": suite,
        "verdict": words.verdict_of(suite),
        "primary": primary,
        "headline": [(which, side.get(primary)) for which, side in (("base", base), ("tuned", tuned))],
        "has_unit": primary in words.UNITS,
        "metrics": [(name, base.get(name), tuned.get(name)) for name in names],
        "plot": interval_plot([(words.title_of(name), b, t) for name, b, t in shares], f"{suite.name} metrics"),
        "outcomes": outcomes(suite),
        **protocol_view(suite),
        "choices": as_dict(suite.tuned.get("class_balance")) or as_dict(suite.base.get("class_balance")),
        **category_view(suite, primary),
        **gain_view(suite),
        "others": others_view(suite),
    }


def category_view(suite: Suite, primary: str) -> dict[str, Any]:
    """The primary metric of every category, in the order of the files."""
    base, tuned = as_dict(suite.base.get("by_category")), as_dict(suite.tuned.get("by_category"))
    rows = [
        (name, as_dict(base.get(name)).get(primary), as_dict(tuned.get(name)).get(primary))
        for name in dict.fromkeys([*tuned, *base])
    ]
    fits = 1 < len(rows) <= PLOT_ROWS
    plot = interval_plot(rows, f"{suite.name} categories", fractions=primary not in words.UNITS) if fits else ""
    return {"categories": rows, "category_plot": plot}


def protocol_view(suite: Suite) -> dict[str, Any]:
    """The same questions under each protocol of asking, and how far these lie apart."""
    base, tuned = as_dict(suite.base.get("protocols")), as_dict(suite.tuned.get("protocols"))
    sides = (("base", words.spread_of(base)), ("tuned", words.spread_of(tuned)))
    return {
        "protocols": [(name, base.get(name), tuned.get(name)) for name in dict.fromkeys([*tuned, *base])],
        "spreads": [f"{which}: {spread}" for which, spread in sides if spread],
    }


def gain_view(suite: Suite) -> dict[str, Any]:
    """The parts of the gain, in the order of the steps from knowing to saying, and the steps themselves."""
    parts, sides = as_dict(suite.gain.get("parts")), (as_dict(suite.gain.get("base")), as_dict(suite.gain.get("tuned")))
    whole = complete(suite.gain.get("whole"))
    rows = [(*said, complete(parts.get(name))) for name, said in words.PARTS.items() if complete(parts.get(name))]
    steps = [(said, *(side.get(name) for side in sides)) for name, said in words.STEPS.items()]
    return {
        "gain": [*rows, ("Together", "the gain in strict accuracy", whole)] if rows and whole else [],
        "steps": steps,
    }


def others_view(suite: Suite) -> list[dict[str, Any]]:
    """The figures beside the one that decides, each with its own paired statistics."""
    found = suite.comparison.get("others")
    return [words.paired(as_dict(one)) for one in found] if isinstance(found, list) else []


def interval_plot(rows: Sequence[tuple[str, Any, Any]], name: str, fractions: bool = True) -> Markup:
    """Nothing where no row has a whole metric."""
    whole = [(label, complete(base), complete(tuned)) for label, base, tuned in rows]
    whole = [row for row in whole if row[1] or row[2]]
    return Markup(plots.intervals(whole, name, fractions) if whole else "")


def complete(metric: Any) -> dict[str, Any]:
    metric = as_dict(metric)
    return metric if all(is_number(metric.get(key)) for key in ("value", "low", "high")) else {}


def outcomes(suite: Suite) -> list[dict[str, Any]]:
    """One row a model: how many replies ended how, and the widths of its bar."""
    rows = []
    for which, scores in (("base", suite.base), ("tuned", suite.tuned)):
        counts = {str(name): number for name, number in as_dict(scores.get("outcomes")).items() if is_number(number)}
        total = sum(counts.values())
        if total:
            widths = {name: 100 * number / total for name, number in counts.items()}
            rows.append({"which": which, "counts": counts, "widths": widths, "total": total})
    return rows


def loss_view(run: Run) -> dict[str, Any]:
    """The curve, and the same numbers as rows: {step, loss, eval_loss, …} in the order of the steps."""
    if not (run.steps or run.held_out):
        return {}
    rows: dict[Any, dict[str, Any]] = {}
    for line in [*thin(run.steps), *thin(run.held_out)]:
        rows[line["step"]] = rows.get(line["step"], {}) | line
    sources = sorted({name for line in run.held_out for name in as_dict(line.get("bits_per_byte"))})
    return {
        "plot": Markup(plots.loss_curve(run.steps, run.held_out)),
        "rows": [rows[step] for step in sorted(rows)],
        "thinned": max(len(run.steps), len(run.held_out)) > TABLE_ROWS,
        "sources": sources,
    }


def thin(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Evenly spaced lines, the first and the last among them."""
    if len(lines) <= TABLE_ROWS:
        return list(lines)
    return [lines[place * (len(lines) - 1) // (TABLE_ROWS - 1)] for place in range(TABLE_ROWS)]


def cost_view(run: Run, price: float) -> dict[str, Any]:
    """Sums of what the stages and the steps wrote down; None where nothing was."""
    timed = {name: as_dict(run.stages.get(name)).get("seconds") for name in STAGES if name in run.stages}
    total = sum(value for value in timed.values() if is_number(value))
    return {
        "stages": timed,
        "total": total if timed else None,
        "hours": total / 3600,
        "price": total / 3600 * price,
        "step_seconds": added(run.steps, "seconds"),
        "tokens": added(run.steps, "tokens"),
        "supervised": added(run.steps, "supervised_tokens"),
        "memory": max((line["memory_gb"] for line in run.steps if is_number(line.get("memory_gb"))), default=None),
    }


def added(lines: Sequence[dict[str, Any]], name: str) -> float | None:
    numbers = [line[name] for line in lines if is_number(line.get(name))]
    return sum(numbers) if numbers else None


def parity_view(found: dict[str, Any]) -> dict[str, Any]:
    """The gate's word, one row a weight format with the float32 file first, and the causes it names."""
    if not found:
        return {}
    files = {"f32": found} | as_dict(found.get("files"))
    said = found.get("passed")
    tone, word = ("better", "Yes") if said is True else ("worse", "No") if said is False else ("unclear", words.MISSING)
    faults = [
        text
        for row in [{"findings": found.get("merged")}, found.get("token_ids"), *files.values()]
        for text in named(row)
    ]
    view = {"tone": tone, "word": word, "files": files, "tokens": as_dict(found.get("token_ids"))}
    return view | {"faults": list(dict.fromkeys(faults))}


def named(row: Any) -> list[str]:
    """The causes that the gate found in one file, in words."""
    findings = as_dict(row).get("findings") or []
    return [f"{one.get('cause')}: {one.get('detail')}" for one in map(as_dict, findings)]


def flatten(value: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """("a.b", "text") of every plain value in nested objects; a list is shown by its length if it holds objects."""
    rows: list[tuple[str, str]] = []
    for key, item in value.items():
        name = f"{prefix}{key}"
        if isinstance(item, dict):
            rows += flatten(item, f"{name}.")
        elif isinstance(item, list) and any(isinstance(one, dict | list) for one in item):
            rows.append((name, f"{len(item)} entries"))
        elif isinstance(item, list):
            rows.append((name, ", ".join(map(str, item))))
        else:
            rows.append((name, words.count(item) if is_number(item) and name != "seed" else str(item)))
    return rows
