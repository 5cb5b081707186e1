"""Published protocols of forced choice: prompts to the letter, every answer judged once, figures side by side."""

import csv
import gzip
import importlib.util
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from medmind.core.errors import DataError
from medmind.core.jsonl import read_json, read_jsonl, write_jsonl
from medmind.core.rundir import RunDir
from medmind.core.sampling import stratified
from medmind.core.types import Example, Message, Passage, Prediction, Scores
from medmind.data.config import DataConfig
from medmind.data.sources.known import SOURCES
from medmind.data.sources.seam import Row
from medmind.evaluate.config import EvaluateConfig
from medmind.evaluate.forced import chat_questions, choose, raw_questions
from medmind.evaluate.protocols.biomistral import BioMistral
from medmind.evaluate.protocols.helm import Helm
from medmind.evaluate.protocols.lm_eval import LmEval
from medmind.evaluate.run import evaluate_model
from medmind.infer.fake import FakeGenerator
from medmind.models.catalog import find_model
from medmind.models.tokenizer import open_tokenizer
from medmind.prompts.chat import Renderer
from medmind.prompts.families import open_renderer

LM_EVAL = Path(os.environ.get("LM_EVAL", "runs/lm_eval")) / "lm_eval" / "tasks"
ANSWERS = ("yes", "no", "maybe")


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return open_renderer("mistral-v3", open_tokenizer(find_model("nano")))


def pubmed(number: int = 0, target: str = "no", text: str = "Do mitochondria play a role?") -> Example:
    return Example(
        id=f"p{number}",
        source="pubmedqa",
        task="choice",
        turns=(Message(role="user", text=text),),
        passages=(
            Passage(id="1", text="Leaves die.", title="BACKGROUND"),
            Passage(id="2", text="They were seen.", title="RESULTS"),
        ),
        options=ANSWERS,
        target=target,
    )


def exam(source: str, **metadata: Any) -> Example:
    return Example(
        id="e",
        source=source,
        task="multiple_choice",
        turns=(Message(role="user", text="Which vitamin?"),),
        options=("A1", "B2", "C3", "D4"),
        target="C",
        metadata=metadata,
    )


LISTED = "A. A1\nB. B2\nC. C3\nD. D4\nAnswer:"
ABOUT = "The following are multiple choice questions (with answers) about"


@pytest.mark.parametrize(
    ("example", "context", "continuations"),
    [
        (
            pubmed(),
            "Abstract: Leaves die.\nThey were seen.\nQuestion: Do mitochondria play a role?\nAnswer:",
            (" yes", " no", " maybe"),
        ),
        (exam("medqa"), f"Question: Which vitamin?\n{LISTED}", (" A", " B", " C", " D")),
        (exam("medmcqa"), f"Question: Which vitamin?\nChoices:\n{LISTED}", (" A", " B", " C", " D")),
        (
            exam("mmlu_medical", category="college_medicine"),
            f"{ABOUT} college medicine.\n\nWhich vitamin?\n{LISTED}",
            (" A", " B", " C", " D"),
        ),
    ],
)
def test_lm_eval_to_the_letter(example: Example, context: str, continuations: tuple[str, ...]) -> None:
    asked = LmEval().ask(example)
    assert asked
    assert (asked.context, asked.continuations) == (context, continuations)


def test_blanks_the_data_stage_took_away_are_asked_all_the_same() -> None:
    raw = {"question": " Which? ", "options": ["A1 ", "B2", "C3", "D4"]}
    asked = LmEval().ask(exam("medqa", raw=raw))
    assert asked
    assert asked.context == "Question:  Which? \nA. A1 \nB. B2\nC. C3\nD. D4\nAnswer:"


