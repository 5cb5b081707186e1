"""/v1/completions as lm-eval reads it: echo and log-probabilities, for texts and for token ids."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from serving import RENDERER, Fake, listening, post

from medmind.infer.decode_fake import noise

TOKENIZER = RENDERER.tokenizer
CONTRACT = {"model": "fake", "temperature": 0, "max_tokens": 1, "logprobs": 1, "seed": 1234, "echo": True}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with listening(Fake(context=600), Fake("shy", screened=True)) as address:
        yield address


def score(url: str, prompt: Any, **more: Any) -> list[dict[str, Any]]:
    found = post(url, "/v1/completions", **{**CONTRACT, "prompt": prompt, **more})
    assert found.status_code == 200, found.text
    choices: list[dict[str, Any]] = found.json()["choices"]
    return choices


def truth(ids: list[int]) -> list[float]:
    """Of every token but the first, straight from the fake's logits."""
    found = []
    for place in range(1, len(ids)):
        logits = noise(ids[:place], TOKENIZER.vocab_size).astype(np.float64)
        found.append(float(logits[ids[place]] - math.log(np.exp(logits).sum())))
    return found


def as_lm_eval_reads(choice: dict[str, Any], context: int) -> tuple[float, bool]:
    """models/openai_completions.py of lm-eval 0.4, line for line."""
    logprobs = choice["logprobs"]
    tokens_logprobs = logprobs["token_logprobs"][context:-1]
    top_logprobs = logprobs["top_logprobs"][context:-1]
    greedy = True
    for token, top in zip(tokens_logprobs, top_logprobs, strict=False):
        if token != max(top.values()):
            greedy = False
            break
    return sum(tokens_logprobs), greedy


def test_rows_of_ids_get_exactly_their_entries(url: str) -> None:
    rows = [TOKENIZER.encode(" The heart pumps blood."), [1, 5, 6, 7], TOKENIZER.encode(" No" * 300)]
    for ids, choice in zip(rows, score(url, rows), strict=True):
        logprobs = choice["logprobs"]
        assert {len(part) for part in logprobs.values()} == {len(ids) + 1}
        assert logprobs["token_logprobs"][0] is None
        assert logprobs["token_logprobs"][1:-1] == pytest.approx(truth(ids), abs=1e-6)
        pairs = zip(logprobs["token_logprobs"][1:], logprobs["top_logprobs"][1:], strict=True)
        assert all(own in top.values() for own, top in pairs)
        total, greedy = as_lm_eval_reads(choice, 2)
        assert total == pytest.approx(sum(truth(ids)[1:]), abs=1e-6)
        assert not greedy


def test_the_most_probable_continuation_is_called_greedy(url: str) -> None:
    ids = [1, 5, 6]
    for _ in range(2):
        ids.append(int(noise(ids, TOKENIZER.vocab_size).argmax()))
    (choice,) = score(url, [ids])
    assert as_lm_eval_reads(choice, 3)[1]
    assert not as_lm_eval_reads(choice, 1)[1]


def test_a_reply_that_ends_at_once_keeps_its_entry() -> None:
    with listening(Fake(write=lambda _: "")) as address:
        (choice,) = score(address, [[1, 5, 6]])
    assert len(choice["logprobs"]["tokens"]) == 4
    assert choice["logprobs"]["tokens"][-1] == "</s>"
    assert choice["finish_reason"] == "stop"


def test_a_text_gets_no_entry_for_a_bos_it_did_not_say(url: str) -> None:
    text = "Swelling of the nose: 5 µg 鼻炎."
    client = TOKENIZER.encode(TOKENIZER.blank + text)
    (choice,) = score(url, text)
    logprobs = choice["logprobs"]
    assert len(logprobs["token_logprobs"]) == len(client) + 1
    bos = TOKENIZER.token_id("<s>")
    assert logprobs["token_logprobs"][:-1] == pytest.approx(truth([bos, *client]), abs=1e-6)
    assert choice["text"].startswith(text)
    (bare,) = score(url, text, add_special_tokens=False)
    assert bare["logprobs"]["token_logprobs"][0] is None
    assert len(bare["logprobs"]["token_logprobs"]) == len(client) + 1


