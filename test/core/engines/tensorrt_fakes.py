"""TensorRT without a GPU: its names, one way or the other, and mocks that run graphs in ONNX Runtime."""

from __future__ import annotations

import ctypes
import enum
import importlib
import re
import subprocess
import sys
import types
from pathlib import Path
from unittest import mock

import numpy as np

# Every name we use. The table says for each version which of them it has, and what they take.
USED = {
    'Builder': ['__init__', 'create_network', 'create_builder_config', 'build_serialized_network'],
    'NetworkDefinitionCreationFlag': ['STRONGLY_TYPED'],
    'INetworkDefinition': [],
    'OnnxParser': ['__init__', 'parse', 'num_errors', 'get_error'],
    'IBuilderConfig': [
        'set_memory_pool_limit',
        'builder_optimization_level',
        'max_aux_streams',
        'progress_monitor',
        'create_timing_cache',
        'set_timing_cache',
        'get_timing_cache',
    ],
    'ITimingCache': ['serialize'],
    'MemoryPoolType': ['WORKSPACE'],
    'ILogger': ['__init__', 'log', 'INTERNAL_ERROR', 'ERROR', 'WARNING', 'INFO'],
    'IProgressMonitor': ['__init__', 'phase_start', 'step_complete', 'phase_finish'],
    'Runtime': ['__init__', 'deserialize_cuda_engine', 'engine_host_code_allowed'],
    'ICudaEngine': [
        'num_io_tensors',
        'get_tensor_name',
        'get_tensor_mode',
        'get_tensor_shape',
        'get_tensor_dtype',
        'create_execution_context',
    ],
    'IExecutionContext': ['set_tensor_address', 'execute_async_v3'],
    'TensorIOMode': ['INPUT', 'OUTPUT'],
    'DataType': ['FLOAT', 'HALF', 'INT32', 'INT64', 'UINT8'],
}
ENUMS = ('NetworkDefinitionCreationFlag', 'MemoryPoolType', 'TensorIOMode', 'DataType')


def load_bindings(folder: Path, stubs: Path):
    """Imports the bindings of a wheel over libraries made for them. Needs a C compiler and binutils."""
    extension = next(folder.glob('tensorrt_bindings/tensorrt*.so'))
    undefined = _output('nm', '-D', '--undefined-only', str(extension))
    names = [line.split()[-1] for line in undefined.splitlines() if '@' not in line]
    names = [name for name in names if re.match(r'create|get|initLib', name)]
    wanted = re.findall(r'\(NEEDED\).*\[(libnv\S+)\]', _output('readelf', '-d', str(extension)))
    source = stubs / 'stubs.c'
    source.write_text('\n'.join(f'void *{name}(void) {{ return 0; }}' for name in names))
    for library in wanted:
        path = stubs / library
        _output('cc', '-shared', '-fPIC', f'-Wl,-soname,{library}', '-o', str(path), str(source))
        ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)
    sys.path.insert(0, str(folder))
    return importlib.import_module('tensorrt_bindings')


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def describe(trt) -> dict:
    """The part of the table for a version: what of USED it has, and what each takes."""
    return {
        name: {member: kind for member in members if (kind := _kind(trt, name, member)) is not None}
        for name, members in USED.items()
        if hasattr(trt, name)
    }


def _kind(trt, name: str, member: str):
    owner = getattr(trt, name)
    if not hasattr(owner, member):
        return None
    found = getattr(owner, member)
    if isinstance(found, property):
        return 'property'
    if callable(found):
        return _overloads(found)
    return int(found)


def _overloads(function) -> list[str]:
    """Names of the arguments of every overload; those with a default end in `=`."""
    lines = re.findall(r'^(?:\d+\. )?\w+\(self: ([^\n]*)\) -> ', function.__doc__ or '', re.M)
    calls = []
    for line in lines:
        arguments = re.findall(r', (\w+): [^=]*?( = |(?=, \w+: |$))', line)
        calls.append(' '.join(name + ('=' if default else '') for name, default in arguments))
    return sorted(calls)


