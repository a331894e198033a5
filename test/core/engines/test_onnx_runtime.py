"""What is ONNX Runtime's alone: its providers, its threads, tensors that stay on a device."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from vss_ros.core.engines import gpu_check, load_engine, onnx_runtime, self_check
from vss_ros.core.engines.onnx_providers import PROVIDERS, check_available, check_used
from vss_ros.core.engines.onnx_runtime import nodes_by_provider
from vss_ros.core.errors import EngineError, SettingsError
from vss_ros.core.frame import Frame
from vss_ros.core.settings import EngineSettings
from vss_ros.core.stream.segmenter import VideoSegmenter

GPU_PROVIDERS = ('cuda', 'tensorrt')
AVAILABLE = onnx_runtime.onnxruntime.get_available_providers()


def segment(model, engine, images):
    segmenter = VideoSegmenter(model, engine)
    return [segmenter.step(Frame(image, n * 50_000_000)) for n, image in enumerate(images)]


@pytest.mark.parametrize('provider', GPU_PROVIDERS)
def test_a_provider_that_is_not_installed_is_refused_with_what_there_is(model, provider):
    if PROVIDERS[provider].title in AVAILABLE:
        pytest.skip('this ONNX Runtime has it')
    with pytest.raises(EngineError) as error:
        load_engine(model, EngineSettings('onnxruntime', provider=provider))
    assert PROVIDERS[provider].title in str(error.value)
    assert 'onnxruntime ' in str(error.value)  # the package, with its version
    assert 'CPUExecutionProvider' in str(error.value)
    assert 'install onnxruntime-gpu' in str(error.value)


@pytest.mark.parametrize('provider', GPU_PROVIDERS)
def test_a_session_that_fell_back_to_the_cpu_is_refused(model, provider, monkeypatch):
    """ONNX Runtime itself falls back here, as it does on a robot with a broken CUDA."""
    if PROVIDERS[provider].title in AVAILABLE:
        pytest.skip('this ONNX Runtime has it')
    monkeypatch.setattr(onnx_runtime, 'check_available', lambda *_: None)
    settings = EngineSettings('onnxruntime', provider=provider)
    title = PROVIDERS[provider].title
    with (
        pytest.raises(EngineError, match=f'with {title}: .*fallback to CPU'),
        pytest.warns(UserWarning, match=title),
    ):
        load_engine(model, settings)


def test_a_session_of_which_one_node_went_to_another_provider_is_refused(tmp_path):
    cuda, tensorrt = PROVIDERS['cuda'], PROVIDERS['tensorrt']
    check_used(cuda, ['CUDAExecutionProvider'], tmp_path)
    check_used(tensorrt, ['CUDAExecutionProvider', 'TensorrtExecutionProvider'], tmp_path)
    for used in ([], ['CUDAExecutionProvider', 'CPUExecutionProvider'], ['TensorrtExecutionProvider']):
        with pytest.raises(EngineError, match=r'ONNX Runtime would run .* with'):
            check_used(cuda, used, tmp_path)


def test_the_nodes_that_a_provider_was_given_are_counted_where_onnx_runtime_tells(model):
    session = onnx_runtime.onnxruntime.InferenceSession
    options = onnx_runtime.session_options(1)
    assert nodes_by_provider(session(str(model.graphs['warp'].file), options)) == {'CPUExecutionProvider': 1}
    options.add_session_config_entry('session.record_ep_graph_assignment_info', '1')
    recorded = session(str(model.graphs['warp'].file), options)
    if not hasattr(recorded, 'get_provider_graph_assignment_info'):
        pytest.skip('this ONNX Runtime does not tell')
    assert nodes_by_provider(recorded)['CPUExecutionProvider'] > 1


def test_a_version_without_a_pool_whose_size_can_be_set_is_too_old(monkeypatch):
    monkeypatch.setattr(onnx_runtime, '_pool_threads', None)
    monkeypatch.setattr(onnx_runtime.onnxruntime, '__version__', '1.22.1')
    monkeypatch.delattr(onnx_runtime.onnxruntime, 'set_global_thread_pool_sizes')
    with pytest.raises(EngineError, match=r'ONNX Runtime 1\.22\.1 is too old; use 1\.23 or newer'):
        onnx_runtime._shared_pool(1)


def test_tensorrt_is_not_there_without_cuda_for_what_it_leaves():
    check_available(PROVIDERS['tensorrt'], ['TensorrtExecutionProvider', 'CUDAExecutionProvider'])
    with pytest.raises(EngineError, match='no CUDAExecutionProvider'):
        check_available(PROVIDERS['tensorrt'], ['TensorrtExecutionProvider'])


@pytest.mark.parametrize('engine', ['auto', 'openvino', 'torch'])
def test_a_provider_belongs_to_onnx_runtime(engine):
    with pytest.raises(SettingsError, match='only engine onnxruntime has providers'):
        EngineSettings(engine, provider='cuda')


@pytest.mark.parametrize(('provider', 'precision'), [('cpu', 'fp16'), ('cuda', 'int8'), ('tensorrt', 'bf16')])
def test_a_precision_that_a_provider_only_pretends_to_have_is_refused(model, provider, precision):
    with pytest.raises(EngineError, match=f'provider {provider} runs .*precision is {precision}'):
        load_engine(model, EngineSettings('onnxruntime', precision, provider=provider))


@pytest.fixture
def tensorrt(tmp_path):
    return EngineSettings('onnxruntime', provider='tensorrt', engine_cache=str(tmp_path / 'cache'))


def folder_of(graph, settings):
    with onnx_runtime._cache(graph, settings) as folder:
        return folder


def test_two_files_never_share_a_folder_of_tensorrt_engines(model, tensorrt):
    folders = {folder_of(graph, tensorrt) for graph in model.graphs.values()}
    assert len(folders) == len(model.graphs)
    assert all(folder.stat().st_mode & 0o077 == 0 for folder in folders)
    other = dataclasses.replace(model.graphs['warp'], sha256='0' * 64)  # the same graph, other weights
    assert folder_of(other, tensorrt) not in folders


def test_another_gpu_or_onnx_runtime_never_takes_the_tensorrt_engines_of_one(model, tensorrt, monkeypatch):
    graph = model.graphs['warp']
    folders = {folder_of(graph, tensorrt), folder_of(graph, dataclasses.replace(tensorrt, gpu_id=1))}
    monkeypatch.setattr(onnx_runtime, 'gpu_name', lambda: 'NVIDIA_Orin')
    folders.add(folder_of(graph, tensorrt))
    monkeypatch.setattr(onnx_runtime.onnxruntime, '__version__', '99.0')
    folders.add(folder_of(graph, tensorrt))
    assert len(folders) == 4


def test_tensorrt_engines_that_changed_or_were_not_completed_are_gone_before_a_session_is_made(
    model, tensorrt, caplog
):
    names = ('a.engine', 'a.profile', 'b.engine', 'c.timing')
    with onnx_runtime._cache(model.graphs['warp'], tensorrt) as folder:
        for name in names:
            (folder / name).write_bytes(b'as it was built')
    (folder / 'a.engine').write_bytes(b'as it was BUILT')
    (folder / 'd.engine').write_bytes(b'of a process that was ended')
    with onnx_runtime._cache(model.graphs['warp'], tensorrt) as folder:
        assert sorted(file.name for file in folder.glob('[a-z].*') if file.suffix != '.sha256') == [
            'a.profile',
            'b.engine',
            'c.timing',
        ]
        (folder / 'c.timing').write_bytes(b'written again by each build')
    assert caplog.text.count('is damaged or was not completed') == 2
    with onnx_runtime._cache(model.graphs['warp'], tensorrt) as folder:
        assert (folder / 'c.timing').read_bytes() == b'written again by each build'
    assert caplog.text.count('is damaged or was not completed') == 2


def test_where_tensorrt_engines_cannot_be_kept_the_engine_is_refused_with_what_to_set(model, tensorrt):
    cache = Path(tensorrt.engine_cache)
    cache.mkdir(mode=0o700)
    (cache / 'onnxruntime').write_bytes(b'')
    with pytest.raises(EngineError, match='set engine_cache to a folder that can be written'):
        folder_of(model.graphs['warp'], tensorrt)


IDLE = """
import sys, time
from vss_ros.core.engines import load_engine
from vss_ros.core.model.folder import load_model
from vss_ros.core.model.warm_up import warm_up
from vss_ros.core.settings import EngineSettings

