"""Time of the neuron over a whole sequence: the fused kernel against the loops it replaces.

    python experiments/bench/scan.py --json scan.json
    python experiments/bench/scan.py --batch 64 --length 512 --threads 1
    python experiments/bench/scan.py --device cuda

Contenders on the same (batch, length) float32 currents on one device:

    stock    snntorch.Leaky, one call per position, as snnTorch's tutorials write it (no gate: it does less)
    loop     gated_lif_scan, backend "loop"
    fused    gated_lif_scan, backend "numba" on the CPU, "triton" on a CUDA device
    C        on the CPU, a plain C loop of the same arithmetic, where gcc is found: forward only

First the results are compared: spikes, membrane and state with the numpy reference bit for bit, gradients with the
loop's. When anything differs, nothing is timed and the exit code is 1. Contenders take turns; medians of wall time are
reported. "+ backward" is the forward pass that records, the sum of the spikes, and the backward pass.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import itertools
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from step_setup import prepare

from speak_neuro.common.command import run_command
from speak_neuro.common.provenance import write_result
from speak_neuro.common.timing import in_turns
from speak_neuro.errors import ParityError, SpeakError

LENGTHS = (512, 4096, 65536)
GRADIENT_TOLERANCE = 1e-5
# Every call sees other numbers, in rotation: a processor's branch predictor learns a single small batch by heart.
VARIANTS = 16
# A short call is repeated within one measurement, so that the clock's own cost does not show.
MEASUREMENT_SECONDS = 0.02

C_FLAGS = ("-O3", "-ffp-contract=off", "-shared", "-fPIC")
C_SOURCE = """
void gated_lif(const float *current, const float *gate, float *spikes, float *membrane, float *state,
               long rows, long length, float decay, float gain, float threshold, float reset, float soft)
{
    for (long row = 0; row < rows; row++) {
        float v = state[row];
        for (long i = row * length; i < (row + 1) * length; i++) {
            float u = decay * v + gain * current[i];
            int fired = u >= threshold;
            float after = gate[i] > 0.0f ? reset : u - soft;
            v = fired ? after : u;
            membrane[i] = u;
            spikes[i] = fired ? 1.0f : 0.0f;
        }
        state[row] = v;
    }
}
"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench_scan", description="time the neuron over whole sequences")
    parser.add_argument("--batch", type=int, default=64, help="rows (default: %(default)s)")
    parser.add_argument("--length", type=int, default=512, help="positions (default: %(default)s)")
    parser.add_argument("--lengths", type=int, nargs="*", default=LENGTHS, help="lengths for the cost per position")
    parser.add_argument("--repeats", type=int, default=9, help="measurements of each contender (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch and the kernel (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    return run_command(parser, bench, argv)


def bench(arguments: argparse.Namespace) -> int:
    if any(length < 1 for length in arguments.lengths):
        raise SpeakError(f"--lengths is {arguments.lengths}; allowed: 1 or more each")
    card = prepare(arguments, "batch", "length", "repeats")
    with c_loop() if arguments.device == "cpu" else contextlib.nullcontext() as compiled:
        check_parity(arguments, compiled)
        compared = compare(arguments, compiled)
    lengths = cost_of_length(arguments)
    report(arguments, compared, lengths, card)
    metrics = {
        **{name: getattr(arguments, name) for name in ("batch", "length", "threads", "repeats")},
        "parity": "equal",
        "milliseconds": {name: seconds * 1e3 for name, seconds in compared.items()},
        "ratios": ratios(compared),
        "nanoseconds_per_position": lengths,
    }
    write_result(arguments, metrics, card)
    return 0


def inputs(batch: int, length: int, seed: int = 0) -> tuple[Any, Any]:
    """Currents that fire about every fifth position, and gate logits that are open half the time."""
    import torch

    random = torch.Generator().manual_seed(seed)
    current = torch.rand((batch, length), generator=random) * 0.4
    return current, torch.randn((batch, length), generator=random)


@contextlib.contextmanager
def c_loop() -> Iterator[Callable[..., tuple[Any, Any, Any]] | None]:
    """The compiled C loop as a function of (current, gate_logit, decay, gain); None without gcc."""
    import numpy as np
    import torch

    gcc = shutil.which("gcc")
    if gcc is None:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder) / "loop.c", Path(folder) / "loop.so"
        source.write_text(C_SOURCE, encoding="utf-8")
        subprocess.run([gcc, *C_FLAGS, "-o", str(library), str(source)], check=True, capture_output=True)
        function = ctypes.CDLL(str(library)).gated_lif
        function.argtypes = [ctypes.c_void_p] * 5 + [ctypes.c_long] * 2 + [ctypes.c_float] * 5
        function.restype = None
        soft = float(np.float32(0.8) * np.float32(1.0))

        def run(current: Any, gate: Any, decay: float = 1.0, gain: float = 1.0) -> tuple[Any, Any, Any]:
            spikes, membrane = torch.empty_like(current), torch.empty_like(current)
            state = torch.zeros(current.shape[0])
            pointers = [tensor.data_ptr() for tensor in (current, gate, spikes, membrane, state)]
            function(*pointers, *current.shape, decay, gain, 1.0, 0.0, soft)
            return spikes, membrane, state

        yield run


def fused_backend(device: str) -> str:
    return "numba" if device == "cpu" else "triton"


