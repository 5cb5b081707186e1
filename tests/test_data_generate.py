"""`medmind data generate`: variants of the facts that keep their meaning, and a server that answers anything."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from chat_server import SENTENCES, Server, break_off, drip, elsewhere, good, half_a_character, hang, page

from medmind.cli.main import main
from medmind.core.errors import DataError, EnvironmentFault, UsageError
from medmind.core.jsonl import read_jsonl, write_jsonl
from medmind.data.config import DataConfig
from medmind.data.generate.ask import Patience, find_endpoint
from medmind.data.generate.judge import Reason, judge, names_of
from medmind.data.generate.run import Term, generate, read_terms
from medmind.data.generate.variants import can_drop_last, can_turn_round, grow, instructions, outputs, read_all
from medmind.data.split import normalise_name
from medmind.data.stage.assemble import assemble
from medmind.prompts.tasks.terms import four_parts
from medmind.safety.texts import NOTE

QUICK = Patience(timeout=0.5, tries=3, pause=0.01, dead_after=6)
Serve = Callable[[str, dict[str, list[Any]]], Server]


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers: list[Server] = []

    def start(dialect: str, script: dict[str, list[Any]]) -> Server:
        servers.append(Server(dialect, script))
        threading.Thread(target=servers[-1].serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def run(out: Path, server: Server, *terms: str) -> dict[str, Any]:
    wanted = [Term("medical_terminology", term) for term in terms]
    return generate(out, 5, 0, wanted, lambda: find_endpoint(server.url, "m", QUICK), QUICK)


def from_model(out: Path) -> list[str]:
    """The terms of the rows a model wrote; that every row is in form is checked on the way."""
    rows = list(read_jsonl(out))
    assert all(isinstance(four_parts(row["output"]), dict) for row in rows)
    return [row["term"] for row in rows if row["model"]]


def rejected(out: Path) -> list[dict[str, Any]]:
    return list(read_jsonl(out.with_name(f"{out.stem}.rejected.jsonl")))


def test_the_facts_grow_to_five_hundred_rows(tmp_path: Path) -> None:
    first, again, other = (tmp_path / name for name in ("first.jsonl", "again.jsonl", "other.jsonl"))
    assert main(["data", "generate", str(first)]) == 0
    generate(again, 500, 0)
    generate(other, 500, 1)
    assert first.read_bytes() == again.read_bytes() != other.read_bytes()
    rows = list(read_jsonl(first))
    facts = {fact["id"]: fact for fact in read_all()}
    assert len({(row["instruction"], row["output"]) for row in rows}) == len({row["id"] for row in rows}) == 500
    assert {row["fact"] for row in rows} == {name for name, fact in facts.items() if fact["split"] == "train"}
    tests = {name for fact in facts.values() if fact["split"] == "test" for name in names_of(fact["term"])}
    for row in rows:
        parts, fact = four_parts(row["output"]), facts[row["fact"]]
        assert isinstance(parts, dict)
        assert parts["Definition"] == fact["definition"]
        assert row["input"] == "" and row["category"] == fact["category"] and "not for diagnosis" in row["safety_note"]
        asked = f" {normalise_name(row['instruction'])} "
        assert not [name for name in tests if f" {name} " in asked]
        assert any(f" {name} " in asked for name in names_of(fact["term"]))


def test_an_answer_says_only_what_its_fact_says() -> None:
    for fact in read_all():
        for output in outputs(fact):
            parts = four_parts(output)
            assert isinstance(parts, dict)
            whole, told = fact["explanation"], fact["relevance"]
            assert parts["Explanation"] in (" ".join(whole), " ".join(whole[:-1]))
            assert parts["Clinical Relevance"] in (" ".join(told), " ".join(told[::-1]))
        assert outputs(fact)[0].endswith(NOTE)
    assert sum(len(outputs(fact)) > 1 for fact in read_all()) > 50


def fact_of(explanation: list[str], relevance: list[str]) -> dict[str, Any]:
    return {"term": "Edema", "definition": "Edema is swelling.", "explanation": explanation, "relevance": relevance}


@pytest.mark.parametrize(
    ("last", "later", "allowed"),
    [
        ("Salt is a common reason.", "Edema is seen in the legs.", True),
        ("Salt is not a reason.", "Edema is seen in the legs.", False),
        ("Pitting edema keeps a dent.", "Edema is seen in the legs.", False),
        ("Salt is a common reason.", "They can also be swollen.", False),
        ("Villi are damaged.", "Loss of the villi is serious.", False),
        ("Fluid leaks from cells.", "Edema is seen in the legs.", False),
    ],
)
def test_a_sentence_is_dropped_only_if_nothing_leans_on_it(last: str, later: str, allowed: bool) -> None:
    assert can_drop_last(fact_of(["Vessels are leaky.", "Fluid leaks out.", last], [later])) is allowed
    assert not can_drop_last(fact_of(["Vessels are leaky.", last], [later]))


@pytest.mark.parametrize(
    ("relevance", "allowed"),
    [
        (["Heart disease causes edema.", "Sudden edema is an emergency."], True),
        (["Heart disease causes edema.", "It is an emergency."], False),
        (["Heart disease causes edema.", "Rest helps."], False),
        (["The disease causes edema.", "Sudden edema is an emergency."], False),
        (["Heart disease causes edema.", "Sudden edema is also an emergency."], False),
        (["Edema hurts.", "Edema swells.", "Edema ends."], False),
    ],
)
def test_the_relevance_is_turned_round_only_if_both_sentences_stand_alone(relevance: list[str], allowed: bool) -> None:
    assert can_turn_round(fact_of(["Vessels are leaky."], relevance)) is allowed


def test_each_wording_comes_once_before_any_comes_again() -> None:
    rows = grow(750, seed=3)
    for fact in read_all():
        if fact["split"] == "train":
            asked = [row["instruction"] for row in rows if row["fact"] == fact["id"]]
            assert sorted(asked) == sorted(instructions(fact)) and asked[0] == instructions(fact)[0]


@pytest.mark.parametrize("count", [0, -1, 100_000])
def test_a_count_that_cannot_be_made_is_refused(count: int) -> None:
    with pytest.raises(UsageError, match="cannot be made"):
        grow(count, seed=0)


def test_the_data_stage_trains_on_all_of_it(tmp_path: Path) -> None:
    out = tmp_path / "more.jsonl"
    generate(out, 900, 0)
    made = assemble(DataConfig(path=str(out)), seed=0)
    assert not made.dropped
    assert [len(made.parts[name]) for name in ("test", "train")] == [50, 900 - len(made.parts["validation"])]
    groups = [{example.group for example in made.parts[name]} for name in ("train", "validation")]
    assert groups[1] and not groups[0] & groups[1]


def test_a_test_term_in_other_words_is_kept_out_of_training(tmp_path: Path) -> None:
    out = tmp_path / "more.jsonl"
    generate(out, 300, 0)
    rows = list(read_jsonl(out))
    write_jsonl(out, [*rows, rows[0] | {"instruction": "Define hypoglycemia.", "term": "Hypoglycemia"}])
    (dropped,) = assemble(DataConfig(path=str(out)), seed=0).dropped
    assert dropped.fault == "term of the test rows"


@pytest.mark.parametrize("dialect", ["openai", "ollama"])
def test_good_answers_are_taken_and_all_others_written_down(tmp_path: Path, serve: Serve, dialect: str) -> None:
    half = good("Myalgia").partition("**Clinical")[0]
    script: dict[str, list[Any]] = {
        "Rhinitis": [good("Rhinitis")],
        "Myalgia": [500, page, good("Myalgia") + "\n"],
        "Otalgia": [half, good("Rhinitis"), "I'm sorry, I cannot help with that."],
        "Rhinorrhea": [(good("Rhinitis"), "length"), good("Rhinitis").replace("Rhinitis", "Rhinorrhea"), 503],
    }
    server, out = serve(dialect, script), tmp_path / "out.jsonl"
    report = run(out, server, *script)
    assert from_model(out) == ["Rhinitis", "Myalgia"]
    assert (report["rows"], report["from_facts"], report["from_model"]) == (7, 5, 2)
    assert report["without_answer"] == ["Otalgia", "Rhinorrhea"]
    lines = rejected(out)
    assert [(one["term"], one["attempt"], one["reason"]) for one in lines] == [
        ("Myalgia", 1, Reason.SERVER),
        ("Myalgia", 2, Reason.GARBAGE),
        ("Otalgia", 1, Reason.FORM),
        ("Otalgia", 2, Reason.NAME),
        ("Otalgia", 3, Reason.REFUSAL),
        ("Rhinorrhea", 1, Reason.TRUNCATED),
        ("Rhinorrhea", 2, Reason.REPEAT),
        ("Rhinorrhea", 3, Reason.SERVER),
    ]
    assert sum(report["rejected"].values()) == len(lines) and report["rejected"]["server error"] == 2
    assert lines[1]["raw"] == "<html>this is no model</html>" and lines[2]["raw"] == half.strip()
    system, user = server.asked[0]["messages"]
    assert "**Clinical Relevance**" in system["content"]
    assert user["content"] == "Explain the medical term: Rhinitis"
    assert server.asked[0]["model"] == "m" and server.asked[0]["stream"] is False


@pytest.mark.parametrize("step", [hang, drip, break_off, half_a_character], ids=lambda step: str(step.__name__))
def test_a_reply_that_does_not_come_whole_is_asked_for_again(tmp_path: Path, serve: Serve, step: Any) -> None:
    out = tmp_path / "out.jsonl"
    run(out, serve("openai", {"Myalgia": [step, good("Myalgia")]}), "Myalgia")
    assert from_model(out) == ["Myalgia"]
    assert [one["attempt"] for one in rejected(out)] == [1]


def test_a_dead_endpoint_stops_and_the_next_run_continues(tmp_path: Path, serve: Serve) -> None:
    out = tmp_path / "out.jsonl"
    server = serve("openai", {"Rhinitis": [good("Rhinitis")], "Myalgia": [500], "Otalgia": [500]})
    with pytest.raises(EnvironmentFault, match="6 times in a row") as fault:
        run(out, server, *SENTENCES)
    assert "1 answers are kept" in fault.value.todo
    assert len(server.asked) == 1 + QUICK.dead_after
    assert from_model(out) == ["Rhinitis"] and len(rejected(out)) == QUICK.dead_after
    server = serve("ollama", {"Myalgia": [good("Myalgia")], "Otalgia": [good("Otalgia")]})
    report = run(out, server, *SENTENCES)
    assert from_model(out) == list(SENTENCES) and len(server.asked) == 2
    assert report["kept_from_before"] == 1 and rejected(out) == []
    generate(out, 500, 0)
    assert from_model(out) == list(SENTENCES) and len(list(read_jsonl(out))) == 503


def test_failures_with_answers_between_them_are_no_dead_endpoint(tmp_path: Path, serve: Serve) -> None:
    out = tmp_path / "out.jsonl"
    run(out, serve("openai", {term: [500, 500, good(term)] for term in SENTENCES}), *SENTENCES)
    assert from_model(out) == list(SENTENCES) and len(rejected(out)) == 6


def test_a_proxy_of_the_environment_is_passed_by(tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    run(tmp_path / "out.jsonl", serve("openai", {"Rhinitis": [good("Rhinitis")]}), "Rhinitis")
    assert from_model(tmp_path / "out.jsonl") == ["Rhinitis"]


def test_nobody_at_the_address(tmp_path: Path, serve: Serve) -> None:
    server, out = serve("openai", {}), tmp_path / "out.jsonl"
    server.shutdown()
    server.server_close()
    with pytest.raises(EnvironmentFault, match="3 times in a row"):
        run(out, server, "Rhinitis")
    assert len(list(read_jsonl(out))) == 5


@pytest.mark.parametrize("step", [404, 401, elsewhere], ids=["404", "401", "elsewhere"])
def test_a_server_that_says_no_is_not_asked_again(tmp_path: Path, serve: Serve, step: Any) -> None:
    server = serve("openai", {"Rhinitis": [step]})
    with pytest.raises(EnvironmentFault, match="refused with status"):
        run(tmp_path / "out.jsonl", server, "Rhinitis")
    assert len(server.asked) == 1


def test_terms_of_either_split_are_not_asked_for(tmp_path: Path, serve: Serve) -> None:
    server, out = serve("openai", {"Rhinitis": [good("Rhinitis")]}), tmp_path / "out.jsonl"
    run(out, server, "hypoglycemia", "Edema", "EKG", "Deep-vein  thrombosis", "Gallbladder", "Rhinitis", "RHINITIS")
    assert len(server.asked) == 1 and from_model(out) == ["Rhinitis"]
    assert [one["reason"] for one in rejected(out)] == [Reason.KNOWN] * 5 + [Reason.TWICE]


def test_an_earlier_row_that_is_no_longer_valid_leaves_the_set(tmp_path: Path, serve: Serve) -> None:
    out = tmp_path / "out.jsonl"
    run(out, serve("openai", {term: [good(term)] for term in SENTENCES}), *SENTENCES)
    rows = list(read_jsonl(out))
    rows[-1]["output"] = "**Definition**: Otalgia"
    write_jsonl(out, [*rows, rows[-2]])
    report = generate(out, 5, 0)
    assert from_model(out) == ["Rhinitis", "Myalgia"]
    assert report["rejected"] == {Reason.FORM: 1, Reason.TWICE: 1}


def test_a_file_of_another_kind_is_not_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "mine.jsonl"
    for text in ('{"instruction": "mine"}\n', "[1]\n", "not JSON\n"):
        out.write_text(text)
        with pytest.raises(DataError, match="not"):
            generate(out, 5, 0)
        assert out.read_text() == text


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda text: text, None),
        (lambda text: text.replace("irritate it.", "irritate type I cannot tell which cells."), None),
        (lambda text: text.replace("irritate it.", "irritate"), Reason.TRUNCATED),
        (lambda text: "Sorry. " + text, Reason.REFUSAL),
        (lambda text: text + " As an AI I am no doctor.", Reason.REFUSAL),
        (lambda text: text + "\n\nAsk me more.", Reason.FORM),
        (lambda text: text.replace("Rhinitis", "Rhinitides"), Reason.NAME),
        (lambda text: text.replace("nose", "n\0se"), Reason.GARBAGE),
    ],
)
def test_what_an_answer_must_be(change: Callable[[str], str], reason: Reason | None) -> None:
    found = judge(change(good("Rhinitis")), True, "Rhinitis", [])
    assert isinstance(found, str) if reason is None else found[0] == reason


def test_a_terms_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "terms.tsv"
    file.write_text("medical_terminology\tRhinitis\r\n\n diagnostic_tests \t Tilt  table test\n")
    assert read_terms(file) == [Term("medical_terminology", "Rhinitis"), Term("diagnostic_tests", "Tilt table test")]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "no terms"),
        ("medical_terminology\tRhinitis\nRhinitis\n", "no term, .*line 2"),
        ("medical_terminology\t-\n", "no term, .*line 1"),
        ("terminology\tRhinitis\n", "unknown category .*did you mean"),
    ],
)
def test_a_terms_file_with_a_fault_is_refused(tmp_path: Path, text: str, fault: str) -> None:
    (tmp_path / "terms.tsv").write_text(text)
    with pytest.raises(DataError) as error:
        read_terms(tmp_path / "terms.tsv")
    assert re.match(fault, str(error.value))


@pytest.mark.parametrize("url", ["127.0.0.1:11434", "ftp://host", "http://", "http://host:99999", "http://[::1"])
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(UsageError, match="not an address"):
        find_endpoint(url, "m", QUICK)


@pytest.mark.parametrize(
    ("path", "dialect", "whole"),
    [
        ("/api/chat", "ollama", "/api/chat"),
        ("/v1/", "openai", "/v1/chat/completions"),
        ("/v1/chat/completions", "openai", "/v1/chat/completions"),
    ],
)
def test_a_path_tells_the_dialect(path: str, dialect: str, whole: str) -> None:
    found = find_endpoint(f"http://host{path}", "m", QUICK)
    assert (found.dialect, found.url) == (dialect, f"http://host{whole}")


def test_the_command_asks_and_reports(tmp_path: Path, serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    server, out, terms = serve("ollama", {"Rhinitis": [good("Rhinitis")]}), tmp_path / "o.jsonl", tmp_path / "t.tsv"
    terms.write_text("medical_terminology\tRhinitis\n")
    words = ["data", "generate", str(out), "--count", "3", "--set", "seed=4", "--json"]
    assert main([*words, "--endpoint", server.url, "--model", "m", "--terms", str(terms)]) == 0
    assert json.loads(capsys.readouterr().out)["from_model"] == 1
    wrong = (["--endpoint", server.url], ["--set", "train.seed=1"], ["--out", "x"])
    assert [main([*words, *more]) for more in wrong] == [2, 2, 2]
    assert main(["data", "demo", "--count", "3"]) == main(["data", "generate", str(tmp_path)]) == 2
