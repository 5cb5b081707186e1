"""The transformers engine on a tiny random Mistral: a batch says what single prompts say, and nothing is exceeded."""

import random
from collections.abc import Sequence

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny import tiny_mistral
from transformers import MistralForCausalLM

from medmind.core.errors import DataError
from medmind.infer.hf import HfGenerator

VOCABULARY, CONTEXT, STOP = 97, 64, 2


def tiny_model(seed: int = 0) -> MistralForCausalLM:
    return tiny_mistral(seed, vocab_size=VOCABULARY, max_position_embeddings=CONTEXT, initializer_range=0.5)


def show(ids: Sequence[int]) -> str:
    return " ".join(map(str, ids))


@pytest.fixture(scope="module")
def model() -> MistralForCausalLM:
    return tiny_model()


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    draw = random.Random(3)
    return [[draw.randrange(3, VOCABULARY) for _ in range(draw.randrange(1, 40))] for _ in range(24)]


def naive(model: MistralForCausalLM, prompt: Sequence[int], limit: int, stops: Sequence[int]) -> tuple[list[int], bool]:
    """The whole sequence anew for every token: no cache, no padding, no batch."""
    reply: list[int] = []
    while len(reply) < limit:
        with torch.no_grad():
            token = int(model(torch.tensor([[*prompt, *reply]])).logits[0, -1].argmax())
        if token in stops:
            return reply, True
        reply.append(token)
    return reply, False


@pytest.mark.parametrize("batch_size", [1, 5, 24])
def test_a_batch_says_what_single_prompts_say(
    model: MistralForCausalLM, prompts: list[list[int]], batch_size: int
) -> None:
    # The most frequent tokens of unstopped replies become stop ids, so that rows end at different times.
    free = HfGenerator(model, [], show).generate(prompts, 20)
    tokens = [token for completion in free for token in completion.ids]
    stops = sorted(set(tokens), key=tokens.count)[-3:]
    found = HfGenerator(model, stops, show, batch_size).generate(prompts, 20)
    expected = [naive(model, prompt, 20, stops) for prompt in prompts]
    assert [(list(completion.ids), completion.stopped) for completion in found] == expected
    assert [completion.text for completion in found] == [show(ids) for ids, _ in expected]
    assert len({len(ids) for ids, _ in expected}) > 3
    assert {stopped for _, stopped in expected} == {True, False}


def test_the_context_is_never_exceeded(model: MistralForCausalLM, prompts: list[list[int]]) -> None:
    found = HfGenerator(model, [], show, 8).generate(prompts, 1000)
    assert [len(completion.ids) for completion in found] == [CONTEXT - len(prompt) for prompt in prompts]
    assert not any(completion.stopped for completion in found)


@pytest.mark.parametrize("length", [0, CONTEXT, CONTEXT + 1])
def test_a_prompt_without_room_is_an_error(model: MistralForCausalLM, length: int) -> None:
    with pytest.raises(DataError, match="prompt"):
        HfGenerator(model, [STOP], show).generate([[5], [5] * length], 4)


def test_progress_reaches_the_total(model: MistralForCausalLM, prompts: list[list[int]]) -> None:
    told: list[tuple[int, int]] = []
    HfGenerator(model, [STOP], show, 10).generate(prompts, 2, lambda done, total: told.append((done, total)))
    assert told == [(10, 24), (20, 24), (24, 24)]


def test_nothing_asked_nothing_said(model: MistralForCausalLM) -> None:
    assert HfGenerator(model, [STOP], show).generate([], 5) == []
    assert HfGenerator(model, [STOP], show).log_likelihoods([]) == []


def test_log_likelihoods_are_the_models_own(model: MistralForCausalLM, prompts: list[list[int]]) -> None:
    rows = [(prompt, prompts[place - 1][:20]) for place, prompt in enumerate(prompts)]
    found = HfGenerator(model, [STOP], show, 7).log_likelihoods(rows)
    for (context, continuation), logs in zip(rows, found, strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([[*context, *continuation]])).logits[0].log_softmax(-1)
        expected = [float(logits[len(context) - 1 + place, token]) for place, token in enumerate(continuation)]
        assert logs == pytest.approx(expected, abs=2e-4)


def test_log_likelihoods_agree_with_greedy_generation(model: MistralForCausalLM, prompts: list[list[int]]) -> None:
    generator = HfGenerator(model, [], show)
    replies = [completion.ids for completion in generator.generate(prompts, 3)]
    best = generator.log_likelihoods(list(zip(prompts, replies, strict=True)))
    changed = [[*ids[:-1], (ids[-1] + 1) % VOCABULARY] for ids in replies]
    other = generator.log_likelihoods(list(zip(prompts, changed, strict=True)))
    assert all(mine[-1] > theirs[-1] for mine, theirs in zip(best, other, strict=True))


def test_a_row_may_fill_the_context_but_not_exceed_it(model: MistralForCausalLM) -> None:
    generator = HfGenerator(model, [STOP], show)
    assert len(generator.log_likelihoods([([5] * (CONTEXT - 10), [6] * 10)])[0]) == 10
    with pytest.raises(DataError, match="does not fit"):
        generator.log_likelihoods([([5] * (CONTEXT - 10), [6] * 12)])
    with pytest.raises(DataError, match="at least one token"):
        generator.log_likelihoods([([], [6])])


def test_an_adapter_speaks_the_same_merged_or_not(prompts: list[list[int]]) -> None:
    targets = ["q_proj", "v_proj", "gate_proj", "down_proj"]
    tuned = get_peft_model(tiny_model(), LoraConfig(r=4, target_modules=targets, init_lora_weights=False))
    rows = [(prompt, [7, 8, 9]) for prompt in prompts]
    apart = HfGenerator(tuned, [STOP], show)
    replies, logs = apart.generate(prompts, 8), apart.log_likelihoods(rows)
    merged = HfGenerator(tuned.merge_and_unload(), [STOP], show)
    assert merged.generate(prompts, 8) == replies
    for one, other in zip(merged.log_likelihoods(rows), logs, strict=True):
        assert one == pytest.approx(other, abs=1e-3)
    assert replies != HfGenerator(tiny_model(), [STOP], show).generate(prompts, 8)


def test_it_says_what_it_is(model: MistralForCausalLM) -> None:
    generator = HfGenerator(model, [STOP], show)
    assert (generator.name, generator.dtype, generator.context) == ("transformers", "float32", CONTEXT)
    assert not model.training
