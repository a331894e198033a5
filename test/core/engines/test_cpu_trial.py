"""The trial that decides between two CPU engines."""

from __future__ import annotations

import dataclasses
import json
import logging

import pytest

pytest.importorskip('onnxruntime')
pytest.importorskip('openvino')

from vss_ros.core.engines import cpu_trial, load_engine
from vss_ros.core.model_folder import load_model
from vss_ros.core.settings import EngineSettings


@pytest.fixture
def model(tiny_model):
    return load_model(tiny_model)


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
    [message] = caplog.messages
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


def test_a_damaged_result_is_measured_again(model, settings):
    cpu_trial.trial(model, settings)
    [file] = files(settings)
    file.write_text('{"winner": "somebody"}')
    assert cpu_trial.trial(model, settings)['winner'] in cpu_trial.CONTENDERS
    assert json.loads(file.read_text())['winner'] in cpu_trial.CONTENDERS


def test_another_number_of_threads_or_other_graphs_are_another_trial(model, settings):
    graphs = {**model.graphs, 'warp': dataclasses.replace(model.graphs['warp'], sha256='0' * 64)}
    keys = {
        cpu_trial._key(model, settings),
        cpu_trial._key(model, dataclasses.replace(settings, threads=1)),
        cpu_trial._key(dataclasses.replace(model, graphs=graphs), settings),
    }
    assert len(keys) == 3
