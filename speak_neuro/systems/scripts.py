"""The script of a text: MAGNET gives each script its own boundary predictor and its own prior.

A character's script is the first word of its Unicode name (LATIN, CYRILLIC, DEVANAGARI, CJK, ...), for letters only. A
row's script is that of most of its letters, so that digits, spaces and a borrowed word do not decide.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from speak_neuro.text.alphabet import Alphabet


def script_of(character: str) -> str | None:
    """Lower-case name of a letter's script; None for everything that is no letter."""
    if not unicodedata.category(character).startswith("L"):
        return None
    name = unicodedata.name(character, "")
    return name.split()[0].split("-")[0].lower() if name else None


def script_table(alphabet: Alphabet, scripts: Sequence[str]) -> npt.NDArray[np.int64]:
    """For each id of the alphabet the index of its script in `scripts`, or len(scripts) for none of them: (V,)."""
    index = {script: number for number, script in enumerate(scripts)}
    found = [index.get(script_of(character) or "", len(scripts)) for character in alphabet.characters]
    return np.array([len(scripts), *found], dtype=np.int64)  # id 0 is the unknown character
