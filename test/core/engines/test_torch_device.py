"""What the engines on torch share."""

from __future__ import annotations

import gc
import inspect
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest

from vss_ros.core.errors import EngineError

torch = pytest.importorskip('torch')
device_module = pytest.importorskip('vss_ros.core.engines.torch_device')
CpuDevice, CudaDevice = device_module.CpuDevice, device_module.CudaDevice
warp, why_no_cuda = device_module.warp, device_module.why_no_cuda


def test_the_warp_of_the_engines_is_that_of_the_methods():
    from vss_ros.methods.blocks.warp import warp as warp_of_methods

    torch.manual_seed(0)
    features, flow = torch.randn(1, 5, 12, 17), 6 * torch.randn(1, 2, 12, 17)
    assert torch.allclose(warp(features, flow), warp_of_methods(features, flow), atol=1e-5)


def test_the_warp_reads_where_the_flow_points():
    features = torch.arange(12.0).view(1, 1, 3, 4)
    flow = torch.zeros(1, 2, 3, 4)
    flow[0, 0, 1, 1], flow[0, 1, 1, 1] = 2, 1  # two to the right, one down: 5 becomes 11
    expected = features.clone()
    expected[0, 0, 1, 1] = 11
    assert torch.allclose(warp(features, flow), expected, atol=1e-5)


def test_arrays_and_tensors_go_up_and_come_down_unchanged():
    device = CpuDevice()
    array = np.arange(6, dtype=np.uint8).reshape(2, 3)[:, ::-1]
    tensor = device.upload(array)
    assert device.upload(tensor) is tensor
    assert np.array_equal(device.download(tensor), array)
    assert device.download(tensor.half()).dtype == np.float32


def test_pytorch_without_onednn_has_no_bf16_on_a_cpu(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, 'is_available', lambda: False)
    monkeypatch.delattr(torch.ops, 'mkldnn', raising=False)
    assert not CpuDevice().computes_bf16()


def test_a_gpu_that_is_not_there_is_refused_with_the_reason():
    with pytest.raises(EngineError) as error:
        CudaDevice(97)
    assert str(error.value) == why_no_cuda(97)
    assert 'CUDA' in str(error.value)


@pytest.fixture
def useless_gpu(monkeypatch):
    """A GPU that PyTorch sees and cannot compute on, for one of two reasons."""
    monkeypatch.setattr(torch.version, 'cuda', '12.8')
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 1)

    def refuse(because):
        def zeros(*_, **__):
            raise because

        monkeypatch.setattr(torch, 'zeros', zeros)

    return refuse


@pytest.mark.parametrize(
    'error',
    [
        RuntimeError('CUDA error: no kernel image is available\nCompile with ...'),
        torch.OutOfMemoryError('CUDA out of memory.'),
    ],
)
def test_a_gpu_that_pytorch_sees_and_cannot_compute_on_is_refused_with_the_reason(useless_gpu, error):
    useless_gpu(error)
    why_not = why_no_cuda(0)
    assert why_not.endswith(f'cannot compute on GPU 0: {str(error).splitlines()[0]}')
    with pytest.raises(EngineError, match='cannot compute on GPU 0'):
        CudaDevice(0)


def test_auto_goes_on_to_the_next_engine_where_the_gpu_cannot_be_used(useless_gpu, tiny_model, monkeypatch):
    from vss_ros.core import engines
    from vss_ros.core.model.folder import load_model
    from vss_ros.core.settings import EngineSettings

    useless_gpu(RuntimeError('CUDA error: no kernel image is available'))
    monkeypatch.setattr(engines, 'NVIDIA_DEVICES', ('/',))
    engine = engines.load_engine(load_model(tiny_model), EngineSettings())
    assert engine.name in ('openvino', 'onnxruntime')
    assert 'no kernel image' in engine.describe()['chosen']


def test_an_error_of_pytorch_in_a_graph_is_an_error_of_the_engine(tiny_model):
    from vss_ros.core.model.folder import load_model
    from vss_ros.core.settings import EngineSettings
    from vss_ros.torch_engine.engine import TorchEngine

    model = load_model(tiny_model)
    engine = TorchEngine.load(model, EngineSettings('torch'))
    image = np.zeros((1, *model.image_size, 1), np.uint8)  # of one channel
    with pytest.raises(EngineError, match="graph 'segmenter' failed in PyTorch"):
        engine.run('segmenter', {'image': image})


