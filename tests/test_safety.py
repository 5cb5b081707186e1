"""Red flags: who is in need gets the emergency text, who learns does not; and it is the same for every reading."""

import csv
import gzip
import io
import json
import time
from pathlib import Path

import pytest

from medmind.core.jsonl import read_jsonl
from medmind.core.sampling import sample
from medmind.data.terms import __path__ as terms_path
from medmind.safety.red_flags import LANGUAGES, RedFlag, find_red_flag
from medmind.safety.rules import Kind, plain, read_rules
from medmind.safety.texts import EMERGENCY, EVERY, NOTE, Additions, emergency_text, missing_note

HERE = Path(__file__).parent
SAMPLE = 600


def lines(name: str) -> list[str]:
    text = (HERE / name).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith(("#", "---"))]


NEEDED = [tuple(line.split("\t")) for line in lines("red_flags_yes.txt")]
ELSEWHERE = [tuple(line.split("\t")) for line in lines("red_flags_yes_other.txt")]
HARMLESS = lines("red_flags_no.txt")
TERMS = sorted(str(row["term"]) for file in Path(terms_path[0]).glob("*.jsonl") for row in read_jsonl(file))


def test_the_tables_are_as_long_as_promised() -> None:
    assert len(NEEDED) >= 150
    assert len(HARMLESS) + len(TERMS) >= 300
    assert {kind for kind, _ in NEEDED} == set(Kind)


@pytest.mark.parametrize(("kind", "message"), NEEDED, ids=[message[:40] for _, message in NEEDED])
def test_a_message_in_need_is_seen(kind: str, message: str) -> None:
    flag = find_red_flag(message)
    assert flag
    assert flag.language == "en"
    if flag.kind != kind:  # several things at once: the first in the order of Kind is named
        assert list(Kind).index(flag.kind) < list(Kind).index(Kind(kind))


@pytest.mark.parametrize(("language", "message"), ELSEWHERE, ids=[message for _, message in ELSEWHERE])
def test_other_languages_are_seen_and_answered_in(language: str, message: str) -> None:
    flag = find_red_flag(message)
    assert flag
    assert flag.language == language
    assert EMERGENCY[language] in emergency_text(flag)


@pytest.mark.parametrize("message", HARMLESS)
def test_who_learns_is_left_alone(message: str) -> None:
    assert find_red_flag(message) is None


@pytest.mark.parametrize("form", ["Explain the medical term: {}", "What is {}?", "{}", "What are the symptoms of {}?"])
def test_no_term_of_the_200_is_an_emergency(form: str) -> None:
    assert len(TERMS) == 200
    assert [term for term in TERMS if find_red_flag(form.format(term))] == []


def questions(folder: Path, name: str) -> list[str]:
    if name == "medquad":
        text = gzip.decompress((folder / "medquad" / "medquad_kaggle_form.csv.gz").read_bytes()).decode()
        return sorted({row["question"] for row in csv.DictReader(io.StringIO(text))})
    if name == "pubmedqa":
        rows = json.loads(gzip.decompress((folder / "pubmedqa" / "ori_pqal.json.gz").read_bytes()))
        return [row["QUESTION"] for row in rows.values()]
    text = gzip.decompress((folder / "medqa" / "phrases_no_exclude_test.jsonl.gz").read_bytes()).decode()
    return [json.loads(line)["question"] for line in text.splitlines()]


@pytest.mark.parametrize("name", ["medquad", "pubmedqa", "medqa"])
def test_published_questions_and_vignettes_hardly_ever_fire(shared_data: Path, name: str) -> None:
    asked = questions(shared_data, name)
    fired = [asked[place] for place in sample(len(asked), SAMPLE, seed=0) if find_red_flag(asked[place])]
    assert len(fired) <= SAMPLE // 200, fired


def halves(name: str) -> tuple[list[str], list[str]]:
    """The messages the rules were extended with, and those they were only counted on."""
    seen, unseen = (HERE / name).read_text(encoding="utf-8").split("--- unseen\n")
    return [line for line in seen.splitlines() if not line.startswith("#")], unseen.splitlines()


