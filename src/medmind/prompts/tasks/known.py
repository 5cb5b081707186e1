"""The tasks by name."""

from medmind.core.registry import Registry
from medmind.prompts.tasks.canary import Canary
from medmind.prompts.tasks.choice import Choice
from medmind.prompts.tasks.multiple_choice import MultipleChoice
from medmind.prompts.tasks.qa import QuestionAnswer
from medmind.prompts.tasks.reasoned import Reasoned
from medmind.prompts.tasks.terms import Terms
from medmind.prompts.tasks.text import Text
from medmind.prompts.wording import Task

TASKS: Registry[Task] = Registry("task")
for task in (Terms(), QuestionAnswer(), Choice(), MultipleChoice(), Reasoned(), Text(), Canary()):
    TASKS.add(task.name, task)
