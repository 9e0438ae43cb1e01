"""SPEAK, the entropy-gated spiking tokenizer: trained with a language model, exported through NIR, verified in Lava."""

import sys

__version__ = "0.1.0"

if getattr(sys, "argv", [])[:1] == ["-m"]:  # so it is while Python looks for the module that it is to run
    from speak_neuro.common.module_run import refuse_library

    refuse_library(sys.orig_argv[1:])
