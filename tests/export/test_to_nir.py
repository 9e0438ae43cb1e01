"""Modules to NIR: exact or refused; the file read back by nirtorch, norse and sinabs gives the module's spikes."""

# Tables of cases read better a case a line.
# ruff: noqa: E501

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import networks
import nir
import nirtorch
import numpy as np
import pytest
import snntorch
import torch
from torch import nn

from speak_neuro.errors import SpeakError
from speak_neuro.export import from_nir, reference_of, to_nir
from speak_neuro.export.files.neuron_file import read_graph, write_graph
from speak_neuro.export.files.nir_node import GatedResetLIF
from speak_neuro.export.graphs.network import network_of
from speak_neuro.export.graphs.network_run import run_network
from speak_neuro.export.modules.from_nir import node_map
from speak_neuro.neuron.module import GatedLeaky, GatedLeakyCell

ZERO = networks.ZERO


@pytest.fixture(scope="module", params=list(networks.CASES))
def exported(request: Any, tmp_path_factory: Any) -> tuple[str, nn.Module, torch.Tensor, Path]:
    module, sample = networks.case(request.param)
    path = tmp_path_factory.mktemp("networks") / f"{request.param}.nir"
    write_graph(path, to_nir(module, sample))
    return request.param, module, sample, path


def output_of(module: nn.Module, sample: torch.Tensor) -> np.ndarray:
    from speak_neuro.export.modules.record import record_run

    return record_run(module, sample).output


def test_the_file_run_in_numpy_is_the_module(exported) -> None:
    _, module, sample, path = exported
    network = network_of(read_graph(path))
    run, reference = run_network(network, sample.numpy()), reference_of(module, sample)
    assert set(run.layers) == set(reference)
    for layer, expected in reference.items():
        assert 0.01 < expected.spikes.mean() < 0.6, layer
        assert np.array_equal(run.layers[layer].spikes, expected.spikes), layer
        np.testing.assert_allclose(run.layers[layer].membrane, expected.membrane, atol=2e-5)
    np.testing.assert_allclose(run.output, output_of(module, sample), atol=1e-5)


def test_the_same_module_gives_the_same_bytes(exported, tmp_path) -> None:
    _, module, sample, path = exported
    write_graph(tmp_path / "again.nir", to_nir(module, sample))
    assert (tmp_path / "again.nir").read_bytes() == path.read_bytes()


def stepped(net: Any, sample: torch.Tensor) -> np.ndarray:
    state, found = None, []
    with torch.no_grad():
        for t in range(sample.shape[1]):
            out, state = net(sample[:, t], state)
            found.append(out)
    return torch.stack(found, 1).numpy()


def test_read_back_by_this_package_and_by_nirtorch(exported) -> None:
    _, module, sample, path = exported
    for net in (from_nir(read_graph(path)), nirtorch.nir_to_torch(read_graph(path), node_map())):
        np.testing.assert_allclose(stepped(net, sample), output_of(module, sample), atol=1e-5)


def test_read_back_by_norse(exported) -> None:
    pytest.importorskip("norse")
    from speak_neuro.export.readers import norse

    _, module, sample, path = exported
    np.testing.assert_allclose(stepped(norse.from_nir(read_graph(path)), sample), output_of(module, sample), atol=1e-5)


def test_read_back_by_sinabs(exported) -> None:
    pytest.importorskip("sinabs")
    from speak_neuro.export.readers import sinabs

    _, module, sample, path = exported
    net = sinabs.from_nir(read_graph(path), batch_size=len(sample))
    with torch.no_grad():
        out = net(sample.flatten(0, 1))
    found = (out[0] if isinstance(out, tuple) else out).reshape(*sample.shape[:2], -1)
    expected = output_of(module, sample)
    np.testing.assert_allclose(found.numpy(), expected.reshape(found.shape), atol=1e-5)


def test_a_graph_of_nirtorchs_own_is_ours_where_it_is_right() -> None:
    """nirtorch's graph of a chain has the edges that are read here."""
    layers = {"a": nn.Linear(4, 6), "b": nn.Linear(6, 3), "c": GatedLeaky(3, mode="hard", output="spikes")}
    module = nn.Sequential(OrderedDict(layers))
    theirs = nirtorch.torch_to_nir(module, {GatedLeaky: lambda m: nir.Scale(np.ones(3))}, type_check=False)
    ours = to_nir(module, networks.sample(2, 20, 4))
    assert sorted(ours.edges) == sorted((s.replace("input_1", "input"), t) for s, t in theirs.edges)


