"""GatedLeaky as an snnTorch module: state, parameters, and agreement with `snntorch.Leaky` where that is right."""

import copy
import gc
import weakref

import numpy as np
import pytest
import snntorch
import torch
from safetensors.torch import load_file, save_file

from speak_neuro.neuron.module import GatedLeaky
from speak_neuro.neuron.reference import CONSTANTS, gated_lif_run
from speak_neuro.testing import assert_bits_equal, assert_runs_equal, assert_spikes_equal


def inputs(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return tuple(torch.from_numpy(rng.normal(mean, 0.7, shape).astype(np.float32)) for mean in (0.3, 0))


def test_forward_is_the_reference_for_one_and_for_many_neurons():
    current, gate = inputs(3, 60)
    one = GatedLeaky(decay=0.9, threshold=1.1, mode="hard/none")
    assert_runs_equal(one(current, gate), gated_lif_run(current.numpy(), gate.numpy(), one.parameters_numpy()))

    current, gate = inputs(3, 60, 4)
    many = GatedLeaky(4, gain=[0.5, 1, 1.5, 2], threshold=torch.tensor([1.0, 0.8, 1.2, 1.5]), reset_potential=-0.25)
    valid = torch.arange(60) < torch.tensor([[60], [0], [31]])
    state = torch.rand(3, 4)
    parameters = many.parameters_numpy()
    assert parameters.threshold.shape == parameters.decay.shape == (4,)
    assert_runs_equal(
        many(current, gate, state, valid),
        gated_lif_run(current.numpy(), gate.numpy(), parameters, state.numpy(), valid.numpy()),
    )


@pytest.mark.parametrize("neurons", [1, 3])
def test_steps_are_the_sequence(neurons):
    module = GatedLeaky(neurons, decay=0.8, reset_potential=-0.125)
    current, gate = inputs(2, 20, neurons) if neurons > 1 else inputs(2, 20)
    whole, state = module(current, gate), None
    for t in range(20):
        output = module.step(current[:, t], gate[:, t], state)
        state = output.state
        assert_spikes_equal(output.spikes[:, None], whole.spikes[:, t : t + 1])
        assert_bits_equal(output.membrane, whole.membrane[:, t])
    assert_bits_equal(state, whole.state)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("compiler", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_torch_compile_changes_nothing(compiler):
    """Spikes, potentials, state and gradients, bit for bit; aot_eager traces as inductor does and needs no compiler."""
    module, found = GatedLeaky(3, decay=0.9, reset_potential=-0.125), []
    for run in (module, torch.compile(module, backend=compiler)):
        current, gate = (x.requires_grad_() for x in inputs(2, 40, 3))
        spikes, membrane, state = run(current, gate)
        (membrane.square().sum() + spikes.sum() + state.sum()).backward()
        found.append((spikes, membrane, state, current.grad))
    for plain, compiled in zip(*found, strict=True):
        assert_bits_equal(compiled.detach(), plain.detach())


def test_there_is_no_hidden_state():
    module = GatedLeaky()
    current, gate = torch.full((1, 3), 0.3), torch.ones(1, 3)
    assert_runs_equal(module(current, gate), module(current, gate))


def test_modules_are_freed_and_other_neurons_stay_registered():
    other = snntorch.Leaky(beta=0.5)
    before = len(snntorch.SpikingNeuron.instances)
    module = GatedLeaky()
    assert len(snntorch.SpikingNeuron.instances) == before
    assert any(instance is other for instance in snntorch.SpikingNeuron.instances)
    reference = weakref.ref(module)
    del module
    gc.collect()
    assert reference() is None


def test_state_dict_round_trip(tmp_path):
    source = GatedLeaky(2, decay=[0.5, 0.75], gain=2.0, threshold=[1.0, 1.5], reset_potential=-0.5, reset_scale=0.25)
    assert set(source.state_dict()) == set(CONSTANTS)
    assert all(tensor.shape == (2,) for tensor in source.state_dict().values())
    save_file(source.state_dict(), tmp_path / "neuron.safetensors")
    target = GatedLeaky(2)
    target.load_state_dict(load_file(tmp_path / "neuron.safetensors"))
    current, gate = inputs(2, 50, 2)
    assert_runs_equal(target(current, gate), source(current, gate))
    clone = copy.deepcopy(source)
    with torch.no_grad():
        clone.threshold.mul_(2)
    assert_runs_equal(target(current, gate), source(current, gate))
    assert clone(current, gate).spikes.sum() != source(current, gate).spikes.sum()


def test_only_the_constants_asked_for_are_learned():
    for name in CONSTANTS:
        module = GatedLeaky(2, decay=0.9, learn=[name])
        assert [parameter for parameter, _ in module.named_parameters()] == [name]
        current, gate = inputs(4, 40, 2)
        output = module(current, gate)
        (output.spikes.sum() + output.membrane.pow(2).sum()).backward()
        gradient = getattr(module, name).grad
        assert gradient.shape == (2,)
        assert (gradient != 0).all()
    assert not list(GatedLeaky().parameters())


def test_learned_decay_is_clamped():
    module = GatedLeaky(decay=1.0, learn=["decay"])
    with torch.no_grad():
        module.decay.fill_(1.5)
    current, gate = inputs(2, 30)
    assert_runs_equal(module(current, gate), GatedLeaky(decay=1.0)(current, gate))
    assert module.parameters_numpy().decay == 1


def test_snntorch_view_of_the_module():
    module = GatedLeaky(decay=0.5)
    assert isinstance(module, snntorch.LIF)
    assert not isinstance(module, snntorch.Leaky)  # its exporter would drop the gate silently
    assert module.beta is module.decay
    assert module.reset_mechanism == "none"
    with pytest.raises(AttributeError):
        module.reset_mechanism = "zero"
    assert module.fire(torch.tensor([0.5, 1.0])).tolist() == [0.0, 1.0]
    assert "mode='gated'" in repr(module)


@pytest.mark.parametrize("decay", [1.0, 0.9])
def test_hard_mode_is_leaky_with_an_immediate_zero_reset(decay):
    leaky = snntorch.Leaky(beta=decay, reset_mechanism="zero", reset_delay=False)
    current, gate = inputs(4, 100)
    spikes, after, mem = [], [], torch.zeros(4)
    for t in range(100):
        fired, mem = leaky(current[:, t], mem)
        spikes.append(fired)
        after.append(mem)
    ours = GatedLeaky(decay=decay, mode="hard")(current, gate)
    assert not (ours.membrane == 1).any()  # the two differ only exactly at the threshold
    assert_spikes_equal(ours.spikes, torch.stack(spikes, 1))
    assert torch.equal(ours.state, after[-1])


def test_none_mode_is_leaky_without_reset():
    leaky = snntorch.Leaky(beta=0.75, reset_mechanism="none")
    current, gate = inputs(4, 60)
    mem, membrane = torch.zeros(4), []
    for t in range(60):
        _, mem = leaky(current[:, t], mem)
        membrane.append(mem)
    assert_bits_equal(GatedLeaky(decay=0.75, mode="none")(current, gate).membrane, torch.stack(membrane, 1))


def test_at_the_threshold_leaky_stays_silent_and_ours_fires():
    leaky = snntorch.Leaky(beta=1.0, reset_mechanism="zero", reset_delay=False)
    assert leaky(torch.ones(1), torch.zeros(1))[0].item() == 0
    assert GatedLeaky().step(torch.ones(1), torch.ones(1)).spikes.item() == 1


def test_wrong_arguments_are_refused():
    for options, message in (
        ({"neurons": 0}, "neurons is 0"),
        ({"mode": "sotf"}, "mode is 'sotf'"),
        ({"threshold": 0.0}, "threshold is"),
        ({"decay": 2.0}, "decay is"),
        ({"neurons": 3, "gain": [1, 2]}, "gain has 2 values; allowed: 1 or one for each of 3"),
        ({"surrogate_slope": 0}, "surrogate_slope is 0"),
        ({"backend": "fast"}, "backend is 'fast'"),
    ):
        with pytest.raises(ValueError, match=message):
            GatedLeaky(**options)
    with pytest.raises(ValueError, match="this module has 2"):
        GatedLeaky(2)(*inputs(3, 5))
    with pytest.raises(ValueError, match="this module has 1"):
        GatedLeaky().step(*inputs(3, 2))
