"""The exported file through nirtorch, a reader that is not ours: step by step it spikes as the trace does."""

from __future__ import annotations

from pathlib import Path

import nir
import nirtorch
import numpy as np
import pytest
import torch
from torch import nn

from speak_neuro.export.cli import main
from speak_neuro.export.files.nir_node import GatedResetLIF
from speak_neuro.export.files.trace_file import read_trace
from speak_neuro.neuron.functional import gated_lif_step


class LaneNeuron(nn.Module):
    """One step of the neuron on lanes [current | gate logit]; nirtorch knows a stateful module by the name `state`."""

    def __init__(self, node: GatedResetLIF) -> None:
        super().__init__()
        self.node = node

    def forward(self, lanes: torch.Tensor, state: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        n = self.node
        current, gate = lanes.chunk(2, dim=-1)
        if state is None:
            state = torch.from_numpy(n.v_reset).expand(current.shape)
        spikes, _, state = gated_lif_step(
            current,
            gate,
            state,
            decay=torch.from_numpy(n.decay),
            gain=torch.from_numpy(n.gain),
            threshold=torch.from_numpy(n.v_threshold),
            reset_potential=torch.from_numpy(n.v_reset),
            reset_scale=torch.from_numpy(n.reset_scale),
        )
        return spikes, state


def affine(node: nir.Affine) -> nn.Linear:
    """nirtorch's own map leaves the bias random."""
    layer = nn.Linear(node.weight.shape[1], node.weight.shape[0])
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(node.weight))
        layer.bias.copy_(torch.from_numpy(node.bias))
    return layer


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_nirtorch_runs_the_file(tiny_run: Path, excerpt: Path, tmp_path: Path) -> None:
    flags = ["--run", str(tiny_run), "--text", str(excerpt), "--rows", "4", "--row-length", "200"]
    assert main([*flags, "--out", str(tmp_path), "--quiet"]) == 0
    trace = read_trace(tmp_path / "trace.npz")
    graph = nir.read(tmp_path / "boundary.nir")
    network = nirtorch.nir_to_torch(graph, {GatedResetLIF: LaneNeuron, nir.Affine: affine})
    state, spikes = None, []
    with torch.no_grad():
        for t in range(trace.features.shape[1]):
            out, state = network(torch.from_numpy(trace.features[:, t]), state)
            spikes.append(out[:, 0].numpy())
    real = np.arange(trace.spikes.shape[1]) < trace.length[:, None]
    mine = np.stack(spikes, axis=1).astype(np.uint8)
    assert trace.spikes[real].sum() > 30
    assert np.array_equal(mine[real], trace.spikes[real])