def test_two_linears_of_one_source_become_lanes_and_others_are_embedded() -> None:
    graph = to_nir(networks.seeded(networks.Keywords), networks.sample(2, 20, 16))
    assert graph.nodes["lif1.lanes"].weight.shape == (64, 16)

    class Split(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.current, self.gate = nn.Linear(5, 3), nn.Linear(5, 3, bias=False)
            self.lif = GatedLeakyCell(3, learn_gate="own-loss")

        def forward(self, x: torch.Tensor, mem: Any = None) -> Any:
            return self.lif(self.current(x), mem, gate_logit=self.gate(x))

    torch.manual_seed(1)
    module, sample = Split(), networks.sample(3, 40, 5)
    graph = to_nir(module, sample)
    assert {"lif.current", "lif.gate"} <= set(graph.nodes)
    run = run_network(network_of(graph), sample.numpy())
    assert np.array_equal(run.output, output_of(module, sample))


def test_betas_come_back_exactly() -> None:
    rng = np.random.default_rng(5)
    betas = torch.from_numpy(rng.random(500).astype(np.float32))
    module = nn.Sequential(nn.Linear(3, 500), snntorch.Leaky(beta=betas, init_hidden=True, **ZERO))
    layer = network_of(to_nir(module, networks.sample(1, 3, 3))).layers["1"]
    assert np.array_equal(layer.decay, betas.numpy())
    assert (layer.gain == 1).all()


def test_states_and_training_mode_are_left_alone() -> None:
    module, sample = networks.case("convolutional")
    module.train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    to_nir(module, sample)
    assert module.training
    assert module[3].training
    assert module[1].mem is None
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert not any(layer._forward_hooks for layer in module.modules())
    assert "fire" not in vars(module[5])


def test_why_rsynaptic_is_refused_and_what_stands_for_it() -> None:
    """snnTorch 1.0's reset at once is none: the case "synaptic" spells the layer out with a Synaptic, which resets."""
    layer = snntorch.RSynaptic(alpha=0.5, beta=0.5, linear_features=1, all_to_all=True, **ZERO)
    torch.nn.init.zeros_(layer.recurrent.weight)
    torch.nn.init.zeros_(layer.recurrent.bias)
    zero = torch.zeros(1, 1)
    spk, _, mem = layer(torch.full((1, 1), 2.0), zero, zero, zero)
    assert spk.item() == 1
    assert mem.item() == 2
    _, _, mem = snntorch.Synaptic(alpha=0.5, beta=0.5, **ZERO)(torch.full((1, 1), 2.0), zero, zero)
    assert mem.item() == 0
    with pytest.raises(SpeakError, match=r"never resets at the step of its spike.*allowed: Synaptic and a Linear"):
        to_nir(nn.Sequential(nn.Linear(1, 1), layer), torch.ones(2, 3, 1))


def leaky(**options: Any) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), snntorch.Leaky(beta=0.9, init_hidden=True, **options))


