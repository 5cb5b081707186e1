"""`medmind export parity A B`: a checkpoint folder or a GGUF against a GGUF, another checkpoint or a running server."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medmind.core.errors import UsageError
from medmind.core.jsonl import read_json
from medmind.core.log import progress_bar, say
from medmind.core.types import Example, Message
from medmind.export.config import ExportConfig
from medmind.export.header import read_tensors
from medmind.export.kinds import KINDS
from medmind.export.merge import CONFIG, spell_twice
from medmind.export.parity import greedy
from medmind.export.parity.diagnose import Adapter, Cause, Finding, find_faults
from medmind.export.parity.endpoint import Endpoint, Said
from medmind.export.parity.gate import FileParity, Proof, judge
from medmind.export.parity.other_file import find_differences, renderer_of
from medmind.export.parity.prove import Engine, Prover, choose_questions, open_reference
from medmind.export.parity.tokens import (
    STRINGS,
    Anchor,
    TokenParity,
    anchor_in,
    anchor_of,
    check_tokens,
    odd_strings,
    spell,
)
from medmind.infer.llamacpp import LlamaCppGenerator
from medmind.models.catalog import describe_folder
from medmind.models.load import load_tokenizer
from medmind.models.tokenizer import open_tokenizer
from medmind.prompts.chat import Renderer
from medmind.prompts.families import open_renderer

LITTLE = 64
"""Context of a file that is opened for its vocabulary."""
ENDPOINT_KIND = "f16"
"""Bounds of a server that does not say what it serves."""


@dataclass(frozen=True)
class Pair:
    reference: Path
    candidate: str


def order(one: str, other: str) -> Pair:
    """The checkpoint folder is the reference, else the GGUF; of two of a kind, the first."""
    for name in (one, other):
        if not is_server(name) and not (Path(name) / CONFIG).is_file() and not Path(name).is_file():
            raise UsageError("neither a checkpoint folder nor a GGUF file", where=name, todo="check the path")
    for is_one in (Path.is_dir, Path.is_file):
        for name, partner in ((one, other), (other, one)):
            if not is_server(name) and is_one(Path(name)):
                return Pair(Path(name), partner)
    raise UsageError(
        "two servers cannot be compared",
        where=f"{one}, {other}",
        todo="compare each with the checkpoint it was made from, export/merged of its run",
    )


def is_server(name: str) -> bool:
    return name.startswith(("http://", "https://"))


@dataclass(frozen=True)
class Reference:
    """The side that is right, opened as far as its token ids: `open` loads what answers, given the longest text."""

    renderer: Renderer
    anchor: Anchor
    context: int
    open: Callable[[int], Engine]
    faults: Callable[[Path, Mapping[str, str]], Sequence[Finding]]
    """Of a GGUF, by its path and the keys of its head."""


def from_checkpoint(folder: Path, adapter: Adapter | None) -> Reference:
    spec = describe_folder(folder)
    renderer = open_renderer(spec.renderer, open_tokenizer(spec))
    return Reference(
        renderer,
        anchor_in(folder),
        spec.context,
        lambda _: open_reference(spec, folder, renderer),
        lambda file, metadata: find_faults(folder, file, metadata, adapter),
    )


def from_file(path: Path) -> Reference:
    read_tensors(path)
    engine = LlamaCppGenerator(path, (), LITTLE)
    renderer = renderer_of(engine, path)
    context = int(engine.metadata["llama.context_length"])
    return Reference(
        renderer,
        anchor_of(engine),
        context,
        lambda longest: LlamaCppGenerator(path, renderer.stop_ids, min(context, longest)),
        lambda other, metadata: list(find_differences(path, other, engine.metadata, metadata)),
    )


def compare_pair(
    pair: Pair,
    examples: Sequence[Example],
    system_prompt: str,
    config: ExportConfig,
    kind: str | None,
    seed: int,
    adapter: Adapter | None = None,
) -> Proof:
    """`kind` names whose bounds hold, by default those of the coarser side; `adapter` is what the checkpoint holds."""
    one = from_checkpoint(pair.reference, adapter) if pair.reference.is_dir() else from_file(pair.reference)
    if Path(pair.candidate).is_file():
        read_tensors(Path(pair.candidate))
    questions = choose_questions(config, examples, {}, one.renderer, system_prompt, one.context, seed)
    prover = Prover(one.open(questions.longest(config.max_new_tokens)), one.renderer, questions, config.max_new_tokens)
    if is_server(pair.candidate):
        tokens, found = against_endpoint(prover, Endpoint(pair.candidate), config, kind or ENDPOINT_KIND, seed)
    elif Path(pair.candidate).is_dir():
        tokens, found = against_checkpoint(prover, pair, config, kind or "f32")
    else:
        tokens, found = against_file(prover, one, Path(pair.candidate), config, kind, seed)
    say(f"parity: {tokens}")
    say(f"{pair.candidate}: {found}")
    return Proof({"f32": found}, tokens, questions.too_long)


def against_file(
    prover: Prover, one: Reference, other: Path, config: ExportConfig, kind: str | None, seed: int
) -> tuple[TokenParity, FileParity]:
    candidate = prover.open(other)
    kind = kind or coarser(prover.reference.dtype, candidate.dtype, str(other))
    strings = odd_strings(STRINGS, seed)
    tokens = check_tokens(prover.questions.conversations, one.renderer, one.anchor, candidate, None, strings)
    faults = one.faults(other, candidate.metadata)
    return tokens, prover.compare(candidate, kind, config.parity.of(kind), None, faults)


def coarser(one: str, other: str, where: str) -> str:
    """Of two kinds of GGUF; a checkpoint's dtype is none."""
    if other not in KINDS:
        todo = f"--as names one that is near: {', '.join(KINDS)}"
        raise UsageError("no bounds are known for this kind of GGUF", where=where, todo=todo)
    return max((kind for kind in (one, other) if kind in KINDS), key=list(KINDS).index)


