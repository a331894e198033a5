"""The data of a recipe, read or drawn when a stage first asks for it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from vss_ros.core.classes import load_classes
from vss_ros.core.errors import SettingsError
from vss_ros.core.synthetic import STREET_CLASSES
from vss_ros.training.clip_sources import ClipLibrary, read_video
from vss_ros.training.clips import Clip, SceneClasses, StillDriver
from vss_ros.training.data import Joined, LabelledImages, class_frequencies, class_shares, digest, load_folder
from vss_ros.training.draws import ASIDE, generator
from vss_ros.training.labelled_video import LabelledVideo, read_layout
from vss_ros.training.propagation import ClipSource
from vss_ros.training.recipe import STREETS, Recipe
from vss_ros.training.streets import draw_streets

_log = logging.getLogger(__name__)
CLIPS_ASIDE = 16  # clips driven into the images kept aside, to judge propagated frames by


class Gathered:
    """What the stages of a recipe learn from.

    Args:
        paths: where each name of `recipe.data` lies: a folder with images/ and labels/, a video, or the root
            of a data set whose layout the recipe names.
        cache: folder for what is drawn, see `draw_streets`.
    Raises:
        SettingsError: data is missing or unknown, or does not exist.
        SourceError, once it is read: data cannot be read.
    """

    def __init__(self, recipe: Recipe, paths: Mapping[str, Path], cache: Path) -> None:
        missing, unknown = recipe.data - set(paths), set(paths) - recipe.data
        if missing or unknown:
            raise SettingsError(
                f'recipe {recipe.name} needs data {", ".join(sorted(recipe.data)) or "of no kind"}, '
                f'given {", ".join(sorted(paths)) or "none"}; use --data NAME:PATH for each'
            )
        if lost := [f'{name}:{path}' for name, path in paths.items() if not path.exists()]:
            raise SettingsError(f'{", ".join(lost)} does not exist; give the folder or video with --data')
        self._recipe, self._paths, self._cache = recipe, paths, cache
        self._drives: dict[str, Clip] = {}
        self.seed = recipe.seed
        self.class_set = load_classes(recipe.classes)
        self.classes = len(self.class_set)

    def stills(
        self, shares: Mapping[str, float], labelled: bool = True
    ) -> list[tuple[LabelledImages, float]]:
        """Images of each name, and its share; the frames of drawn streets on their own.

        Args:
            labelled: refuse videos without labels.
        """
        self._check_streets(shares)
        if labelled:
            self.check_labelled(shares)
        return [(self._stills(name), share) for name, share in shares.items()]

    def check_labelled(self, shares: Mapping[str, float]) -> None:
        """Raises SettingsError where a video without labels has a share."""
        if videos := [name for name in shares if self.is_video(name)]:
            raise SettingsError(f'this stage needs labels; {", ".join(videos)} has none')

    def is_video(self, name: str) -> bool:
        """Whether data is a video without labels."""
        return name != STREETS and not self._paths[name].is_dir()

    def images(self, shares: Mapping[str, float]) -> list[tuple[LabelledImages, float]]:
        """As `stills`, videos without labels too, but no streets."""
        return [(self._stills(name), share) for name, share in shares.items() if name != STREETS]

    def clips(
        self,
        shares: Mapping[str, float],
        recoloured: bool = True,
        following: int = 0,
        mirrored: bool = True,
    ) -> list[tuple[ClipSource, float]]:
        """Sources of clips: drives into labelled images, and what is a clip already.

        Args:
            following: frames after the labelled one, where only one is.
            mirrored: half of them, chosen at random.
        """
        self._check_streets(shares)
        kinds = recoloured, mirrored, following
        return [(self._clips(name, *kinds), share) for name, share in shares.items()]

    def clips_aside(self, frames: int, following: int = 0) -> list[Clip]:
        """Clips of labelled videos, and clips driven into the images kept aside, always the same ones."""
        videos = (
            LabelledVideo(video.places, *self._size, following=following)
            for _, video in self._videos.values()
        )
        clips = [clip for video in videos for clip in video.clips_aside(frames, CLIPS_ASIDE)]
        if not len(self.aside) or clips:
            return clips
        driver = StillDriver(self.aside, self._scene, recoloured=False)
        return [driver.clip(generator(ASIDE, self.seed, index), frames) for index in range(CLIPS_ASIDE)]

    @cached_property
    def aside(self) -> LabelledImages:
        """Labelled images that nothing learns from."""
        parts = [aside for _, aside in self._split.values()]
        return LabelledImages(
            [name for part in parts for name in part.names],
            Joined([part.images for part in parts]),
            Joined([part.labels for part in parts]),
        )

    @cached_property
    def streets(self) -> Sequence[Clip]:
        """Drawn streets, with exact labels and flow."""
        return draw_streets(self._recipe.streets, *self._size, self._cache)

    @cached_property
    def frequencies(self) -> np.ndarray:
        """Share of each class in the labelled images; without any, in streets of these classes, or alike."""
        if self._split:
            pixels = np.sum([kept.pixels for kept, _ in self._split.values()], axis=0)
            return class_shares(pixels, self.classes)
        if self._has_streets:
            return class_frequencies((label for clip in self.streets for label in clip.labels), self.classes)
        return np.full(self.classes, 1 / self.classes)

    def describe(self) -> dict[str, str]:
        """What each kind of data is, with a digest of its files, for the report of a training."""
        lines = {}
        for name, path in sorted(self._paths.items()):
            if name in self._split:
                kept, aside = self._split[name]
                files = [path / part for part in ('images', 'labels')]
                what = f'{len(kept)} labelled images, {len(aside)} more kept aside'
                if name in self._videos:  # the videos may be far larger than what is labelled of them
                    places = [place for part in self._videos[name] for place in part.places]
                    files = [label for video, n in places if (label := video.files[n].label)]
                    what = f'{self._recipe.layouts[name]}, {what}'
            else:
                files, what = [path], 'video without labels'
            lines[name] = f'{what}; sha256 of the files {digest(files)[:16]}'
        if STREETS in {share for stage in self._recipe.stages for share in stage.shares}:
            streets = self._recipe.streets
            lines[STREETS] = (
                f'{streets.clips} clips of {streets.frames} frames, drawn from seed {streets.seed}'
            )
        return lines

    @property
    def _has_streets(self) -> bool:
        """Whether streets are labelled with the classes that are learnt."""
        return self.class_set.names == load_classes(STREET_CLASSES).names

    def _check_streets(self, shares: Mapping[str, float]) -> None:
        """Raises SettingsError if drawn streets would be taken for labels of other classes."""
        if STREETS in shares and not self._has_streets:
            raise SettingsError(
                f'{STREETS} are drawn with the classes {STREET_CLASSES}, the recipe trains '
                f'{self.class_set.name}; give {STREETS} no share in stages other than flow'
            )

    def _stills(self, name: str) -> LabelledImages:
        return self._split[name][0] if name in self._split else self._library(name).stills()

    def _clips(self, name: str, recoloured: bool, mirrored: bool, following: int) -> ClipSource:
        if name in self._videos:
            video, _ = self._videos[name]
            return LabelledVideo(video.places, *self._size, recoloured, mirrored, following)
        if name in self._split:
            return StillDriver(self._split[name][0], self._scene, recoloured, mirrored)
        return self._library(name, recoloured, mirrored)

    def _library(self, name: str, recoloured: bool = True, mirrored: bool = True) -> ClipLibrary:
        clips = self.streets if name == STREETS else [self._drive(name)]
        return ClipLibrary(clips, *self._size, recoloured, mirrored)

    def _drive(self, name: str) -> Clip:
        """A video without labels, read once."""
        if name not in self._drives:
            self._drives[name] = read_video(self._paths[name], self._recipe.height)
        return self._drives[name]

    @property
    def _scene(self) -> SceneClasses:
        return self._recipe.scene or SceneClasses.of(self.class_set)

    @property
    def _size(self) -> tuple[int, int]:
        return self._recipe.height, self._recipe.width

    @cached_property
    def _videos(self) -> dict[str, tuple[LabelledVideo, LabelledVideo]]:
        """Data sets by name: what is trained on, and what is kept aside, the last of their labels."""
        videos = {}
        for name, layout in self._recipe.layouts.items():
            places = read_layout(self._paths[name], layout, self._recipe.classes)
            kept = round(len(places) * (1 - self._recipe.held_out))
            part, aside = (LabelledVideo(part, *self._size) for part in (places[:kept], places[kept:]))
            videos[name] = part, aside
        return videos

    @cached_property
    def _split(self) -> dict[str, tuple[LabelledImages, LabelledImages]]:
        """Labelled images by name: what is trained on, and what is kept aside."""
        sets = {name: (kept.stills(), aside.stills()) for name, (kept, aside) in self._videos.items()}
        for name, path in self._paths.items():
            if path.is_dir() and name not in sets:
                images = load_folder(path, *self._size, self.classes)
                sets[name] = kept, aside = images.split(self._recipe.held_out)
                _log.info('%s: %d labelled images to learn from, %d kept aside', name, len(kept), len(aside))
        if empty := [name for name, (kept, _) in sets.items() if not len(kept)]:
            raise SettingsError(
                f'held_out: {self._recipe.held_out:g} leaves no image of {empty[0]} to learn from; lower it'
            )
        if self._recipe.held_out > 0 and sets and not any(len(aside) for _, aside in sets.values()):
            _log.warning(
                'nothing is kept aside to judge the training by: %g of each drive is less than one image (a '
                'drive is what has the same name up to the last underscore); raise held_out or rename images',
                self._recipe.held_out,
            )
        return sets
