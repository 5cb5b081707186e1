"""Memory that is freed goes back, although small blocks that stay lie between the large ones."""

import subprocess
import sys

import pytest

WORK = """
import re, sys
from pathlib import Path
import numpy
from medmind.core.heap import return_large_blocks

def own():
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text()).group(1)) / 1e3

if sys.argv[1] == "returned":
    return_large_blocks()
numpy.ones(30 * 2**20, numpy.uint8)  # once freed, it teaches glibc to keep blocks of its size
before, kept = own(), []
for _ in range(40):
    large = numpy.ones(6 * 2**20, numpy.uint8)
    kept.append(numpy.ones(2**16, numpy.uint8))
    kept.append(large)
for place in range(1, len(kept), 2):
    kept[place] = None
print(own() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux what the process holds")
@pytest.mark.parametrize(("way", "least", "most"), [("returned", 0, 30), ("kept", 100, 300)])
def test_large_blocks_go_back(way: str, least: float, most: float) -> None:
    done = subprocess.run([sys.executable, "-c", WORK, way], capture_output=True, text=True, check=True)
    assert least <= float(done.stdout) <= most
