"""Parts of bounded size."""

from __future__ import annotations

from onnxopt.parts import parts


def test_parts_are_consecutive_and_bounded_and_a_large_item_comes_alone() -> None:
    sizes = [3, 4, 2, 20, 1, 9, 1]
    found = list(parts(range(7), lambda i: sizes[i], 10))
    assert found == [[0, 1, 2], [3], [4, 5], [6]]
    assert list(parts([], len, 10)) == []
