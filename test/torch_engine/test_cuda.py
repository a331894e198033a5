"""The torch engine on a real GPU, and what of it can be checked without one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from method_models import CLASSES, SIZE, VARIANTS
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vss_ros.core.engines import DeviceEngine, load_engine
from vss_ros.core.errors import EngineError
from vss_ros.core.frame import Frame
from vss_ros.core.model.folder import load_model
from vss_ros.core.settings import EngineSettings, StreamSettings
from vss_ros.core.stream.segmenter import VideoSegmenter
from vss_ros.exporting.lower_precision import lower_precision
from vss_ros.methods import build_method

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason='PyTorch finds no CUDA GPU here')


@pytest.fixture
def gpu(tmp_path):
    """Makes settings of the engine with a cache that is empty at first."""

    def settings(precision='fp32', **more):
        return EngineSettings('torch', precision, engine_cache=str(tmp_path / 'cache'), **more)

    return settings


def masks(model, engine, images):
    segmenter = VideoSegmenter(model, engine)
    return [segmenter.step(Frame(image, n * 50_000_000)).mask for n, image in enumerate(images)]


@pytest.fixture(scope='module')
def model(tiny_model):
    return load_model(tiny_model)


@pytest.fixture(scope='module')
def expected(model, street):
    """What ONNX Runtime gives; it is compared with PyTorch on the CPU elsewhere."""
    return masks(model, load_engine(model, EngineSettings('onnxruntime')), street)


def test_without_a_gpu_the_engine_says_why_and_that_nothing_is_recorded(model):
    if torch.cuda.is_available():
        pytest.skip('this machine has CUDA')
    described = load_engine(model, EngineSettings('torch', cuda_graphs=True)).describe()
    assert described['device'] == 'cpu'
    assert 'CUDA' in described['no_gpu']
    assert described['cuda_graphs'] == 'off: there is no GPU'


def test_in_lower_precision_the_networks_change_and_the_tensors_between_them_do_not(model):
    from vss_ros.exporting.weights import load_method

    method = lower_precision(load_method(model), torch.bfloat16)
    assert {p.dtype for p in method.parameters()} == {torch.bfloat16}
    image = torch.zeros(1, *model.image_size, 3, dtype=torch.uint8)
    for graph, example in method.examples(image).items():
        for name, spec in model.graphs[graph].outputs.items():
            assert str(example.outputs[name].dtype) == f'torch.{spec.dtype}', name


class AtTheHost(TorchDispatchMode):
    """Notes the operations that have to do with tensors of the CPU."""

    def __init__(self):
        super().__init__()
        self.found = set()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, torch.Tensor)]
        if any(tensor.device.type == 'cpu' for tensor in tensors):
            self.found.add(str(operation))
        return result


@pytest.mark.parametrize('precision', [torch.float32, torch.float16])
@pytest.mark.parametrize('variant', VARIANTS)
def test_no_graph_waits_for_the_device_or_brings_something_there(variant, precision, monkeypatch):
    """Else its launches could not be recorded. The device is `meta`, from which nothing can be read."""
    name, options = VARIANTS[variant]
    method = build_method(name, CLASSES, options).eval()
    method = lower_precision(method, precision).to('meta')
    image = torch.zeros(1, *SIZE, 3, dtype=torch.uint8, device='meta')
    monkeypatch.setattr(torch, 'tensor', None)  # it makes them on the CPU first, unseen
    with torch.inference_mode(), AtTheHost() as host:
        method.examples(image)
    assert host.found == set()


@needs_gpu
@pytest.mark.parametrize(('precision', 'share'), [('fp32', 1e-3), ('fp16', 0.02), ('bf16', 0.05)])
@pytest.mark.parametrize('cuda_graphs', [False, True])
def test_the_gpu_gives_what_the_cpu_gives(model, street, expected, gpu, precision, share, cuda_graphs):
    engine = load_engine(model, gpu(precision, cuda_graphs=cuda_graphs))
    for found, wanted in zip(masks(model, engine, street), expected, strict=True):
        assert (found != wanted).mean() <= share
    if cuda_graphs:
        assert engine.describe()['cuda_graphs'] == 'on'


@needs_gpu
def test_replaying_a_recording_equals_running_the_graph(model, street, gpu):
    plain = masks(model, load_engine(model, gpu()), street)
    replayed = masks(model, load_engine(model, gpu(cuda_graphs=True)), street)
    assert all(np.array_equal(one, other) for one, other in zip(plain, replayed, strict=True))


@needs_gpu
@pytest.mark.parametrize('cuda_graphs', [False, True])
def test_of_a_propagated_frame_only_the_results_come_down_from_the_gpu(model, street, gpu, cuda_graphs):
    from torch.profiler import ProfilerActivity, profile

    segmenter = VideoSegmenter(model, load_engine(model, gpu(cuda_graphs=cuda_graphs)))
    for number in range(3):
        segmenter.step(Frame(street[number], number * 50_000_000))
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        segmenter.step(Frame(street[3], 150_000_000))
    names = [event.key for event in profiler.key_averages() for _ in range(event.count)]
    assert sum('Memcpy DtoH' in name for name in names) == 3  # mask, confidence, corrected
    assert sum('Memcpy HtoD' in name for name in names) == 2  # image, flow


@needs_gpu
@pytest.mark.parametrize('number', [5, 6])  # of key_frame_interval 5 a key frame and a propagated one
def test_a_recorded_step_is_one_launch_per_graph(model, street, gpu, number):
    from torch.profiler import ProfilerActivity, profile

    segmenter = VideoSegmenter(model, load_engine(model, gpu(cuda_graphs=True)))
    frames = [Frame(image, n * 50_000_000) for n, image in enumerate(street)]
    for frame in frames[:number]:
        segmenter.step(frame)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        is_key = segmenter.step(frames[number]).is_key
    launches = sum(event.count for event in profiler.key_averages() if event.key == 'cudaGraphLaunch')
    stages = model.steps['key' if is_key else 'propagated']
    assert launches == sum(stage in model.graphs for stage in stages)


@needs_gpu
def test_a_new_image_never_overwrites_one_that_is_still_going_up(model, street, gpu):
    """More uploads in a row than there are pinned buffers."""
    device = load_engine(model, gpu())._device
    tensors = [device.upload(image) for image in street]
    device.synchronise()
    assert all(np.array_equal(device.download(t), image) for t, image in zip(tensors, street, strict=True))


def test_a_device_that_works_on_can_be_waited_for(model, street, gpu):
    engine = load_engine(model, gpu())
    assert isinstance(engine, DeviceEngine)
    uploaded = engine.upload('segmenter', {'image': street[0][None]})
    assert set(uploaded) == {'image'}
    assert engine.upload('segmenter', uploaded) == {}  # it is there already
    outputs = engine.run('segmenter', uploaded)
    engine.synchronise()
    expected = engine.run('segmenter', {'image': street[0][None]})
    assert np.array_equal(engine.to_host(outputs['mask']), engine.to_host(expected['mask']))


@needs_gpu
def test_work_does_not_go_through_the_default_stream(model, street, gpu):
    engine = load_engine(model, gpu())
    assert engine._device.stream_handle != torch.cuda.default_stream().cuda_stream
    masks(model, engine, street[:2])


@needs_gpu
@pytest.mark.parametrize('cuda_graphs', [False, True])
@pytest.mark.parametrize('is_checked', [False, True])  # without a check both threads begin at once
def test_key_frames_in_the_background_run_in_a_stream_of_their_own(
    model, street, gpu, cuda_graphs, is_checked
):
    settings = StreamSettings(3, background_key_frames=True, background_delay_frames=2)
    engines = gpu(cuda_graphs=cuda_graphs), EngineSettings('onnxruntime')
    if is_checked:
        load_engine(model, engines[0]).close()
    found, expected = (VideoSegmenter(model, load_engine(model, engine), settings) for engine in engines)
    for number, image in enumerate(street):
        frame = Frame(image, number * 50_000_000)
        one, other = found.step(frame), expected.step(frame)
        assert one.age_frames == other.age_frames
        assert (one.mask == other.mask).mean() > 0.995
    assert found.background.handed_over > 2
    for segmenter in (found, expected):
        segmenter.close()


@needs_gpu
def test_a_recording_is_not_broken_off_by_first_runs_in_other_threads(model, street, gpu):
    recorded, plain = (load_engine(model, gpu(cuda_graphs=cuda_graphs)) for cuda_graphs in (True, False))
    image = {'image': street[0][None]}
    expected = recorded.to_host(recorded.run('segmenter', image)['mask'])
    for _ in range(5):
        recorded._recordings.clear()
        with ThreadPoolExecutor(2) as pool:  # of new threads, in which cuDNN chooses its kernels anew
            others = [pool.submit(plain.second().run, 'segmenter', image) for _ in range(2)]
            found = recorded.to_host(recorded.run('segmenter', image)['mask'])
        assert np.array_equal(found, expected)
        for other in others:
            assert (plain.to_host(other.result()['mask']) == expected).mean() > 0.995


def test_eager_pytorch_refuses_a_gpu_that_is_not_there_with_the_reason(model):
    from vss_ros.core.engines.torch_device import why_no_cuda
    from vss_ros.torch_engine.eager import EagerEngine

    with pytest.raises(EngineError) as error:
        EagerEngine.load(model, EngineSettings(gpu_id=97))
    assert str(error.value) == why_no_cuda(97)
