"""Checkpoints that a run resumes from: tensors in safetensors, the step in its header."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vss_ros.core.errors import ModelError, writing
from vss_ros.core.files.drafts import replacing
from vss_ros.training.optimiser import PRECISIONS


class Precision(NamedTuple):
    """In what a run computes, and what its recipe asks for, which need not be the same."""

    computes_in: str
    asked_for: str


def write_tensors(
    path: Path, tensors: dict[str, Tensor], notes: dict[str, str], digested: bool = False
) -> None:
    """Write a safetensors file; a reader sees the old file or the new one, never half of one.

    Args:
        digested: add the sha256 of the tensors to the notes, whose order in the file then varies.

    Raises:
        OSError: it cannot be written; nothing is left of it.
    """
    # A copy each: the file format refuses tensors that share memory, and ours may.
    dense = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    try:
        with writing(path), replacing(path) as draft:
            save_file(dense, draft, {**notes, 'sha256': _digest(dense)} if digested else notes)
    except SafetensorError as error:  # as which the library reports a full disk
        raise OSError(f'{path} cannot be written: {error}') from error


def save(
    path: Path,
    step: int,
    precision: Precision,
    module: nn.Module,
    average: nn.Module,
    optimiser: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
) -> None:
    """Save everything the next step depends on. `step` is the number of steps taken."""
    tensors = {f'module/{name}': value for name, value in module.state_dict().items()}
    tensors |= {f'average/{name}': value for name, value in average.state_dict().items()}
    for name, parameter in module.named_parameters():  # by name: their order is another with other `rates`
        state = optimiser.state.get(parameter, {})
        tensors |= {f'optimiser/{name}/{entry}': value for entry, value in state.items() if value is not None}
    # Empty unless the loss is scaled.
    tensors |= {f'scaler/{name}': torch.tensor(value) for name, value in scaler.state_dict().items()}
    write_tensors(path, tensors, {'step': str(step), **precision._asdict()}, digested=True)


def steps_taken(path: Path) -> int:
    """The step of a checkpoint; 0 if there is none.

    Raises:
        ModelError: the file is damaged.
    """
    with _refused(path):
        step = int(_notes(path)['step']) if path.exists() else 0
        if not 0 <= step <= sys.maxsize:
            raise ValueError(f'its step is {step}')
        return step


def precision_of(path: Path) -> Precision | None:
    """What the run of a checkpoint computes in; None if there is none, or it is of an earlier version.

    Raises:
        ModelError: the file is damaged.
    """
    with _refused(path):
        notes = _notes(path) if path.exists() else {}
        if 'computes_in' not in notes:
            return None
        precision = Precision(*(notes[name] for name in Precision._fields))
        if strange := [name for name in precision if name not in PRECISIONS]:
            raise ValueError(f'its precision is {strange[0]!r}')
        return precision


def load(
    path: Path,
    module: nn.Module,
    average: nn.Module,
    optimiser: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
) -> int:
    """Restore what `save` wrote and return its step.

    Raises:
        ModelError: the file is damaged or belongs to another network.
    """
    step = steps_taken(path)
    with _refused(path):
        tensors = load_file(path)
        if _notes(path).get('sha256', digest := _digest(tensors)) != digest:  # earlier versions noted none
            raise ValueError('its tensors are not those that were written')
        module.load_state_dict(_part(tensors, 'module/'))
        average.load_state_dict(_part(tensors, 'average/'))
        names = {parameter: name for name, parameter in module.named_parameters()}
        learning = [parameter for group in optimiser.param_groups for parameter in group['params']]
        places = {names[parameter]: place for place, parameter in enumerate(learning)}
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in _part(tensors, 'optimiser/').items():
            owner, entry = name.split('/')
            place = places[owner] if owner in places else int(owner)  # as earlier versions noted
            state.setdefault(place, {})[entry] = value
        groups = optimiser.state_dict()['param_groups']
        optimiser.load_state_dict({'state': state, 'param_groups': groups})
        scaling = {name: value.item() for name, value in _part(tensors, 'scaler/').items()}
        if scaling and scaler.is_enabled():
            scaler.load_state_dict(scaling)
    return step


def _digest(tensors: dict[str, Tensor]) -> str:
    """sha256 over the names, types, shapes and bytes of contiguous tensors."""
    total = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        total.update(f'{name} {tensor.dtype} {tuple(tensor.shape)}\n'.encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def _notes(path: Path) -> dict[str, str]:
    with safe_open(path, 'pt') as file:
        return file.metadata()


@contextmanager
def _refused(path: Path) -> Iterator[None]:
    """Whatever comes of a file that is no checkpoint, or that of another network, as a ModelError."""
    try:
        yield
    except (SafetensorError, RuntimeError, KeyError, TypeError, ValueError, OSError) as error:
        reason = ' '.join(str(error).split())[:300]
        raise ModelError(
            f'{path} cannot be resumed from ({reason}); remove it and those of later stages, or start over '
            'in another folder with --runs'
        ) from error


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}
