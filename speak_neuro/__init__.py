"""SPEAK, the entropy-gated spiking tokenizer: trained with a language model, exported through NIR, verified in Lava."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from speak_neuro.api.tokenizer import Tokenizer
    from speak_neuro.api.train import train
    from speak_neuro.inference.speak import Speak
    from speak_neuro.neuron.functional import gated_lif_scan
    from speak_neuro.neuron.module import GatedLeaky, GatedLeakyCell
    from speak_neuro.neuron.reference import NeuronParameters

    load = Tokenizer.load

__version__ = "0.1.0"
__all__ = [
    "GatedLeaky",
    "GatedLeakyCell",
    "NeuronParameters",
    "Speak",
    "Tokenizer",
    "__version__",
    "gated_lif_scan",
    "load",
    "train",
]
_HOMES = {
    "GatedLeaky": "speak_neuro.neuron.module",
    "GatedLeakyCell": "speak_neuro.neuron.module",
    "NeuronParameters": "speak_neuro.neuron.reference",
    "Speak": "speak_neuro.inference.speak",
    "gated_lif_scan": "speak_neuro.neuron.functional",
    "Tokenizer": "speak_neuro.api.tokenizer",
    "train": "speak_neuro.api.train",
}

if getattr(sys, "argv", [])[:1] == ["-m"]:  # so it is while Python looks for the module that it is to run
    from speak_neuro.common.module_run import refuse_library

    refuse_library(sys.orig_argv[1:])


def __getattr__(name: str) -> Any:
    """Loads torch when a name that needs it is asked for: commands start without it."""
    if name == "load":  # any tokenizer's folder or file
        return __getattr__("Tokenizer").load
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
