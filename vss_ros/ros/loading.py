"""Loads a model and its engine on a thread of its own, while the node goes on answering.

Building an engine can take minutes. A transition must not return before it is done, and for as long the
executor that called it can call nothing else. So the transition spins its nodes itself meanwhile, with an
executor that lives only as long: the one that called gets them back.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from threading import Thread

from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.task import Future

from vss_ros.core.engines import Engine, load_engine
from vss_ros.core.model.folder import ModelFolder, load_model
from vss_ros.core.model.warm_up import warm_up
from vss_ros.core.open_segmenter import Segmenter, make_segmenter
from vss_ros.core.settings import engine_settings_for
from vss_ros.ros.core_log import CoreLog
from vss_ros.ros.settings import Settings
from vss_ros.ros.spinning import spin
from vss_ros.ros.video_topic import check_installed

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loaded:
    """A model, an engine that has run each of its steps, and what segments a stream with them.

    Threads: made by that of `Loading`, which keeps nothing of it.
    """

    model: ModelFolder
    engine: Engine
    segmenter: Segmenter


class Loading:
    """Begins at once to load what the settings name, and says in a node's log how it goes.

    Threads: one of its own loads and hands over what is loaded; the executor's waits for that.
    """

    def __init__(self, settings: Settings, log: CoreLog) -> None:
        self._settings = settings
        self._log = log
        self._loaded: Future = Future()
        self._thread = Thread(target=self._load, name='loading')
        self._thread.start()

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()

    def wait(self, node: Node) -> Loaded:
        """What was loaded. Services, parameters and timers of the node are served meanwhile.

        An executor with one thread is blocked here, so its other nodes are served, too; one with several
        threads goes on by itself.

        To be called by a callback whose callback group is not needed for that.

        Raises:
            VssError: the model or the engine cannot be used; the message says what to do.
            KeyboardInterrupt: the process is being ended. rclpy would swallow an Exception.
        """
        if not node.context.ok():
            raise KeyboardInterrupt
        caller = node.executor
        executor = SingleThreadedExecutor(context=node.context)
        others = caller.get_nodes() if isinstance(caller, SingleThreadedExecutor) else []
        for each in {node, *others}:
            executor.add_node(each)
        try:
            spin(executor, node, self._loaded)
        except ExternalShutdownException:
            raise KeyboardInterrupt from None
        finally:
            for each in executor.get_nodes():
                if caller is None:
                    executor.remove_node(each)
                else:
                    caller.add_node(each)
            executor.shutdown()
        if not self._loaded.done():
            raise KeyboardInterrupt
        self._thread.join()
        return self._loaded.result()

    def _load(self) -> None:
        self._log.claim_thread()
        try:
            self._loaded.set_result(load(self._settings))
        except Exception as error:
            self._loaded.set_exception(error)


def load(settings: Settings) -> Loaded:
    """Loads the model and the engine, and says in the log how it goes.

    Raises:
        VssError: see `check_installed`, `load_model`, `load_engine`, `warm_up` and `make_segmenter`.
    """
    check_installed(settings.node.image_transport)
    _log.info('loading model %s', settings.node.model)
    model = load_model(settings.node.model)
    _log.info(
        'preparing engine %s (%s) for %s', settings.engine.engine, settings.engine.precision, model.path
    )
    engine = load_engine(model, engine_settings_for(settings.stream, settings.engine))
    try:
        _log.info('running each step of %s once', model.name)
        warm_up(model, engine)
        segmenter = make_segmenter(model, engine, settings.stream)  # which may prepare a second engine
    except Exception:
        engine.close()
        raise
    facts = [f'{key} {value}' for key, value in engine.describe().items() if key != 'chosen']  # logged before
    _log.info('ready: %s', ', '.join(facts))
    return Loaded(model, engine, segmenter)
