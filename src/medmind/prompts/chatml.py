"""ChatML: `<|im_start|>role`, a line break, the text, `<|im_end|>`; the role's own mark is what a text begins with.

SmolLM2's published template speaks of a system prompt of its own where there is none; here nothing is added.
"""

from collections.abc import Sequence

from medmind.core.types import Message
from medmind.prompts.chat import Piece, Renderer

CHAT_TEMPLATE = """\
{%- for message in messages -%}
{%- set text = message["content"] | trim if message["role"] == "assistant" else message["content"] -%}
{{- "<|im_start|>" + message["role"] + "\\n" + text + "<|im_end|>\\n" -}}
{%- endfor -%}
{%- if messages[-1]["role"] == "user" -%}
{{- "<|im_start|>assistant\\n" -}}
{%- endif -%}
"""

OLLAMA_TEMPLATE = """\
{{- if .System }}<|im_start|>system
{{ .System }}<|im_end|>
{{ end }}
{{- range .Messages }}{{ if ne .Role "system" }}<|im_start|>{{ .Role }}
{{ .Content }}<|im_end|>
{{ end }}{{ end }}<|im_start|>assistant
"""


class ChatML(Renderer):
    bos = "<|im_start|>"
    adds_bos = False
    stops = ("<|im_end|>",)
    opening = "<|im_start|>"
    chat_template = CHAT_TEMPLATE
    ollama_template = OLLAMA_TEMPLATE

    def pieces(self, system: str, turns: Sequence[Message]) -> list[Piece]:
        pieces = [*self.turn("system", system)] if system else []
        for place, turn in enumerate(turns):
            pieces += self.turn(turn.role, turn.text, learn=turn.role == "assistant" and place == len(turns) - 1)
        return pieces if turns[-1].role == "assistant" else [*pieces, *self.begin_reply()]

    def turn(self, role: str, text: str, *, learn: bool = False) -> list[Piece]:
        if role == "assistant":
            said = [*self.begin_reply(), Piece(role, text.strip(), supervised=learn)]
        else:
            said = [Piece("control", "<|im_start|>", control=True), Piece(role, f"{role}\n{text}")]
        return [*said, Piece(role, self.eos, control=True, supervised=learn), Piece("control", "\n")]

    def begin_reply(self) -> list[Piece]:
        return [Piece("control", "<|im_start|>", control=True), Piece("control", "assistant\n")]
