"""The path to the tests' own modules, and tables as wide as in a file whoever runs the tests."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def _tables_are_as_wide_as_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """pytest-xdist and CI systems set COLUMNS, and names would be folded there alone."""
    monkeypatch.delenv("COLUMNS", raising=False)
