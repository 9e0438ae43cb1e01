"""Which NIR reader runs which of our graphs, and with how many spikes other than the neuron's: a table of reader x
graph.

    python experiments/networks/readers.py --json experiments/results/networks/readers.json

Graphs: native (GatedResetLIF), lowered (stock nodes only), approximate (one LIF, its gate lost on purpose), folded (a
sum over three delays), network (Linear, gated neurons, Linear, Leaky). Readers as they come, then norse, sinabs and
nirtorch with this package's adapters. A cell is the share of spikes that differ, or why the reader stops; "drops the
neuron" is a reader that gave something else than spikes without a word. Readers that are not installed have no row.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from speak_neuro.common.command import run_command
from speak_neuro.common.provenance import write_result

STEPS, BATCH, NEURONS, WIDTH = 60, 4, 5, 6
GRAPHS = ("native", "lowered", "approximate", "folded", "network")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="readers.py", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--readers", nargs="+", choices=list(READERS), default=list(READERS), help="(default: all)")
    parser.add_argument("--graphs", nargs="+", choices=GRAPHS, default=list(GRAPHS), help="(default: all)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there")
    return run_command(parser, table, argv)


def table(arguments: argparse.Namespace) -> int:
    """Run every reader on every graph and print the table."""
    warnings.simplefilter("ignore")
    found: dict[str, dict[str, str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        cases = {name: case(name, Path(folder)) for name in arguments.graphs}
        for reader in arguments.readers:
            package, run = READERS[reader]
            if importlib.util.find_spec(package) is not None:
                found[reader] = {name: cell(run, *made) for name, made in cases.items()}
    width = max(map(len, found), default=0)
    print(" " * width, *(f"{name:>18s}" for name in cases))
    for reader, cells in found.items():
        print(f"{reader:{width}s}", *(f"{cells[name][:18]:>18s}" for name in cases))
    write_result(arguments, {"readers": found})
    return 0


def exported(rng: np.random.Generator) -> Any:
    """Gated neurons with readouts, random but for their seed."""
    from speak_neuro.export.files.neuron_file import ExportedNeuron

    def full(value: float) -> Any:
        return np.full(NEURONS, value, dtype=np.float32)

    weight = rng.normal(0, 0.7, (2 * NEURONS, WIDTH)).astype(np.float32)
    constants = {"decay": full(0.9), "gain": full(1), "threshold": full(1), "reset_potential": full(0)}
    constants |= {"reset_scale": full(0.8), "gate_threshold": full(0)}
    return ExportedNeuron(weight=weight, bias=rng.normal(0, 0.3, 2 * NEURONS).astype(np.float32), **constants)


def case(name: str, folder: Path) -> tuple[Path, Any, Any]:
    """A graph's file, inputs (B, T, D), and the spikes (B, T, N) that its neurons must give."""
    from speak_neuro.export.files.folded_file import Folded, folded_graph
    from speak_neuro.export.files.neuron_file import neuron_graph, write_graph
    from speak_neuro.export.graphs.approximate import approximate
    from speak_neuro.export.graphs.lower import lower
    from speak_neuro.export.graphs.network import network_of
    from speak_neuro.export.graphs.network_run import run_network

    rng = np.random.default_rng(0)
    neuron = exported(rng)
    x = rng.normal(0, 1, (BATCH, STEPS, WIDTH)).astype(np.float32)
    graph = native = neuron_graph(neuron)
    if name == "lowered":
        graph = lower(native, np.abs(x @ neuron.weight.T + neuron.bias).max() * 1.01).graph
    elif name == "approximate":
        graph = approximate(neuron)
    elif name == "folded":
        constants = {field: getattr(neuron, field) for field in ("decay", "gain", "threshold", "reset_potential")}
        constants |= {"reset_scale": neuron.reset_scale, "gate_threshold": neuron.gate_threshold}
        taps = rng.normal(0, 0.5, (3, 2 * NEURONS, WIDTH)).astype(np.float32)
        graph = native = folded_graph(Folded.of(taps, constants, {}))
        x = np.eye(WIDTH, dtype=np.float32)[rng.integers(0, WIDTH, (BATCH, STEPS))]
    elif name == "network":
        graph = native = network_graph(x)
    path = folder / f"{name}.nir"
    write_graph(path, graph)
    return path, x, run_network(network_of(native), x).output


def network_graph(x: Any) -> Any:
    """Linear, gated neurons, Linear, Leaky, exported."""
    import snntorch
    import torch
    from torch import nn

    from speak_neuro.export import to_nir
    from speak_neuro.neuron.module import GatedLeakyCell

    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(WIDTH, 20),
        GatedLeakyCell(10, decay=0.9, init_hidden=True, learn_gate="own-loss"),
        nn.Linear(10, NEURONS),
        snntorch.Leaky(beta=0.9, init_hidden=True, reset_mechanism="zero", reset_delay=False),
    )
    with torch.no_grad():
        for layer in (net[0], net[2]):
            layer.weight.mul_(3)  # type: ignore[union-attr,operator]
    return to_nir(net, torch.from_numpy(x))


