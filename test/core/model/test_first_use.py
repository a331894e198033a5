"""Models that came as weights alone get their graphs on first use."""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from vss_ros.cli.calibrate_scheduler import write_entry
from vss_ros.cli.main import main
from vss_ros.core.errors import MissingLibraryError, ModelError
from vss_ros.core.frame import Frame
from vss_ros.core.model import first_use
from vss_ros.core.model.folder import MODEL_FILE, load_model
from vss_ros.core.open_segmenter import open_segmenter
from vss_ros.core.settings import EngineSettings

ACCURACY = {'bias': 3.0, 'weights': {'path': -4.0}, 'frames': 100}


@pytest.fixture(scope='module')
def whole(shared_model):
    """A model with the one graph that it has."""
    pytest.importorskip('torch')
    from method_models import method_model

    return shared_model(*method_model('per-frame')).path


@pytest.fixture(scope='module')
def made(whole, tmp_path_factory):
    """A model without graphs, and the cache folder after its first use."""
    folder, cache = tmp_path_factory.mktemp('models') / 'alone', tmp_path_factory.mktemp('made')
    assert main(['export', str(whole), '-o', str(folder), '--name', 'tiny', '--no-graphs']) == 0
    with (folder / MODEL_FILE).open('a') as description:
        yaml.safe_dump({'expected_accuracy': ACCURACY}, description)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('XDG_CACHE_HOME', str(cache))
        load_model(folder)
    return folder, cache


@pytest.fixture
def weights_alone(made, tmp_path):
    return shutil.copytree(made[0], tmp_path / 'alone')


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))


@pytest.fixture
def used(made, tmp_path, empty_cache):
    """The folder that graphs are kept in after the first use."""
    shutil.copytree(made[1], tmp_path / 'cache')
    return tmp_path / 'cache' / 'vss_ros' / 'models'


def masks(model, images):
    segmenter = open_segmenter(model, EngineSettings('onnxruntime'))
    answers = [answer for n, image in enumerate(images) for answer in segmenter.answers(Frame(image, n))]
    segmenter.close()
    return [answer.segmentation.mask for answer in answers]


def test_a_model_without_graphs_takes_half_the_room_and_answers_as_with_them(
    weights_alone, whole, used, street
):
    assert {file.name for file in weights_alone.iterdir()} == {MODEL_FILE, 'weights.safetensors'}
    for found, expected in zip(masks(weights_alone, street), masks(whole, street), strict=True):
        assert np.array_equal(found, expected)
    assert stat.S_IMODE(used.stat().st_mode) == 0o700


def test_all_else_that_is_known_of_a_model_stays_known(weights_alone, used):
    alone, whole = load_model(weights_alone, graphs=False), load_model(weights_alone)
    assert not alone.graphs
    assert set(whole.graphs) == {'segmenter'}
    assert whole.expected_accuracy == alone.expected_accuracy is not None
    for name in ('name', 'method', 'options', 'classes', 'image_size', 'flow', 'steps', 'state', 'training'):
        assert getattr(whole, name) == getattr(alone, name)


def test_graphs_are_made_once_and_then_without_pytorch(weights_alone, used, monkeypatch):
    first = load_model(weights_alone)
    monkeypatch.setattr(first_use, 'MAKER', 'no_module_of_this_name')
    assert load_model(weights_alone) == first


def test_graphs_that_are_there_serve_where_nothing_can_be_written(weights_alone, used, monkeypatch):
    def read_only(*_):
        raise OSError(errno.EROFS, 'Read-only file system')

    first = load_model(weights_alone)
    monkeypatch.setattr(os, 'open', read_only)  # of the lock
    monkeypatch.setattr(Path, 'mkdir', read_only)
    assert load_model(weights_alone) == first


def test_info_names_the_folder_of_the_model_and_that_of_its_graphs(weights_alone, used, capsys, monkeypatch):
    monkeypatch.setenv('COLUMNS', '400')
    assert main(['info', str(weights_alone)]) == 0
    shown = capsys.readouterr().out
    assert re.search(rf'folder +│ {re.escape(str(weights_alone))} ', shown)
    assert re.search(rf'graphs in +│ {re.escape(str(used))}/tiny-', shown)


