import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from processes import started

from vss_ros.cli.main import main
from vss_ros.cli.run import _Tally
from vss_ros.core.engines.onnx_runtime import OnnxRuntimeEngine
from vss_ros.core.frame import Segmentation
from vss_ros.core.sources.images import natural_order


def run(source, model, *words):
    return main(['run', str(source), '--model', str(model), *map(str, words)])


@pytest.fixture
def images(tmp_path, street):
    """A folder of twelve images that move, with labels for the last six."""
    for folder in ('images', 'labels'):
        (tmp_path / 'clip' / folder).mkdir(parents=True)
    for number, image in enumerate(street):
        cv2.imwrite(f'{tmp_path}/clip/images/{number}.png', image)
        if number >= 6:
            cv2.imwrite(f'{tmp_path}/clip/labels/{number}.png', np.full(image.shape[:2], 3, np.uint8))
    return tmp_path / 'clip'


def read_masks(folder):
    return [
        cv2.imread(str(file), cv2.IMREAD_UNCHANGED) for file in sorted(folder.iterdir(), key=natural_order)
    ]


def test_every_kind_of_output_comes_from_one_run(images, tiny_model, tmp_path, capsys):
    pytest.importorskip('av')
    pytest.importorskip('rosbags')
    out = tmp_path / 'out'
    names = [f'{out}/a.mp4', f'{out}/b.mcap', f'bag:{out}/c', f'{out}/masks/', f'{out}/s.json']
    outputs = [word for name in names for word in ('-o', name)]
    assert run(images, tiny_model, *outputs, '--engine', 'onnxruntime') == 0
    assert sorted(os.listdir(out)) == ['a.mp4', 'b.mcap', 'c', 'masks', 's.json']
    assert len(read_masks(out / 'masks')) == 12
    scores = json.loads((out / 's.json').read_text())
    assert scores['frames'] == 6
    assert list(scores['miou_percent_by_age']) == ['0', '1', '2', '3', '4']
    shown = capsys.readouterr().out
    assert '12 frames in' in shown
    assert 'on onnxruntime fp32 cpu\n' in shown
    assert all(f'written: {name}\n' in shown for name in names)
    assert 'scored on 6 frames with truth' in shown
    assert f'{scores["miou_percent"]:.2f}' in shown


def test_a_run_closes_its_engine_also_after_an_error(tiny_model, tmp_path, monkeypatch):
    closed = []
    monkeypatch.setattr(OnnxRuntimeEngine, 'close', lambda engine: closed.append(engine))
    assert run('synthetic:3x2', tiny_model, '--engine', 'onnxruntime') == 0
    assert len(closed) == 1
    (tmp_path / 'a.json').touch()
    assert run('synthetic:3x2', tiny_model, '--engine', 'onnxruntime', '-o', tmp_path / 'a.json') == 2
    assert len(closed) == 2


def test_a_street_is_no_truth_for_a_model_of_other_classes(tiny_model, tmp_path, capsys):
    model = shutil.copytree(tiny_model, tmp_path / 'model')
    text = (model / 'model.yaml').read_text()
    classes = [{'name': f'thing {i}', 'colour': [i, i, i]} for i in range(11)]
    text = text.replace(
        'classes: camvid11\n', f'classes: {json.dumps({"name": "mine", "classes": classes})}\n'
    )
    (model / 'model.yaml').write_text(text)
    assert run('synthetic:3x2', tiny_model) == 0
    assert 'mIoU' in capsys.readouterr().out
    assert run('synthetic:3x2', model) == 0
    assert 'mIoU' not in capsys.readouterr().out
    assert main(['evaluate', 'synthetic:3x2', '--model', str(model)]) == 2
    assert 'is labelled with camvid11' in capsys.readouterr().err


def test_a_bag_is_segmented_as_the_images_that_it_was_made_of(images, tiny_model, tmp_path):
    pytest.importorskip('rosbags')
    assert run(images, tiny_model, '-o', tmp_path / 'bag.mcap', '--copy-images', '-o', f'{tmp_path}/a/') == 0
    assert run(tmp_path / 'bag.mcap', tiny_model, '--topic', '/image_raw', '-o', f'{tmp_path}/b/') == 0
    first, second = read_masks(tmp_path / 'a'), read_masks(tmp_path / 'b')
    assert len(first) == 12
    assert all(np.array_equal(mask, copy) for mask, copy in zip(first, second, strict=True))


