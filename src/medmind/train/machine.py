"""What the computation runs on; a resumed run keeps its threads and dtype, and so ends where it would have ended."""

from typing import Any

import torch

from medmind.core.log import say
from medmind.core.rundir import RunDir
from medmind.models.load import DTYPES, pick_dtype
from medmind.train import compiled
from medmind.train.config import TrainConfig


def settle(config: TrainConfig, rundir: RunDir, processes: int, resumed: bool) -> dict[str, Any]:
    """dtype, threads, processes and device for the manifest; the first two from there when the run is resumed."""
    here: dict[str, Any] = {
        "dtype": str(pick_dtype(config.dtype)).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "processes": processes,
        "device": device_name(),
    }
    if not resumed:
        return here
    begun = here | {name: value for name, value in rundir.read_manifest().items() if name in here}
    torch.set_num_threads(begun["threads"])
    for name in ("processes", "device"):
        if begun[name] != here[name]:
            say(
                f"begun with another {name} ({begun[name]}; now {here[name]}): the result will differ in last digits",
                style="yellow",
            )
    return here | {name: begun[name] for name in ("dtype", "threads")}


def device_name() -> str:
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    return f"cpu ({torch.backends.cpu.get_cpu_capability()}), torch {torch.__version__}, {compiled.who()}"


def dtype_of(machine: dict[str, Any]) -> torch.dtype:
    return DTYPES[machine["dtype"]]
