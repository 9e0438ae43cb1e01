"""Every character is scored once, with the context that was promised."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speak_neuro.errors import SpeakError
from speak_neuro.training.sliding import View, views


def test_by_hand() -> None:
    assert views(10, 4) == [View(0, 0, 4), View(2, 4, 6), View(4, 6, 8), View(6, 8, 10)]
    assert views(9, 4) == [View(0, 0, 4), View(2, 4, 6), View(4, 6, 8), View(6, 8, 9)]
    assert views(3, 4) == [View(0, 0, 3)]
    assert views(0, 4) == []
    # DTP: 512, 1024, 1536, 2048, then 512 more at a time.
    assert views(3000, 2048, 512, growing=True) == [
        *(View(0, 512 * k, 512 * (k + 1)) for k in range(4)),
        View(512, 2048, 2560),
        View(1024, 2560, 3000),
    ]


@given(st.integers(0, 200), st.integers(1, 40), st.data(), st.booleans())
def test_every_character_once_with_its_context(size: int, window: int, data: st.DataObject, growing: bool) -> None:
    stride = data.draw(st.integers(1, window))
    found = views(size, window, stride, growing)
    assert [t for view in found for t in range(view.first, view.end)] == list(range(size))
    for view in found:
        assert 0 <= view.start <= view.first < view.end
        assert view.end - view.start <= window
        assert view.first - view.start >= min(view.first, window - stride)


@given(st.integers(1, 200), st.integers(1, 8), st.integers(1, 8))
def test_growing_reads_the_same_past(size: int, stride: int, parts: int) -> None:
    """With a stride that divides the window, a character's window starts at the same place either way."""
    window = stride * parts

    def starts(growing: bool) -> list[int]:
        return [v.start for v in views(size, window, stride, growing) for _ in range(v.first, v.end)]

    assert starts(True) == starts(False)


@pytest.mark.parametrize(("window", "stride"), [(8, 9), (8, 0), (0, None)])
def test_bad_sizes(window: int, stride: int | None) -> None:
    with pytest.raises(SpeakError, match="allowed"):
        views(10, window, stride)
