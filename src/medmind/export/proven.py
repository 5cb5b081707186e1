"""Whether a run's GGUF is what the run trained last, as far as the run's own records tell: nothing is hashed again."""

from pathlib import Path
from typing import Any

from medmind.core.jsonl import read_json
from medmind.core.rundir import RunDir


def doubt(rundir: RunDir, gguf: Path) -> str:
    """What speaks against serving it, in words; nothing where export has finished and no training followed."""
    if rundir.parity.is_file() and read_json(rundir.parity).get("passed") is not True:
        return f"{rundir.parity.name} says that it does not answer as the model does"
    stages: dict[str, Any] = rundir.read_manifest().get("stages", {})
    if gguf.name not in {Path(name).name for name in stages.get("export", {}).get("files", {})}:
        return "the export stage has not finished with it"
    made_from: dict[str, str] = read_json(rundir.merged_from)["trained"] if rundir.merged_from.is_file() else {}
    trained = {Path(name).name: digest for name, digest in stages.get("train", {}).get("files", {}).items()}
    if any(trained.get(Path(name).name) != digest for name, digest in made_from.items()):
        return "the run was trained again since it was made"
    return ""
