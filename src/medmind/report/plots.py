"""The report's plots as inline SVG: same input, same bytes; colours are the page's CSS variables, text is real text."""

import io
import re
import warnings
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

COLOURS = {
    "ink": "#010203",
    "muted": "#020304",
    "line": "#030405",
    "base": "#040506",
    "tuned": "#050607",
    "paper": "#060708",
}
"""Stand-ins that no plot would choose, exchanged for var(--name) once the SVG is drawn."""
WIDTH = 8.6
"""Inches; the page scales the drawing to its column."""
LONGEST = 40


def loss_curve(steps: Sequence[dict[str, Any]], held_out: Sequence[dict[str, Any]]) -> str:
    """Training loss of every logged step, held-out loss where it was measured (nats per supervised token)."""
    figure, axes = blank(3.2)
    if steps:
        x, y = [line["step"] for line in steps], [line["loss"] for line in steps]
        few = "." if len(x) < 3 else ""
        axes.plot(x, y, color=COLOURS["base"], linewidth=1.1, marker=few, label="training, each step", zorder=2)
    if held_out:
        x, y = [line["step"] for line in held_out], [line["eval_loss"] for line in held_out]
        axes.plot(x, y, color=COLOURS["tuned"], linewidth=1.8, marker="o", markersize=5, label="held out", zorder=3)
    axes.set_xlabel("step")
    axes.set_ylabel("loss, nats per token")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color=COLOURS["line"], linewidth=0.8)
    if steps or held_out:
        axes.legend(frameon=False, labelcolor=COLOURS["ink"], loc="upper right")
    return drawn(figure, "loss")


def intervals(rows: Sequence[tuple[str, dict[str, Any], dict[str, Any]]], name: str, fractions: bool = True) -> str:
    """One line a label: base above (hollow), tuned below (filled), each with its 95 % interval.

    Fractions are drawn from 0 to 100 %, anything else over the range it has.
    """
    figure, axes = blank(0.55 + 0.48 * len(rows))
    for place, (_, base, tuned) in enumerate(rows):
        for metric, colour, y, face in ((base, "base", place - 0.12, "paper"), (tuned, "tuned", place + 0.12, "tuned")):
            if metric:
                axes.plot([metric["low"], metric["high"]], [y, y], color=COLOURS[colour], linewidth=2.2, zorder=2)
                dot: dict[str, Any] = {"markersize": 7, "markerfacecolor": COLOURS[face], "markeredgewidth": 1.8}
                axes.plot([metric["value"]], [y], "o", color=COLOURS[colour], clip_on=False, zorder=3, **dot)
    if fractions:
        axes.set_xlim(-0.02, 1.02)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_ylim(len(rows) - 0.45, -0.55)
    axes.set_yticks(range(len(rows)), [shorten(label) for label, _, _ in rows], parse_math=False)
    axes.tick_params(axis="y", length=0, labelcolor=COLOURS["ink"])
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=COLOURS["line"], linewidth=0.8)
    return drawn(figure, name)


def shorten(label: str) -> str:
    """A name the margin can hold; the table beside the plot has it whole."""
    return label if len(label) <= LONGEST else f"{label[: LONGEST - 1]}…"


def blank(height: float) -> tuple[Figure, Axes]:
    with matplotlib.rc_context({"font.size": 10}):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        axes = figure.add_subplot()
    axes.set_facecolor("none")
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(COLOURS["line"])
    axes.tick_params(colors=COLOURS["muted"], labelsize=10)
    axes.xaxis.label.set_color(COLOURS["muted"])
    axes.yaxis.label.set_color(COLOURS["muted"])
    return figure, axes


def drawn(figure: Figure, name: str) -> str:
    """The bare <svg> element: no date, no metadata, no outside address, ids unique to this plot."""
    buffer = io.StringIO()
    settings: Any = {"svg.hashsalt": f"medmind {name}", "svg.fonttype": "none"}
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the reader's fonts draw the text, not ours
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    box = re.search(r'viewBox="[^"]*"', svg)
    body = svg[svg.index("</defs>") + len("</defs>") :]
    body = re.sub(r"<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r'<g id="[^"]*"', "<g", body)
    body = re.sub(r"(font-size: \d+px); font-family: [^;]*;", r"\1;", body)
    for variable, colour in COLOURS.items():
        body = body.replace(colour, f"var(--{variable})")
    return f"<svg {box.group(0) if box else ''}>{body.strip()}"
