"""How the weights of a stage are optimised: optimiser, rates, gradients, arithmetic."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field
from functools import lru_cache

import torch
from torch import nn
from torch.nn import functional

from vss_ros.core.described import Described, Description, setting
from vss_ros.core.errors import SettingsError

OPTIMISERS = ('adamw', 'adam', 'sgd')
SCHEDULES = {
    'cosine': lambda done, power: 0.5 * (1 + math.cos(math.pi * done)),
    'polynomial': lambda done, power: (1 - done) ** power,
    'tenth': lambda done, power: 1.0 if done <= 0.5 else 0.1,  # past the middle, as in DAVSS
}
TRIALS = 12  # of each precision; of a few, all may fall into moments in which other programs compute
INSTEAD = {'cpu': 'fp32', 'cuda': 'fp16'}  # of a precision that a kind of device is slow in
PRECISIONS = {'fp32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}
LEAST_SCALE = 1e-4  # of an fp16 loss; it begins at 65536 and is halved at each overflow

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FitSettings(Described):
    """How a stage is optimised: a linear warm-up, then the schedule."""

    steps: int = setting(MISSING, 'of the whole stage', range=(1, math.inf))
    optimiser: str = setting('adamw', 'adam adds weight_decay to the gradient', choices=OPTIMISERS)
    learning_rate: float = setting(2e-3, 'at its height')
    rates: Mapping[str, float] = field(  # `setting` takes no mapping as a default
        default_factory=dict,
        metadata={'description': Description('share of learning_rate, by name of a part of what learns')},
    )
    weight_decay: float = setting(0.05, 'of kernels; norms and biases never decay', range=(0, math.inf))
    momentum: float = setting(0.9, 'of sgd')
    warmup_steps: int = setting(200, 'in which the rate rises', range=(0, math.inf))
    schedule: str = setting('cosine', 'how the rate falls after them', choices=tuple(SCHEDULES))
    power: float = setting(0.9, 'of the polynomial schedule', range=(0, math.inf))
    final_share: float = setting(
        0.0, 'of learning_rate, at which cosine and polynomial end', range=(0, math.inf)
    )
    averaging: float = setting(0.998, 'decay of the mean of the weights, which is kept in the end; 0: off')
    clip_gradient: float = setting(10.0, 'largest norm of the gradient; 0: any', range=(0, math.inf))
    save_every_steps: int = setting(500, 'for --resume', range=(1, math.inf))
    precision: str = setting(
        'bf16', 'of the networks; fp16 comes with a scaled loss', choices=tuple(PRECISIONS)
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.learning_rate > 0:
            raise SettingsError(f'learning_rate is {self.learning_rate}; use more than 0')
        if wrong := [part for part, share in self.rates.items() if not 0 <= share < math.inf]:
            raise SettingsError(f'rates: {wrong[0]} is {self.rates[wrong[0]]}; use a share of 0 or more')
        for name in ('averaging', 'momentum'):
            if not 0 <= getattr(self, name) < 1:
                raise SettingsError(f'{name} is {getattr(self, name)}; use 0 (off) to below 1')

    def rate_at(self, step: int) -> float:
        """Learning rate of one step."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(self.steps - self.warmup_steps, 1)
        share = SCHEDULES[self.schedule](done, self.power)
        if self.schedule != 'tenth':
            share = self.final_share + (1 - self.final_share) * share
        return self.learning_rate * share


def make_optimiser(module: nn.Module, settings: FitSettings) -> torch.optim.Optimizer:
    """The optimiser of what learns in `module`; its rate is set at every step.

    Each parameter is listed once. The releases of EVSS and DAVSS list theirs two to five times, and so
    move them as many times per step: a rate of theirs is to be multiplied by about 3.

    Raises:
        SettingsError: `rates` names what does not learn.
    """
    groups = []
    for share, parameters in by_rate(module, settings.rates):
        kernels = [p for p in parameters if p.ndim > 1]
        others = [p for p in parameters if p.ndim <= 1]
        groups += [
            {'params': kernels, 'weight_decay': settings.weight_decay, 'share': share},
            {'params': others, 'weight_decay': 0.0, 'share': share},
        ]
    if settings.optimiser == 'sgd':
        return torch.optim.SGD(groups, settings.learning_rate, momentum=settings.momentum)
    kind = torch.optim.Adam if settings.optimiser == 'adam' else torch.optim.AdamW
    return kind(groups, settings.learning_rate)