def test_masks_of_images_and_of_a_bag_serve_as_their_labels(images, tiny_model, tmp_path):
    pytest.importorskip('rosbags')
    bag, every = tmp_path / 'bag.mcap', ('--key-frame-interval', 1)
    pairs = [(images / 'images', tmp_path / 'a', []), (bag, tmp_path / 'b', ['--topic', '/image_raw'])]
    assert run(images, tiny_model, '-o', bag, '--copy-images') == 0
    for source, masks, words in pairs:
        assert run(source, tiny_model, *words, *every, '-o', f'{masks}/') == 0
        words += [
            '--labels',
            masks,
            *every,
            '--protocol',
            'deployment',
            '--no-plots',
            '-o',
            f'{masks}-scores',
        ]
        assert main(['evaluate', *map(str, [source, '--model', tiny_model, *words])]) == 0
        report = json.loads(Path(f'{masks}-scores/report.json').read_text())
        assert report['data']['labelled_frames'] == 12
        assert report['rows'][0]['deployment']['all']['miou_percent'] == 100
    assert sorted(os.listdir(tmp_path / 'a')) == sorted(os.listdir(images / 'images'))


@pytest.mark.parametrize(('words', 'keys'), [([], 3), (['--key-frame-interval', '1'], 12)])
def test_the_key_frame_interval_is_obeyed(images, tiny_model, capsys, words, keys):
    assert run(images, tiny_model, *words) == 0
    rows = [line.split('│') for line in capsys.readouterr().out.splitlines() if '│ key' in line]
    assert int(rows[0][2]) == keys


def test_it_is_said_why_every_frame_of_a_slow_source_is_computed_in_full(images, tiny_model, capsys):
    said = 'every frame was computed in full: each came more than 0.5 s after the one before'
    assert run(images, tiny_model, '--rate', 1) == 0
    assert said in capsys.readouterr().out
    for words in (
        ['--rate', 1, '--max-frame-gap-s', 2],
        ['--rate', 1, '--key-frame-interval', 1],
        ['--frames', 1],
    ):
        assert run(images, tiny_model, *words) == 0
        assert 'computed in full' not in capsys.readouterr().out


def test_images_of_many_sizes_are_said_to_be_computed_in_full(images, tiny_model, capsys):
    for number in range(0, 12, 2):
        file = str(images / 'images' / f'{number}.png')
        cv2.imwrite(file, cv2.imread(file)[:32])
    assert run(images / 'images', tiny_model) == 0
    shown = capsys.readouterr().out
    assert 'every frame was computed in full: each began a new stream: size changed (11)' in shown


def test_times_of_a_long_run_take_no_more_memory_than_those_of_a_short_one_and_are_as_exact():
    tally = _Tally()
    times = np.random.default_rng(0).gamma(4, 5, 20_000)
    for ms in (*times, *times):
        tally.write(
            None, Segmentation(None, None, False, 1, 0, 0, timings_ms={'flow': ms / 4, 'warp': ms * 3 / 4})
        )
    for percent in (0, 50, 99, 100):
        expected = np.percentile([*times, *times], percent)
        assert tally.percentile_ms('propagated', percent) == pytest.approx(expected, abs=0.006)
    assert tally.times['propagated'].total() == 40_000
    assert len(tally.times['propagated']) < 10_000


def test_a_run_can_stop_early(images, tiny_model, tmp_path):
    assert run(images, tiny_model, '--frames', 2, '-o', f'{tmp_path}/m/') == 0
    assert len(read_masks(tmp_path / 'm')) == 2


