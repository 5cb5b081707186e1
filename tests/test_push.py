"""Pushing a run with the real huggingface_hub to a Hub of our own: the gates, what arrives, and what breaks off."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dying import killed
from hub_server import Hub, point_at, serving
from huggingface_hub import HfApi, constants, hf_hub_download
from test_bundle import write_gguf

from medmind.cli.main import main
from medmind.core.errors import EnvironmentFault, GateError, UsageError
from medmind.core.jsonl import write_json, write_text
from medmind.core.rundir import RunDir
from medmind.export import push as pushing
from medmind.export.parts import ShipConfig
from medmind.export.push import check_gates, plan, push
from medmind.models.catalog import find_model
from medmind.recipe import stages
from medmind.recipe.load import dump_recipe, load_recipe

REPO = "clinic/terms"
ORIGIN = {"source": "terms", "use": "training", "file": "a.jsonl", "licence": "CC0-1.0", "flags": [], "credit": ""}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Large begins at 1,000 bytes on both sides; nobody waits between two tries."""
    with serving() as hub:
        point_at(hub.url, tmp_path / "cache", monkeypatch)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", "hf_test")
        monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
        monkeypatch.setattr(pushing, "LARGE", 1000)
        yield hub


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    rundir = RunDir(tmp_path / "run")
    recipe = load_recipe("demo", ["export.gguf=[f16, q8_0]", "export.modelfile_from=f16"])
    write_text(rundir.recipe, dump_recipe(recipe))
    for kind in ("f16", "q8_0"):
        write_gguf(rundir.gguf(kind))
    rundir.gguf("f16").write_bytes(rundir.gguf("f16").read_bytes() + bytes(5000))
    rundir.gguf("q8_0").write_bytes(rundir.gguf("q8_0").read_bytes() + bytes(2000))
    write_text(rundir.adapter / "adapter_model.safetensors", "weights" * 300)
    write_text(rundir.adapter / "README.md", "PEFT's own")
    write_json(rundir.adapter / "adapter_config.json", {"r": 8, "base_model_name_or_path": "/home/ann/models/nano"})
    write_text(rundir.merged / "model.safetensors", "merged" * 300)
    write_json(rundir.licences, [ORIGIN])
    write_json(rundir.data_report, {"canaries": {}})
    write_json(rundir.parity, {"passed": True})
    write_json(rundir.comparison("terms"), {"verdict": "better"})
    write_text(rundir.card, "---\nlicense: apache-2.0\n---\n\n# terms\n\n## Run it with Ollama\n\nollama\n")
    write_text(rundir.modelfile, "FROM ./model-f16.gguf\n")
    for stage, folder in (("evaluate", rundir.evaluate), ("export", rundir.export)):
        files = [path for path in folder.rglob("*") if path.is_file()]
        rundir.finish(stage, stages.stage_key(recipe, rundir, stage), files, 1.0)
    return rundir


def uploads(run: RunDir, **settings: Any) -> tuple[list[pushing.Upload], ShipConfig]:
    ship = ShipConfig(repo_id=REPO, **settings)
    return plan(run, find_model("nano"), ship, ("f16", "q8_0")), ship


def there(hub: Hub) -> dict[str, bytes]:
    return dict(hub.repositories[f"models/{REPO}"]["main"])


def cli(run: RunDir, *more: str) -> int:
    return main(["export", "push", str(run.root), "--set", f"export.ship.repo_id={REPO}", *more])


def test_all_of_it_arrives_privately_and_comes_back(hub: Hub, run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(run, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["address"] == f"{hub.url}/{REPO}"
    assert hub.uploads.private == {f"models/{REPO}"}
    assert (
        set(said["files"])
        == set(there(hub))
        == {*("model-f16.gguf", "model-q8_0.gguf", "Modelfile", "parity.json", "README.md")}
    )
    assert hub.uploads.commits == [["model-f16.gguf"], ["model-q8_0.gguf"], ["parity.json", "Modelfile", "README.md"]]
    card = there(hub)["README.md"].decode()
    assert card.startswith("---\nlibrary_name: gguf\npipeline_tag: text-generation\n")
    assert "license: apache-2.0" in card
    assert "## Run it with Ollama" in card
    fetched = hf_hub_download(REPO, "model-f16.gguf")
    assert Path(fetched).read_bytes() == run.gguf("f16").read_bytes()


def test_a_second_push_sends_nothing_and_a_changed_file_alone(hub: Hub, run: RunDir) -> None:
    push(*uploads(run))
    sent, commits = list(hub.uploads.received), len(hub.uploads.commits)
    push(*uploads(run))
    assert (hub.uploads.received, len(hub.uploads.commits)) == (sent, commits)
    run.gguf("q8_0").write_bytes(run.gguf("q8_0").read_bytes() + b"more")
    push(*uploads(run))
    assert hub.uploads.commits[commits:] == [["model-q8_0.gguf"]]


def test_a_push_that_broke_off_goes_on_where_it_was(hub: Hub, run: RunDir) -> None:
    small = run.gguf("q8_0").stat().st_size
    hub.uploads.refusals = [("/commit/", 500)]
    with pytest.raises(EnvironmentFault, match="broke off") as caught:
        push(*uploads(run))
    assert "not sent again" in caught.value.todo
    assert there(hub) == {}
    before = sum(hub.uploads.received)
    assert before == run.gguf("f16").stat().st_size, "stored, though no commit names it yet"
    push(*uploads(run))
    assert sum(hub.uploads.received) - before == small


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_push_that_was_killed_goes_on(hub: Hub, run: RunDir) -> None:
    killed(lambda: push(*uploads(run)), HfApi, "create_commit", 2)
    assert set(there(hub)) == {"model-f16.gguf"}, "no card yet, for it is not whole"
    sent = sum(hub.uploads.received)
    push(*uploads(run))
    assert sum(hub.uploads.received) - sent == run.gguf("q8_0").stat().st_size
    assert "README.md" in there(hub)


def test_a_cut_connection_is_tried_again(hub: Hub, run: RunDir) -> None:
    hub.uploads.cuts = [1000, 17]
    push(*uploads(run))
    assert hub.uploads.received[:2] == [1000, 17]
    assert there(hub)["model-f16.gguf"] == run.gguf("f16").read_bytes()
    hub.uploads.stored.clear()
    run.gguf("f16").write_bytes(bytes(3000))
    hub.uploads.cuts = [10] * 6
    with pytest.raises(EnvironmentFault, match="broke off"):
        push(*uploads(run))
    push(*uploads(run))
    assert there(hub)["model-f16.gguf"] == bytes(3000)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "does not know you"),
        (403, "may not write"),
        (404, "no such repository"),
        (429, "asks to wait"),
        (500, "500"),
    ],
)
def test_every_refusal_in_our_words(status: int, words: str, hub: Hub, run: RunDir) -> None:
    hub.status = status
    with pytest.raises(EnvironmentFault, match=words) as caught:
        push(*uploads(run))
    assert caught.value.exit_code == 3
    assert caught.value.todo
    hub.status = 200
    hub.uploads.refusals = [("/lfs/", status)] * 6
    with pytest.raises(EnvironmentFault, match=words):
        push(*uploads(run))


