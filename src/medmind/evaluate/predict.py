"""Asks a model every question of a suite, greedily, and reads each reply once."""

from collections.abc import Sequence

from medmind.core.log import say
from medmind.core.protocols import Converser, Generator, Progress
from medmind.core.types import Answer, Completion, Example, Outcome, Prediction
from medmind.prompts.chat import Renderer
from medmind.prompts.tasks.canary import identifiers, repeated
from medmind.prompts.tasks.known import TASKS
from medmind.prompts.wording import read_reply

CHOICES = ("choice", "multiple_choice")
"""Tasks whose answer is one of the options: right or wrong."""


def predict(
    generator: Generator,
    renderer: Renderer,
    examples: Sequence[Example],
    system_prompt: str,
    max_new_tokens: int,
    progress: Progress | None = None,
) -> list[Prediction]:
    """A prompt that leaves no room for a reply stays in the count, as truncated, with that reason."""
    prompts = prompt_ids(renderer, examples, system_prompt)
    fitting = leaving_room(prompts, generator.context)
    if isinstance(generator, Converser):
        asked = [TASKS.get(examples[place].task).messages(examples[place], system_prompt) for place in fitting]
        completions = generator.converse(asked, max_new_tokens, progress)
    else:
        completions = generator.generate([prompts[place] for place in fitting], max_new_tokens, progress)
    replies = dict(zip(fitting, completions, strict=True))
    return [
        judge(renderer, example, system_prompt, replies.get(place), len(prompts[place]))
        for place, example in enumerate(examples)
    ]


def leaving_room(prompts: Sequence[Sequence[int]], context: int) -> list[int]:
    """Places of the prompts that a reply is possible to; of how many it is not is said."""
    fitting = [place for place, ids in enumerate(prompts) if len(ids) < context]
    if len(fitting) < len(prompts):
        missing = len(prompts) - len(fitting)
        say(f"{missing} of {len(prompts)} prompts fill the model's {context} tokens: no reply is possible")
    return fitting


def prompt_ids(renderer: Renderer, examples: Sequence[Example], system_prompt: str) -> list[tuple[int, ...]]:
    return [renderer.prompt(TASKS.get(example.task).messages(example, system_prompt)) for example in examples]


def judge(
    renderer: Renderer, example: Example, system_prompt: str, completion: Completion | None, prompt_length: int
) -> Prediction:
    task = TASKS.get(example.task)
    if completion is None:
        reason = f"the prompt's {prompt_length} tokens leave no room for a reply"
        answer = Answer(text="", outcome=Outcome.TRUNCATED, reason=reason)
    else:
        answer = read_reply(task, completion.text, completion.stopped, example)
    return Prediction(
        id=example.id,
        prompt=renderer.text(task.messages(example, system_prompt)),
        text=completion.text if completion else "",
        answer=answer.text,
        outcome=answer.outcome,
        correct=is_correct(example, answer, completion.text if completion else ""),
        reason=answer.reason,
    )


def is_correct(example: Example, answer: Answer, text: str) -> bool:
    """A choice must be the target. A term's answer is right when its form is; a free answer when it is one at
    all, since its content has no yes or no: chrF and the held-out loss speak of that. A canary's secret is given
    away even by a reply that never ends.
    """
    if example.task == "canary":
        return repeated(text, example) == identifiers(example)
    if answer.outcome is not Outcome.ANSWERED:
        return False
    return answer.text == example.target if example.task in CHOICES else True