def test_offsets_count_characters(url: str) -> None:
    ids = TOKENIZER.encode(" naïve 鼻炎 🫁 lung")
    (choice,) = score(url, ids, max_tokens=4)
    logprobs, text = choice["logprobs"], choice["text"]
    offsets = logprobs["text_offset"]
    assert offsets == sorted(offsets) and offsets[0] == 0
    for token, start, end in zip(logprobs["tokens"], offsets, [*offsets[1:], len(text)], strict=True):
        assert text[start:end] in ("", token)
    place = next(place for place, offset in enumerate(offsets) if offset >= text.index("lung") - 1)
    assert "".join(logprobs["tokens"][place:]).startswith(" lung")


def test_nothing_new_can_be_asked_for(url: str) -> None:
    (choice,) = score(url, [[1, 5, 6]], max_tokens=0)
    assert choice["text"] == TOKENIZER.decode([1, 5, 6])
    assert {len(part) for part in choice["logprobs"].values()} == {3}
    (own,) = score(url, [[1, 5, 6]], logprobs=0)
    assert [len(top) for top in own["logprobs"]["top_logprobs"][1:]] == [1, 1, 1]


def test_false_asks_for_none(url: str) -> None:
    assert score(url, [[1, 5, 6]], logprobs=False)[0]["logprobs"] is None
    assert score(url, [[1, 5, 6]], logprobs=True) == score(url, [[1, 5, 6]], logprobs=1)
    assert post(url, "/v1/completions", model="shy", prompt=[[1, 5]], max_tokens=9, logprobs=False).status_code == 200


def test_a_stream_of_a_judged_prompt_says_the_same(url: str) -> None:
    import openai

    with openai.OpenAI(base_url=f"{url}/v1", api_key="x") as client:
        asked = {**CONTRACT, "prompt": [1, 5, 6, 7], "max_tokens": 5}
        whole = client.completions.create(**asked)
        parts = list(client.completions.create(**asked, stream=True))
    assert "".join(part.choices[0].text for part in parts) == whole.choices[0].text
    own = [one for part in parts if part.choices[0].logprobs for one in part.choices[0].logprobs.token_logprobs]
    assert own == whole.choices[0].logprobs.token_logprobs


def test_batches_keep_their_order_and_bounds(url: str) -> None:
    rows = [[1, 5 + place] for place in range(30)]
    choices = score(url, rows, n=2)
    assert [choice["index"] for choice in choices] == list(range(60))
    assert [choice["text"][:3] for choice in choices[::2]] == [choice["text"][:3] for choice in choices[1::2]]
    refused = post(url, "/v1/completions", **{**CONTRACT, "prompt": rows, "n": 3})
    assert refused.status_code == 400
    outside = post(url, "/v1/completions", **{**CONTRACT, "prompt": [[1, TOKENIZER.vocab_size]]})
    assert outside.status_code == 400
    long = post(url, "/v1/completions", **{**CONTRACT, "prompt": [[5] * 600]})
    assert long.json()["error"]["n_prompt_tokens"] == 600 and long.json()["error"]["n_ctx"] == 600


def test_a_screened_model_may_judge_but_not_spell_out(url: str) -> None:
    assert post(url, "/v1/completions", **{**CONTRACT, "model": "shy", "prompt": [[1, 5]]}).status_code == 200
    told = post(url, "/v1/completions", **{**CONTRACT, "model": "shy", "prompt": [[1, 5]], "max_tokens": 9})
    assert told.status_code == 400
    assert "screened" in told.json()["error"]["message"]


def test_an_empty_context_is_judged_after_bos(url: str) -> None:
    """lm-eval asks which id "<s>" is, and puts it before the continuation."""
    (bos,) = post(url, "/tokenize", prompt="<s>", add_special_tokens=False).json()["tokens"]
    ids = post(url, "/tokenize", prompt=" The nose", add_special_tokens=False).json()["tokens"]
    (choice,) = score(url, [[bos, *ids]])
    assert as_lm_eval_reads(choice, 1)[0] == pytest.approx(sum(truth([1, *TOKENIZER.encode(" The nose")])), abs=1e-6)
