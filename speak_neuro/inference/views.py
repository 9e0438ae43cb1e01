"""Views for pictures: of a trained run, and of the subword tokenizers it is compared with."""

from __future__ import annotations

import itertools
import json
import math
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer

from speak_neuro.common.array_types import Int32Array
from speak_neuro.errors import SpeakError
from speak_neuro.inference.engine import BoundaryEngine
from speak_neuro.pictures.view import NeuronRun, View
from speak_neuro.supervision.entropy import character_entropy
from speak_neuro.text import segments
from speak_neuro.text.alphabet import Alphabet
from speak_neuro.training.sliding import views as windows_over


def speak_view(engine: BoundaryEngine, alphabet: Alphabet, text: str, name: str, entropy: bool = True) -> View:
    """A trained run's tokens of `text`, its neuron, and the language model's entropy at every character."""
    ids = alphabet.encode(text)
    trace = engine.run(ids)
    bits = entropy_bits(engine, ids, trace.spikes) if entropy and text else None
    neuron = engine.tokenizer.neuron
    run = NeuronRun(trace.membrane, trace.spikes, trace.gate_logit > 0, float(neuron.threshold.reshape(())), bits)
    return View(name, text, segments.spans(trace.spikes), run if text else None)


@torch.no_grad()
def entropy_bits(engine: BoundaryEngine, ids: Int32Array, spikes: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """The language model's entropy of the next character in bits, (L,), each with half a training window before it."""
    model, size = engine.system.language_model, ids.size
    row = torch.from_numpy(ids.astype(np.int64))[None].to(engine.device)
    closes = torch.from_numpy(spikes)[None].to(engine.device)
    found = np.zeros(size, dtype=np.float32)
    for view in windows_over(size, max(2, engine.window)):
        logits = model(row[:, view.start : view.end], closes[:, view.start : view.end])
        bits = character_entropy(logits)[0, view.first - view.start :] / math.log(2)
        found[view.first : view.end] = bits.float().cpu().numpy()
    return found


def spans_view(name: str, text: str, spans: npt.NDArray[np.int64]) -> View:
    """Any tokenizer's spans."""
    return View(name, text, np.asarray(spans, dtype=np.int64).reshape(-1, 2))


def library_view(tokenizer: Tokenizer, text: str, name: str) -> View:
    """The tokens of a tokenizer of the `tokenizers` library.

    What it drops, white space for one, belongs to the token before; several tokens inside one character (bytes) are
    shown as one.
    """
    try:
        offsets = tokenizer.encode(text, add_special_tokens=False).offsets
    except Exception as error:  # the library raises bare Exception, and TypeError on lone surrogates
        raise SpeakError(
            f"{name}: cannot read this text ({' '.join(str(error).split())}); try another tokenizer"
        ) from None
    edges = sorted({0, len(text), *(start for start, end in offsets if end > start)})
    return spans_view(name, text, np.array(list(itertools.pairwise(edges)), dtype=np.int64))


def load_library_tokenizer(path: str | os.PathLike[str]) -> Tokenizer:
    """A tokenizer.json."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        json.loads(text)
        return Tokenizer.from_str(text)
    except OSError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        raise SpeakError(
            f"{os.fspath(path)}: not a tokenizer.json ({reason}); give one that `tokenizers` wrote"
        ) from None
