"""Drives our TensorRT builder and runner without a GPU. Run in a process of its own by test_tensorrt.py.

TensorRT itself is one of two:
- the real Python bindings of one version over libraries that hold nothing but the names they want
  (`--bindings FOLDER`): names, enums, signatures and the classes we derive from are the real ones;
- classes made of the committed table of names (`--tables VERSION ...`), where no wheel can be had.
It is one file, longer than others, because it runs alone, beside bindings that nothing else may load. What
a GPU would do, mocks of exactly these classes do: a name or a number of arguments that the version
does not have is an error. They run the graphs in ONNX Runtime at the addresses they were given.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import errno
import importlib
import inspect
import json
import math
import os
import re
import signal
import sys
import tempfile
import threading
import traceback
from contextlib import contextmanager, nullcontext
from pathlib import Path
from unittest import mock

import numpy as np
from tensorrt_fakes import Library, all_of, describe, load_bindings, module_of

TABLE = Path(__file__).parent / 'tensorrt_names.json'
OUT_OF_MEMORY = (
    'Error Code 2: OutOfMemory (Requested size was 123 bytes.)',
    'Requested amount of GPU memory (123 bytes) could not be allocated.',
    '[defaultAllocator.cpp::allocate::31] Error Code 1: Cuda Runtime (out of memory)',
    'Could not find any implementation for node conv1 due to insufficient workspace.',
)


class Cases:
    """One method is one case; its name is what must be true."""

    def __init__(self, trt, table: dict, model_path: Path, is_real: bool) -> None:
        from vss_ros.core.engines import onnx_runtime
        from vss_ros.core.engines.torch_device import CpuDevice
        from vss_ros.core.model.folder import load_model
        from vss_ros.core.settings import EngineSettings
        from vss_ros.core.synthetic import StreetClip

        self.trt, self.table, self.is_real = trt, table, is_real
        self.model = load_model(model_path)
        self.module = importlib.import_module('vss_ros.core.engines.tensor_rt')
        self.module.CudaDevice = lambda index: CpuDevice()
        self.reference = onnx_runtime.OnnxRuntimeEngine.load(self.model, EngineSettings('onnxruntime'))
        self.library = Library(trt, table)
        height, width = self.model.image_size
        self.images = [frame.image for frame in StreetClip(3, 7, height, width)]
        self.cache = ''
        self.lines: list[str] = []

    def load(self, **settings):
        from vss_ros.core.settings import EngineSettings

        self.lines.clear()
        wanted = EngineSettings('tensorrt', engine_cache=self.cache, **settings)
        with self.library.patched():
            return self.module.TensorRtEngine.load(self.model, wanted, self.lines.append)

    def refusal(self, **settings) -> str:
        return refusal(lambda: self.load(**settings))

    def segment(self, engine, backwards=False):
        from vss_ros.core.frame import Frame
        from vss_ros.core.stream.segmenter import VideoSegmenter

        segmenter = VideoSegmenter(self.model, engine)
        for number, image in enumerate(self.images[::-1] if backwards else self.images):
            yield segmenter.step(Frame(image, number * 50_000_000))

    def case_a_stream_through_our_runner_equals_onnx_runtime(self):
        engine = self.load()
        for found, expected in zip(self.segment(engine), self.segment(self.reference), strict=True):
            assert (found.mask == expected.mask).mean() > 0.999
            assert found.is_key == expected.is_key

    def case_state_is_read_where_it_was_written_without_a_copy(self):
        engine = self.load()
        self.library.written.clear()
        self.library.state_reads.clear()
        results = list(self.segment(engine))
        propagated = sum(not result.is_key for result in results)
        assert propagated
        # reference_labels goes straight from one engine to the next; warp is PyTorch's
        assert self.library.state_reads == [True] * propagated

    def case_two_streams_on_one_engine_do_not_touch_each_other(self):
        engine = self.load()
        alone = [[r.mask for r in self.segment(engine, backwards)] for backwards in (False, True)]
        pairs = zip(self.segment(engine), self.segment(engine, backwards=True), strict=True)
        for number, (first, second) in enumerate(pairs):
            assert np.array_equal(first.mask, alone[0][number])
            assert np.array_equal(second.mask, alone[1][number])

    def case_key_frames_in_the_background_run_in_contexts_of_their_own(self):
        from vss_ros.core.frame import Frame
        from vss_ros.core.settings import StreamSettings
        from vss_ros.core.stream.segmenter import VideoSegmenter

        settings = StreamSettings(3, background_key_frames=True, background_delay_frames=1)
        found, expected = (
            VideoSegmenter(self.model, engine, settings) for engine in (self.load(), self.reference)
        )
        for number, image in enumerate(self.images):
            frame = Frame(image, number * 50_000_000)
            one, other = found.step(frame), expected.step(frame)
            assert (one.mask == other.mask).mean() > 0.999
            assert one.age_frames == other.age_frames
        assert found.background.handed_over == 1  # that of frame 3
        for segmenter in (found, expected):
            segmenter.close()

    def case_the_network_is_strongly_typed_and_no_precision_flag_is_set(self):
        self.load()
        assert self.library.flags == 1 << int(self.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        names = {name for name, _, _ in self.library.config.method_calls}
        assert names == {
            'set_memory_pool_limit',
            'create_timing_cache',
            'set_timing_cache',
            'get_timing_cache',
        }
        assert self.library.config.max_aux_streams == 0
        assert self.library.runtime.engine_host_code_allowed is False

    def case_the_warp_is_not_built(self):
        self.load()
        assert self.library.builds == len(self.model.graphs.keys() - set(self.module.WARPS))

    def case_one_flow_warps_as_many_tensors_as_there_are(self):
        torch, maps = self.module.torch, {'scores': (1, 5, 8, 12), 'picture': (1, 3, 8, 12)}
        specs = {name: self.tensor_spec(shape) for name, shape in maps.items()}
        flow = torch.randn(1, 2, 8, 12)
        given = {name: torch.randn(shape) for name, shape in maps.items()}
        runner = self.warp_runner({**specs, 'flow': self.tensor_spec((1, 2, 8, 12))}, specs)
        found = runner({**given, 'flow': flow})
        for name, tensor in given.items():
            assert torch.equal(found[f'warped_{name}'], self.module.warp(tensor, flow))

    def case_a_graph_that_is_called_warp_and_is_none_is_refused(self):
        scores, flow = self.tensor_spec((1, 5, 8, 12)), self.tensor_spec((1, 2, 8, 12))
        for inputs in ({'scores': scores}, {'flow': flow}, {'flow': flow, 'a': scores, 'b': scores}):
            text = refusal(lambda inputs=inputs: self.warp_runner(inputs, {'scores': scores}))
            assert 'Give a graph that does something else another name' in text

    def tensor_spec(self, shape):
        from vss_ros.core.model.files import TensorSpec

        return TensorSpec('float32', shape)

    def warp_runner(self, inputs, outputs):
        outputs = {f'warped_{name}': spec for name, spec in outputs.items()}
        spec = dataclasses.replace(self.model.graphs['warp'], inputs=inputs, outputs=outputs)
        return self.module.WarpRunner(spec)

    def case_a_second_start_builds_nothing_and_checks_nothing(self):
        self.load()
        self.library.builds = 0
        self.load()
        assert self.library.builds == 0
        assert self.lines == []

    def case_an_engine_is_compared_again_under_another_driver_or_pytorch(self):
        self.load()
        for changed in (
            mock.patch.object(self.module.torch, '__version__', '99.0'),
            mock.patch('vss_ros.core.engines.tensor_rt_engines.driver_version', return_value='999.0'),
        ):
            with changed:
                for expected in (['comparing with ONNX Runtime'], []):
                    self.load()
                    assert self.lines == expected

    def case_an_engine_is_compared_again_when_its_launches_are_replayed_or_no_longer(self):
        self.load()
        for cuda_graphs in (True, False):
            for expected in (['comparing with ONNX Runtime'], []):
                self.load(cuda_graphs=cuda_graphs)
                assert self.lines == expected

    def case_the_comparison_keeps_to_the_threads(self):
        from vss_ros.core.engines.onnx_runtime import OnnxRuntimeEngine

        with mock.patch.object(OnnxRuntimeEngine, 'load', wraps=OnnxRuntimeEngine.load) as load:
            self.load(threads=3)
        assert load.call_args.args[1].threads == 3

    def case_an_engine_says_which_version_of_ours_built_it(self):
        from vss_ros.core.files.share import version

        self.load()
        sidecars = [json.loads(file.read_text()) for file in Path(self.cache).glob('*.json')]
        assert {sidecar['facts']['vss_ros'] for sidecar in sidecars} == {version()}

    def case_a_full_disk_does_not_cost_an_engine_that_was_built(self):
        with no_space():
            assert not self.load().is_kept
        assert not list(Path(self.cache).glob('*.engine'))
        assert self.library.builds == len(self.model.graphs.keys() - set(self.module.WARPS))

    def case_an_engine_that_cannot_be_kept_fails_the_command_that_builds_it(self):
        from vss_ros.cli.main import main

        for full, code in ((True, 2), (False, 0)):
            with no_space() if full else nullcontext(), self.library.patched():
                assert main(['engine', 'build', str(self.model.path), '--engine-cache', self.cache]) == code

    def case_a_read_only_disk_does_not_cost_an_engine_that_is_compared_again(self):
        self.load()
        other = mock.patch('vss_ros.core.engines.tensor_rt_engines.driver_version', return_value='999.0')
        with no_space(), other:
            for _ in range(2):
                self.load()
                assert self.lines == ['comparing with ONNX Runtime']

    def case_a_cache_that_cannot_be_written_does_not_cost_an_engine(self):
        Path(self.cache).chmod(0o500)
        with bound_by_permissions():
            assert not self.load().is_kept
        assert self.library.builds == len(self.model.graphs.keys() - set(self.module.WARPS))
        assert not list(Path(self.cache).iterdir())

    def case_progress_is_told(self):
        self.load()
        text = '\n'.join(self.lines)
        assert "building graph 'segmenter' of model tiny (fp32)" in text
        assert 'Tactics: 50 %' in text
        assert 'comparing with ONNX Runtime' in text

    def case_the_timing_cache_is_kept_and_handed_to_the_next_build(self):
        self.load()
        self.load(build='always')
        assert self.library.config.create_timing_cache.call_args_list[0] == mock.call(b'timings')

    def case_build_always_builds_again(self):
        self.load()
        self.library.builds = 0
        self.load(build='always')
        assert self.library.builds == len(self.model.graphs.keys() - set(self.module.WARPS))

    def case_build_never_names_the_command_that_builds(self):
        text = self.refusal(build='never')
        assert "no engine of graph 'segmenter'" in text
        assert f'vss engine build {self.model.path} --precision fp32 --engine-cache' in text

    def case_a_damaged_engine_is_built_again(self):
        self.load()
        for file in Path(self.cache).glob('*.engine'):
            file.write_bytes(b'PLAN' + b'x' * 10)
        self.library.builds = 0
        self.load()
        assert self.library.builds == len(self.model.graphs.keys() - set(self.module.WARPS))
        assert any('is damaged' in line for line in self.lines)

    def case_a_damaged_engine_is_refused_if_it_may_not_be_built(self):
        self.load()
        for file in Path(self.cache).glob('*.engine'):
            file.write_bytes(b'')
        assert 'Build it with: vss engine build' in self.refusal(build='never')

    def case_an_engine_of_another_version_is_refused_by_the_field_that_differs(self):
        self.load()
        with mock.patch.object(self.trt, '__version__', '10.99.0'):
            text = self.refusal(build='never')
        assert "wanted 'tensorrt 10.99.0'" in text

    def case_an_engine_that_cannot_be_loaded_is_built_once_more_and_then_refused(self):
        self.load()
        self.library.builds, self.library.load_error = 0, 'version tag does not match'
        text = self.refusal()
        assert "cannot load the engine of graph 'segmenter': version tag does not match" in text
        assert self.library.builds == 1

    def case_an_engine_that_cannot_be_loaded_nor_built_names_the_command(self):
        self.load()
        self.library.load_error = 'version tag does not match'
        assert f'Build it with: vss engine build {self.model.path}' in self.refusal(build='never')

    def case_a_full_gpu_does_not_cost_an_engine_of_the_cache(self):
        self.load()
        self.library.builds = 0
        for text in OUT_OF_MEMORY:
            self.library.load_error = text
            assert "too little free memory to load the engine of graph 'segmenter'" in self.refusal()
        self.library.load_error, self.library.has_room = '', False
        assert "too little free memory to run graph 'segmenter'" in self.refusal()
        assert self.library.builds == 0
        self.library.has_room = True
        self.load()
        assert self.lines == []

    def case_a_refused_file_is_reported_with_every_error_of_the_parser(self):
        self.library.parser_errors = ['node 3: no such operator', 'node 5: bad axis']
        text = self.refusal()
        assert "refuses graph 'segmenter'" in text
        assert 'node 3: no such operator; node 5: bad axis' in text

    def case_too_little_memory_is_named(self):
        for text in OUT_OF_MEMORY:
            self.library.build_error = text
            assert 'too little free memory to build' in self.refusal()

    def case_a_warning_may_be_the_reason(self):
        def warn():
            self.library.logger.log(self.trt.ILogger.WARNING, 'Skipping tactic 0 due to insufficient memory')
            raise RuntimeError

        self.library.during_build = warn
        assert 'too little free memory to build' in self.refusal()

    def case_there_is_one_logger_and_it_keeps_the_threads_apart(self):
        log = importlib.import_module('vss_ros.core.engines.tensor_rt_build').LOGGER
        for _ in range(2):
            self.load(build='always')
            assert self.library.logger is log
        other = threading.Thread(target=lambda: log.log(self.trt.ILogger.ERROR, 'of another engine'))
        other.start()
        other.join()
        assert log.take_reason() == 'it gave no reason'

    def case_of_all_that_is_said_for_days_the_last_is_remembered(self):
        log = importlib.import_module('vss_ros.core.engines.tensor_rt_build').LOGGER
        for number in range(100):
            log.log(self.trt.ILogger.ERROR, f'error {number}')
            log.log(self.trt.ILogger.WARNING, f'warning {number}')
        assert sum(len(said) for said in log._said.__dict__.values()) == 10
        assert log.take_reason().endswith('error 98; error 99; warning 98; warning 99')

    def case_a_signal_ends_a_build_and_is_heard_afterwards(self):
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
        try:
            for number in numbers:
                self.library.during_build = lambda number=number: signal.raise_signal(number)
                assert isinstance(caught(self.load), KeyboardInterrupt)
                assert signal.getsignal(number) is signal.default_int_handler
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        assert not list(Path(self.cache).glob('*.engine'))

    def case_progress_that_cannot_be_told_ends_a_build_with_the_cause(self):
        self.lines = mock.Mock(append=mock.Mock(side_effect=lambda line: 1 / ('Tactics' not in line)))
        assert isinstance(caught(self.load), ZeroDivisionError)

    def case_a_graph_is_recorded_at_the_addresses_it_was_warmed_up_at(self):
        runner = self.load()._runners['segmenter']
        runner._record = True
        bound = runner._context.set_tensor_address
        kept = []

        class Recording:
            def __init__(self, call, inputs):
                kept.extend(call(inputs) for _ in range(3))
                bound.reset_mock()
                with mock.patch.object(runner, '_new_outputs', side_effect=AssertionError):
                    self.outputs = call(inputs)

            def __call__(self, inputs):
                return self.outputs

        image = self.module.torch.zeros((1, *self.model.image_size, 3), dtype=self.module.torch.uint8)
        with mock.patch.object(self.module, 'Recording', Recording):
            found = runner({'image': image})
        assert found.keys() == self.model.graphs['segmenter'].outputs.keys()
        bound.assert_not_called()

    def case_a_failed_build_is_reported_with_the_last_error(self):
        self.library.build_error = 'no tactic'
        assert "cannot build graph 'segmenter' of model tiny (fp32): no tactic" in self.refusal()

    def case_a_wrong_engine_is_refused_by_its_graph_now_and_at_the_next_start(self):
        self.library.spoil = True
        text = self.refusal()
        assert "computes graph 'segmenter' of model tiny wrongly: scores is the worst" in text
        assert f'or build it again with: vss engine build {self.model.path}' in text
        assert text.endswith(' --force')
        self.library.builds, self.library.spoil = 0, False
        assert self.refusal() == text
        assert self.library.builds == 0
        self.load(build='always')  # a new build is a new chance

    def case_an_engine_that_is_refused_leaves_nothing_open(self):
        from vss_ros.core.engines.onnx_runtime import OnnxRuntimeEngine
        from vss_ros.core.engines.torch_device import CpuDevice

        self.library.spoil = True
        freed = []
        free = self.module._free

        def freeing(device, runners):
            free(device, runners)
            freed.append(not runners)

        with (
            mock.patch.object(self.module, '_free', freeing),
            mock.patch.object(CpuDevice, 'close') as device,
            mock.patch.object(OnnxRuntimeEngine, 'close') as reference,
        ):
            assert 'wrongly' in self.refusal()
        assert freed == [True]
        device.assert_called_once_with()
        reference.assert_called_once_with()

    def case_an_engine_that_cannot_be_loaded_leaves_nothing_open(self):
        from vss_ros.core.engines.torch_device import CpuDevice

        self.library.load_error = 'version tag does not match'
        with mock.patch.object(CpuDevice, 'close') as device:
            assert "cannot load the engine of graph 'segmenter'" in self.refusal()
        device.assert_called_once_with()

    def case_a_wrong_warp_is_refused_now_and_at_the_next_start(self):
        right = self.module.warp
        with mock.patch.object(self.module, 'warp', lambda features, flow: 0.3 * right(features, flow)):
            text = self.refusal()
            assert "computes graph 'warp' of model tiny wrongly: warped is the worst" in text
            assert self.refusal() == text

    def case_a_run_that_fails_says_why(self):
        engine = self.load()
        image = np.zeros((1, *self.model.image_size, 3), np.uint8)
        for attribute, words in (
            ('run_error', "'segmenter' cannot be run in TensorRT: illegal access"),
            ('address_error', "'segmenter' refuses the address of .* in TensorRT: illegal access"),
        ):
            setattr(self.library, attribute, 'illegal access')
            engine._runners['segmenter']._bound.clear()
            text = refusal(lambda: engine.run('segmenter', {'image': image}))
            assert re.search(words, text), text
            setattr(self.library, attribute, '')

    def case_a_tensor_of_another_size_never_reaches_tensorrt(self):
        engine = self.load()
        height, width = self.model.image_size
        for wrong in (np.zeros((1, 8, 8, 3), np.uint8), np.zeros((1, height, width, 3), np.float32)):
            text = refusal(lambda wrong=wrong: engine.run('segmenter', {'image': wrong}))
            assert 'takes image as uint8' in text

    def case_a_tensor_with_gaps_is_called_that(self):
        engine = self.load()
        image = self.module.torch.zeros((1, 3, *self.model.image_size), dtype=self.module.torch.uint8)
        text = refusal(lambda: engine.run('segmenter', {'image': image.permute(0, 2, 3, 1)}))
        assert text.endswith('(1, 64, 96, 3), not contiguous')

    def case_part_of_a_tensor_is_read_where_tensorrt_takes_it(self):
        torch, runner = self.module.torch, self.load()._runners['segmenter']
        runner._device.kind = 'cuda'
        shape = (1, *self.model.image_size, 3)
        whole = torch.randint(255, (512 + math.prod(shape),), dtype=torch.uint8)
        begin = -whole.data_ptr() % 256
        found = {}
        for offset in (begin, begin + 1):
            image = whole[offset : offset + math.prod(shape)].view(shape)
            runner._context.set_tensor_address.reset_mock()
            found[offset] = runner({'image': image}), runner({'image': image.clone()})
            addresses = [call.args for call in runner._context.set_tensor_address.call_args_list]
            assert (('image', image.data_ptr()) in addresses) == (offset == begin)
        for one, other in found.values():
            assert torch.equal(one['scores'], other['scores'])

    def case_tensors_that_are_not_those_of_the_model_are_refused(self):
        graph = self.model.graphs['segmenter']
        other = dataclasses.replace(graph, outputs={**graph.outputs, 'more': graph.outputs['scores']})
        model, self.model = (
            self.model,
            dataclasses.replace(self.model, graphs={**self.model.graphs, 'segmenter': other}),
        )
        try:
            assert 'has another more than model.yaml' in self.refusal()
        finally:
            self.model = model

    def case_a_machine_without_a_gpu_is_told_so(self):
        """The real library gives the bindings nothing, and they raise TypeError."""
        none = mock.Mock(side_effect=TypeError('pybind11::init(): factory function returned nullptr'))
        self.library.modules = ()
        patches = (
            []
            if self.is_real
            else [mock.patch.object(self.trt, name, none) for name in ('Builder', 'Runtime')]
        )
        with all_of(patches):
            text = self.refusal()
        assert 'found no usable CUDA device' in text

    def case_an_old_version_is_refused(self):
        with mock.patch.object(self.trt, '__version__', '8.6.1'):
            assert 'TensorRT 8.6.1 is too old; use 10.3' in self.refusal()

    def case_a_precision_the_model_has_no_files_of_is_named_with_the_command(self):
        text = self.refusal(precision='fp16')
        assert f'vss export {self.model.path} --precision fp16' in text

    def run_all(self) -> dict[str, str]:
        """Runs every case with an empty cache and new mocks; returns '' or what went wrong, by case."""
        results = {}
        for name, _ in inspect.getmembers(self, callable):
            if not name.startswith('case_'):
                continue
            self.library, self.lines = Library(self.trt, self.table), []
            with tempfile.TemporaryDirectory() as self.cache:
                try:
                    getattr(self, name)()
                    self.library.check_calls()
                    results[name.removeprefix('case_')] = ''
                except Exception:
                    results[name.removeprefix('case_')] = traceback.format_exc()
        return results


def no_space():
    """While active, nothing can be written into the cache."""
    modules = (f'vss_ros.core.engines.{name}.write_private' for name in ('engine_cache', 'tensor_rt_engines'))
    full = OSError(errno.ENOSPC, 'No space left on device')
    return all_of([mock.patch(name, side_effect=full) for name in modules])


@contextmanager
def bound_by_permissions():
    """While active, files can be read and written as their modes say, also by root."""
    if os.getuid():
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3 of the call, for this thread
    rights = (ctypes.c_uint32 * 6)()
    assert libc.capget(header, rights) == 0
    effective = rights[0]
    rights[0] &= ~0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    assert libc.capset(header, rights) == 0
    try:
        yield
    finally:
        rights[0] = effective
        libc.capset(header, rights)


def caught(call) -> BaseException | None:
    """What a call raises, whatever that is."""
    try:
        call()
    except BaseException as error:
        return error
    return None


def refusal(call) -> str:
    """The message of the error that a call raises."""
    from vss_ros.core.errors import VssError

    try:
        call()
    except VssError as error:
        return str(error)
    raise AssertionError('it was not refused')


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument('--bindings', type=Path)
    parser.add_argument('--tables', nargs='*', default=[])
    parser.add_argument('--model', type=Path)
    args = parser.parse_args()
    reports = {}
    if args.bindings:
        with tempfile.TemporaryDirectory() as stubs:
            trt = load_bindings(args.bindings, Path(stubs))
        table = describe(trt)
        reports[trt.__version__] = {'table': table, 'cases': run_cases(trt, table, args.model, is_real=True)}
    for version in args.tables:
        table = json.loads(TABLE.read_text())[version]
        trt = module_of(version, table)
        reports[version] = {'table': table, 'cases': run_cases(trt, table, args.model, is_real=False)}
    print('\n' + json.dumps(reports))  # the last line; libraries print, too


def run_cases(trt, table: dict, model: Path | None, is_real: bool) -> dict[str, str]:
    if model is None:
        return {}
    sys.modules['tensorrt'] = trt
    for name in [name for name in sys.modules if name.startswith('vss_ros.core.engines.tensor_rt')]:
        del sys.modules[name]
    return Cases(trt, table, model, is_real).run_all()


if __name__ == '__main__':
    main()
