"""What the engines on torch share."""

from __future__ import annotations

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
    from vss_ros.core.model_folder import load_model
    from vss_ros.core.settings import EngineSettings

    useless_gpu(RuntimeError('CUDA error: no kernel image is available'))
    monkeypatch.setattr(engines, 'NVIDIA_DEVICES', ('/',))
    engine = engines.load_engine(load_model(tiny_model), EngineSettings())
    assert engine.name in ('openvino', 'onnxruntime')
    assert 'no kernel image' in engine.describe()['chosen']


def test_an_error_of_pytorch_in_a_graph_is_an_error_of_the_engine(tiny_model):
    from vss_ros.core.model_folder import load_model
    from vss_ros.core.settings import EngineSettings
    from vss_ros.methods.torch_engine import TorchEngine

    model = load_model(tiny_model)
    engine = TorchEngine.load(model, EngineSettings('torch'))
    image = np.zeros((1, *model.image_size, 1), np.uint8)  # of one channel
    with pytest.raises(EngineError, match="graph 'segmenter' failed in PyTorch"):
        engine.run('segmenter', {'image': image})


def test_fp32_is_fp32_for_every_engine_of_the_process():
    for backend in (torch.backends.cudnn, torch.backends.cuda.matmul):
        backend.allow_tf32 = True
    device_module.compute_in_fp32()
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32