@pytest.fixture
def gpu_on_paper(monkeypatch):
    """A CudaDevice whose memory is the host's and whose stream is a mock."""
    device = CudaDevice.__new__(CudaDevice)
    device.torch_device, device.stream, device._pinned = torch.device('cpu'), mock.Mock(), {}
    empty_like = torch.empty_like
    monkeypatch.setattr(torch, 'empty_like', lambda source, pin_memory: empty_like(source))
    monkeypatch.setattr(torch.cuda, 'Event', mock.Mock)
    monkeypatch.setattr(torch.cuda, 'device', lambda _: nullcontext())
    monkeypatch.setattr(torch.cuda, 'stream', lambda _: nullcontext())
    monkeypatch.setattr(torch.cuda, 'current_stream', lambda _: device.stream)
    return device


def test_pinned_buffers_that_were_made_in_a_run_can_be_filled_outside_of_one(gpu_on_paper):
    with torch.inference_mode():
        for _ in range(device_module.RING):
            gpu_on_paper.upload(np.zeros((2, 3), np.uint8))
    array = np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert np.array_equal(gpu_on_paper.upload(array), array)


@pytest.mark.parametrize('is_done', [False, True])
def test_what_the_caller_still_computes_in_its_own_stream_comes_first(gpu_on_paper, monkeypatch, is_done):
    caller = mock.Mock(**{'query.return_value': is_done})
    monkeypatch.setattr(torch.cuda, 'current_stream', lambda _: caller)
    gpu_on_paper.upload(np.zeros(3, np.uint8))
    assert gpu_on_paper.stream.wait_stream.mock_calls == ([] if is_done else [mock.call(caller)])


def test_a_second_stream_is_made_when_the_first_one_is_done_and_goes_after_it(gpu_on_paper, monkeypatch):
    made = mock.Mock()
    monkeypatch.setattr(device_module, 'CudaDevice', made)
    gpu_on_paper.stream.synchronize.side_effect = lambda: made.assert_not_called()
    assert gpu_on_paper.second() is made.return_value
    gpu_on_paper.stream.synchronize.assert_called_once()
    assert made.call_args.kwargs['priority'] > inspect.signature(CudaDevice).parameters['priority'].default


@pytest.mark.parametrize('other', [torch.zeros(1, 4, 4, 1), torch.zeros(1, 4, 4, 3, dtype=torch.uint8)])
def test_a_recording_refuses_inputs_that_a_copy_would_only_fit_to_its_own(other):
    recording = device_module.Recording.__new__(device_module.Recording)
    recording._inputs, recording._outputs = {'image': torch.zeros(1, 4, 4, 3)}, {}
    recording._graph = mock.Mock()
    assert recording({'image': torch.ones(1, 4, 4, 3)}) == {}
    with pytest.raises(EngineError, match=r'image was recorded as torch.float32 \(1, 4, 4, 3\)'):
        recording({'image': other})
    recording._graph.replay.assert_called_once()


def is_alone(pool):
    """Whether the thread of a pool finds that another one holds ONE_AT_A_TIME."""

    def tried():
        if is_free := device_module.ONE_AT_A_TIME.acquire(blocking=False):
            device_module.ONE_AT_A_TIME.release()
        return not is_free

    return pool.submit(tried).result()


def test_from_its_first_run_to_its_end_a_recording_is_alone(monkeypatch):
    for name in ('CUDAGraph', 'current_stream'):
        monkeypatch.setattr(torch.cuda, name, mock.MagicMock())
    with ThreadPoolExecutor(1) as pool:
        found = []
        device_module.Recording(lambda inputs: found.append(is_alone(pool)) or inputs, {})
        assert found == [True] * 4
        with pytest.raises(ZeroDivisionError):
            device_module.Recording(lambda inputs: 1 / 0, {})
        assert not is_alone(pool)


