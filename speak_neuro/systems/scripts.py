"""The script of a text: MAGNET gives each script its own boundary predictor and its own prior.

A letter's script is Unicode's property of that name (latin, cyrillic, devanagari, ...), as fontTools has it; Han is
called cjk. A row's script is that of most of its letters, so that digits, spaces and a borrowed word do not decide.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from fontTools.unicodedata import script, script_name

from speak_neuro.text.alphabet import Alphabet

NO_SCRIPT = ("Zyyy", "Zinh", "Zzzz")
"""Common, inherited, unknown."""


def script_of(character: str) -> str | None:
    """Lower-case name of a letter's script; None for what is no letter, and for letters of no script (ℂ)."""
    code = script(character)
    if not unicodedata.category(character).startswith("L") or code in NO_SCRIPT:
        return None
    return "cjk" if code == "Hani" else str(script_name(code)).replace(" ", "").lower()


def script_table(alphabet: Alphabet, scripts: Sequence[str]) -> npt.NDArray[np.int64]:
    """For each id of the alphabet the index of its script in `scripts`, or len(scripts) for none of them: (V,)."""
    index = {script: number for number, script in enumerate(scripts)}
    found = [index.get(script_of(character) or "", len(scripts)) for character in alphabet.characters]
    return np.array([len(scripts), *found], dtype=np.int64)  # id 0 is the unknown character
