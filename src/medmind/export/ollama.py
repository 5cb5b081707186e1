"""The Modelfile: our own GGUF, and the renderer's format in Ollama's words; BOS is left to the runtime."""

from medmind.core.errors import UsageError
from medmind.prompts.chat import Renderer


def modelfile(
    gguf: str, renderer: Renderer, *, system_prompt: str, num_ctx: int, temperature: float, licence: str
) -> str:
    """`gguf` is the name of a file in the Modelfile's own folder."""
    lines = [f"FROM ./{gguf}", f"TEMPLATE {quote(renderer.ollama_template)}"]
    if system_prompt:
        lines.append(f"SYSTEM {quote(system_prompt)}")
    lines += [f'PARAMETER stop "{text}"' for text in stops(renderer)]
    lines += [f"PARAMETER num_ctx {num_ctx}", f"PARAMETER temperature {temperature:g}", f"LICENSE {quote(licence)}"]
    return "\n".join(lines) + "\n"


def stops(renderer: Renderer) -> list[str]:
    """All that ends a reply, and what opens a user's turn: a model that writes it plays both roles."""
    return [*renderer.stops, renderer.opening]


def quote(text: str) -> str:
    '''Ollama's parser has no escape: `"""` ends a value where a line ends with it, so it cannot stand inside.'''
    if '"""' in text:
        raise UsageError('a Modelfile cannot hold """ inside a text', todo="take it out of data.system_prompt")
    return f'"""{text}"""'