def by_rate(module: nn.Module, rates: Mapping[str, float]) -> list[tuple[float, list[nn.Parameter]]]:
    """What learns in `module`, each parameter at the share of the last of `rates` it is a part of, or at 1.

    Raises:
        SettingsError: one of them is no part of what learns.
    """
    learning = {name: p for name, p in module.named_parameters() if p.requires_grad}
    parts = {
        part: {name for name in learning if name == part or name.startswith(f'{part}.')} for part in rates
    }
    if unknown := [part for part, names in parts.items() if not names]:
        have = ', '.join(dict.fromkeys(name.split('.')[0] for name in learning))
        raise SettingsError(f'rates names {", ".join(unknown)}, of which nothing learns; it has {have}')
    part_of = {name: part for part, names in parts.items() for name in names}
    shares = {'': 1.0, **rates}
    return [
        (share, [p for name, p in learning.items() if part_of.get(name, '') == part])
        for part, share in shares.items()
    ]


class Descent:
    """Steps of an optimiser downhill, in a precision the device is fast in.

    Args:
        module: its parameters learn.
        precision: in which its networks compute.
    """

    def __init__(
        self, module: nn.Module, settings: FitSettings, device: torch.device, precision: str
    ) -> None:
        self.settings, self._module, self._device = settings, module, device
        self.optimiser = make_optimiser(module, settings)
        self.precision = precision
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.precision == 'fp16')

    def autocast(self) -> torch.autocast:
        # Without its cache: in older PyTorch (2.9 for one) kernels that were first cast under no_grad, on
        # frames that are not judged, stay in it without their gradients.
        dtype, enabled = PRECISIONS[self.precision], self.precision != 'fp32'
        return torch.autocast(self._device.type, dtype, enabled=enabled, cache_enabled=False)

    def step(self, step: int, loss: torch.Tensor) -> bool:
        """Take one step against the gradient of the loss; False, and the weights stay, if that is no number.

        A scaled loss is meant to overflow at times: the weights stay and its scale falls, which is a step. A
        scale that has fallen next to nothing says that no scale helps.
        """
        for group in self.optimiser.param_groups:
            group['lr'] = group['share'] * self.settings.rate_at(step)
        self.optimiser.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        is_scaled = self.scaler.is_enabled()
        if self.settings.clip_gradient or not is_scaled:
            self.scaler.unscale_(self.optimiser)
            largest = self.settings.clip_gradient or math.inf
            norm = nn.utils.clip_grad_norm_(self._module.parameters(), largest)
            if not (is_scaled or math.isfinite(norm)):
                return False
        self.scaler.step(self.optimiser)
        self.scaler.update()
        return not is_scaled or self.scaler.get_scale() > LEAST_SCALE


def usable_precision(wanted: str, device: torch.device) -> str:
    """`wanted`, or the one of INSTEAD where the device is faster in that: it may be ten times.

    A processor is measured. A GPU is asked, in case of bf16: older ones have no arithmetic for it.
    """
    if device.type == 'cuda':
        with torch.cuda.device(device):
            if wanted != 'bf16' or torch.cuda.is_bf16_supported(including_emulation=False):
                return wanted
        log.warning('this GPU has no bf16 arithmetic: training in fp16, with a scaled loss')
    elif wanted == 'fp32' or speed_up(PRECISIONS[wanted]) > 1:
        return wanted
    else:
        log.warning('precision %s is no faster than fp32 on this processor: training in fp32', wanted)
    return INSTEAD[device.type]


@lru_cache
def speed_up(dtype: torch.dtype) -> float:
    """How many times as fast as in fp32 this processor trains convolutions in `dtype`.

    Measured, the best of some runs in turns, because names of instructions do not tell: of processors with
    `avx512_bf16` some train CSRNet four times as fast in bf16, others at two thirds of the speed.
    """
    maps = torch.ones(2, 64, 64, 64).to(memory_format=torch.channels_last)
    kernel = torch.ones(64, 64, 3, 3).to(memory_format=torch.channels_last).requires_grad_(True)
    best = dict.fromkeys((torch.float32, dtype), math.inf)
    for _ in range(TRIALS):
        for kind in best:
            began = time.perf_counter()
            with torch.autocast('cpu', kind, enabled=kind != torch.float32):
                inner = functional.conv2d(maps, kernel, padding=1)
                loss = functional.conv2d(inner, kernel, padding=1).float().mean()
            loss.backward()
            best[kind] = min(best[kind], time.perf_counter() - began)
    return best[torch.float32] / best[dtype]
