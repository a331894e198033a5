"""What OpenVINO keeps on disk is what it wrote, or is not used."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip('openvino')

from vss_ros.cli.main import main
from vss_ros.core.engines.openvino import OpenVinoEngine
from vss_ros.core.engines.openvino_cache import cache_folder, guarded
from vss_ros.core.errors import EngineError
from vss_ros.core.model.files import sha256_of
from vss_ros.core.model.folder import load_model
from vss_ros.core.settings import EngineSettings


@pytest.fixture
def settings(tmp_path):
    return EngineSettings(engine='openvino', engine_cache=str(tmp_path / 'cache'))


@pytest.fixture
def blobs(tmp_path):
    return lambda: {
        file.relative_to(tmp_path): file.read_bytes() for file in tmp_path.glob('cache/openvino/*/*.blob')
    }


def scores(model, settings) -> np.ndarray:
    """Of the segmenter on a grey image, by an engine that is loaded anew."""
    image = np.full((1, *model.image_size, 3), 90, np.uint8)
    return OpenVinoEngine.load(model, settings).run('segmenter', {'image': image})['scores']


@pytest.mark.parametrize('damage', ['bytes', 'cut', 'no note'])
def test_damaged_files_are_made_again_and_compute_what_they_should(
    tiny_model, settings, tmp_path, blobs, damage
):
    model = load_model(tiny_model)
    expected = scores(model, settings)
    written = blobs()
    assert len(written) == len(model.graphs)
    for name, data in written.items():
        file = tmp_path / name
        if damage == 'no note':
            file.with_name(f'{file.name}.sha256').unlink()
        middle = len(data) // 2
        file.write_bytes(
            data[:middle] if damage == 'cut' else data[:middle] + bytes(64) + data[middle + 64 :]
        )
    assert np.array_equal(scores(model, settings), expected)
    assert set(blobs()) == set(written)
    assert np.array_equal(scores(model, settings), expected)


def test_unharmed_files_are_used_again(tiny_model, settings, blobs, caplog):
    model = load_model(tiny_model)
    first, written = scores(model, settings), blobs()
    assert np.array_equal(scores(model, settings), first)
    assert blobs() == written
    assert 'damaged' not in caplog.text


def test_each_model_has_a_folder_which_goes_when_its_engines_are_pruned(
    tiny_model, settings, tmp_path, blobs, capsys
):
    for name in ('tiny', 'other'):
        scores(replace(load_model(tiny_model), name=name), settings)
    one, other = sorted({file.parent for file in blobs()})
    assert (one.name[:6], other.name[:5]) == ('other-', 'tiny-')
    words = ['engine', 'prune', str(tiny_model), '--engine-cache', settings.engine_cache]
    assert main([*words, '--precision', 'fp32']) == 0  # of TensorRT engines
    assert len(blobs()) == 2 * len(load_model(tiny_model).graphs)
    assert main(words) == 0
    assert {file.parent for file in blobs()} == {one}
    assert f'removed {tmp_path / other}' in capsys.readouterr().out


def test_a_model_in_the_place_of_another_is_compiled_though_size_and_time_are_the_same(
    tiny_model, settings, tmp_path
):
    onnx = pytest.importorskip('onnx')
    model = load_model(shutil.copytree(tiny_model, tmp_path / 'model'))
    old = scores(model, settings)
    file = model.graphs['segmenter'].file
    time_ns, data = file.stat().st_mtime_ns, file.read_bytes()
    for tensor in onnx.load_from_string(data).graph.initializer:
        if len(tensor.dims) == 4:  # kernels
            weights = np.frombuffer(tensor.raw_data, np.float32)
            data = data.replace(tensor.raw_data, (1.5 * weights).astype(np.float32).tobytes())
    assert len(data) == file.stat().st_size
    file.write_bytes(data)
    os.utime(file, ns=(time_ns, time_ns))
    graph = replace(model.graphs['segmenter'], sha256=sha256_of(file))
    new = replace(model, graphs={**model.graphs, 'segmenter': graph})
    fresh = replace(settings, engine_cache=str(tmp_path / 'another cache'))
    assert not np.array_equal(scores(new, settings), old)
    assert np.array_equal(scores(new, settings), scores(new, fresh))


def test_what_was_written_before_a_later_graph_was_refused_is_not_there_at_the_next_start(tmp_path, caplog):
    for name in ('kept', 'refused'):
        with suppress(EngineError), guarded(tmp_path, ['*.blob']):
            (tmp_path / f'{name}.blob').write_bytes(b'compiled')
            if name == 'refused':
                raise EngineError('a later graph')
    with guarded(tmp_path, ['*.blob']):
        assert [file.name for file in tmp_path.glob('*.blob')] == ['kept.blob']
    assert caplog.text == ''


def test_where_nothing_can_be_kept_the_graphs_are_compiled_at_every_start(tiny_model, tmp_path, caplog):
    (tmp_path / 'file').write_bytes(b'')
    with cache_folder(str(tmp_path / 'file'), load_model(tiny_model), '2026.2') as folder:
        assert folder is None
    settings = EngineSettings(engine='openvino', engine_cache=str(tmp_path / 'file'))
    assert scores(load_model(tiny_model), settings).shape
    assert 'OpenVINO compiles its graphs at every start' in caplog.text


def test_nobody_is_told_that_openvino_is_imported():
    code = (
        'import sys\n'
        'import vss_ros.core.engines.openvino\n'
        'from openvino.tools.ovc import telemetry\n'
        'print(type(telemetry).__module__, "openvino_telemetry" in sys.modules)\n'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=120)
    assert done.stdout == 'openvino.tools.ovc.telemetry_stub False\n', done.stderr
