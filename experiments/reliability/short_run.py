"""The short run that these commands train, kill, damage and read with: 60 steps, seconds on one core."""

from __future__ import annotations

from pathlib import Path

from speak_neuro.corpus.reader import embedded_text
from speak_neuro.errors import SpeakError
from speak_neuro.training import command

FLAGS = (
    "--steps 60 --evaluate-every 10 --proxy-steps 20 --batch 8 --window 128 --width 32 --heads 2 --inner 64 "
    "--pre-layers 1 --shortened-layers 1 --post-layers 1 --encoder window --encoder-width 16 --context 3 --warmup 5 "
    "--evaluate-characters 500 --exemplar-vocabulary 300 --device cpu --quiet"
).split()
CHARACTERS = 20_000


def write_text(place: Path) -> None:
    """The text that every run of this folder is trained on."""
    (place / "text.txt").write_text(embedded_text("en")[:CHARACTERS], encoding="utf-8")


def flags_of(place: Path, name: str, *more: str) -> list[str]:
    """Flags of `gtok.py` for the run `name` beside the text."""
    return [*FLAGS, "--data", str(place / "text.txt"), "--out", str(place / name), *more]


def short_run(place: Path, name: str, *more: str) -> Path:
    """That run, trained here."""
    if command.main(flags_of(place, name, *more), prog="gtok.py"):
        raise SpeakError(f"the short run {name} did not end well; its message is above")
    return place / name
