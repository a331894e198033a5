"""What a training leaves for those who ask how a model came about: report.md, curves.png, recipe.yaml."""

from __future__ import annotations

import inspect
import platform
import subprocess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from vss_ros.core.errors import MissingLibraryError
from vss_ros.core.files.drafts import write_file
from vss_ros.core.files.share import version
from vss_ros.core.model.folder import load_model
from vss_ros.core.processor import processor_name, usable_cores
from vss_ros.training.checkpoint import precision_of
from vss_ros.training.processes import Processes
from vss_ros.training.stages import stage_class
from vss_ros.training.step_log import by_distance, last_scores, read_log
from vss_ros.training.trainer import Trainer


def write_report(trainer: Trainer, target: Path, device: torch.device, processes: Processes) -> None:
    """Write the report of a finished training to a folder."""
    recipe = trainer.recipe
    logs = {stage.name: read_log(trainer.folder / f'{stage.name}.jsonl') for stage in recipe.stages}
    facts = _facts(trainer, device, processes)
    lines = [f'# Training of {recipe.name}', '', *_table(('', ''), facts.items()), '', '## Stages', '']
    columns = ('stage', 'steps', 'batch', 'precision', 'minutes', 'loss at first', 'loss in the end')
    rows = []
    for stage in recipe.stages:
        precision = precision_of(trainer.folder / f'{stage.name}.safetensors')
        losses = [line['loss'] for line in logs[stage.name] if 'loss' in line]
        tenth = max(len(losses) // 10, 1)
        minutes = sum(line.get('seconds', 0) for line in logs[stage.name]) / 60
        rows.append(
            (
                stage.name,
                str(len(losses)),
                str(stage.sampling.batch),
                precision.computes_in if precision else stage.fit.precision,
                f'{minutes:.1f}',
                *(f'{np.mean(part):.4g}' if part else '?' for part in (losses[:tenth], losses[-tenth:])),
            )
        )
    lines += [*_table(columns, rows), '', 'Losses are means over the first and the last tenth of the steps.']
    for name, log in logs.items():
        scores = last_scores(log)
        if scores:
            kind = (inspect.getdoc(stage_class(name)) or '').partition('\n')[0]
            lines += ['', f'## Scores of {name} on what was kept aside', '', *([kind, ''] if kind else [])]
            lines += _scores(scores)
    target.mkdir(parents=True, exist_ok=True)
    try:
        from vss_ros.training.curves import draw_curves

        write_file(target / 'curves.png', draw_curves(logs))
        lines += ['', '![Losses and scores](curves.png)']
    except MissingLibraryError as error:
        lines += ['', f'No curves: {error}.']
    write_file(target / 'recipe.yaml', recipe.text)
    write_file(target / 'report.md', '\n'.join(lines) + '\n')


def copy_report(folder: Path, target: Path) -> None:
    """Copy what `write_report` wrote to another folder."""
    for name in ('report.md', 'curves.png', 'recipe.yaml'):
        if (folder / name).is_file():
            write_file(target / name, (folder / name).read_bytes())


def write_card(trainer: Trainer, folder: Path) -> None:
    """Write the README.md of a model, if nobody has written one."""
    if (folder / 'README.md').exists():
        return
    model, recipe = load_model(folder), trainer.recipe
    counts = {name: sum(p.numel() for p in net.parameters()) for name, net in trainer.method.named_children()}
    networks = ', '.join(f'{name} {count / 1e6:.2f}' for name, count in counts.items())
    lines = [
        f'# {model.name}',
        '',
        f'{model.method} for the {len(model.classes)} classes of {recipe.classes} at '
        f'{model.image_size[1]}x{model.image_size[0]}. Million parameters: {networks}.',
        '',
        # No scores: the card stays when the model is trained anew, the report does not.
        f'Trained with `vss train {recipe.name}`; see [report.md](report.md) and [recipe.yaml](recipe.yaml).',
        'The scores there are on images close to what it learnt from; `vss evaluate` judges it on others.',
        'Check the licence of the training data before you use it in a product.',
    ]
    write_file(folder / 'README.md', '\n'.join(lines) + '\n')


def _facts(trainer: Trainer, device: torch.device, processes: Processes) -> dict[str, str]:
    """What the training was made of."""
    recipe = trainer.recipe
    return {
        'Recipe': f'{recipe.name} (recipe.yaml), {recipe.method} with {dict(recipe.options)}',
        **{f'Started from: {name}': model for name, model in trainer.origins['start'].items()},
        **{f'Teacher of {stage}': models for stage, models in trainer.origins['teachers'].items()},
        **{f'Data: {name}': what for name, what in trainer.origins['data'].items()},
        'Seed': str(recipe.seed),
        'vss_ros': f'{version()}, {_commit() or "no git commit"}',
        'Libraries': f'Python {platform.python_version()}, PyTorch {torch.__version__}, '
        f'NumPy {np.__version__}, OpenCV {cv2.__version__}',
        'Machine': f'{_machine(device)}; {processes.count} process{"es" * (processes.count > 1)}, '
        f'{torch.get_num_threads()} CPU threads each',
    }


def _scores(scores: dict[str, float]) -> list[str]:
    """A row for each score, with a column for each distance where it has distances; all in per cent."""
    distances = by_distance(scores)
    columns = sorted({distance for row in distances.values() for distance in row})
    rows = [
        (name, *(f'{row[d]:.1f}' if d in row else '' for d in columns)) for name, row in distances.items()
    ]
    of_distance = {f'{name}_{d}' for name, row in distances.items() for d in row}
    others = [(name, f'{value:.1f}') for name, value in scores.items() if name not in of_distance]
    lines = _table(('frames after the key frame, %', *map(str, columns)), rows) if rows else []
    return [*lines, *([''] if rows and others else []), *(_table(('score', '%'), others) if others else [])]


def _table(columns: tuple[str, ...], rows: Any) -> list[str]:
    lines = [columns, ('---',) * len(columns), *rows]
    return [f'| {" | ".join(line)} |' for line in lines]


def _machine(device: torch.device) -> str:
    if device.type == 'cuda':
        return torch.cuda.get_device_name(device)
    return f'{processor_name()}, {usable_cores()} cores'


def _commit() -> str:
    """The git commit of the checkout this code runs from; nothing where it is installed."""
    checkout = Path(__file__).resolve().parents[2]
    if not (checkout / '.git').exists():
        return ''

    def git(*words: str) -> str:
        command = ['git', '-C', str(checkout), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        changed = git('status', '--porcelain', '--untracked-files=no')
        return f'commit {git("rev-parse", "HEAD")[:12]}{" with changes" if changed else ""}'
    except (OSError, subprocess.SubprocessError):
        return ''
