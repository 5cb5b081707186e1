"""The house keeps its shape: short functions, short files, a reason for every module, empty package files."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
PACKAGE = REPOSITORY / "src" / "medmind"
CODE = sorted(
    path for folder in (PACKAGE, REPOSITORY / "bench", REPOSITORY / "scripts") for path in folder.rglob("*.py")
)
TESTS = sorted((REPOSITORY / "tests").rglob("*.py"))
LONGEST_FUNCTION, LONGEST_FILE, LONGEST_TEST_FILE = 60, 300, 400
LONGEST_REASON = 6
"""Lines of a module's docstring: the first says why the file exists, the rest what a caller must know."""


def name_of(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def modules(paths: list[Path]) -> Iterator[tuple[str, ast.Module]]:
    for path in paths:
        if path.name != "__init__.py":
            yield name_of(path), ast.parse(path.read_text(encoding="utf-8"))


def test_there_is_something_to_look_at() -> None:
    assert len(CODE) > 40
    assert len(TESTS) > 4


def test_functions_are_short() -> None:
    long = [
        f"{name}: {node.name} has {node.end_lineno - node.lineno + 1} lines"
        for name, module in modules([*CODE, *TESTS])
        for node in ast.walk(module)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno >= LONGEST_FUNCTION
    ]
    assert long == []


@pytest.mark.parametrize(("paths", "limit"), [(CODE, LONGEST_FILE), (TESTS, LONGEST_TEST_FILE)], ids=["code", "tests"])
def test_files_are_short(paths: list[Path], limit: int) -> None:
    lengths = {name_of(path): len(path.read_text(encoding="utf-8").split("\n")) - 1 for path in paths}
    assert {name: length for name, length in lengths.items() if length > limit} == {}


def test_every_module_says_why_it_exists() -> None:
    reasons = {name: ast.get_docstring(module) or "" for name, module in modules([*CODE, *TESTS])}
    assert [name for name, reason in reasons.items() if len(reason.split()) < 3] == []
    drawn = "src/medmind/core/errors.py"
    long = [name for name, reason in reasons.items() if len(reason.splitlines()) > LONGEST_REASON and name != drawn]
    assert long == []


def test_package_files_are_empty() -> None:
    packages = [path for path in PACKAGE.rglob("__init__.py") if path.read_text(encoding="utf-8").strip()]
    assert [name_of(path) for path in packages] == []


def test_every_folder_with_code_is_a_package() -> None:
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    assert [name_of(folder) for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []
