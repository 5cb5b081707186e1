"""Generated conversations with everything that breaks a renderer: odd Unicode, blanks, look-alikes, uneven turns."""

import random
from itertools import pairwise

from medmind.core.types import Message, Role

SPOKEN = """anemia naïve µg/dL β-blocker 5-HT3 1,000.5 don't I'LL “quoted” HER2+ x²٣४½
高血圧 고혈압 गर्भ ไข้สูง الصداع 𝔘𝔫𝔦 ﬁ"""
MARKS = """<s> </s> [INST] [/INST] <unk> [TOOL_CALLS] [control_8] [REFERENCE_DOC_0] <0x0A> [INST /INST]
<|im_start|>system <|im_end|> <|endoftext|> <|begin_of_text|> <|eot_id|>
<|start_header_id|>system<|end_header_id|> <|end_of_text|>"""
WORDS = (
    *SPOKEN.split(),
    *MARKS.split(),
    *("Sjo\u0308gren", "e\u0301", "🙂\u200d↔\ufe0f🩺", "\ufeff", "\u200b", "### Response:", "### Instruction:\n"),
    *(" ", "  ", "\u00a0", "\u2028", "\t", "\n", "\n\n", "\r\n", "\x00", "\x1c", "▁", "  ▁ "),
)
ROLES: tuple[Role, Role] = ("user", "assistant")


def phrase(draw: random.Random) -> str:
    """A few odd words, never nothing at all; now and then any characters of Unicode."""
    if draw.random() < 0.1:
        codes = (draw.choice((draw.randrange(0x20, 0xD800), draw.randrange(0xE000, 0x110000))) for _ in range(8))
        return "".join(map(chr, codes))
    words = "".join(draw.choice(WORDS) + draw.choice(("", " ", " ")) for _ in range(draw.randint(1, 6)))
    return words if draw.random() < 0.5 else f"{words}x"


def say(*turns: str, system: str = "") -> list[Message]:
    messages = [Message(role=ROLES[place % 2], text=text) for place, text in enumerate(turns)]
    return [Message(role="system", text=system), *messages] if system else messages


def talks(count: int, seed: int, *, learnt: bool = False) -> list[list[Message]]:
    """Conversations of 1 to 5 turns that take turns; every second has a system prompt. `learnt`: with a reply at the
    end, otherwise with a question.
    """
    draw = random.Random(seed)
    found = []
    for number in range(count):
        turns = [phrase(draw) for _ in range(draw.choice((1, 1, 3, 5)) + learnt)]
        found.append(say(*turns, system=phrase(draw) if number % 2 else ""))
    return found


def uneven(talk: list[Message], draw: random.Random) -> list[Message]:
    """The same with neighbours of one role, and a further system message at the start or before a reply."""
    messages = [one for message in talk for one in (message,) * draw.choice((1, 1, 2))]
    pairs = enumerate(pairwise(messages), start=1)
    place = draw.choice([0, *(at for at, (one, other) in pairs if (one.role, other.role) == ROLES)])
    return [*messages[:place], Message(role="system", text=phrase(draw)), *messages[place:]]
