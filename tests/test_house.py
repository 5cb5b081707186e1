"""The house stands without its scaffolding: a wheel that carries everything, a light door, pins that hold."""

import os
import re
import shutil
import statistics
import subprocess
import sys
import sysconfig
import time
import tomllib
import warnings
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
SOURCE = REPOSITORY / "src"
HEAVY = ("torch", "transformers", "peft", "pydantic", "yaml", "rich", "numpy", "tokenizers", "huggingface_hub")
HELP_LIMIT = 15
"""How many times an empty Python program `medmind --help` may take."""


def call(*command: str, cwd: Path, **environment: str) -> str:
    """Standard output of a command that must succeed."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, env=clean | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that the checkout stays as it is and nothing left over in it gets in."""
    copy = tmp_path_factory.mktemp("wheel")
    shutil.copytree(SOURCE, copy / "src", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(REPOSITORY / name, copy)
    call(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "dist", str(copy), cwd=copy)
    (built,) = (copy / "dist").glob("*.whl")
    return built


def test_the_wheel_carries_every_file_of_the_package(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith("medmind/")}
    ours = {
        str(path.relative_to(SOURCE))
        for path in (SOURCE / "medmind").rglob("*")
        if path.is_file() and path.parent.name != "__pycache__" and not path.name.startswith(".")
    }
    assert packed == ours
    assert {"medmind/recipe/presets/demo.yaml", "medmind/models/nano/tokenizer.json"} <= packed
    assert {"medmind/models/nano/model.safetensors", "medmind/data/terms/abbreviations.jsonl"} <= packed


def test_the_wheel_works_in_an_environment_that_has_only_the_dependencies(wheel: Path, tmp_path: Path) -> None:
    """Its own copy of medmind; the packages it needs are lent by the test's environment, medmind's link left out."""
    call(sys.executable, "-m", "venv", "--without-pip", "empty", cwd=tmp_path)
    python = str(tmp_path / "empty" / "bin" / "python")
    install = ("install", "--no-deps", "--no-index", "--disable-pip-version-check", str(wheel))
    call(sys.executable, "-m", "pip", "--python", python, *install, cwd=tmp_path)
    (packages,) = (tmp_path / "empty" / "lib").glob("python*/site-packages")
    (packages / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    place = call(python, "-c", "import medmind.cli.main as m; print(m.__file__)", cwd=tmp_path)
    assert Path(place.strip()).is_relative_to(packages)
    medmind = str(tmp_path / "empty" / "bin" / "medmind")
    assert re.search(r"^demo +\S", call(medmind, "recipe", "ls", cwd=tmp_path), re.MULTILINE)
    assert call(medmind, "--version", cwd=tmp_path) == f"medmind {project()['version']}\n"


def test_the_help_costs_little(capsys: pytest.CaptureFixture[str]) -> None:
    times: dict[str, list[float]] = {"help": [], "empty": []}
    commands = {"help": ["-m", "medmind", "--help"], "empty": ["-c", "pass"]}
    for _ in range(5):
        for name, words in commands.items():
            start = time.perf_counter()
            call(sys.executable, *words, cwd=REPOSITORY)
            times[name].append(time.perf_counter() - start)
    ratio = statistics.median(times["help"]) / statistics.median(times["empty"])
    with capsys.disabled():
        print(f"\nmedmind --help takes {ratio:.1f} times python -c pass")
    assert ratio <= HELP_LIMIT


def test_the_help_imports_nothing_heavy() -> None:
    code = f"""
import sys
from medmind.cli.main import main
try:
    main(["--help"])
except SystemExit:
    print(sorted(set({HEAVY}) & set(sys.modules)))
"""
    assert call(sys.executable, "-c", code, cwd=REPOSITORY).splitlines()[-1] == "[]"


def project() -> dict[str, str]:
    values: dict[str, str] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return values


def plain_name(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[<>=!~\[; ]", requirement)[0]).lower()


def test_every_dependency_is_pinned_in_the_one_place_for_pins() -> None:
    pins = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins), "no local version suffix, no link, no range"
    assert "torch==2.13.0" in pins
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*settings["dependencies"], *settings["optional-dependencies"]["dev"]]
    wanted += settings["optional-dependencies"]["llamacpp"]
    assert {plain_name(name) for name in wanted} - {plain_name(pin) for pin in pins} == set()
    assert not any("==" in name for name in wanted)


def test_a_warning_of_medmind_is_an_error() -> None:
    with pytest.raises(UserWarning):
        warnings.warn_explicit("careless", UserWarning, "log.py", 1, module="medmind.core.log")


def test_ci_goes_through_the_one_door() -> None:
    ci = REPOSITORY / ".ci" / "run"
    assert os.access(ci, os.X_OK)
    assert "make check" in ci.read_text(encoding="utf-8")
    rules = call("make", "-n", "check", cwd=REPOSITORY)
    for tool in ("ruff check", "ruff format --check", "mypy", "lint-imports", "pytest"):
        assert tool in rules
