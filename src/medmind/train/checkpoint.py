"""Checkpoints that count only when they are whole: a seal with every file's hash is written last."""

import shutil
from pathlib import Path

from medmind.core.errors import DataError
from medmind.core.jsonl import read_json, write_json
from medmind.core.rundir import sha256_file

SEAL = "complete.json"


def seal(folder: Path) -> None:
    """Marks a checkpoint as whole. The Trainer's pickled arguments are not kept."""
    (folder / "training_args.bin").unlink(missing_ok=True)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SEAL)
    write_json(folder / SEAL, {str(path.relative_to(folder)): sha256_file(path) for path in files})


def is_whole(folder: Path) -> bool:
    try:
        digests = read_json(folder / SEAL)
    except DataError:
        return False
    return all((folder / name).is_file() and sha256_file(folder / name) == digest for name, digest in digests.items())


def by_step(checkpoints: Path) -> list[Path]:
    """Oldest first."""
    return sorted(checkpoints.glob("checkpoint-*"), key=lambda folder: int(folder.name.rpartition("-")[2]))


def newest_whole(checkpoints: Path) -> Path | None:
    """The checkpoint to resume from; half-written ones are removed, they hold nothing that can be trusted."""
    for folder in reversed(by_step(checkpoints)):
        if is_whole(folder):
            return folder
        shutil.rmtree(folder)
    return None


def prune(checkpoints: Path, keep: int) -> None:
    for folder in by_step(checkpoints)[:-keep]:
        shutil.rmtree(folder)
