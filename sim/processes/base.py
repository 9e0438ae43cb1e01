"""What processes and their models are made of, from Lava's many modules: `base.Process`, ports, `base.Model`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.model import PyLoihiProcessModel as Model
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess as Process
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol

__all__ = ["InPort", "Model", "OutPort", "Process", "fixed", "float32", "receives", "sends"]


def receives(kind: Any) -> Any:
    """A model's side of an input port."""
    return LavaPyType(PyInPort.VEC_DENSE, kind)


def sends(kind: Any) -> Any:
    """A model's side of an output port."""
    return LavaPyType(PyOutPort.VEC_DENSE, kind)


def _on_the_cpu(process: type, *tags: str) -> Callable[[type], type]:
    return lambda model: implements(proc=process, protocol=LoihiProtocol)(requires(CPU)(tag(*tags)(model)))


def float32(process: type) -> Callable[[type], type]:
    """A model of `process` in floating point."""
    return _on_the_cpu(process, "floating_pt")


def fixed(process: type) -> Callable[[type], type]:
    """A model of `process` in Loihi's integers."""
    return _on_the_cpu(process, "bit_accurate_loihi", "fixed_pt")