def test_info_makes_no_graphs_and_says_when_they_are_made(weights_alone, empty_cache, tmp_path, capsys):
    assert main(['info', str(weights_alone)]) == 0
    shown = capsys.readouterr().out
    assert 'per-frame' in shown
    assert 'Its graphs are made when it is first used' in shown
    assert '│ onnxruntime │ installed' in shown
    assert not (tmp_path / 'cache').exists()


def test_a_precision_is_not_added_to_graphs_in_the_cache(weights_alone, used, capsys):
    assert main(['export', str(weights_alone), '--precision', 'fp16']) == 2
    assert 'came as weights alone' in capsys.readouterr().err


def test_what_is_calibrated_is_kept_with_the_weights(weights_alone, used):
    entry = {'bias': 1.0, 'weights': {'path': -2.0}, 'frames': 50}
    assert write_entry(weights_alone, entry) == weights_alone / MODEL_FILE
    assert dict(load_model(weights_alone).expected_accuracy.weights)['path'] == -2.0


@pytest.mark.parametrize(
    'written',
    [
        'expected_accuracy:\n  bias: 3.0\n\n  weights: {path: -4.0}\n  frames: 100\n',
        'expected_accuracy: {bias: 3.0,\n  weights: {path: -4.0}\n}\n',
        'expected_accuracy: {bias: 3.0, weights: {path: -4.0}}',
        '"expected_accuracy":\n  bias: 3.0\n  # of mine\n# of mine\n  weights: {path: -4.0}\n# the rest\n\n',
    ],
)
@pytest.mark.parametrize('comes_first', [False, True])
def test_what_was_calibrated_before_is_replaced_however_it_is_written(weights_alone, written, comes_first):
    file = weights_alone / MODEL_FILE
    rest = re.sub(r'^expected_accuracy:(?s:.*)', '', file.read_text(), flags=re.MULTILINE)
    before = (written if written.endswith('\n') else written + '\n') + rest if comes_first else rest + written
    file.write_text(before)
    entry = {'bias': 1.0, 'weights': {'path': -2.0}, 'frames': 50}
    write_entry(weights_alone, entry)
    comments = '# the rest\n\n' if '# the rest' in written else ''
    others = comments + rest if comes_first else rest + comments
    assert file.read_text().startswith(others + 'expected_accuracy:')
    assert yaml.safe_load(file.read_text()) == yaml.safe_load(rest) | {'expected_accuracy': entry}


def test_a_description_that_would_break_is_left_as_it_is(weights_alone):
    file = weights_alone / MODEL_FILE
    file.write_text(str(yaml.safe_load(file.read_text())))  # all of it in braces
    before = file.read_bytes()
    with pytest.raises(ModelError, match='is written in a way that'):
        write_entry(weights_alone, {'bias': 1.0, 'weights': {'path': -2.0}})
    assert file.read_bytes() == before


def test_two_that_start_at_the_same_time_make_the_graphs_once(weights_alone, empty_cache, caplog):
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(load_model, [weights_alone, weights_alone])
    assert one == other
    assert sum('making its graphs' in message for message in caplog.messages) == 1


def test_what_a_first_use_that_was_ended_left_is_removed_by_the_next_one(weights_alone, used):
    [made] = (path for path in used.glob('tiny-*') if path.is_dir())
    for name, content in (('.unfinished-ended', made.name), ('.unfinished-other', 'another')):
        (used / name / content).mkdir(parents=True)
        (used / name / content / 'segmenter.onnx').write_bytes(b'half')
    shutil.rmtree(made)
    load_model(weights_alone)
    assert [path.name for path in used.glob('.unfinished-*')] == ['.unfinished-other']  # which may be in work
    assert made.is_dir()