def test_most_stories_of_an_emergency_are_seen_and_hardly_any_other() -> None:
    """The figures of docs/serving.md: whoever changes the rules counts again."""
    calls, harmless = halves("red_flags_story_yes.txt"), halves("red_flags_story_no.txt")
    found = [sum(bool(find_red_flag(line.partition("\t")[2])) for line in lines) for lines in calls]
    assert [len(lines) for lines in calls] == [160, 60]
    assert found == [150, 14]
    assert [len(lines) for lines in harmless] == [160, 40]
    assert [sum(bool(find_red_flag(line)) for line in lines) for lines in harmless] == [1, 3]


def test_two_lesser_signs_count_together_and_one_word_is_never_two() -> None:
    assert find_red_flag("my boss went blank and his arm just hangs there")
    assert find_red_flag("my boss went blank") is find_red_flag("his arm just hangs there") is None
    assert find_red_flag("My chest measures 102 cm, is that large?") is None


def test_apostrophes_case_and_blanks_do_not_matter() -> None:
    for message in ("I can’t breathe", "I CANT BREATHE!!!", "i  can not\nbreathe", "i can`t breathe"):
        assert find_red_flag(message) == RedFlag(Kind.BREATHING, "en"), message
    assert plain("L'été: 38,5° … Ça va?", "fr") == "l ete 38·5 . ca va ."


def test_a_wish_to_die_counts_in_an_essay_but_not_in_an_exam() -> None:
    assert find_red_flag("I am writing my thesis and I want to kill myself")
    assert not find_red_flag("I want to kill myself, says a 40-year-old man. Which of the following is next?")


def test_the_past_and_denial_are_told_from_now() -> None:
    assert not find_red_flag("I had chest pain last year.")
    assert find_red_flag("I had chest pain last year and now I have chest pain again.")
    assert not find_red_flag("I have no chest pain and feel fine.")
    assert find_red_flag("I have no fever. I have chest pain.")


def test_the_text_is_the_operators_where_there_is_one() -> None:
    flag = RedFlag(Kind.SUICIDE, "en")
    assert "988" in emergency_text(flag)
    assert emergency_text(flag, "Ring the ward.") == "Ring the ward."
    assert set(EMERGENCY) == set(LANGUAGES)


@pytest.mark.parametrize("text", [*EVERY, "Ring the ward."])
def test_what_was_put_around_a_reply_is_taken_off(text: str) -> None:
    additions = Additions(emergency_text="Ring the ward.")
    own = f"A rash.\n\n**Note**: {NOTE}"
    assert additions.taken_off(f"{text}\n\n{own}") == own
    assert additions.taken_off(f"{own}\n\n{NOTE}") == f"{own}\n\n{NOTE}"  # said twice by the model: nothing was added
    for reply in ("", "A rash.", "A rash.\n\nOf the skin."):
        assert additions.taken_off(f"{text}\n\n{reply}") == reply
        assert additions.taken_off(f"{text}\n\n{reply}\n\n{NOTE}") == reply
        assert additions.taken_off(f"{reply}\n\n{NOTE}") == reply
        assert additions.taken_off(reply) == reply
    assert additions.taken_off(text) == additions.taken_off(NOTE) == ""
    for kept in (
        f"{text} Now.".replace("\n\n", " "),
        f"You said: {text}",
        f"{NOTE} And more.",
        f"Thus: {NOTE}",
        "  A rash. ",
    ):
        assert additions.taken_off(kept) == kept


def test_a_long_message_is_read_at_both_ends() -> None:
    need, filling = "I can't breathe. ", "The nose is part of the face. " * 200_000
    start = time.perf_counter()
    assert find_red_flag(need + filling) and find_red_flag(filling + need)
    assert time.perf_counter() - start < 5
    start = time.perf_counter()
    find_red_flag("chest pain " * 2900)
    assert time.perf_counter() - start < 1.5, "one sentence costs its square"


def test_the_note_is_added_once() -> None:
    assert missing_note("A rash is red skin.") == NOTE
    assert missing_note(f"**Note**: {NOTE}") == ""


def test_long_messages_are_read_in_time() -> None:
    for message in ("i have my " * 5000, "bleeding " * 5000, "a" * 100_000, "my chest . " * 5000):
        start = time.perf_counter()
        find_red_flag(message)
        assert time.perf_counter() - start < 8


def test_every_rule_file_is_whole() -> None:
    for language in LANGUAGES:
        rules = read_rules(language)
        assert {Kind.CHEST, Kind.BREATHING, Kind.POISON} <= set(rules.said)
