"""Makes a TensorRT engine of an ONNX file. One way for TensorRT 10.3 to 11.

Networks are strongly typed: the precision is what is written in the ONNX file. The builder's precision
flags are not used, they are gone in TensorRT 11. Version differences are asked of the library, not of its
version number.
"""

from __future__ import annotations

import logging
import re
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from vss_ros.core.errors import EngineError, MissingLibraryError

_JETSON = '; on a Jetson it is a system package: make the environment with --system-site-packages'
try:
    import tensorrt as trt
except ModuleNotFoundError as error:
    raise MissingLibraryError('tensorrt', 'tensorrt', _JETSON) from error
except (ImportError, OSError) as error:  # the bindings are there, libnvinfer or its like is not
    raise EngineError(
        f'TensorRT cannot be loaded: {error}; its native libraries are in the packages tensorrt-cu12-libs, '
        f'tensorrt-cu13-libs or libnvinfer{_JETSON}'
    ) from error

OLDEST = (10, 3)


def check_version() -> str:
    """The version of TensorRT.

    Raises:
        EngineError: it is too old.
    """
    version = str(trt.__version__)
    numbers = tuple(int(number) for number in re.findall(r'\d+', version)[:2])
    if numbers < OLDEST:
        oldest = '.'.join(map(str, OLDEST))
        raise EngineError(f'TensorRT {version} is too old; use {oldest} or newer')
    return version


check_version()  # at once: an older one lacks names that are used below

# What an engine depends on beside the file; part of the cache's key.
BUILD_OPTIONS: Mapping[str, Any] = {
    'workspace_mib': 2048,
    'optimization_level': 3,  # of 0 to 5; above 3 the build takes much longer
    'max_aux_streams': 0,  # one stream: its order is what makes the state safe
}
REMEMBERED = {'errors': 8, 'warnings': 2}  # messages of a thread; it may run for months
Progress = Callable[[str], None]
_log = logging.getLogger(__name__)


class Logger(trt.ILogger):
    """Passes TensorRT's messages on and remembers them, because its calls only return None.

    What TensorRT says in one thread is of no concern to what another one does meanwhile.
    """

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self._said = threading.local()

    def log(self, severity: Any, msg: str) -> None:
        message = msg.strip()
        if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
            self._kept('errors').append(message)
            _log.error('TensorRT: %s', message)
        elif severity == trt.ILogger.WARNING:
            self._kept('warnings').append(message)
            _log.warning('TensorRT: %s', message)
        else:
            _log.debug('TensorRT: %s', message)

    def take_reason(self) -> str:
        """What went wrong in this thread since the last call, in one line: the last errors and warnings."""
        said = [*self._kept('errors'), *self._kept('warnings')]
        self._said.__dict__.clear()
        return '; '.join(dict.fromkeys(said)) or 'it gave no reason'

    def _kept(self, kind: str) -> deque[str]:
        return self._said.__dict__.setdefault(kind, deque(maxlen=REMEMBERED[kind]))


# TensorRT keeps the first logger that it is given, for all that it does and as long as the process lives.
LOGGER = Logger()


class ProgressMonitor(trt.IProgressMonitor):
    """Tells how far a build is: one line for each tenth of each outer phase.

    The bindings swallow exceptions, so one of `report` waits in `error`, and the build ends.

    Attributes:
        stopped_by: the signal that ends the build after its current step; 0 for none.
    """

    def __init__(self, report: Progress) -> None:
        trt.IProgressMonitor.__init__(self)
        self._report = report
        self._steps: dict[str, int] = {}
        self.stopped_by = 0
        self.error: Exception | None = None

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        if not parent_phase:
            self._steps[phase_name] = max(num_steps, 1)

    def step_complete(self, phase_name: str, step: int) -> bool:
        steps = self._steps.get(phase_name)
        if steps and (step + 1) * 10 // steps > step * 10 // steps:
            try:
                self._report(f'{phase_name}: {(step + 1) * 100 // steps} %')
            except Exception as error:
                self.error = error
        return not self.stopped_by and self.error is None

    def phase_finish(self, phase_name: str) -> None:
        self._steps.pop(phase_name, None)

    @contextmanager
    def hears_signals(self) -> Iterator[None]:
        """Inside, Ctrl-C ends the build; afterwards it does what it would have done at once.

        An exception that a signal raised inside would be swallowed like any other.
        """

        def stop(number: int, _: Any) -> None:
            self.stopped_by = number

        before = {}
        if threading.current_thread() is threading.main_thread():  # which alone hears signals
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                if callable(signal.getsignal(number)):
                    before[number] = signal.signal(number, stop)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            if self.stopped_by:
                signal.raise_signal(self.stopped_by)


def build(onnx: bytes, what: str, timing_cache: bytes, progress: Progress) -> tuple[bytes, bytes]:
    """Builds an engine for the GPU that is current. Takes seconds to minutes.

    Args:
        onnx: the content of an ONNX file with static shapes.
        what: what to call it in messages.
        timing_cache: what an earlier build on this GPU with this version measured; makes this one fast.
        progress: takes one line now and then.
    Returns:
        the engine, and the timing cache for the next build.
    Raises:
        EngineError: there is no GPU, TensorRT refuses the file or cannot build it; with its reasons.
    """
    check_version()
    LOGGER.take_reason()  # of something else
    try:
        builder = trt.Builder(LOGGER)
    except TypeError as error:  # the bindings' way of saying that the library gave them nothing
        raise no_device() from error
    network = builder.create_network(_network_flags())
    parser = trt.OnnxParser(network, LOGGER)
    if not parser.parse(onnx):
        reasons = '; '.join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise EngineError(
            f'TensorRT {trt.__version__} refuses {what}: {reasons or LOGGER.take_reason()}; export it again'
        )
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, BUILD_OPTIONS['workspace_mib'] << 20)
    config.builder_optimization_level = BUILD_OPTIONS['optimization_level']
    config.max_aux_streams = BUILD_OPTIONS['max_aux_streams']
    monitor = ProgressMonitor(progress)
    config.progress_monitor = monitor
    cache = config.create_timing_cache(timing_cache)
    if cache is None or not config.set_timing_cache(cache, False):  # damaged, or of another version or GPU
        config.set_timing_cache(config.create_timing_cache(b''), False)
    with monitor.hears_signals():
        plan = builder.build_serialized_network(network, config)
    if monitor.error:
        raise monitor.error
    if plan is None:
        reason = LOGGER.take_reason()
        if is_out_of_memory(reason):
            raise too_little_memory(f'build {what}', reason)
        raise EngineError(f'TensorRT {trt.__version__} cannot build {what}: {reason}')
    return bytes(plan), bytes(config.get_timing_cache().serialize())


def no_device() -> EngineError:
    return EngineError(
        f'TensorRT {trt.__version__} found no usable CUDA device ({LOGGER.take_reason()}); '
        'look at nvidia-smi, and at whether the driver is new enough for this TensorRT'
    )


def _network_flags() -> int:
    """Strongly typed. TensorRT 11 knows nothing else, and may drop the flag one day."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, 'STRONGLY_TYPED', None)
    return 0 if flag is None else 1 << int(flag)


def is_out_of_memory(reason: str) -> bool:
    words = (
        r'out ?of ?memory|insufficient (gpu )?memory|insufficient workspace|allocation failure|'
        r'could not be allocated'
    )
    return re.search(words, reason, re.I) is not None


def too_little_memory(to: str, reason: str) -> EngineError:
    return EngineError(
        f'the GPU has too little free memory to {to}: {reason}; stop other programs on the GPU, or use a '
        'smaller image size or fp16'
    )
