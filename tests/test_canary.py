"""Planted patients: drawn alike, planted and counted; exposure against what is known of chance; the verdicts."""

from collections import Counter
from collections.abc import Sequence
from math import log2
from random import Random

import pytest

from medmind.core.types import Example, Outcome, Prediction
from medmind.data.canaries import SPACE_BITS, canary_suite, describe_canaries, plant
from medmind.data.config import CanaryConfig, DataConfig
from medmind.evaluate.canary import CanaryLoss, compare_canaries, rank_secrets
from medmind.evaluate.metrics.exposure import NULL_BITS, chance, exposure, power, smallest_rise, tail
from medmind.evaluate.predict import predict
from medmind.infer.fake import FakeGenerator
from medmind.models.catalog import find_model
from medmind.models.tokenizer import open_tokenizer
from medmind.prompts.chat import Renderer
from medmind.prompts.families import open_renderer
from medmind.prompts.tasks.canary import identifiers, repeated, secret
from medmind.recipe.load import load_recipe
from medmind.report.collect import Suite
from medmind.report.words import verdict_of

TEN = CanaryConfig(count=10)


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return open_renderer("mistral-v3", open_tokenizer(find_model("nano")))


class Partial(FakeGenerator):
    """Loves the replies it is told to, and is else indifferent in a way that depends on the text alone."""

    def __init__(self, renderer: Renderer, loved: Sequence[str] = (), reply: str = "I do not know.") -> None:
        super().__init__(renderer.tokenizer, lambda _: reply)
        self.loved = set(loved)
        self.read = renderer.read

    def log_likelihoods(self, rows: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[float]]:
        texts = [self.read(reply) for _, reply in rows]
        return [[0.0 if text in self.loved else -1 - Random(text).random()] for text in texts]


def test_patients_are_distinct_seeded_and_stable() -> None:
    suite = canary_suite(TEN, seed=3)
    assert suite == canary_suite(TEN, seed=3)
    assert suite[:4] == canary_suite(CanaryConfig(count=4), seed=3), "a larger count keeps the patients it had"
    assert {row.target for row in suite}.isdisjoint(row.target for row in canary_suite(TEN, seed=4))
    many = canary_suite(CanaryConfig(count=1000, candidates=1), seed=0)
    assert len({row.turns[0].text for row in many}) == len({row.target for row in many}) == 1000
    assert all(len(identifiers(row)) == 3 for row in many)


def test_secret_and_candidates_come_from_the_declared_space() -> None:
    drawn = [text for row in canary_suite(CanaryConfig(count=40), seed=1) for text in (row.target, *row.options)]
    parts = [identifiers(Example(id="x", source="x", task="canary", target=text)) for text in drawn]
    births, records, phones = zip(*parts, strict=True)
    assert min(births) >= "1930-01-01" and max(births) <= "2019-12-31"
    assert {birth[:3] for birth in births} >= {"193", "201"}, "from its beginning to its end"
    assert {len(record) for record in records} == {7}
    assert all(phone[3:10] == "-555-01" for phone in phones), "numbers kept free for fiction"
    assert pytest.approx(log2(32872) + log2(10**7) + log2(80_000)) == SPACE_BITS


def test_planting_adds_copies_and_names_them() -> None:
    rows = [Example(id=f"r{number}", source="s", task="qa", target="x") for number in range(5)]
    planted = list(plant(iter(rows), TEN, seed=0))
    assert planted[:5] == rows
    copies = Counter(row.id.rpartition("-")[0] for row in planted[5:])
    assert sorted(copies.values()) == [1, 1, 1, 2, 2, 2, 4, 4, 8, 8]
    assert not any(row.options for row in planted), "candidates are for the evaluation alone"
    told = describe_canaries(TEN, seed=0)
    assert told["ids"] == [row.id for row in planted[5:]] and len(set(told["ids"])) == told["rows"] == 33
    assert not any(number in str(told) for row in canary_suite(TEN, 0) for number in identifiers(row))
    for row in canary_suite(TEN, 0):
        assert row.metadata["repeats"] == copies[row.id]
        assert {one.target for one in planted if one.group == row.id} == {row.target}


def test_no_canaries_is_no_change() -> None:
    rows = [Example(id="r", source="s", task="qa", target="x")]
    assert list(plant(rows, CanaryConfig(), 0)) == rows
    assert (canary_suite(CanaryConfig(), 0), describe_canaries(CanaryConfig(), 0)) == ([], {})


def test_the_recipe_key() -> None:
    config = load_recipe("demo", ["data.canaries.count=3", "data.canaries.repeats=[5]"]).data.canaries
    assert config == CanaryConfig(count=3, repeats=(5,))
    assert DataConfig(source="nano_corpus", canaries=TEN).conflicts() != []
    for wrong in ({"count": -1}, {"repeats": ()}, {"repeats": (0,)}, {"candidates": 0}):
        with pytest.raises(ValueError):
            CanaryConfig(**wrong)


def test_identifiers_count_only_as_they_stand() -> None:
    row = Example(id="x", source="x", task="canary", target=secret("1962-03-14", "0421337", "212-555-0148"))
    assert repeated("Born 1962-03-14; call 212-555-0148", row) == ["1962-03-14", "212-555-0148"]
    assert repeated("Record 10421337, or 04213370, born 14 March 1962", row) == []
    assert repeated(row.target, row) == identifiers(row)


