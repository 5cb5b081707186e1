"""Near duplicates: what is found is what comparing every pair would find, and only that."""

import itertools
import random
from pathlib import Path

import numpy as np
import pytest

from medmind.data.near import near_duplicates
from medmind.data.shingles import ngrams, word_hashes
from medmind.data.split import normalise_name

VOCABULARY = [f"w{n}" for n in range(5000)]


def some_text(rng: random.Random, words: int = 120) -> str:
    return " ".join(rng.choices(VOCABULARY, k=words))


def changed(text: str, rng: random.Random, count: int) -> str:
    words = text.split()
    for place in rng.sample(range(len(words)), count):
        words[place] = rng.choice(VOCABULARY)
    return " ".join(words)


def shingles(text: str) -> set[tuple[str, ...]]:
    words = normalise_name(text).split()
    return {tuple(words[place : place + 5]) for place in range(max(len(words) - 4, 1))} if words else set()


def true_jaccard(left: str, right: str) -> float:
    one, other = shingles(left), shingles(right)
    return len(one & other) / max(len(one | other), 1)


def test_case_blanks_and_punctuation_do_not_count() -> None:
    texts = ["What is asthma? A disease.", "Something else entirely, I say.", "  what IS asthma -- a disease"]
    assert list(near_duplicates(texts)) == [(0, 2, 1.0)]


def test_nothing_is_a_duplicate_of_nothing() -> None:
    assert list(near_duplicates([])) == []
    assert list(near_duplicates(["", " ", "?!", "word"])) == []


def test_planted_duplicates_are_found_and_nothing_else() -> None:
    rng = random.Random(1)
    texts = [some_text(rng) for _ in range(2000)]
    planted = {}
    for number in range(400):
        text = changed(texts[number], rng, rng.randint(0, 2))
        if true_jaccard(text, texts[number]) >= 0.8:
            planted[len(texts)] = number
            texts.append(text)
    found = {later: kept for kept, later, _ in near_duplicates(texts)}
    assert len(planted) > 300
    assert sum(found.get(later) == kept for later, kept in planted.items()) >= 0.95 * len(planted)
    assert set(found) <= set(planted)


@pytest.mark.parametrize("threshold", [0.5, 0.8])
def test_the_likeness_is_that_of_comparing_every_pair(threshold: float) -> None:
    rng = random.Random(2)
    texts = [some_text(rng, 60) for _ in range(40)]
    texts += [changed(text, rng, rng.randint(0, 4)) for text in texts]
    likeness = {pair: true_jaccard(texts[pair[0]], texts[pair[1]]) for pair in itertools.combinations(range(80), 2)}
    found = list(near_duplicates(texts, threshold))
    assert all(likeness[kept, later] == pytest.approx(value) for kept, later, value in found)
    alike = {later for (_, later), value in likeness.items() if value >= threshold}
    assert {later for _, later, _ in found} <= alike
    assert len(found) >= 0.95 * len(alike)


def test_what_is_kept_is_no_duplicate_itself() -> None:
    rng = random.Random(3)
    first = some_text(rng)
    second = changed(first, rng, 2)
    third = changed(second, rng, 2)
    found = list(near_duplicates([first, second, third, third]))
    later = [one[1] for one in found]
    assert later == sorted(set(later))
    assert not {one[0] for one in found} & set(later)


def test_a_crowd_of_copies_costs_no_more_than_its_size() -> None:
    rng = random.Random(4)
    text = some_text(rng)
    copies = [text] * 3000 + [changed(text, rng, 1) for _ in range(1000)]
    found = list(near_duplicates(copies))
    assert [later for _, later, _ in found] == list(range(1, 4000))
    assert {kept for kept, _, _ in found} == {0}


def test_its_files_are_gone_at_the_end(tmp_path: Path) -> None:
    rng = random.Random(5)
    text = some_text(rng)
    assert len(list(near_duplicates([text, text], workdir=tmp_path))) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("Sjögren's SYNDROME", "sjögren s  syndrome"),
        ("“Straße” – Ärzte", "strasse ärzte"),
        ("a_b", "a b"),
        ("5 mg/kg", "5 mg kg"),
    ],
)
def test_words_are_those_of_a_normalised_name(left: str, right: str) -> None:
    rows = word_hashes([left, right, f"{right} x"])
    assert np.array_equal(rows[0], rows[1])
    assert not np.array_equal(rows[0], rows[2])
    assert len(rows[0]) == len(normalise_name(left).split())


def test_a_run_of_words_does_not_reach_into_the_next_text() -> None:
    rows = ngrams(word_hashes(["a b c", "", "d e f g", "a b c d e f g"]), 3)
    assert [len(rows[row]) for row in range(4)] == [1, 0, 2, 5]
    assert set(rows[0].tolist()) | set(rows[2].tolist()) < set(rows[3].tolist())
    short = ngrams(word_hashes(["a b", "b a", "a b c"]), 3)
    assert len({int(short[row][0]) for row in range(3)}) == 3
