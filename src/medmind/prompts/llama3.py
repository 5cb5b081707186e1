"""The Llama 3 chat format, as Meta's own code writes it: a header names who speaks, `<|eot_id|>` ends every turn.

Llama 3.2's published template puts today's date before every conversation; here no prompt depends on the day.
"""

from collections.abc import Sequence

from medmind.core.types import Message
from medmind.prompts.chat import Piece, Renderer

CHAT_TEMPLATE = """\
{{- bos_token -}}
{%- for message in messages -%}
{{- "<|start_header_id|>" + message["role"] + "<|end_header_id|>\\n\\n" + message["content"] | trim + "<|eot_id|>" -}}
{%- endfor -%}
{%- if messages[-1]["role"] == "user" -%}
{{- "<|start_header_id|>assistant<|end_header_id|>\\n\\n" -}}
{%- endif -%}
"""

OLLAMA_TEMPLATE = """\
{{- if .System }}<|start_header_id|>system<|end_header_id|>

{{ .System }}<|eot_id|>{{ end }}
{{- range .Messages }}{{ if ne .Role "system" }}<|start_header_id|>{{ .Role }}<|end_header_id|>

{{ .Content }}<|eot_id|>{{ end }}{{ end }}<|start_header_id|>assistant<|end_header_id|>

"""


class Llama3(Renderer):
    bos = "<|begin_of_text|>"
    stops = ("<|eot_id|>", "<|end_of_text|>")
    opening = "<|start_header_id|>"
    chat_template = CHAT_TEMPLATE
    ollama_template = OLLAMA_TEMPLATE

    def pieces(self, system: str, turns: Sequence[Message]) -> list[Piece]:
        said = [Message(role="system", text=system), *turns] if system else turns
        pieces: list[Piece] = []
        for place, message in enumerate(said):
            learn = message.role == "assistant" and place == len(said) - 1
            pieces += [*header(message.role), Piece(message.role, message.text.strip(), supervised=learn)]
            pieces += [Piece(message.role, self.eos, control=True, supervised=learn)]
        return pieces if turns[-1].role == "assistant" else [*pieces, *header("assistant")]


def header(role: str) -> list[Piece]:
    marks = (Piece("control", name, control=True) for name in ("<|start_header_id|>", "<|end_header_id|>"))
    start, end = marks
    return [start, Piece("control", role), end, Piece("control", "\n\n")]
