"""A training in several processes, one for each GPU, started by torchrun.

Each process takes its part of every batch; gradients are averaged. So the curve is that of one process with
the whole batch, up to two things: a loss that divides by a number of pixels divides by that of the part, and
batch norm sees the part only. On CUDA it sees the whole batch (SyncBatchNorm, which there is for CUDA alone),
but for that in mixed norms.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from vss_ros.core.errors import SettingsError

LONGEST_WAIT = timedelta(hours=12)  # for the first process, which validates alone; NCCL's own is ten minutes


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

    def unshare(self, module: nn.Module) -> None:
        """Put back the batch norms of which `share` has made others: their class is asked for elsewhere."""
        for parent in list(module.modules()):
            for name, norm in parent.named_children():
                if isinstance(norm, nn.SyncBatchNorm):
                    setattr(parent, name, _plain(norm))


ALONE = Processes()


def _plain(norm: nn.SyncBatchNorm) -> nn.BatchNorm2d:
    """The same with the same tensors, for one process."""
    plain = nn.BatchNorm2d(norm.num_features, norm.eps, norm.momentum, device=norm.weight.device)
    plain.weight, plain.bias = norm.weight, norm.bias
    for name, statistic in norm.named_buffers():
        setattr(plain, name, statistic)
    return plain.train(norm.training)


def own_device(wanted: str) -> str:
    """The device of this process. Of those that torchrun started each has a GPU of its own.

    Args:
        wanted: `cpu`, `cuda` (the one of this process) or a certain one.
    Raises:
        SettingsError: a certain one, which all processes would share.
    """
    if (count := _count()) > 1 and wanted.startswith('cuda:'):
        raise SettingsError(
            f'device is {wanted}, and there are {count} processes; use cuda, which gives each a GPU of its '
            'own, and choose among GPUs by CUDA_VISIBLE_DEVICES'
        )
    return f'cuda:{os.environ["LOCAL_RANK"]}' if count > 1 and wanted == 'cuda' else wanted


@contextmanager
def joined(device: torch.device) -> Iterator[Processes]:
    """Join the processes torchrun started: who they are; alone without torchrun.

    Args:
        device: of this process.
    """
    if (count := _count()) == 1:
        yield ALONE
        return
    if device.type == 'cuda':
        torch.cuda.set_device(device)
        distributed.init_process_group('nccl', timeout=LONGEST_WAIT, device_id=device)
    else:
        distributed.init_process_group('gloo', timeout=LONGEST_WAIT)
    try:
        yield Processes(distributed.get_rank(), count)
    finally:
        distributed.destroy_process_group()


def _count() -> int:
    return int(os.environ.get('WORLD_SIZE', 1))
