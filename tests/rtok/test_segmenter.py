"""The check that a segmenter loses nothing."""

import pytest

from speak_neuro.errors import SpeakError
from speak_neuro.rtok.text.segmenter import Segmenter, check_joined


class Characters:
    name = "characters"

    def segment(self, batch, language):
        return [[list(unit) for unit in units] for units in batch]


def test_protocol_is_structural():
    segmenter = Characters()
    assert isinstance(segmenter, Segmenter)
    batch = [["▁ab", "▁c"], []]
    check_joined(batch, segmenter.segment(batch, "en"), segmenter.name)


@pytest.mark.parametrize("tokens", [["▁a"], ["▁a", "b", ""], ["▁ab", "c"], []])
def test_lost_text_is_an_error(tokens):
    with pytest.raises(SpeakError, match=r"segmenter x: tokens .* do not join to the unit '▁ab'"):
        check_joined([["▁ab"]], [[tokens]], "x")