class Constant(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.lif = nn.Linear(4, 4), GatedLeakyCell(4, mode="hard")

    def forward(self, x: torch.Tensor, mem: Any = None) -> Any:
        return self.lif(self.fc(x) + 1.0, mem)


class Loop(Constant):
    def forward(self, x: torch.Tensor, mem: Any = None) -> Any:
        for t in range(x.shape[0]):
            out, mem = self.lif(self.fc(x[t]), mem)
        return out


class Twice(Constant):
    def forward(self, x: torch.Tensor, mem: Any = None) -> Any:
        return self.lif(self.fc(self.fc(x)), mem)


class Product(Constant):
    def forward(self, x: torch.Tensor, mem: Any = None) -> Any:
        return self.lif(self.fc(x) * x, mem)


class SecondInput(Constant):
    def forward(self, x: torch.Tensor, mem: Any = None) -> Any:
        cur = self.fc(x)
        if mem is None:
            mem = torch.zeros_like(x)
        spk, _ = self.lif(cur + mem, None)
        return spk, mem


class Itself(Constant):
    def forward(self, x: torch.Tensor, mem: Any = None) -> Any:
        y = self.fc(x)
        return self.lif(y + y, mem)


class Skipped(Constant):
    """Spikes of the step before that go elsewhere: no cycle, so no edge of NIR's is late."""

    def __init__(self) -> None:
        super().__init__()
        self.two, self.lif2 = nn.Linear(4, 4, bias=False), GatedLeakyCell(4, mode="hard")

    def forward(self, x: torch.Tensor, spk: Any = None, mem: Any = None, mem2: Any = None) -> Any:
        if spk is None:
            spk = torch.zeros_like(x)
        late, mem2 = self.lif2(self.two(spk), mem2)
        spk, mem = self.lif(self.fc(x), mem)
        return late + spk, spk, mem, mem2


class Biased(Constant):
    def forward(self, x: torch.Tensor, spk: Any = None, mem: Any = None) -> Any:
        if spk is None:
            spk = torch.zeros_like(x)
        spk, mem = self.lif(self.fc(spk) + x, mem)
        return spk, spk, mem


class Hidden(Constant):
    """A second state of its own that the trace cannot see."""

    def forward(self, x: torch.Tensor, mem: Any = None) -> Any:
        return self.lif(self.fc(x), torch.ones(1))


@pytest.mark.filterwarnings("ignore:Inhibition is an unstable feature")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (leaky, r"subtracts its threshold a step later, NIR's LIF resets .* allowed: reset_mechanism='zero', reset_delay=False"),
        (lambda: leaky(reset_delay=False), "subtracts its threshold, NIR's LIF"),
        (lambda: leaky(graded_spikes_factor=2.0, **ZERO), "graded_spikes_factor is 2"),
        (lambda: leaky(inhibition=True, **ZERO), "inhibition and state_quant"),
        (lambda: nn.Sequential(nn.Linear(4, 4), nn.Tanh(), GatedLeakyCell(4, mode="hard", init_hidden=True)), "1 is a Tanh, which NIR has no node"),
        (lambda: nn.Sequential(nn.Linear(4, 4), snntorch.Alpha(0.9, 0.8, init_hidden=True)), "Alpha"),
        (lambda: nn.Sequential(nn.Linear(4, 3), snntorch.Synaptic(0.9, 0.8, init_hidden=True, reset_mechanism="zero")), "drops that step's input"),
        (lambda: nn.Sequential(nn.Linear(4, 8), GatedLeaky(4, output="spikes"), snntorch.Leaky(0.9, init_hidden=True)), "takes sequences, beside Leaky"),
        (Constant, r"adds a constant \(add\(1.0,\)\)"),
        (Loop, "cannot be traced .* no loop over time"),
        (Twice, "fc is called twice"),
        (Product, "forward calls mul"),
        (SecondInput, "second input|cannot be traced|takes a state"),
        (Itself, "adds fc to itself"),
        (Skipped, "takes lif's spikes of the step before and does not lead back to it"),
        (Biased, "fc: a bias behind a state"),
        (Hidden, "takes|get_attr|tensor|cannot be traced"),
    ],
)  # fmt: skip
def test_what_nir_cannot_say_is_refused_in_one_line(make, message) -> None:
    torch.manual_seed(0)
    with pytest.raises(SpeakError, match=message) as caught:
        to_nir(make(), networks.sample(2, 12, 4))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.zeros(3), "must be a tensor"),
        (torch.full((1, 2, 4), float("nan")), "NaN"),
        (torch.zeros(0, 2, 4), "not empty"),
    ],
)
def test_bad_samples(bad, message) -> None:
    with pytest.raises(SpeakError, match=message):
        to_nir(nn.Sequential(nn.Linear(4, 4), GatedLeaky(4, mode="hard", output="spikes")), bad)


def test_a_changed_option_is_noticed() -> None:
    """snnTorch binds the reset when a layer is made; changing its name later changes nothing but the name."""
    layer = snntorch.Leaky(beta=0.9, init_hidden=True, reset_mechanism="subtract", reset_delay=False)
    layer.reset_mechanism = "zero"
    layer.state_function = layer._base_int
    layer.reset_mechanism_val = torch.tensor(2)
    layer.reset_mechanism = "zero"
    object.__setattr__(layer, "state_function", lambda x: 0.5 * layer.mem + x)
    torch.manual_seed(0)
    with pytest.raises(SpeakError, match="and the module's does not do so"):
        to_nir(nn.Sequential(nn.Linear(4, 4), layer), networks.sample(4, 40, 4))


def test_pictures_and_constant_gates_are_version_2_and_survive_the_file(tmp_path) -> None:
    module, sample = networks.case("convolutional")
    graph = to_nir(module, sample)
    write_graph(tmp_path / "a.nir", graph)
    read = nir.read(tmp_path / "a.nir")
    assert read.nodes["1"].spec_version == 2
    assert read.nodes["1"].decay.shape == (4, 9, 9)
    assert read.nodes["1"].input_type["input"].tolist() == [8, 9, 9]
    assert read.nodes["8"].gate == 1
    assert GatedResetLIF(*[np.ones(2, np.float32) * n for n in (1, 1, 1, 0, 1, 0)]).spec_version == 1
