"""From a recipe to a model: runs the stages on the data, keeps the weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch

from vss_ros.core.errors import SettingsError
from vss_ros.methods import build_method
from vss_ros.methods.method import Method
from vss_ros.training import checkpoint
from vss_ros.training.gather import Gathered
from vss_ros.training.loop import Stage, fit
from vss_ros.training.processes import ALONE, Processes
from vss_ros.training.recipe import Recipe, StageRecipe
from vss_ros.training.stages import stage_class
from vss_ros.training.start import start_from
from vss_ros.training.step_log import last_scores, read_log

WEIGHTS_FILE = 'weights.safetensors'
Report = Callable[[str, int, dict[str, float]], None]


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
        try:
            self.method: Method = build_method(recipe.method, self.data.classes, dict(recipe.options))
        except TypeError as error:  # a value of another kind, text for a number say
            raise SettingsError(f'options {dict(recipe.options)} cannot be used: {error}') from error
        for stage in recipe.stages:
            self._check_stage(stage.name)
        start_from(self.method, recipe.start)
        self.scores: dict[str, float] = {}  # of the last validation of each stage

    def run(self, device: torch.device, resume: bool, report: Report, processes: Processes = ALONE) -> Path:
        """Train every stage and write the weights; returns their path."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.method.to(device)
        for stage_recipe in self.recipe.stages:
            stage = self._stage(stage_recipe)
            tell = partial(report, stage.name)
            fit(stage, stage_recipe.fit, self.folder, device, resume, tell, processes, self.recipe.seed)
            # From the log, for the stage may have been finished before this run resumed.
            scores = last_scores(read_log(self.folder / f'{stage.name}.jsonl'))
            self.scores |= {f'{stage.name}_{score}': round(value, 2) for score, value in scores.items()}
        path = self.folder / WEIGHTS_FILE
        if processes.first:
            checkpoint.write_tensors(path, self.method.eval().state_dict(), {'recipe': self.recipe.name})
        return path

    def _check_stage(self, name: str) -> None:
        wanted = stage_class(name).method_class
        if not isinstance(self.method, wanted):
            raise SettingsError(
                f'the stage {name} trains {wanted.__name__}, not {self.recipe.method}; '
                'choose stages of that method'
            )

    def _stage(self, recipe: StageRecipe) -> Stage:
        return stage_class(recipe.name).create(self.method, self.data, recipe)
