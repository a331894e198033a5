"""From a recipe to a model: runs the stages on the data, keeps the weights."""

from __future__ import annotations

import copy
import fcntl
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml

from vss_ros.core.errors import SettingsError
from vss_ros.core.files.drafts import write_file
from vss_ros.core.files.strict_yaml import load_strictly
from vss_ros.methods import build_method
from vss_ros.methods.method import Method
from vss_ros.training import checkpoint
from vss_ros.training.gather import Gathered
from vss_ros.training.loop import Stage, fit
from vss_ros.training.origins import check_classes, origins_of
from vss_ros.training.processes import ALONE, Processes
from vss_ros.training.recipe import Recipe, StageRecipe
from vss_ros.training.stages import check_stage, stage_class
from vss_ros.training.start import start_from
from vss_ros.training.step_log import last_scores, read_log

WEIGHTS_FILE = 'weights.safetensors'
RECIPE_FILE, ORIGINS_FILE = 'recipe.yaml', 'origins.yaml'
Report = Callable[[str, int, dict[str, float]], None]

log = logging.getLogger(__name__)


class Trainer:
    """Trains the method of a recipe, stage by stage.

    Args:
        data: where each name of `recipe.data` lies: a folder with images/ and labels/, or a video.
        folder: receives checkpoints, logs and at last `weights.safetensors`.
    Raises:
        SettingsError: data is missing, or a stage trains a network that the method does not have.
        SourceError: data cannot be read.
        ModelError: a network cannot start from the model named.
    """

    def __init__(self, recipe: Recipe, data: Mapping[str, Path], folder: Path) -> None:
        self.recipe, self.folder = recipe, folder
        self.data = Gathered(recipe, data, folder.parent / 'streets')
        torch.manual_seed(recipe.seed)  # the fresh weights
        self.method: Method = build_method(recipe.method, self.data.classes, dict(recipe.options))
        for stage in recipe.stages:
            wanted = stage_class(stage.name).method_class
            if not isinstance(self.method, wanted):
                raise SettingsError(
                    f'the stage {stage.name} trains {wanted.__name__}, not {recipe.method}; choose stages of '
                    'that method'
                )
        start_from(self.method, recipe.start)
        self.scores: dict[str, float] = {}  # of the last validation of each stage
        self.origins: dict[str, Any] = {}  # see `origins_of`; as they are when the training runs

    def run(self, device: torch.device, resume: bool, report: Report, processes: Processes = ALONE) -> Path:
        """Train every stage and write the weights; returns their path.

        Raises:
            SettingsError: the folder holds checkpoints, and `resume` was not asked for, or another training
                writes to it, or what it holds is damaged, or a stage cannot be trained.
            SourceError, ModelError: its data or its teacher cannot be read.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with _only_training_in(self.folder) if processes.first else nullcontext():
            if not resume and (kept := sorted(self.folder.glob('*.safetensors'))):
                raise SettingsError(
                    f'{kept[0]} is of a run before; go on from it with --resume, or remove {self.folder}, '
                    'or choose another folder with --runs'
                )
            return self._run(device, resume, report, processes)

    def _run(self, device: torch.device, resume: bool, report: Report, processes: Processes) -> Path:
        self._check_stages(processes)
        if processes.first:
            self.origins = origins_of(self.recipe, self.data)
            if resume:
                self._compare()
        self.method.to(device)
        for stage_recipe in self.recipe.stages:
            if processes.first:
                log.info('stage %s, %d steps', stage_recipe.name, stage_recipe.fit.steps)
            stage = self._stage(stage_recipe)
            tell = partial(report, stage.name)
            try:
                fit(
                    stage,
                    stage_recipe.fit,
                    self.folder,
                    device,
                    resume,
                    tell,
                    processes,
                    self.recipe.seed,
                    self._write_origins if processes.first else lambda: None,
                )
            except torch.cuda.OutOfMemoryError as error:
                raise SettingsError(
                    f'{stage.name} does not fit into the memory of {device}; lower its batch '
                    f'({stage.size}) or set a smaller crop, and go on with --resume: {error}'
                ) from error
            # From the log, for the stage may have been finished before this run resumed.
            scores = last_scores(read_log(self.folder / f'{stage.name}.jsonl'))
            self.scores |= {f'{stage.name}_{score}': round(value, 2) for score, value in scores.items()}
        path = self.folder / WEIGHTS_FILE
        if processes.first:
            self._write_origins()
            checkpoint.write_tensors(path, self.method.eval().state_dict(), {'recipe': self.recipe.name})
        return path

    def _write_origins(self) -> None:
        """Keep what the checkpoints are of, once it is sure that they can be resumed from."""
        write_file(self.folder / RECIPE_FILE, self.recipe.text)
        write_file(self.folder / ORIGINS_FILE, self._origins_text)

    @property
    def _origins_text(self) -> str:
        return yaml.safe_dump(self.origins, sort_keys=False, allow_unicode=True, width=10**6)

    def _compare(self) -> None:
        """Say where going on is not what an unbroken run would have done.

        Raises:
            SettingsError: the classes are others, or what was kept of the run before cannot be read.
        """
        for what, name, text in (
            ('the recipe', RECIPE_FILE, self.recipe.text),
            ('what it is made of', ORIGINS_FILE, self._origins_text),
        ):
            kept = self.folder / name
            if not kept.exists():
                if name == ORIGINS_FILE and any(self.folder.glob('*.safetensors')):
                    log.warning(
                        '%s is of an earlier version, which drew its clips otherwise: from here on they are '
                        'others, and so are those that scores are of',
                        self.folder,
                    )
                continue
            try:
                before = load_strictly(kept.read_text())
            except (yaml.YAMLError, UnicodeDecodeError) as error:
                reason = ' '.join(str(error).split())
                raise SettingsError(
                    f'{kept} cannot be read: {reason}; remove {kept} to go on without comparing'
                ) from error
            if name == ORIGINS_FILE:
                check_classes(before, self.origins)
            if changes := differences(before, load_strictly(text)):
                log.warning('%s is not that of the run before: %s', what, ', '.join(changes))
        self._warn_of_mixtures()

    def _warn_of_mixtures(self) -> None:
        """Say which stages were trained behind one that now learns on."""
        learns_on = ''
        for stage in self.recipe.stages:
            path = self.folder / f'{stage.name}.safetensors'
            if learns_on and path.exists():
                log.warning(
                    '%s was trained behind %s as it was before; remove it to train it anew', path, learns_on
                )
            elif checkpoint.steps_taken(path) < stage.fit.steps:
                learns_on = learns_on or stage.name

    def _check_stages(self, processes: Processes) -> None:
        """Raises what any stage would at its beginning, before the first one is trained."""
        method = copy.deepcopy(self.method)
        for recipe in self.recipe.stages:
            try:
                processes.part(recipe.sampling.batch)
            except SettingsError as error:
                raise SettingsError(f'{recipe.name}: {error}') from error
            check_stage(method, self.data, recipe)

    def _stage(self, recipe: StageRecipe) -> Stage:
        torch.manual_seed(self.recipe.seed)  # what a stage begins anew, also when the one before was resumed
        return stage_class(recipe.name).create(self.method, self.data, recipe)


@contextmanager
def _only_training_in(folder: Path) -> Iterator[None]:
    """Raises SettingsError while another training is in here."""
    with (folder / '.lock').open('w') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SettingsError(
                f'another training writes to {folder}; wait for it, or choose another folder with --runs'
            ) from error
        yield


def differences(before: Any, now: Any, where: str = '') -> list[str]:
    """Entries of nested mappings that differ, as `stages.segmenter.fit.steps`, and where their order does."""
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return [] if before == now else [where]
    prefix = f'{where}.' if where else ''
    moved = (
        [f'the order of {where or "entries"}'] if before.keys() == now.keys() and [*before] != [*now] else []
    )
    return moved + [
        entry
        for name in {**before, **now}
        for entry in differences(before.get(name), now.get(name), f'{prefix}{name}')
    ]
