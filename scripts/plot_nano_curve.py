"""Draws the curve of nano's pre-training: held-out bits per byte against tokens; run after `medmind train nano`.

.venv/bin/python scripts/plot_nano_curve.py runs/nano/train/metrics.jsonl docs/nano-curve.svg
"""

import sys
from itertools import accumulate
from pathlib import Path

import matplotlib

from medmind.core.jsonl import read_jsonl

matplotlib.use("svg")
from matplotlib import pyplot as plt

NAMES = {"medquad": "MedQuAD, topics never trained on", "pmc_ccby_trials": "trial reports never trained on"}


def main(metrics: str, out: str) -> None:
    lines = list(read_jsonl(Path(metrics)))
    steps = [line for line in lines if "loss" in line]
    tokens = dict(
        zip([0] + [line["step"] for line in steps], accumulate([0] + [s["tokens"] for s in steps]), strict=True)
    )
    held_out = [line for line in lines if "bits_per_byte" in line]
    plt.rcParams["svg.hashsalt"] = "medmind"
    figure, axes = plt.subplots(figsize=(7, 4))
    for source, name in NAMES.items():
        points = [(tokens[line["step"]] / 1e6, line["bits_per_byte"][source]) for line in held_out]
        axes.plot(*zip(*points, strict=True), marker="o", label=name)
        print(name, [(round(million, 2), round(bits, 3)) for million, bits in points])
    axes.set(xlabel="million tokens", ylabel="bits per byte", ylim=(0, None))
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(out, metadata={"Date": None})


if __name__ == "__main__":
    main(*sys.argv[1:])
