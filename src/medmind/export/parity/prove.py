"""Every GGUF of a run against transformers in float32: token ids, distributions, replies, scores, header, numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from medmind.core.jsonl import read_jsonl
from medmind.core.log import progress_bar, say
from medmind.core.protocols import Generator
from medmind.core.rundir import RunDir
from medmind.core.sampling import sample
from medmind.core.types import Completion, Example, Message
from medmind.export.config import Bounds, ExportConfig
from medmind.export.lora import read_plain
from medmind.export.parity import greedy
from medmind.export.parity.diagnose import Adapter, Finding, check_adapter, find_faults, read_checkpoint
from medmind.export.parity.gate import FileParity, Proof, judge
from medmind.export.parity.go_template import read_modelfile
from medmind.export.parity.logits import Reader, Row, compare_logits, teach
from medmind.export.parity.scores import ScoreParity, Scoring, compare_scores
from medmind.export.parity.tokens import STRINGS, anchor_in, check_tokens, odd_strings
from medmind.infer.hf import HfGenerator
from medmind.infer.llamacpp import LlamaCppGenerator
from medmind.models import adapters
from medmind.models.load import load_tuned
from medmind.models.spec import ModelSpec
from medmind.models.stored import open_tensors
from medmind.models.weights import find_weights
from medmind.prompts.chat import Renderer
from medmind.prompts.tasks.known import TASKS

Prompts = dict[str, tuple[int, ...]]


class Engine(Generator, Reader, Protocol):
    """One that writes and whose logits can be read."""


@dataclass(frozen=True)
class Questions:
    """What every file is asked: all conversations for their token ids, samples for the rest."""

    conversations: Mapping[str, Sequence[Message]]
    prompts: Prompts
    rows: Mapping[str, Row]
    suites: Mapping[str, Sequence[Example]]
    items: Mapping[str, Prompts]
    """Of each suite, by the items' ids."""
    too_long: int

    def longest(self, reply: int) -> int:
        """Tokens of the longest prompt with its reply, or of the longest row: no larger cache is needed."""
        prompts = (len(ids) + reply for ids in self.every_prompt.values())
        return max([1, *prompts, *(len(row.ids) for row in self.rows.values())])

    @property
    def every_prompt(self) -> dict[str, tuple[int, ...]]:
        items = {f"{suite}/{name}": ids for suite, asked in self.items.items() for name, ids in asked.items()}
        return {**items, **{f"/{name}": ids for name, ids in self.prompts.items()}}


def choose_questions(
    config: ExportConfig,
    tests: Sequence[Example],
    suites: Mapping[str, Sequence[Example]],
    renderer: Renderer,
    system_prompt: str,
    context: int,
    seed: int,
) -> Questions:
    """Prompts without room for a reply and rows beyond the context are left out and counted."""

    def draw(examples: Sequence[Example], size: int | None) -> list[Example]:
        return [examples[place] for place in sample(len(examples), size, seed)]

    def ask(examples: Sequence[Example]) -> Prompts:
        return {one.id: renderer.prompt(messages_of(one, system_prompt)) for one in examples}

    def fitting(prompts: Prompts) -> Prompts:
        return {name: ids for name, ids in prompts.items() if len(ids) < context}

    asked = ask(draw(tests, config.parity_prompts))
    rows = teach(renderer, draw(tests, config.parity_rows), system_prompt)
    items = {name: fitting(ask(draw(examples, config.parity_items))) for name, examples in suites.items()}
    return Questions(
        conversations={one.id: messages_of(one, system_prompt) for one in tests},
        prompts=fitting(asked),
        rows={name: row for name, row in rows.items() if len(row.ids) <= context},
        suites={suite: [one for one in suites[suite] if one.id in asked] for suite, asked in items.items() if asked},
        items=items,
        too_long=len(asked) - len(fitting(asked)),
    )


def messages_of(example: Example, system_prompt: str) -> list[Message]:
    return TASKS.get(example.task).messages(example, system_prompt)


def read_suites(rundir: RunDir) -> dict[str, list[Example]]:
    """Those whose replies are read: planted patients and plain passages have none."""
    found = {name: [Example(**line) for line in read_jsonl(rundir.suite(name))] for name in rundir.suites()}
    return {name: rows for name, rows in found.items() if rows and rows[0].task not in ("canary", "text")}


