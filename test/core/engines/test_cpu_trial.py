"""The trial that decides between two CPU engines."""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
from importlib import metadata

import pytest

pytest.importorskip('onnxruntime')
pytest.importorskip('openvino')

from vss_ros.core.engines import cpu_trial, engine_cache, load_engine, remembered
from vss_ros.core.errors import EngineError, SettingsError
from vss_ros.core.settings import EngineSettings


@pytest.fixture
def settings(tmp_path):
    return EngineSettings(engine_cache=str(tmp_path / 'cache'))


def files(settings):
    from pathlib import Path

    return sorted(Path(settings.engine_cache).glob('cpu-trial-*.json'))


def test_the_first_start_measures_and_says_what_it_found(model, settings, caplog):
    with caplog.at_level(logging.INFO, 'vss_ros'):
        result = cpu_trial.trial(model, settings)
    assert result['winner'] in cpu_trial.CONTENDERS
    assert set(result['milliseconds']) == set(cpu_trial.CONTENDERS)
    assert all(ms > 0 for ms in result['milliseconds'].values())
    slow, fast = (result['milliseconds'][name] for name in cpu_trial.CONTENDERS)
    assert (result['winner'] == 'openvino') == (fast < cpu_trial.MARGIN * slow)
    [message] = [record.getMessage() for record in caplog.records if record.name == cpu_trial.__name__]
    assert result['winner'] in message
    assert str(slow) in message


def test_the_next_start_takes_what_was_stored(model, settings):
    first = cpu_trial.trial(model, settings)
    [file] = files(settings)
    told = {'winner': 'openvino', 'milliseconds': {'onnxruntime': 9.0, 'openvino': 1.0}}
    assert json.loads(file.read_text()) == first
    file.write_text(json.dumps(told))
    assert cpu_trial.trial(model, settings) == told
    chosen = load_engine(model, settings).describe()
    assert chosen['engine'] == 'openvino'
    assert 'onnxruntime 9.0 ms, openvino 1.0 ms' in chosen['chosen']


def test_an_engine_that_cannot_be_loaded_leaves_the_other_one_closed(model, settings, monkeypatch):
    from vss_ros.core.engines.onnx_runtime import OnnxRuntimeEngine
    from vss_ros.core.engines.openvino import OpenVinoEngine

    closed = []

    def refuse(*_):
        raise EngineError('no such arithmetic')

    monkeypatch.setattr(OnnxRuntimeEngine, 'close', lambda engine: closed.append(engine.name))
    monkeypatch.setattr(OpenVinoEngine, 'load', refuse)
    with pytest.raises(EngineError, match='no such arithmetic'):
        cpu_trial.trial(model, settings)
    assert closed == ['onnxruntime']


@pytest.mark.parametrize(
    'content',
    [
        '{"winner": "somebody"}',
        '{"winner": "openvino"}',
        '{"winner": "openvino", "milliseconds": 3}',
        '[' * 100_000,
    ],
    ids=lambda content: content[:50],
)
def test_a_damaged_result_is_measured_again(model, settings, content):
    cpu_trial.trial(model, settings)
    [file] = files(settings)
    file.write_text(content)
    assert cpu_trial.trial(model, settings)['winner'] in cpu_trial.CONTENDERS
    assert json.loads(file.read_text())['winner'] in cpu_trial.CONTENDERS


def test_a_result_that_cannot_be_written_is_used_all_the_same(model, settings, monkeypatch, caplog):
    def full(file, data):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(remembered, 'write_private', full)
    assert load_engine(model, settings).describe()['engine'] in cpu_trial.CONTENDERS
    assert 'No space left on device' in caplog.text


def test_without_a_home_folder_auto_finds_an_engine_all_the_same(model, monkeypatch):
    def no_home():
        raise SettingsError('there is no home folder for the engine cache; set engine_cache')

    monkeypatch.setattr(engine_cache, 'default_folder', no_home)
    assert load_engine(model, EngineSettings()).describe()['engine'] in cpu_trial.CONTENDERS


def test_auto_finds_an_engine_where_onnx_runtime_came_in_a_package_of_another_name(
    model, settings, monkeypatch
):
    version = metadata.version

    def of_other_packages(name):
        if name == 'onnxruntime':
            raise metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(metadata, 'version', of_other_packages)
    assert load_engine(model, settings).describe()['engine'] in cpu_trial.CONTENDERS


def test_where_onnx_runtime_is_not_installed_there_is_no_trial_and_auto_says_why(
    model, settings, monkeypatch
):
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    monkeypatch.delitem(sys.modules, 'vss_ros.core.engines.onnx_runtime')
    with pytest.raises(EngineError, match='openvino: onnxruntime is not installed'):
        load_engine(model, settings)


def test_another_number_of_threads_threads_that_spin_or_other_graphs_are_another_trial(model, settings):
    graphs = {**model.graphs, 'warp': dataclasses.replace(model.graphs['warp'], sha256='0' * 64)}
    keys = {
        cpu_trial._facts(model, settings),
        cpu_trial._facts(model, dataclasses.replace(settings, threads=99)),
        cpu_trial._facts(model, dataclasses.replace(settings, spinning=True)),
        cpu_trial._facts(dataclasses.replace(model, graphs=graphs), settings),
    }
    assert len(keys) == 4
