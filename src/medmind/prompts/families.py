"""Which renderer a model family speaks."""

from medmind.core.protocols import Tokenizer
from medmind.core.registry import Registry
from medmind.prompts.chat import Renderer
from medmind.prompts.mistral import MistralV3

RENDERERS: Registry[type[Renderer]] = Registry("renderer")
RENDERERS.add("mistral-v3", MistralV3)


def open_renderer(name: str, tokenizer: Tokenizer) -> Renderer:
    return RENDERERS.get(name)(tokenizer)
