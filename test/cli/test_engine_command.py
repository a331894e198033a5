"""`vss engine`, as far as it goes without a GPU."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from vss_ros.cli.main import main
from vss_ros.core.engines.engine_cache import EngineCache, EngineKey
from vss_ros.core.engines.remembered import Remembered
from vss_ros.core.model.folder import load_model


@pytest.fixture
def cache(tmp_path) -> EngineCache:
    """A cache with one engine of the model `tiny` and one of another."""
    cache = EngineCache(tmp_path / 'cache')
    for model in ('tiny', 'other'):
        key = EngineKey(model, 'flow', (64, 96), 'fp16', model, 'tensorrt 10.3.0', 'sm_87', 'Orin', 'linux')
        engine = cache.store(key, b'engine', {'build_seconds': 61.5})
        found = {'passed': model == 'tiny', 'agreement': 0.999, 'error': 0.01, 'worst': 'mask'}
        cache.record_self_check(engine, found)
    return cache


def test_list_shows_engines_with_their_self_check(cache, capsys):
    assert main(['engine', 'list', '--engine-cache', str(cache.folder)]) == 0
    shown = ' '.join(capsys.readouterr().out.split())
    assert 'passed' in shown
    assert 'FAILED' in shown


def test_list_of_an_empty_cache_says_so(tmp_path, capsys):
    assert main(['engine', 'list', '--engine-cache', str(tmp_path / 'none')]) == 0
    assert 'holds no engine' in capsys.readouterr().out


def test_prune_of_a_model_removes_its_engines_and_no_others(cache, tiny_model, capsys):
    assert main(['engine', 'prune', str(tiny_model), '--engine-cache', str(cache.folder)]) == 0
    assert '1 engines removed, 1 kept' in capsys.readouterr().out
    assert [entry.key['model'] for entry in cache.entries()] == ['other']


def test_prune_of_a_model_removes_what_onnx_runtime_keeps_of_its_graphs(cache, tiny_model):
    sha256 = load_model(tiny_model).graphs['segmenter'].sha256
    folders = [cache.folder / 'onnxruntime' / name for name in (sha256[:16], f'{sha256[:16]}-1.2', 'f' * 16)]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / 'a.engine').write_bytes(b'engine')
    assert main(['engine', 'prune', str(tiny_model), '--engine-cache', str(cache.folder)]) == 0
    assert [folder.exists() for folder in folders] == [False, False, True]


def test_prune_of_a_model_lets_trials_and_checks_be_made_anew(cache, tiny_model):
    found = Remembered(str(cache.folder), 'cpu-trial', ['facts'], 'a trial')
    found.write({'winner': 'openvino'})
    assert main(['engine', 'prune', '--engine-cache', str(cache.folder)]) == 0
    assert found.read(dict) == {'winner': 'openvino'}
    assert main(['engine', 'prune', str(tiny_model), '--engine-cache', str(cache.folder)]) == 0
    assert found.read(dict) is None


def test_the_model_may_stand_before_its_options_or_behind_them(cache, tiny_model, capsys):
    words = ['--engine-cache', str(cache.folder)]
    for order in ([str(tiny_model), *words], [*words, str(tiny_model)]):
        assert main(['engine', 'list', *order]) == 0
        shown = ' '.join(capsys.readouterr().out.split())
        assert 'passed' in shown
        assert 'FAILED' not in shown
    with pytest.raises(SystemExit):
        main(['engine', 'list', str(tiny_model), *words, 'another'])
    assert 'unrecognized arguments: another' in capsys.readouterr().err


def test_prune_and_list_of_a_precision_leave_the_others_alone(cache, capsys):
    words = ['--engine-cache', str(cache.folder), '--precision', 'fp32']
    assert main(['engine', 'list', *words]) == 0
    assert 'holds no engine' in capsys.readouterr().out
    key = EngineKey('camvid-evss-lite', 'flow', (64, 96), 'fp16', 'x', 'tensorrt', 'sm_87', 'Orin', 'linux')
    cache.store(key, b'engine', {})
    assert main(['engine', 'prune', 'camvid-evss-lite', *words]) == 0
    assert '0 engines removed, 3 kept' in capsys.readouterr().out
    assert main(['engine', 'prune', *words]) == 2
    assert '--precision needs a model' in capsys.readouterr().err


def test_force_is_refused_where_nothing_is_built(capsys):
    assert main(['engine', 'list', '--force']) == 2
    assert 'builds nothing; leave --force out' in capsys.readouterr().err


def test_prune_without_a_model_removes_only_what_is_no_complete_engine(cache, capsys):
    (cache.folder / 'half.engine').write_bytes(b'')
    assert main(['engine', 'prune', '--engine-cache', str(cache.folder)]) == 0
    assert '1 engines removed, 2 kept' in capsys.readouterr().out


def test_build_without_a_model_is_refused(capsys):
    assert main(['engine', 'build']) == 2
    assert 'needs a model' in capsys.readouterr().err


@pytest.mark.skipif(find_spec('tensorrt') is not None, reason='TensorRT is installed')
def test_build_without_tensorrt_says_what_to_install(tiny_model, capsys):
    assert main(['engine', 'build', str(tiny_model)]) == 2
    assert 'tensorrt is not installed; install it with: pip install ' in capsys.readouterr().err
