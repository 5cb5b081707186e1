"""Conversations in ShareGPT's form (conversations: from, value) or as messages (role, content).

A conversation with k replies becomes k rows, each with the turns before its reply, and only that reply is learnt:
some formats move the system prompt to the last question, so one row could not show the model what serving shows it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from medmind.core.types import Example, Message, Role
from medmind.data.config import DataConfig
from medmind.data.sources.files import find_files, origins_of
from medmind.data.sources.published import part_by_name
from medmind.data.sources.seam import Dropped, Entry, Fault, Origin, Part, Row, Source, make_id, words
from medmind.data.sources.tables import open_table, require
from medmind.prompts.chat import join_same_role

ROLES: dict[str, Role] = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
}


@dataclass(frozen=True)
class Schema:
    """The column of a conversation, and what a message calls who speaks and what is said."""

    messages: str
    speaker: str
    said: str


SCHEMAS = {
    "sharegpt": Schema("conversations", "from", "value"),
    "messages": Schema("messages", "role", "content"),
}


def read(config: DataConfig) -> Iterator[Row | Dropped]:
    schema = SCHEMAS[config.source]
    mapping = {"messages": schema.messages} | config.columns
    for file, part in part_by_name(find_files(config)):
        table = open_table(file.path, config.source)
        require(table, mapping, setting="data.columns")
        for entry in table.entries:
            if isinstance(entry, Entry):
                yield from to_rows(entry, schema, mapping, config, part)
            else:
                yield entry


def to_rows(
    entry: Entry, schema: Schema, mapping: dict[str, str], config: DataConfig, part: Part | None
) -> Iterator[Row | Dropped]:
    messages = read_messages(entry.values.get(mapping["messages"]), schema)
    if isinstance(messages, str):
        yield entry.drop(Fault.TURNS, messages)
        return
    said = [message.text for message in messages if message.role == "system"]
    turns = join_same_role([message for message in messages if message.role != "system"])
    name = words(entry.values.get(mapping["id"])) if "id" in mapping else ""
    name = name or make_id(config.source, *(turn.text for turn in turns))
    group = words(entry.values.get(mapping["group"])) if "group" in mapping else ""
    if fault := fault_of(turns):
        yield entry.drop(*fault, name)
        return
    own = "\n\n".join(said)
    if own and own != config.system_prompt.strip() and config.own_system_prompt == "drop":
        reason = f'"{own[:60]}" is not data.system_prompt; data.own_system_prompt: ignore would learn without it'
        yield entry.drop(Fault.SYSTEM, reason, name)
        return
    for number, place in enumerate(range(1, len(turns), 2), start=1):
        example = Example(
            id=f"{name}#{number}",
            source=config.source,
            task=config.task,
            turns=tuple(turns[:place]),
            target=turns[place].text,
            group=group or name,
            metadata={"system": own} if own else {},
        )
        yield entry.row(example, part)
    if turns[-1].role == "user":
        yield entry.drop(Fault.NO_ANSWER, "the conversation ends with a question", f"{name}#{len(turns) // 2 + 1}")


def read_messages(value: Any, schema: Schema) -> list[Message] | str:
    """The messages, or why they cannot be read."""
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        return "not a list of messages"
    messages = []
    for place, one in enumerate(value, start=1):
        speaker, said = one.get(schema.speaker), words(one.get(schema.said))
        if not isinstance(speaker, str) or speaker.strip().lower() not in ROLES:
            return f'message {place}: "{schema.speaker}" is {speaker!r:.40}, none of {", ".join(ROLES)}'
        if said is None:
            return f'message {place}: "{schema.said}" is not a text'
        messages.append(Message(role=ROLES[speaker.strip().lower()], text=said))
    return messages


def fault_of(turns: list[Message]) -> tuple[Fault, str] | None:
    """What no format can render, or no one can learn from."""
    if not any(turn.role == "user" for turn in turns):
        return Fault.NO_QUESTION, "nobody asks anything"
    if turns[0].role != "user":
        return Fault.TURNS, "the conversation does not begin with the user"
    empty = next((place for place, turn in enumerate(turns) if not turn.text), None)
    if empty is not None:
        fault = Fault.NO_ANSWER if turns[empty].role == "assistant" else Fault.NO_QUESTION
        return fault, f"turn {empty + 1} is empty"
    return None


def origins(config: DataConfig) -> list[Origin]:
    return origins_of(config, "not stated")


CONVERSATIONS = tuple(Source(name, "custom", read, origins) for name in SCHEMAS)
