"""Whatever a user has is a TARGET of serve and of chat, by the same engines; another's word reaches no network."""

import argparse
import io
import os
import shutil
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hub_server import serving as hub_of_our_own
from serving import REPLY, Fake, listening

from medmind.chat.session import Chat
from medmind.cli import chat
from medmind.cli.foreign import check_named, laid_out
from medmind.cli.targets import open_targets, opened, read_target
from medmind.core.errors import EnvironmentFault, GateError, UsageError
from medmind.core.jsonl import read_json, write_json, write_text
from medmind.core.rundir import RunDir, sha256_file
from medmind.export.bundle import make_bundle
from medmind.recipe.load import dump_recipe, load_recipe
from medmind.serve.config import ServeConfig

F32 = ("export.gguf=[f32]", "export.modelfile_from=f32")
TRAINED = {"train": {"key": "t", "files": {"train/adapter/adapter_model.safetensors": "a"}}}
HOSTILE = ("serve.host=0.0.0.0", "serve.redact_phi=false", "trust_remote_code=true")


def talk(monkeypatch: pytest.MonkeyPatch, target: Path | str, *sets: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("What is rhinitis?\n"))
    monkeypatch.setattr("medmind.cli.foreign.keep_home", lambda: None)  # it holds for a whole process
    parser = argparse.ArgumentParser()
    chat.add_arguments(parser)
    words = [str(target), *(word for text in ("evaluate.max_new_tokens=6", *sets) for word in ("--set", text))]
    assert chat.run(parser.parse_args(words)) == 0


def prove(rundir: RunDir, **said: object) -> None:
    """As a finished export leaves the records, but for what is said."""
    write_json(rundir.parity, said.get("parity", {"passed": True, "candidate_dtype": "f32"}))
    write_json(rundir.merged_from, said.get("merged", {"trained": {"adapter_model.safetensors": "a"}}))
    files = {f"export/{file.name}": sha256_file(file) for file in (rundir.parity, rundir.merged_from)}
    stages = {"export": {"key": "e", "files": files}}
    write_json(rundir.manifest, {"begun": said.get("begun", {}), "stages": TRAINED | stages})


@pytest.fixture
def run(gguf_file: Path, tmp_path: Path) -> RunDir:
    """What is packed of a run whose recipe opens every door."""
    rundir = RunDir(tmp_path / "mine")
    write_text(rundir.recipe, dump_recipe(load_recipe("base", ["model=nano", "name=mine", *HOSTILE, *F32])))
    rundir.export.mkdir()
    shutil.copy(gguf_file, rundir.gguf("f32"))
    prove(rundir)
    return rundir


@pytest.fixture
def bundle(run: RunDir) -> Path:
    make_bundle(run, [run.gguf("f32")], "mine", run.bundle)
    return run.bundle


def test_a_bundle_is_served_as_the_user_says_not_as_it_says(bundle: Path) -> None:
    with opened([str(bundle)], ["model=nano"]) as (target,):
        assert target.rundir is not None
        private = target.rundir.root.parent
        assert stat.S_IMODE(private.stat().st_mode) == 0o700
        assert (target.recipe.serve, target.recipe.trust_remote_code) == (ServeConfig(), False)
        (model,) = open_targets([target], ServeConfig(max_concurrent=1))
        assert (model.name, model.engine.name, model.engine.dtype) == ("mine", "llama.cpp", "f32")
        model.engine.close()
    assert not private.exists()


def test_only_replies_of_a_run_of_the_terms_task_get_the_note(bundle: Path) -> None:
    with opened([str(bundle)], ["model=nano"]) as (target,):
        other = replace(target, recipe=load_recipe("medquad", ["model=nano", *F32]))
        for one, noted in ((target, True), (other, False), (replace(target, rundir=None), False)):
            (model,) = open_targets([one], ServeConfig(max_concurrent=1))
            assert model.noted == noted
            model.engine.close()


