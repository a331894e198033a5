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
