"""Opens the sink that an output's name asks for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from vss_ros.core.classes import ClassSet
from vss_ros.core.errors import SettingsError
from vss_ros.core.paths import user_path
from vss_ros.core.sinks import FileSink
from vss_ros.core.sources.images import SUFFIXES

BAG_PREFIX = 'bag:'
FILES = ('.mcap', '.mp4', '.mkv', '.json')
KINDS = (
    'NAME.mp4 or NAME.mkv (overlay video), FOLDER/ (mask PNGs), NAME.mcap (bag as one file), '
    'bag:FOLDER (rosbag2 folder), NAME.json (scores)'
)


def is_bag(spec: str) -> bool:
    """Whether an output's name asks for a bag."""
    return spec.startswith(BAG_PREFIX) or spec.endswith('.mcap')


def is_video(spec: str) -> bool:
    """Whether an output's name asks for an overlay video."""
    return not is_bag(spec) and spec.endswith(('.mp4', '.mkv'))


def open_sink(
    spec: str, classes: ClassSet, *, overwrite: bool = False, alpha: float = 0.5, images: bool = False
) -> FileSink:
    """Opens a sink by the name of its output; the caller closes or discards it.

    Args:
        spec: a name of one of the KINDS. A folder is known by a slash at its end, or because it exists.
        overwrite: whether an output that exists may be replaced.
        alpha: of overlay videos, 0..1.
        images: whether bags get a copy of the images.

    Raises:
        SettingsError: the name fits no kind, or the output exists. A folder is replaced if it holds a bag.
        MissingLibraryError: the library that writes this kind is not installed.
    """
    path = _path_of(spec)
    if not spec or (spec.startswith(BAG_PREFIX) and path.name in ('', '..')):
        raise SettingsError(f'output {spec!r} names nothing that can be written; use {KINDS}')
    if overwrite and (spec.startswith(BAG_PREFIX) or path.suffix in FILES):
        _check_replaceable(path, becomes_folder=is_bag(spec) and path.suffix != '.mcap')
    if is_bag(spec):
        from vss_ros.core.sinks.bag import BagSink

        return BagSink(path, classes, images, overwrite)
    if is_video(spec):
        from vss_ros.core.sinks.overlay import OverlaySink

        return OverlaySink(path, classes, alpha, overwrite)
    if path.suffix == '.json':
        from vss_ros.core.sinks.scores import ScoreSink

        return ScoreSink(classes, path, overwrite)
    if spec.endswith('/') or path.is_dir():
        from vss_ros.core.sinks.masks import MaskSink

        return MaskSink(path, overwrite)
    raise SettingsError(f'output {spec!r} is of no kind known here; use {KINDS}')


def check_apart(specs: Iterable[str], source: Path) -> None:
    """Raises SettingsError for an output that would be written into the source, or over it."""
    source = source.resolve()
    own = {source, source / 'images', source / 'labels'}
    if source.suffix.lower() in SUFFIXES:  # masks are images, too
        own.add(source.parent)
    for spec in specs:
        path = _path_of(spec).resolve()
        is_folder = spec.startswith(BAG_PREFIX) or path.is_dir()
        if path == source or (is_folder and path in own) or (is_bag(spec) and path in source.parents):
            raise SettingsError(f'output {spec} is where the source lies, {source}; name another place')


def _path_of(spec: str) -> Path:
    return user_path(spec.removeprefix(BAG_PREFIX))


def _check_replaceable(path: Path, becomes_folder: bool) -> None:
    """An output takes the place of a whole folder, which must not be one of somebody's other files."""
    if becomes_folder and path.is_file():
        raise SettingsError(f'{path} is a file, and the bag becomes a folder; choose another name')
    if path.is_dir() and not (path / 'metadata.yaml').is_file() and any(path.iterdir()):
        raise SettingsError(f'{path} is a folder that holds no bag and is not replaced; choose another name')


@contextmanager
def open_sinks(specs: Iterable[str], classes: ClassSet, **options: Any) -> Iterator[list[FileSink]]:
    """Opens several sinks as `open_sink` does: closed at the end, discarded after an error."""
    specs, sinks = list(specs), []
    paths = [_path_of(spec).resolve() for spec in specs]
    if twice := next((spec for spec, path in zip(specs, paths, strict=True) if paths.count(path) > 1), None):
        raise SettingsError(f'output {twice} is named twice; name each once')
    try:
        for spec in specs:
            sinks.append(open_sink(spec, classes, **options))
        yield sinks
        for sink in sinks:
            sink.close()
    except BaseException:
        for sink in sinks:
            with suppress(Exception):  # a full disk fails each of them; what failed first is what is told
                sink.discard()
        raise
