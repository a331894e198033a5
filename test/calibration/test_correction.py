"""How far a correction is let through, fitted to clips, and the command that writes a model with it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from vss_ros.calibration.correction import OFFSETS, Samples, collect, cross_validate, fit_offsets, miou
from vss_ros.cli.main import main
from vss_ros.core.engines.torch_device import CpuDevice
from vss_ros.core.errors import ModelError, SourceError
from vss_ros.core.metrics import ConfusionMatrix
from vss_ros.core.model.folder import load_model
from vss_ros.core.settings import StreamSettings
from vss_ros.core.sources.open import open_source
from vss_ros.core.sources.synthetic import SyntheticSource
from vss_ros.core.stream.segmenter import VideoSegmenter
from vss_ros.exporting.export import export
from vss_ros.exporting.weights import load_method
from vss_ros.methods import build_method
from vss_ros.torch_engine.engine import TorchEngine

SIZE = {'height': 64, 'width': 96}
CLIPS = ['synthetic:1x24', 'synthetic:2x24']
ONCE = ['--frames', '24', '--span', '6', '--threads', '1']


def turned_out(best_by_age, frames=10, classes=3, labelled=True, power=1):
    """Frames that are the more right, the closer an offset is to the best of its age."""
    age = np.repeat(list(best_by_age), frames)
    away = np.abs(np.array(OFFSETS)[None] - np.array([best_by_age[each] for each in age])[:, None])
    wrong = (10 * away**power).astype(int)
    counts = np.zeros((len(age), len(OFFSETS), classes, classes + 1), np.int64)
    for c in range(classes):
        counts[:, :, c, c] = 1000 - wrong
        counts[:, :, c, (c + 1) % classes] = wrong
    return Samples(counts, counts[:, 0], np.full(len(age), labelled), age, np.arange(len(age)) % 4)


def test_the_best_offset_of_each_age_is_found_and_ages_between_lie_between():
    samples = turned_out({3: -3.0, 6: -3.0, 9: -1.0, 12: -1.0})
    assert fit_offsets(samples) == [-3, -3, -3, -3, -3, -3, -2.33, -1.67, -1, -1, -1, -1]


def test_an_age_is_judged_together_with_those_beside_it():
    odd_one = {1: -2.0, 2: 2.0, 3: -2.0}
    assert fit_offsets(turned_out(odd_one))[1] == -2


def test_clips_left_out_are_decided_with_what_the_others_say():
    samples = turned_out({1: -1.0, 2: -1.0})
    assert miou(cross_validate(samples), samples.labelled) == 1
    assert miou(samples.shown, samples.labelled) < 1


def test_labels_and_own_masks_weigh_the_same_however_many_there_are_of_each():
    few = turned_out({1: -1.0}, frames=4, power=2)
    many = turned_out({1: -3.0}, frames=400, power=2, labelled=False)
    samples = Samples(*map(np.concatenate, zip(few, many, strict=True)))
    assert fit_offsets(samples) == [-2]


def test_frames_are_counted_as_the_model_with_that_offset_would_decide_them(tiny_model):
    model = load_model(tiny_model)
    clip = list(SyntheticSource(1, 30, **SIZE))[:6]  # the first segment has its full length
    samples = collect(model, [(number, clip) for number in range(4)], span=6)
    assert list(samples.age) == 4 * [1, 2, 3, 4, 5]
    assert list(samples.clip) == sorted(4 * [0, 1, 2, 3] + [0, 1, 2, 3])
    assert np.array_equal(samples.counts[:5], samples.counts[5:10])
    for place in (0, len(OFFSETS) - 1):
        method = load_method(model, {'edge_offsets': [OFFSETS[place]]})
        segmenter = VideoSegmenter(model, TorchEngine(method, CpuDevice(), 'fp32'), StreamSettings(6))
        for frame, counts in zip(clip, [None, *samples.counts[:5]], strict=True):
            found = segmenter.step(frame)
            if counts is not None:
                assert np.array_equal(counts[place], confusion(frame.truth, found.mask))
    assert not np.array_equal(samples.counts[:, 0], samples.counts[:, -1])


def confusion(truth, mask):
    counted = ConfusionMatrix(11)
    counted.update(truth, mask)
    return counted.counts


def test_frames_without_labels_are_compared_with_the_mask_computed_in_full(tiny_model):
    model = load_model(tiny_model)
    clip = [dataclasses.replace(frame, truth=None) for frame in SyntheticSource(1, 30, **SIZE)]
    samples = collect(model, [(0, clip)], span=6)
    method = load_method(model)
    with torch.no_grad():
        own = method.segmenter(torch.from_numpy(clip[1].image)[None])['mask'][0].numpy()
    rows = np.bincount(own.ravel(), minlength=11)
    assert np.array_equal(samples.shown[0].sum(1), rows)


def test_every_frame_is_corrected_whatever_the_model_says(tiny_model):
    model = dataclasses.replace(load_model(tiny_model), correction_interval=2)
    samples = collect(model, [(0, SyntheticSource(1, 80, **SIZE))], span=6)
    assert set(samples.age) == {1, 2, 3, 4, 5}


def test_the_command_writes_a_model_with_the_offsets_and_all_else_as_it_was(tiny_model, tmp_path, capsys):
    new = tmp_path / 'corrected'
    words = ['calibrate', str(tiny_model), *CLIPS, '--correction', *ONCE]
    assert main([*words, '-o', str(new)]) == 0
    printed = capsys.readouterr().out
    assert 'mIoU % before, and after' in printed
    assert 'fit them anew' in printed
    old, made = load_model(tiny_model), load_model(new)
    assert len(made.options['edge_offsets']) == 5
    assert {**old.options, 'edge_offsets': made.options['edge_offsets']} == made.options
    assert made.weights.read_bytes() == old.weights.read_bytes()
    notes = made.training['correction']
    assert notes['fitted_on'] == CLIPS
    samples = collect(old, enumerate(map(open_source, CLIPS)), span=6)
    assert made.options['edge_offsets'] == fit_offsets(samples)


def test_a_method_without_such_a_correction_is_refused(tmp_path):
    method = build_method('per-frame', 11, {'backbone': 'lite'})
    model = export(
        method, tmp_path / 'm', name='m', class_set='camvid11', image_size=(64, 96), keep_graphs=False
    )
    with pytest.raises(ModelError, match='m is per-frame; edge_offsets are an option of evss and evss-lite'):
        collect(model, [(0, SyntheticSource(1, 4, **SIZE))], span=4)


def test_too_few_corrected_frames_are_refused_with_what_to_give(tiny_model):
    with pytest.raises(SourceError, match=r'3 corrected frames are too few .* with --stills \(20 or'):
        collect(load_model(tiny_model), [(0, SyntheticSource(1, 4, **SIZE))], span=4)


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['synthetic:1x9', '--correction'], 'name a folder for the model with -o'),
        (['synthetic:1x9', '--correction', '--dry-run', '--engine', 'onnxruntime'], 'leave --engine out'),
        (['synthetic:1x9', '--correction', '--dry-run'], '8 corrected frames are too few to fit to'),
    ],
)
def test_a_calibration_of_the_correction_without_sense_is_one_line_and_code_2(
    tiny_model, capsys, words, message
):
    assert main(['calibrate', str(tiny_model), *words]) == 2
    assert message in capsys.readouterr().err
