"""Self-agreement over several replies, and sentences held against their texts by a model of the user's own."""

import runpy
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny import tiny_mistral
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from medmind.core.errors import DataError, UsageError
from medmind.core.jsonl import read_json, read_jsonl, write_jsonl
from medmind.core.protocols import Progress
from medmind.core.rundir import RunDir
from medmind.core.types import Comparison, Completion, Example, Message, Outcome, Passage, Scores
from medmind.evaluate.agreement import Drawing, Sampled, agreement, agreement_metrics, sample_replies
from medmind.evaluate.compare import compare
from medmind.evaluate.config import EvaluateConfig
from medmind.evaluate.run import evaluate_model
from medmind.evaluate.support import judge_support, pieces
from medmind.infer.entail import Entailer, most_tokens, open_entailer
from medmind.infer.fake import FakeGenerator
from medmind.infer.hf import HfGenerator
from medmind.models.catalog import NANO, find_model
from medmind.models.tokenizer import open_tokenizer
from medmind.prompts.chat import Renderer
from medmind.prompts.families import open_renderer

OPTIONS = ("yes", "no", "maybe")


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    spec = find_model("nano")
    return open_renderer(spec.renderer, open_tokenizer(spec))


def question(number: int, task: str = "choice") -> Example:
    return Example(
        id=f"q{number}",
        source="s",
        task=task,
        turns=(Message(role="user", text=f"Question {number}?"),),
        passages=(Passage(id="p", text="Rest helps. Drink enough water."),),
        options=OPTIONS if task == "choice" else (),
        target=OPTIONS[number % 2] if task == "choice" else "Rest helps.",
    )


class Drawer(FakeGenerator):
    """Draws one of a few replies by its seed alone; greedy it says what it is told."""

    replies: Sequence[str] = ("Yes.", "No.", "Perhaps.")

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        temperature: float,
        seeds: Sequence[int],
        progress: Progress | None = None,
    ) -> list[Completion]:
        self.drawn = len(prompts)
        return [Completion(text=self.replies[seed % len(self.replies)], ids=(5,), stopped=True) for seed in seeds]


def sampled(*answers: str, texts: Sequence[str] = ()) -> Sampled:
    outcomes = tuple(Outcome.ANSWERED if answer else Outcome.MALFORMED for answer in answers)
    return Sampled(id="q", texts=tuple(texts or answers), answers=answers, outcomes=outcomes)


def test_agreement_by_hand() -> None:
    assert agreement(sampled("yes", "yes", "no"), "choice") == pytest.approx(1 / 3)
    assert agreement(sampled("yes", "yes", "yes"), "choice") == 1
    assert agreement(sampled("", "", ""), "choice") == 0  # what could not be read agrees with nothing
    assert agreement(sampled("a", "b", texts=("rest and drink", "rest and eat")), "qa") == pytest.approx(2 / 3)
    metric = agreement_metrics([sampled("yes", "yes"), sampled("yes", "no")], "choice", 0)["self_agreement"]
    assert (metric.value, metric.n) == (0.5, 2)
    assert agreement_metrics([], "choice", 0) == {}


def test_a_random_answerer_agrees_by_chance(renderer: Renderer) -> None:
    examples = [question(number) for number in range(300)]
    generator = Drawer(renderer.tokenizer, lambda _: "Yes.")
    generator.replies = ("Yes.", "No.", "Maybe.")
    prompts = [(1, 5)] * 300
    rows = sample_replies(generator, renderer, examples, prompts, Drawing(4, 1.0, 8, 0))
    assert agreement_metrics(rows, "choice", 0)["self_agreement"].value == pytest.approx(1 / 3, abs=0.05)
    assert rows == sample_replies(generator, renderer, examples, prompts, Drawing(4, 1.0, 8, 0))
    assert rows != sample_replies(generator, renderer, examples, prompts, Drawing(4, 1.0, 8, 1))


@pytest.mark.parametrize("task", ["choice", "qa"])
def test_a_prompt_without_room_agrees_with_nothing_and_it_is_said(
    task: str, renderer: Renderer, capsys: pytest.CaptureFixture[str]
) -> None:
    generator = Drawer(renderer.tokenizer, lambda _: "Yes.", context=8)
    generator.replies = ("Yes.",)
    rows = sample_replies(
        generator, renderer, [question(n, task) for n in range(3)], [(5,) * 7, (5,) * 8, (5,)], Drawing(2, 1.0, 8, 0)
    )
    assert (generator.drawn, [row.id for row in rows]) == (4, ["q0", "q1", "q2"])
    assert rows[1].texts == rows[1].answers == ("", "")
    assert rows[1].outcomes == (Outcome.TRUNCATED, Outcome.TRUNCATED)
    metric = agreement_metrics(rows, task, 0)["self_agreement"]
    assert (metric.value, metric.n) == (pytest.approx(2 / 3), 3)
    assert "1 of 3 prompts fill the model's 8 tokens: no reply is possible" in " ".join(capsys.readouterr().err.split())


