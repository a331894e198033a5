"""Makes what segments a stream: one segmenter, or one for each region of its images."""

from __future__ import annotations

from pathlib import Path

from vss_ros.core.engines import Engine, load_engine
from vss_ros.core.model.folder import ModelFolder, load_model
from vss_ros.core.model.warm_up import warm_up
from vss_ros.core.settings import EngineSettings, StreamSettings, engine_settings_for
from vss_ros.core.stream.regions import RegionSegmenter
from vss_ros.core.stream.segmenter import VideoSegmenter

Segmenter = VideoSegmenter | RegionSegmenter


def make_segmenter(model: ModelFolder, engine: Engine, settings: StreamSettings) -> Segmenter:
    """A segmenter for one stream, of whole images or of their regions, as the settings say.

    Raises:
        ModelError, EngineError: see `VideoSegmenter` and `RegionSegmenter`.
    """
    segmenters = [VideoSegmenter(model, engine, settings) for _ in range(settings.region_count)]
    return segmenters[0] if len(segmenters) == 1 else RegionSegmenter(segmenters)


def open_segmenter(
    model: str | Path,
    engine: EngineSettings | None = None,
    stream: StreamSettings | None = None,
) -> Segmenter:
    """Loads a model by name or path, an engine for it, which is warmed up, and makes a segmenter.

    The segmenter closes the engine, at the end of a `with` or in `close`. More streams share both with it:
    `make_segmenter(segmenter.model, segmenter.engine, StreamSettings())`.

    Raises:
        ModelError, EngineError, MissingLibraryError, SettingsError: see `load_model`, `load_engine` and
            `warm_up`.
    """
    stream = stream or StreamSettings()
    folder = load_model(model)
    loaded = load_engine(folder, engine_settings_for(stream, engine or EngineSettings()))
    try:
        warm_up(folder, loaded)
        segmenter = make_segmenter(folder, loaded, stream)
    except BaseException:
        loaded.close()
        raise
    segmenter.closes_engine = True
    return segmenter
