"""For tests and benchmarks of anything that runs the neuron: exact comparison that names the first divergence."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def assert_spikes_equal(
    actual: Any,
    expected: Any,
    *,
    actual_membrane: Any = None,
    expected_membrane: Any = None,
    threshold: Any = None,
    name: str = "spikes",
) -> None:
    """Equal spikes of shape (L,), (B, L) or (B, L, N), or an AssertionError that names the first divergence.

    Membranes, where given, explain the divergence and are themselves compared bit for bit; the threshold adds how far
    the potential was from it. First means earliest in time: everything later may only follow from it.
    """
    got, want = _array(actual), _array(expected)
    assert got.shape == want.shape, f"{name}: shape {got.shape}, expected {want.shape}"
    details = [
        (label, _array(value))
        for label, value in (("membrane", actual_membrane), ("expected membrane", expected_membrane))
        if value is not None
    ]
    unequal = got.astype(np.float64) != want.astype(np.float64)
    if unequal.any():
        place = first_divergence(unequal)
        lines = [f"{name} differ at {_where(place)}: got {int(got[place])}, expected {int(want[place])}"]
        lines += [f"{label} {_exactly(values[place])}" for label, values in details]
        if threshold is not None:
            lines.append(f"threshold {_exactly(_of_neuron(threshold, place))}")
        lines.append(f"{int(unequal.sum())} of {unequal.size} positions differ")
        raise AssertionError("; ".join(lines))
    if len(details) == 2:
        assert_bits_equal(actual_membrane, expected_membrane, name="membrane")


def assert_bits_equal(actual: Any, expected: Any, *, name: str = "membrane") -> None:
    """Equal float32 arrays to the last bit (so +0 and -0 differ), any NaN equal to any NaN."""
    got, want = _array(actual), _array(expected)
    assert got.shape == want.shape, f"{name}: shape {got.shape}, expected {want.shape}"
    assert got.dtype == want.dtype == np.float32, f"{name}: types {got.dtype} and {want.dtype}; allowed: float32"
    bits_differ = np.ascontiguousarray(got).view(np.uint32) != np.ascontiguousarray(want).view(np.uint32)
    unequal = np.asarray(bits_differ & ~(np.isnan(got) & np.isnan(want)))
    if unequal.any():
        place = first_divergence(unequal)
        raise AssertionError(
            f"{name} differs at {_where(place)}: got {_exactly(got[place])}, expected {_exactly(want[place])}; "
            f"{int(unequal.sum())} of {unequal.size} values differ"
        )


def assert_runs_equal(actual: Any, expected: Any) -> None:
    """Two results with spikes, membrane and state (a numpy `Run` or a `GatedLIFOutput`) agree bit for bit."""
    assert_spikes_equal(
        actual.spikes,
        expected.spikes,
        actual_membrane=actual.membrane,
        expected_membrane=expected.membrane,
    )
    assert_bits_equal(actual.state, expected.state, name="state")


def first_divergence(unequal: npt.NDArray[np.bool_]) -> tuple[int, ...]:
    """Index of the earliest True in time; time is the second axis, or the only one."""
    time_axis = 0 if unequal.ndim == 1 else 1
    in_time_order = np.moveaxis(unequal, time_axis, 0)
    time, *rest = (int(i) for i in np.argwhere(in_time_order)[0])
    return (time,) if time_axis == 0 else (rest[0], time, *rest[1:])


def _array(value: Any) -> npt.NDArray[Any]:
    if hasattr(value, "detach"):  # a torch tensor
        value = value.detach().cpu().numpy()
    return np.asarray(value)


def _where(place: tuple[int, ...]) -> str:
    names = {1: ("position",), 2: ("row", "position"), 3: ("row", "position", "neuron")}[len(place)]
    return ", ".join(f"{name} {index}" for name, index in zip(names, place, strict=True))


def _exactly(value: Any) -> str:
    return f"{float(value)!r} ({float(value).hex()})"


def _of_neuron(parameter: Any, place: tuple[int, ...]) -> Any:
    values = _array(parameter).reshape(-1)
    return values[place[2] if values.size > 1 else 0]
