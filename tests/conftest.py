"""What tests share: where the real data lies, and a model small enough to train in a second."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data; the test is skipped, by name, where it is absent."""
    folder = Path(os.environ.get("MEDMIND_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"needs the real data folder ({folder} is absent)")
    return folder
