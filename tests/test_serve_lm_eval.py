"""PubMedQA by lm-eval's own task and model class over the server, row by row against the evaluation in process."""

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from serving import serving

from medmind.core.jsonl import write_jsonl
from medmind.core.protocols import Generator
from medmind.core.sampling import sample
from medmind.data.config import DataConfig
from medmind.data.sources.known import SOURCES
from medmind.data.sources.seam import Row
from medmind.evaluate.forced import Chosen, Question, choose, raw_questions
from medmind.evaluate.protocols.lm_eval import LmEval
from medmind.export.merge import merge
from medmind.infer.open import open_generator
from medmind.models.catalog import describe_folder, find_model
from medmind.models.spec import ModelSpec
from medmind.models.tokenizer import open_tokenizer
from medmind.prompts.families import open_renderer
from medmind.serve.app import create_app
from medmind.serve.config import ServeConfig
from medmind.serve.open import Speaker, open_checkpoint
from medmind.serve.served import Index

pytestmark = pytest.mark.slow
ROWS, SEED = 50, 7
NANO = find_model("nano")
RENDERER = open_renderer(NANO.renderer, open_tokenizer(NANO))
SETTINGS = {"model": "wide", "max_length": NANO.context, "batch_size": 3}
TASK = """\
include: {theirs}
task: pubmedqa_here
dataset_path: json
dataset_name: null
dataset_kwargs: {{data_files: {{test: {rows}}}}}
training_split: null
validation_split: null
"""
"""lm-eval's own task over rows on this machine."""


@pytest.fixture(scope="module")
def completions() -> Any:
    return pytest.importorskip("lm_eval.models.openai_completions", reason="needs lm-eval[api]").LocalCompletionsAPI


@pytest.fixture(scope="module")
def spec(wide_model: Path) -> ModelSpec:
    """Random weights, which give all three answers; nano says no to everything."""
    return describe_folder(wide_model)


@pytest.fixture(scope="module")
def url(spec: ModelSpec) -> Iterator[str]:
    config = ServeConfig(max_concurrent=4, redact_phi=False)
    models = open_checkpoint([(Speaker("wide", spec, RENDERER, "", 0.0), None)], Path(spec.source), config)
    with serving(create_app(Index(models), config)) as address:
        yield address


@pytest.fixture(scope="module")
def generator(spec: ModelSpec) -> Generator:
    return open_generator(spec, None, RENDERER)


@pytest.fixture(scope="module")
def exported(spec: ModelSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `tokenizer=` names: a checkpoint as the export writes it."""
    folder = tmp_path_factory.mktemp("export") / "merged"
    merge(spec, Path(spec.source), folder)
    return folder


@dataclass(frozen=True)
class Suite:
    """The same rows for both."""

    questions: list[Question]
    task: Path


@pytest.fixture(scope="module")
def suite(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Suite:
    import lm_eval

    path = shared_data / "pubmedqa" / "ori_pqal.json.gz"
    rows = SOURCES.get("pubmedqa").read(DataConfig(source="pubmedqa", path=str(path)))
    asked = raw_questions(
        RENDERER, LmEval(), [one.example for one in rows if isinstance(one, Row) and one.part == "test"]
    )
    whole = [one for one in asked if max(len(before) + len(after) for before, after in one.pairs) < NANO.context]
    assert len(asked) == 500 and len(whole) > 490
    drawn = [whole[place] for place in sample(len(whole), ROWS, SEED)]
    folder = tmp_path_factory.mktemp("task")
    published = json.loads(gzip.decompress(path.read_bytes()))
    kept = ("CONTEXTS", "QUESTION", "final_decision")
    write_jsonl(folder / "rows.jsonl", [{name: published[one.id][name] for name in kept} for one in drawn])
    theirs = Path(lm_eval.__file__).parent / "tasks" / "pubmedqa" / "pubmedqa.yaml"
    (folder / "pubmedqa_here.yaml").write_text(TASK.format(theirs=theirs, rows=folder / "rows.jsonl"))
    return Suite(drawn, folder)


def by_lm_eval(suite: Suite, model: Any) -> list[tuple[str, list[float]]]:
    """Of each row the likeliest answer and all three sums."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    found = lm_eval.simple_evaluate(
        model, tasks=["pubmedqa_here"], task_manager=TaskManager(include_path=str(suite.task)), bootstrap_iters=0
    )
    rows = sorted(found["samples"]["pubmedqa_here"], key=lambda row: row["doc_id"])
    sums = [[float(one[0][0]) for one in row["resps"]] for row in rows]
    answers = [suite.questions[0].answers[row.index(max(row))] for row in sums]
    right = [answer == one.right for answer, one in zip(answers, suite.questions, strict=True)]
    assert [row["acc"] for row in rows] == right
    assert found["results"]["pubmedqa_here"]["acc,none"] == pytest.approx(sum(right) / len(right))
    return list(zip(answers, sums, strict=True))


def same(found: list[tuple[str, list[float]]], chosen: list[Chosen]) -> None:
    assert len(found) == len(chosen) == ROWS
    assert [answer for answer, _ in found] == [one.answer for one in chosen]
    for (_, sums), one in zip(found, chosen, strict=True):
        assert sums == pytest.approx(one.logprobs, abs=1e-3)
    assert len({one.answer for one in chosen}) == 3


def without_bos(question: Question) -> Question:
    return replace(question, pairs=tuple((before[1:], after) for before, after in question.pairs))


@pytest.mark.parametrize(
    "settings", [{"add_bos_token": True}, {"tokenized_requests": False}], ids=["tokenizer", "texts"]
)
def test_pubmedqa_is_judged_as_in_process(
    settings: dict[str, Any], completions: Any, url: str, suite: Suite, exported: Path, generator: Generator
) -> None:
    """With the exported tokenizer, and with none: the server's own, its BOS put there by the server."""
    own = {"tokenizer": str(exported)} if "add_bos_token" in settings else {}
    model = completions(base_url=f"{url}/v1/completions", **SETTINGS, **own, **settings)
    same(by_lm_eval(suite, model), choose(generator, suite.questions))


def test_the_remote_tokenizer_puts_no_bos(completions: Any, url: str, suite: Suite, generator: Generator) -> None:
    """Which lm-eval takes by itself; the sums are those of the same ids in process."""
    model = completions(base_url=f"{url}/v1/completions", **SETTINGS)
    assert model.tokenizer_backend == "remote"
    same(by_lm_eval(suite, model), choose(generator, [without_bos(one) for one in suite.questions]))


def test_an_empty_context_begins_with_bos(completions: Any, url: str, exported: Path, generator: Generator) -> None:
    from lm_eval.api.instance import Instance

    text = " The nose: naïve, 鼻炎."
    ids = RENDERER.tokenizer.encode(text)
    (alone,) = generator.log_likelihoods([([1], ids)])
    for settings in ({"tokenizer": str(exported)}, {}):
        model = completions(base_url=f"{url}/v1/completions", **SETTINGS, **settings)
        assert (model.prefix_token_id, model.eot_token_id) == (1, 2)
        ((total, _),) = model.loglikelihood([Instance("loglikelihood", {}, ("", text), 0)])
        assert total == pytest.approx(sum(alone), abs=1e-4)
    (rolling,) = model.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, (text,), 0)])
    assert rolling == pytest.approx(sum(alone), abs=1e-4)
