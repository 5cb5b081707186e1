"""Every error medmind raises on purpose, and the exit code the command line gives it.

MedmindError                       says what, where (file, row) and what to do
├─ UsageError            exit 2    a wrong command, target or recipe
│  └─ RecipeError                  all faults of a recipe at once
├─ DataError             exit 2    a file or a row that cannot be used
├─ GateError             exit 1    a check said no: leak, parity, verification
├─ EnvironmentFault      exit 3    no space, no device, no network, a missing extra
└─ Interrupted           exit 130  stopped by the user; the same command resumes
"""


class MedmindError(Exception):
    """Base of the tree. `where` names file and row, `todo` the next thing to try."""

    exit_code = 2

    def __init__(self, what: str, *, where: str = "", todo: str = "") -> None:
        self.what, self.where, self.todo = what, where, todo
        super().__init__(what)

    def __str__(self) -> str:
        return ", ".join(part for part in (self.what, self.where, self.todo) if part)


class UsageError(MedmindError):
    pass


class RecipeError(UsageError):
    """Carries every fault of the recipe, one line each."""

    def __init__(self, faults: list[str], *, where: str = "") -> None:
        self.faults = faults
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        lines = "".join(f"\n  - {fault}" for fault in faults)
        super().__init__(f"the recipe has {count}{f' ({where})' if where else ''}:{lines}")


class DataError(MedmindError):
    pass


class GateError(MedmindError):
    exit_code = 1


class EnvironmentFault(MedmindError):
    exit_code = 3


class Interrupted(MedmindError):
    exit_code = 130
