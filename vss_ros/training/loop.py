"""The one training loop: every stage of every method runs through `fit`."""

from __future__ import annotations

import copy
import io
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from vss_ros.core.errors import VssError
from vss_ros.core.files.drafts import write_file
from vss_ros.core.processor import usable_cores
from vss_ros.torch_engine.channels_last import channels_last
from vss_ros.training import checkpoint
from vss_ros.training.checkpoint import Precision
from vss_ros.training.optimiser import INSTEAD, Descent, FitSettings, usable_precision
from vss_ros.training.processes import ALONE, Processes
from vss_ros.training.step_log import StepLog

Batch = dict[str, np.ndarray]


class DivergedError(VssError):
    """The loss, its gradient or a weight is no longer a number."""


class Stage(Protocol):
    """What is trained, on what, towards what."""

    name: ClassVar[str]
    module: nn.Module
    size: int  # samples in a batch

    def batch(self, step: int, samples: Sequence[int] | None = None) -> Batch:
        """The arrays of one step, or these samples of it, of 0 to `size` - 1.

        A pure function of both, called from another thread: each process of several takes its part.
        """

    def losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weighted terms; their sum is minimised."""

    def validate(self, average: nn.Module) -> dict[str, float]:
        """Scores of the averaged weights on what is kept aside; empty if nothing is."""


def fit(
    stage: Stage,
    settings: FitSettings,
    folder: Path,
    device: torch.device,
    resume: bool = False,
    report: Callable[[int, dict[str, float]], None] = lambda step, terms: None,
    processes: Processes = ALONE,
    seed: int = 0,
    begun: Callable[[], None] = lambda: None,
) -> None:
    """Train `stage.module` and leave the averaged weights in it.

    `folder` receives `<stage>.safetensors` (to resume from), `<stage>.jsonl` (one line a step, one more a
    validation) and the same for TensorBoard. A resumed run continues on the same curve, because a batch and
    what a network draws (dropout) depend on the seed and the number of the step only. `begun` is called
    before the first step, if any is left, when the checkpoint has been found to fit.

    Raises:
        DivergedError: the loss, the gradient or a weight is not finite; the batch is saved beside the
            checkpoint, which stays as it was before.
        ModelError: resume was asked for and the checkpoint does not fit.
        SettingsError: the batch cannot be shared by so many processes.
    """
    _Training(stage, settings, folder, device, resume, report, processes, seed, begun).run()


@dataclass
class _Training:
    """One stage as one process trains it; arguments as of `fit`."""

    stage: Stage
    settings: FitSettings
    folder: Path
    device: torch.device
    resume: bool
    report: Callable[[int, dict[str, float]], None]
    processes: Processes
    seed: int
    begun: Callable[[], None]

    def __post_init__(self) -> None:
        stage, processes = self.stage, self.processes
        self.module: nn.Module = channels_last(stage.module.to(self.device))
        self.part = processes.part(stage.size)
        self.losses = processes.share(_Losses(stage), self.device)
        self.average = copy.deepcopy(self.module).eval()
        self.path = self.folder / f'{stage.name}.safetensors'
        begun = self.path if self.resume else None
        self.precision = _precision(begun, self.settings.precision, self.device, processes)
        self.descent = Descent(self.module, self.settings, self.device, self.precision.computes_in)
        self.first = 0
        if self.resume and self.path.exists():
            self.first = checkpoint.load(
                self.path, self.module, self.average, self.descent.optimiser, self.descent.scaler
            )
        self.log = StepLog(self.folder, stage.name, self.first) if processes.first else None

    def run(self) -> None:
        """Take the steps that are left, and put the averaged weights into the stage's module."""
        if self.first and self.log is not None and not self.log.is_scored:
            self._validate(self.first - 1)  # the run was stopped between its checkpoint and its scores
        self.processes.wait()  # nobody may find the checkpoint of a faster one
        steps = self.settings.steps
        if self.first < steps:
            self.begun()
        began = time.monotonic()
        with _Batches(self.stage, self.part, self.first, steps) as batches:
            for step, arrays in enumerate(batches, self.first):
                values = self._step(step, arrays)
                now = time.monotonic()
                self._tell(step, values, seconds=round(now - began, 3))
                began = now
                if (step + 1) % self.settings.save_every_steps == 0 or step + 1 == steps:
                    self._check_update(step, arrays)
                    self._save(step)
        if self.log is not None:
            self.log.close()
        self.processes.spread(self.average)  # statistics of norms on CPUs are those of each process's parts
        self.module.load_state_dict(self.average.state_dict())
        self.processes.unshare(self.module)
        self.module.eval()

    def _step(self, step: int, arrays: Batch) -> dict[str, float]:
        """Learn from one batch; its loss and the terms of it, over all processes."""
        rank, count = self.processes.rank, self.processes.count
        self.module.train()
        torch.manual_seed((self.seed * self.settings.steps + step) * count + rank)
        with self.descent.autocast():
            terms = self.losses(self._tensors(arrays))
        loss = torch.stack([term.float() for term in terms.values()]).sum()
        own = torch.stack([loss.detach(), *(term.detach().float() for term in terms.values())])
        values = dict(zip(('loss', *terms), self.processes.mean(own.clone()).tolist(), strict=True))
        if not math.isfinite(values['loss']):
            if not math.isfinite(own[0]):
                raise self._diverged('the loss', step, arrays)
            raise DivergedError(f'the loss of {self.stage.name} is no number in another process; see there')
        if not self.descent.step(step, loss):
            raise self._diverged('the gradient', step, arrays)
        _follow(self.average, self.module, min(self.settings.averaging, (1 + step) / (10 + step)))
        return values

    def _check_update(self, step: int, arrays: Batch) -> None:
        """Raises DivergedError in all processes where a step left weights of no use in one of them.

        No loss has been seen of these weights yet, so that of the same batch is looked at, except where it is
        scaled and may overflow.
        """
        weights = [value for value in self.module.state_dict().values() if value.is_floating_point()]
        finite = [float(all(value.isfinite().all() for value in weights)), 1.0]
        if not self.descent.scaler.is_enabled():
            self.module.eval()
            with self.descent.autocast():  # gradients and all: some terms are there in training only
                terms = self.stage.losses(self._tensors(arrays))
            finite[1] = float(all(term.isfinite().all() for term in terms.values()))
        all_finite = self.processes.mean(torch.tensor(finite, device=self.device)).tolist()
        for what, share in zip(('a weight', 'the loss after the update'), all_finite, strict=True):
            if share < 1:
                raise self._diverged(what, step, arrays)

    def _tensors(self, arrays: Batch) -> dict[str, Tensor]:
        return {name: torch.from_numpy(array).to(self.device) for name, array in arrays.items()}

    def _diverged(self, what: str, step: int, arrays: Batch) -> DivergedError:
        """The error of a step, its batch saved."""
        name, of_process = self.stage.name, ''
        if self.processes.count > 1:
            of_process = f'-process-{self.processes.rank}'
        lost = self.folder / f'{name}-diverged-{step}{of_process}.npz'
        packed = io.BytesIO()
        np.savez_compressed(packed, **arrays)  # type: ignore[arg-type]
        write_file(lost, packed.getvalue())
        return DivergedError(
            f'{what} of {name} is no number at step {step}; the batch of that step is in {lost.name}. '
            'Try a lower learning_rate, then --resume'
        )

    def _save(self, step: int) -> None:
        """Save everything that the next step depends on, and validate."""
        if self.processes.first:
            checkpoint.save(
                self.path,
                step + 1,
                self.precision,
                self.module,
                self.average,
                self.descent.optimiser,
                self.descent.scaler,
            )
            self._validate(step)
        self.processes.wait()

    def _validate(self, step: int) -> None:
        if scores := self.stage.validate(self.average):
            self._tell(step, scores)

    def _tell(self, step: int, values: dict[str, float], **more: float) -> None:
        if self.log is not None:
            self.log.write(step, {**values, **more})
            self.report(step, values)