def test_masks_have_the_size_of_the_input_or_of_the_network(tiny_model, tmp_path):
    big = tmp_path / 'big.png'
    cv2.imwrite(str(big), np.zeros((100, 90, 3), np.uint8))
    assert run(big, tiny_model, '-o', f'{tmp_path}/a/') == 0
    assert run(big, tiny_model, '-o', f'{tmp_path}/b/', '--output-size', 'network') == 0
    assert read_masks(tmp_path / 'a')[0].shape == (100, 90)
    assert read_masks(tmp_path / 'b')[0].shape == (64, 96)


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['--key-frame-interval', '0'], 'key_frame_interval is 0; use 1'),
        (['--frames', '0'], 'frames is 0; use 1 or more'),
        (['--frames', '9' * 20], 'use 1 or more, or leave it out'),
        (['--rate', 'inf'], 'rate is inf; use 1000000'),
        (['--scheduler', 'adaptive', '--key-share-window', '9' * 21], 'key_share_window is 99'),
        (['--max-interval', '9' * 400], 'max_interval is 99'),
        (['--topic', '/image'], 'which has no topic; leave that out'),
        (['--precision', 'fp16'], 'set precision to fp32'),
        (['--motion', 'network'], 'has no flow network'),
        (['-o', 'masks.mcap', '--alpha', '0.3'], '--alpha is for overlay videos'),
        (['-o', 'overlay.mp4', '--copy-images'], '--copy-images is for bags'),
        (['-o', 'out.txt'], "output 'out.txt' is of no kind known here"),
        (['--model', 'nowhere'], "model 'nowhere' was not found"),
    ],
)
def test_a_setting_that_cannot_be_used_is_one_line_and_code_2(images, tiny_model, capsys, words, message):
    assert run(images, tiny_model, '--engine', 'onnxruntime', *words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count('\n') == 1


def test_an_output_that_is_a_link_to_itself_is_refused(images, tiny_model, tmp_path, capsys):
    (tmp_path / 'loop').symlink_to('loop')
    for names in (['loop/a.mcap'], ['a.json', 'loop/a.json']):
        assert run(images, tiny_model, *(word for name in names for word in ('-o', tmp_path / name))) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2
    assert all('loop' in error for error in errors)


def test_truth_without_any_pixel_of_a_class_is_told(images, tiny_model, caplog):
    for file in (images / 'labels').iterdir():
        cv2.imwrite(str(file), np.full((64, 96), 77, np.uint8))
    assert run(images, tiny_model, '--engine', 'onnxruntime') == 0
    assert 'all ids of its truth are unlabelled or no class of camvid11' in caplog.text


def test_an_output_that_exists_is_kept_unless_told_otherwise(images, tiny_model, tmp_path, capsys):
    (tmp_path / 's.json').write_text('mine')
    assert run(images, tiny_model, '-o', tmp_path / 's.json') == 2
    assert 's.json exists; choose another name or add --overwrite' in capsys.readouterr().err
    assert (tmp_path / 's.json').read_text() == 'mine'
    assert run(images, tiny_model, '-o', tmp_path / 's.json', '--overwrite') == 0
    assert json.loads((tmp_path / 's.json').read_text())['frames'] == 6


@pytest.mark.parametrize(
    ('source', 'output'),
    [
        ('clip', '{}/clip/'),
        ('clip', '{}/clip/images/'),
        ('clip', '{}/clip/labels'),
        ('clip/images', '{}/clip/images'),
        ('clip/images/7.png', '{}/clip/images/'),
        ('clip/images', 'bag:{}/clip'),
        ('clip/images/7.png', '{}/clip/../clip/images/7.png'),
    ],
)
def test_the_source_is_never_written_into_or_over(images, tiny_model, tmp_path, capsys, source, output):
    before = {file: file.read_bytes() for file in images.rglob('*.png')}
    assert run(tmp_path / source, tiny_model, '-o', output.format(tmp_path), '--overwrite') == 2
    assert 'is where the source lies' in capsys.readouterr().err
    assert {file: file.read_bytes() for file in images.rglob('*') if file.is_file()} == before


def test_masks_never_take_the_place_of_the_labels(images, tiny_model, tmp_path, capsys):
    labels = shutil.copytree(images / 'labels', tmp_path / 'truth' / 'gt')
    before = {file: file.read_bytes() for file in labels.iterdir()}
    words = '--labels', labels, '--frames', 2, '--overwrite'
    for output in (f'{labels}/', f'bag:{labels}'):
        assert run(images / 'images', tiny_model, *words, '-o', output) == 2
        assert f'is where the labels lie, {labels}; name another place' in capsys.readouterr().err
    assert {file: file.read_bytes() for file in labels.iterdir()} == before
    assert run(images / 'images', tiny_model, *words, '-o', f'{labels.parent}/') == 0


def test_the_source_is_known_behind_a_link(images, tiny_model, tmp_path, capsys):
    (images / 'images').rename(tmp_path / 'elsewhere')
    (images / 'images').symlink_to(tmp_path / 'elsewhere')
    for output in (f'{images}/images/', f'{tmp_path}/elsewhere/'):
        assert run(images, tiny_model, '-o', output) == 2
        assert 'is where the source lies' in capsys.readouterr().err


def test_nothing_is_written_into_a_recording_that_is_the_source(images, tiny_model, tmp_path, capsys):
    pytest.importorskip('rosbags')
    recording = tmp_path / 'rec'
    assert run(images, tiny_model, '-o', f'bag:{recording}', '--copy-images', '--frames', 2) == 0
    before = {file.name: file.read_bytes() for file in recording.iterdir()}
    assert 'rec.mcap' in before
    for output in ('rec.mcap', 's.json', 'masks/'):
        words = '-o', f'{recording}/{output}', '--overwrite', '--topic', '/image_raw'
        assert run(recording, tiny_model, *words) == 2
        assert 'is where the source lies' in capsys.readouterr().err
    assert {file.name: file.read_bytes() for file in recording.iterdir()} == before


def test_masks_may_lie_beside_a_video(tiny_model, tmp_path, street):
    av = pytest.importorskip('av')
    with av.open(str(tmp_path / 'v.mp4'), 'w') as container:
        stream = container.add_stream('mpeg4', rate=15)
        stream.height, stream.width = street[0].shape[:2]
        for image in street[:2]:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format='bgr24')))
        container.mux(stream.encode(None))
    assert run(tmp_path / 'v.mp4', tiny_model, '-o', f'{tmp_path}/') == 0
    assert len(list(tmp_path.glob('*.png'))) == 2


