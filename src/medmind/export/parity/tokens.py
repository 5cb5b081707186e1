"""Token ids: a conversation's, made by everything that will ever make them, and those of odd strings both ways."""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers.utils.chat_template_utils import render_jinja_template

from medmind.core.types import Message, Record
from medmind.export.parity.diagnose import Cause, Finding
from medmind.export.parity.go_template import GoTemplate, Modelfile, render_for_ollama
from medmind.infer.llamacpp import LlamaCppGenerator
from medmind.models.load import load_tokenizer
from medmind.prompts.chat import Renderer, join_same_role

STRINGS = 1000
SHOWN = 20
"""Names and strings kept as evidence."""
CHECKPOINT, GGUF, MODELFILE = "the checkpoint's template", "the GGUF's template", "the Modelfile's template"
OTHER_GGUF = "the other GGUF's template"
WORDS = [
    "amoxicillin-clavulanate",
    "Δ9-tetrahydrocannabinol",
    "O-(2-hydroxyethyl)",
    "5-FU",
    "t-PA",
    "levothyroxine",
    "0.05%",
    "1,000.5",
    "37.2°C",
    "µg/dL",
    "mmHg",
    "120/80",
    "HbA1c",
    "CO₂",
    "x²",
    "٣٤",
    "12345678",
    "don't",
    "I'LL",
    "naïve",
    "Sjögren",
    "Sjögren",
    "β-blocker",
    "“quoted”",
    "(q.i.d.)",
    "HER2+",
    "--",
    "…",
    "高血圧",
    "고혈압",
    "गर्भ",
    "ไข้สูง",
    "الصداع",
    "Ελλάδα",
    "грипп",
    "𝔘𝔫𝔦",
    "ﬁ",
    "🙂\u200d↔️🩺",
    "é",
    "é",
    "Å_",
    "http://a.b/c?d=e&f",
    "#1",
    "@x",
    "a|b",
    "[x]",
    "<y>",
]
BLANKS = (" ", " ", " ", "", "  ", "    ", "\n", "\n\n", "\t", "\r\n", "\u00a0", "\u2009", "\n  \n")


class TokenParity(Record):
    """A look-alike names a control token in its text: templates read it as control, we do not."""

    n: int
    equal: int
    look_alike: int
    wrong: int
    wrong_ids: tuple[str, ...]
    wrong_by: dict[str, int] = {}
    """Which template made other ids, and how often."""
    strings: int = 0
    strings_equal: int = 0
    round_trips: int = 0
    """Strings that both sides give back unchanged."""
    strings_wrong: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    not_checked: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return self.wrong == 0 and self.strings_equal == self.round_trips == self.strings and not self.findings

    def __str__(self) -> str:
        told = f"{self.equal} of {self.n - self.look_alike} prompts with equal token ids"
        return f"{told}, {self.strings_equal} of {self.strings} strings" if self.strings else told


Maker = Callable[[Sequence[Message]], list[int]]


@dataclass(frozen=True)
class Anchor:
    """What token ids are held against: the tokenizer and template of a checkpoint, or those of another GGUF."""

    name: str
    control: Sequence[str]
    prompt: Maker
    encode: Callable[[str], list[int]]
    decode: Callable[[list[int]], str]


def anchor_in(merged: Path) -> Anchor:
    """transformers with the checkpoint's tokenizer and template."""
    tokenizer: Any = load_tokenizer(merged)

    def prompt(messages: Sequence[Message]) -> list[int]:
        ids: list[int] = tokenizer.apply_chat_template(spell(messages), add_generation_prompt=True, return_dict=False)
        return ids

    control = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    return Anchor(
        CHECKPOINT, control, prompt, lambda text: tokenizer.encode(text, add_special_tokens=False), tokenizer.decode
    )


def anchor_of(engine: LlamaCppGenerator) -> Anchor:
    """llama.cpp with a GGUF's own."""
    return Anchor(OTHER_GGUF, list(engine.control), lambda talk: prompt_of(engine, talk), engine.encode, engine.decode)


def check_tokens(
    conversations: Mapping[str, Sequence[Message]],
    renderer: Renderer,
    anchor: Anchor,
    candidate: LlamaCppGenerator,
    modelfile: Modelfile | None = None,
    strings: Sequence[str] = (),
) -> TokenParity:
    """Prompt ids of the renderer, of the anchor, of llama.cpp with the GGUF's template and the Modelfile's; the
    strings' ids of the anchor and of llama.cpp.
    """
    makers = makers_of(anchor, candidate, modelfile)
    bos = candidate.bos_id
    wrong: dict[str, list[str]] = {}
    doubled, look_alike, beyond = Counter[str](), 0, 0
    for name, messages in conversations.items():
        if any(text in message.text for message in messages for text in anchor.control):
            look_alike += 1
            continue
        ours = list(renderer.prompt(messages))
        for maker, make in makers.items():
            theirs = make(messages)
            if theirs != ours and maker == MODELFILE and is_beyond_go(messages, make, renderer):
                beyond += 1
            elif theirs != ours:
                wrong.setdefault(name, []).append(maker)
                doubled[maker] += theirs[:2] == [bos, bos]
    by = Counter(maker for makers in wrong.values() for maker in makers)
    clean = [text for text in strings if not any(mark in text for mark in anchor.control)]
    odd, trips = compare_strings(clean, anchor, candidate)
    findings = [*name_causes(by, doubled), *check_stops(renderer, candidate, modelfile)]
    if odd:
        findings.append(Finding(cause=Cause.TOKENIZER, detail=f"other ids for {len(odd)} strings, {odd[0]!r} first"))
    return TokenParity(
        n=len(conversations),
        equal=len(conversations) - look_alike - len(wrong),
        look_alike=look_alike,
        wrong=len(wrong),
        wrong_ids=tuple(wrong),
        wrong_by=dict(by),
        strings=len(clean),
        strings_equal=len(clean) - len(odd),
        round_trips=trips,
        strings_wrong=tuple(odd[:SHOWN]),
        findings=tuple(findings),
        not_checked=unchecked(modelfile, beyond),
    )


