"""Opens the sink that an output's name asks for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import product
from pathlib import Path
from typing import Any

from vss_ros.core.classes import ClassSet
from vss_ros.core.errors import SettingsError, writing
from vss_ros.core.files.paths import user_path
from vss_ros.core.frame import Frame, Segmentation
from vss_ros.core.sinks import FileSink
from vss_ros.core.sources.images import SUFFIXES
from vss_ros.core.sources.open import holds_bag

BAG_PREFIX = 'bag:'
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


def is_scores(spec: str) -> bool:
    """Whether an output's name asks for scores."""
    return not is_bag(spec) and _path_of(spec).suffix == '.json'


def _is_whole(spec: str) -> bool:
    """Whether an output takes the place of whatever had its name; masks only come to lie in their folder."""
    return is_bag(spec) or is_video(spec) or is_scores(spec)


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
    if overwrite:
        _check_replaceable(spec)
    if is_bag(spec):
        from vss_ros.core.sinks.bag import BagSink

        return BagSink(path, classes, images, overwrite)
    if is_video(spec):
        from vss_ros.core.sinks.overlay import OverlaySink

        return OverlaySink(path, classes, alpha, overwrite)
    if is_scores(spec):
        from vss_ros.core.sinks.scores import ScoreSink

        return ScoreSink(classes, path, overwrite)
    if spec.endswith('/') or path.is_dir():
        from vss_ros.core.sinks.masks import MaskSink

        return MaskSink(path, overwrite)
    raise SettingsError(f'output {spec!r} is of no kind known here; use {KINDS}')


def check_apart(specs: Iterable[str], source: Path, labels: Path | None = None) -> None:
    """Raises SettingsError for an output that would be written into source or labels, or over them."""
    source = _real(source)
    own = {_real(source / name) for name in ('', 'images', 'labels')}
    if source.suffix.lower() in SUFFIXES:  # masks are images, too
        own.add(source.parent)
    places = [('source lies', source, own)]
    if labels is not None:
        labels = _real(labels)
        places.append(('labels lie', labels, {labels}))
    for spec, (what, place, folders) in product(specs, places):
        path = _real(_path_of(spec))
        is_over = _is_whole(spec) and any(path in folder.parents for folder in folders)
        is_into = (spec.startswith(BAG_PREFIX) or path.is_dir()) and path in folders
        is_in_bag = place in path.parents and holds_bag(place)
        if path == place or is_over or is_into or is_in_bag:
            raise SettingsError(f'output {spec} is where the {what}, {place}; name another place')


def _check_apart_from_each_other(specs: Sequence[str]) -> None:
    paths = [_real(_path_of(spec)) for spec in specs]
    for spec, path in zip(specs, paths, strict=True):
        if paths.count(path) > 1:
            raise SettingsError(f'output {spec} is named twice; name each once')
        for other, folder in zip(specs, paths, strict=True):
            if _is_whole(other) and folder in path.parents:
                raise SettingsError(f'output {spec} is in {other}, another output; name another place')


def _path_of(spec: str) -> Path:
    return user_path(spec.removeprefix(BAG_PREFIX))


def _real(path: Path) -> Path:
    """The path behind all links.

    Raises:
        SettingsError: a link leads back to itself.
    """
    try:
        return path.resolve()
    except (OSError, RuntimeError) as error:
        raise SettingsError(f'{path} cannot be followed: {error}') from error


def _check_replaceable(spec: str) -> None:
    """What an output takes the place of must not be a folder of somebody's other files."""
    if not _is_whole(spec):
        return
    path = _path_of(spec)
    if is_bag(spec) and path.suffix != '.mcap' and path.is_file():
        raise SettingsError(f'{path} is a file, and the bag becomes a folder; choose another name')
    if path.is_dir() and not holds_bag(path) and any(path.iterdir()):
        raise SettingsError(f'{path} is a folder that holds no bag and is not replaced; choose another name')


class _NamedSink:
    """A sink that names its output, as the user did, where it cannot be written."""

    def __init__(self, spec: str, sink: FileSink) -> None:
        self._spec = spec
        self._sink = sink

    def write(self, frame: Frame, segmentation: Segmentation) -> None:
        with writing(self._spec):
            self._sink.write(frame, segmentation)

    def close(self) -> None:
        with writing(self._spec):
            self._sink.close()

    def discard(self) -> None:
        self._sink.discard()


@contextmanager
def open_sinks(
    specs: Iterable[str], classes: ClassSet, *, overwrite: bool = False, **options: Any
) -> Iterator[list[FileSink]]:
    """Opens several sinks as `open_sink` does: closed at the end, discarded after an error.

    Raises:
        SettingsError: as `open_sink`, or two outputs have one name, or one lies within another.
        OutputError: one of them cannot be written; also when its sink takes a result.
    """
    specs = list(specs)
    sinks: list[FileSink] = []
    _check_apart_from_each_other(specs)
    try:
        for spec in specs:
            with writing(spec):
                sinks.append(_NamedSink(spec, open_sink(spec, classes, overwrite=overwrite, **options)))
        yield sinks
        for spec, sink in zip(specs, sinks, strict=True):
            if overwrite:
                _check_replaceable(spec)  # again: a run is long, and files may have come there meanwhile
            sink.close()
    except BaseException:
        for sink in sinks:
            with suppress(Exception):  # a full disk fails each of them; what failed first is what is told
                sink.discard()
        raise
