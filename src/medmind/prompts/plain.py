"""The `###` templates of two published recipes, for base models, whose chat tokens were never trained."""

from abc import abstractmethod
from collections.abc import Sequence
from contextlib import suppress

from medmind.core.errors import DataError
from medmind.core.protocols import Tokenizer
from medmind.core.types import Message
from medmind.prompts.chat import Piece, Renderer

FRAMES = (("<s>", "</s>"), ("<|begin_of_text|>", "<|end_of_text|>"), ("<|endoftext|>", "<|endoftext|>"))
"""What a text begins and ends with: Mistral, Llama 3, SmolLM2."""

CHAT_TEMPLATE = """\
{{%- set system = messages[0]["content"] if messages[0]["role"] == "system" else "" -%}}
{{%- set turns = messages[1:] if messages[0]["role"] == "system" else messages -%}}
{{{{- bos_token + "{blank}" -}}}}
{{%- for message in turns -%}}
{{%- if message["role"] == "user" -%}}
{{{{- {ask} -}}}}
{{%- else -%}}
{{{{- message["content"] | trim + eos_token + ("" if loop.last else "\\n\\n") -}}}}
{{%- endif -%}}
{{%- endfor -%}}
"""

OLLAMA_TEMPLATE = """\
{{{{- $first := true }}}}{blank}{{{{ range .Messages }}}}
{{{{- if eq .Role "user" }}}}{ask}{{{{ $first = false }}}}
{{{{- else if eq .Role "assistant" }}}}{{{{ .Content }}}}{eos}

{{{{ end }}}}
{{{{- end }}}}"""


class Plain(Renderer):
    """No control token inside; the system prompt stands before the first question alone."""

    ask_jinja: str
    ask_ollama: str

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__(tokenizer)
        self.bos, eos = find_frame(tokenizer)
        self.stops = (eos,)
        self.chat_template = CHAT_TEMPLATE.format(blank=tokenizer.blank, ask=self.ask_jinja)
        self.ollama_template = OLLAMA_TEMPLATE.format(blank=tokenizer.blank, eos=eos, ask=self.ask_ollama)

    @abstractmethod
    def ask(self, system: str, question: str) -> str:
        """Everything from the first word to where the reply begins."""

    def pieces(self, system: str, turns: Sequence[Message]) -> list[Piece]:
        pieces: list[Piece] = []
        for place, turn in enumerate(turns):
            if turn.role == "user":
                before = "\n\n" if place else self.tokenizer.blank
                pieces += [Piece("user", before + self.ask("" if place else system, turn.text))]
            else:
                learn = place == len(turns) - 1
                pieces += [Piece("assistant", turn.text.strip(), supervised=learn)]
                pieces += [Piece("assistant", self.eos, control=True, supervised=learn)]
        return pieces


class InstructionResponse(Plain):
    opening = "### Instruction:"
    ask_jinja = """\
"### Instruction:\\n" + (system + "\\n\\nQuestion: " if system and loop.first else "") + message["content"] \
+ "\\n\\n### Response:\\n\""""
    ask_ollama = """\
### Instruction:
{{ if and $first $.System }}{{ $.System }}

Question: {{ end }}{{ .Content }}

### Response:
"""

    def ask(self, system: str, question: str) -> str:
        instruction = f"{system}\n\nQuestion: {question}" if system else question
        return f"### Instruction:\n{instruction}\n\n### Response:\n"


class QuestionAnswer(Plain):
    opening = "### Question:"
    ask_jinja = """\
(system + "\\n\\n" if system and loop.first else "") \
+ "### Question:\\n" + message["content"] + "\\n\\n### Answer:\\n\""""
    ask_ollama = """\
{{ if and $first $.System }}{{ $.System }}

{{ end }}### Question:
{{ .Content }}

### Answer:
"""

    def ask(self, system: str, question: str) -> str:
        before = f"{system}\n\n" if system else ""
        return f"{before}### Question:\n{question}\n\n### Answer:\n"


def find_frame(tokenizer: Tokenizer) -> tuple[str, str]:
    """The first pair of which the tokenizer has both."""
    for bos, eos in FRAMES:
        with suppress(DataError):
            tokenizer.token_id(bos), tokenizer.token_id(eos)
            return bos, eos
    raise DataError(
        "the tokenizer has no control tokens that begin and end a text",
        todo=f"known: {', '.join(' and '.join(frame) for frame in FRAMES)}",
    )
