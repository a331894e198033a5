"""The self-check of the torch engine on a GPU, with the CPU for the GPU."""

from __future__ import annotations

import json
import logging
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip('onnxruntime')

import torch
from torch.nn import functional

from vss_ros.core.engines import gpu_check, load_engine, remembered, self_check
from vss_ros.core.engines.torch_device import CpuDevice
from vss_ros.core.errors import EngineError
from vss_ros.core.model.folder import load_model
from vss_ros.core.settings import EngineSettings
from vss_ros.core.synthetic import StreetClip
from vss_ros.torch_engine import engine as torch_engine


class PaperGpu(CpuDevice):
    kind = 'cuda'
    name = 'paper'


@pytest.fixture(autouse=True)
def gpu(monkeypatch):
    monkeypatch.setattr(torch_engine, '_device', lambda _: PaperGpu())


@pytest.fixture(autouse=True)
def checks(monkeypatch):
    """The precisions that were checked, each time anew."""
    made = []

    def counted(model, engine, reference, precision):
        made.append(precision)
        return check(model, engine, reference, precision)

    check = gpu_check.self_check
    monkeypatch.setattr(gpu_check, 'self_check', counted)
    return made


@pytest.fixture
def wrong_gpu(monkeypatch):
    """It computes all floats twice as large as they are."""
    right = torch_engine.TorchEngine._compute

    def wrong(self, graph, inputs):
        outputs = right(self, graph, inputs)
        return {
            name: 2 * tensor if tensor.is_floating_point() else tensor for name, tensor in outputs.items()
        }

    monkeypatch.setattr(torch_engine.TorchEngine, '_compute', wrong)
    return lambda: monkeypatch.setattr(torch_engine.TorchEngine, '_compute', right)


@pytest.fixture
def model(tiny_model):
    return load_model(tiny_model)


@pytest.fixture
def settings(tmp_path):
    return EngineSettings('torch', engine_cache=str(tmp_path / 'cache'))


def kept(settings):
    return sorted(Path(settings.engine_cache).glob('torch-check-*.json'))


def test_a_gpu_is_checked_once_and_says_so_at_each_start(model, settings, checks):
    for _ in range(2):
        assert load_engine(model, settings).describe()['self_check'] == 'passed'
    assert checks == ['fp32']
    [file] = kept(settings)
    assert file.stat().st_mode & 0o077 == 0
    assert {name: entry['passed'] for name, entry in json.loads(file.read_text()).items()} == dict.fromkeys(
        model.graphs, True
    )


def test_a_gpu_that_computes_something_else_is_refused_at_each_start_until_it_does_not(
    model, settings, checks, wrong_gpu
):
    for _ in range(2):
        with pytest.raises(
            EngineError, match=r"PyTorch .* \(fp32\) on paper computes graph '\w+' .* wrongly"
        ):
            load_engine(model, settings)
    assert len(checks) == 2
    assert not kept(settings)
    wrong_gpu()
    assert load_engine(model, settings).describe()['self_check'] == 'passed'


@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize(('bits', 'passes'), [(10, True), (8, False)])
def test_products_of_tf32_pass_also_where_they_do_not_round_and_coarser_ones_do_not(
    model, settings, monkeypatch, bits, passes, seed
):
    height, width = model.image_size
    images = [frame.image for frame in StreetClip(seed, 3, height, width)]
    monkeypatch.setattr(self_check, '_images', lambda *_: images)
    convolve = functional.conv2d

    def cut_off(tensor):
        return (tensor.contiguous().view(torch.int32) & (-1 << (23 - bits))).view(torch.float32)

    def coarse(maps, kernel, *others):
        return convolve(cut_off(maps), cut_off(kernel), *others)

    monkeypatch.setattr(functional, 'conv2d', coarse)
    with nullcontext() if passes else pytest.raises(EngineError, match='wrongly'):
        load_engine(model, settings)


