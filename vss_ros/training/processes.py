"""A training in several processes, one for each GPU, started by torchrun.

Each process takes its part of every batch; gradients are averaged. So the curve is that of one process with
the whole batch, up to two things: a loss that divides by a number of pixels divides by that of the part, and
batch norm sees the part only. On CUDA it sees the whole batch (SyncBatchNorm, which there is for CUDA alone).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from vss_ros.core.errors import SettingsError


@dataclass(frozen=True)
class Processes:
    """The processes of a training, as one of them sees them."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """This process writes, validates and reports; the others only compute."""
        return self.rank == 0

    def part(self, size: int) -> range:
        """Which samples of a batch this process takes.

        Raises:
            SettingsError: the batch cannot be shared out evenly.
        """
        if size % self.count or (self.count > 1 and size < 2 * self.count):
            raise SettingsError(
                f'a batch of {size} cannot be shared by {self.count} processes; '
                'use a multiple of their number, with 2 or more for each'
            )
        each = size // self.count
        return range(self.rank * each, (self.rank + 1) * each)

    def mean(self, values: Tensor) -> Tensor:
        """The mean over the processes."""
        if self.count > 1:
            distributed.all_reduce(values)
            values /= self.count
        return values

    def spread(self, module: nn.Module) -> None:
        """Give the parameters and statistics of the first process to all."""
        if self.count > 1:
            for tensor in module.state_dict().values():
                distributed.broadcast(tensor, 0)

    def wait(self) -> None:
        """Go on when all have come here."""
        if self.count > 1:
            distributed.barrier()

    def share(self, losses: nn.Module, device: torch.device) -> nn.Module:
        """`losses` with gradients that are averaged over the processes as they are computed."""
        if self.count == 1:
            return losses
        if device.type == 'cuda':
            nn.SyncBatchNorm.convert_sync_batchnorm(losses)
        devices = [device] if device.type == 'cuda' else None
        return DistributedDataParallel(losses, device_ids=devices, find_unused_parameters=True)


ALONE = Processes()


@contextmanager
def joined(device: str) -> Iterator[tuple[Processes, str]]:
    """Join the processes torchrun started: who they are, and the device of this one; alone without torchrun.

    Args:
        device: `cpu`, `cuda` (the one of this process) or a certain one.
    """
    count = int(os.environ.get('WORLD_SIZE', 1))
    if count == 1:
        yield ALONE, device
        return
    if device == 'cuda':
        device = f'cuda:{os.environ["LOCAL_RANK"]}'
    if device.startswith('cuda'):
        torch.cuda.set_device(device)
    distributed.init_process_group('nccl' if device.startswith('cuda') else 'gloo')
    try:
        yield Processes(distributed.get_rank(), count), device
    finally:
        distributed.destroy_process_group()
