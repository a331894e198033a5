"""What the options of EVSS change, and how a method is built, chained and refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from method_models import run_step

from vss_ros.core.errors import ModelError, SettingsError, ShapeError
from vss_ros.methods import METHODS, build_method
from vss_ros.methods.blocks.decide import decide, labels_of
from vss_ros.methods.blocks.image import to_rgb
from vss_ros.methods.blocks.merge import merge
from vss_ros.methods.blocks.resize import resize
from vss_ros.methods.evss import distortion_map

OPTIONS = {
    'w_f': 0.5,
    'edge_offsets': [-3, -1.5],
    'reference': 'previous',
    'fusion': 'quarter',
    'carry': 'merged',
    'decision': 'half',
    'flow': 'dis',
    'backbone': 'lite',
    'correction_interval': 3,
    'magnify': 1.5,
    'norms': 'mixed',
}


@pytest.fixture(scope='module')
def evss(filled_evss):
    return filled_evss(11)


@pytest.fixture(scope='module')
def images(reference_arrays):
    """Frames that follow each other, each uint8 (1, H, W, 3) BGR."""
    frames = reference_arrays('evss_a_camvid.npz')['frames'][:, :, :, ::-1]
    return torch.from_numpy(frames.copy()).split(1)


@pytest.fixture(scope='module')
def tensors(evss, images):
    """Inputs of the correction on a real propagated frame."""
    return evss.examples(images[0], images[1])['correction'].inputs


def correct(evss, tensors, monkeypatch, **options):
    for name, value in options.items():
        if name == 'decision':
            monkeypatch.setattr(evss, name, value)
        monkeypatch.setitem(evss.options, name, value)
    with torch.no_grad():
        return evss.correction(**tensors)


@pytest.mark.parametrize('name', ['evss'])
def test_a_method_is_rebuilt_by_its_name_and_options(name):
    first = build_method(name, 5, OPTIONS)
    again = build_method(name, first.classes, first.options)
    assert first.options == again.options == OPTIONS
    shapes = {key: tensor.shape for key, tensor in first.state_dict().items()}
    again.load_state_dict(first.state_dict())
    assert {key: tensor.shape for key, tensor in again.state_dict().items()} == shapes


def test_unknown_methods_and_options_are_refused_by_name():
    with pytest.raises(ModelError, match=r"no method 'davs'; use one of evss, evss-lite"):
        build_method('davs', 11)
    with pytest.raises(ModelError, match=r'no option wf; it has w_f, reference, fusion'):
        build_method('evss', 11, {'wf': 0.5})
    assert 'evss' in METHODS


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'w_f': 1.5}, 'w_f is 1.5; use a weight from 0 to 1'),
        ({'w_f': 'half'}, "w_f is 'half'; use a number"),
        ({'w_f': True}, 'w_f is True; use a number'),
        ({'carry': 1}, 'carry is 1; use a text'),
        ({'w_f': np.float64(0.5)}, 'use a number'),  # which model.yaml could not hold
        ({'temperatures': 1.5}, 'temperatures is 1.5; use a list of numbers above 0'),
        ({'reference': 'first'}, "reference is 'first'; use one of key, previous"),
        ({'carry': 'updated'}, "carry is 'updated'; use one of warped, merged"),
        ({'flow': 'raft'}, "flow is 'raft'; use one of network, dis, dis_third, dis_half, motion_vectors"),
        ({'decision': 'half'}, "decision is 'half' with fusion full; .* use fusion quarter"),
    ],
)
def test_options_that_cannot_be_used_are_refused(options, message):
    with pytest.raises(SettingsError, match=message):
        build_method('evss', 11, options)


def test_a_flow_from_the_host_replaces_the_flow_network():
    method = build_method('evss', 5, {'flow': 'dis'}).eval()
    assert method.graphs == ('segmenter', 'warp', 'correction', 'carry')
    assert method.steps['propagated'] == ('flow', 'warp', 'correction')
    assert method.steps['carried'] == ('flow', 'carry')
    assert not any(name.startswith('flownet') for name in method.state_dict())
    examples = method.examples(torch.zeros(1, 64, 96, 3, dtype=torch.uint8))
    assert examples['warp'].inputs['flow'].shape == (1, 2, 16, 24)


def test_examples_name_every_input_and_output_of_every_graph(evss):
    examples = evss.examples(torch.zeros(1, 64, 96, 3, dtype=torch.uint8))
    assert tuple(examples) == evss.graphs
    assert evss.graphs == ('segmenter', 'flow', 'warp', 'correction', 'carry')
    described = {
        name: (str(tensor.dtype).removeprefix('torch.'), tuple(tensor.shape))
        for example in examples.values()
        for name, tensor in {**example.inputs, **example.outputs}.items()
    }
    assert described == {
        'image': ('uint8', (1, 64, 96, 3)),
        'previous_image': ('uint8', (1, 64, 96, 3)),
        'scores': ('float32', (1, 11, 16, 24)),
        'previous_scores': ('float32', (1, 11, 16, 24)),
        'labels': ('uint8', (1, 1, 16, 24)),
        'reference_labels': ('uint8', (1, 1, 16, 24)),
        'flow': ('float32', (1, 2, 16, 24)),
        'warped': ('float32', (1, 11, 16, 24)),
        'previous_mask': ('uint8', (1, 64, 96)),
        'previous_confidence': ('uint8', (1, 64, 96)),
        'mask': ('uint8', (1, 64, 96)),
        'confidence': ('uint8', (1, 64, 96)),
        'distortion': ('float32', (1, 1, 64, 96)),
        'corrected': ('float32', ()),
    }


def test_results_and_state_stay_float32_where_networks_compute_in_bfloat16(evss):
    image = torch.zeros(1, 64, 96, 3, dtype=torch.uint8)
    plain = evss.examples(image)
    with torch.autocast('cpu', torch.bfloat16):
        lower = evss.examples(image)
    for graph in evss.graphs:
        for name, tensor in lower[graph].outputs.items():
            assert tensor.dtype == plain[graph].outputs[name].dtype


def test_a_stream_cannot_start_with_a_propagated_step(evss):
    with pytest.raises(ModelError, match=r"'flow' needs previous_image; .* key step"):
        run_step(evss, 'propagated', {'image': torch.zeros(1, 64, 96, 3, dtype=torch.uint8)})


@pytest.mark.parametrize('reference', ['key', 'previous'])
@pytest.mark.parametrize('carry', ['warped', 'merged'])
@pytest.mark.parametrize('fusion', ['full', 'quarter'])
def test_state_is_what_carry_and_reference_say(evss, tensors, monkeypatch, fusion, carry, reference):
    found = correct(evss, tensors, monkeypatch, fusion=fusion, carry=carry, reference=reference)
    warped, old_labels = tensors['warped'], tensors['reference_labels']
    with torch.no_grad():
        edge, updated = evss.conet(to_rgb(tensors['image']), warped)
    at = (120, 160) if fusion == 'full' else (30, 40)
    coarse = (labels_of(warped) != old_labels).float()
    distortion = distortion_map(resize(coarse, at), resize(edge, at), 0.2)
    merged = merge(resize(warped, at), resize(updated, at), distortion)
    low = resize(merged, (30, 40))

    assert torch.equal(found['distortion'], distortion)
    assert torch.equal(found['mask'], decide(merged, (120, 160))['mask'])
    assert torch.equal(found['scores'], low if carry == 'merged' else warped)
    labels = labels_of(low) if reference == 'previous' else old_labels
    assert torch.equal(found['labels'], labels.to(torch.uint8))
    assert found['corrected'] == (labels_of(low) != labels_of(warped)).float().mean()


@pytest.mark.parametrize(('decision', 'part'), [('half', 2), ('quarter', 4)])
def test_decision_changes_only_the_mask_and_its_confidence(evss, tensors, monkeypatch, decision, part):
    full = correct(evss, tensors, monkeypatch, fusion='quarter')
    coarse = correct(evss, tensors, monkeypatch, decision=decision)
    for name in ('scores', 'labels', 'distortion', 'corrected'):
        assert torch.equal(full[name], coarse[name])
    assert coarse['mask'].shape[1:] == (full['mask'].shape[1] // part, full['mask'].shape[2] // part)
    enlarged = coarse['mask'].repeat_interleave(part, 1).repeat_interleave(part, 2)
    assert 0.7 < (full['mask'] == enlarged).float().mean() < 1


def test_merge_keeps_the_warp_where_distortion_is_0_and_the_update_where_it_is_1():
    warped, updated = torch.rand(2, 1, 11, 6, 8)
    assert torch.equal(merge(warped, updated, torch.zeros(1, 1, 6, 8)), warped)
    torch.testing.assert_close(merge(warped, updated, torch.ones(1, 1, 6, 8)), updated)
    with pytest.raises(ShapeError, match='all must have one size'):
        merge(warped, updated[..., :7], torch.ones(1, 1, 6, 8))


def test_distortion_weighs_the_changed_class_against_the_edge_probability():
    coarse = torch.tensor([[[[0.0, 1.0]]]])
    edge = torch.tensor([[[[0.0, 2.0]], [[0.0, 1.0]]]])
    probability = edge.softmax(1)[:, 1:]
    found = distortion_map(coarse, edge, 0.2)
    torch.testing.assert_close(found, 0.2 * coarse + 0.8 * probability)
    assert found[0, 0, 0, 0] == pytest.approx(0.4)


def test_offsets_trust_the_warp_more_by_frames_since_the_key_frame_but_not_where_it_changed_the_class(
    evss, tensors
):
    method = build_method('evss', 11, {'edge_offsets': [-100, -2.5, 0]}).eval()
    method.load_state_dict(evss.state_dict())
    assert 'age' in method.inputs_of('correction')
    with torch.no_grad():
        plain = evss.correction(**tensors)['distortion']
        first, second, third, fourth = (
            method.correction(**tensors, age=torch.full((1, 1, 1, 1), float(age))) for age in range(1, 5)
        )
    changed = (labels_of(tensors['warped']) != tensors['reference_labels']).float()
    torch.testing.assert_close(first['distortion'], 0.2 * resize(changed, plain.shape[2:]))
    assert (second['distortion'] < plain).all()
    assert torch.equal(third['distortion'], plain)
    assert torch.equal(fourth['distortion'], plain), 'the last one serves all later ones'


def test_one_offset_serves_all_frames_and_needs_no_age(evss, tensors):
    method = build_method('evss', 11, {'edge_offsets': [-100]}).eval()
    method.load_state_dict(evss.state_dict())
    assert 'age' not in method.inputs_of('correction')
    with torch.no_grad():
        found = method.correction(**tensors)['distortion']
    assert found.max() <= 0.2


@pytest.mark.parametrize('offsets', [-2.5, [float('nan')], [0, float('inf')], ['-1'], [True]])
def test_offsets_that_are_no_list_of_numbers_are_refused_with_an_example(offsets):
    with pytest.raises(SettingsError, match=r'edge_offsets is .*such as \[-3, -2, 0\]'):
        build_method('evss', 11, {'edge_offsets': offsets})


@pytest.mark.parametrize(('decision', 'part'), [('quarter', 4), ('half', 2), ('full', 1)])
def test_a_carried_mask_moves_by_whole_pixels_however_coarsely_it_was_decided(decision, part):
    method = build_method('evss-lite', 3, {'decision': decision})
    height, width = 24 // part, 32 // part
    mask = torch.arange(height * width, dtype=torch.int32).reshape(1, height, width).to(torch.uint8)
    flow = torch.zeros(1, 2, 6, 8)
    with torch.no_grad():
        flow[:, 0], flow[:, 1] = 5 / 4, -3 / 4  # in cells of 4 pixels: 5 to the right, 3 up
        by_pixels = method.carry(mask, 255 - mask, flow)
        flow[:, 0], flow[:, 1] = 2, -1
        by_cells = method.carry(mask, 255 - mask, flow)
    shown = mask[0].repeat_interleave(part, 0).repeat_interleave(part, 1)
    assert torch.equal(by_pixels['mask'][0, 3:, :-5], shown[:-3, 5:])
    down, across = 4 // part, 8 // part  # the confidence stays at the size at which it was decided
    assert torch.equal(by_cells['confidence'][0, down:, :-across], 255 - mask[0, :-down, across:])


def test_flow_that_is_no_number_anywhere_carries_a_mask_to_where_it_was():
    method = build_method('evss-lite', 3, {'decision': 'full'})
    mask = torch.arange(24 * 32, dtype=torch.int32).reshape(1, 24, 32).to(torch.uint8)
    with torch.no_grad():
        found = method.carry(mask, 255 - mask, torch.full((1, 2, 6, 8), torch.nan))
    assert torch.equal(found['mask'], mask)
    assert torch.equal(found['confidence'], 255 - mask)


@pytest.mark.parametrize('carry', ['warped', 'merged', 'composed'])
def test_where_nothing_moved_a_carried_frame_shows_the_result_of_the_last_corrected_one(evss, images, carry):
    method = build_method('evss', 11, {'carry': carry, 'flow': 'dis'}).eval()
    method.load_state_dict(evss.state_dict(), strict=False)  # but for the flow network
    with torch.no_grad():
        key = run_step(method, 'key', {'image': images[0]})
        given = {'image': images[1], **method.host_tensors(images[1])}
        corrected = run_step(method, 'propagated', {**given, **method.state_of(key)})
        for computed in (key, corrected):
            shown = run_step(method, 'carried', {**given, **method.state_of(computed)})
            assert torch.equal(shown['mask'], computed['mask'])
            assert torch.equal(shown['confidence'], computed['confidence'])
    assert (corrected['mask'] != key['mask']).any()


@pytest.mark.parametrize('interval', [0, -1, 1.5, True, '3'])
def test_a_correction_interval_that_cannot_be_used_is_refused(interval):
    with pytest.raises(SettingsError, match=r'correction_interval is .*use (1 or more|a whole number)'):
        build_method('evss-lite', 11, {'correction_interval': interval})