def test_a_busy_hub_is_asked_again(hub: Hub, run: RunDir) -> None:
    hub.uploads.refusals = [("/preupload/", 429), ("/preupload/", 503), ("/lfs/", 500)]
    push(*uploads(run))
    assert hub.uploads.refusals == []


def test_what_did_not_arrive_is_missed(hub: Hub, run: RunDir) -> None:
    hub.uploads.lose = "Modelfile"
    with pytest.raises(EnvironmentFault, match="does not hold what was sent: Modelfile"):
        push(*uploads(run))


def test_private_means_private(hub: Hub, run: RunDir) -> None:
    hub.add(f"models/{REPO}", {})
    with pytest.raises(UsageError, match="the repository is public"):
        push(*uploads(run))
    assert hub.uploads.commits == []
    push(*uploads(run, private=False))
    assert hub.uploads.commits


def test_an_adapter_says_no_path_of_this_machine(hub: Hub, run: RunDir) -> None:
    push(*uploads(run, parts=("adapter",)))
    assert set(there(hub)) == {"adapter_model.safetensors", "adapter_config.json", "parity.json", "README.md"}
    assert json.loads(there(hub)["adapter_config.json"]) == {"r": 8, "base_model_name_or_path": "nano"}
    assert b"PEFT's own" not in there(hub)["README.md"]
    assert b"library_name: peft" in there(hub)["README.md"]
    assert b"Ollama" not in there(hub)["README.md"]
    push(*uploads(run, parts=("merged",), private=False))
    assert b"library_name: transformers" in there(hub)["README.md"]


def test_nothing_is_contacted_before_it_must(hub: Hub, run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(run, "--dry-run") == 0
    assert "dry run: nothing was contacted" in capsys.readouterr().err
    assert main(["export", "push", str(run.root)]) == 2
    assert "no repository is named" in capsys.readouterr().err
    write_json(run.parity, {"passed": False})
    assert cli(run) == 1
    assert hub.asked == []


def test_the_gates(run: RunDir) -> None:
    check_gates(run)
    write_json(run.comparison("canary"), {"verdict": "memorised"})
    with pytest.raises(GateError, match="remembers planted patients"):
        check_gates(run)
    run.comparison("canary").unlink()
    write_json(run.data_report, {"canaries": {"patients": 5}})
    with pytest.raises(GateError, match="was not asked"):
        check_gates(run)
    write_json(run.comparison("canary"), {"verdict": "not shown"})
    check_gates(run)
    run.parity.unlink()
    with pytest.raises(GateError, match="has not passed"):
        check_gates(run)


def test_the_licences(hub: Hub, run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    write_json(run.licences, [ORIGIN | {"licence": "none stated", "flags": ["unknown"]}])
    assert cli(run) == 1
    assert "no licence is stated" in capsys.readouterr().err
    assert hub.asked == []
    assert cli(run, "--set", "export.ship.allow_licences=the owner agreed by letter") == 0
    assert b"the owner agreed by letter" in there(hub)["README.md"]
    run.licences.unlink()
    assert cli(run) == 1


def test_files_that_are_not_those_of_the_export_are_refused(
    hub: Hub, run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    run.gguf("f16").write_bytes(b"another")
    assert cli(run) == 2
    assert "push needs export" in capsys.readouterr().err
    assert hub.asked == []


def test_contradictions_are_told_at_once() -> None:
    found = ShipConfig(parts=("adapter", "merged"), repo_id="a/b/c", allow_licences=" ").conflicts()
    assert len(found) == 3
    assert ShipConfig(parts=()).conflicts()
