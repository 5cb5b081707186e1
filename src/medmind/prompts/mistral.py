"""The Mistral v3 chat format: `<s>[INST] user[/INST] reply</s>`, the system prompt before the last user turn."""

from collections.abc import Sequence

from medmind.core.errors import DataError
from medmind.core.types import Message
from medmind.prompts.chat import Piece, Renderer

CHAT_TEMPLATE = """\
{%- set system = messages[0]["content"] + "\\n\\n" if messages[0]["role"] == "system" else "" -%}
{%- set turns = messages[1:] if messages[0]["role"] == "system" else messages -%}
{{- bos_token -}}
{%- for message in turns -%}
{%- if message["role"] == "user" -%}
{{- "[INST] " + (system if loop.index0 >= turns|length - 2 else "") + message["content"] + "[/INST]" -}}
{%- else -%}
{{- " " + message["content"].rstrip(" ") + eos_token -}}
{%- endif -%}
{%- endfor -%}
"""

OLLAMA_TEMPLATE = """\
{{- range $i, $m := .Messages }}
{{- if eq $m.Role "user" }}[INST] {{ if and $.System (eq (len (slice $.Messages $i)) 1) }}{{ $.System }}

{{ end }}{{ $m.Content }}[/INST]
{{- else if eq $m.Role "assistant" }} {{ $m.Content }}</s>
{{- end }}
{{- end }}"""


class MistralV3(Renderer):
    bos = "<s>"
    eos = "</s>"
    chat_template = CHAT_TEMPLATE
    ollama_template = OLLAMA_TEMPLATE

    def pieces(self, messages: Sequence[Message]) -> list[Piece]:
        system = "".join(f"{message.text}\n\n" for message in messages if message.role == "system")
        turns = [message for message in messages if message.role != "system"]
        if not turns or any(turn.role != ("user", "assistant")[place % 2] for place, turn in enumerate(turns)):
            raise DataError("a conversation must begin with the user and take turns")
        last_user = max(place for place, turn in enumerate(turns) if turn.role == "user")
        pieces: list[Piece] = []
        for place, turn in enumerate(turns):
            if turn.role == "user":
                text = f" {system if place == last_user else ''}{turn.text}"
                pieces += [Piece("control", "[INST]", control=True), Piece("user", text)]
                pieces += [Piece("control", "[/INST]", control=True)]
            else:
                learn = place == len(turns) - 1
                pieces += [Piece("assistant", f" {turn.text.rstrip(' ')}", supervised=learn)]
                pieces += [Piece("assistant", self.eos, control=True, supervised=learn)]
        return pieces