def test_helm_and_biomistral_to_the_letter() -> None:
    asked = Helm().ask(pubmed())
    assert asked
    assert asked.context == (
        "Answer A for yes, B for no or C for maybe. Do not include any explanation or additional text. "
        "Output only the letter on a single line.\n\n"
        "Question: Context: Background. Leaves die.\nResults. They were seen.\n\n"
        "Question: Do mitochondria play a role?\n\nA. yes\nB. no\nC. maybe\nAnswer:"
    )
    assert (asked.continuations, asked.answers) == ((" A", " B", " C"), ANSWERS)
    shown = BioMistral([pubmed(n, "maybe", f"Shot {n}?") for n in range(3)]).ask(pubmed(9))
    assert shown
    block = "Leaves die. They were seen. \n **Question:** {} \n (A) yes \n (B) no \n (C) maybe \n **Answer:**("
    shots = "".join(f"{block.format(f'Shot {n}?')}C \n " for n in range(3))
    about = "The following are multiple choice questions (with answers) about medical knowledge. \n "
    assert shown.context == about + shots + block.format("Do mitochondria play a role?")
    assert shown.continuations == ("A", "B", "C")


def theirs(path: str) -> Callable[[dict[str, Any]], str]:
    """lm-eval's own function, where its package lies."""
    if not (LM_EVAL / path).is_file():
        pytest.skip(f"needs lm-eval 0.4.13 in {LM_EVAL.parent.parent} (or LM_EVAL)")
    spec = importlib.util.spec_from_file_location("theirs", LM_EVAL / path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Callable[[dict[str, Any]], str] = module.doc_to_text
    return found


def read_tests(source: str, path: Path) -> list[Example]:
    rows = SOURCES.get(source).read(DataConfig(source=source, path=str(path)))
    return [row.example for row in rows if isinstance(row, Row) and row.part in ("test", None)]


def contexts(examples: Sequence[Example]) -> list[str]:
    asked = [LmEval().ask(example) for example in examples]
    return [one.context for one in asked if one]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.open(path, "rt", encoding="utf-8", newline="\n")]


def test_every_prompt_is_the_one_lm_eval_makes_of_the_published_file(shared_data: Path) -> None:
    pubmedqa = theirs("pubmedqa/preprocess_pubmedqa.py")
    path = shared_data / "pubmedqa" / "ori_pqal.json.gz"
    raw = json.loads(gzip.decompress(path.read_bytes()))
    found = read_tests("pubmedqa", path)
    assert contexts(found) == [pubmedqa(raw[example.id]) for example in found]
    assert len(found) == 500
    path = shared_data / "medmcqa" / "dev.json.gz"
    assert contexts(read_tests("medmcqa", path)) == list(map(theirs("medmcqa/utils_medmcqa.py"), lines(path)))
    path = shared_data / "medqa" / "phrases_no_exclude_test.jsonl.gz"
    docs = [
        {"sent1": row["question"]} | {f"ending{n}": row["options"][name] for n, name in enumerate("ABCD")}
        for row in lines(path)
    ]
    assert contexts(read_tests("medqa", path)) == list(map(theirs("medqa/preprocess_medqa.py"), docs))


def test_every_mmlu_prompt_but_the_repaired_ones_is_lm_evals(shared_data: Path) -> None:
    found = set(contexts(read_tests("mmlu_medical", shared_data / "mmlu")))
    for path in sorted((shared_data / "mmlu").glob("*_test.csv")):
        about = f"{ABOUT} {path.name.removesuffix('_test.csv').replace('_', ' ')}.\n\n"
        with open(path, encoding="utf-8", newline="") as file:
            for question, *options, _ in csv.reader(file):
                listed = "".join(f"{name}. {text}\n" for name, text in zip("ABCD", options, strict=True))
                found.discard(f"{about}{question.strip()}\n{listed}Answer:")
    assert len(found) == 2  # byte-order marks inside the text, and a line ended as Windows does


class Leaning(FakeGenerator):
    """Likes a continuation the better, the larger its last id; counts what it is asked."""

    judged = 0

    def log_likelihoods(self, rows: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[float]]:
        self.judged += len(rows)
        assert all(len(before) + len(after) <= self.context + 1 for before, after in rows)
        return [[-1.0 / (1 + after[-1])] * len(after) for _, after in rows]


