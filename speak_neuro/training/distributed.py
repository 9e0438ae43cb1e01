"""Several processes that train one run: the same steps as one process would make, each of them on a part of the batch.

The batch of a step does not depend on the number of processes W. Process r has its rows r, r + W, r + 2W, ..., and

    gradient of the batch's mean loss = mean over processes of the gradient of their own rows' mean loss

since all have equally many rows. Whatever else the batch decides together (the gate's targets, acceptance, the spike
rate) every process decides from the gathered rows, in the batch's order. So all hold the same weights and the same
proxies after every step without sending them. `ALONE` does nothing of this and costs nothing.

Small things travel as host tensors (gloo), gradients from the device they are on (nccl between CUDA devices).
"""

from __future__ import annotations

import contextlib
import datetime
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from speak_neuro.common.device import choose_device
from speak_neuro.errors import SpeakError
from speak_neuro.training.launch import Launch, PeerFailed, PeerLost, read_launch

Rows = TypeVar("Rows", Tensor, np.ndarray[Any, Any])

BUCKET_ELEMENTS = 1 << 23
"""Gradients are sent in pieces of at least so many numbers: few messages, bounded memory."""
TIMEOUT = datetime.timedelta(hours=2)
"""How long a process waits for the others: as long as the first may read and prepare a large corpus."""

PARTING_SECONDS = 10.0


@dataclass(frozen=True)
class Ranks:
    """This process and the others of the run."""

    rank: int = 0
    world: int = 1
    together: bool = False
    """Whether there is a process group; torchrun makes one for a single process too."""

    @property
    def first(self) -> bool:
        """Whether this process reads and writes the run folder and speaks to the user."""
        return self.rank == 0

    def check_batch(self, batch: int) -> None:
        """Refuse a batch that cannot be dealt out evenly."""
        if batch % self.world:
            below = batch - batch % self.world
            allowed = f"{below} or {below + self.world}" if below else str(self.world)
            raise SpeakError(
                f"--batch is {batch}, the windows of a step of all {self.world} processes; "
                f"allowed: a multiple of {self.world}, as {allowed}"
            )

    def own(self, rows: Rows) -> Rows:
        """This process's rows of the batch's (B, ...)."""
        return rows[self.rank :: self.world] if self.world > 1 else rows

    def gather(self, rows: Tensor) -> Tensor:
        """The batch's rows (B, ...) from every process's own (B / W, ...)."""
        if not self.together:
            return rows
        sent = rows.detach().contiguous()
        if sent.dtype == torch.bool:
            return self.gather(sent.view(torch.uint8)).view(torch.bool)
        parts = [torch.empty_like(sent) for _ in range(self.world)]
        with self._answered():
            dist.all_gather(parts, sent)
        return torch.stack(parts, dim=1).flatten(0, 1)

    def sum(self, values: Tensor) -> Tensor:
        """`values` summed over processes; of flags, of which one process at most may set each, their union."""
        if not self.together:
            return values
        total = values.detach().clone()
        if total.dtype == torch.bool:
            return self.sum(total.view(torch.uint8)).view(torch.bool)
        with self._answered():
            dist.all_reduce(total)
        return total

    def mean(self, value: Tensor) -> Tensor:
        """Mean over processes, with the gradient of this one's `value`: averaged later, it is the mean's gradient."""
        if not self.together:
            return value
        return value + (self.sum(value) / self.world - value.detach())

    def any(self, flag: bool) -> bool:
        """Whether `flag` holds in one process at least."""
        return bool(self.sum(torch.tensor([int(flag)]))) if self.together else flag

    def start_average(self, parameters: Iterable[nn.Parameter]) -> Callable[[], None]:
        """Begin to average the gradients; the function returned waits and puts the means in their place.

        A parameter without gradient here counts as zero if another process has one, and stays without if none has.
        """
        if not self.together:
            return lambda: None
        trained = [p for p in parameters if p.requires_grad]
        present = torch.tensor([p.grad is not None for p in trained], dtype=torch.uint8)
        buckets = [(bucket, _flat_gradients(bucket)) for bucket in _buckets(trained)]
        with self._answered():
            work = [dist.all_reduce(present, dist.ReduceOp.MAX, async_op=True)]
            work += [dist.all_reduce(flat, async_op=True) for _, flat in buckets]

        def finish() -> None:
            with self._answered():
                for item in work:
                    item.wait()
            used = iter(present.tolist())
            for bucket, flat in buckets:
                flat.div_(self.world)
                for parameter, piece in zip(bucket, torch.split(flat, [p.numel() for p in bucket]), strict=True):
                    parameter.grad = piece.view_as(parameter) if next(used) else None

        return finish

    @contextlib.contextmanager
    def agreed(self) -> Iterator[None]:
        """What goes wrong for one process inside the block ends all of them, and one of them says what it was.

        Inside, nothing may wait for the other processes: those that failed would not answer.
        """
        failure: Exception | None = None
        try:
            yield
        except (SpeakError, OSError, ValueError) as error:
            if not self.together:
                raise
            failure = error
        code = getattr(failure, "exit_code", 2) if failure is not None else 0
        codes = self.gather(torch.tensor([code])).tolist() if self.together else [0]
        failed = [rank for rank, code in enumerate(codes) if code]
        if failure is not None and failed[0] == self.rank:
            raise failure
        if failed:
            peer = PeerFailed(f"process {failed[0]} of {self.world} failed")
            peer.exit_code = codes[failed[0]]
            raise peer

    def check_equal(self, tensors: Sequence[Tensor], what: str) -> None:
        """Refuse to go on when the processes hold different bits."""
        if not self.together:
            return
        sums = [value.detach().contiguous().view(-1).view(torch.uint8).sum(dtype=torch.int64) for value in tensors]
        here = torch.stack(sums).cpu()[None] if sums else torch.zeros(1, 0, dtype=torch.int64)
        everywhere = self.gather(here)
        if not (everywhere == everywhere[0]).all():
            raise SpeakError(
                f"{what} differ between the {self.world} processes; they need equal software and equal data: "
                "check both, and go on from the last checkpoint with --resume"
            )

    def _broadcast(self, tensor: Tensor) -> None:
        with self._answered():
            dist.broadcast(tensor, 0)

    @contextlib.contextmanager
    def _answered(self) -> Iterator[None]:
        """A process that ended is named as such, not by the state of a socket."""
        try:
            yield
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise PeerLost(
                f"process {self.rank} of {self.world}: another process of this run has ended; look for its own "
                f"message, then go on with --resume ({_first_sentence(error)})"
            ) from None


