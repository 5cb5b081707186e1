"""Real weights behind the seam: what is served is what the in-process engines say, alone and side by side."""

import argparse
import asyncio
import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from serving import Fake, post, serving

from medmind.cli import serve as cli
from medmind.cli.targets import Target, open_targets, read_target
from medmind.core.errors import DataError, UsageError
from medmind.infer.decode_hf import HfDecoder, open_hf
from medmind.infer.decode_llamacpp import LlamaCppDecoder
from medmind.infer.decoder import Decoder, Sampling, Work
from medmind.infer.hf import HfGenerator
from medmind.models.catalog import describe_folder, find_model
from medmind.models.load import load_tuned
from medmind.models.tokenizer import open_tokenizer
from medmind.prompts.families import open_renderer
from medmind.recipe.load import load_recipe
from medmind.serve.app import create_app
from medmind.serve.config import ServeConfig
from medmind.serve.engine import Engine, follow
from medmind.serve.open import Speaker, open_checkpoint, served
from medmind.serve.served import Index

PROMPTS = [(1, 3, 500 + n, *range(600, 600 + 40 * n)) for n in range(5)]
SLOTS, CONTEXT, NEW = 3, 400, 12


def write(open_decoder: Any, works: Sequence[Work]) -> list[tuple[list[int], list[float | None]]]:
    """All of them through an engine at once: their tokens, and the log-probabilities of prompt and reply."""
    engine = Engine(open_decoder, 64)
    engine.wait_ready()

    async def one(ticket: Any) -> tuple[list[int], list[float | None]]:
        new, judged = [], []
        async for update in follow(ticket):
            judged += [part.logprob for part in update.read]
            if update.new:
                new.append(update.new.token)
                judged.append(update.new.logprob)
        return new, judged

    async def together() -> list[Any]:
        return await asyncio.gather(*(one(ticket) for work in works for ticket in engine.submit([work])))

    try:
        return asyncio.run(together())
    finally:
        engine.close()


@pytest.fixture(scope="module")
def generator(wide_model: Path, wide_adapter: Path) -> HfGenerator:
    model = load_tuned(describe_folder(wide_model), wide_adapter, torch.float32)
    return HfGenerator(model, [2], str, 1)


def test_transformers_side_by_side_says_what_it_says_alone(
    wide_model: Path, wide_adapter: Path, generator: HfGenerator
) -> None:
    works = [Work(prompt, NEW, frozenset({2})) for prompt in PROMPTS]
    spec = describe_folder(wide_model)
    found = write(lambda: open_hf(spec, [wide_adapter], SLOTS, CONTEXT), works)
    for (new, _), alone in zip(found, generator.generate(PROMPTS, NEW), strict=True):
        assert tuple(token for token in new if token != 2) == alone.ids


def test_transformers_judges_as_the_generator_does(
    wide_model: Path, wide_adapter: Path, generator: HfGenerator
) -> None:
    spec = describe_folder(wide_model)
    works = [Work(prompt, 1, echo=True, top_logprobs=1) for prompt in PROMPTS]
    found = write(lambda: open_hf(spec, [wide_adapter], SLOTS, CONTEXT), works)
    for prompt, (new, judged) in zip(PROMPTS, found, strict=True):
        (wanted,) = generator.log_likelihoods([(prompt[:1], (*prompt[1:], new[0]))])
        assert judged[0] is None and len(judged) == len(prompt) + 1
        assert judged[1:] == pytest.approx(wanted, abs=1e-4)


def test_base_and_tuned_share_their_weights(wide_model: Path, wide_adapter: Path) -> None:
    spec = describe_folder(wide_model)
    opened: list[HfDecoder] = []

    def open_decoder() -> Decoder:
        opened.append(open_hf(spec, [wide_adapter], SLOTS, CONTEXT))
        return opened[-1]

    works = [Work(prompt, NEW, voice=voice) for prompt in PROMPTS for voice in ("", "base")]
    found = [new for new, _ in write(open_decoder, works)]
    base = [new for new, _ in write(lambda: open_hf(spec, [], SLOTS, CONTEXT), [Work(p, NEW) for p in PROMPTS])]
    assert found[1::2] == base
    assert found[::2] != base
    assert len(opened) == 1