@pytest.fixture
def rundir(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path / "run")
    write_jsonl(run.suite("pubmedqa"), [pubmed(n, ANSWERS[n // 12 % 3], f"Question {n}?") for n in range(36)])
    write_jsonl(run.split("train"), [pubmed(100 + n, "yes", f"Solved {n}?") for n in range(9)])
    return run


def evaluate(
    run: RunDir, renderer: Renderer, protocols: tuple[str, ...], reply: str = "Yes.", context: int = 4096
) -> tuple[Leaning, Scores]:
    generator = Leaning(renderer.tokenizer, lambda _: reply, context=context)
    config = EvaluateConfig.model_validate({"protocols": protocols, "max_new_tokens": 20})
    evaluate_model(config, run, "base", "nano", generator, renderer, "", 0)
    return generator, Scores.model_validate(read_json(run.scores("pubmedqa", "base")))


def test_protocols_stand_side_by_side(rundir: RunDir, renderer: Renderer) -> None:
    every = ("lm-eval", "helm", "biomistral", "chat", "yes-no-100")
    _, scores = evaluate(rundir, renderer, every)
    drawn = ["biomistral-1", "biomistral-2", "biomistral-3"]
    assert list(scores.protocols) == ["lm-eval", "helm", *drawn, "chat", "yes-no-100"]
    names = list(scores.metrics)
    assert names[:4] == ["accuracy", "parse_rate", "accuracy_if_parsed", "choice_accuracy"]
    assert scores.metrics["choice_accuracy"] == scores.protocols["lm-eval"]
    for name in scores.protocols:
        rows = list(read_jsonl(rundir.protocol("pubmedqa", "base", name)))
        assert scores.protocols[name].n == len(rows) == (24 if name == "yes-no-100" else 36)
        assert scores.protocols[name].value == pytest.approx(sum(row["correct"] for row in rows) / len(rows))
    first = next(read_jsonl(rundir.protocol("pubmedqa", "base", "lm-eval")))
    told = Prediction.model_validate(next(read_jsonl(rundir.predictions("pubmedqa", "base"))))
    assert list(told.logprobs or ()) == first["logprobs"]
    assert first["answer"] == ANSWERS[first["logprobs"].index(max(first["logprobs"]))]


def test_nothing_is_asked_twice_and_another_protocol_costs_no_reply(rundir: RunDir, renderer: Renderer) -> None:
    evaluate(rundir, renderer, ("lm-eval",))
    generator, _ = evaluate(rundir, renderer, ("lm-eval",), "No.")
    assert (generator.judged, generator.asked) == (0, [])
    generator, scores = evaluate(rundir, renderer, ("helm", "lm-eval"), "No.")
    assert (generator.judged, generator.asked) == (36 * 3, [])
    assert scores.metrics["choice_accuracy"] == scores.protocols["helm"]
    assert next(read_jsonl(rundir.predictions("pubmedqa", "base")))["text"] == "Yes."
    generator, scores = evaluate(rundir, renderer, (), "No.")
    assert (generator.judged, scores.protocols) == (0, {})
    assert "choice_accuracy" not in scores.metrics


def test_without_solved_questions_biomistral_is_left_out_aloud(
    rundir: RunDir, renderer: Renderer, capsys: pytest.CaptureFixture[str]
) -> None:
    rundir.split("train").unlink()
    _, scores = evaluate(rundir, renderer, ("lm-eval", "biomistral"))
    assert list(scores.protocols) == ["lm-eval"]
    assert "biomistral is left out" in " ".join(capsys.readouterr().err.split())


def test_too_long_a_prompt_loses_its_beginning_aloud(
    rundir: RunDir, renderer: Renderer, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate(rundir, renderer, ("lm-eval",), context=16)
    assert "36 of 36 prompts lose their beginning" in " ".join(capsys.readouterr().err.split())


def test_the_published_yes_no_test_is_drawn_by_answer(rundir: RunDir, renderer: Renderer) -> None:
    labels = ["yes"] * 300 + ["no"] * 200
    rows = [pubmed(n, label, f"Question {n}?") for n, label in enumerate(labels)]
    write_jsonl(rundir.suite("pubmedqa"), [*rows[250:], *rows[:250]])  # sorted, it would be refused: no maybe
    generator, scores = evaluate(rundir, renderer, ("lm-eval", "yes-no-100"), "Well, no: yes and more and more words")
    rows = list(read_jsonl(rundir.protocol("pubmedqa", "base", "yes-no-100")))
    assert [sum(row["id"] in {f"p{n}" for n in part} for row in rows) for part in (range(300), range(300, 500))] == [
        60,
        40,
    ]
    assert {row["answer"] for row in rows} == {"no"}
    assert scores.protocols["yes-no-100"].value == 0.4
    asked = [text for text in generator.asked if "### Response" in text]
    wording = "### Instruction:\nAnswer the following medical question concisely.\n\nQuestion: Question {}?\n\n"
    assert asked[0].endswith(wording.format(rows[0]["id"][1:]) + "### Response:\n")
    assert len(renderer.tokenizer.encode(rows[0]["text"])) == 10


def test_the_head_of_a_sorted_file_is_refused(
    rundir: RunDir, renderer: Renderer, capsys: pytest.CaptureFixture[str]
) -> None:
    write_jsonl(rundir.suite("pubmedqa"), [pubmed(n, "yes", f"Question {n}?") for n in range(100)])
    with pytest.raises(DataError, match=r'all 100 answers are "yes".*would score 100 %'):
        evaluate(rundir, renderer, ("lm-eval",))
    official = ["yes"] * 276 + ["no"] * 169 + ["maybe"] * 55
    rows = [pubmed(n, label, f"Question {n}?") for n, label in enumerate(official)]
    write_jsonl(rundir.suite("pubmedqa"), rows[:400])
    with pytest.raises(DataError, match=r'the 400 answers stand sorted, and none is "maybe", .*pubmedqa.jsonl'):
        evaluate(rundir, renderer, ("lm-eval", "yes-no-100"))
    write_jsonl(rundir.suite("pubmedqa"), rows)
    evaluate(rundir, renderer, ("lm-eval",))  # the whole file may be sorted
    write_jsonl(rundir.suite("pubmedqa"), [pubmed(n, "yes", f"Question {n}?") for n in range(3)])
    evaluate(rundir, renderer, ("lm-eval",))
    assert 'all 3 answers are "yes"' in " ".join(capsys.readouterr().err.split())
    with pytest.raises(DataError, match="every answer is"):
        evaluate(rundir, renderer, ("lm-eval", "yes-no-100"))


def test_a_stratified_sample_keeps_the_shares() -> None:
    labels = ["yes"] * 276 + ["no"] * 169 + ["maybe"] * 55
    places = stratified(labels, 100, 1)
    assert [sum(labels[place] == name for place in places) for name in ANSWERS] == [55, 34, 11]
    assert places == sorted(set(places)) != stratified(labels, 100, 2)
    assert stratified(labels[:5], 100, 0) == [0, 1, 2, 3, 4]


def test_questions_are_divided_where_lm_eval_divides_them(renderer: Renderer) -> None:
    (question,) = raw_questions(renderer, LmEval(), [pubmed()])
    bos = renderer.tokenizer.token_id("<s>")
    text = LmEval().ask(pubmed())
    assert text
    for answer, (before, after) in zip(ANSWERS, question.pairs, strict=True):
        assert before == (bos, *renderer.tokenizer.encode(text.context))
        assert renderer.tokenizer.decode(after) == f" {answer}"
    (spoken,) = chat_questions(renderer, [pubmed()], "Be brief.")
    assert [renderer.tokenizer.decode(after).strip() for _, after in spoken.pairs] == ["Yes", "No", "Maybe"]
    assert spoken.pairs[0][0][-1] == renderer.tokenizer.token_id("[/INST]")


def test_sharing_passes_changes_no_figure(renderer: Renderer, tiny_model: Path) -> None:
    """The fast way beside its slow twin: each answer judged alone in a pass of its own."""
    from transformers import AutoModelForCausalLM

    from medmind.infer.hf import HfGenerator

    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    generator = HfGenerator(model, renderer.stop_ids, renderer.read)
    questions = raw_questions(renderer, LmEval(), [pubmed(n, "no", f"Is it {'so ' * n}?") for n in range(40)])
    for question, chosen in zip(questions, choose(generator, questions), strict=True):
        alone = [sum(generator.log_likelihoods([pair])[0]) for pair in question.pairs]
        assert chosen.logprobs == pytest.approx(alone, abs=1e-4)
