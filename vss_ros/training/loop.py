"""The one training loop: every stage of every method runs through `fit`."""

from __future__ import annotations

import copy
import json
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from vss_ros.core.errors import SettingsError, VssError
from vss_ros.core.settings import check_choice
from vss_ros.training import checkpoint

Batch = dict[str, np.ndarray]
PRECISIONS = ('bf16', 'fp32')


class DivergedError(VssError):
    """The loss is no longer a number."""


@dataclass(frozen=True)
class FitSettings:
    """How a stage is optimised (AdamW, linear warm-up, cosine to zero)."""

    steps: int
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    warmup_steps: int = 200
    averaging: float = 0.998  # decay of the moving average of the weights; what is kept in the end
    clip_gradient: float = 10.0
    save_every_steps: int = 500
    precision: str = 'bf16'  # of the networks: bf16 or fp32

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise SettingsError(f'steps is {self.steps}; use 1 or more')
        if not self.learning_rate > 0:
            raise SettingsError(f'learning_rate is {self.learning_rate}; use more than 0')
        check_choice('precision', self.precision, PRECISIONS)
        if not 0 <= self.averaging < 1:
            raise SettingsError(f'averaging is {self.averaging}; use 0 (off) to below 1')

    def rate_at(self, step: int) -> float:
        """Learning rate of one step."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(self.steps - self.warmup_steps, 1)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


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
) -> None:
    """Train `stage.module` and leave the averaged weights in it.

    `folder` receives `<stage>.safetensors` (to resume from) and `<stage>.jsonl` (one line a step,
    one more a validation). A resumed run continues on the same curve, because a batch depends on
    the number of its step only.

    Raises:
        DivergedError: the loss is not finite; the batch is saved beside the checkpoint.
        ModelError: resume was asked for and the checkpoint does not fit.
    """
    module: nn.Module = stage.module.to(device)
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = copy.deepcopy(module).eval()
    optimiser = torch.optim.AdamW(_groups(module, settings.weight_decay), settings.learning_rate)
    path, log = folder / f'{stage.name}.safetensors', _Log(folder / f'{stage.name}.jsonl')
    first = checkpoint.load(path, module, average, optimiser) if resume and path.exists() else 0
    log.keep(first)
    with _batches(stage, first, settings.steps) as batches:
        for step, arrays in enumerate(batches, first):
            module.train()
            terms = _step(stage, settings, step, arrays, optimiser, device)
            if not math.isfinite(terms['loss']):
                lost = folder / f'{stage.name}-diverged-{step}.npz'
                np.savez_compressed(lost, **arrays)  # type: ignore[arg-type]
                raise DivergedError(
                    f'the loss of {stage.name} is {terms["loss"]} at step {step}; its batch is in '
                    f'{lost.name}. Try a lower learning_rate, then --resume'
                )
            _follow(average, module, min(settings.averaging, (1 + step) / (10 + step)))
            log.write(step, terms)
            report(step, terms)
            if (step + 1) % settings.save_every_steps == 0 or step + 1 == settings.steps:
                checkpoint.save(path, step + 1, module, average, optimiser)
                scores = stage.validate(average)
                if scores:
                    log.write(step, scores)
                    report(step, scores)
    module.load_state_dict(average.state_dict())
    module.eval()


def _step(
    stage: Stage,
    settings: FitSettings,
    step: int,
    arrays: Batch,
    optimiser: torch.optim.Optimizer,
    device: torch.device,
) -> dict[str, float]:
    rate = settings.rate_at(step)
    for group in optimiser.param_groups:
        group['lr'] = rate
    batch = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
    with torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == 'bf16'):
        terms = stage.losses(batch)
    loss = torch.stack([term.float() for term in terms.values()]).sum()
    if torch.isfinite(loss):
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(stage.module.parameters(), settings.clip_gradient)
        optimiser.step()
    return {'loss': loss.item(), **{name: term.item() for name, term in terms.items()}}


def _groups(module: nn.Module, weight_decay: float) -> list[dict]:
    """Decay the kernels, not the norms and biases."""
    kernels = [p for p in module.parameters() if p.requires_grad and p.ndim > 1]
    others = [p for p in module.parameters() if p.requires_grad and p.ndim <= 1]
    return [
        {'params': kernels, 'weight_decay': weight_decay},
        {'params': others, 'weight_decay': 0.0},
    ]


@torch.no_grad()
def _follow(average: nn.Module, module: nn.Module, decay: float) -> None:
    for kept, value in zip(average.state_dict().values(), module.state_dict().values(), strict=True):
        if kept.is_floating_point():
            kept.lerp_(value, 1 - decay)
        else:
            kept.copy_(value)


class _batches:
    """Prepares the next batches in a second thread while the network works on this one."""

    def __init__(self, stage: Stage, first: int, last: int, ahead: int = 4) -> None:
        self._stage, self._steps, self._ahead = stage, iter(range(first, last)), ahead
        self._pool = ThreadPoolExecutor(1)

    def __enter__(self) -> Iterator[Batch]:
        return self._run()

    def __exit__(self, *exception: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _run(self) -> Iterator[Batch]:
        waiting: deque[Future[Batch]] = deque()
        while True:
            while len(waiting) < self._ahead and (step := next(self._steps, None)) is not None:
                waiting.append(self._pool.submit(self._stage.batch, step))
            if not waiting:
                return
            yield waiting.popleft().result()


class _Log:
    """One JSON object a line; lines of steps that a resumed run repeats are dropped."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)

    def keep(self, steps: int) -> None:
        lines = self._path.read_text().splitlines() if self._path.exists() and steps else []
        kept = [line for line in lines if json.loads(line)['step'] < steps]
        self._path.write_text(''.join(f'{line}\n' for line in kept))

    def write(self, step: int, values: dict[str, float]) -> None:
        with self._path.open('a') as file:
            file.write(json.dumps({'step': step, **values}) + '\n')