def test_drawn_replies_hang_on_their_seed_alone() -> None:
    model = tiny_mistral(0, vocab_size=97, max_position_embeddings=64, initializer_range=0.5)
    prompts = [[5, 9, 11], [7], [5, 9, 11], [40, 41, 42, 43]]
    seeds = [1, 2, 3, 4]
    show = lambda ids: " ".join(map(str, ids))  # noqa: E731
    found = [HfGenerator(model, [], show, size).sample(prompts, 12, 1.0, seeds) for size in (1, 4)]
    assert found[0] == found[1]
    assert found[0][0].text != found[0][2].text  # the same prompt, another seed
    turned = HfGenerator(model, [], show, 2).sample(prompts[::-1], 12, 1.0, seeds[::-1])
    assert turned == found[0][::-1]
    cold = HfGenerator(model, [], show).sample(prompts, 12, 1e-6, seeds)
    assert cold == HfGenerator(model, [], show).generate(prompts, 12)


def test_samples_are_drawn_with_the_models_own_chances() -> None:
    model = tiny_mistral(0, vocab_size=97, max_position_embeddings=64, initializer_range=0.5)
    generator = HfGenerator(model, [], lambda ids: str(ids[0]), 500)
    drawn = generator.sample([[5, 9, 11]] * 2000, 1, 1.0, range(2000))
    with torch.no_grad():
        chances = model(torch.tensor([[5, 9, 11]])).logits[0, -1].softmax(-1)
    likeliest = int(chances.argmax())
    share = sum(one.ids == (likeliest,) for one in drawn) / 2000
    assert share == pytest.approx(float(chances[likeliest]), abs=0.04)


class Overlap:
    """A support model of this test's own: a sentence follows where the text has it word for word."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, pairs: Sequence[tuple[str, str]], progress: Progress | None = None) -> list[float]:
        self.asked += len(pairs)
        return [float(sentence in text) for text, sentence in pairs]


def run_both(root: Path, renderer: Renderer, config: EvaluateConfig, entails: Overlap | None = None) -> RunDir:
    run = RunDir(root)
    write_jsonl(run.suite("choices"), [question(number) for number in range(20)])
    write_jsonl(run.suite("free"), [question(number, "qa") for number in range(20)])
    for which, said in (("base", "Rest helps. Pray to moons."), ("tuned", "Rest helps. Drink enough water.")):
        generator = Drawer(renderer.tokenizer, lambda _, said=said: said)
        generator.replies = ("Yes.", "No.") if which == "base" else ("Yes.",)
        evaluate_model(config, run, which, "nano", generator, renderer, "", 0, entails=entails)
    return run


def test_both_reach_the_scores_and_the_comparison(tmp_path: Path, renderer: Renderer) -> None:
    config = EvaluateConfig(samples=3, support_model="mine", max_new_tokens=40)
    overlap = Overlap()
    run = run_both(tmp_path, renderer, config, overlap)
    compare(config, run)
    scores = {
        (suite, which): Scores.model_validate(read_json(run.scores(suite, which))).metrics
        for suite in ("choices", "free")
        for which in ("base", "tuned")
    }
    asked = {suite: read_json(run.scores(suite, "tuned"))["asked"] for suite in ("choices", "free")}
    assert read_json(run.scores("free", "tuned"))["max_new_tokens"] == 40
    assert asked["choices"] == {"choice_accuracy": "lm-eval", "self_agreement": "temperature 0.7"}
    assert asked["free"] == {"self_agreement": "temperature 0.7", "unsupported_nli": "mine"}
    assert scores["choices", "tuned"]["self_agreement"].value == 1
    assert 0.3 < scores["choices", "base"]["self_agreement"].value < 0.9
    assert "unsupported_nli" not in scores["choices", "base"]  # a choice is no sentence
    assert [scores["free", which]["unsupported_nli"].value for which in ("base", "tuned")] == [0.5, 0.0]
    for file in (run.samples("free", "base"), run.support("free", "base")):
        assert len(list(read_jsonl(file))) == 20
    found = Comparison.model_validate(read_json(run.comparison("free")))
    others = {one.metric: one for one in found.others}
    assert (others["unsupported_nli"].verdict, others["unsupported_nli"].difference) == ("better", -0.5)
    assert others["self_agreement"].verdict == "better"
    judged = overlap.asked
    run_both(tmp_path, renderer, config, overlap)  # nothing is judged again
    assert overlap.asked == judged > 0


def test_an_engine_without_chance_says_so(
    tmp_path: Path, renderer: Renderer, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunDir(tmp_path)
    write_jsonl(run.suite("choices"), [question(number) for number in range(5)])
    generator = FakeGenerator(renderer.tokenizer, lambda _: "Yes.")
    evaluate_model(EvaluateConfig(samples=2), run, "base", "nano", generator, renderer, "", 0)
    assert "no self-agreement: fake answers without chance" in " ".join(capsys.readouterr().err.split())
    assert not run.samples("choices", "base").exists()
    assert EvaluateConfig(samples=1).conflicts() == ["evaluate.samples: 1 reply agrees with nothing; at least two"]


def classifier(folder: Path, labels: Sequence[str], **changes: int) -> Path:
    """A random classifier of two layers with nano's vocabulary."""
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64} | changes
    config = BertConfig(
        vocab_size=8192, max_position_embeddings=64, id2label=dict(enumerate(labels)), initializer_range=0.5, **shape
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(NANO / "tokenizer.json"), pad_token="<unk>")
    tokenizer.model_max_length = 512
    tokenizer.save_pretrained(folder)
    return folder


