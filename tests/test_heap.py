"""Memory that is freed goes back, although small blocks that stay lie between the large; or it is kept for a while."""

import subprocess
import sys

import pytest

OWN = """
import re, sys
from pathlib import Path
from threading import Thread
import numpy
from medmind.core.heap import keep_blocks, return_large_blocks, share_heap

def own():
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text()).group(1)) / 1e3
"""
HOLES = """
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
KEPT = """
def work():
    numpy.ones(100 * 2**20, numpy.uint8)

if sys.argv[1] == "kept":
    share_heap()
before = own()
with keep_blocks():
    for _ in range(2):
        thread = Thread(target=work)
        thread.start()
        thread.join()
        print(own() - before)
print(own() - before)
"""


def tell(work: str, way: str) -> list[float]:
    """What a process that does the work says it holds, in MB."""
    command = [sys.executable, "-c", OWN + work, way]
    return [float(word) for word in subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()]


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux what the process holds")
@pytest.mark.parametrize(("way", "least", "most"), [("returned", 0, 30), ("kept", 100, 300)])
def test_large_blocks_go_back(way: str, least: float, most: float) -> None:
    (held,) = tell(HOLES, way)
    assert least <= held <= most


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux what the process holds")
def test_what_a_thread_frees_is_kept_for_the_next_and_goes_back_at_the_end() -> None:
    first, second, after = tell(KEPT, "kept")
    assert 100 <= first <= 120 and second - first < 5 and after < 15
    assert max(tell(KEPT, "a heap for each thread")) < 15, "what is as large is the system's own there"