def module_of(version: str, table: dict):
    """A module with the classes of one version of the table, and nothing else."""
    module = types.ModuleType('tensorrt')
    module.__version__ = version
    for name, members in table.items():
        if name in ENUMS:
            setattr(module, name, enum.IntEnum(name, members))
            continue
        body = {
            member: property(lambda self: None, lambda self, value: None)
            if kind == 'property'
            else kind
            if isinstance(kind, int)
            else (lambda self, *args: None)
            for member, kind in members.items()
        }
        setattr(module, name, type(name, (), body))
    return module


class Library:
    """Mocks of TensorRT's classes that run graphs in ONNX Runtime, and what was asked of them."""

    def __init__(self, trt, table: dict) -> None:
        self.trt, self.table = trt, table
        self.classes = {name: getattr(trt, name) for name in USED}  # not yet patched
        self.mocks: list[tuple[str, mock.Mock]] = []
        self.logger = None
        self.builds = 0
        self.build_error = self.run_error = self.address_error = ''
        self.parser_errors: list[str] = []
        self.load_error = ''
        self.has_room = True
        self.during_build = lambda: None  # called between two steps, where the bindings swallow exceptions
        self.spoil = False
        self.written: set[int] = set()  # addresses that outputs were written to
        self.state_reads: list[bool] = []  # whether each state input was such an address
        self.modules = ('Builder', 'OnnxParser', 'Runtime')

    def spec(self, name: str) -> mock.Mock:
        # As create_autospec, which takes seconds for classes with so many members.
        made = mock.NonCallableMagicMock(spec_set=self.classes[name])
        self.mocks.append((name, made))
        return made

    def patched(self):
        """While active, TensorRT's constructors give mocks."""
        patches = [mock.patch.object(self.trt, name, getattr(self, name)) for name in self.modules]
        return all_of(patches)

    def Builder(self, logger):
        self.logger = logger
        builder, self.config = self.spec('Builder'), self.spec('IBuilderConfig')
        cache = self.spec('ITimingCache')
        cache.serialize.return_value = b'timings'
        self.config.create_timing_cache.return_value = cache
        self.config.get_timing_cache.return_value = cache
        self.config.set_timing_cache.return_value = True
        builder.create_network.side_effect = self._network
        builder.create_builder_config.return_value = self.config
        builder.build_serialized_network.side_effect = self._build
        return builder

    def OnnxParser(self, network, logger):
        parser = self.spec('OnnxParser')
        parser.num_errors = len(self.parser_errors)
        parser.get_error.side_effect = lambda index: self.parser_errors[index]
        parser.parse.side_effect = self._parse
        return parser

    def Runtime(self, logger):
        self.logger = logger
        runtime = self.spec('Runtime')
        runtime.deserialize_cuda_engine.side_effect = self._engine
        self.runtime = runtime
        return runtime

    def _network(self, flags=0):
        self.flags = flags
        return self.spec('INetworkDefinition')

    def _parse(self, model):
        self.onnx = model
        return not self.parser_errors

    def _build(self, network, config):
        self.builds += 1
        if self.build_error:
            self.logger.log(self.trt.ILogger.ERROR, self.build_error)
            return None
        monitor = self.config.progress_monitor
        monitor.phase_start('Tactics', None, 4)
        for step in range(4):
            if not self._step(monitor, step):
                return None
        monitor.phase_finish('Tactics')
        return memoryview(b'PLAN' + self.onnx)

    def _step(self, monitor, step) -> bool:
        try:
            self.during_build()
            return monitor.step_complete('Tactics', step)
        except BaseException:
            return False

    def _engine(self, plan):
        if self.load_error or not plan.startswith(b'PLAN'):
            self.logger.log(self.trt.ILogger.ERROR, self.load_error or 'version tag does not match')
            return None
        import onnxruntime

        from vss_ros.core.engines.onnx_runtime import session_options

        session = onnxruntime.InferenceSession(
            plan[4:], session_options(1), providers=['CPUExecutionProvider']
        )
        engine = self.spec('ICudaEngine')
        entries = {entry.name: (entry, True) for entry in session.get_inputs()}
        entries |= {entry.name: (entry, False) for entry in session.get_outputs()}
        modes, types_ = self.trt.TensorIOMode, self.trt.DataType
        dtypes = {'tensor(uint8)': types_.UINT8, 'tensor(float)': types_.FLOAT}
        engine.num_io_tensors = len(entries)
        engine.get_tensor_name.side_effect = lambda index: list(entries)[index]
        engine.get_tensor_mode.side_effect = lambda name: modes.INPUT if entries[name][1] else modes.OUTPUT
        engine.get_tensor_shape.side_effect = lambda name: tuple(entries[name][0].shape)
        engine.get_tensor_dtype.side_effect = lambda name: dtypes[entries[name][0].type]
        engine.create_execution_context.side_effect = lambda: self._context(session)
        return engine

    def _context(self, session):
        if not self.has_room:
            return None
        context, addresses = self.spec('IExecutionContext'), {}

        def set_address(name, address):
            if self.address_error:
                self.logger.log(self.trt.ILogger.ERROR, self.address_error)
                return False
            addresses[name] = address
            return True

        def execute(stream):
            if self.run_error:
                self.logger.log(self.trt.ILogger.ERROR, self.run_error)
                return False
            feeds = {entry.name: _at(addresses[entry.name], entry) for entry in session.get_inputs()}
            for name in feeds:
                if name.startswith(('previous_', 'reference_')) and name != 'previous_image':
                    self.state_reads.append(addresses[name] in self.written)
            names = [entry.name for entry in session.get_outputs()]
            results = session.run(names, {name: array.copy() for name, array in feeds.items()})
            for entry, result in zip(session.get_outputs(), results, strict=True):
                spoilt = (
                    result[:, ::-1]
                    if self.spoil and result.ndim == 4 and result.dtype != np.uint8
                    else result
                )
                _at(addresses[entry.name], entry)[...] = spoilt
                self.written.add(addresses[entry.name])
            return True

        context.set_tensor_address.side_effect = set_address
        context.execute_async_v3.side_effect = execute
        return context

    def check_calls(self) -> int:
        """Every call had as many arguments as an overload of that version takes; returns how many calls."""
        count = 0
        for owner, made in self.mocks:
            for name, args, keywords in made.method_calls:
                overloads = self.table[owner][name]
                assert any(_takes(overload, len(args), set(keywords)) for overload in overloads), (
                    f'{owner}.{name} takes {overloads}, was called with {len(args)} arguments and {keywords}'
                )
                count += 1
        return count


def _takes(overload: str, count: int, keywords: set[str]) -> bool:
    names = overload.split()
    given = {name.rstrip('=') for name in names[:count]} | keywords
    needed = {name for name in names if not name.endswith('=')}
    return count <= len(names) and needed <= given <= {name.rstrip('=') for name in names}


def _at(address: int, entry) -> np.ndarray:
    """The tensor that lies at an address, to read and write."""
    dtype = np.dtype(np.uint8 if entry.type == 'tensor(uint8)' else np.float32)
    size = int(np.prod(entry.shape, dtype=int)) * dtype.itemsize
    return np.frombuffer((ctypes.c_uint8 * size).from_address(address), dtype).reshape(entry.shape)


class all_of:
    """Several patches as one."""

    def __init__(self, patches) -> None:
        self.patches = patches

    def __enter__(self):
        for patch in self.patches:
            patch.start()

    def __exit__(self, *_):
        for patch in self.patches:
            patch.stop()
