"""What `vss evaluate` scores on: what was named, drives into stills, and who says what is right."""

from __future__ import annotations

import hashlib
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from vss_ros.cli.options import add_layout_arguments, add_source_arguments, engines_settings, source_settings
from vss_ros.cli.stills import (
    add_stills_arguments,
    check_stills_are_named,
    drives,
    in_words,
    share_of_stills,
    warn_of_fitted,
)
from vss_ros.core.errors import SettingsError
from vss_ros.core.files.paths import user_path

if TYPE_CHECKING:
    from pathlib import Path

    from vss_ros.evaluation.data import DataSet
    from vss_ros.evaluation.subjects import Subject

FRAMES_OF_STILLS = 6  # of each drive into stills that are scored at all distances


def add_data_arguments(parser: ArgumentParser) -> None:
    parser.add_argument('data', nargs='*', metavar='DATA', help='what to score on')
    parser.set_defaults(takes_more='data')
    group = parser.add_argument_group('data set')
    add_layout_arguments(group)
    group.add_argument(
        '--against',
        metavar='MODEL',
        help="no labels are needed: this model's masks, every frame computed in full, are the truth",
    )
    add_stills_arguments(parser)
    add_source_arguments(parser)


def named_data(args: Namespace) -> DataSet | None:
    """The data that were named; None for stills alone.

    Raises:
        SettingsError, SourceError: there is nothing to score on, or options exclude each other.
    """
    from vss_ros.evaluation.data import open_data

    if not args.data and args.stills is None:
        raise SettingsError('there is nothing to score on; name DATA, or labelled stills with --stills')
    check_stills_are_named(args)
    if args.clips < 1:
        raise SettingsError(f'clips is {args.clips}; use 1 or more')
    if args.against and (args.labels or args.mask_topic):
        raise SettingsError('--against takes the place of labels; leave it out, or --labels and --mask-topic')
    if not args.data:
        return None
    settings = source_settings(args)
    return open_data(args.data, args.layout, args.split, settings, labelled=not args.against)


def file_states(named: DataSet | None, args: Namespace) -> str:
    """A digest of names, sizes and times of the files to score on: another one where any has changed."""
    from vss_ros.evaluation.clips import FileClip

    paths = [user_path(name) for name in args.data] + [path for path in (args.stills, args.labels) if path]
    files = {file for path in paths for file in _files_of(path)}
    for clip in named.clips if named is not None else ():
        if isinstance(clip, FileClip):
            files.update(path for file in clip.files for path in (file.image, file.label) if path is not None)
    digest = hashlib.sha256()
    for path in sorted(files):
        state = path.stat()
        digest.update(
            f'{path.resolve()} {state.st_size} {state.st_mtime_ns}\n'.encode(errors='surrogateescape')
        )
    return digest.hexdigest()


def _files_of(path: Path) -> Iterator[Path]:
    """What a source is read from: a file, or those of a bag, or images and labels."""
    from vss_ros.core.sources.images import SUFFIXES
    from vss_ros.core.sources.open import BAG_SUFFIXES

    read = (*SUFFIXES, *BAG_SUFFIXES, '.zstd', '.yaml')  # a report may lie there, too
    if path.is_file():
        yield path
    for folder in (path, path / 'images', path / 'labels'):
        if folder.is_dir():
            yield from (file for file in folder.iterdir() if file.suffix.lower() in read and file.is_file())


def data_for(
    subjects: list[Subject], named: DataSet | None, args: Namespace
) -> tuple[DataSet, list[Subject]]:
    """The data for these subjects, drives into stills among them, and the judge in place of labels, if any.

    Raises:
        SettingsError: they are of other classes.
        SourceError, ModelError, EngineError, MissingLibraryError: stills or judge cannot be used.
    """
    from vss_ros.evaluation.data import check_classes
    from vss_ros.evaluation.reference import judged_by
    from vss_ros.evaluation.subjects import load_reference

    model = subjects[0].model
    data = _with_stills(named, args, subjects)
    if args.against:
        used = subjects[0].engine.describe()  # of several settings the first that were not left out
        settings = next(
            each
            for each in engines_settings(args)
            if each.engine in (used['engine'], 'auto') and each.precision == used['precision']
        )
        judge = load_reference(args.against, settings, model)
        return judged_by(data, judge), [judge]
    check_classes(data, model)
    return data, []


def _with_stills(data: DataSet | None, args: Namespace, subjects: list[Subject]) -> DataSet:
    """Adds drives into the stills that were named, long enough for some frames at every distance.

    They go backwards: those frames are the sharp ones, near the still, with key frames of less detail.
    """
    from vss_ros.evaluation.data import PLAIN, DataSet
    from vss_ros.evaluation.subjects import MODEL

    if args.stills is None:
        assert data is not None
        return data
    model = subjects[0].model
    for each in {subject.model.path: subject.model for subject in subjects if subject.kind == MODEL}.values():
        warn_of_fitted(each, args.stills)
    share = share_of_stills(args)
    clips = drives(args, model, share, args.distances[-1] + FRAMES_OF_STILLS, backwards=True)
    if data is None:
        return DataSet(in_words(args, share), PLAIN, None, [*clips])
    return replace(data, name=f'{data.name}, {in_words(args, share)}', clips=[*data.clips, *clips])