def test_without_pytorch_the_message_says_how_to_get_the_graphs(weights_alone, empty_cache, monkeypatch):
    monkeypatch.setattr(first_use, 'MAKER', 'no_module_of_this_name')
    with pytest.raises(MissingLibraryError, match=r'pip install .*train.*vss export tiny -o FOLDER'):
        load_model(weights_alone)


@pytest.mark.parametrize('kind', ['ImportError', 'OSError'])
def test_a_pytorch_that_cannot_be_loaded_is_told_from_a_cache_that_cannot_be_written(
    weights_alone, empty_cache, tmp_path, monkeypatch, kind
):
    (tmp_path / 'torch.py').write_text(f"raise {kind}('libcublas.so.11: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    for module in ('torch', first_use.MAKER):
        monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(
        ModelError, match=r'PyTorch, .* cannot be loaded: libcublas\.so\.11.*vss export tiny -o FOLDER'
    ) as refused:
        load_model(weights_alone)
    assert 'XDG_CACHE_HOME' not in str(refused.value)


def test_graphs_that_were_damaged_are_made_anew(weights_alone, used, caplog):
    first = load_model(weights_alone)
    first.graphs['segmenter'].file.write_bytes(b'')
    assert load_model(weights_alone) == first
    assert 'damaged' in caplog.text


def test_other_weights_get_graphs_of_their_own(weights_alone, used):
    first = load_model(weights_alone)
    description = (weights_alone / MODEL_FILE).read_text()
    (weights_alone / MODEL_FILE).write_text(description.replace('decision: full', 'decision: half'))
    assert load_model(weights_alone).path != first.path


def folders(cache):
    return {path for path in cache.glob('tiny-*') if path.is_dir()}


def test_other_code_gets_graphs_of_its_own_and_old_ones_go(weights_alone, used, monkeypatch):
    monkeypatch.setattr(first_use, '_sources', lambda: b'of another release')
    [old] = folders(used)
    recent = Path(shutil.copytree(old, used / 'tiny-0123456789abcdef'))
    others = Path(shutil.copytree(old, used / 'tiny-and-more-0123456789abcdef'))
    for folder in (old, others):
        os.utime(folder, (0, 0))
    made = load_model(weights_alone).path
    assert folders(used) == {made, recent, others}


def test_a_cache_that_cannot_be_written_is_named_with_the_way_out(weights_alone, tmp_path, monkeypatch):
    (tmp_path / 'file').write_text('')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'file'))
    with pytest.raises(ModelError, match=r'graphs cannot be kept.*XDG_CACHE_HOME.*vss export .* -o FOLDER'):
        load_model(weights_alone)


def test_a_disk_that_is_too_full_is_found_before_any_work(weights_alone, empty_cache, monkeypatch):
    needed = 3 * (weights_alone / 'weights.safetensors').stat().st_size
    monkeypatch.setattr(first_use, 'MAKER', 'no_module_of_this_name')
    for free, error, message in (
        (needed - 1, ModelError, 'No space left on device: they take about .* MB.*XDG_CACHE_HOME'),
        (needed, MissingLibraryError, 'no_module_of_this_name'),
    ):
        monkeypatch.setattr(shutil, 'disk_usage', lambda _, free=free: SimpleNamespace(free=free))
        with pytest.raises(error, match=message):
            load_model(weights_alone)


def test_a_model_with_neither_graphs_nor_weights_is_refused(weights_alone, tmp_path):
    broken = tmp_path / 'broken'
    shutil.copytree(weights_alone, broken)
    content = yaml.safe_load((broken / MODEL_FILE).read_text())
    del content['weights']
    (broken / MODEL_FILE).write_text(yaml.safe_dump(content))
    with pytest.raises(ModelError, match='neither graphs nor weights'):
        load_model(broken)


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['--no-graphs'], 'name a folder with -o'),
        (['-o', 'new', '--no-graphs', '--precision', 'fp16'], 'give one of them'),
    ],
)
def test_leaving_out_graphs_that_are_asked_for_is_refused(tiny_model, words, message, capsys):
    assert main(['export', str(tiny_model), *words]) == 2
    assert message in capsys.readouterr().err