def test_a_bundle_is_talked_to(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    talk(monkeypatch, bundle, "model=nano")
    shown = capsys.readouterr()
    assert shown.out.strip()
    assert "files as they were made, until the end in" in " ".join(shown.err.split())


def test_a_bundle_with_a_merged_checkpoint_needs_no_other_model(run: RunDir, gguf_file: Path) -> None:
    shutil.copytree(gguf_file.parent / "merged", run.merged)
    make_bundle(run, sorted(run.merged.iterdir()), "mine", run.bundle)
    run.recipe.write_text(run.recipe.read_text())
    with laid_out([str(run.bundle)]) as (place,):
        target = read_target(place, [])
        assert target.recipe.model == str(target.trained) == str(Path(place, "export", "merged"))
        with pytest.raises(UsageError, match="holds no base"):
            read_target(place, ["serve.base=true"])
        with pytest.raises(UsageError, match="no such GGUF"):
            read_target(place, ["serve.engine=llama.cpp"])


UNPROVEN = {
    "does not say that it answers": [
        {"parity": {"passed": False, "candidate_dtype": "f32"}},
        {"parity": {"passed": True, "candidate_dtype": "f16", "files": {"q8_0": {}}}},
        {"parity": []},
    ],
    "trained again since it was made": [{"merged": {"trained": {"adapter_model.safetensors": "c"}}}],
    "begun anew since it was made": [{"begun": {"data": "other"}}],
}


def refused(run: RunDir, why: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With llama.cpp or by its name it is an error; else the checkpoint answers, and the reason is said."""
    for named in (str(run.root), str(run.gguf("f32"))):
        with pytest.raises(GateError, match=why):
            read_target(named, ["serve.engine=llama.cpp"])
    capsys.readouterr()
    found = read_target(str(run.root), [])
    assert (found.trained, found.gguf) == (run.adapter, None)
    assert why in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(("why", "said"), [(why, said) for why, cases in UNPROVEN.items() for said in cases])
def test_a_gguf_that_is_not_proven_to_be_what_was_trained_is_not_served(
    why: str, said: dict[str, object], run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    root, gguf = str(run.root), run.gguf("f32")
    for named in (root, str(gguf)):
        assert read_target(named, ["serve.engine=llama.cpp"]).gguf == gguf
    assert read_target(root, []).gguf == gguf
    if "begun" in said:
        write_json(run.manifest, read_json(run.manifest) | {"begun": {"export": "other"}})
        assert read_target(root, []).gguf == gguf
        stages = read_json(run.manifest)["stages"] | {"data": {"key": "d", "files": {}}}
        write_json(run.manifest, said | {"stages": stages})
        with pytest.raises(GateError, match=why):
            read_target(str(gguf), [])
        return
    prove(run, **said)
    refused(run, why, capsys)


@pytest.mark.parametrize("lost", ["parity", "merged_from"])
def test_an_export_that_was_killed_while_it_proved_leaves_nothing_to_serve(
    lost: str, run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    """The record of the export before is still there, and so is its name."""
    record: Path = getattr(run, lost)
    write_json(record, read_json(record) | {"another": True})
    refused(run, f"{record.name} is missing or not of it", capsys)
    record.unlink()
    refused(run, f"{record.name} is missing or not of it", capsys)


def test_a_training_begun_anew_is_not_served(run: RunDir) -> None:
    prove(run, begun={"train": "other"})
    with pytest.raises(UsageError, match="has not finished training"):
        read_target(str(run.root), [])


def test_what_is_no_bundle_or_a_changed_one_is_refused(bundle: Path, tmp_path: Path) -> None:
    raw = bytearray(bundle.read_bytes())
    raw[len(raw) // 2] ^= 1
    bundle.write_bytes(raw)
    (tmp_path / "other.tar").write_bytes(b"no tar")
    for path, error in ((bundle, "not as it was made"), (tmp_path / "other.tar", "not a bundle")):
        with pytest.raises(GateError, match=error), laid_out([str(path)]):
            pass
    with pytest.raises(UsageError, match="no such bundle"), laid_out([str(tmp_path / "none.tar")]):
        pass
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "bundle.json").write_text("{}")
    with pytest.raises(GateError, match="not as it was made"), laid_out([str(tmp_path / "folder")]):
        pass


def test_a_bundle_without_what_the_engine_needs_says_so(bundle: Path) -> None:
    with laid_out([str(bundle)]) as (place,):
        with pytest.raises(UsageError, match="no model for this engine"):
            read_target(place, ["model=nano", "serve.engine=transformers"])
        Path(place, "recipe.yaml").unlink()
        with pytest.raises(UsageError, match="has no recipe"):
            read_target(place, ["model=nano"])


def test_an_adapter_is_talked_to_beside_its_base(
    wide_model: Path, wide_adapter: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    talk(monkeypatch, wide_adapter, f"model={wide_model}")
    base, tuned = capsys.readouterr().out.splitlines()[:2]
    assert base.startswith("base: ") and tuned.startswith("tuned: ")
    assert base.removeprefix("base: ") != tuned.removeprefix("tuned: ")


@pytest.mark.parametrize("loose", [False, True])
def test_a_gguf_is_talked_to_beside_its_base_if_wanted(
    run: RunDir, loose: bool, gguf_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    talk(monkeypatch, gguf_file if loose else run.gguf("f32"), "model=nano", "serve.base=true")
    shown = capsys.readouterr()
    base, tuned = shown.out.removeprefix("base: ").split("\ntuned: ")
    assert base.strip() != tuned.strip()
    assert "loading nano\n" in shown.err
    assert ".gguf\n" in shown.err


def test_a_gguf_and_its_checkpoint_say_the_same(
    gguf_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    talk(monkeypatch, gguf_file, "model=nano")
    out = capsys.readouterr().out
    talk(monkeypatch, gguf_file.parent / "merged")
    assert capsys.readouterr().out == out != "\n"


@pytest.mark.parametrize("ending", ["", "/v1/chat/completions", "/api/chat"])
def test_a_server_is_talked_to(
    ending: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = Fake("far")
    with listening(fake) as url:
        talk(monkeypatch, url + ending + "#far", "model=nano", "evaluate.max_new_tokens=60")
        assert capsys.readouterr().out == f"{REPLY}\n"
        if ending:  # or it is met while the server is looked at
            fake.decoder.fault = "no memory"
            with pytest.raises(EnvironmentFault, match="server behind this model"):
                talk(monkeypatch, url + ending, "model=nano")
        with pytest.raises(UsageError, match="#NAME after the address"):
            talk(monkeypatch, url + ending + "#other", "model=nano")


def test_where_the_words_go_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("builtins.input", lambda _: "/quit")
    for hearer, said in (("", "nothing leaves this machine"), ("http://gpu:8000", "goes to http://gpu:8000")):
        Chat([], [], interactive=True, hearer=hearer).run()
        assert said in " ".join(capsys.readouterr().err.split())


@pytest.fixture
def stray(wide_adapter: Path, tmp_path: Path) -> Path:
    """An adapter that says it was made from a model of the Hub."""
    folder = Path(shutil.copytree(wide_adapter, tmp_path / "stray"))
    said = read_json(folder / "adapter_config.json") | {"base_model_name_or_path": "org/hidden"}
    write_json(folder / "adapter_config.json", said)
    return folder


def test_while_the_hub_is_asked_it_hears_of_no_other_model(stray: Path) -> None:
    with pytest.raises(UsageError, match="of the Hub, which you did not name"):
        check_named([str(stray), "org/other"], [])
    check_named([str(stray), "org/hidden"], [])
    check_named([str(stray), "org/other"], ["model=org/hidden"])


@pytest.mark.parametrize("verb", ["serve", "chat"])
def test_a_file_alone_reaches_no_hub(verb: str, stray: Path, run: RunDir, tmp_path: Path) -> None:
    text = run.recipe.read_text().replace("model: nano", "model: org/hidden")
    run.recipe.write_text(text)
    make_bundle(run, [run.gguf("f32")], "mine", run.bundle)
    with hub_of_our_own() as hub:
        away = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "cache")}
        for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
            away.pop(name, None)
        for target in (stray, run.bundle):
            command = [sys.executable, "-m", "medmind", verb, str(target)]
            done = subprocess.run(command, env=away, capture_output=True, text=True, input="", timeout=60)
            assert (done.returncode, hub.asked) == (2, [])
            assert "made from org/hidden, which is not on this machine" in done.stderr
            assert "--set model=org/hidden fetches it" in done.stderr
        done = subprocess.run([*command, "--set", "model=org/hidden"], env=away, capture_output=True, input=b"")
        assert done.returncode != 0
        assert hub.asked, "named by the user, it is asked for"
