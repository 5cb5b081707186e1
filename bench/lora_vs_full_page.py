"""The tables and plots of docs/results.md: what bench/lora_vs_full.py measured, compared as evaluation does."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medmind.core.rundir import RunDir
from medmind.core.types import Comparison, Example
from medmind.estimate.activations import Batch
from medmind.estimate.counts import count
from medmind.estimate.memory import predict
from medmind.evaluate.across import tuned_side
from medmind.evaluate.compare import Side, adjust, refuse_other_questions
from medmind.evaluate.differences import Ratio, compare_ratios
from medmind.evaluate.run import read_suite
from medmind.evaluate.texts import wording
from medmind.models.catalog import find_model
from medmind.train.config import LoraConfig, TrainConfig

DOCS = Path(__file__).parent.parent / "docs"
MARGIN = 0.02
FIGURES = {"terms": ("format_adherence", "heldout_loss", "chrf"), "medquad": ("heldout_loss", "chrf", "rouge_l")}
"""The first decides, as `medmind compare` has it."""
NAMES = {
    "format_adherence": "strict form kept",
    "heldout_loss": "held-out loss, nats a token",
    "chrf": "chrF",
    "rouge_l": "ROUGE-L",
}
LARGE = "Mistral-7B-Instruct-v0.3"
LARGE_RUNS: tuple[tuple[str, Any, dict[str, Any]], ...] = (
    ("full", "full", {}),
    ("LoRA 16", "lora", {"r": 16}),
    ("LoRA 128, q and v", "lora", {"r": 128, "target_modules": ("q_proj", "v_proj")}),
    ("LoRA 16, 8 bits", "lora8", {"r": 16}),
    ("QLoRA 16, 4 bits", "qlora", {"r": 16}),
)
Lines = Sequence[dict[str, Any]]


def of(lines: Lines, **wanted: Any) -> list[dict[str, Any]]:
    return [line for line in lines if wanted.items() <= line.items()]


def arms(lines: Lines, task: str) -> list[str]:
    """Those with a run, full first, then in the order of what they train."""
    found = {line["arm"]: line["parameters"]["trainable"] for line in of(lines, kind="run", task=task)}
    return sorted(found, key=lambda arm: (arm != "full", found[arm], arm))


def item_sums(figure: str, examples: Sequence[Example], side: Side) -> dict[str, tuple[float, float]]:
    """Of each item what stands above and below the line of the figure's quotient."""
    if figure == "heldout_loss":
        return {row.id: (row.nats, row.tokens) for row in side.losses}
    if figure == "format_adherence":
        return {row.id: (row.correct, 1) for row in side.predictions}
    pairs = zip(examples, side.predictions, strict=True)
    return {row.id: (getattr(wording(example, row), figure), 1) for example, row in pairs}


def compare_seeds(lines: Lines, task: str, arm: str, figure: str) -> tuple[Comparison, list[Comparison]]:
    """An arm against full on all questions of all seeds they share, and of each seed alone.

    A question that several seeds ask is drawn with all its answers, so that it does not count as several.
    """
    together: dict[str, list[float]] = {}
    alone = []
    for one in of(lines, kind="run", task=task, arm=arm):
        full = of(lines, kind="run", task=task, arm="full", seed=one["seed"])
        if not full:
            continue
        runs = [RunDir(Path(line["folder"])) for line in (full[0], one)]
        examples = read_suite(runs[0], one["suite"], None, 0)
        sides = [tuned_side(run, one["suite"], examples[0].task) for run in runs]
        refuse_other_questions(one["suite"], *sides)
        old, new = (item_sums(figure, examples, side) for side in sides)
        alone.append(compare([(*old[name], *new[name]) for name in old], figure))
        for name in old:
            kept = together.setdefault(name, [0.0] * 4)
            together[name] = [total + own for total, own in zip(kept, (*old[name], *new[name]), strict=True)]
    return compare(list(together.values()), figure), alone


