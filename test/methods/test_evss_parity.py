"""EVSS gives what the released program gave, within the tolerance of another float32 program."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from method_models import run_step

from vss_ros.methods.blocks.decide import labels_of
from vss_ros.methods.blocks.image import to_rgb
from vss_ros.methods.blocks.merge import merge
from vss_ros.methods.blocks.resize import resize
from vss_ros.methods.blocks.warp import warp

FILES = {'evss_a.npz': 19, 'evss_a_camvid.npz': 11}
FRAMES = (1, 2, 3)


def assert_close(found: torch.Tensor, expected: np.ndarray) -> None:
    torch.testing.assert_close(found[0], torch.from_numpy(expected), rtol=0, atol=1e-3)


def assert_same_labels(found: torch.Tensor, expected: np.ndarray) -> None:
    assert (found.squeeze().numpy() != expected).mean() <= 0.0005


@pytest.fixture(scope='module', params=FILES)
def sequence(request, filled_evss, reference_arrays):
    """The method, its reference arrays, and every step of the sequence as released."""
    arrays = reference_arrays(request.param)
    evss = filled_evss(FILES[request.param])
    images = torch.from_numpy(arrays['frames'][..., ::-1].copy()).split(1)
    with torch.no_grad():
        steps = [run_step(evss, 'key', {'image': images[0]})]
        for image in images[1:]:
            steps.append(run_step(evss, 'propagated', {'image': image, **evss.state_of(steps[-1])}))
    return evss, arrays, steps


@pytest.mark.parametrize('file', FILES)
def test_parameter_names_and_shapes_are_those_of_published_files(file, filled_evss, published_keys):
    state = filled_evss(FILES[file]).state_dict()
    backbone = {k: v for k, v in state.items() if k.startswith('csrnet.backbone.')}
    second = {k.replace('csrnet.backbone.', 'resnet.'): v for k, v in backbone.items()}
    ours = {name: list(tensor.shape) for name, tensor in (state | second).items()}
    assert len(ours) == 985
    assert ours == published_keys(FILES[file])


def test_key_frame_agrees_with_the_release(sequence):
    evss, arrays, steps = sequence
    with torch.no_grad():
        rgb = evss.csrnet.normalise(to_rgb(steps[0]['image']))
        features = evss.csrnet.backbone(rgb)
    assert_close(features[:, :, ::2, ::2], arrays['key_feat_s'])
    assert_close(steps[0]['scores'], arrays['key_logits'])
    assert_same_labels(steps[0]['labels'], arrays['key_pred_low'])
    assert_same_labels(steps[0]['mask'], arrays['key_pred'])


@pytest.mark.parametrize('i', FRAMES)
def test_propagated_frames_agree_with_the_release(sequence, i):
    evss, arrays, steps = sequence
    step = steps[i]
    with torch.no_grad():
        edge, updated = evss.conet(to_rgb(step['image']), step['warped'])
    assert_close(step['flow'], arrays[f'flow_{i}'])
    assert_close(step['warped'], arrays[f'warped_{i}'])
    assert_close(edge, arrays[f'edge_{i}'])
    assert_close(updated, arrays[f'update_{i}'])
    coarse = labels_of(step['warped']) != step['reference_labels']
    assert_same_labels(coarse, arrays[f'coarse_{i}'])
    assert_close(step['distortion'][:, 0], arrays[f'fine_{i}'])
    size = step['image'].shape[1:3]
    merged = merge(resize(step['warped'], size), resize(updated, size), step['distortion'])
    assert_close(merged[:, :, 1::4, 2::4], arrays[f'merged_s_{i}'])
    assert_same_labels(step['mask'], arrays[f'pred02_{i}'])


@pytest.mark.parametrize('i', FRAMES)
def test_the_papers_weight_agrees_with_the_release(sequence, i, monkeypatch):
    evss, arrays, steps = sequence
    monkeypatch.setitem(evss.options, 'w_f', 0.5)
    with torch.no_grad():
        assert_same_labels(evss.run('correction', steps[i])['mask'], arrays[f'pred05_{i}'])


@pytest.mark.parametrize(('w_f', 'name'), [(0.2, '02'), (0.5, '05')])
def test_algorithm_1_compares_with_the_previous_prediction(sequence, w_f, name, monkeypatch):
    evss, arrays, steps = sequence
    monkeypatch.setitem(evss.options, 'w_f', w_f)
    monkeypatch.setitem(evss.options, 'reference', 'previous')
    step = steps[0]
    for i in FRAMES:
        tensors = {**steps[i], **evss.state_of(step), 'image': steps[i]['image']}
        with torch.no_grad():
            step = tensors | evss.run('correction', tensors)
        coarse = labels_of(step['warped']) != step['reference_labels']
        assert_same_labels(coarse, arrays[f'alg1_coarse{name}_{i}'])
        assert_same_labels(step['mask'], arrays[f'alg1_pred{name}_{i}'])
        assert_same_labels(step['labels'], arrays[f'alg1_low{name}_{i}'])


def test_carried_scores_and_reference_are_those_of_the_key_frame(sequence):
    _, _, steps = sequence
    for before, step in pairwise(steps):
        assert torch.equal(step['scores'], step['warped'])
        assert torch.equal(step['previous_scores'], before['scores'])
        assert torch.equal(step['labels'], steps[0]['labels'])


def test_corrected_is_the_share_of_cells_whose_label_fusing_changed(sequence, monkeypatch):
    evss, arrays, steps = sequence
    monkeypatch.setitem(evss.options, 'reference', 'previous')
    warped = labels_of(torch.from_numpy(arrays['warped_1'])[None])[0, 0].numpy()
    expected = (warped != arrays['alg1_low02_1']).mean()
    assert float(steps[1]['corrected']) == pytest.approx(expected, abs=1e-3)
    assert 0 < expected < 1


def test_every_layer_gives_what_that_of_the_release_gave(filled_evss, reference_arrays, published_trace):
    evss, found = filled_evss(19), {}

    def note(name):
        return lambda layer, _, output: found.setdefault(name, []).append(output.numpy().copy())

    names = {record['name'] for record in published_trace}
    for name, layer in evss.named_modules():
        if name in names:
            layer.register_forward_hook(note(name))
    images = torch.from_numpy(reference_arrays('evss_a.npz')['frames'][:2, ..., ::-1].copy()).split(1)
    key, current = (to_rgb(image) for image in images)
    with torch.no_grad():
        evss.conet(current, warp(evss.csrnet(key), evss.flownet(current, key)))

    assert len(published_trace) == sum(map(len, found.values()))
    for record in published_trace:
        output = found[record['name']][record['call']]
        batch = [1] if output.ndim == 2 else []  # the release has none where it weighs two maps
        assert list(output.shape) == batch + record['shape'], record['name']
        samples = output.flat[np.linspace(0, output.size - 1, 6).astype(int)]
        values = [*samples, output.mean(), output.std(), abs(output).max()]
        expected = [*record['samples'], record['mean'], record['std'], record['absmax']]
        assert values == pytest.approx(expected, rel=1e-4, abs=1e-3), record['name']


def test_published_key_lists_differ_only_in_the_classes(published_keys):
    citys, camvid = published_keys(19), published_keys(11)
    other = {name for name in citys if citys[name] != camvid[name]}
    heads = ('csrnet.logits.conv', 'conet.predict_cc')
    assert other == {f'{head}.{kind}' for head in heads for kind in ('weight', 'bias')}
    assert list(citys) == list(camvid)
