"""Settings of serving."""

from typing import Literal

from pydantic import Field

from medmind.core.config import StageConfig
from medmind.safety.texts import Additions


class ServeConfig(StageConfig):
    host: str = "127.0.0.1"
    """Any but a loopback address demands a key."""
    port: int = Field(default=11435, ge=1, le=65535)
    names: tuple[str, ...] = ()
    """What else the machine is called by its clients: a Host header must be one of these, or its address."""
    key_file: str = ""
    """A file with the SHA-256 of the key, made with a new key where it is absent; else the key is MEDMIND_API_KEY."""
    engine: Literal["auto", "llama.cpp", "transformers"] = "auto"
    """auto: llama.cpp where the run has a GGUF, transformers elsewhere."""
    base: bool = False
    """Whether a run's base model is served beside it."""
    context: int = Field(default=4096, ge=16)
    """Tokens of one conversation, prompt and reply; no more than the model has."""
    max_concurrent: int = Field(default=4, ge=1, le=256)
    """Replies a model writes at the same time."""
    queue: int = Field(default=64, ge=0, le=10000)
    """Requests that may wait beyond these; the next one is refused."""
    max_new_tokens: int = Field(default=1024, ge=1)
    """The longest reply anyone gets, whatever is asked."""
    timeout: float = Field(default=600.0, gt=0)
    """Seconds a request may take, waiting included."""
    redact_phi: bool = True
    """Whether patient identifiers are taken out of what leaves the server."""
    log_bodies: bool = False
    """Whether questions and answers are written to the log, without the patient identifiers that are found in them."""
    red_flags: bool = True
    """Whether a message that tells of an emergency gets the emergency text first, here and in medmind chat."""
    emergency_text: str = ""
    """An operator's own; empty: ours, in the language of the message."""
    note: Literal["terms", "always", "never"] = "terms"
    """Which replies without the educational note get it: those of recipes of the terms task, all, none."""

    def conflicts(self) -> list[str]:
        """A streamed answer comes in pieces, and in a piece of a telephone number nobody finds one."""
        if self.log_bodies and not self.redact_phi:
            return ["serve.log_bodies needs serve.redact_phi: patient identifiers would reach the log"]
        return []

    def additions(self, task: str) -> Additions:
        """What is put around the replies of a model that was trained for a task."""
        note = self.note == "always" or (self.note == "terms" and task == "terms")
        return Additions(self.red_flags, self.emergency_text, note)
