import shutil

import pytest

from vss_ros.cli.main import main
from vss_ros.core.model.folder import load_model

pytest.importorskip('onnxscript')


def test_a_model_is_written_again_for_another_size_and_other_options(tiny_model, tmp_path, capsys):
    changes = ['--size', '128x64', '--set', 'w_f=0.5', '--set', 'decision=full', '--weights', 'fp16']
    code = main(['export', str(tiny_model), '-o', str(tmp_path / 'wide'), *changes])
    assert code == 0
    printed = capsys.readouterr()
    assert 'wide for 128x64, 4 graphs' in printed.out
    assert 'comparing ONNX Runtime with PyTorch' in printed.err
    old, new = load_model(tiny_model), load_model(tmp_path / 'wide')
    assert (new.name, new.image_size) == ('wide', (64, 128))
    assert new.options == {**old.options, 'w_f': 0.5, 'decision': 'full'}
    assert new.weights.stat().st_size < 0.6 * old.weights.stat().st_size


def test_a_model_is_written_again_as_a_method_that_makes_do_with_its_networks(tiny_model, tmp_path, capsys):
    close, out = tmp_path / 'close', tmp_path / 'dff'
    changes = ['--set', 'magnify=1.5', '--set', 'temperatures=[1.4, 1.2]']
    assert main(['export', str(tiny_model), '-o', str(close), *changes]) == 0
    assert 'temperatures' not in capsys.readouterr().err
    options = ['--set', 'scale_field=false', '--set', 'flow=dis']
    assert main(['export', str(close), '-o', str(out), '--method', 'dff', *options]) == 0
    new = load_model(out)
    assert (new.method, new.steps['propagated']) == ('dff', ('flow', 'warp', 'decide'))
    assert (new.options['backbone'], new.options['magnify']) == ('lite', 1.5)  # how its network is built
    assert 'w_f' not in new.options
    assert new.options['temperatures'] == [1.4]
    said = 'the temperatures of close were fitted to evss-lite: only that of key frames, 1.4, is kept'
    assert said in capsys.readouterr().err


def test_what_the_scheduler_expects_stays_with_a_model_that_computes_the_same(tiny_model, tmp_path):
    fitted, same, other = (tmp_path / name for name in ('fitted', 'same', 'other'))
    shutil.copytree(tiny_model, fitted)
    with (fitted / 'model.yaml').open('a') as file:
        file.write('expected_accuracy: {bias: 3.5, weights: {doubt: -8.0}}\n')
    assert main(['export', str(fitted), '-o', str(same)]) == 0
    expected = load_model(fitted).expected_accuracy
    assert expected is not None
    assert load_model(same).expected_accuracy == expected
    assert main(['export', str(fitted), '-o', str(other), '--set', 'w_f=0.5']) == 0
    assert load_model(other).expected_accuracy is None


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--method', 'accel'], 'needs flownet, fusion, update_branch, for which'),
        (['--method', 'raft'], "there is no method 'raft'; use one of evss"),
        (['--size', '130x64'], 'width and height must be multiples of 4'),
        (['--set', 'speed=9'], "method 'evss-lite' has no option speed; it has fusion"),
        (['--set', 'w_f=2'], 'w_f is 2; use a weight from 0 to 1'),
        (['--set', 'flow=network'], 'needs flownet, for which'),
        (['--classes', 'cityscapes19'], 'method has 11 classes, class set cityscapes19 has 19'),
    ],
)
def test_what_cannot_be_exported_is_one_line_and_code_2(tiny_model, tmp_path, capsys, arguments, message):
    assert main(['export', str(tiny_model), '-o', str(tmp_path / 'new'), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_fp32_is_a_precision_that_is_there_always(tiny_model, capsys):
    before = {file: file.read_bytes() for file in tiny_model.iterdir()}
    assert main(['export', str(tiny_model), '--precision', 'fp32']) == 0
    assert 'tiny for 96x64, 4 graphs' in capsys.readouterr().out
    assert {file: file.read_bytes() for file in tiny_model.iterdir()} == before


@pytest.mark.parametrize(
    'arguments', [['--size', 'big'], ['--size', '480'], ['--set', 'w_f'], ['--set', '=1']]
)
def test_arguments_that_say_nothing_are_refused_with_an_example(tiny_model, tmp_path, capsys, arguments):
    with pytest.raises(SystemExit) as refused:
        main(['export', str(tiny_model), '-o', str(tmp_path / 'new'), *arguments])
    assert refused.value.code == 2
    assert 'such as' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (
            ['--precision', 'fp16', '--weights', 'fp16'],
            'kind of weights makes a new model; name a folder with -o',
        ),
        (['-o', 'new', '--calibrate', 'drive'], '--calibrate is for int8; add --precision int8'),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(monkeypatch, tmp_path, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(['export', 'camvid-evss-lite', *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['-o', 'new', '--precision', 'int8', '--calibrate', 'nowhere'], 'nowhere does not exist'),
        (['-o', 'loop'], 'loop is there and is no model folder'),
    ],
)
def test_what_stands_in_the_way_is_found_before_the_work(
    tiny_model, tmp_path, monkeypatch, capsys, words, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'loop').symlink_to('loop')
    assert main(['export', str(tiny_model), *words]) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert 'writing' not in printed
    assert [entry.name for entry in tmp_path.iterdir()] == ['loop']
