"""Options that stand for settings."""

from __future__ import annotations

import importlib
from argparse import ArgumentParser

import pytest

from vss_ros.cli import bench
from vss_ros.core import engines
from vss_ros.core.described import descriptions
from vss_ros.core.settings import EngineSettings


@pytest.mark.parametrize('verb', ['run', 'evaluate', 'bench'])
def test_every_setting_of_an_engine_is_an_option(verb):
    parser = ArgumentParser()
    importlib.import_module(f'vss_ros.cli.{verb}').add_arguments(parser)
    text = ' '.join(parser.format_help().split())
    for name in descriptions(EngineSettings):
        assert f'--{name.replace("_", "-")}' in text


def test_bench_hands_the_settings_of_engines_on(monkeypatch):
    monkeypatch.setattr(engines, 'load_engine', lambda model, settings: settings)
    parser = ArgumentParser()
    bench.add_arguments(parser)
    words = ['--engine-cache', 'here', '--build', 'never', '--spinning', '--cuda-graphs']
    args = parser.parse_args([*words, '--gpu-id', '1', '--threads', '3', '--provider', 'cuda'])
    common = {'engine_cache': 'here', 'build': 'never', 'spinning': True, 'cuda_graphs': True}
    common |= {'gpu_id': 1, 'threads': 3}
    assert bench._load(None, 'torch', 'fp16', args) == EngineSettings('torch', 'fp16', **common)
    wanted = EngineSettings('onnxruntime', 'fp32', provider='cuda', **common)
    assert bench._load(None, 'onnxruntime', 'fp32', args) == wanted
