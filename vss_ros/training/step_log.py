"""What a training writes down at every step: JSON lines, and TensorBoard's files where it is installed."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

from vss_ros.core.errors import SettingsError, is_missing, writing
from vss_ros.core.files.drafts import write_file

_log = logging.getLogger(__name__)
BY_DISTANCE = re.compile(r'([a-z_]+)_(\d+)')


class StepLog:
    """One JSON object a line. Lines of steps that a resumed run repeats are dropped.

    Args:
        folder: receives `<name>.jsonl` and `tensorboard/<name>/`.
        first: the first step that will be written; 0 starts over.

    Attributes:
        is_scored: whether the step before that was validated.
    """

    def __init__(self, folder: Path, name: str, first: int) -> None:
        self._path = folder / f'{name}.jsonl'
        folder.mkdir(parents=True, exist_ok=True)
        kept = [line for line in read_log(self._path) if line['step'] < first] if first else []
        self.is_scored = any(line['step'] == first - 1 and 'loss' not in line for line in kept)
        write_file(self._path, ''.join(f'{json.dumps(line)}\n' for line in kept))
        with writing(folder):
            self._board = _board(folder / 'tensorboard' / name, first)

    def write(self, step: int, values: dict[str, float]) -> None:
        with writing(self._path.parent):
            with self._path.open('a') as file:
                file.write(json.dumps({'step': step, **values}) + '\n')
            if self._board is not None:
                for name, value in values.items():
                    self._board.add_scalar(name, value, step)
                if 'loss' not in values:  # a validation: seldom enough
                    self._board.flush()

    def close(self) -> None:
        if self._board is not None:
            with writing(self._path.parent):
                self._board.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log, up to one that a crash cut off; none if there is no log.

    Raises:
        SettingsError: a line is whole and none of a log.
    """
    lines: list[dict[str, Any]] = []
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            break
        if not _is_entry(entry):
            raise SettingsError(f'{path} is damaged in line {len(lines) + 1}; remove it, or that line')
        lines.append(entry)
    return lines


def _is_entry(entry: Any) -> bool:
    """Whether it is a step with numbers."""
    return (
        isinstance(entry, dict)
        and isinstance(entry.get('step'), int)
        and all(isinstance(value, int | float) for value in entry.values())
    )


def last_scores(log: list[dict[str, Any]]) -> dict[str, float]:
    """Those of the last validation; none if there was none."""
    found = [line for line in log if 'loss' not in line]
    return {name: value for name, value in found[-1].items() if name != 'step'} if found else {}


def by_distance(scores: dict[str, float]) -> dict[str, dict[int, float]]:
    """Scores such as `corrected_5` as name -> frames after the key frame -> score."""
    found: dict[str, dict[int, float]] = {}
    for name, value in scores.items():
        if (match := BY_DISTANCE.fullmatch(name)) and match[1] != 'iou':  # iou_<class> is no distance
            found.setdefault(match[1], {})[int(match[2])] = value
    return found


def _board(folder: Path, first: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        if not is_missing('tensorboard', error):
            _log.warning('TensorBoard cannot be loaded and gets nothing: %s', error)
        return None
    return SummaryWriter(str(folder), purge_step=first)
