"""Checkpoint to table: what the network computes for each character, once for all (see `speak_neuro.table.table`)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from speak_neuro.config import RunConfig
from speak_neuro.errors import UnsupportedExport
from speak_neuro.inference.engine import BoundaryEngine
from speak_neuro.neuron.resets import compiled_reset, why_not_compiled
from speak_neuro.systems.system import System
from speak_neuro.table.table import CompiledTable
from speak_neuro.text.alphabet import Alphabet


def refusals(system: System) -> list[str]:
    """Why this system cannot be exported exactly; empty when it can."""
    if not system.is_speak:
        return [
            f"the run's tokenizer is {system.config.tokenizer.kind}, which has no neuron; train with --tokenizer speak"
        ]
    reasons = []
    tokenizer = system.tokenizer
    if tokenizer.tanh:
        reasons.append("tanh stands between the readout and the neuron, and NIR has no tanh; train with --no-tanh")
    if reason := why_not_compiled(tokenizer.neuron.mode):
        reasons.append(reason)
    for name, value in tokenizer.state_dict().items():
        array = value.detach().cpu().numpy()
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            reasons.append(f"tokenizer tensor {name} holds values that are not finite")
    return reasons


def no_tables(system: System) -> list[str]:
    """Why current and gate logit are no sums of tables over single characters; empty when they are."""
    reasons = refusals(system)
    if not system.is_speak:
        return reasons
    encoder = system.tokenizer.encoder
    if encoder.of_one_character:
        # Inside the table tanh is a number like any other.
        return [reason for reason in reasons if not reason.startswith("tanh ")]
    if encoder.why_no_table:
        reasons.insert(
            0,
            f"the {system.config.tokenizer.encoder} encoder is no sum of tables over single characters: "
            f"{encoder.why_no_table}; train with --encoder linear or --encoder convolution",
        )
    return reasons


def character_tables(engine: BoundaryEngine) -> npt.NDArray[np.float32]:
    """(k, 2, V) parts of current and gate logit by delay and character, of a system without `no_tables`.

    These are the very float32 values that inference computes with. Where the reset mode ignores the gate, the first
    table has it as +1 or -1 and the others have 0.
    """
    if engine.table is not None:
        _, current, gate = engine.table
        return np.stack([_numpy(current), _numpy(gate)])[None]
    tables, grid = engine.tokenizer.encoder.tables, engine.tokenizer.grid
    assert tables is not None  # `no_tables` refuses the others
    tables = tables if grid is None else grid.features(tables, parts=True)
    parts = np.ascontiguousarray(_numpy(tables).transpose(0, 2, 1))
    rule = compiled_reset(engine.tokenizer.neuron.mode).gate_rule
    if rule is not None:
        parts[:, 1] = 0.0
        parts[0, 1] = 1.0 if rule else -1.0
    return parts


def compile_table(
    system: System, config: RunConfig, alphabet: Alphabet, metadata: dict[str, Any] | None = None
) -> CompiledTable:
    """The table of a trained tokenizer, its currents those of `inference` to the last bit."""
    reasons = no_tables(system)
    if reasons:
        raise UnsupportedExport("has no table: " + "; ".join(reasons))
    parts = character_tables(BoundaryEngine(system, config))
    current, gate = parts[:, 0].copy(), parts[:, 1].copy()
    return CompiledTable(alphabet, current, gate, system.tokenizer.neuron.parameters_numpy(), metadata or {})


def _numpy(tensor: Any) -> npt.NDArray[np.float32]:
    return np.array(tensor.detach().cpu().numpy(), dtype=np.float32)