def test_llamacpp_side_by_side_says_what_it_says_alone(gguf_file: Path) -> None:
    from medmind.infer.llamacpp import LlamaCppGenerator

    alone = LlamaCppGenerator(gguf_file, [2], CONTEXT, threads=1)
    works = [Work(prompt, NEW, frozenset({2})) for prompt in PROMPTS]
    found = write(lambda: LlamaCppDecoder(gguf_file, SLOTS, CONTEXT, threads=1), works)
    for (new, _), reply in zip(found, alone.generate(PROMPTS, NEW), strict=True):
        assert tuple(token for token in new if token != 2) == reply.ids
    works = [Work(prompt, 1, echo=True, top_logprobs=1) for prompt in PROMPTS]
    judged = write(lambda: LlamaCppDecoder(gguf_file, SLOTS, CONTEXT, threads=1), works)
    for prompt, (new, got) in zip(PROMPTS, judged, strict=True):
        (wanted,) = alone.log_likelihoods([(prompt[:1], (*prompt[1:], new[0]))])
        assert got[1:] == pytest.approx(wanted, abs=2e-3)


@pytest.mark.parametrize("last", [4, 64])
def test_penalties_count_the_same_tokens_in_either_engine(last: int, gguf_file: Path, wide_model: Path) -> None:
    """Those of the prompt too, as far back as they look."""
    spec = describe_folder(wide_model)
    sampling = Sampling(repeat_penalty=1.4, frequency_penalty=0.3, presence_penalty=0.2, repeat_last_n=last)
    works = [Work(prompt, NEW, sampling=sampling) for prompt in PROMPTS]
    plain = [Work(prompt, NEW) for prompt in PROMPTS]
    file, model = (
        write(open_one, works)
        for open_one in (lambda: LlamaCppDecoder(gguf_file, SLOTS, CONTEXT), lambda: open_hf(spec, [], SLOTS, CONTEXT))
    )
    assert [new for new, _ in file] == [new for new, _ in model]
    assert file != write(lambda: LlamaCppDecoder(gguf_file, SLOTS, CONTEXT), plain)


def test_a_file_of_llamacpp_has_the_vectors_of_its_checkpoint(gguf_file: Path) -> None:
    decoder = LlamaCppDecoder(gguf_file, 2, CONTEXT, threads=1)
    package, _, number = decoder.version.rpartition("-")
    assert number == version(package)
    decoder.begin(0, Work(PROMPTS[0], NEW))
    decoder.step()
    wanted = open_hf(describe_folder(gguf_file.parent / "merged"), [], 1, CONTEXT)
    for ids in (*PROMPTS, tuple(range(500, 500 + CONTEXT))):
        assert decoder.embed(ids) == pytest.approx(wanted.embed(ids), abs=2e-4)
    assert len(decoder.step()) == 1


def test_a_loose_file_is_spoken_to_as_its_base(gguf_file: Path, tmp_path: Path) -> None:
    """Whose it is must be said; a file with another's tokenizer is not served."""
    loose = tmp_path / "tiny.gguf"
    shutil.copy(gguf_file, loose)
    with pytest.raises(UsageError, match="what it was made from"):
        read_target(str(loose), [])
    target = read_target(str(loose), ["model=nano"])
    assert (target.name, target.recipe.model, target.rundir) == ("tiny", "nano", None)
    (model,) = open_targets([target], ServeConfig(max_concurrent=1))
    assert (model.name, model.engine.name, model.noted) == ("tiny", "llama.cpp", False)
    model.engine.close()
    other: Any = SimpleNamespace(blank="", vocab_size=100, encode=lambda text: list(text.encode()))
    with pytest.raises(DataError, match="another than the model's"):
        LlamaCppDecoder(loose, 1, CONTEXT, tokenizer=other)


def test_a_slot_that_was_left_holds_nothing_of_before(gguf_file: Path) -> None:
    decoder = LlamaCppDecoder(gguf_file, 2, CONTEXT, threads=1)

    def first_token(slot: int) -> int:
        decoder.begin(slot, Work(PROMPTS[3], NEW))
        while True:
            (step,) = decoder.step()
            if step.new:
                decoder.drop(slot)
                return step.new.token

    alone = first_token(0)
    decoder.begin(0, Work(PROMPTS[4], NEW))
    decoder.step()
    decoder.drop(0)
    assert first_token(0) == alone == first_token(1)
    assert decoder.step() == []