def check_parity(arguments: argparse.Namespace, compiled: Callable[..., Any] | None) -> None:
    """Raise ParityError unless every contender gives the reference's bits and the fused gradients are the loop's."""
    import torch

    from speak_neuro.neuron.functional import GatedLIFOutput, gated_lif_scan
    from speak_neuro.neuron.reference import NeuronParameters, gated_lif_run
    from speak_neuro.testing import assert_runs_equal

    fused, device = fused_backend(arguments.device), arguments.device
    current, gate = inputs(arguments.batch, min(arguments.length, 2048))
    current = current * 2 - 0.2
    for decay, gain in ((1.0, 1.0), (0.9, 1.1)):
        expected = gated_lif_run(current.numpy(), gate.numpy(), NeuronParameters(decay=decay, gain=gain))
        here, its_gate = current.to(device), gate.to(device)
        runs = {name: gated_lif_scan(here, its_gate, decay=decay, gain=gain, backend=name) for name in ("loop", fused)}
        if compiled is not None:
            runs["C"] = GatedLIFOutput(*compiled(current, gate, decay, gain))
        for name, found in runs.items():
            try:
                assert_runs_equal(found, expected)
            except AssertionError as error:
                raise ParityError(f"{name} and the reference, decay {decay}: {error}; nothing was timed") from error
        gradients = []
        for backend in ("loop", fused):
            leaf = here.clone().requires_grad_()
            gated_lif_scan(leaf, its_gate, decay=decay, gain=gain, backend=backend).spikes.sum().backward()
            gradients.append(leaf.grad)
        difference = float((gradients[0] - gradients[1]).abs().max())
        if not difference <= GRADIENT_TOLERANCE * float(gradients[0].abs().max()):
            raise ParityError(f"gradients of {fused} and loop differ by {difference:.3g}; nothing was timed")
    if not torch.isfinite(gradients[0]).all():
        raise ParityError("the gradients are not finite; nothing was timed")


def contenders(
    batch: int, length: int, device: str, compiled: Callable[..., Any] | None
) -> dict[str, Callable[[], Any]]:
    import snntorch
    import torch

    from speak_neuro.neuron.functional import gated_lif_scan

    # Long sequences are variety enough, and would fill the memory.
    variants = VARIANTS if batch * length <= 1 << 20 else 1
    pairs = itertools.cycle([tuple(x.to(device) for x in inputs(batch, length, seed)) for seed in range(variants)])
    leaky = snntorch.Leaky(beta=1.0).to(device)
    fused = fused_backend(device)

    def finish() -> None:
        if device != "cpu":
            torch.cuda.synchronize(device)

    def stock(drive: Any, gate: Any) -> Any:
        mem, spikes = torch.zeros(batch, device=device), []
        for t in range(length):
            fired, mem = leaky(drive[:, t], mem)
            spikes.append(fired)
        return torch.stack(spikes, 1)

    def forward(call: Callable[[Any, Any], Any]) -> Callable[[], Any]:
        def run() -> Any:
            with torch.no_grad():
                found = call(*next(pairs))
            finish()
            return found

        return run

    def both(call: Callable[[Any, Any], Any]) -> Callable[[], Any]:
        def run() -> None:
            current, gate = next(pairs)
            call(current.detach().requires_grad_(), gate).sum().backward()
            finish()

        return run

    calls = {
        "stock": stock,
        "loop": lambda drive, gate: gated_lif_scan(drive, gate, backend="loop").spikes,
        "fused": lambda drive, gate: gated_lif_scan(drive, gate, backend=fused).spikes,
    }
    every = {name: forward(call) for name, call in calls.items()}
    every |= {f"{name} + backward": both(call) for name, call in calls.items()}
    if compiled is not None:
        every["C"] = lambda: compiled(*next(pairs))
    return every


def seconds_of(runs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    return {name: spent.wall for name, spent in in_turns(runs, repeats, MEASUREMENT_SECONDS).items()}


def compare(arguments: argparse.Namespace, compiled: Callable[..., Any] | None) -> dict[str, float]:
    return seconds_of(contenders(arguments.batch, arguments.length, arguments.device, compiled), arguments.repeats)


def cost_of_length(arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Nanoseconds for each position of each row, fused, by length."""
    costs = {}
    for length in arguments.lengths:
        every = contenders(arguments.batch, length, arguments.device, None)
        fused = {name: every[name] for name in ("fused", "fused + backward")}
        found = seconds_of(fused, max(3, arguments.repeats // 3))
        costs[str(length)] = {name: value * 1e9 / (arguments.batch * length) for name, value in found.items()}
    return costs


def ratios(seconds: dict[str, float]) -> dict[str, float]:
    """How many times as long as the fused kernel each contender takes."""
    found = {}
    for name, value in seconds.items():
        own = "fused + backward" if name.endswith("backward") else "fused"
        if name != own:
            found[f"{name} / {own}"] = value / seconds[own]
    return found


def report(
    arguments: argparse.Namespace, seconds: dict[str, float], lengths: dict[str, dict[str, float]], card: str
) -> None:
    print(f"parity: equal    {arguments.batch} x {arguments.length}, {arguments.threads} thread(s), {card}")
    for name, value in seconds.items():
        print(f"  {name:18}{value * 1e3:12.3f} ms")
    print("times as long as the fused kernel")
    for name, value in ratios(seconds).items():
        print(f"  {name:36}{value:9.1f}")
    if "C" not in seconds and arguments.device == "cpu":
        print("  C: gcc not found")
    print(f"nanoseconds per position, {arguments.batch} rows")
    for length, costs in lengths.items():
        print(f"  {length:>8}  " + "    ".join(f"{name} {value:.2f}" for name, value in costs.items()))


if __name__ == "__main__":
    sys.exit(main())
