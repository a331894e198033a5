"""Data sets: what a user names becomes clips."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from vss_ros.core.classes import load_classes
from vss_ros.core.errors import SettingsError
from vss_ros.core.files.paths import user_path
from vss_ros.core.model.folder import ModelFolder
from vss_ros.core.sources.images import SUFFIXES
from vss_ros.core.sources.open import BAG_SUFFIXES, SYNTHETIC, SourceSettings, open_source
from vss_ros.core.synthetic import STREET_CLASSES
from vss_ros.evaluation.clips import Clip, SourceClip
from vss_ros.evaluation.layouts import Layout, list_layouts, load_layout

PLAIN = 'plain'


@dataclass(frozen=True)
class DataSet:
    """Clips to score on.

    Attributes:
        name: what it is called in reports.
        layout: name of the layout it was read by; `plain` for anything that `vss run` takes.
        classes: name of its class set; None if it has the model's.
        truth: what masks are compared with, in words.
        split: the part of the data set, where it has any.
    """

    name: str
    layout: str
    classes: str | None
    clips: list[Clip]
    truth: str = 'labels'
    split: str = ''


def open_data(
    specs: list[str],
    layout: str | None = None,
    split: str | None = None,
    settings: SourceSettings | None = None,
    labelled: bool = False,
) -> DataSet:
    """Finds the clips of what the user names.

    Args:
        specs: folders of one layout, or sources as `vss run` takes them.
        layout: name of a layout or its YAML file; `plain` for sources; None finds out.
        split: of a data set; None takes the layout's own.
        settings: of sources. `labels` for a bag or video is a folder of PNGs named by stamp.
        labelled: whether labels that lie beside images are what it is about, so that they must be some.

    Raises:
        SettingsError, SourceError: there is nothing to score on; the message says why.
    """
    settings = settings or SourceSettings()
    known = None if layout == PLAIN else _layout(specs, layout, settings)
    if known is not None:
        roots = [user_path(spec) for spec in specs]
        clips: list[Clip] = [clip for root in roots for clip in known.clips(root, split)]
        part = split or known.split
        name = ', '.join(root.resolve().name for root in roots)
        return DataSet(f'{name} {part}'.strip(), known.title, known.classes, clips, split=part)
    if split is not None:
        raise SettingsError(f'{", ".join(specs)} has no splits; leave --split out or name a --layout')
    classes = STREET_CLASSES if any(SYNTHETIC.fullmatch(spec) for spec in specs) else None
    sources = [_source_clip(spec, _with_labels(spec, settings) if labelled else settings) for spec in specs]
    return DataSet(', '.join(specs), PLAIN, classes, [*sources])


def check_classes(data: DataSet, model: ModelFolder) -> None:
    """Raises SettingsError where the data are labelled with other classes than those of the model."""
    if data.classes is not None and load_classes(data.classes).names != model.classes.names:
        raise SettingsError(
            f'{data.name} is labelled with {data.classes}, {model.name} knows {model.classes.name}; '
            'choose a model for these classes, or write a layout that maps the labels'
        )


def _layout(specs: list[str], name: str | None, settings: SourceSettings) -> Layout | None:
    """The layout that was named, or the one that every folder shows.

    Raises:
        SettingsError: only some of them show it, or there are settings of a source, which has no layout.
    """
    if name is not None:
        if settings != SourceSettings():
            raise SettingsError(
                f'layout {name} says where labels lie and how fast images follow; leave --rate, --labels, '
                '--topic and --mask-topic out, or use --layout plain'
            )
        return load_layout(name)
    shown = [_shown_by(spec) for spec in specs]
    first = next(filter(None, shown), None)
    if first is None:
        return None
    spec = specs[shown.index(first)]
    if settings != SourceSettings():
        raise SettingsError(
            f'{spec} is a data set of layout {first.title}; leave --rate, --labels, --topic and --mask-topic '
            f'out, or add --layout {PLAIN} to read all of its images as one clip'
        )
    if other := [spec for spec, layout in zip(specs, shown, strict=True) if layout != first]:
        raise SettingsError(
            f'{spec} is a data set of layout {first.title}, {other[0]} is not; score them one by one, or '
            f'add --layout {PLAIN} to read all images of each as one clip'
        )
    return first


def _shown_by(spec: str) -> Layout | None:
    root = user_path(spec)
    layouts = map(load_layout, list_layouts()) if root.is_dir() else ()
    return next((layout for layout in layouts if layout.fits(root)), None)


def _with_labels(spec: str, settings: SourceSettings) -> SourceSettings:
    path = user_path(spec)
    beside = (path / 'images').is_dir() and (path / 'labels').is_dir()
    return replace(settings, labels=path / 'labels') if beside and settings.labels is None else settings


def _source_clip(spec: str, settings: SourceSettings) -> SourceClip:
    path = user_path(spec)
    is_recorded = path.suffix in BAG_SUFFIXES or (path / 'metadata.yaml').is_file() or path.is_file()
    is_recorded &= path.suffix.lower() not in SUFFIXES  # one image, whose label has its name
    if settings.labels is not None and is_recorded:
        rest = replace(settings, labels=None)
        return SourceClip(spec, partial(open_source, spec, rest), settings.labels)
    return SourceClip(spec, partial(open_source, spec, settings))
