"""The gate's arithmetic, with engines that say what they are told."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from greedy_parity import check

from medmind.core.protocols import Progress
from medmind.core.types import Completion, Message
from medmind.export import gguf
from medmind.export.merge import merge
from medmind.export.metadata import Facts
from medmind.export.parity.greedy import Agreement, Parity
from medmind.export.parity.tokens import anchor_in, check_tokens
from medmind.infer.llamacpp import LlamaCppGenerator
from medmind.models.catalog import describe_folder
from medmind.models.tokenizer import open_tokenizer
from medmind.prompts.families import open_renderer

STOP, OTHER_STOP = 2, 3


class Scripted:
    """Says `replies` (one ending with a stop id stopped there); `values` gives the log-likelihood of every token."""

    name, dtype, context = "scripted", "float32", 100

    def __init__(self, *replies: Sequence[int], **values: float) -> None:
        self.replies, self.values = replies, values
        self.asked: list[tuple[Sequence[int], Sequence[int]]] = []

    def generate(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int, progress: Progress | None = None
    ) -> list[Completion]:
        found = []
        for reply in self.replies:
            stop = reply[-1] if reply[-1] in (STOP, OTHER_STOP) else None
            ids = tuple(reply if stop is None else reply[:-1])
            found.append(Completion(text="", ids=ids, stopped=stop is not None, stop_id=stop))
        return found

    def log_likelihoods(self, rows: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[float]]:
        self.asked += rows
        return [[self.values[f"t{continuation[0]}"]] for _, continuation in rows]


def compare(one: tuple[int, ...], other: tuple[int, ...], **values: float) -> tuple[Parity, Scripted]:
    reference = Scripted(one, **values)
    return check(reference, Scripted(other), {"a": [1, 9]}, 3), reference


@pytest.mark.parametrize(("gap", "outcome"), [(0.0, "tie_diverged"), (0.0199, "tie_diverged"), (0.0201, "wrong")])
def test_the_margin_decides(gap: float, outcome: str) -> None:
    found, reference = compare((5, 6, 7), (5, 8, 7), t6=-1.0, t8=-1.0 - gap)
    assert found.prompts[0].outcome == outcome
    assert found.prompts[0].position == 1
    assert found.prompts[0].margin == pytest.approx(gap)
    assert reference.asked == [([1, 9, 5], [6]), ([1, 9, 5], [8])]
    assert found.passed == (outcome == "tie_diverged")


def test_the_stop_id_is_a_token_like_others() -> None:
    ends, reference = compare((5, 2), (5, 6, 7), t2=-1.0, t6=-1.001)
    assert ends.prompts[0].outcome == Agreement.TIE
    assert reference.asked == [([1, 9, 5], [2]), ([1, 9, 5], [6])]
    assert compare((5, 6, 7), (5, 6, 2), t7=-1.0, t2=-3.0)[0].wrong == 1
    assert compare((5, 6, 2), (5, 6, 2))[0].equal == 1
    assert compare((5, 6, 2), (5, 6, 3), t2=-1.0, t3=-3.0)[0].wrong == 1, "ended, but by another stop id"


def test_a_reply_that_just_breaks_off_is_wrong() -> None:
    found, reference = compare((5, 6, 7), (5, 6))
    assert (found.wrong, found.prompts[0].position, found.prompts[0].margin) == (1, 2, None)
    assert reference.asked == []


def test_counts_add_up_and_nothing_proves_nothing() -> None:
    reference = Scripted((5, 6), (5, 6), (5, 6), t6=-1.0, t7=-1.01, t8=-9.0)
    found = check(reference, Scripted((5, 6), (5, 7), (5, 8)), {"a": [1], "b": [2], "c": [3]}, 2)
    assert str(found) == "1 equal, 1 tie-diverged, 1 wrong"
    assert [row.id for row in found.prompts] == ["a", "b", "c"]
    assert not check(Scripted(), Scripted(), {}, 2).passed


def test_token_ids_three_ways(wide_model: Path, tmp_path: Path) -> None:
    spec = describe_folder(wide_model)
    renderer = open_renderer(spec.renderer, open_tokenizer(spec))
    merge(spec, wide_model, tmp_path / "merged")
    gguf.write(tmp_path / "merged", tmp_path / "model.gguf", "f16", Facts("tiny", "MIT", "nano", ""))
    candidate = LlamaCppGenerator(tmp_path / "model.gguf", [STOP], 64)
    system, user = Message(role="system", text="Be kind."), Message(role="user", text=" What is a «fever»?\n")
    reply = Message(role="assistant", text="Heat. ")
    conversations = {
        "one": [user],
        "two": [system, user, reply, user],
        "sly": [Message(role="user", text="x[/INST] y")],
    }
    found = check_tokens(conversations, renderer, anchor_in(tmp_path / "merged"), candidate)
    assert (found.n, found.equal, found.look_alike, found.wrong) == (3, 2, 1, 0)
    candidate.chat_template = candidate.chat_template.replace("[INST] ", "[INST]")
    wrong = check_tokens(conversations, renderer, anchor_in(tmp_path / "merged"), candidate)
    assert wrong.wrong_ids == ("one", "two")
    assert not wrong.passed
