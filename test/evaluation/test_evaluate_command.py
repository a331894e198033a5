"""`vss evaluate` from its arguments to the files it leaves."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys

import cv2
import numpy as np
import pytest

from vss_ros.cli.main import main
from vss_ros.core.model.folder import load_model

OUTPUTS = {'report.json', 'report.html', 'pda.png', 'cca.png', 'reliability.png', 'classes.png'}


def run(*words):
    return main(['evaluate', *[str(word) for word in words], '--threads', '1'])


def test_a_report_is_a_page_figures_and_plots_and_nothing_else(report):
    assert {path.name for path in report.iterdir()} == OUTPUTS


def test_the_figures_are_json_with_every_row_and_measure(report):
    content = json.loads((report / 'report.json').read_text())
    model, warp_only, per_frame = content['rows']
    assert [row['name'] for row in content['rows']] == ['tiny', 'tiny, warp only', 'tiny, per frame']
    assert list(model['distance']) == ['0', '2']
    assert list(per_frame['distance']) == ['0']
    assert model['distance']['0']['miou_percent'] == per_frame['distance']['0']['miou_percent']
    far = model['distance']['2']
    assert far['frames'] == 2
    for name in ('mended_percent', 'spoilt_percent', 'distortion_ap_percent', 'corrected_labels_percent'):
        assert 0 <= far[name] <= 100
        assert warp_only['distance']['2'][name] is None
    for name in ('miou_percent', 'boundary_f_percent', 'ece_percent'):
        assert 0 <= far[name] <= 100
    assert set(far['group_miou_percent']) == {'thin', 'objects'}
    assert 0 <= model['deployment']['temporal_consistency_percent'] <= 100
    assert model['deployment']['gmac_per_frame'] < per_frame['deployment']['gmac_per_frame']


def test_a_report_says_where_it_comes_from_and_how_little_few_frames_say(report, tiny_model):
    content = json.loads((report / 'report.json').read_text())
    weights = load_model(tiny_model).weights_sha256
    assert {row['weights_sha256'] for row in content['rows']} == {weights}
    assert content['data']['labelled_frames'] == 4
    assert content['command'].split()[0] == 'vss'
    page = (report / 'report.html').read_text()
    [line] = re.findall('<h1>.*</h1>\n<p class="note">(.*?)</p>', page)
    for fact in (content['date'], content['version'], 'truth: labels', '1 clip;', weights[:12]):
        assert fact in line
    assert line.endswith('Only 4 labelled frames: differences below a point may well be noise.')


def test_the_judge_runs_on_what_the_first_row_runs_on(tiny_model, tmp_path):
    words = ('--model', tiny_model, '--against', tiny_model, '--protocol', 'deployment', '--no-plots')
    words += ('--engine', 'onnxruntime', '--precision', 'bf16', '--precision', 'fp32', '-o', tmp_path)
    assert run('synthetic:3x2', *words) == 0
    [row] = json.loads((tmp_path / 'report.json').read_text())['rows']
    assert row['engine']['precision'] == 'fp32'


def test_costs_that_cannot_be_counted_are_said_to_be_missing_and_why(tiny_model, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, 'onnx', None)
    words = ('--model', tiny_model, '--warp-only', '--protocol', 'deployment')
    assert run('synthetic:3x2', *words) == 0
    assert caplog.text.count('GMAC of tiny are not counted: onnx ') == 1


def test_what_is_carried_and_what_is_corrected_can_be_told_apart(tiny_model, tmp_path, capsys):
    words = ('--model', tiny_model, '--correction-interval', 2, '--no-plots', '-o', tmp_path / 'out')
    assert run('synthetic:3x5', *words, '--distances', 0, 1, 2, 3) == 0
    content = json.loads((tmp_path / 'out' / 'report.json').read_text())
    assert content['version']
    [row] = content['rows']
    gmac, by_distance = row['gmac'], row['distance']
    after = [by_distance[distance]['miou_percent'] for distance in '123']
    assert row['miou_percent_over_distances'] == pytest.approx(sum(after) / 3, abs=1e-3)
    assert row['correction_interval'] == 2
    for distance, corrected in (('1', 0), ('2', 1), ('3', 1)):
        between = corrected * gmac['propagated'] + (int(distance) - corrected) * gmac['carried']
        mean = (gmac['key'] + between) / (int(distance) + 1)
        assert by_distance[distance]['gmac_per_frame'] == pytest.approx(mean)
        assert (by_distance[distance]['mended_percent'] is None) == (distance != '2')
    shown = capsys.readouterr().out
    assert [shown.count(f'{by_distance[d]["miou_percent"]:.2f}~') > 0 for d in '0123'] == [0, 1, 0, 1]
    assert re.search(rf'mean ┃.*{row["miou_percent_over_distances"]:.2f} │', shown, re.DOTALL)
    page = (tmp_path / 'out' / 'report.html').read_text()
    for text in (shown, page):
        assert 'correction at distance 2' in text
        assert '~ carried along, not corrected' in ' '.join(text.split())
    assert 'GMAC carried' in page


def test_warping_alone_is_never_said_to_be_corrected(tiny_model, tmp_path, capsys):
    words = ('--model', tiny_model, '--warp-only', '--correction-interval', 2, '--distances', 0, 1, 2, 3)
    assert run('synthetic:3x5', *words, '--no-plots', '-o', tmp_path / 'out') == 0
    content = json.loads((tmp_path / 'out' / 'report.json').read_text())
    assert [row['correction_interval'] for row in content['rows']] == [2, None]
    shown = capsys.readouterr().out
    page = (tmp_path / 'out' / 'report.html').read_text()
    assert 'corrected: each' in page
    for line, cells in (('tiny', ['2', *'.~.~.']), ('warp only', ['-', *'.....'])):  # the last is the mean
        [by_distance] = re.findall(rf'│ +{line} +│(.*)│', shown[: shown.index('At distance')])
        assert ['~' if '~' in cell else '.' for cell in by_distance.split('│')] == cells[1:]
        name = 'tiny' if line == 'tiny' else f'tiny, {line}'
        listed, scored, *_ = re.findall(rf'<td>{name}</td>(.*?)</tr>', page)
        assert re.findall('<td>(.*?)</td>', listed)[4] == cells[0]
        assert ['~' if '~' in cell else '.' for cell in scored.split('</td>')[:-1]] == cells[1:]


def test_a_row_of_all_frames_has_no_key_frames_to_be_compared(report):
    content = json.loads((report / 'report.json').read_text())
    from vss_ros.evaluation.report import by_kind, frames_scored

    model, _, per_frame = content['rows']
    assert [scores is not None for scores in by_kind(model)] == [True, True, True]
    assert [scores is not None for scores in by_kind(per_frame)] == [True, False, False]
    assert (frames_scored(content, 'distance'), frames_scored(content)) == (2, 4)


def test_labels_beside_the_images_that_are_none_are_an_error(tiny_model, tmp_path, capsys):
    for kind in ('images', 'labels'):
        (tmp_path / 'clip' / kind).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / 'clip' / kind / 'a.png'), np.zeros((64, 96, 3), np.uint8))  # colours
    words = ('--layout', 'plain', '--model', tiny_model, '--distances', 0, '--no-plots')
    assert run(tmp_path / 'clip', *words) == 2
    assert 'a.png is no label' in capsys.readouterr().err
    assert run(tmp_path / 'clip', *words, '--against', tiny_model) == 0


def test_the_page_holds_its_pictures_and_asks_for_nothing_from_outside(report):
    page = (report / 'report.html').read_text()
    sources = re.findall(r'(?:src|href)="(.*?)"', page)
    assert len(sources) > len(OUTPUTS)
    assert all(source.startswith('data:image/') for source in sources)
    assert 'http' not in page
    for word in ('tiny, warp only', 'distortion', 'confidence', 'Accuracy by propagation distance'):
        assert word in page


def test_a_name_is_shown_as_it_is(tiny_model, tmp_path, capsys):
    name = 'a [red] $^$ [/] <b>'
    shutil.copytree(tiny_model, tmp_path / 'model')
    file = tmp_path / 'model' / 'model.yaml'
    file.write_text(file.read_text().replace('name: tiny', f"name: '{name}'"))
    words = ('--protocol', 'distance', '--distances', 0, '-o', tmp_path / 'out')
    assert run('synthetic:3x1', '--model', tmp_path / 'model', *words) == 0
    assert name in capsys.readouterr().out
    assert 'a [red] $^$ [/] &lt;b&gt;' in (tmp_path / 'out' / 'report.html').read_text()


def test_a_model_may_lie_in_a_folder_whose_name_is_no_utf_8(tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / os.fsdecode(b'caf\xe9'))
    file = folder / 'model.yaml'
    file.write_text(file.read_text().replace('name: tiny\n', ''))  # so its name is that of the folder
    assert run('synthetic:3x3', '--model', folder, '--distances', 0, 1, '-o', tmp_path / 'out') == 0
    assert {path.name for path in (tmp_path / 'out').iterdir()} == OUTPUTS


def test_only_the_same_run_is_taken_up_again(tiny_model, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr('vss_ros.evaluation.evaluate.Checkpoint.remove', lambda self: None)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_model, 'model')
    for folder in ('a', 'b'):
        for kind, shape in (('images', (64, 96, 3)), ('labels', (64, 96))):
            path = tmp_path / folder / kind / '0016E5_07959.png'
            path.parent.mkdir(parents=True)
            cv2.imwrite(str(path), np.zeros(shape, np.uint8))
    words = ('--model', tmp_path / 'model', '--protocol', 'distance', '--distances', 0, '--no-plots')
    words += ('-o', tmp_path / 'out', '--overwrite', '--resume')
    monkeypatch.chdir('a')
    assert run('.', *words) == run('../a', *words) == 0
    capsys.readouterr()

    def is_refused():
        code, error = run('.', *words), capsys.readouterr().err
        return code == 2 and 'was made with other models, data or settings' in error

    monkeypatch.chdir('../b')
    assert is_refused()
    monkeypatch.chdir('../a')
    shutil.copy('images/0016E5_07959.png', 'images/0016E5_07960.png')
    assert is_refused()
    os.remove('images/0016E5_07960.png')
    assert run('.', *words) == 0
    for file in ('images/0016E5_07959.png', 'labels/0016E5_07959.png'):
        changed, before = np.ones((64, 96), np.uint8), os.stat(file)
        shutil.copy2(file, tmp_path / 'kept')
        cv2.imwrite(file, changed)
        assert is_refused()
        shutil.copy2(tmp_path / 'kept', file)
        assert os.stat(file).st_mtime_ns == before.st_mtime_ns
    assert run('.', *words) == 0
    with monkeypatch.context() as patch:
        patch.setattr('vss_ros.core.files.share.version', lambda: '99.0')
        assert is_refused()
    file = tmp_path / 'model' / 'model.yaml'
    file.write_text(file.read_text() + 'expected_accuracy: {bias: 1.0, weights: {}}\n')
    assert is_refused()


@pytest.mark.parametrize(
    'file', ['drive/rgb/0.png', 'drive/masks/0.png', 'bag/a.mcap', 'one.mp4', 'a/images/0.jpg']
)
def test_a_changed_file_of_any_source_is_seen(tmp_path, file):
    from argparse import Namespace

    from vss_ros.cli.evaluate_data import file_states

    for name in ('drive/rgb/0.png', 'drive/masks/0.png', 'bag/a.mcap', 'one.mp4', 'a/images/0.jpg'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b'x')
    data = ['synthetic:1x2', *(str(tmp_path / name) for name in ('drive/rgb', 'bag', 'one.mp4', 'a'))]
    args = Namespace(data=data, stills=None, labels=tmp_path / 'drive/masks')
    before = file_states(None, args)
    (tmp_path / 'bag' / 'progress.npz').touch()
    assert file_states(None, args) == before
    (tmp_path / file).write_bytes(b'xy')
    assert file_states(None, args) != before


def test_a_folder_that_cannot_be_written_to_is_refused_before_the_work(tiny_model, capsys):
    nowhere = '/proc'  # root may write everywhere else
    assert run('synthetic:3x1', '--model', tiny_model, '--no-plots', '-o', nowhere) == 2
    assert '/proc cannot be written to' in capsys.readouterr().err


def test_schedules_alone_say_that_no_label_is_of_a_class(tiny_model, tmp_path, capsys):
    for kind, pixels in (('images', np.zeros((64, 96, 3))), ('labels', np.full((64, 96), 200))):
        (tmp_path / kind).mkdir()
        cv2.imwrite(str(tmp_path / kind / 'a.png'), pixels)
    assert run(tmp_path, '--model', tiny_model, '--protocol', 'schedules') == 2
    assert 'no label holds an id of the classes' in capsys.readouterr().err


def test_a_report_that_exists_is_kept_unless_it_may_be_replaced(report, tiny_model, capsys):
    assert run('synthetic:3x4', '--model', tiny_model, '-o', report) == 2
    assert 'holds a report already' in capsys.readouterr().err


@pytest.mark.parametrize('name', ['classes.png', 'report.html'])
def test_files_of_no_report_are_kept(tiny_model, tmp_path, capsys, name):
    (tmp_path / name).write_text('mine')
    assert run('synthetic:3x1', '--model', tiny_model, '--no-plots', '-o', tmp_path) == 2
    assert f'{name} is of no report; choose another folder' in capsys.readouterr().err
    assert (tmp_path / name).read_text() == 'mine'


def test_no_folder_is_made_for_data_that_cannot_be_opened(tiny_model, tmp_path, capsys):
    (tmp_path / 'damaged.mp4').write_text('no video')
    words = ('--model', tiny_model, '--against', tiny_model, '--no-plots', '-o', tmp_path / 'report')
    assert run(tmp_path / 'damaged.mp4', *words) == 2
    assert 'damaged.mp4' in capsys.readouterr().err
    assert not (tmp_path / 'report').exists()


def test_a_run_that_fails_before_anything_was_scored_leaves_no_folder(tiny_model, tmp_path):
    for kind, name, shape in (('images', '0', (64, 96, 3)), ('labels', '0', (32, 48))):
        (tmp_path / kind).mkdir()
        cv2.imwrite(str(tmp_path / kind / f'{name}.png'), np.zeros(shape, np.uint8))
    words = ('--model', tiny_model, '--distances', 0, '--no-plots', '-o', tmp_path / 'full' / 'report')
    assert run(tmp_path, *words) == 2
    assert not (tmp_path / 'full').exists()


def test_the_table_names_every_row(tiny_model, capsys, monkeypatch):
    monkeypatch.setenv('COLUMNS', '80')
    assert run('synthetic:3x3', '--model', tiny_model, '--warp-only', '--distances', 0, 1) == 0
    printed = capsys.readouterr().out
    assert 'mIoU (%) by distance from the key frame' in printed
    assert '2 labelled frames' in printed
    assert 'warp only' in printed
    assert max(map(len, printed.splitlines())) <= 80


def test_without_plots_a_page_is_written_all_the_same(tiny_model, tmp_path):
    for name in ('pda.png', 'report.json'):  # of a report that is replaced
        (tmp_path / name).touch()
    words = ('synthetic:3x2', '--model', tiny_model, '--protocol', 'deployment', '--no-plots', '-o', tmp_path)
    assert run(*words, '--overwrite') == 0
    assert {path.name for path in tmp_path.iterdir()} == {'report.json', 'report.html'}


def test_frames_without_video_before_them_are_scored_as_deployed(tiny_model, capsys, caplog):
    assert run('synthetic:3x2', '--model', tiny_model) == 0
    assert 'no labelled frame has 9 frames before it' in caplog.text
    assert 'a key frame every 5 frames' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['synthetic:3x2', '--protocol', 'distance'], r'nothing to score.*--distances 0 needs none'),
        (['synthetic:3x2', '--motion', 'stream'], 'use --protocol deployment'),
        (['synthetic:3x2', '--intervals', '4'], 'are of the protocol schedules'),
        (['synthetic:3x2', '--clips', '4'], 'name them with --stills'),
        (['synthetic:3x2', '--layout', 'camvid-folder', '--rate', '3'], 'or use --layout plain'),
        (['synthetic:3x2', '--distances', '3', '1'], 'give rising numbers'),
        (['synthetic:3x2', '--key-frame-interval', '0'], 'key_frame_interval is 0'),
        (['synthetic:3x2', '--resume'], 'name it with -o'),
        (['no/such/data'], 'does not exist'),
        (['synthetic:3x2', '--layout', 'kitti'], 'no layout'),
    ],
)
def test_mistakes_are_answered_in_one_line(tiny_model, capsys, words, message):
    assert run(*words, '--model', tiny_model) == 2
    error = capsys.readouterr().err
    assert re.search(message, error)
    assert error.count('\n') == 1


def folder_without_labels(folder):
    folder.mkdir()
    for number in range(3):
        cv2.imwrite(str(folder / f'{number}.png'), np.full((64, 96, 3), 40 * number, np.uint8))
    return folder


def test_without_labels_consistency_is_measured_and_what_is_missing_is_said(
    tiny_model, tmp_path, capsys, caplog
):
    words = (folder_without_labels(tmp_path / 'rgb'), '--model', tiny_model)
    assert run(*words, '--no-plots', '-o', tmp_path / 'report') == 0
    [row] = json.loads((tmp_path / 'report' / 'report.json').read_text())['rows']
    assert 0 < row['deployment']['temporal_consistency_percent'] <= 100
    assert 'only the consistency in time was measured' in caplog.text
    assert '--against MODEL' in caplog.text
    assert run(*words, '--protocol', 'distance', '--distances', 0) == 2
    assert 'no frame has labels, or none' in capsys.readouterr().err


def test_frames_of_ages_that_no_label_meets_are_named(tiny_model, tmp_path, caplog):
    words = ('--model', tiny_model, '--protocol', 'deployment', '--key-frame-interval', 3)
    assert run('synthetic:3x7', *words) == 0
    assert 'no labelled frame came' not in caplog.text
    labels = tmp_path / 'masks'
    labels.mkdir()
    images = folder_without_labels(tmp_path / 'rgb')
    for number in range(3, 10):
        cv2.imwrite(str(images / f'{number}.png'), np.full((64, 96, 3), 20 * number, np.uint8))
    for number in (0, 3, 6, 9):
        cv2.imwrite(str(labels / f'{number}.png'), np.zeros((64, 96), np.uint8))
    assert run(images, '--labels', labels, *words) == 0
    assert 'no labelled frame came 1, 2 frames after a key frame' in caplog.text


def test_names_of_data_may_go_on_after_options(tiny_model, tmp_path):
    words = ('--model', tiny_model, '--protocol', 'deployment')
    assert run('synthetic:3x2', *words, '--no-plots', '-o', tmp_path, 'synthetic:4x2') == 0
    report = json.loads((tmp_path / 'report.json').read_text())
    assert report['data']['name'] == 'synthetic:3x2, synthetic:4x2'
    with pytest.raises(SystemExit):
        run('synthetic:3x2', *words, '--no-such-option')


@pytest.mark.parametrize('value', [11, 255])
def test_labels_without_any_class_of_the_model_are_refused(tiny_model, tmp_path, capsys, value):
    for folder, pixels in (('rgb', np.zeros((64, 96, 3))), ('masks', np.full((64, 96), value))):
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / folder / '0.png'), pixels.astype(np.uint8))
    words = ('--distances', 0, '--no-plots', '-o', tmp_path / 'report')
    assert run(tmp_path / 'rgb', '--labels', tmp_path / 'masks', '--model', tiny_model, *words) == 2
    assert 'no label holds an id of the classes of the model, 0 to 10' in capsys.readouterr().err
    assert not (tmp_path / 'report' / 'report.json').exists()


def test_ids_of_labels_that_are_no_class_are_told(tiny_model, tmp_path, caplog):
    labels = np.full((64, 96), 3, np.uint8)
    labels[:16] = 30
    for folder, pixels in (('rgb', np.zeros((64, 96, 3), np.uint8)), ('masks', labels)):
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / folder / '0.png'), pixels)
    words = ('--labels', tmp_path / 'masks', '--model', tiny_model, '--distances', 0)
    assert run(tmp_path / 'rgb', *words) == 0
    assert '25 % of the labelled pixels have ids that are no class of camvid11: 30' in caplog.text


def test_data_of_other_classes_are_refused(tiny_model, tmp_path, capsys):
    for folder, name in (('leftImg8bit', 'leftImg8bit'), ('gtFine', 'gtFine_labelIds')):
        path = tmp_path / folder / 'val' / 'ulm' / f'ulm_000000_000019_{name}.png'
        path.parent.mkdir(parents=True)
        cv2.imwrite(str(path), np.zeros((8, 8), np.uint8))
    assert run(tmp_path, '--model', tiny_model) == 2
    assert 'labelled with cityscapes19, tiny knows camvid11' in capsys.readouterr().err


def test_engines_and_precisions_stand_side_by_side(tiny_model, tmp_path, capsys):
    words = ('synthetic:3x3', '--model', tiny_model, '--protocol', 'deployment', '--no-plots', '-o', tmp_path)
    assert run(*words, '--engine', 'onnxruntime', '--engine', 'torch') == 0
    rows = json.loads((tmp_path / 'report.json').read_text())['rows']
    assert [row['name'] for row in rows] == ['tiny, onnxruntime fp32', 'tiny, torch fp32']
    assert [row['engine']['engine'] for row in rows] == ['onnxruntime', 'torch']
    one, other = (row['deployment']['all']['miou_percent'] for row in rows)
    assert one == pytest.approx(other, abs=0.1)
    assert 'tiny, torch fp32' in capsys.readouterr().out


def test_a_precision_that_is_not_there_is_refused_before_anything_is_scored(tiny_model, capsys):
    words = ('synthetic:3x3', '--model', tiny_model, '--precision', 'fp32', '--precision', 'int8')
    assert run(*words, '--engine', 'onnxruntime') == 2
    assert 'has no int8 graphs; make them with: vss export' in capsys.readouterr().err
