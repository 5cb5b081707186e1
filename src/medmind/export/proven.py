"""Whether a run's GGUF is what the run trained last, by the run's own records: no weights are hashed again."""

from pathlib import Path
from typing import Any

from medmind.core.jsonl import read_json
from medmind.core.rundir import RunDir, sha256_file


def doubt(rundir: RunDir, gguf: Path) -> str:
    """What speaks against serving it, in words; nothing where a finished export has proven it and stands unchanged."""
    manifest = rundir.read_manifest()
    stages: dict[str, Any] = manifest.get("stages", {})
    made = stages.get("export", {}).get("files", {})
    for record in (rundir.parity, rundir.merged_from):
        if not record.is_file() or sha256_file(record) != made.get(record.relative_to(rundir.root).as_posix()):
            return f"no finished export stands behind it: {record.name} is missing or not of it"
    parity, merged = as_object(read_json(rundir.parity)), as_object(read_json(rundir.merged_from))
    proven = [f"model-{kind}.gguf" for kind in (*as_object(parity.get("files")), parity.get("candidate_dtype"))]
    if parity.get("passed") is not True or gguf.name not in proven:
        return f"{rundir.parity.name} does not say that it answers as the model does"
    if begun_anew(manifest):
        return "the run was begun anew since it was made"
    files = stages.get("train", {}).get("files", {})
    trained = {name.split("/", 2)[-1]: digest for name, digest in files.items()}  # below train/adapter or train/model
    if any(trained.get(name) != digest for name, digest in as_object(merged.get("trained")).items()):
        return "the run was trained again since it was made"
    return ""


def as_object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def begun_anew(manifest: dict[str, Any]) -> bool:
    """Whether the data or the training that is here now is not, or not yet, what the manifest tells of."""
    stages, begun = manifest.get("stages", {}), manifest.get("begun", {})
    done = [stage for stage in ("data", "train") if stage in stages]
    return any(begun.get(stage, stages[stage]["key"]) != stages[stage]["key"] for stage in done)
