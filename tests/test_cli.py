"""The door: what each error looks like, which exit code it gives, and what a verb may not do before it is chosen."""

import errno
import importlib
import json
import os
import subprocess
import sys
import types
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from medmind.cli.common import open_run
from medmind.cli.main import VERBS, main
from medmind.core import offline
from medmind.core.errors import DataError, EnvironmentFault, GateError, Interrupted

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _same_environment() -> Iterator[None]:
    """keep_quiet changes the process's environment; the next test must not see it."""
    environment, before = dict(os.environ), set(offline.set_here)
    yield
    os.environ.clear()
    os.environ.update(environment)
    offline.set_here.clear()
    offline.set_here.update(before)


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Namespace], int]], None]:
    """Registers a verb "fake" that does what the test says."""

    def register(run: Callable[[Namespace], int]) -> None:
        module = types.ModuleType("medmind.cli.fake")
        module.__dict__.update(HELP="fake", add_arguments=lambda parser: None, run=run)
        monkeypatch.setitem(sys.modules, "medmind.cli.fake", module)
        monkeypatch.setitem(VERBS, "fake", "a verb of this test")

    return register


def failing(error: BaseException) -> Callable[[Namespace], int]:
    def run(args: Namespace) -> int:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (
            DataError("empty answer", where="a.csv, row 3", todo="fill it"),
            2,
            "error: empty answer, a.csv, row 3, fill it",
        ),
        (GateError("3 wrong"), 1, "error: 3 wrong"),
        (EnvironmentFault("no device"), 3, "error: no device"),
        (Interrupted("stopped at step 3"), 130, "stopped at step 3"),
        (KeyboardInterrupt(), 130, "interrupted; the same command resumes"),
        (OSError(errno.ENOSPC, "No space", "x.bin"), 3, "error: no space left on the device, x.bin, free some"),
        (RuntimeError("[enforce fail at inline_container.cc:672]"), 3, "error: no space left on the device, free some"),
        (
            PermissionError(errno.EACCES, "Permission denied", "/x"),
            3,
            "error: cannot be used: Permission denied, /x",
        ),
        (ValueError("odd\nsecond line"), 2, "error: internal error: ValueError: odd, run with --debug"),
    ],
)
def test_each_error_has_its_code_and_its_line(
    error: BaseException, code: int, told: str, verb: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    verb(failing(error))
    assert main(["fake"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(told)
    assert "Traceback" not in err
    assert len(err.splitlines()) == 1


def test_debug_shows_the_traceback_wherever_it_stands(
    verb: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    verb(failing(DataError("bad row")))
    for words in (["fake", "--debug"], ["--debug", "fake"]):
        assert main(words) == 2
        err = capsys.readouterr().err
        assert "Traceback" in err
        assert err.splitlines()[-1] == "error: bad row"


def test_the_code_of_a_verb_is_the_commands(verb: Callable[..., None]) -> None:
    verb(lambda args: 1)
    assert main(["fake"]) == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["trian"], 'error: unknown verb "trian" (did you mean "train"?), known: run, data'),
        (["recipe"], 'error: the following arguments are required: WORD, see "medmind recipe --help"'),
        (["recipe", "show"], "error: the following arguments are required: TARGET"),
        (["recipe", "ls", "--jsn"], "error: unrecognized arguments: --jsn"),
        (["recipe", "show", "base", "--se", "a=1"], "error: unrecognized arguments"),
        (["--nonsense"], "error: unrecognized arguments: --nonsense"),
        (["recipe", "show", "dmeo"], 'error: unknown recipe "dmeo" (did you mean "demo"?)'),
        (["recipe", "show", "base", "--set", "sede=1"], "error: the recipe has 1 fault (base):\n  - --set sede=1"),
    ],
)
def test_wrong_use_is_code_2(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert capsys.readouterr().err.startswith(told)


def test_no_verb_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "medmind run demo" in capsys.readouterr().err


def test_the_help_shows_every_verb_and_two_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    assert left.value.code == 0
    out = capsys.readouterr().out
    assert all(f"  {verb} " in out and text in out for verb, text in VERBS.items())
    assert len([line for line in out.splitlines() if line.startswith("  medmind ")]) == 2


@pytest.mark.parametrize("verb_name", VERBS)
def test_every_verb_keeps_the_protocol(verb_name: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = importlib.import_module(f"medmind.cli.{verb_name}")
    assert module.HELP
    with pytest.raises(SystemExit) as left:
        main([verb_name, "--help"])
    assert left.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: medmind {verb_name}")


def test_no_verb_imports_torch_before_it_runs() -> None:
    modules = "".join(f"import medmind.cli.{verb}\n" for verb in VERBS)
    code = f"import sys\n{modules}print(sorted({{'torch', 'transformers', 'peft'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_recipe_ls_and_show_speak_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe", "ls", "--json"]) == 0
    assert "demo" in json.loads(capsys.readouterr().out)
    assert main(["recipe", "show", "demo", "--json", "--set", "seed=3"]) == 0
    assert json.loads(capsys.readouterr().out)["seed"] == 3


def test_recipe_new_writes_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.yaml"
    assert main(["recipe", "new", "demo", str(file)]) == 0
    assert main(["recipe", "show", str(file)]) == 0
    assert "name: mine\n" in capsys.readouterr().out
    before = file.read_text()
    for words, told in (
        (["demo", str(file)], "the file exists already"),
        (["demo", str(tmp_path / "check.yaml")], "cannot name a recipe"),
        (["demo", str(tmp_path / "mine.txt")], "ends in .yaml"),
        (["dmeo", str(tmp_path / "other.yaml")], 'did you mean "demo"'),
    ):
        assert main(["recipe", "new", *words]) == 2
        assert told in capsys.readouterr().err
    assert file.read_text() == before
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


def test_the_run_directory_is_out_or_the_target_or_by_name(tmp_path: Path) -> None:
    def root(target: str, out: Path | None = None) -> Path:
        return open_run(Namespace(target=target, sets=["model=nano"], out=out))[1].root

    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text("name: other\n")
    assert root("demo") == Path("runs/demo")
    assert root("demo", tmp_path / "x") == tmp_path / "x"
    assert root(str(tmp_path / "run")) == tmp_path / "run"
    assert root(str(tmp_path / "run"), tmp_path / "x") == tmp_path / "x"
    assert root(str(tmp_path / "run" / "recipe.yaml")) == Path("runs/other")
    (tmp_path / "file").touch()
    with pytest.raises(Exception, match="the run directory is a file"):
        root("demo", tmp_path / "file")


def test_the_hub_is_reachable_only_for_a_model_that_lies_there(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in offline.OFFLINE:
        monkeypatch.delenv(name, raising=False)
    offline.set_here.clear()
    main(["recipe", "ls"])
    assert os.environ["HF_HUB_OFFLINE"] == os.environ["TRANSFORMERS_OFFLINE"] == "1"
    args = Namespace(target="demo", sets=[], out=None)
    open_run(args)
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    args.sets = ["model=Mistral-7B-v0.3"]
    open_run(args)
    assert "HF_HUB_OFFLINE" not in os.environ
    assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == "1"
    os.environ["HF_HUB_OFFLINE"] = "1"
    main(["recipe", "ls"])
    open_run(args)
    assert os.environ["HF_HUB_OFFLINE"] == "1", "what the user switched off stays off"


def test_a_broken_pipe_is_quiet() -> None:
    command = [sys.executable, "-m", "medmind", "recipe", "show", "base"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_a_closed_stdout_is_no_error() -> None:
    command = f"{sys.executable} -m medmind recipe ls >&-"
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True, timeout=20)
    assert (done.returncode, done.stderr) == (0, "")