def is_beyond_go(messages: Sequence[Message], make: Maker, renderer: Renderer) -> bool:
    """Whether a conversation differs only by what a Go template cannot do: without that the ids are the same."""
    texts = [message.model_copy(update={"text": message.text.strip()}) for message in messages]
    turns = join_same_role([message for message in texts if message.text and message.role != "system"])
    plain = [*(message for message in texts if message.text and message.role == "system"), *turns]
    if plain == list(messages) or not turns or {turns[0].role, turns[-1].role} != {"user"}:
        return False
    return make(plain) == list(renderer.prompt(plain))


def unchecked(modelfile: Modelfile | None, beyond: int) -> tuple[str, ...]:
    if modelfile is None:
        return (MODELFILE,)
    what = "blanks at the ends of a text, an empty text, or a system text between two turns of one role"
    return (f"{MODELFILE} on {beyond} prompts with what no Go template can mend: {what}",) if beyond else ()


def makers_of(anchor: Anchor, candidate: LlamaCppGenerator, modelfile: Modelfile | None) -> dict[str, Maker]:
    makers: dict[str, Maker] = {anchor.name: anchor.prompt, GGUF: lambda messages: prompt_of(candidate, messages)}
    if modelfile:
        template = GoTemplate(modelfile.template)
        makers[MODELFILE] = lambda messages: candidate.encode_template(render_for_ollama(template, messages))
    return makers


def prompt_of(candidate: LlamaCppGenerator, messages: Sequence[Message]) -> list[int]:
    """As llama.cpp's server: of a BOS that the template says and the tokenizer adds, one is left."""
    rendered: Any = render_jinja_template(
        [spell(messages)],
        chat_template=candidate.chat_template,
        add_generation_prompt=True,
        bos_token=candidate.bos,
        eos_token=candidate.eos,
    )
    text: str = rendered[0][0]
    return candidate.encode_template(text.removeprefix(candidate.bos) if candidate.adds_bos else text)


def spell(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.text} for message in messages]


def name_causes(by: Mapping[str, int], doubled: Mapping[str, int]) -> Iterator[Finding]:
    for maker, count in by.items():
        if doubled.get(maker):
            detail = f"with {maker}, {doubled[maker]} prompts begin with BOS twice"
            yield Finding(cause=Cause.DOUBLE_BOS, detail=detail)
        else:
            yield Finding(cause=Cause.TEMPLATE, detail=f"{maker} gives {count} prompts other token ids than training")


def check_stops(renderer: Renderer, candidate: LlamaCppGenerator, modelfile: Modelfile | None) -> Iterator[Finding]:
    """What ends a reply in training ends it everywhere."""
    if candidate.eos_id != renderer.stop_ids[0]:
        detail = f"the file's end of text is {candidate.eos!r}, a reply was taught to end with {renderer.eos!r}"
        yield Finding(cause=Cause.STOP, detail=detail)
    running = [text for text, token in zip(renderer.stops, renderer.stop_ids, strict=True) if not candidate.ends(token)]
    if running:
        yield Finding(cause=Cause.STOP, detail=f"llama.cpp does not stop at {', '.join(running)}")
    missing = [text for text in renderer.stops if modelfile and text not in modelfile.stops]
    if missing:
        yield Finding(cause=Cause.STOP, detail=f"the Modelfile has no PARAMETER stop for {', '.join(missing)}")


def compare_strings(strings: Sequence[str], anchor: Anchor, candidate: LlamaCppGenerator) -> tuple[list[str], int]:
    """Strings with other ids, and how many both sides give back as they were."""
    odd, trips = [], 0
    for text in strings:
        theirs = anchor.encode(text)
        if theirs != (found := candidate.encode(text)):
            odd.append(text)
        trips += anchor.decode(theirs) == candidate.decode(found) == text
    return odd, trips


def odd_strings(count: int, seed: int) -> list[str]:
    """Words of medicine, digits, scripts and blanks in any order, now and then any characters of Unicode."""
    draw = random.Random(seed)
    found = []
    for _ in range(count):
        if draw.random() < 0.15:
            codes = (draw.choice((draw.randrange(0x20, 0xD800), draw.randrange(0xE000, 0x110000))) for _ in range(8))
            found.append("".join(map(chr, codes)))
        else:
            found.append("".join(draw.choice(WORDS) + draw.choice(BLANKS) for _ in range(draw.randint(1, 8))))
    return found