ALONE = Ranks()


def _buckets(parameters: Sequence[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Consecutive parameters of one type, about BUCKET_ELEMENTS numbers together."""
    bucket: list[nn.Parameter] = []
    size = 0
    for parameter in parameters:
        if bucket and (size >= BUCKET_ELEMENTS or parameter.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(parameter)
        size += parameter.numel()
    if bucket:
        yield bucket


def _flat_gradients(parameters: Sequence[nn.Parameter]) -> Tensor:
    return torch.cat([(p.grad if p.grad is not None else torch.zeros_like(p)).reshape(-1) for p in parameters])


def _first_sentence(error: Exception) -> str:
    """What torch says, without the place in its sources and without advice."""
    return re.sub(r"^\[\S+\] ", "", " ".join(str(error).split())).split(". ")[0][:200]


def place(name: str, launch: Launch) -> torch.device:
    """The device called `name` for this process: of several on a machine each takes a CUDA device of its own.

    One that is named with its index is shared.
    """
    device = choose_device(name)
    if device.type == "cuda" and not _has_index(name) and launch.started:
        count = torch.cuda.device_count()
        if launch.local_world > count:
            raise SpeakError(
                f"{launch.local_world} processes on this machine, but torch finds {count} CUDA device(s); "
                f"start {count} of them, or give --device cpu, or --device cuda:0 to share one device"
            )
        device = torch.device("cuda", launch.local_rank)
    return device


def _has_index(name: str) -> bool:
    return ":" in name


@contextlib.contextmanager
def joined(device_name: str, launch: Launch | None = None) -> Iterator[tuple[Ranks, torch.device]]:
    """Meet the other processes of this run, if a launcher started any; part at the end."""
    launch = read_launch() if launch is None else launch
    try:
        device = place(device_name, launch)
    except SpeakError as error:
        if launch.local_rank:  # what this machine lacks, its first process says
            raise PeerFailed(str(error)) from None
        raise
    if not launch.started:
        yield ALONE, device
        return
    ranks = Ranks(launch.rank, launch.world, together=True)
    if dist.is_initialized():
        yield ranks, device
        return
    backend = "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
        if launch.local_world == 1 or not _has_index(device_name):
            backend = "cpu:gloo,cuda:nccl"  # nccl refuses to share a device
    try:
        dist.init_process_group(backend, rank=launch.rank, world_size=launch.world, timeout=TIMEOUT)
    except (RuntimeError, ValueError) as error:
        raise SpeakError(
            f"process {launch.rank} of {launch.world} cannot meet the others; MASTER_ADDR and MASTER_PORT must lead to "
            f"the first machine from all, GLOO_SOCKET_IFNAME names the network interface ({_first_sentence(error)})"
        ) from None
    try:
        yield ranks, device
    except BaseException:
        # Threads that still wait for the others would end this process by a signal. And where the others are gone,
        # parting from them may wait for ever.
        parting = threading.Thread(target=dist.destroy_process_group, daemon=True)
        parting.start()
        parting.join(PARTING_SECONDS)
        raise
    dist.destroy_process_group()
