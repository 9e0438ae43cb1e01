"""Spoken vowels: nine men say /ae/, as 12 LPC cepstrum coefficients over 7 to 29 frames; whose voice is it?

Kudo, Toyama, Shimbo (1999), the set JapaneseVowels of the UCI and UEA archives: 270 utterances to train on, 370 to test
on. The package aeon brings it (`pip install aeon`, or without its dependencies as .ci/readers.txt lists it).
"""

from __future__ import annotations

import importlib.util
from typing import Any, NamedTuple

import numpy as np

from speak_neuro.errors import MissingExtra

SPEAKERS = 9
COEFFICIENTS = 12


class Utterances(NamedTuple):
    """A part of the set, every coefficient of the training part with mean 0 and deviation 1."""

    frames: Any
    """(B, T, 12), zeros after an utterance's end."""
    lengths: Any
    """(B,) frames."""
    speakers: Any
    """(B,) from 0 on."""


def installed() -> bool:
    """Whether the package with the recordings is there."""
    return importlib.util.find_spec("aeon") is not None


def load() -> tuple[Utterances, Utterances]:
    """The training and the test part, as torch tensors."""
    import torch

    if not installed():
        raise MissingExtra("aeon is not installed, which brings the recordings: pip install aeon")
    from aeon.datasets import load_japanese_vowels

    (train, train_speakers), (test, test_speakers) = load_japanese_vowels("train"), load_japanese_vowels("test")
    everything = np.concatenate(train, axis=1)
    mean, deviation = everything.mean(1), everything.std(1)
    longest = max(utterance.shape[1] for utterance in [*train, *test])
    parts = []
    for utterances, speakers in ((train, train_speakers), (test, test_speakers)):
        frames = np.zeros((len(utterances), longest, COEFFICIENTS), dtype=np.float32)
        for row, utterance in zip(frames, utterances, strict=True):
            row[: utterance.shape[1]] = (utterance.T - mean) / deviation
        lengths = np.array([utterance.shape[1] for utterance in utterances])
        labels = np.array([int(speaker) - 1 for speaker in speakers])
        parts.append(Utterances(*(torch.from_numpy(array) for array in (frames, lengths, labels))))
    return parts[0], parts[1]