def _precision(path: Path | None, wanted: str, device: torch.device, processes: Processes) -> Precision:
    """As the run of a checkpoint began, for a trial may come out otherwise another time; and all alike."""
    begun = None if path is None else checkpoint.precision_of(path)
    if begun is not None and begun.asked_for == wanted:
        return begun
    own = torch.tensor([float(usable_precision(wanted, device) == wanted)], device=device)
    return Precision(wanted if processes.mean(own).item() == 1 else INSTEAD[device.type], wanted)


class _Losses(nn.Module):
    """The losses of a stage as a module, the form in which PyTorch averages gradients over processes."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.module = stage.module
        self._losses = stage.losses

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return self._losses(batch)


@torch.no_grad()
def _follow(average: nn.Module, module: nn.Module, decay: float) -> None:
    for kept, value in zip(average.state_dict().values(), module.state_dict().values(), strict=True):
        if kept.is_floating_point():
            kept.lerp_(value, 1 - decay)
        else:
            kept.copy_(value)


@contextmanager
def weights_of(module: nn.Module, other: nn.Module) -> Iterator[None]:
    """Lets a module have the weights of another of its kind, such as its average, for a while."""
    own = {name: value.clone() for name, value in module.state_dict().items()}
    module.load_state_dict(other.state_dict())
    try:
        yield
    finally:
        module.load_state_dict(own)


class _Batches:
    """Prepares the next batches in threads of their own while the network works on this one."""

    def __init__(self, stage: Stage, part: range, first: int, last: int) -> None:
        threads = max(usable_cores() // 2, 1)
        self._stage, self._part, self._ahead = stage, part, max(threads, 4)
        self._steps = iter(range(first, last))
        self._pool = ThreadPoolExecutor(threads)

    def __enter__(self) -> Iterator[Batch]:
        return self._run()

    def __exit__(self, *exception: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _run(self) -> Iterator[Batch]:
        waiting: deque[Future[Batch]] = deque()
        while True:
            while len(waiting) < self._ahead and (step := next(self._steps, None)) is not None:
                waiting.append(self._pool.submit(self._stage.batch, step, self._part))
            if not waiting:
                return
            yield waiting.popleft().result()
