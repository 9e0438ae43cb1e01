"""A printable sign for each byte, so that any bytes are a string: the byte-level alphabet of GPT-2.

    signs(" é".encode()) == "ĠÃ©"

One sign is one byte, so strings of signs and bytes are in one-to-one relation, whatever the bytes are.
"""

from __future__ import annotations


def _alphabet() -> dict[int, str]:
    """The byte's own sign where it has one, else one from U+0100 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + place) for place, byte in enumerate(others)}


ALPHABET = _alphabet()
"""Sign by byte."""
_BYTE = {ord(sign): byte for byte, sign in ALPHABET.items()}


def signs(raw: bytes) -> str:
    """The string that stands for `raw`."""
    return raw.decode("latin-1").translate(ALPHABET)


def raw_bytes(text: str) -> bytes:
    """The bytes that a string of signs stands for; a character that is no sign is a ValueError."""
    return text.translate(_BYTE).encode("latin-1")