def test_an_output_that_is_named_twice_is_refused_before_the_work(images, tiny_model, tmp_path, capsys):
    outputs = ('-o', tmp_path / 'a.json', '-o', f'{images}/../a.json')
    assert run(images, tiny_model, *outputs) == 2
    assert 'is named twice' in capsys.readouterr().err
    assert not (tmp_path / 'a.json').exists()


def test_a_damaged_image_in_the_middle_leaves_no_output(images, tiny_model, tmp_path, capsys):
    pytest.importorskip('av')
    pytest.importorskip('rosbags')
    (images / 'images' / '7.png').write_bytes(b'damaged')
    (tmp_path / 'out').mkdir()
    assert run(images, tiny_model, '-o', tmp_path / 'out/a.mp4', '-o', tmp_path / 'out/b.mcap') == 2
    assert '7.png cannot be read' in capsys.readouterr().err
    assert os.listdir(tmp_path / 'out') == []


@pytest.mark.parametrize(
    ('number', 'code'),
    [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGHUP, 130), (signal.SIGKILL, -signal.SIGKILL)],
)
def test_a_run_that_is_stopped_leaves_no_half_of_an_output(tiny_model, tmp_path, number, code):
    pytest.importorskip('av')
    pytest.importorskip('rosbags')
    names = [f'{tmp_path}/{name}' for name in ('a.mp4', 'b.mcap', 's.json', 'masks/')]
    command = [
        sys.executable,
        '-m',
        'vss_ros.cli.main',
        'run',
        'synthetic:0x900',
        '--model',
        str(tiny_model),
    ]
    command += [word for name in names for word in ('-o', name)]
    with started(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        while not (tmp_path / 'masks' / '000001.png').exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(number)
        _, error = process.communicate(timeout=60)
    assert process.returncode == code
    assert 'Traceback' not in error
    assert [name for name in os.listdir(tmp_path) if not name.startswith('.')] == ['masks']
    if number != signal.SIGKILL:
        assert os.listdir(tmp_path) == ['masks']
        assert 'vss: interrupted' in error
    masks = [name for name in os.listdir(tmp_path / 'masks') if not name.startswith('.')]
    assert all(cv2.imread(f'{tmp_path}/masks/{name}', cv2.IMREAD_UNCHANGED) is not None for name in masks)


@pytest.mark.parametrize('camera', ['0', 'rtsp://cam', '/dev/video0'])
def test_a_camera_is_said_to_be_for_the_node(tiny_model, capsys, camera):
    assert main(['run', camera, '--model', str(tiny_model)]) == 2
    assert 'for a live camera start the node (README, On a robot)' in capsys.readouterr().err


def test_scores_alone_are_not_written_without_labels(tiny_model, tmp_path, capsys):
    source = tmp_path / 'one.png'
    cv2.imwrite(str(source), np.zeros((64, 96, 3), np.uint8))
    words = ['run', str(source), '--model', str(tiny_model), '--threads', '1']
    assert main([*words, '-o', str(tmp_path / 'new' / 'scores.json')]) == 2
    assert 'no frame has a label, so there are no scores to write' in capsys.readouterr().err
    assert not (tmp_path / 'new').exists()


def test_a_run_that_fails_leaves_no_empty_folder(tiny_model, tmp_path):
    (tmp_path / 'bad.png').write_text('no image')
    for output in ('new/masks/', 'new/out.json'):
        assert (
            main(['run', str(tmp_path / 'bad.png'), '--model', str(tiny_model), '-o', str(tmp_path / output)])
            == 2
        )
        assert not (tmp_path / 'new').exists()
