"""What `medmind doctor` tells: all of it, no secret, and a failing exit when something needed is broken."""

import json
from pathlib import Path

import pytest

from medmind.cli.main import main
from medmind.estimate import doctor
from medmind.estimate.machine import hub_cache, nearest, size_of

SECRET = "hf_donotprintthis"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without reading the model."""
    monkeypatch.setattr(doctor, "try_model", lambda: {"model": "nano", "nats_per_token": 1.0, "by_chance": 9.0})


def test_everything_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["faults"] == []
    assert all(found["versions"].values())
    assert 0 < found["device"]["memory_free"] <= found["device"]["memory_total"]
    assert found["device"]["dtypes"].keys() == {"float32", "bfloat16", "float16"}
    assert found["self_test"]["nats_per_token"] < found["self_test"]["by_chance"]
    assert found["disk"]["free"] > 0
    assert found["bindings"].keys() == set(doctor.BINDINGS)


def test_every_door_to_the_network_is_named(quick: None, capsys: pytest.CaptureFixture[str]) -> None:
    """The flags and words of the command line that take an address, and the keys of a recipe that may connect."""
    assert main(["doctor"]) == 0
    told = capsys.readouterr().out
    for door in ("data.path", "suites", "export push", "train.report_to", "--endpoint", "--ollama", "serve.host"):
        assert door in told


def test_no_token_is_ever_shown(
    quick: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    monkeypatch.setenv("https_proxy", f"http://me:{SECRET}@proxy")
    monkeypatch.setenv("HF_ENDPOINT", f"https://me:{SECRET}@mirror.example/hub")
    assert main(["doctor"]) == 0
    told = capsys.readouterr()
    assert SECRET not in told.out + told.err
    assert "HF_TOKEN yes" in told.out
    assert "HTTPS_PROXY yes" in told.out
    assert "HTTP_PROXY no" in told.out
    assert "mirror.example" in told.out


def test_a_missing_package_is_a_fault_and_an_absent_option_is_none(
    quick: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    versions = {"spacy": None, "llama-cpp-python": None, "peft": None}
    monkeypatch.setattr(doctor, "find_version", lambda name: versions.get(name, "1.0"))
    assert main(["doctor", "--json"]) == 3
    told = capsys.readouterr()
    found = json.loads(told.out)
    assert found["faults"] == ["peft is not installed"]
    assert found["bindings"]["spacy"]["version"] is None
    assert "peft is not installed" in told.err


def test_a_model_that_cannot_read_is_a_fault(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise RuntimeError("no product")

    monkeypatch.setattr(doctor, "try_model", fail)
    assert main(["doctor"]) == 3
    told = capsys.readouterr()
    assert "self-test: RuntimeError: no product" in told.err
    assert "failed" in told.out


def test_the_cache_is_found_as_the_hub_finds_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub.constants import HF_HUB_CACHE

    assert str(hub_cache()) == HF_HUB_CACHE
    folder = tmp_path / "cache"
    monkeypatch.setenv("HF_HUB_CACHE", str(folder))
    assert hub_cache() == folder
    assert size_of(folder) == 0
    folder.mkdir()
    (folder / "file").write_bytes(b"1234")
    (folder / "link").symlink_to("file")
    assert size_of(folder) == 4
    assert nearest(folder / "a" / "b") == folder
