"""`vss import-weights` turns a published file into a model that runs without PyTorch."""

from __future__ import annotations

from argparse import ArgumentParser
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

from vss_ros.cli import import_weights
from vss_ros.core.errors import ModelError
from vss_ros.core.frame import Frame
from vss_ros.core.open_segmenter import open_segmenter
from vss_ros.core.settings import EngineSettings
from vss_ros.methods import build_method

COMMON = ['--classes', 'camvid11', '--size', '160x120']


def run(*arguments) -> int:
    parser = ArgumentParser()
    import_weights.add_arguments(parser)
    return import_weights.main(parser.parse_args([str(argument) for argument in arguments]))


def test_a_published_file_becomes_a_model_that_segments_as_released(filled_evss, reference_arrays, tmp_path):
    file, folder = tmp_path / 'evss_camvid_best.pth', tmp_path / 'evss-camvid'
    state = filled_evss(11).state_dict()
    torch.save({f'module.{name}': tensor for name, tensor in state.items()}, file)
    assert run(file, '-o', folder, *COMMON, '--set', 'w_f=0.2') == 0

    content = yaml.safe_load((folder / 'model.yaml').read_text())
    assert content['name'] == 'evss-camvid'
    assert content['options']['w_f'] == 0.2
    assert content['training'] == {'imported_from': ['evss_camvid_best.pth'], 'untrained': []}

    arrays = reference_arrays('evss_a_camvid.npz')
    segmenter = open_segmenter(folder, EngineSettings(engine='onnxruntime', threads=1))
    names = ('key_pred', 'pred02_1', 'pred02_2', 'pred02_3')
    for i, (rgb, name) in enumerate(zip(arrays['frames'], names, strict=True)):
        found = segmenter.step(Frame(rgb[..., ::-1].copy(), stamp_ns=i * 10**8))
        assert found.is_key == (i == 0)
        assert (found.mask != arrays[name]).mean() <= 0.001
        if i > 0:
            fine = np.rint(255 * arrays[f'fine_{i}'])
            assert np.abs(found.distortion() - fine).max() <= 1


def test_an_incomplete_model_is_refused_unless_asked_for(filled_evss, tmp_path):
    file, folder = tmp_path / 'csrnet.pth', tmp_path / 'model'
    torch.save(filled_evss(11).csrnet.state_dict(), file)
    with pytest.raises(ModelError, match=r'flownet, conet is in none of the files; .* --partial'):
        run(file, '-o', folder, *COMMON)
    assert not folder.exists()


def test_what_is_left_untrained_may_begin_as_what_was_imported(tmp_path, monkeypatch):
    options = {'encoder': 'lite', 'layer': 2, 'flow': 'dis'}
    cnn, exported = build_method('twnet', 11, options).cnn, []

    def keep(method, path, **_):
        exported.append(method)
        return SimpleNamespace(path=path, name='twnet', image_size=(120, 160), graphs=())

    monkeypatch.setattr('vss_ros.exporting.export.export', keep)
    file = tmp_path / 'cnn.pth'
    torch.save({f'cnn.{name}': tensor for name, tensor in cnn.state_dict().items()}, file)
    arguments = [part for name, value in options.items() for part in ('--set', f'{name}={value}')]
    assert run(file, '-o', tmp_path / 'model', *COMMON, '--method', 'twnet', *arguments, '--partial') == 0
    (method,) = exported
    assert torch.equal(method.nonkey.cnn.scores.weight, cnn.scores.weight)


@pytest.mark.parametrize('bad', [['--size', '96'], ['--size', '96x'], ['--set', 'w_f']])
def test_arguments_that_cannot_be_read_are_refused(tmp_path, bad, capsys):
    with pytest.raises(SystemExit):
        run('x.pth', '-o', tmp_path, *COMMON, *bad)
    assert 'write' in capsys.readouterr().err
