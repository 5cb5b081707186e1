"""Which renderer a model family speaks."""

from medmind.core.protocols import Tokenizer
from medmind.core.registry import Registry
from medmind.prompts.chat import Renderer
from medmind.prompts.chatml import ChatML
from medmind.prompts.llama3 import Llama3
from medmind.prompts.mistral import MistralV3
from medmind.prompts.plain import InstructionResponse, QuestionAnswer

RENDERERS: Registry[type[Renderer]] = Registry("renderer")
RENDERERS.add("mistral-v3", MistralV3)
RENDERERS.add("llama-3", Llama3)
RENDERERS.add("chatml", ChatML)
RENDERERS.add("instruction-response", InstructionResponse)
RENDERERS.add("question-answer", QuestionAnswer)


def open_renderer(name: str, tokenizer: Tokenizer) -> Renderer:
    return RENDERERS.get(name)(tokenizer)