def against_checkpoint(prover: Prover, pair: Pair, config: ExportConfig, kind: str) -> tuple[TokenParity, FileParity]:
    other = Path(pair.candidate)
    spec = describe_folder(other)
    one, two = (spell_twice(read_json(folder / CONFIG)) for folder in (pair.reference, other))
    candidate = open_reference(spec, other, prover.renderer)
    tokenizer = load_tokenizer(other)
    wrong = []
    for name, messages in prover.questions.conversations.items():
        ids = tokenizer.apply_chat_template(spell(messages), add_generation_prompt=True, return_dict=False)
        wrong += [name] if ids != list(prover.renderer.prompt(messages)) else []
    findings = [Finding(cause=Cause.TEMPLATE, detail=f"{len(wrong)} prompts get other ids")] if wrong else []
    n = len(prover.questions.conversations)
    tokens = TokenParity(
        n=n, equal=n - len(wrong), look_alike=0, wrong=len(wrong), wrong_ids=tuple(wrong), findings=tuple(findings)
    )
    faults = list(compare_configs(one, two))
    return tokens, prover.compare(candidate, kind, config.parity.of(kind), None, faults)


def compare_configs(one: Mapping[str, Any], two: Mapping[str, Any]) -> Iterator[Finding]:
    if one["rope_theta"] != two["rope_theta"]:
        yield Finding(cause=Cause.ROPE_BASE, detail=f"{two['rope_theta']:g}, the other says {one['rope_theta']:g}")
    if one["rope_parameters"] | {"rope_theta": 0} != two["rope_parameters"] | {"rope_theta": 0}:
        yield Finding(cause=Cause.ROPE_FREQS, detail="the rotary frequencies are scaled in another way")
    if one["vocab_size"] != two["vocab_size"]:
        yield Finding(cause=Cause.PADDED, detail=f"{two['vocab_size']} tokens, the other has {one['vocab_size']}")


def against_endpoint(
    prover: Prover, server: Endpoint, config: ExportConfig, kind: str, seed: int
) -> tuple[TokenParity, FileParity]:
    """Texts, read back into the ids that training would give them; no distributions, and ids only if offered."""
    say("a server gives text: its distributions are not compared, and its token ids only where it offers /tokenize")
    asked = prover.questions.prompts
    said: dict[str, Said] = {}
    with progress_bar("parity: the server's replies") as progress:
        for name in asked:
            said[name] = server.ask(prover.questions.conversations[name], prover.limit)
            progress(len(said), len(asked))
    expected = {
        name: reread(prover, name, Said(own.text, own.stopped, None))
        for name in asked
        for own in [prover.expected[f"/{name}"]]
    }
    got = {name: reread(prover, name, one) for name, one in said.items()}
    replies = greedy.compare(prover.reference, expected, server, got, asked)
    findings = tuple(read_signs(prover, said))
    tokens = compare_tokenize(prover, server, odd_strings(STRINGS, seed))
    return tokens, FileParity(replies, None, {}, findings, judge(config.parity.of(kind), replies, None, {}))


def reread(prover: Prover, name: str, said: Said) -> tuple[int, ...]:
    """A reply's text as ids after its prompt, the stop id among them if it ended by itself."""
    messages = prover.questions.conversations[name]
    reply = Message(role="assistant", text=said.text.strip())
    ids = prover.renderer.render([*messages, reply]).ids[len(prover.questions.prompts[name]) :]
    return ids if said.stopped else ids[:-1]


def read_signs(prover: Prover, said: Mapping[str, Said]) -> Iterator[Finding]:
    """What lengths and texts tell of a server that shows nothing else."""
    more = {
        name: one.prompt_tokens - len(prover.questions.prompts[name])
        for name, one in said.items()
        if one.prompt_tokens is not None
    }
    if more and set(more.values()) == {1}:
        yield Finding(cause=Cause.DOUBLE_BOS, detail="every prompt has one token more than in training")
    elif any(more.values()):
        count = sum(map(bool, more.values()))
        yield Finding(cause=Cause.TEMPLATE, detail=f"{count} prompts have another number of tokens than in training")
    own = prover.expected
    endless = [
        name
        for name, one in said.items()
        if any(stop in one.text for stop in prover.renderer.stops)
        or (not one.stopped and own[f"/{name}"].stopped and one.text.strip().startswith(own[f"/{name}"].text))
    ]
    if endless:
        yield Finding(cause=Cause.STOP, detail=f"{len(endless)} replies go on where the reference ends")


def compare_tokenize(prover: Prover, server: Endpoint, strings: Sequence[str]) -> TokenParity:
    n = len(prover.questions.conversations)
    empty = TokenParity(n=n, equal=0, look_alike=0, wrong=0, wrong_ids=(), not_checked=("the server's prompts",))
    if server.tokenize("fever") is None:
        return empty.model_copy(update={"not_checked": (*empty.not_checked, "the server's token ids (no /tokenize)")})
    encode = prover.renderer.tokenizer.encode
    odd = [text for text in strings if server.tokenize(text) != encode(text)]
    finding = Finding(cause=Cause.TOKENIZER, detail=f"/tokenize gives {len(odd)} strings other ids")
    return empty.model_copy(
        update={
            "strings": len(strings),
            "strings_equal": len(strings) - len(odd),
            "round_trips": len(strings) - len(odd),
            "findings": (finding,) if odd else (),
        }
    )