def compare(sums: Sequence[Sequence[float]], figure: str) -> Comparison:
    old, old_below, new, new_below = zip(*sums, strict=True)
    lower = figure == "heldout_loss"
    return compare_ratios("", figure, Ratio(old, old_below), Ratio(new, new_below), MARGIN, 0, lower_is_better=lower)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    marks = ["---", *["--:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, marks, *rows))


def cost_table(lines: Lines, task: str) -> str:
    """Means over the runs of an arm, each beside its share of full's."""
    full = of(lines, kind="run", task=task, arm="full")
    head = ("method", "rate", "learns", "memory, peak", "", "CPU time", "", "on disk", "", "cost", "runs")
    rows = []
    for arm in arms(lines, task):
        own = of(lines, kind="run", task=task, arm=arm)

        def mean(name: str, chosen: Lines = own) -> float:
            return fmean(line[name] for line in chosen)

        def change(name: str) -> str:
            return "" if arm == "full" else f"{mean(name) / mean(name, full) - 1:+.0%}"  # noqa: B023

        learns = own[0]["parameters"]
        rows.append(
            (
                own[0]["title"],
                f"{own[0]['rate']:g}",
                f"{learns['trainable'] / learns['total']:.1%}",
                f"{mean('peak_bytes') / 1e6:.0f} MB",
                change("peak_bytes"),
                f"{mean('processor_seconds'):.0f} s",
                change("processor_seconds"),
                f"{mean('result_bytes') / 1e6:.2f} MB",
                change("result_bytes"),
                f"{mean('cost'):.4f}",
                str(len(own)),
            )
        )
    return table(head, rows)


def quality_table(lines: Lines, task: str, figure: str, adjusted: dict[tuple[str, str], Comparison]) -> str:
    decides = figure == FIGURES[task][0]
    head = ["method", "by seed", "mean", "minus full's", "95 % over questions", "by seed", "verdict"]
    rows = []
    for arm in arms(lines, task):
        own = of(lines, kind="run", task=task, arm=arm)
        values = [line["tuned"][figure] for line in own]
        row = [own[0]["title"], ", ".join(shown(value, figure) for value in values), shown(fmean(values), figure)]
        if arm == "full":
            row += [""] * (5 if decides else 4)
        else:
            pooled, alone = compare_seeds(lines, task, arm, figure)
            if decides:
                pooled = adjusted[task, arm]
            row += [
                shown(pooled.difference, figure, "+"),
                f"{shown(pooled.low, figure, '+')} to {shown(pooled.high, figure, '+')}",
                ", ".join(shown(one.difference, figure, "+") for one in alone),
                verdict(pooled, alone),
            ]
            row += [f"{pooled.adjusted_p:.2g}"] if decides else []
        rows.append(row)
    base = fmean(line["base"][figure] for line in of(lines, kind="run", task=task))
    width = len(head) + decides
    rows.append(["untrained", "", shown(base, figure), *[""] * (width - 3)])
    return f"**{NAMES[figure]}**\n\n" + table([*head, "Holm's p"] if decides else head, rows)


def verdict(pooled: Comparison, alone: Sequence[Comparison]) -> str:
    """The interval knows questions only: where seeds point different ways, no difference between methods is shown."""
    signs = {(one.difference > 0) - (one.difference < 0) for one in alone}
    return "cannot tell" if pooled.verdict in ("better", "worse") and len(signs) > 1 else pooled.verdict


def shown(value: float, figure: str, sign: str = "") -> str:
    return f"{value:{sign}.3f}" if figure == "heldout_loss" else f"{100 * value:{sign}.0f} %"


def decide(lines: Lines) -> dict[tuple[str, str], Comparison]:
    """The figure that decides, of every arm and task, with Holm's p over all of them."""
    keys = [(task, arm) for task in FIGURES for arm in arms(lines, task) if arm != "full"]
    found = [compare_seeds(lines, task, arm, FIGURES[task][0])[0] for task, arm in keys]
    return dict(zip(keys, adjust(found), strict=True))


def rate_table(lines: Lines) -> str:
    rows = []
    for task in FIGURES:
        for arm in dict.fromkeys(line["arm"] for line in of(lines, kind="rate", task=task)):
            tried = sorted(of(lines, kind="rate", task=task, arm=arm), key=lambda line: line["rate"])
            best = min((line for line in tried if line["validation_loss"]), key=lambda line: line["validation_loss"])
            losses = [f"{line['validation_loss']:.3f}" if line["validation_loss"] else "exploded" for line in tried]
            marked = [f"**{text}**" if line is best else text for text, line in zip(losses, tried, strict=True)]
            cells = [f"{line['rate']:g}: {text}" for line, text in zip(tried, marked, strict=True)]
            rows.append((task, arm, f"{tried[0]['before']:.3f}", ", ".join(cells)))
    return table(("rows", "method", "before", "rate: loss on validation rows"), rows)


def predicted_table() -> str:
    """What `medmind estimate` adds up for a model that no machine here could train whole."""
    spec, batch = find_model(LARGE), Batch((512,), 400, packed=True)
    found = []
    for title, method, lora in LARGE_RUNS:
        config = TrainConfig(method=method, gradient_checkpointing=True, lora=LoraConfig(**lora))
        parts, counts = predict(spec, config, batch, dtype_bytes=2), count(spec, config)
        state = sum(parts[name] for name in ("adapters", "gradients", "optimiser"))
        written = counts.adapters or counts.total
        found.append(
            (title, counts.trainable / counts.total, parts["weights"], state, sum(parts.values()), 4 * written)
        )
    rows = [
        (title, f"{share:.2%}", *(f"{size / 1e9:.1f} GB" for size in sizes), f"{sizes[2] / found[0][4] - 1:+.0%}")
        for title, share, *sizes in found
    ]
    whole = [(*row[:5], "" if row is rows[0] else row[6], row[5]) for row in rows]
    return table(("method", "learns", "weights", "what learns, and its optimiser", "in all", "", "on disk"), whole)


def dots(axes: Axes, lines: Lines, task: str, figure: str) -> None:
    """A dot a seed, a bar their mean; full's mean across the plot."""
    names = arms(lines, task)
    for place, arm in enumerate(names):
        own = of(lines, kind="run", task=task, arm=arm)
        values = [line["tuned"][figure] for line in own]
        colour = "#757c85" if arm == "full" else "#0b6e6e"
        axes.plot(values, [place] * len(values), "o", color=colour, alpha=0.55, markersize=6)
        axes.plot([fmean(values)], [place], "|", color=colour, markersize=20, markeredgewidth=2.5)
        if arm == "full":
            axes.axvline(fmean(values), color=colour, linewidth=0.8, linestyle=":")
    titles = [of(lines, kind="run", task=task, arm=arm)[0]["title"] for arm in names]
    axes.set_yticks(range(len(names)), titles)
    finish(axes, f"{task}: {NAMES[figure]}")


def costs(axes: Axes, lines: Lines, task: str) -> None:
    """Memory, time and file as a share of full's."""
    full, names = of(lines, kind="run", task=task, arm="full"), [arm for arm in arms(lines, task) if arm != "full"]
    parts = {"peak_bytes": "memory", "processor_seconds": "CPU time", "result_bytes": "on disk"}
    for offset, (name, title) in enumerate(parts.items()):
        shares = [
            fmean(line[name] for line in of(lines, kind="run", task=task, arm=arm)) / fmean(line[name] for line in full)
            for arm in names
        ]
        colour = ("#0b6e6e", "#757c85", "#d9a441")[offset]
        axes.barh([place + 0.27 * (offset - 1) for place in range(len(names))], shares, 0.25, label=title, color=colour)
    axes.axvline(1, color="#1b2427", linewidth=0.8)
    axes.axvline(0.1, color="#b0241c", linewidth=0.8, linestyle="--")
    axes.set_yticks(range(len(names)), [of(lines, kind="run", task=task, arm=arm)[0]["title"] for arm in names])
    axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=len(parts))
    finish(axes, f"{task}: share of full's (dashed: 90 % less)")


def finish(axes: Axes, title: str) -> None:
    axes.margins(y=0.08)
    axes.invert_yaxis()
    axes.set_title(title, fontsize=10, loc="left")
    axes.tick_params(labelsize=9)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def draw(lines: Lines, folder: Path) -> None:
    tasks = [task for task in FIGURES if arms(lines, task)]
    plots = {
        "lora-quality": lambda axes, task: dots(axes, lines, task, FIGURES[task][0]),
        "lora-cost": lambda axes, task: costs(axes, lines, task),
    }
    with matplotlib.rc_context({"svg.hashsalt": "medmind", "svg.fonttype": "none"}):
        for name, plot in plots.items():
            figure = Figure(figsize=(9.6, 3.4), layout="constrained")
            for axes, task in zip(figure.subplots(1, len(tasks), squeeze=False)[0], tasks, strict=True):
                plot(axes, task)
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None})


def write_page(lines: Lines, docs: Path = DOCS) -> None:
    """Exchanges what stands between the markers of docs/results.md; the words around them are a person's."""
    adjusted = decide(lines)
    parts = {"rates": rate_table(lines), "predicted": predicted_table()}
    for task in FIGURES:
        if arms(lines, task):
            parts[f"{task} cost"] = cost_table(lines, task)
            tables = [quality_table(lines, task, figure, adjusted) for figure in FIGURES[task]]
            parts[f"{task} quality"] = "\n\n".join(tables)
    page = docs / "results.md"
    text = page.read_text(encoding="utf-8")
    for name, body in parts.items():
        between = re.compile(rf"(<!-- {name}: [^\n]*-->\n).*?(<!-- end -->)", re.DOTALL)
        text, count = between.subn(lambda found, body=body: f"{found[1]}\n{body}\n\n{found[2]}", text)
        assert count == 1, f"{page} has {count} places for {name}"
    page.write_text(text, encoding="utf-8")
    draw(lines, docs)