spinning, folder = sys.argv[1] == 'True', sys.argv[2]
model = load_model(folder)
engine = load_engine(model, EngineSettings('onnxruntime', threads=2, spinning=spinning))
used = []
for _ in range(5):
    warm_up(model, engine)
    before = time.process_time()
    time.sleep(0.1)  # in which threads that spin use a processor
    used.append(time.process_time() - before)
print(engine.describe()['spinning'], sorted(used)[2])
"""


@pytest.mark.parametrize('spinning', [False, True])
def test_threads_sleep_between_frames_unless_they_are_told_to_spin(model, spinning):
    command = [sys.executable, '-c', IDLE, str(spinning), str(model.path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    told, seconds = result.stdout.split()
    assert told == ('on' if spinning else 'off')
    assert (float(seconds) > 0.01) == spinning


def test_tensors_that_stay_on_a_device_give_what_arrays_give(model, street):
    """The way of the GPU providers, with the CPU for a device."""
    plain = load_engine(model, EngineSettings('onnxruntime'))
    bound = onnx_runtime.OnnxRuntimeEngine(plain._sessions, {}, ('cpu', 0))
    for found, expected in zip(segment(model, bound, street), segment(model, plain, street), strict=True):
        assert np.array_equal(found.mask, expected.mask)
        assert np.array_equal(found.confidence, expected.confidence)
        assert found.corrected_share == expected.corrected_share


def test_on_a_device_the_state_is_not_copied_and_the_next_frame_leaves_it_alone(model, street):
    plain = load_engine(model, EngineSettings('onnxruntime'))
    bound = onnx_runtime.OnnxRuntimeEngine(plain._sessions, {}, ('cpu', 0))
    first = bound.run('segmenter', {'image': street[0][None]})
    kept = bound.to_host(first['scores']).copy()
    second = bound.run('segmenter', {'image': street[5][None]})
    assert first['scores'].data_ptr() != second['scores'].data_ptr()
    assert np.array_equal(bound.to_host(first['scores']), kept)
    again = bound.run('segmenter', {'image': first['image']})  # what was uploaded is not uploaded again
    assert 'image' not in again
    assert np.array_equal(bound.to_host(again['scores']), kept)


@pytest.fixture
def gpu_on_paper(monkeypatch, tmp_path):
    """Settings for the provider `cuda`, with the CPU for the GPU."""
    of_graphs = onnx_runtime.OnnxRuntimeEngine.of_graphs

    def on_cpu(graphs, settings, precision):
        return of_graphs(graphs, dataclasses.replace(settings, provider='cpu'), precision)

    monkeypatch.setattr(onnx_runtime, 'check_available', lambda *_: None)
    monkeypatch.setattr(onnx_runtime.OnnxRuntimeEngine, 'of_graphs', on_cpu)
    return EngineSettings('onnxruntime', provider='cuda', engine_cache=str(tmp_path / 'cache'))


def test_a_provider_for_gpus_is_compared_with_the_cpu_once_for_each_gpu(model, gpu_on_paper, monkeypatch):
    made = []
    monkeypatch.setattr(
        gpu_check, 'self_check', lambda *words: made.append(words[-1]) or self_check.self_check(*words)
    )
    for gpu in ('Orin', 'Orin', 'H200'):
        monkeypatch.setattr(onnx_runtime, 'gpu_name', lambda gpu=gpu: gpu)
        assert load_engine(model, gpu_on_paper).describe()['self_check'] == 'passed'
    assert made == ['fp32', 'fp32']
    assert 'self_check' not in load_engine(model, EngineSettings('onnxruntime')).describe()


def test_a_provider_for_gpus_that_computes_something_else_is_refused(model, gpu_on_paper, monkeypatch):
    right = onnx_runtime.OnnxRuntimeEngine.to_host  # which is not asked of what it is compared with
    monkeypatch.setattr(onnx_runtime.OnnxRuntimeEngine, 'to_host', lambda *words: right(*words) // 2)
    with pytest.raises(EngineError, match=r'CUDAExecutionProvider \(fp32\) computes graph .* wrongly'):
        load_engine(model, gpu_on_paper)


@pytest.mark.parametrize(
    ('provider', 'loaded'), [('cpu', []), ('cuda', ['libraries']), ('tensorrt', ['libraries', 'tensorrt'])]
)
@pytest.mark.parametrize('is_installed', [False, True])  # the Python package
def test_the_libraries_of_a_gpu_are_looked_for_before_a_session_is_made(
    model, monkeypatch, provider, loaded, is_installed
):
    order = []
    monkeypatch.setattr(onnx_runtime.onnxruntime, 'preload_dlls', lambda: order.append('libraries'))

    def import_module(name):
        order.append(name)
        if not is_installed:
            raise ModuleNotFoundError(name)

    monkeypatch.setattr(onnx_runtime, 'importlib', SimpleNamespace(import_module=import_module))

    def refuse(*_):
        order.append('session')
        raise EngineError('no session')

    monkeypatch.setattr(onnx_runtime, '_session', refuse)
    with pytest.raises(EngineError, match='no session'):
        onnx_runtime.OnnxRuntimeEngine.of_graphs(
            model.graphs, EngineSettings('onnxruntime', provider=provider), 'fp32'
        )
    assert order == [*loaded, 'session']


def test_an_engine_that_records_no_launches_says_so(model):
    described = load_engine(model, EngineSettings('onnxruntime', cuda_graphs=True)).describe()
    assert described['cuda_graphs'] == 'off: engine onnxruntime does not record launches'


@pytest.mark.parametrize('engine', ['onnxruntime', 'openvino'])
@pytest.mark.parametrize(
    ('changed', 'told'),
    [
        ({'dtype': 'int64'}, r"'mask' is uint8 .* in the graph, int64 .* in model.yaml"),
        ({'shape': (1, 24, 16)}, r"'mask' is uint8 .* in the graph, uint8 \[1, 24, 16\] in model.yaml"),
    ],
)
def test_a_graph_that_gives_another_type_or_shape_than_model_yaml_says_is_refused(
    model, engine, changed, told
):
    if engine == 'openvino':
        pytest.importorskip('openvino')
    graph = model.graphs['segmenter']
    outputs = {**graph.outputs, 'mask': dataclasses.replace(graph.outputs['mask'], **changed)}
    wrong = {**model.graphs, 'segmenter': dataclasses.replace(graph, outputs=outputs)}
    with pytest.raises(EngineError, match=told):
        load_engine(dataclasses.replace(model, graphs=wrong), EngineSettings(engine))


def test_nobody_is_told_that_onnx_runtime_is_used(model, tmp_path):
    code = (
        'import vss_ros.core.engines.onnx_runtime as engine\n'
        'from vss_ros.core.model.folder import load_model\n'
        'from vss_ros.core.settings import EngineSettings\n'
        f'engine.OnnxRuntimeEngine.load(load_model({str(model.path)!r}), EngineSettings("onnxruntime"))\n'
    )
    cache = {'XDG_CACHE_HOME': str(tmp_path)}
    subprocess.run([sys.executable, '-c', code], env=os.environ | cache, check=True, timeout=120)
    assert not [path for path in tmp_path.rglob('*') if 'Microsoft' in str(path)]
