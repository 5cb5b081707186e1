"""What would change the answer and cannot be done here: it is refused, never passed over."""

from pydantic import BaseModel

from medmind.serve.errors import unable

BEYOND = {
    "tools": ("tools", "tool_choice", "functions", "function_call", "web_search_options"),
    "json": (
        *("guided_json", "guided_regex", "guided_choice", "guided_grammar", "structured_outputs", "structural_tag"),
        *("grammar", "json_schema", "response_format"),
    ),
    "images": (),
    "audio": ("modalities", "audio"),
    "thinking": ("thinking", "enable_thinking"),
    "logit_bias": ("logit_bias", "allowed_token_ids", "bad_words", "logits_processors"),
    "suffix": ("suffix",),
    "best_of": ("use_beam_search",),
    "chat_template": ("chat_template", "chat_template_kwargs", "documents"),
    "continue_final_message": ("continue_final_message",),
    "min_tokens": ("min_tokens",),
    "ignore_eos": ("ignore_eos",),
    "samplers": ("mirostat", "typical_p", "tfs_z", "length_penalty", "samplers"),
    "prompt_logprobs": ("prompt_logprobs",),
    "stop_token_ids": ("stop_token_ids", "include_stop_str_in_output"),
    "truncate_prompt_tokens": ("truncate_prompt_tokens",),
}
"""By the name among a model's capabilities, the fields of a request that ask for it: OpenAI's, vLLM's, llama.cpp's."""
FIELDS = frozenset(field for fields in BEYOND.values() for field in fields)
HARMLESS = {
    "tool_choice": ("none",),
    "function_call": ("none",),
    "modalities": (["text"],),
    "thinking": ({"type": "disabled"},),
    "chat_template_kwargs": ({"enable_thinking": False},),
    "truncate_prompt_tokens": (-1,),
    "response_format": ({"type": "text"},),
    "typical_p": (1,),
    "tfs_z": (1,),
    "length_penalty": (1,),
}
"""Beside null, false, 0 and what is empty: values that ask for nothing."""


def refuse_beyond(model: str, body: BaseModel) -> None:
    for name, value in body:
        if name in FIELDS and value and not isinstance(value, BaseModel) and value not in HARMLESS.get(name, ()):
            raise unable(model, name, name)
