"""DAVSS gives what the released program gave, within the tolerance of another float32 program."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from method_models import run_step

from vss_ros.methods.blocks.image import to_rgb

RUNS = {'r0': 19, 'r1': 11}  # 128x192, and 92x140 whose maps have odd sizes
CORNERS = {True: 'ac1', False: 'ac0'}
FRAMES = (1, 2, 3)
LIMIT = 2e-5  # of networks and warps
DISTORTION_LIMIT = 5e-4  # DMNet's small variances magnify rounding
MERGED_LIMIT = 2e-4


def assert_close(found: torch.Tensor, expected: np.ndarray, limit: float = LIMIT) -> None:
    assert found.shape == expected.shape
    assert np.abs(found.numpy() - expected).max() <= limit * np.abs(expected).max()


def assert_same_labels(found: torch.Tensor, expected: np.ndarray) -> None:
    assert (found[0].numpy() != expected).mean() <= 0.0005


def outputs_of(network, names, *inputs):
    """What the named layers of a network give."""
    outputs = {}
    handles = [
        network.get_submodule(name).register_forward_hook(
            lambda _module, _inputs, output, name=name: outputs.update({name: output})
        )
        for name in names
    ]
    with torch.no_grad():
        network(*inputs)
    for handle in handles:
        handle.remove()
    return outputs


@pytest.fixture(scope='module', params=RUNS)
def run(request, filled_davss, reference_arrays):
    """The method, the reference arrays of one run, and its images."""
    prefix = f'{request.param}/'
    arrays = reference_arrays('davss_a.npz')
    arrays = {name.removeprefix(prefix): arrays[name] for name in arrays if name.startswith(prefix)}
    images = torch.from_numpy(arrays['frames'][..., ::-1].copy()).split(1)
    return filled_davss(RUNS[request.param]), arrays, images


@pytest.fixture(scope='module', params=CORNERS)
def sequence(request, run):
    """The method, the arrays of one way to resize, and every step of the sequence as released."""
    davss, arrays, images = run
    davss.align_corners = request.param
    with torch.no_grad():
        steps = [run_step(davss, 'key', {'image': images[0]})]
        for image in images[1:]:
            steps.append(run_step(davss, 'propagated', {'image': image, **davss.state_of(steps[-1])}))
    prefix = f'{CORNERS[request.param]}/'
    of_this = {name.removeprefix(prefix): arrays[name] for name in arrays if name.startswith(prefix)}
    return davss, arrays | of_this, steps


def test_parameter_names_and_shapes_are_those_of_the_published_file(filled_davss, published_davss_keys):
    state = filled_davss(19).state_dict()
    assert {name: list(tensor.shape) for name, tensor in state.items()} == published_davss_keys


def test_layers_of_deeplab_agree_with_the_release(run):
    davss, arrays, images = run
    names = ('xception_features', 'concat_projection', 'decoder')
    found = outputs_of(davss.deeplab, names, to_rgb(images[0]))
    features_4, features_16 = found['xception_features']
    assert_close(features_4[0, ::16, ::2, ::2], arrays['key_low'])
    assert_close(features_16[0, ::32], arrays['key_xception'])
    assert_close(found['concat_projection'][0, ::4], arrays['key_aspp'])
    assert_close(found['decoder'][0, ::16, ::2, ::2], arrays['key_decoder'])


def test_every_level_of_the_flow_agrees_with_the_release(run):
    davss, arrays, images = run
    names = [f'predict_flow{level}' for level in (6, 5, 4, 3)]
    found = outputs_of(davss.flownet, names, to_rgb(images[1]), to_rgb(images[0]))
    for name in names:
        assert_close(found[name][0], arrays[name.replace('predict_flow', 'flow_raw')])


def test_key_frame_agrees_with_the_release(sequence):
    _, arrays, steps = sequence
    assert_close(steps[0]['scores'][0], arrays['key_logits'])
    assert_close(steps[0]['appearance'][0], arrays['frame_q'][0])
    assert_same_labels(steps[0]['mask'], arrays['key_argmax'])


@pytest.mark.parametrize('i', FRAMES)
def test_propagated_frames_agree_with_the_release(sequence, i):
    davss, arrays, steps = sequence
    step, rgb = steps[i], to_rgb(steps[i]['image'])
    with torch.no_grad():
        seen = davss.quarter(rgb)
        cue, distortion = davss.cfnet(rgb), davss.dmnet(step['warped_appearance'], seen)
        merged, wide = davss.rectify(step['warped'], cue, distortion, rgb.shape[2:])
    assert_close(step['flow'][0], arrays['flow'][i - 1])
    assert_close(step['warped'][0], arrays['warp_logits'][i - 1])
    assert_close(step['warped_appearance'][0], arrays['warp_frame'][i - 1])
    assert_close(seen[0], arrays['frame_q'][i])
    assert_close(cue[0], arrays['cue'][i - 1])
    assert_close(distortion[0, 0], arrays['dm'][i - 1], DISTORTION_LIMIT)
    assert_same_labels(step['mask'], arrays['argmax'][i - 1])
    assert torch.equal(step['distortion'], wide)
    if 'merged_s4' in arrays:
        assert_close(merged[0, :, ::4, ::4], arrays['merged_s4'][i - 1], MERGED_LIMIT)
    if i == FRAMES[-1]:
        assert_close(merged[0, :, rgb.shape[2] // 2 + 1], arrays['merged_row'], MERGED_LIMIT)
        if 'dm_up' in arrays:
            assert_close(wide[0, 0], arrays['dm_up'], DISTORTION_LIMIT)


def test_features_of_dmnet_agree_with_the_release(filled_davss, reference_arrays):
    davss, arrays = filled_davss(19), reference_arrays('davss_a.npz')
    pictures = {
        'dmnet_warped': arrays['r0/ac1/warp_frame'][-1:],
        'dmnet_current': arrays['r0/ac1/frame_q'][-1:],
    }
    for name, picture in pictures.items():
        with torch.no_grad():
            found = davss.dmnet.features(torch.from_numpy(picture))[0, :, ::2, ::2]
        assert_close(found, arrays[f'r0/ac1/{name}'], DISTORTION_LIMIT)


def test_nothing_of_the_correction_is_carried_on(sequence):
    _, _, steps = sequence
    for before, step in pairwise(steps):
        assert torch.equal(step['scores'], step['warped'])
        assert torch.equal(step['appearance'], step['warped_appearance'])
        assert torch.equal(step['previous_scores'], before['scores'])
        assert torch.equal(step['previous_appearance'], before['appearance'])
