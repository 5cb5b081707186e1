"""Draws the curve of nano's pre-training: held-out bits per byte against tokens; run after `medmind train nano`.

.venv/bin/python scripts/plot_nano_curve.py docs/nano-curve.svg runs/nano/train/metrics.jsonl [later runs that went on]
"""

import sys
from pathlib import Path

import matplotlib

from medmind.core.jsonl import read_jsonl

matplotlib.use("svg")
from matplotlib import pyplot as plt

NAMES = {"medquad": "MedQuAD, topics never trained on", "pmc_ccby_trials": "trial reports never trained on"}


def read_curve(metrics: str, before: float) -> tuple[list[tuple[float, dict[str, float]]], float]:
    """(million tokens, bits per byte by source) of one run, and the tokens at its end; `before` were read earlier."""
    points, tokens, last = [], before, 0
    for line in read_jsonl(Path(metrics)):
        if "loss" in line:  # where not every step was logged, this one stands for those before it
            tokens += line["tokens"] * (line["step"] - last) / 1e6
            last = line["step"]
        if "bits_per_byte" in line:
            points.append((tokens, line["bits_per_byte"]))
    return points, tokens


def main(out: str, *runs: str) -> None:
    plt.rcParams["svg.hashsalt"] = "medmind"
    figure, axes = plt.subplots(figsize=(7, 4))
    tokens = 0.0
    for style, metrics in zip(("o-", "s-"), runs, strict=False):
        points, tokens = read_curve(metrics, tokens)
        for (source, name), colour in zip(NAMES.items(), ("C0", "C1"), strict=True):
            curve = [(million, bits[source]) for million, bits in points]
            label = name if metrics == runs[0] else None
            axes.plot(*zip(*curve, strict=True), style, color=colour, label=label)
            print(name, [(round(million, 2), round(bits, 3)) for million, bits in curve])
    axes.set(xlabel="million tokens", ylabel="bits per byte", ylim=(0, None))
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(out, metadata={"Date": None})


if __name__ == "__main__":
    main(*sys.argv[1:])
