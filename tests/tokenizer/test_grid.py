"""Training on the integer grid: integers in, gradients through, and the trained neuron is the integer one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from speak_neuro.common.settings import from_dict, to_dict
from speak_neuro.config import NeuronConfig, RunConfig, TokenizerConfig
from speak_neuro.export.fold import fold
from speak_neuro.export.graph import export_neuron
from speak_neuro.export.trace import run_trace, trace_rows
from speak_neuro.inference.engine import BoundaryEngine
from speak_neuro.inference.speak import Speak
from speak_neuro.neuron.integer import WEIGHT_LIMIT, integer_run
from speak_neuro.sim.fixed.compare import against_float, in_float32
from speak_neuro.sim.fixed.levels import fixed_level
from speak_neuro.systems.run_folder import load_system, read_run
from speak_neuro.systems.system import System
from speak_neuro.tokenizer.grid import LARGEST_THRESHOLD, Grid

ENCODERS = ("linear", "window", "convolution")


def config_of(grid: str, encoder: str = "window", **neuron: object) -> RunConfig:
    return RunConfig(
        neuron=NeuronConfig(**neuron),  # type: ignore[arg-type]
        tokenizer=TokenizerConfig(encoder=encoder, encoder_width=24, context=3, grid=grid),
    )


def pair(encoder: str, **neuron: object) -> tuple[System, System]:
    """The same weights on the grid and off it."""
    torch.manual_seed(0)
    on = System(config_of("loihi2", encoder, **neuron), 30)
    off = System(config_of("none", encoder, **neuron), 30)
    off.load_state_dict({**on.state_dict(), **{k: v for k, v in off.state_dict().items() if "neuron" in k}})
    return on, off


@pytest.mark.parametrize(
    ("neuron", "threshold", "reset"),
    [
        ({}, 5 * 2**12, 0),
        ({"threshold": 2.0, "reset_potential": -1.0}, 10 * 2**11, -10240),
        ({"reset_scale": 0.5}, 2**14, 0),
        ({"reset_scale": 1 / 3}, 3 * 2**12, 0),
        ({"reset_mode": "none", "reset_scale": 0.85}, 20 * 2**10, 0),
    ],
)
def test_the_threshold_makes_both_resets_integers(neuron: dict[str, float], threshold: int, reset: int) -> None:
    config = config_of("loihi2", **neuron)
    p = System(config, 10).tokenizer.neuron.parameters_numpy()
    assert p.threshold == threshold <= LARGEST_THRESHOLD
    assert p.reset_potential == reset
    soft = np.float32(p.reset_scale) * np.float32(p.threshold)
    assert soft == round(float(config.neuron.reset_scale) * threshold)
    assert Grid.of(config.neuron).unit == pytest.approx(threshold / config.neuron.threshold)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_everything_before_the_neuron_is_an_integer(encoder: str) -> None:
    on, off = pair(encoder)
    ids = torch.randint(30, (4, 50))
    mine, theirs = on.tokenizer.inputs(ids), off.tokenizer.inputs(ids)
    for value in mine:
        assert (value == value.round()).all()
        assert value.abs().max() > 3
    unit = on.tokenizer.unit
    np.testing.assert_allclose(mine.current.detach() / unit, theirs.current.detach(), atol=0.12)
    np.testing.assert_allclose(mine.gate_logit.detach() / unit, theirs.gate_logit.detach(), atol=0.12)
    found = on.tokenizer(ids)
    assert (found.membrane == found.membrane.round()).all()


@pytest.mark.parametrize("encoder", ENCODERS)
def test_gradients_pass_through_the_rounding(encoder: str) -> None:
    """In units of the configuration they are those without a grid, up to what rounding changed."""
    on, off = pair(encoder)
    ids = torch.randint(30, (8, 40), generator=torch.Generator().manual_seed(1))
    gradients = []
    for system in (on, off):
        unit = system.tokenizer.unit
        found = system.tokenizer.inputs(ids)
        loss = ((found.current / unit - 0.3) ** 2).mean() + ((found.gate_logit / unit + 0.1) ** 2).mean()
        loss.backward()
        gradients.append({k: p.grad for k, p in system.tokenizer.named_parameters() if p.grad is not None})
    assert set(gradients[0]) == set(gradients[1])
    assert len(gradients[0]) >= 1
    for name, gradient in gradients[0].items():
        other = gradients[1][name]
        cosine = torch.nn.functional.cosine_similarity(gradient.flatten(), other.flatten(), dim=0)
        assert cosine > 0.99, (name, float(cosine))
        assert float(gradient.norm() / other.norm()) == pytest.approx(1, abs=0.05), name


def test_the_surrogate_is_as_wide_in_grid_steps_as_in_potential() -> None:
    on, off = pair("linear")
    for system in (on, off):
        unit = system.tokenizer.unit
        current = torch.tensor([[0.9, 0.3, 0.2]], requires_grad=True)
        spikes = system.tokenizer.neuron(current * unit, -torch.ones_like(current)).spikes
        spikes.sum().backward()  # type: ignore[no-untyped-call]
        system.gradient = current.grad  # type: ignore[assignment]
    np.testing.assert_allclose(on.gradient, off.gradient, rtol=1e-4)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"decay": 0.9}, r"decay is 0.9; allowed on the loihi2 grid: 1.0"),
        ({"gain": 0.5}, r"gain is 0.5; allowed on the loihi2 grid: 1.0"),
    ],
)
def test_what_has_no_grid(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config_of("loihi2", **change)
    config_of("none", **change)


def test_tanh_and_awkward_reset_scales_are_refused() -> None:
    with pytest.raises(ValueError, match="tanh is True; allowed on the loihi2 grid: False"):
        RunConfig(tokenizer=TokenizerConfig(tanh=True, grid="loihi2"))
    with pytest.raises(ValueError, match=r"need a threshold that is a multiple of 99999997; allowed on the grid"):
        System(config_of("loihi2", reset_scale=1e-8), 10)
    with pytest.raises(ValueError, match="grid is 'loihi3'; allowed: none, loihi2"):
        TokenizerConfig(grid="loihi3")


def test_runs_from_before_the_grid_are_read() -> None:
    values = to_dict(RunConfig())
    del values["tokenizer"]["grid"]
    assert from_dict(RunConfig, values) == RunConfig()
    assert RunConfig().tokenizer.grid == "none"


@pytest.fixture(scope="module", params=ENCODERS)
def grid_run(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, gtok: Callable[..., int], excerpt: Path
) -> Path:
    folder = tmp_path_factory.mktemp("grid") / request.param
    flags = ("--encoder", request.param, "--grid", "loihi2", "--steps", "25", "--evaluate-every", "25")
    assert gtok("--data", str(excerpt), "--out", str(folder), *flags) == 0
    return folder


def test_a_trained_run_is_its_integer_neuron(grid_run: Path, excerpt: Path) -> None:
    """Spikes and potentials of training's float32, of the integer reference and of the readout in integers: equal."""
    run = read_run(grid_run)
    system = load_system(run, torch.device("cpu"))
    engine = BoundaryEngine(system, run.config)
    speak = Speak(engine, run.alphabet)
    text = excerpt.read_text(encoding="utf-8")[:6000]
    trace = run_trace(speak, trace_rows(text, 200), {})
    exported = export_neuron(system)
    assert exported.threshold == (20480 if engine.encoder_name == "window" else 5120)
    assert trace.spikes.any()
    for level in ("neuron", "readout"):
        found = fixed_level(level, exported, trace)  # type: ignore[arg-type]
        assert found.fixed.unit == 1
        np.testing.assert_array_equal(found.run.spikes, trace.spikes)
        np.testing.assert_array_equal(found.run.membrane[trace.valid], trace.membrane[trace.valid])
        compared, _ = against_float(found, exported, trace)
        assert compared["agreement"] == 1
        assert compared["gate_differences"] == 0
        assert in_float32(found, trace)["passed"]
    if engine.encoder_name != "window":
        folded = fold(engine)
        assert (folded.taps == np.rint(folded.taps)).all()
        ids = run.alphabet.encode(text[:2000])
        current, gate = folded.inputs(ids)
        n = found.fixed.neuron
        integers = integer_run(current.T.astype(np.int64), np.where(gate.T > 0, 1, -1), n)
        np.testing.assert_array_equal(integers.spikes[0], speak.engine.run(ids).spikes)
        assert np.abs(folded.taps[:, 0]).max() <= WEIGHT_LIMIT


def test_only_the_grid_flag_changes_the_grid() -> None:
    """A run without a grid has no trace of one: same constants, same numbers."""
    torch.manual_seed(0)
    tokenizer = System(config_of("none"), 30).tokenizer
    assert tokenizer.grid is None
    assert tokenizer.unit == 1
    assert tokenizer.neuron.threshold == 1
    assert replace(config_of("none"), tokenizer=TokenizerConfig(grid="none")).tokenizer.grid == "none"
