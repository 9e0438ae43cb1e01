"""A run through compiled passes: the eager run's losses, decisions of acceptance included."""

from __future__ import annotations

import functools

import pytest
import torch
from small_trainer import build, change

from speak_neuro.errors import SpeakError
from speak_neuro.model.compiled import compile_passes
from speak_neuro.training import trainer as trainer_module
from speak_neuro.training.fit import train_step

STEPS = 6


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_a_compiled_run_trains_as_an_eager_one(monkeypatch: pytest.MonkeyPatch) -> None:
    captured = functools.partial(compile_passes, backend="eager")  # no machine code: that takes minutes
    monkeypatch.setattr(trainer_module, "compile_passes", captured)
    try:
        runs = []
        for compiled in ("no", "yes"):
            trainer = build(change(compile=compiled))
            assert trainer.proxy is not None
            trainer.proxy.mark_visited([0], trainer.proxy.n_positions)  # so that acceptance decides from the start
            runs.append([train_step(trainer) for _ in range(STEPS)])
    finally:
        torch._dynamo.reset()
    for eager, mine in zip(*runs, strict=True):
        assert mine.keys() == eager.keys()
        assert "changed" in mine
        for name, value in eager.items():
            assert mine[name] == pytest.approx(value, rel=1e-3, abs=1e-4), (mine["step"], name)


def test_cuda_graphs_need_cuda() -> None:
    with pytest.raises(SpeakError, match="--compile is graphs and the device cpu; CUDA graphs need a CUDA device"):
        build(change(compile="graphs"))