LABELS = ("contradiction", "neutral", "entailment")
PAIRS = [("Rest helps. Drink enough water.", "Rest helps."), ("Rest helps.", "Pray to the moon."), ("a", "b")]


def test_a_classifier_in_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entails = open_entailer(str(classifier(tmp_path / "nli", LABELS)))
    together = entails(PAIRS)
    assert together == pytest.approx([entails([pair])[0] for pair in PAIRS], abs=1e-5)  # padding changes nothing
    assert all(0 < chance < 1 for chance in together) and len(set(together)) == 3
    read = entails._tokenizer([PAIRS[0]], return_tensors="pt")
    with torch.no_grad():
        expected = entails._model(**read).logits.softmax(1)[0, 2]
    assert together[0] == pytest.approx(float(expected), abs=1e-5)
    capsys.readouterr()
    entails([("word " * 300, "It is so.")])
    assert "1 of 1 texts exceed the support model's 64 tokens" in " ".join(capsys.readouterr().err.split())
    for long in (("It is so.", "word " * 300), ("word " * 300, "word " * 300)):  # a sentence without an end
        assert 0 < entails([long])[0] < 1
    alone = open_entailer(str(classifier(tmp_path / "one", ("LABEL_0",))))
    assert all(0 < chance < 1 for chance in alone(PAIRS))


def test_perturbed_gold_answers_tell_how_good_it_is(tmp_path: Path) -> None:
    bench = runpy.run_path(str(Path(__file__).parent.parent / "bench" / "grounded.py"))
    detect = bench["by_model"](str(classifier(tmp_path / "nli", LABELS)))
    bad, sentences = detect("Rest helps. Pray to moons.", ["Rest helps.", "Drink."])
    entails = open_entailer(str(tmp_path / "nli"))
    chances = [max(entails([("Rest helps.", part), ("Drink.", part)])) for part in ("Rest helps.", "Pray to moons.")]
    assert (bad, sentences) == (sum(chance < 0.5 for chance in chances), 2)
    cases = [bench["Case"](f"Take {n} mg of it daily. It is good.", ["It is good."], "it") for n in range(10, 16)]
    whole = [case.answer for case in cases]
    found = bench["measure"](cases, "dose", 0, lambda text, _: (int(text not in whole), 1))
    assert (found["n"], found["auroc"]["value"], found["caught"], found["flagged_gold"]) == (6, 1.0, 1.0, 0.0)
    found = bench["measure"](cases, "dose", 0, lambda text, _: (int(text in whole), 1))
    assert (found["auroc"]["value"], found["caught"], found["flagged_gold"]) == (0.0, 0.0, 1.0)


def test_how_much_a_classifier_reads(tmp_path: Path) -> None:
    tokenizer = open_entailer(str(classifier(tmp_path / "nli", LABELS)))._tokenizer
    tokenizer.model_max_length = 10**30  # where nobody said
    shape = {"vocab_size": 8192, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = RobertaConfig(**shape, intermediate_size=64, max_position_embeddings=66, id2label=dict(enumerate(LABELS)))
    entails = Entailer(RobertaForSequenceClassification(config), tokenizer, "mine")
    assert 0 < entails([("word " * 300, "It is so.")])[0] < 1  # two of its 66 places are no tokens
    assert most_tokens(entails._model, tokenizer) == 64
    assert most_tokens(SimpleNamespace(config=None), tokenizer) == 512


def test_what_is_no_such_classifier_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="none of its classes is called entailment or supported or consistent: bad, g"):
        open_entailer(str(classifier(tmp_path / "other", ("bad", "good"))))
    folder = classifier(tmp_path / "nli", LABELS)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(DataError, match="only safetensors"):
        open_entailer(str(folder))
    from transformers import BertModel

    headless = classifier(tmp_path / "headless", LABELS)
    BertModel(BertConfig.from_pretrained(headless)).save_pretrained(headless)
    with pytest.raises(DataError, match="not a trained classifier"):
        open_entailer(str(headless))


def test_long_texts_are_held_up_in_pieces() -> None:
    long = " ".join(f"Sentence {number} says a thing or two about it." for number in range(100))
    found = pieces([long, "Short."])
    assert found[-1] == "Short." and len(found) == 6
    assert all(len(piece.split()) <= 200 for piece in found)
    assert " ".join(found[:-1]) == long
    assert judge_support(Overlap(), [], []) == []
