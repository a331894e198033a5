"""An exported STF+MAR segments a stream as PyTorch does."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
import torch

from vss_ros.core.engines import load_engine
from vss_ros.core.frame import Frame
from vss_ros.core.model.cost import cost_of
from vss_ros.core.settings import EngineSettings, StreamSettings
from vss_ros.core.stream.segmenter import VideoSegmenter
from vss_ros.exporting.verify import example_frames
from vss_ros.methods.st_memory import StMemory

SIZE = (64, 96)
FRAMES = 12


@pytest.fixture(scope='module')
def images():
    return example_frames(SIZE, FRAMES)


@pytest.fixture(scope='module', params=['published', 'causal', 'mirrored'])
def method(request, images):
    """Seeded random weights that see a mixture of classes which follows the images."""
    torch.manual_seed(0)
    method = StMemory(11, backbone='lite', frames=request.param, keys_per_class=4)
    method.MAR.remember(torch.randn(44, 64), torch.randn(11, 64))
    batch = torch.from_numpy(np.stack(images[:6]))
    with torch.no_grad():
        method.train()
        for _ in range(20):  # the norms learn what an image looks like
            method.features(batch)
        method.eval()
        by_age = method.features(batch)['features'].split(2)[::-1]
        last, scores = method.pspnet.scores, method.fusion(*by_age)['scores']
        scale = 3 / scores.std((0, 2, 3))  # every class gets mean 0 and deviation 3 over the cells
        last.weight *= scale.view(-1, 1, 1, 1)
        last.bias.sub_(scores.mean((0, 2, 3))).mul_(scale)
    return method


@pytest.fixture(scope='module')
def model(method, shared_model):
    return shared_model(f'st-memory {method.options["frames"]}', lambda: method, SIZE)


@pytest.fixture(scope='module')
def engine(model):
    return load_engine(model, EngineSettings('onnxruntime', threads=1))


@pytest.fixture(scope='module')
def expected(method, images):
    """Masks by PyTorch alone, of each frame and those it is fused with: the newest first."""
    last = len(images) - 1
    orders = {'published': (1, 0, -1), 'causal': (0, -1, -2), 'mirrored': (0, -1)}
    around = orders[method.options['frames']]
    with torch.no_grad():
        features = [method.features(torch.from_numpy(image[None]))['features'] for image in images]
        return [
            method.fusion(*(features[min(max(i + step, 0), last)] for step in around))['mask'][0].numpy()
            for i in range(len(images))
        ]


def segment(model, engine, images, interval=5):
    segmenter = VideoSegmenter(model, engine, StreamSettings(key_frame_interval=interval))
    return answers(segmenter, [Frame(image, i * 40_000_000) for i, image in enumerate(images)])


def answers(segmenter, frames):
    given = [*chain.from_iterable(segmenter.answers(frame) for frame in frames), *segmenter.flush()]
    assert [frame for frame, _ in given] == frames
    return [segmentation for _, segmentation in given]


@pytest.mark.parametrize('interval', [1, 5])
def test_a_stream_is_segmented_as_by_pytorch_whatever_the_interval_of_key_frames(
    model, engine, images, expected, interval
):
    results = segment(model, engine, images, interval)
    for result, mask in zip(results, expected, strict=True):
        assert (result.mask != mask).mean() <= 2e-3  # near ties fall either way
    assert len(np.unique(expected)) > 4


def test_every_frame_is_computed_in_full_and_says_so(model, engine, images):
    results = segment(model, engine, images)
    assert [result.is_key for result in results] == [True] * FRAMES
    assert [result.age_frames for result in results] == [0] * FRAMES
    stages = [set(result.timings_ms) & {'features', 'start', 'fusion'} for result in results]
    first = {'features', 'fusion'} if model.delay_frames else {'features', 'start', 'fusion'}
    assert stages == [first] + [{'features', 'fusion'}] * (FRAMES - 1)


def test_other_frames_change_the_result(model, engine, images):
    fresh = segment(model, engine, images[2:3])[0]
    assert (segment(model, engine, images[:3])[2].mask != fresh.mask).any()


def test_the_published_order_looks_ahead(model, engine, images):
    alone, followed = segment(model, engine, images[:1])[0], segment(model, engine, images[:2])[0]
    assert (alone.mask != followed.mask).any() == bool(model.delay_frames)


def test_a_reset_forgets_the_older_frames(model, engine, images):
    segmenter = VideoSegmenter(model, engine)
    for i in range(2):
        list(segmenter.answers(Frame(images[i], i)))
    segmenter.reset()
    again = [*segmenter.answers(Frame(images[2], 2)), *segmenter.flush()][-1]
    assert np.array_equal(again.segmentation.mask, segment(model, engine, images[2:3])[0].mask)


def test_the_graphs_hold_no_more_of_the_memory_than_two_small_matrices(model):
    onnx = pytest.importorskip('onnx')
    graph = onnx.load(str(model.graphs['fusion'].file)).graph
    shapes = {tuple(sorted(tensor.dims)) for tensor in graph.initializer}
    assert {(44, 64)} <= shapes
    assert not {(1, 44, 64), (32, 32)} & shapes
    assert not any(45 in shape for shape in shapes)  # encodings lie there at the size of the map


def test_fusing_on_the_lite_backbone_costs_less_than_its_features(model):
    macs = {name: cost_of(graph.file).macs for name, graph in model.graphs.items()}
    assert 0 < macs['fusion'] < macs['features']
