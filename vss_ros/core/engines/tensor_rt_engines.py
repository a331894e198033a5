"""The TensorRT engines of one model on this machine: from the cache, or built."""

from __future__ import annotations

import logging
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import Any

from vss_ros.core.engines import Engine
from vss_ros.core.engines.engine_cache import CachedEngine, EngineCache, EngineKey, write_private
from vss_ros.core.engines.gpu_check import driver_version
from vss_ros.core.engines.self_check import refuse_failed, self_check
from vss_ros.core.engines.tensor_rt_build import BUILD_OPTIONS, Progress, build, check_version
from vss_ros.core.engines.torch_device import CpuDevice, torch
from vss_ros.core.errors import EngineError
from vss_ros.core.model.files import GraphSpec
from vss_ros.core.model.folder import ModelFolder
from vss_ros.core.settings import EngineSettings

KEPT = 1  # engines of an older model or TensorRT that stay beside a new one, for the way back
_log = logging.getLogger(__name__)


@dataclass
class Obtained:
    """An engine of the cache, or one that could not be kept there, and whether it was built just now."""

    cached: CachedEngine | None
    is_fresh: bool


class EngineStore:
    """Finds, builds and judges the engines of a model, as `build` allows.

    Args:
        device: the GPU; building happens on the one that is current.
        progress: takes one line now and then.
    Raises:
        EngineError: the cache cannot be used.
    """

    def __init__(
        self,
        model: ModelFolder,
        settings: EngineSettings,
        device: CpuDevice,
        progress: Progress,
    ) -> None:
        self._model = model
        self._settings = settings
        self._device = device
        self._progress = progress
        self.cache = EngineCache(settings.engine_cache)

    def key(self, graph: GraphSpec) -> EngineKey:
        return EngineKey(
            model=self._model.name,
            graph=graph.name,
            size=self._model.image_size,
            precision=self._settings.precision,
            onnx_sha256=graph.sha256,
            runtime=f'tensorrt {check_version()}',
            architecture=self._device.architecture,
            gpu=self._device.name,
            platform=f'{sys.platform}-{platform.machine()}',
            options=dict(BUILD_OPTIONS),
        )

    def obtain(self, graph: GraphSpec) -> tuple[Obtained, bytes]:
        """The engine of a graph, verified, and its bytes.

        Raises:
            EngineError: there is none and it may not be built, it failed its self-check when it was new, or
                TensorRT cannot build it.
        """
        key = self.key(graph)
        if self._settings.build == 'always':
            return self.rebuild(graph)
        found = self._usable(key)
        if found:
            return found
        if self._settings.build == 'never':
            stale = self.cache.why_stale(key)
            reason = f'; the one at hand is another: {"; ".join(stale)}' if stale else ''
            raise EngineError(
                f'there is no engine of graph {graph.name!r} of model {self._model.name} in '
                f'{self.cache.folder} that can be used{reason}. Build it with: {self.build_command()}'
            )
        return self.rebuild(graph, unless_found=True)

    def rebuild(self, graph: GraphSpec, unless_found: bool = False) -> tuple[Obtained, bytes]:
        """Builds an engine and puts it into the cache; one process at a time.

        Args:
            unless_found: take what another process has built while this one waited.
        """
        key = self.key(graph)
        what = f'graph {graph.name!r} of model {self._model.name} ({self._settings.precision})'
        with self._locked(key, what):
            found = self._usable(key) if unless_found else None
            if found:
                return found
            for difference in self.cache.why_stale(key):
                self._progress(f'the engine at hand is another: {difference}')
            self._progress(f'building {what} for {self._device.name}; this takes minutes the first time')
            start = time.perf_counter()
            timing_file = self.cache.timing_cache(key.as_json())
            measured = timing_file.read_bytes() if timing_file.is_file() else b''
            with self._device.use():
                plan, measured = build(graph.read(), what, measured, self._progress)
            seconds = round(time.perf_counter() - start, 1)
            self._progress(f'built {what} in {seconds} s, {len(plan) / 1e6:.1f} MB')
            cached = None
            with self._if_it_can_be_written(what):
                facts = {
                    'build_seconds': seconds,
                    'cuda': str(torch.version.cuda),
                    'torch': torch.__version__,
                }
                cached = self.cache.store(key, plan, facts)
                # Not `prune`: what has no sidecar may be one that another process is writing just now.
                older = [entry.file for entry in self._alike(key) if entry.file != cached.file]
                for superseded in older[KEPT:]:
                    self.cache.remove(superseded)
            with self._if_it_can_be_written('what the build measured'):
                write_private(timing_file, measured)
            return Obtained(cached, is_fresh=True), plan

    def check(self, engine: Engine, obtained: Mapping[str, Obtained], again: bool = False) -> dict[str, Any]:
        """Compares new engines with ONNX Runtime, stores the results and refuses engines that are wrong.

        An engine that was compared under another driver or PyTorch is new again: it compiles nothing anew,
        but what runs it and the graphs WARPS has changed. So is one whose launches are now replayed, or no
        longer.

        Args:
            again: check engines that have passed before, too.
        Returns:
            the result for each graph, see `self_check`.
        Raises:
            EngineError: a graph is beyond tolerance, now or when it was new.
        """
        what = f'TensorRT {check_version()} ({self._settings.precision}) on {self._device.name}'
        under = {
            'driver': driver_version(),
            'torch': str(torch.__version__),
            'cuda_graphs': self._settings.cuda_graphs,
        }
        known = {n: (item.cached and item.cached.self_check) or {} for n, item in obtained.items()}
        if again or any(not under.items() <= result.items() for result in known.values()):
            from vss_ros.core.engines.onnx_runtime import OnnxRuntimeEngine

            self._progress('comparing with ONNX Runtime')
            on_cpu = EngineSettings('onnxruntime', threads=self._settings.threads)
            with closing(OnnxRuntimeEngine.load(self._model, on_cpu)) as reference:
                results = self_check(self._model, engine, reference, self._settings.precision)
            beside = {name: entry for name, entry in results.items() if name not in obtained}
            for name, item in obtained.items():
                if item.cached:
                    with self._if_it_can_be_written('the result of the self-check'):
                        result = results[name] | under | {'beside': beside}
                        self.cache.record_self_check(item.cached, result, self._on_wait(f'graph {name!r}'))
        else:
            results = {**known, **next(iter(known.values()), {}).get('beside', {})}
        refuse_failed(results, self._model, what, f'build it again with: {self.build_command()} --force')
        return results

    def build_command(self) -> str:
        """The command that builds the engines of this model."""
        words = ['vss', 'engine', 'build', str(self._model.path), '--precision', self._settings.precision]
        if self._settings.gpu_id:
            words += ['--gpu-id', str(self._settings.gpu_id)]
        if self._settings.engine_cache:
            words += ['--engine-cache', self._settings.engine_cache]
        return shlex.join(words)

    @contextmanager
    def _locked(self, key: EngineKey, what: str) -> Iterator[None]:
        """Lets one process at a time build; where there can be no lock, each builds for itself."""
        with ExitStack() as stack:
            with self._if_it_can_be_written(f'the lock of {what}'):
                stack.enter_context(self.cache.lock(key.stem, self._on_wait(what)))
            yield

    def _on_wait(self, what: str) -> Callable[[], None]:
        return lambda: self._progress(f'another process is building {what}; waiting')

    @contextmanager
    def _if_it_can_be_written(self, what: str) -> Iterator[None]:
        """A cache that is full or read-only costs the next start its time, not this one its engine."""
        try:
            yield
        except OSError as error:
            _log.warning('%s cannot be kept in %s: %s', what, self.cache.folder, error.strerror)

    def _usable(self, key: EngineKey) -> tuple[Obtained, bytes] | None:
        """The engine of the key with its bytes; None, with the reason told, if it cannot be used."""
        cached = self.cache.find(key)
        if cached is None:
            return None
        try:
            return Obtained(cached, is_fresh=False), self.cache.read(cached)
        except EngineError as error:
            self._progress(f'{error}; not used')
            return None

    def _alike(self, key: EngineKey) -> list[CachedEngine]:
        """Engines for the same graph on the same GPU, newest first."""
        wanted = key.as_json()
        same = ('architecture', 'gpu', 'platform')
        return [
            e for e in self.cache.entries(key.slot) if all(e.key.get(name) == wanted[name] for name in same)
        ]
