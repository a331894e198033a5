from __future__ import annotations

import onnx
import pytest
import torch
from method_models import run_step
from torch import nn

from vss_ros.core.errors import ModelError, SettingsError
from vss_ros.methods import build_method, options_of
from vss_ros.methods.blocks.camera_bytes import CameraConvolution
from vss_ros.methods.blocks.glance import GLANCES, Glance, LiteCorrection
from vss_ros.methods.blocks.lite import LiteSegmenter, resize_like
from vss_ros.methods.blocks.resize import resize
from vss_ros.methods.evss import Evss
from vss_ros.methods.evss_lite import EvssLite

CLASSES = 11
EVSS_KEY_FRAME_GMAC = 13.33  # CSRNet at 480x360, eleven classes


def parameters(*networks):
    return sum(parameter.numel() for network in networks for parameter in network.parameters())


@torch.no_grad()
def gmac(network, *inputs):
    """1e9 multiply-adds of all convolutions."""
    counts = []

    def count(layer, _, output):
        kernel = layer.weight[0].numel()
        counts.append(output.numel() // len(output) * kernel)

    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(count)
    network.eval()(*inputs)
    return sum(counts) / 1e9


def test_it_is_evss_with_other_networks():
    method = build_method('evss-lite', CLASSES)
    assert isinstance(method, Evss)
    assert isinstance(method.csrnet, LiteSegmenter)
    assert isinstance(method.glance, Glance)
    assert isinstance(method.conet, LiteCorrection)


def test_its_options_are_those_of_evss_and_the_glance():
    evss, lite = list(options_of(Evss)), list(options_of(EvssLite))
    assert evss[:2] == ['w_f', 'reference']  # first what is its own, then what methods share
    assert evss[-2:] == ['decision', 'temperatures']
    assert sorted(lite) == sorted([*evss, 'glance'])
    assert options_of(EvssLite)['fusion'].default == 'quarter'
    with pytest.raises(ModelError, match=f'no option glances; it has {", ".join(lite)}$'):
        build_method('evss-lite', CLASSES, {'glances': 'half'})
    with pytest.raises(SettingsError, match="magnify is 'twice'; use a number"):
        build_method('evss-lite', CLASSES, {'magnify': 'twice'})


def test_it_keeps_within_five_million_parameters():
    assert parameters(build_method('evss-lite', CLASSES)) <= 5.0e6


def test_a_key_frame_costs_at_most_a_sixth_of_that_of_evss():
    cost = gmac(LiteSegmenter(CLASSES), torch.rand(1, 3, 360, 480))
    assert cost <= EVSS_KEY_FRAME_GMAC / 6


def test_a_correction_costs_a_third_of_a_key_frame():
    method, rgb = build_method('evss-lite', CLASSES), torch.rand(1, 3, 360, 480)
    warped = torch.rand(1, CLASSES, 90, 120)
    glimpse = method.glance.eval()(rgb, warped)
    cost = gmac(method.glance, rgb, warped) + gmac(method.conet, glimpse, warped)
    assert cost <= gmac(method.csrnet, rgb) / 3


def test_behind_csrnet_a_correction_at_full_size_costs_a_sixth_of_a_key_frame():
    method = build_method('evss-lite', CLASSES, {'backbone': 'csrnet', 'glance': 'full'}).eval()
    rgb, warped = torch.rand(1, 3, 360, 480), torch.rand(1, CLASSES, 90, 120)
    cost = gmac(method.glance, rgb, warped) + gmac(method.conet, method.glance(rgb, warped), warped)
    assert cost <= gmac(method.csrnet, rgb) / 6


@pytest.mark.parametrize('glance', GLANCES)
@pytest.mark.parametrize(('height', 'width'), [(360, 480), (64, 96), (120, 160), (92, 132)])
def test_maps_are_a_quarter_of_the_image(height, width, glance):
    method = build_method('evss-lite', CLASSES, {'glance': glance}).eval()
    rgb = torch.rand(1, 3, height, width)
    scores = method.csrnet(rgb)
    assert scores.shape == (1, CLASSES, height // 4, width // 4)
    edge, updated = method.look_again(rgb, scores)
    assert edge.shape == (1, 2, height // 4, width // 4)
    assert updated.shape == scores.shape


def test_an_untrained_correction_offers_what_a_glance_sees():
    method, rgb = build_method('evss-lite', CLASSES).eval(), torch.rand(1, 3, 64, 96)
    warped = 10 * torch.randn(1, CLASSES, 16, 24)
    _, updated = method.look_again(rgb, warped)
    assert torch.equal(updated, resize_like(method.glance(rgb, warped).scores, warped))


@pytest.mark.parametrize(
    ('size', 'seen'), [('half', (48, 72)), ('two_thirds', (64, 96)), ('full', (96, 144))]
)
def test_a_glance_is_the_segmenter_on_the_image_at_its_size(size, seen):
    torch.manual_seed(0)
    segmenter, glance = LiteSegmenter(CLASSES).eval(), Glance(CLASSES, size).eval()
    glance.begin_as(segmenter)
    rgb = torch.rand(1, 3, 96, 144)
    assert torch.allclose(glance(rgb).scores, segmenter(resize(rgb, seen)), atol=1e-5)


def test_a_glance_of_another_size_is_refused():
    with pytest.raises(SettingsError, match='glance'):
        build_method('evss-lite', CLASSES, {'glance': 'quarter'})


def test_what_was_carried_has_no_say_in_a_glance_until_that_is_trained():
    torch.manual_seed(0)
    glance, rgb = Glance(CLASSES).eval(), torch.rand(1, 3, 64, 96)
    one, other = (5 * torch.randn(1, CLASSES, 16, 24) for _ in range(2))
    assert torch.equal(glance(rgb, one).scores, glance(rgb).scores)
    nn.init.normal_(glance.remember.weight)
    assert not torch.allclose(glance(rgb, one).scores, glance(rgb, other).scores)
    assert torch.allclose(
        glance(rgb, one + 7).scores, glance(rgb, one).scores, atol=1e-4
    )  # shares, not sizes


def test_a_key_step_and_a_propagated_step_close():
    method = build_method('evss-lite', CLASSES, {'flow': 'dis'}).eval()
    with torch.no_grad():
        image = torch.randint(0, 255, (1, 64, 96, 3), dtype=torch.uint8)
        key = run_step(method, 'key', {'image': image})
        inputs = {'image': image, **method.host_tensors(image), **method.state_of(key)}
        propagated = run_step(method, 'propagated', inputs)
    assert propagated['mask'].shape == (1, 32, 48)  # decided at half the size
    assert propagated['scores'].shape == key['scores'].shape


@pytest.mark.parametrize(
    ('kernel', 'stride', 'bias'), [(3, 2, False), (1, 1, True), (4, 4, True), (7, 4, False)]
)
def test_a_convolution_over_camera_bytes_gives_what_the_one_over_rgb_gives(kernel, stride, bias):
    torch.manual_seed(0)
    first = nn.Conv2d(3, 5, kernel, stride, kernel // 2, bias=bias)
    bgr = torch.randint(0, 256, (2, 3, 16, 20)).float()
    expected = first(bgr.flip(1) / 255)
    found = CameraConvolution(first)(bgr)
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, atol=1e-5)


def test_no_axis_of_the_image_is_moved_in_an_exported_graph(tiny_model):
    """The transpositions before the first convolution cancel, in the file or when a runtime loads it."""
    onnxruntime = pytest.importorskip('onnxruntime')
    from vss_ros.core.engines.onnx_runtime import session_options

    for graph in ('segmenter', 'correction'):
        options = session_options(1)
        options.optimized_model_filepath = str(tiny_model.parent / f'{graph}.optimized.onnx')
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        onnxruntime.InferenceSession(str(tiny_model / f'{graph}.onnx'), options)
        nodes = onnx.load(options.optimized_model_filepath).graph.node
        first = next(n for n, node in enumerate(nodes) if node.op_type == 'Conv' and is_of_image(nodes, node))
        assert 'Transpose' not in [node.op_type for node in nodes[:first]]


def is_of_image(nodes, node):
    """Whether what a node takes is the image and nothing that a convolution made."""
    makers = {name: maker for maker in nodes for name in maker.output}
    while node.input[0] in makers:
        node = makers[node.input[0]]
        if node.op_type == 'Conv':
            return False
    return node.input[0] == 'image'


@pytest.mark.parametrize(
    ('name', 'options'),
    [
        ('evss', {'backbone': 'lite'}),
        ('evss', {'backbone': 'csrnet'}),
        ('evss-lite', {'backbone': 'lite'}),
        ('evss-lite', {'backbone': 'csrnet'}),
        ('evss-lite', {'backbone': 'csrnet', 'glance': 'full'}),
    ],
)
def test_folding_for_export_changes_no_result(name, options):
    torch.manual_seed(3)
    options = {**options, 'flow': 'dis'}
    method, images = build_method(name, CLASSES, options).eval(), torch.randint(0, 255, (2, 1, 64, 96, 3))
    images = images.to(torch.uint8)
    with torch.no_grad():
        before = method.examples(*images)
        method.fold((64, 96))
        after = method.examples(*images)
    for graph in before:
        for name, tensor in before[graph].outputs.items():
            assert torch.allclose(tensor.float(), after[graph].outputs[name].float(), atol=1e-3), name