def test_a_check_that_fails_leaves_neither_engine_open(model, settings, monkeypatch):
    from vss_ros.core.engines.onnx_runtime import OnnxRuntimeEngine

    closed = []

    def fail(*_):
        raise EngineError('graph failed')

    monkeypatch.setattr(gpu_check, 'self_check', fail)
    for kind in (torch_engine.TorchEngine, OnnxRuntimeEngine):
        monkeypatch.setattr(kind, 'close', lambda engine: closed.append(engine.name))
    with pytest.raises(EngineError, match='graph failed'):
        load_engine(model, settings)
    assert closed == ['onnxruntime', 'torch']


def test_auto_goes_on_where_the_gpu_computes_something_else(model, settings, wrong_gpu, monkeypatch):
    from vss_ros.core import engines
    from vss_ros.core.engines import torch_device

    monkeypatch.setattr(engines, 'NVIDIA_DEVICES', ('/',))
    monkeypatch.setattr(engines, 'AUTO_ORDER', ('torch', 'openvino', 'onnxruntime'))
    monkeypatch.setattr(torch_device, 'why_no_cuda', lambda _: '')
    engine = load_engine(model, replace(settings, engine='auto'))
    assert engine.name in ('openvino', 'onnxruntime')
    assert 'wrongly' in engine.describe()['chosen']


def test_another_driver_precision_model_or_way_to_launch_is_another_check(model, settings, monkeypatch):
    graphs = {**model.graphs, 'warp': replace(model.graphs['warp'], sha256='0' * 64)}
    keys = {
        gpu_check._all_facts(model, settings, ['paper']),
        gpu_check._all_facts(model, replace(settings, precision='bf16'), ['paper']),
        gpu_check._all_facts(model, replace(settings, cuda_graphs=True), ['paper']),
        gpu_check._all_facts(replace(model, weights_sha256='0' * 64), settings, ['paper']),
        gpu_check._all_facts(replace(model, graphs=graphs), settings, ['paper']),
        gpu_check._all_facts(model, settings, ['cardboard']),
    }
    monkeypatch.setattr(gpu_check, 'driver_version', lambda: 'another')
    keys.add(gpu_check._all_facts(model, settings, ['paper']))
    assert len(keys) == 7


@pytest.mark.parametrize('content', ['', '{}', '3', '{"warp": {}}', '{"warp": {"passed": 1}}', '[' * 100_000])
def test_a_result_that_cannot_be_understood_is_made_again(model, settings, checks, content):
    load_engine(model, settings)
    [file] = kept(settings)
    file.write_text(content)
    load_engine(model, settings)
    assert len(checks) == 2


def test_where_nothing_can_be_kept_each_start_checks_and_warns(model, settings, checks, tmp_path, caplog):
    (tmp_path / 'cache').write_bytes(b'')
    for _ in range(2):
        assert load_engine(model, settings).describe()['self_check'] == 'passed'
    assert len(checks) == 2
    assert 'the self-check of engine torch is not remembered' in caplog.text


def test_on_a_full_disk_the_engine_is_checked_and_used(model, settings, monkeypatch, caplog):
    def full(file, data):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(remembered, 'write_private', full)
    assert load_engine(model, settings).describe()['self_check'] == 'passed'
    assert 'No space left on device' in caplog.text


def test_without_onnx_runtime_or_graphs_the_engine_says_that_it_was_not_checked(
    model, settings, monkeypatch, caplog
):
    bare = replace(model, graphs={})
    assert load_engine(bare, settings).describe()['self_check'] == 'not made: the model has no ONNX graphs'
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    monkeypatch.delitem(sys.modules, 'vss_ros.core.engines.onnx_runtime', raising=False)
    with caplog.at_level(logging.WARNING):
        described = load_engine(model, settings).describe()
    assert described['self_check'].startswith('not made: onnxruntime is not installed')
    assert 'not compared with ONNX Runtime' in caplog.text


def test_where_launches_cannot_be_recorded_the_engine_is_refused_with_the_way_out(
    model, settings, monkeypatch
):
    def refuse(call, inputs):
        raise RuntimeError('operation not permitted when stream is capturing')

    monkeypatch.setattr(torch_engine, 'Recording', refuse)
    with pytest.raises(EngineError, match=r'cannot be recorded: .*capturing; set cuda_graphs to false'):
        load_engine(model, replace(settings, cuda_graphs=True))
