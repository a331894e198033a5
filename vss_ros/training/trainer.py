"""From a recipe to a model: gathers the data, runs the stages, keeps the weights."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vss_ros.core.classes import load_classes
from vss_ros.core.errors import SettingsError
from vss_ros.methods import build_method
from vss_ros.methods.evss import Evss
from vss_ros.methods.method import Method
from vss_ros.training import checkpoint
from vss_ros.training.clip_sources import ClipLibrary, draw_streets, read_video
from vss_ros.training.clips import Clip, StillDriver
from vss_ros.training.correction import ClipSource, CorrectionStage
from vss_ros.training.data import LabelledImages, class_frequencies, load_folder
from vss_ros.training.flow import FlowStage
from vss_ros.training.loop import Stage, fit
from vss_ros.training.recipe import STREETS, Recipe, StageRecipe
from vss_ros.training.segmenter import SegmenterStage

WEIGHTS_FILE = 'weights.safetensors'
CLIPS_ASIDE = 16  # clips driven into the images kept aside, to judge the correction by
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
    """

    def __init__(self, recipe: Recipe, data: Mapping[str, Path], folder: Path) -> None:
        missing, unknown = recipe.data - set(data), set(data) - recipe.data
        if missing or unknown:
            raise SettingsError(
                f'recipe {recipe.name} needs data {", ".join(sorted(recipe.data)) or "of no kind"}, '
                f'given {", ".join(sorted(data)) or "none"}; use --data NAME:PATH for each'
            )
        self.recipe, self.folder, self._paths = recipe, folder, data
        self._classes = len(load_classes(recipe.classes))
        torch.manual_seed(recipe.seed)  # the fresh weights
        self.method: Method = build_method(recipe.method, self._classes, dict(recipe.options))
        self.scores: dict[str, float] = {}  # of the last validation of each stage

    def run(self, device: torch.device, resume: bool, report: Report) -> Path:
        """Train every stage and write the weights; returns their path."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.method.to(device)
        for stage_recipe in self.recipe.stages:
            stage = self._stage(stage_recipe)

            def tell(step: int, values: dict[str, float], name: str = stage.name) -> None:
                if 'loss' not in values:
                    self.scores |= {f'{name}_{score}': round(value, 2) for score, value in values.items()}
                report(name, step, values)

            fit(stage, stage_recipe.fit, self.folder, device, resume, tell)
        path = self.folder / WEIGHTS_FILE
        checkpoint.write_tensors(path, self.method.eval().state_dict(), {'recipe': self.recipe.name})
        return path

    def _stage(self, stage: StageRecipe) -> Stage:
        network = {'segmenter': 'csrnet', 'flow': 'flownet', 'correction': 'conet'}[stage.name]
        if not hasattr(self.method, network) or not isinstance(self.method, Evss):
            raise SettingsError(
                f'{self.recipe.method} with options {dict(self.recipe.options)} has no {network}; '
                f'leave out the stage {stage.name}'
            )
        shares, sampling, seed = stage.shares, stage.sampling, self.recipe.seed
        if stage.name == 'correction':
            sources = [(self._clips(name), share) for name, share in shares.items()]
            aside = self._clips_aside(sampling.frames)
            return CorrectionStage(self.method, sources, aside, self._frequencies, sampling, seed)
        if stage.name == 'segmenter':
            videos = [name for name in shares if not self._is_labelled(name)]
            if videos:
                raise SettingsError(f'the stage segmenter needs labels; {", ".join(videos)} has none')
            stills = [(self._stills(name), share) for name, share in shares.items()]
            return SegmenterStage(self.method.csrnet, self._classes, stills, self._aside, sampling, seed)
        stills = [(self._stills(name), share) for name, share in shares.items() if name != STREETS]
        share = shares.get(STREETS, 0.0)
        return FlowStage(self.method.flownet, stills, self._streets if share else [], share, sampling, seed)

    def _is_labelled(self, name: str) -> bool:
        return name == STREETS or self._paths[name].is_dir()

    def _stills(self, name: str) -> LabelledImages:
        if name != STREETS and self._is_labelled(name):
            return self._split[name][0]
        return self._library(name).stills()

    def _clips(self, name: str) -> ClipSource:
        if name != STREETS and self._is_labelled(name):
            return StillDriver(self._split[name][0], self.recipe.scene)
        return self._library(name)

    def _library(self, name: str) -> ClipLibrary:
        clips = self._streets if name == STREETS else [read_video(self._paths[name])]
        return ClipLibrary(clips, self.recipe.height, self.recipe.width)

    def _clips_aside(self, frames: int) -> list[Clip]:
        if not len(self._aside):
            return []
        driver = StillDriver(self._aside, self.recipe.scene, recoloured=False)
        seeds = ([self.recipe.seed, 1, index] for index in range(CLIPS_ASIDE))
        return [driver.clip(np.random.default_rng(seed), frames) for seed in seeds]

    @cached_property
    def _split(self) -> dict[str, tuple[LabelledImages, LabelledImages]]:
        """Labelled folders by name: what is trained on, and what is kept aside."""
        size = self.recipe.height, self.recipe.width
        folders = {name: path for name, path in self._paths.items() if path.is_dir()}
        return {name: load_folder(path, *size).split(self.recipe.held_out) for name, path in folders.items()}

    @cached_property
    def _aside(self) -> LabelledImages:
        parts = [aside for _, aside in self._split.values()]
        return LabelledImages(
            [name for part in parts for name in part.names],
            [image for part in parts for image in part.images],
            [label for part in parts for label in part.labels],
        )

    @cached_property
    def _streets(self) -> list[Clip]:
        streets = self.recipe.streets
        log.info('drawing %d clips of synthetic streets', streets.clips)
        return draw_streets(
            streets.seed, streets.clips, streets.frames, self.recipe.height, self.recipe.width
        )

    @cached_property
    def _frequencies(self) -> np.ndarray:
        real = [label for kept, _ in self._split.values() for label in kept.labels]
        drawn: Any = real or [label for clip in self._streets for label in clip.labels]
        return class_frequencies(drawn, self._classes)
