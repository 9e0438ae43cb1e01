"""One of several processes, started by torchrun: does everything that `Ranks` can, and writes down what it saw.

torchrun --nproc-per-node 2 tests/helpers/distributed_worker.py FOLDER
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from speak_neuro.errors import SpeakError
from speak_neuro.training.distributed import Ranks, joined
from speak_neuro.training.launch import PeerFailed


def torchrun(*command: str, processes: int = 2, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """`torchrun --standalone --nproc-per-node N command`, one thread a process."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return subprocess.run(
        [*launcher, *command],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def averaged(ranks: Ranks) -> list[list[float] | None]:
    """A gradient in all processes, one in the last alone, one in none, one that is frozen."""
    everywhere, last, nowhere, frozen = (nn.Parameter(torch.zeros(2)) for _ in range(4))
    frozen.requires_grad_(False)
    everywhere.grad = torch.tensor([1.0, 10.0]) * (ranks.rank + 1)
    if ranks.rank == ranks.world - 1:
        last.grad = torch.tensor([4.0, 8.0])
    ranks.start_average([everywhere, last, nowhere, frozen])()
    return [None if p.grad is None else p.grad.tolist() for p in (everywhere, last, nowhere, frozen)]


def mean_gradient(ranks: Ranks) -> list[float]:
    """The hinge of a mean over the batch, through `mean` and averaged gradients: value and gradient at 1.0."""
    weight = nn.Parameter(torch.tensor(1.0))
    rows = ranks.own(torch.tensor([1.0, 2.0, 3.0, 10.0]))
    loss = (ranks.mean((weight * rows).mean()) - 2.5).clamp(min=0) ** 2
    loss.backward()
    ranks.start_average([weight])()
    assert weight.grad is not None
    return [loss.item(), weight.grad.item()]


def agreement(ranks: Ranks, failing: tuple[int, ...]) -> str:
    try:
        with ranks.agreed():
            if ranks.rank in failing:
                raise SpeakError(f"here {ranks.rank}")
    except PeerFailed as failure:
        return f"peer {failure.exit_code}"
    except SpeakError as failure:
        return str(failure)
    return "fine"


def equality(ranks: Ranks, value: float) -> str:
    try:
        ranks.check_equal([torch.zeros(3), torch.tensor(value)], "weights")
    except SpeakError as failure:
        return str(failure)
    return "equal"


def observe(ranks: Ranks) -> dict[str, Any]:
    rows = torch.arange(8).view(4, 2)
    return {
        "rank": ranks.rank,
        "own": ranks.own(rows).tolist(),
        "gather": ranks.gather(ranks.own(rows)).tolist(),
        "gather_bool": ranks.gather(ranks.own(rows > 2)).tolist(),
        "sum": ranks.sum(torch.tensor([1.0, float(ranks.rank)])).tolist(),
        "any": [ranks.any(False), ranks.any(ranks.rank == 1), ranks.any(True)],
        "averaged": averaged(ranks),
        "mean": mean_gradient(ranks),
        "agreed": [agreement(ranks, failing) for failing in ((), (0,), (1,), (0, 1))],
        "equal": [equality(ranks, 1.0), equality(ranks, 0.0), equality(ranks, 0.0 if ranks.first else -0.0)],
    }


def main() -> None:
    with joined("cpu") as (ranks, _):
        found = observe(ranks)
        (Path(sys.argv[1]) / f"{ranks.rank}.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
