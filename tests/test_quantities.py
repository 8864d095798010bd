"""Numbers as people write them are read, and numbers are written so that people can read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxopt.errors import UsageError
from onnxopt.quantities import bytes_text, change_text, count_text, parse_count, parse_percent


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("500", 500),
        ("500k", 500_000),
        ("10MB", 10_000_000),
        ("10 MB", 10_000_000),
        ("1.5G", 1_500_000_000),
        ("64KiB", 65_536),
        ("1MiB", 1_048_576),
        ("1,000", 1000),
        (".5k", 500),
        ("7b", 7),
    ],
)
def test_numbers_with_units_are_read(text: str, number: int) -> None:
    assert parse_count(text) == number


@pytest.mark.parametrize(
    "text", ["", "ten", "-5", "1.5.2", "10 parsecs", "5i", "1e6", "105%", "nan"]
)
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a number"):
        parse_count(text)


@pytest.mark.parametrize(
    ("text", "fraction"), [("10%", 0.1), ("105%", 1.05), ("0.1", 0.1), ("0", 0)]
)
def test_percentages_are_read(text: str, fraction: float) -> None:
    assert parse_percent(text) == pytest.approx(fraction)


@pytest.mark.parametrize("text", ["", "10", "-1%", "nan%", "inf%", "x%"])
def test_what_is_no_percentage_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a percentage"):
        parse_percent(text)


@given(st.integers(min_value=0, max_value=10**15))
def test_what_is_written_is_read_back_within_its_three_digits(number: int) -> None:
    for text in (count_text(number), bytes_text(number)):
        assert parse_count(text) == pytest.approx(number, rel=0.006)


def test_differences_are_written_in_percent_or_exactly_where_they_are_tiny() -> None:
    assert change_text(100, 50) == "-50.0%"
    assert change_text(100, 100) == ""
    assert change_text(0, 5) == "new"
    assert change_text(10_000_000, 10_000_001) == "+1"