@pytest.mark.parametrize("engine", ["llama.cpp", "transformers"])
def test_heat_and_seed(engine: str, gguf_file: Path, wide_model: Path) -> None:
    spec = describe_folder(wide_model)

    def open_decoder() -> Decoder:
        if engine == "llama.cpp":
            return LlamaCppDecoder(gguf_file, 1, CONTEXT, threads=1)
        return open_hf(spec, [], 1, CONTEXT)

    hot = [Work(PROMPTS[0], NEW, sampling=Sampling(temperature=3.0, seed=seed)) for seed in (1, 1, 2)]
    same = [Work(PROMPTS[0], NEW, sampling=Sampling(temperature=3.0, top_k=1)), Work(PROMPTS[0], NEW)]
    narrow = [Work(PROMPTS[0], NEW, sampling=Sampling(temperature=3.0, top_p=1e-6))]
    never = [Work(PROMPTS[0], NEW, sampling=Sampling(repeat_penalty=10.0, presence_penalty=2.0))]
    found = [new for new, _ in write(open_decoder, [*hot, *same, *narrow, *never])]
    assert found[0] == found[1] != found[2]
    assert found[3] == found[4] == found[5] != found[0]
    assert len(set(found[6])) == NEW


def test_nano_answers_over_both_apis_with_its_own_words() -> None:
    spec = find_model("nano")
    renderer = open_renderer(spec.renderer, open_tokenizer(spec))
    speaker = Speaker("nano", spec, renderer, "", 0.0)
    config = ServeConfig(max_concurrent=2, max_new_tokens=8, redact_phi=False)
    models = open_checkpoint([(speaker, None)], Path(spec.source), config)
    question = [{"role": "user", "content": "What is rhinitis?"}]
    with serving(create_app(Index(models), config)) as url:
        chat = post(url, "/v1/chat/completions", model="nano", messages=question).json()
        line = post(url, "/api/chat", model="nano", messages=question, stream=False).json()
        vector = post(url, "/v1/embeddings", model="nano", input="nose").json()["data"][0]["embedding"]
    assert chat["choices"][0]["message"]["content"] == line["message"]["content"] != ""
    assert len(vector) == 256 and sum(part * part for part in vector) == pytest.approx(1, abs=1e-5)
    assert chat["system_fingerprint"].startswith("transformers-float32-")
    assert chat["system_fingerprint"].endswith(f"-{version('transformers')}-torch-{torch.__version__}")
    (model,) = models
    usual = served(speaker, model.engine, model.facts, ServeConfig())
    assert (usual.screened, model.screened) == (True, False)


def test_the_command_serves_as_its_first_target_says(monkeypatch: pytest.MonkeyPatch) -> None:
    apps: list[Any] = []
    server = SimpleNamespace(run=lambda sockets: apps.append(sockets))
    monkeypatch.setattr("medmind.serve.run.install", lambda: None)  # it holds for a whole process
    monkeypatch.setattr("medmind.serve.run.server", lambda app, _: (apps.append(app), server)[1])
    monkeypatch.setattr(cli, "open_targets", lambda *_: [Fake().served])
    sets = ["model=nano", "serve.port=11995", "serve.emergency_text=Ring the ward."]
    assert cli.answer([Target(load_recipe("base", sets)), Target(load_recipe("base", []))]) == 0
    question = [{"role": "user", "content": "I can't breathe"}]
    with serving(apps[0]) as url:
        found = post(url, "/v1/chat/completions", model="fake", messages=question).json()
    assert found["choices"][0]["medmind_added"] == "Ring the ward."


def test_targets_are_told_apart(tmp_path: Path) -> None:
    assert read_target("nano", ["model=other"]) == Target(load_recipe("base", ["model=nano"]))
    loose = tmp_path / "model.gguf"
    loose.write_bytes(b"GGUF")
    with pytest.raises(DataError, match="not a whole GGUF"):
        read_target(str(loose), ["model=nano"])
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text("extends: demo\n")
    with pytest.raises(UsageError, match="has not finished training"):
        read_target(str(tmp_path / "run"), [])
    args = argparse.Namespace(targets=["nano"], port=1, sets=["serve.host=0.0.0.0"])
    with pytest.raises(UsageError, match="there is no key"):
        cli.run(args)
