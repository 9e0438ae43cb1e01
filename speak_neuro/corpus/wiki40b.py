"""A row of wiki40b as text: its structure is in markers, and without them it is something else.

    "\\n_START_ARTICLE_\\nTurku\\n_START_PARAGRAPH_\\n..."      the set's own rows
    b"\\n_START_ARTICLE_\\nTurku..."                         bytes, as TensorFlow gives them: decoded
    "b'\\\\n_START_ARTICLE_\\\\nTurku...'"                    their printed form, as in some copies: read back

Anything else would be trained on as it stands, the letters of escapes too, so it is refused by its row.
"""

from __future__ import annotations

import ast
import re
from typing import Any

from speak_neuro.corpus.cleaning import MARKERS
from speak_neuro.errors import SpeakError

_PRINTED = re.compile(r"""\s*b?(['"]).*\1\s*""", re.DOTALL)
_ESCAPED = "\\n_START_"
_ADVICE = "give the set's own rows, or other text through --data"


def article(value: Any, where: str) -> str:
    """The text of a row's column; `where` names the row in messages."""
    text = value
    if isinstance(text, str) and text.lstrip()[:2] in ("b'", 'b"', "'\\", '"\\') and _PRINTED.fullmatch(text):
        try:
            text = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError):
            raise SpeakError(f"{where}: begins like printed bytes and is none ({value[:40]!r}); {_ADVICE}") from None
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8")
        except UnicodeDecodeError as error:
            raise SpeakError(f"{where}: byte {error.start} is not UTF-8; {_ADVICE}") from None
    if not isinstance(text, str):
        raise SpeakError(f"{where}: text is {type(text).__name__}; allowed: a string")
    if not text.strip():
        return text
    if _ESCAPED in text:
        raise SpeakError(f"{where}: holds line ends in their printed form ({text[:40]!r}); {_ADVICE}")
    if not any(marker in text for marker in MARKERS):
        raise SpeakError(f"{where}: holds no marker such as {MARKERS[0]} ({text[:40]!r}); {_ADVICE}")
    return text