class Prover:
    """The reference, asked once; then one file after the other."""

    def __init__(self, reference: Engine, renderer: Renderer, questions: Questions, max_new_tokens: int) -> None:
        self.reference, self.renderer, self.questions, self.limit = reference, renderer, questions, max_new_tokens
        with progress_bar(f"parity: {reference.name} {reference.dtype}") as progress:
            self.expected = greedy.answer(reference, questions.every_prompt, max_new_tokens, progress)

    def open(self, file: Path) -> LlamaCppGenerator:
        context = min(self.reference.context, self.questions.longest(self.limit))
        return LlamaCppGenerator(file, self.renderer.stop_ids, context)

    def compare(
        self,
        candidate: Engine,
        kind: str,
        bounds: Bounds,
        scoring: Scoring | None = None,
        findings: Sequence[Finding] = (),
    ) -> FileParity:
        with progress_bar(f"parity: {kind}, replies") as progress:
            got = greedy.answer(candidate, self.questions.every_prompt, self.limit, progress)
        expected, found = (
            {name: greedy.whole(replies[f"/{name}"]) for name in self.questions.prompts}
            for replies in (self.expected, got)
        )
        replies = greedy.compare(self.reference, expected, candidate, found, self.questions.prompts)
        with progress_bar(f"parity: {kind}, distributions") as progress:
            logits = compare_logits(self.reference, candidate, self.questions.rows, progress)
        scores = self.score(scoring, got) if scoring else {}
        return FileParity(replies, logits, scores, tuple(findings), judge(bounds, replies, logits, scores))

    def score(self, scoring: Scoring, got: Mapping[str, Completion]) -> dict[str, ScoreParity]:
        found = {}
        for suite, examples in self.questions.suites.items():
            asked = self.questions.items[suite]
            one, other = ({name: all_[f"{suite}/{name}"] for name in asked} for all_ in (self.expected, got))
            found[suite] = compare_scores(scoring, examples, one, other)
        return found


def prove(
    config: ExportConfig,
    rundir: RunDir,
    spec: ModelSpec,
    trained: Path,
    full: Path,
    renderer: Renderer,
    tests: Sequence[Example],
    system_prompt: str,
    scoring: Scoring | None,
    seed: int,
) -> Proof:
    """`full` is the float32 GGUF, proved first; the token ids are those of that file, all files share its header."""
    questions = choose_questions(
        config, tests, read_suites(rundir) if scoring else {}, renderer, system_prompt, spec.context, seed
    )
    adapter = read_adapter(spec, trained)
    reference = open_reference(spec, rundir.merged, renderer)
    prover = Prover(reference, renderer, questions, config.max_new_tokens)
    files = {}
    for kind in ("f32", *(kind for kind in config.gguf if kind != "f32")):
        file = full if kind == "f32" else rundir.gguf(kind)
        candidate = prover.open(file)
        if kind == "f32":
            modelfile = read_modelfile(rundir.modelfile.read_text(encoding="utf-8"))
            strings = odd_strings(STRINGS, seed)
            anchor = anchor_in(rundir.merged)
            tokens = check_tokens(questions.conversations, renderer, anchor, candidate, modelfile, strings)
            say(f"parity: {tokens}")
        faults = find_faults(rundir.merged, file, candidate.metadata, adapter)
        files[kind] = found = prover.compare(candidate, kind, config.parity.of(kind), scoring, faults)
        say(f"{kind}: {found}")
    return Proof(files, tokens, questions.too_long, check_merged(adapter, rundir.merged))


def open_reference(spec: ModelSpec, merged: Path, renderer: Renderer) -> HfGenerator:
    return HfGenerator(load_tuned(spec, merged, torch.float32), renderer.stop_ids, renderer.read)


def read_adapter(spec: ModelSpec, trained: Path) -> Adapter | None:
    """None where nothing can be subtracted: a whole model was trained, or an adapter that does more than add."""
    if not (trained / adapters.CONFIG).is_file() or spec.trust_remote_code:
        return None
    plain = read_plain(spec, trained)
    return Adapter(plain, open_tensors(find_weights(spec))) if plain else None


def check_merged(adapter: Adapter | None, merged: Path) -> tuple[Finding, ...]:
    return tuple(check_adapter(adapter, read_checkpoint(merged), "the merged checkpoint"))