def cell(run: Callable[[Path, Any], Any], path: Path, x: Any, expected: Any) -> str:
    """What came of it, in a few words."""
    try:
        found = np.asarray(run(path, x), dtype=np.float64)
    except Exception as error:  # readers fail in ways of their own; that is what the table is about
        text = " ".join(str(error).split()) or "no message"
        return f"{type(error).__name__}: {text}"[:100]
    if found.shape != expected.shape or not np.isin(found, (0, 1)).all():
        return "drops the neuron"
    return f"{(found != expected).mean():.1%} differ" if (found != expected).any() else "exact"


def read(path: Path) -> Any:
    from speak_neuro.export.files.neuron_file import read_graph

    return read_graph(path)


def by_steps(net: Any, x: Any) -> Any:
    """A torch module over a sequence, its state going round."""
    import torch

    state, found = None, []
    with torch.no_grad():
        for t in range(x.shape[1]):
            out = net(torch.from_numpy(x[:, t]), state)
            out, state = out if isinstance(out, tuple) else (out, None)
            found.append(out)
    return torch.stack(found, 1).numpy()


def plain(path: Path, x: Any) -> Any:
    """nir alone, in a process without this package's node; it runs nothing, so reading is all that is asked."""
    done = subprocess.run(
        [sys.executable, "-c", f"import nir; nir.read({str(path)!r})"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise AssertionError(done.stderr.strip().splitlines()[-1].partition(": ")[2])
    raise NotImplementedError("reads; nir runs nothing")


def norse_own(path: Path, x: Any) -> Any:
    import norse.torch

    return by_steps(norse.torch.from_nir(read(path), ignore_warnings=True, dt=1e-4), x)


def norse_adapted(path: Path, x: Any) -> Any:
    from speak_neuro.export.readers import norse

    return by_steps(norse.from_nir(read(path)), x)


def sinabs_run(net: Any, x: Any) -> Any:
    import torch

    with torch.no_grad():
        out = net(torch.from_numpy(x.reshape(-1, x.shape[2])))
    return (out[0] if isinstance(out, tuple) else out).reshape(*x.shape[:2], -1).numpy()


def sinabs_own(path: Path, x: Any) -> Any:
    import sinabs.nir

    return sinabs_run(sinabs.nir.from_nir(read(path), batch_size=BATCH), x)


def sinabs_adapted(path: Path, x: Any) -> Any:
    from speak_neuro.export.readers import sinabs

    return sinabs_run(sinabs.from_nir(read(path), batch_size=BATCH), x)


def rockpool_own(path: Path, x: Any) -> Any:
    import torch
    from rockpool.nn.modules import from_nir

    with torch.no_grad():
        out = from_nir(read(path))(torch.from_numpy(x))
    return (out[0] if isinstance(out, tuple) else out).numpy()


def snntorch_own(path: Path, x: Any) -> Any:
    from snntorch.import_nir import import_from_nir

    return by_steps(import_from_nir(read(path)), x)


def nirtorch_adapted(path: Path, x: Any) -> Any:
    import nirtorch

    from speak_neuro.export.modules.from_nir import node_map

    return by_steps(nirtorch.nir_to_torch(read(path), node_map()), x)


def own_torch(path: Path, x: Any) -> Any:
    from speak_neuro.export import from_nir

    return by_steps(from_nir(read(path)), x)


def sc_neurocore(path: Path, x: Any) -> Any:
    from sc_neurocore.nir_bridge import from_nir

    rows = []
    for sequence in x:
        net = from_nir(read(path), dt=1e-4)
        rows.append([np.asarray(net.step({"input": row})["output"]).reshape(-1) for row in sequence])
    return rows


def interpreter(path: Path, x: Any) -> Any:
    from speak_neuro.export.graphs.network import network_of
    from speak_neuro.export.graphs.network_run import run_network

    return run_network(network_of(read(path)), x).output


def lava(path: Path, x: Any) -> Any:
    from speak_neuro.sim import simulate

    return simulate(path, x).output


READERS: dict[str, tuple[str, Callable[[Path, Any], Any]]] = {
    "nir.read alone": ("nir", plain),
    "norse": ("norse", norse_own),
    "sinabs": ("sinabs", sinabs_own),
    "snntorch": ("snntorch", snntorch_own),
    "rockpool": ("rockpool", rockpool_own),
    "sc-neurocore": ("sc_neurocore", sc_neurocore),
    "nirtorch + adapter": ("nirtorch", nirtorch_adapted),
    "norse + adapter": ("norse", norse_adapted),
    "sinabs + adapter": ("sinabs", sinabs_adapted),
    "from_nir": ("torch", own_torch),
    "our interpreter": ("speak_neuro", interpreter),
    "Lava": ("lava", lava),
}


if __name__ == "__main__":
    sys.exit(main())
