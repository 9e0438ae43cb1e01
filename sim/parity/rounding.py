"""How far two correct float32 runs of one readout and neuron may differ: the bound that readout parity is judged by.

The trained network and Lava sum the D products of a readout in different orders and precisions. With u = 2^-24, the
unit roundoff of float32, and n = D + 1 terms (the bias is one), a float32 sum in any order, with or without fused
multiply-add, is off by at most gamma_n * S, where gamma_n = n u / (1 - n u) and S = sum |w_i x_i| + |b|. Lava's Dense
sums in float64, off by n 2^-53 * S, and the neuron rounds the result once, off by u * |I|. Together:

    |I - I'| <= bound = (gamma_n + 2 n 2^-53) * S + u * |I'|

Through the neuron the difference E of the carried potential grows by the current's bound and the rounding of both runs:

    E_u = decay * E + |gain| * bound + 4 u (|u_t| + |gain * I_t|)
    E   = 0 after a hard reset in both    E_u + 2 u (|u_t| + |soft reset|) after a soft one    E_u without a spike

Where the runs agree on every branch so far, |u_t - u'_t| <= E_u, and a spike may differ only if the potential is that
close to the threshold: |u_t - threshold| <= E_u. Likewise a gate only if |e_t - gate_threshold| <= its bound.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from speak_neuro.common.array_types import BoolArray, Float64Array
from speak_neuro.export.files.neuron_file import ExportedNeuron
from speak_neuro.export.files.trace_file import Trace
from speak_neuro.sim.parity.levels import LevelRun

UNIT = 2.0**-24
SLACK = 1.01
"""Covers the second-order terms and the float64 arithmetic of the bounds themselves."""


@dataclass(frozen=True)
class Judgement:
    """Every difference between a trace and a readout run, (B, L) masks, and the bounds they were judged by."""

    explained: BoolArray
    """Spikes that differ because the potential was within rounding of the threshold."""
    consequent: BoolArray
    """Spikes that differ because the carried potential still does, after an explained difference."""
    unexplained: BoolArray
    """Spikes that rounding does not account for."""
    gates: BoolArray
    """Gates that differ at a spike of both, within rounding of the gate's threshold."""
    outside: dict[str, BoolArray]
    """`current`, `gate_logit` and `membrane` further apart than their bounds."""
    bounds: dict[str, Float64Array]

    @property
    def passed(self) -> bool:
        """Whether rounding accounts for every difference."""
        return not self.unexplained.any() and not any(mask.any() for mask in self.outside.values())


def readout_bounds(exported: ExportedNeuron, trace: Trace, run: LevelRun) -> dict[str, Float64Array]:
    """Bounds (B, L) on the differences of `current` and `gate_logit`."""
    terms = exported.features + 1
    gamma = terms * UNIT / (1 - terms * UNIT)
    magnitude = np.abs(trace.features, dtype=np.float64) @ np.abs(exported.weight.astype(np.float64)).T
    magnitude += np.abs(exported.bias.astype(np.float64))
    underflow = terms * 2.0**-149
    return {
        name: SLACK * ((gamma + terms * 2.0**-52) * magnitude[..., lane] + UNIT * np.abs(value)) + underflow
        for lane, (name, value) in enumerate((("current", run.current), ("gate_logit", run.gate_logit)))
    }


def judge(
    exported: ExportedNeuron,
    trace: Trace,
    run: LevelRun,
    bounds: dict[str, Float64Array] | None = None,
    step_error: float = 0.0,
) -> Judgement:
    """Classify every difference at the readout level, position by position along the sequences.

    Another arithmetic than float32 gives its own `bounds` on current and gate logit, and `step_error`, by how much one
    of its steps may be off beside that.
    """
    p = exported.parameters()
    decay, gain, threshold, soft = (
        float(np.asarray(v).reshape(-1)[0]) for v in (p.decay, p.gain, p.threshold, p.soft_reset)
    )
    gate_threshold = float(exported.gate_threshold[0])
    bounds = dict(bounds or readout_bounds(exported, trace, run))
    valid = trace.valid
    expected_spikes, got_spikes = trace.spikes.astype(bool), run.spikes.astype(bool)
    expected_gate, got_gate = trace.gate_logit > gate_threshold, run.gate_logit > gate_threshold
    gate_margin = np.abs(trace.gate_logit.astype(np.float64) - gate_threshold)
    expected_u, got_u = trace.membrane.astype(np.float64), run.membrane.astype(np.float64)
    largest_u = np.maximum(np.abs(expected_u), np.abs(got_u))
    driven = abs(gain) * np.maximum(np.abs(trace.current, dtype=np.float64), np.abs(run.current, dtype=np.float64))

    shape = valid.shape
    explained, consequent, unexplained, gates, off = (np.zeros(shape, dtype=bool) for _ in range(5))
    bounds["membrane"] = np.zeros(shape)
    carried = np.zeros(shape[0])
    diverged = np.zeros(shape[0], dtype=bool)
    for t in range(shape[1]):
        real = valid[:, t]
        bound = SLACK * (
            decay * carried
            + abs(gain) * bounds["current"][:, t]
            + 4 * UNIT * (largest_u[:, t] + driven[:, t])
            + step_error
        )
        bounds["membrane"][:, t] = bound
        off[:, t] = real & ~diverged & (np.abs(expected_u[:, t] - got_u[:, t]) > bound)
        differs = real & (expected_spikes[:, t] != got_spikes[:, t])
        near = np.abs(expected_u[:, t] - threshold) <= bound
        consequent[:, t] = differs & diverged
        explained[:, t] = differs & ~diverged & near
        unexplained[:, t] = differs & ~diverged & ~near
        both = real & expected_spikes[:, t] & got_spikes[:, t]
        gate_differs = both & (expected_gate[:, t] != got_gate[:, t])
        gates[:, t] = gate_differs & (gate_margin[:, t] <= bounds["gate_logit"][:, t])
        together = both & expected_gate[:, t] & got_gate[:, t]  # a hard reset in both: the same state again
        diverged = (diverged | differs | gate_differs) & ~together
        carried = np.where(both, bound + 2 * UNIT * (largest_u[:, t] + abs(soft)), bound)
        carried = np.where(together, 0.0, carried)
    outside = {
        name: valid & (np.abs(expected.astype(np.float64) - got) > bounds[name])
        for name, expected, got in [
            ("current", trace.current, run.current),
            ("gate_logit", trace.gate_logit, run.gate_logit),
        ]
    }
    outside["membrane"] = off
    return Judgement(explained, consequent, unexplained, gates, outside, bounds)