def test_python_frees_nothing_by_the_way_while_a_recording_is_made(monkeypatch):
    for name in ('CUDAGraph', 'current_stream'):
        monkeypatch.setattr(torch.cuda, name, mock.MagicMock())
    found = []

    def call(inputs, until=9):
        found.append(gc.isenabled())
        return inputs if len(found) < until else 1 / 0

    device_module.Recording(call, {})
    assert found == [True, True, True, False]
    with pytest.raises(ZeroDivisionError):
        device_module.Recording(partial(call, until=8), {})
    assert found[4:] == [True, True, True, False]
    assert gc.isenabled()


def test_a_thread_is_alone_in_its_first_run_of_each_graph(tiny_model, monkeypatch):
    from vss_ros.core.model.folder import load_model
    from vss_ros.core.settings import EngineSettings
    from vss_ros.torch_engine.engine import TorchEngine

    model = load_model(tiny_model)
    engine = TorchEngine.load(model, EngineSettings('torch'))
    image = {'image': np.zeros((1, *model.image_size, 3), np.uint8)}
    failing, found = iter([True]), []
    with ThreadPoolExecutor(1) as looker:

        def compute(self, graph, inputs):
            found.append(is_alone(looker))
            if next(failing, False):
                raise RuntimeError('out of memory')
            return {}

        monkeypatch.setattr(TorchEngine, '_compute', compute)
        with pytest.raises(EngineError, match='out of memory'):
            engine.run('segmenter', image)
        for runner in (engine, engine, engine.second()):
            runner.run('segmenter', image)
        for _ in range(2):
            with ThreadPoolExecutor(1) as pool:
                pool.submit(engine.run, 'segmenter', image).result()
    assert found == [True, True, False, True, True, True]  # the first run failed, so the next is a first one


def of_older_versions():
    """Whether fp32 may be TF32 in convolutions and in products, by the names before PyTorch 2.9."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # PyTorch warns of these names
        return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


@pytest.fixture
def kinds_of_fp32():
    """What has a precision of its own for fp32; set to what it was afterwards."""
    if not hasattr(torch.backends.cudnn, 'conv'):
        pytest.skip('PyTorch before 2.9 has other names')
    backends = torch.backends
    kinds = backends, backends.cudnn.conv, backends.cudnn.rnn, backends.cuda.matmul
    before, by_older_names = [kind.fp32_precision for kind in kinds], of_older_versions()
    yield kinds
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = by_older_names
    for kind, precision in zip(kinds, before, strict=True):
        kind.fp32_precision = precision
    assert of_older_versions() == by_older_names  # else PyTorch exports nothing any more


def test_fp32_is_fp32_for_every_engine_of_the_process(kinds_of_fp32):
    torch.backends.fp32_precision = 'tf32'  # of those that are not set
    device_module.compute_in_fp32()
    assert [kind.fp32_precision for kind in kinds_of_fp32] == ['ieee'] * 4


def test_tf32_can_be_allowed_again(kinds_of_fp32):
    device_module.allow_tf32(True)
    assert [kind.fp32_precision for kind in kinds_of_fp32] == ['tf32'] * 4


@pytest.mark.parametrize('is_allowed', [False, True])
def test_who_asks_by_the_names_of_older_versions_hears_the_same(kinds_of_fp32, is_allowed):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        device_module.allow_tf32(is_allowed)
    assert of_older_versions() == (is_allowed, is_allowed)
    for _ in range(2):  # it asks so, and sets the newer names back
        torch.export.export(torch.nn.Conv2d(3, 4, 3).eval(), (torch.zeros(1, 3, 8, 8),))
    assert [kind.fp32_precision for kind in kinds_of_fp32] == ['tf32' if is_allowed else 'ieee'] * 4


def test_fp32_is_fp32_by_the_names_of_older_versions_of_pytorch_too(monkeypatch):
    cudnn, matmul = SimpleNamespace(allow_tf32=True, benchmark=False), SimpleNamespace(allow_tf32=True)
    monkeypatch.setattr(torch.backends, 'cudnn', cudnn)
    monkeypatch.setattr(torch.backends.cuda, 'matmul', matmul)
    device_module.compute_in_fp32()
    assert not cudnn.allow_tf32
    assert not matmul.allow_tf32
