"""A reply written alone is the reply generated: the same ids, the stop id last, and it may be left at any token."""

from pathlib import Path

import pytest

from medmind.infer.decode_hf import HfDecoder
from medmind.infer.decoder import Work, write_alone
from medmind.infer.hf import HfGenerator

PROMPT = (1, 5, 9, 40)


@pytest.fixture(scope="module")
def generator(tiny_model: Path) -> HfGenerator:
    from transformers import AutoModelForCausalLM

    return HfGenerator(AutoModelForCausalLM.from_pretrained(tiny_model), [], lambda ids: " ".join(map(str, ids)))


def written(decoder: HfDecoder, work: Work) -> tuple[list[int], str | None]:
    steps = list(write_alone(decoder, work))
    return [step.new.token for step in steps if step.new], steps[-1].end


def test_the_same_ids_as_generate_and_the_stop_id_last(generator: HfGenerator) -> None:
    (whole,) = generator.generate([PROMPT], 12)
    decoder = HfDecoder(generator._model, 1, 400)
    assert written(decoder, Work(PROMPT, 12)) == (list(whole.ids), "length")
    assert len(whole.ids) == 12
    stop = whole.ids[4]
    end = whole.ids.index(stop)
    assert written(decoder, Work(PROMPT, 12, frozenset({stop}))) == (list(whole.ids[: end + 1]), "stop")


def test_a_text_may_be_left(generator: HfGenerator) -> None:
    decoder = HfDecoder(generator._model, 1, 400)
    steps = write_alone(decoder, Work(PROMPT, 12))
    first = next(steps)
    steps.close()
    assert decoder.step() == [], "nobody is in the slot"
    again = next(write_alone(decoder, Work(PROMPT, 12)))
    assert again.new == first.new is not None
