"""The estimate of a recipe: what training it needs of this machine, before anything is loaded or written."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medmind.core.rundir import RunDir
from medmind.estimate import memory
from medmind.estimate.activations import Batch
from medmind.estimate.advise import as_settings, changed, disk_changes, first_that_fits, memory_changes
from medmind.estimate.counts import count
from medmind.estimate.disk import predict_disk, predict_download
from medmind.estimate.machine import disk, hub_cache, main_memory, same_disk
from medmind.estimate.times import Times, predict_times
from medmind.estimate.work import (
    Steps,
    Work,
    count_steps,
    held_at_once,
    lay_out,
    open_words,
    read_work,
    shape_of,
    within,
)
from medmind.models.catalog import find_model
from medmind.models.spec import ModelSpec
from medmind.prompts.chat import Renderer
from medmind.recipe.schema import Recipe
from medmind.train.lanes import count_lanes


@dataclass(frozen=True)
class Need:
    """Bytes by part, and how many are free; where they are not enough, what would be and how many it needs."""

    parts: dict[str, int]
    free: int
    advice: str = ""
    advised: int = 0

    @property
    def total(self) -> int:
        return sum(self.parts.values())

    @property
    def fits(self) -> bool:
        return self.total <= self.free

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"total": self.total, "fits": self.fits}


@dataclass(frozen=True)
class Estimate:
    """Seconds, bytes and tokens; `download` lies in the Hub's cache, `disk` in the run directory."""

    model: str
    method: str
    dtype: str
    device: str
    rows: int
    validation_rows: int
    tokens: int
    rows_from: str
    tokenizer: str
    largest_batch_tokens: int
    steps: Steps
    trainable: int
    parameters: int
    memory: Need
    disk: Need
    download: Need
    times: Times | None

    @property
    def fits(self) -> bool:
        return self.memory.fits and self.disk.fits and self.download.fits

    def as_json(self) -> dict[str, Any]:
        needs = {name: getattr(self, name).as_json() for name in ("memory", "disk", "download")}
        return asdict(self) | needs | {"fits": self.fits}


@dataclass(frozen=True)
class Subject:
    """What is estimated, and the rows it would train on."""

    recipe: Recipe
    spec: ModelSpec
    renderer: Renderer
    work: Work


def open_subject(recipe: Recipe, rundir: RunDir) -> Subject:
    spec = find_model(recipe.model)
    renderer, tokenizer = open_words(spec)
    return Subject(recipe, spec, renderer, read_work(recipe, rundir, renderer, tokenizer))


def estimate(subject: Subject, rundir: RunDir, timed: bool = True) -> Estimate:
    """Without `timed` nothing is computed on the device."""
    from medmind.models.device import find_device, resolve_dtype

    recipe, spec, work = subject.recipe, subject.spec, subject.work
    config, device = recipe.train, find_device()
    dtype, size = resolve_dtype(config.dtype)
    steps, counts = count_steps(work, config), count(spec, config)
    batches = [shape_of(rows, config) for rows in lay_out(work, config, recipe.seed)]
    room = main_memory().free if device.free is None else device.free
    written, fetched = predict_disk(recipe, spec, steps, work.tokens), predict_download(spec, config)
    return Estimate(
        model=spec.id,
        method=config.method,
        dtype=dtype,
        device=f"{device.kind} ({device.name})",
        rows=work.row_count,
        validation_rows=work.validation,
        tokens=work.tokens,
        rows_from=work.source,
        tokenizer=work.tokenizer,
        largest_batch_tokens=max(batch.tokens for batch in batches),
        steps=steps,
        trainable=counts.trainable,
        parameters=counts.total + counts.adapters,
        memory=memory_need(subject, held_batches(spec, work, recipe), size, room),
        disk=disk_need(subject, steps, written, rundir.root, fetched),
        download=Need({"base model": fetched} if fetched else {}, disk(hub_cache()).free),
        times=time_need(subject, batches, steps) if timed else None,
    )


def memory_need(subject: Subject, batches: Sequence[Batch], dtype_bytes: int, room: int) -> Need:
    recipe, spec = subject.recipe, subject.spec
    need = Need(largest(spec, recipe, batches, dtype_bytes), room)
    if need.fits:
        return need

    def needed(change: dict[str, Any]) -> int | None:
        new = changed(recipe, change)
        if new is None:
            return None
        work, model = within(subject.work, new.train.max_length), find_model(new.model)
        shapes = held_batches(model, work, new)
        if not shapes or max(len(row.ids) for row in work.rows) > model.context:
            return None
        return sum(largest(model, new, shapes, dtype_bytes).values())

    change, enough = first_that_fits(memory_changes(recipe, spec), needed, room)
    return Need(need.parts, room, as_settings(change), enough)


def held_batches(spec: ModelSpec, work: Work, recipe: Recipe) -> list[Batch]:
    width, config = spec.shape.hidden_size, recipe.train
    laid = lay_out(work, config, recipe.seed)
    return [shape_of(held_at_once(rows, config, width), config) for rows in laid]


def largest(spec: ModelSpec, recipe: Recipe, batches: Sequence[Batch], dtype_bytes: int) -> dict[str, int]:
    """Of the batch with most tokens, or with most pairs of tokens, whichever needs more."""
    most = {
        max(batches, key=lambda batch: batch.tokens),
        max(batches, key=lambda batch: sum(length**2 for length in batch.lengths)),
    }
    lanes = count_lanes(recipe.train)
    found = [memory.predict(spec, recipe.train, batch, dtype_bytes, lanes) for batch in most]
    return max(found, key=lambda parts: sum(parts.values()))


def disk_need(subject: Subject, steps: Steps, parts: dict[str, int], place: Path, download: int) -> Need:
    """What is fetched counts where the cache lies on the same disk."""
    recipe, spec = subject.recipe, subject.spec
    beside = {"base model, in the Hub's cache": download} if download and same_disk(place, hub_cache()) else {}
    need = Need(parts | beside, disk(place).free)
    if need.fits:
        return need

    def needed(change: dict[str, Any]) -> int | None:
        new = changed(recipe, change)
        return None if new is None else sum((predict_disk(new, spec, steps, subject.work.tokens) | beside).values())

    change, enough = first_that_fits(disk_changes(recipe), needed, need.free)
    return Need(need.parts, need.free, as_settings(change), enough)


def time_need(subject: Subject, batches: Sequence[Batch], steps: Steps) -> Times:
    from medmind.train.probe import probe

    recipe, work = subject.recipe, subject.work
    pace = probe(recipe.train, subject.spec, list(lay_out(work, recipe.train, recipe.seed)), recipe.seed)
    return predict_times(pace, batches, steps, recipe.train, work.validation)
