"""TWNet against its paper: what its networks are and cost, and what they do with a warped frame."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from method_models import run_step
from torch import nn

from vss_ros.core.errors import SettingsError
from vss_ros.exporting.verify import example_frames
from vss_ros.methods import build_method
from vss_ros.methods.blocks.image import to_rgb
from vss_ros.methods.blocks.lite import LiteSegmenter
from vss_ros.methods.blocks.nonkey import Rectification
from vss_ros.methods.blocks.warp import warp
from vss_ros.methods.twnet import TwNet

LITE = {'encoder': 'lite', 'layer': 2, 'residual': 'quarter', 'flow': 'dis'}
# Multiply-adds (1e9) of Cityscapes' images, 19 classes: key frame, and propagated frame without CFR by layer.
PUBLISHED_GMACS = {
    'mobilenet_v1': (39.7, {1: 19.3, 2: 12.5, 3: 1.4}),
    'mobilenet_v2': (24.2, {1: 13.8, 2: 9.6, 3: 1.4}),
    'resnet18': (89.6, {1: 51.2, 2: 31.1, 3: 1.4}),
}


@pytest.fixture(scope='module')
def images():
    """Two neighbouring frames, with an odd number of cells at 1/8."""
    return [torch.from_numpy(image[None]) for image in example_frames((72, 104), 2)]


@pytest.fixture(scope='module')
def twnet():
    """A light TWNet whose correction is not zero."""
    torch.manual_seed(0)
    method = build_method('twnet', 5, LITE).eval()
    nn.init.normal_(method.nonkey.rectification.phi.weight, std=0.05)
    return method


def gmacs(options, size, classes=19):
    """Multiply-adds (1e9) of each step: CFR, RGA and the rest; nothing is computed."""
    counts = {}

    def count(name):
        def add(layer, _, output):
            counts[name] = counts.get(name, 0) + output.numel() * layer.weight[0].numel() / 1e9

        return add

    with torch.device('meta'):
        method = build_method('twnet', classes, {'flow': 'dis', **options}).eval()
        image = torch.zeros(1, *size, 3, dtype=torch.uint8)
    for name, layer in method.named_modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(count(name))
    found, state = {}, {}
    for kind in method.steps:
        counts.clear()
        with torch.no_grad():
            tensors = run_step(method, kind, {'image': image, **method.host_tensors(image), **state})
        state = method.state_of(tensors)
        cfr, rga = (sum(n for name, n in counts.items() if name.endswith(part)) for part in ('.phi', '.psi'))
        found[kind] = {'cfr': cfr, 'rga': rga, 'rest': sum(counts.values()) - cfr - rga}
    return found


@pytest.mark.parametrize('layer', [1, 2, 3])
@pytest.mark.parametrize('encoder', PUBLISHED_GMACS)
def test_the_networks_cost_what_was_worked_out_from_the_paper(encoder, layer):
    key, propagated = PUBLISHED_GMACS[encoder]
    found = gmacs({'encoder': encoder, 'layer': layer}, (1024, 2048))
    assert found['key']['rest'] == pytest.approx(key, abs=0.05)
    assert found['propagated']['rest'] == pytest.approx(propagated[layer], abs=0.05)
    # The paper: CFR adds 2.42 to layers 1 and 2, RGA 0.0012 and 0.0029 with the product that is no layer.
    assert found['propagated']['cfr'] == pytest.approx(2.42 if layer < 3 else 0, abs=0.005)
    products = {1: 128 * 64 * 128, 2: 64 * 128 * 256, 3: 0}[layer] / 1e9
    assert found['propagated']['rga'] + products == pytest.approx(
        {1: 0.00127, 2: 0.00298, 3: 0}[layer], abs=1e-5
    )


def test_one_head_more_costs_what_was_worked_out_and_feeds_the_correction():
    extra = [
        sum(gmacs({'encoder': 'mobilenet_v1', 'heads': heads}, (1024, 2048))['propagated'].values())
        for heads in ('more', 'published')
    ]
    assert extra[0] - extra[1] == pytest.approx(12.6, abs=0.05)
    torch.manual_seed(0)
    method = build_method('twnet', 5, {'encoder': 'mobilenet_v1', 'heads': 'more', 'flow': 'dis'}).eval()
    nonkey = method.nonkey
    nn.init.normal_(nonkey.rectification.phi.weight, std=0.05)
    rgb, warped, residual = torch.rand(1, 3, 72, 104), torch.rand(1, 128, 5, 7), torch.rand(1, 3, 5, 7)
    with torch.no_grad():
        spatial = nonkey.spatial(method.cnn.encode(rgb, 3)[2])
        expected, _ = nonkey.rectification(warped, spatial, residual)
        assert torch.equal(nonkey(rgb, warped, residual)[0], expected)


@pytest.mark.parametrize(
    ('encoder', 'millions'), [('mobilenet_v1', 4.85), ('mobilenet_v2', 2.95), ('resnet18', 12.47)]
)
def test_the_per_frame_cnn_has_as_many_parameters_as_worked_out(encoder, millions):
    with torch.device('meta'):
        method = build_method('twnet', 19, {'encoder': encoder, 'flow': 'dis'})
    assert sum(each.numel() for each in method.cnn.parameters()) / 1e6 == pytest.approx(millions, abs=0.005)
    assert sum(each.numel() for each in method.nonkey.rectification.phi.parameters()) == 295_040


def test_the_light_propagated_frame_costs_little_more_than_a_third_of_a_key_frame():
    found = gmacs({**LITE, 'heads': 'stem'}, (360, 480), classes=11)
    assert sum(found['propagated'].values()) < 0.38 * found['key']['rest']


def test_the_light_cnn_is_the_light_segmenter_with_its_weights():
    segmenter, method = LiteSegmenter(5).eval(), build_method('twnet', 5, LITE).eval()
    method.cnn.load_state_dict(segmenter.state_dict())
    rgb = torch.rand(1, 3, 72, 104)
    with torch.no_grad():
        assert torch.equal(method.cnn(rgb), segmenter(rgb))
        features, scores = method.cnn(rgb, 2)
    assert torch.equal(scores, segmenter(rgb))
    assert features.shape == (1, 64, 9, 13)


@pytest.mark.parametrize('layer', [1, 2, 3])
@pytest.mark.parametrize('encoder', [*PUBLISHED_GMACS, 'lite'])
def test_without_motion_and_correction_a_propagated_frame_is_what_the_key_frame_was(encoder, layer, images):
    torch.manual_seed(1)
    method = build_method('twnet', 5, {'encoder': encoder, 'layer': layer, 'flow': 'dis'}).eval()
    with torch.no_grad():
        key = run_step(method, 'key', {'image': images[0]})
        still = {'image': images[0], **method.host_tensors(images[0]), **method.state_of(key)}
        propagated = run_step(method, 'propagated', still)
    assert torch.allclose(propagated['features'], key['features'], atol=1e-6)
    assert (propagated['mask'] != key['mask']).float().mean() < 1e-3
    if layer < 3:
        assert propagated['residual'].abs().max() < 1e-6


def test_features_and_picture_are_read_where_the_flow_points(twnet):
    picture, previous, features = torch.rand(1, 3, 18, 26), torch.rand(1, 3, 18, 26), torch.rand(1, 64, 9, 13)
    flow = torch.zeros(1, 2, 18, 26)
    flow[:, 0], flow[:, 1] = 2, -4  # one cell of the features to the right, two up
    warped, residual = twnet.warped(features, flow), twnet.residual(picture, previous, flow)
    assert torch.equal(warped[..., 2:, :-1], features[..., :-2, 1:])
    difference = (picture[..., 4:, :-2] - previous[..., :-4, 2:]).abs()
    means = difference.reshape(1, 3, 7, 2, 12, 2).mean((3, 5))
    assert torch.allclose(residual[..., 2:, :-1], means, atol=1e-6)


@pytest.mark.parametrize('size', [(92, 140), (96, 128), (60, 68), (90, 131)])
@pytest.mark.parametrize('layer', [1, 2])
def test_of_motion_vectors_every_block_counts_the_same_also_at_the_far_borders(layer, size):
    method = build_method('twnet', 5, {**LITE, 'layer': layer, 'flow': 'motion_vectors'})
    blocks = torch.randn(1, 2, *(-(-side // 8) for side in size))
    rows, columns = (-(-side // 4) for side in size)
    flow = blocks.repeat_interleave(2, 2).repeat_interleave(2, 3)[..., :rows, :columns]
    expected = blocks
    if layer == 1:
        expected = torch.zeros(1, 2, *(-(-side // 16) for side in size))
        for row, column in np.ndindex(*expected.shape[2:]):
            cell = blocks[..., 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            expected[..., row, column] = cell.mean((2, 3))
    torch.testing.assert_close(method.reduced(flow), expected)


@pytest.mark.parametrize(('flow', 'whole_blocks'), [('motion_vectors', True), ('dis', False)])
def test_the_pixels_of_a_block_move_as_one_where_the_flow_is_that_of_blocks(flow, whole_blocks):
    method = build_method('twnet', 5, {**LITE, 'flow': flow, 'residual': 'half'}).eval()
    vectors, picture = torch.randn(1, 2, 8, 12), torch.rand(1, 3, 16, 24)
    repeated = vectors.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.equal(method.enlarged(vectors, (16, 24)), repeated) == whole_blocks
    expected = (picture - warp(picture, 2 * repeated)).abs().unflatten(2, (4, 4)).unflatten(4, (6, 4))
    residual = method.residual(picture, picture, vectors)
    assert residual.shape == (1, 3, 4, 6)
    assert torch.allclose(residual, expected.mean((3, 5)), atol=1e-6) == whole_blocks


@pytest.mark.parametrize(('residual', 'part'), [('full', 1), ('half', 2), ('quarter', 4)])
@pytest.mark.parametrize(('layer', 'stride'), [(1, 16), (2, 8)])
def test_the_residual_is_the_mean_difference_of_the_images_at_the_resolution_wanted(
    residual, part, layer, stride, images
):
    method = build_method('twnet', 5, {**LITE, 'layer': layer, 'residual': residual}).eval()
    with torch.no_grad():
        key, then = (to_rgb(image)[0].numpy() for image in images)
        previous = run_step(method, 'key', {'image': images[0]})
        flow = method.host_tensors(images[1])
        found = method.run('compensation', {'image': images[1], **flow, **method.state_of(previous)})
    size = -(-72 // stride), -(-104 // stride)
    expected = np.zeros((3, *size))
    small = [image.reshape(3, 72 // part, part, 104 // part, part).mean((2, 4)) for image in (key, then)]
    difference, side = np.abs(small[1] - small[0]), stride // part
    for row, column in np.ndindex(*size):
        cell = difference[:, row * side : (row + 1) * side, column * side : (column + 1) * side]
        expected[:, row, column] = cell.mean((1, 2))
    np.testing.assert_allclose(found['residual'][0].numpy(), expected, atol=1e-6)


def test_rectification_adds_what_phi_says_as_far_as_the_residual_lets_it():
    torch.manual_seed(2)
    layers = Rectification(4)
    warped, spatial, residual = torch.rand(1, 4, 5, 6), torch.rand(1, 4, 5, 6), torch.rand(1, 3, 5, 6)
    with torch.no_grad():
        assert torch.equal(layers(warped, spatial, residual)[0], warped), 'training starts at plain warping'
        nn.init.normal_(layers.phi.weight)
        change = layers.phi(torch.cat((warped, spatial), 1))
        for bias, share in ((-100.0, 0.0), (100.0, 1.0)):
            nn.init.constant_(layers.psi.bias, bias)
            corrected, attention = layers(warped, spatial, residual)
            assert torch.allclose(corrected, warped + share * change, atol=1e-6)
            assert torch.allclose(attention, torch.full_like(attention, share), atol=1e-6)


def test_a_plain_correction_adds_all_of_what_phi_says():
    layers = Rectification(4, is_attended=False)
    nn.init.normal_(layers.phi.weight)
    warped, spatial = torch.rand(2, 1, 4, 5, 6)
    corrected, attention = layers(warped, spatial, None)
    assert torch.equal(corrected, warped + layers.phi(torch.cat((warped, spatial), 1)))
    assert attention is None


@pytest.mark.parametrize(('correction', 'changes'), [('plain', True), ('none', False)])
def test_without_attention_nothing_is_compared_and_nothing_kept_to_compare_with(correction, changes, images):
    torch.manual_seed(4)
    method = build_method('twnet', 5, {**LITE, 'correction': correction}).eval()
    if changes:
        nn.init.normal_(method.nonkey.rectification.phi.weight, std=0.05)
    found = method.examples(*images)
    assert set(method.state) == {'image', 'features'}
    assert set(found['compensation'].inputs) == {'previous_features', 'flow'}
    assert set(found['correction'].inputs) == {'image', 'warped_features'}
    assert set(found['correction'].outputs) == {'features', 'mask', 'confidence'}
    warped, features = found['correction'].inputs['warped_features'], found['correction'].outputs['features']
    assert torch.equal(features, warped) != changes
    names = {name for name, _ in method.nonkey.named_parameters() if name.startswith('rectification')}
    assert names == ({'rectification.phi.weight', 'rectification.phi.bias'} if changes else set())


def test_the_next_frame_starts_from_the_corrected_features(twnet, images):
    with torch.no_grad():
        key = run_step(twnet, 'key', {'image': images[0]})
        frame = {'image': images[1], **twnet.host_tensors(images[1])}
        second = run_step(twnet, 'propagated', {**frame, **twnet.state_of(key)})
    state = twnet.state_of(second)
    assert torch.equal(state['previous_features'], second['features'])
    assert not torch.allclose(second['features'], second['warped_features'])
    assert torch.equal(state['previous_picture'], twnet.picture(images[1]))


def test_the_non_key_cnn_has_weights_of_its_own_and_can_take_those_of_the_per_frame_cnn(twnet):
    method = build_method('twnet', 5, LITE)
    method.nonkey.rectification.load_state_dict(twnet.nonkey.rectification.state_dict())
    with torch.no_grad():
        for parameter in method.cnn.parameters():
            parameter.add_(1)
    assert not torch.equal(method.nonkey.cnn.scores.bias, method.cnn.scores.bias)
    method.nonkey.start_from(method.cnn)
    assert torch.equal(method.nonkey.cnn.scores.bias, method.cnn.scores.bias)
    assert torch.equal(method.nonkey.rectification.phi.weight, twnet.nonkey.rectification.phi.weight)


@pytest.mark.parametrize(
    ('untrained', 'filled'), [(['nonkey'], True), (['cnn', 'nonkey'], False), ([], False)]
)
def test_a_non_key_cnn_without_weights_begins_as_the_per_frame_cnn_that_has_some(untrained, filled):
    method = build_method('twnet', 5, LITE)
    with torch.no_grad():
        method.cnn.scores.bias.add_(1)
    method.fill_in(untrained)
    assert torch.equal(method.nonkey.cnn.scores.bias, method.cnn.scores.bias) == filled


@pytest.mark.parametrize(('layer', 'heads'), [(1, 'published'), (1, 'more'), (2, 'published')])
@pytest.mark.parametrize('encoder', [*PUBLISHED_GMACS, 'lite'])
def test_what_the_non_key_cnn_keeps_of_the_per_frame_cnn_has_its_names(encoder, layer, heads):
    with torch.device('meta'):
        method = build_method('twnet', 5, {'encoder': encoder, 'layer': layer, 'heads': heads, 'flow': 'dis'})
    assert set(method.nonkey.cnn.state_dict()) <= set(method.cnn.state_dict())


@pytest.mark.parametrize(
    ('layer', 'parts'),
    [
        (1, {'stem', 'encoder_4', 'encoder_8', 'skip_8', 'decoder_8', 'skip_4', 'decoder_4', 'scores'}),
        (2, {'stem', 'encoder_4', 'skip_4', 'decoder_4', 'scores'}),
    ],
)
def test_a_propagated_frame_runs_the_heads_that_later_lateral_connections_need(layer, parts):
    method = build_method('twnet', 5, {**LITE, 'layer': layer})
    assert {name for name, _ in method.nonkey.cnn.named_children()} == parts


def test_layer_three_carries_features_and_computes_nothing_of_the_current_frame(images):
    method = build_method('twnet', 5, {**LITE, 'layer': 3}).eval()
    assert method.graphs == ('segmenter', 'warp', 'classification')
    assert all('image' not in method.inputs_of(graph) for graph in method.graphs_of('propagated'))
    assert set(method.state) == {'image', 'features'}


def test_layer_three_may_read_features_of_the_key_frame_where_the_composed_flow_leads(images):
    method = build_method('twnet', 5, {**LITE, 'layer': 3, 'carry': 'composed'}).eval()
    flow = torch.full((1, 2, 18, 26), 0.5)
    with torch.no_grad():
        key = run_step(method, 'key', {'image': images[0]})
        step = key
        for image in (images[1], images[0]):
            step = run_step(method, 'propagated', {'image': image, 'flow': flow, **method.state_of(step)})
    assert set(method.state) == {'image', 'key_features', 'key_flow'}
    assert torch.equal(step['key_features'], key['key_features'])
    assert torch.allclose(step['warped_features'], warp(key['key_features'], 2 * flow), atol=1e-6)


def test_folding_for_export_changes_no_result(images):
    torch.manual_seed(3)
    method = build_method('twnet', 5, {**LITE, 'heads': 'stem'}).eval()
    before = method.examples(*images)
    method.fold((72, 104))
    after = method.examples(*images)
    for graph in before:
        for name, tensor in before[graph].outputs.items():
            assert torch.allclose(tensor.float(), after[graph].outputs[name].float(), atol=1e-3), name


def test_a_method_is_rebuilt_by_its_name_and_options(twnet):
    again = build_method('twnet', twnet.classes, twnet.options)
    assert isinstance(again, TwNet)
    assert again.options == twnet.options
    again.load_state_dict(twnet.state_dict())


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'encoder': 'vgg'}, "encoder is 'vgg'; use one of mobilenet_v1, mobilenet_v2, resnet18, lite"),
        ({'layer': 4}, 'layer is 4; use 1, 2 or 3'),
        ({'residual': 'eighth'}, "residual is 'eighth'; use one of full, half, quarter"),
        ({'heads': 'stem'}, "heads is 'stem' with encoder mobilenet_v1 and layer 1; use lite and 2"),
        ({'carry': 'merged'}, "carry is 'merged'; use one of warped, composed"),
        ({'carry': 'composed'}, 'carry is composed with layer 1, which corrects; use layer 3'),
        ({'heads': 'more', 'layer': 2}, "heads is 'more' with layer 2; use layer 1"),
        ({'correction': 'cfr'}, "correction is 'cfr'; use one of attended, plain, none"),
        ({'heads': 'more', 'correction': 'none'}, "heads is 'more' with correction none"),
        ({'flow': 'raft'}, "flow is 'raft'; use one of network, dis, dis_third, dis_half, motion_vectors"),
        ({'decision': 'eighth'}, "decision is 'eighth'; use one of full, half, quarter"),
    ],
)
def test_options_that_cannot_be_used_are_refused(options, message):
    with pytest.raises(SettingsError, match=message), torch.device('meta'):
        build_method('twnet', 11, options)