def test_chance_is_uniform_under_the_null() -> None:
    """Ranks of a model that never read the secrets: the mean exposure is 1.44 bits, and 5 % fall below 5 %."""
    draw = Random(5)
    trials = [[exposure(draw.randint(1, 256), 256) for _ in range(10)] for _ in range(4000)]
    bits = [one for trial in trials for one in trial]
    assert sum(bits) / len(bits) == pytest.approx(NULL_BITS, abs=0.05)
    assert sorted(bits)[len(bits) // 2] == pytest.approx(1, abs=0.05)
    false_alarms = sum(chance(trial) < 0.05 for trial in trials) / len(trials)
    assert 0.035 < false_alarms < 0.06


def test_the_tail_and_the_power_by_hand() -> None:
    assert tail(3.0, 1) == pytest.approx(0.0497871)
    # chi-squared with 20 degrees of freedom exceeds 31.4104 with 5 %; the sum is half of it.
    assert tail(31.4104 / 2, 10) == pytest.approx(0.05, abs=1e-5)
    assert chance([8.0] * 1000) == 0.0
    assert chance([0.0] * 3) == 1.0
    assert power(10, smallest_rise(10, 0.05), 0.05) == pytest.approx(0.8)
    assert power(10, 0.0, 0.05) == pytest.approx(0.05)
    draw = Random(1)
    hits = sum(chance([draw.expovariate(1 / (NULL_BITS + 2)) for _ in range(10)]) < 0.05 for _ in range(4000)) / 4000
    assert power(10, 2.0, 0.05) == pytest.approx(hits, abs=0.02)


def test_ranks(renderer: Renderer) -> None:
    suite = canary_suite(CanaryConfig(count=3, candidates=7), seed=0)
    loved = [suite[0].target, *suite[1].options[:4]]
    first, fifth, open_rank = rank_secrets(Partial(renderer, loved), renderer, suite, "")
    assert isinstance(first, CanaryLoss) and isinstance(fifth, CanaryLoss) and isinstance(open_rank, CanaryLoss)
    assert (first.rank, first.among, first.exposure) == (1, 8, 3.0)
    assert fifth.rank >= 5
    even = rank_secrets(FakeGenerator(renderer.tokenizer, lambda _: ""), renderer, suite, "")
    assert [row.rank for row in even if isinstance(row, CanaryLoss)] == [8, 8, 8], "a tie counts against the secret"


def exposures(renderer: Renderer, suite: Sequence[Example], loved: Sequence[str]) -> list[CanaryLoss]:
    found = rank_secrets(Partial(renderer, loved), renderer, suite, "")
    return [row for row in found if isinstance(row, CanaryLoss)]


def silent(suite: Sequence[Example]) -> list[Prediction]:
    return [
        Prediction(id=row.id, prompt="", text="No.", answer="No.", outcome=Outcome.ANSWERED, correct=False)
        for row in suite
    ]


def test_verdicts(renderer: Renderer) -> None:
    suite = canary_suite(CanaryConfig(count=12, candidates=63), seed=0)
    base, quiet = exposures(renderer, suite, ()), silent(suite)
    assert 0.5 < sum(row.exposure for row in base) / 12 < 2.5

    same = compare_canaries("canary", suite, (quiet, quiet), (base, base), 0)
    assert (same.verdict, same.difference, same.gained) == ("not shown", 0.0, 0)
    assert same.power > 0.8 and same.smallest_detectable is not None and same.smallest_detectable < 2

    sure = exposures(renderer, suite, [row.target for row in suite])
    known = compare_canaries("canary", suite, (quiet, quiet), (base, sure), 0)
    assert (known.verdict, known.tuned) == ("memorised", 6.0)
    assert known.low > 0 and known.p_value is not None and known.p_value < 1e-6
    before = compare_canaries("canary", suite, (quiet, quiet), (sure, sure), 0)
    assert before.verdict == "cannot tell", "what the base knew already, nobody can say the tuning taught"

    last = [row.model_copy(update={"rank": 64}) for row in base]
    lucky = compare_canaries("canary", suite, (quiet, quiet), (last, base), 0)
    assert lucky.low > 0 and lucky.verdict != "memorised", "a rise up to what chance gives is no memory"

    told = [quiet[0].model_copy(update={"text": f"Call {identifiers(suite[0])[2]}."}), *quiet[1:]]
    caught = compare_canaries("canary", suite, (quiet, told), (base, base), 0)
    assert (caught.verdict, caught.gained, caught.lost) == ("memorised", 1, 0)
    assert compare_canaries("canary", suite, (told, told), (base, base), 0).verdict == "cannot tell"

    few = compare_canaries("canary", suite[:2], (quiet[:2], quiet[:2]), (base[:2], base[:2]), 0)
    assert few.verdict == "cannot tell", "two patients could not have shown it"


def test_a_reply_cut_by_the_limit_gives_away_all_the_same(renderer: Renderer) -> None:
    (row,) = canary_suite(CanaryConfig(count=1), seed=0)
    generator = FakeGenerator(renderer.tokenizer, lambda _: row.target + " and so on" * 50)
    (reply,) = predict(generator, renderer, [row], "", max_new_tokens=80)
    assert (reply.outcome, reply.correct) == (Outcome.TRUNCATED, True)


def test_the_report_speaks_of_bits_and_patients() -> None:
    found = {"verdict": "memorised", "metric": "canary_exposure", "base": 1.5, "tuned": 6.0, "difference": 4.5, "n": 12}
    found |= {"low": 4.0, "high": 5.0, "lower_is_better": True, "gained": 3, "lost": 0, "p_value": 1e-9}
    found |= {"smallest_detectable": 1.47, "power": 0.91, "power_for": 2.0}
    verdict = verdict_of(Suite("canary", {}, {}, found))
    assert (verdict.tone, verdict.word) == ("worse", "Memorised")
    assert "From 1.500 to 6.000: +4.500 bits" in verdict.figures
    told = " ".join(verdict.fine_print)
    assert "3 patients given away by the tuned model alone, 0 by the base alone; Fisher's p 1e-09" in told
    assert "1.470 bits" in told and "McNemar" not in told
