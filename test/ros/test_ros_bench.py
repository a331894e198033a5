"""`vss bench --ros` from start to end: camera, node and robot are processes of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from shutil import which

import pytest
from processes import started

from vss_ros.cli.bench_ros import Run, times_table
from vss_ros.cli.main import main
from vss_ros.ros.fast_dds import VARIABLES

ROOT = Path(__file__).parents[2]
# Runs a command with 64 MB of shared memory of its own, as in a container.
CONTAINER = ('unshare', '-rm', 'sh', '-c', 'mount -t tmpfs -o size=64m tmpfs /dev/shm && exec "$0" "$@"')


def start_bench(
    model: Path, *arguments: str, within: Sequence[str] = ()
) -> AbstractContextManager[subprocess.Popen]:
    own = ('_ROS_WHEELS_BOOTSTRAP_COMPLETE', *VARIABLES)
    environment = {k: v for k, v in os.environ.items() if k not in own}
    environment['PYTHONPATH'] = os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])
    words = ['bench', str(model), '--ros', '--engine', 'onnxruntime', '--size', '64x48', *arguments]
    return started(
        [*within, sys.executable, '-m', 'vss_ros.cli.main', *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def children_of(process: subprocess.Popen) -> list[int]:
    tasks = Path(f'/proc/{process.pid}/task')
    return [int(pid) for task in tasks.iterdir() for pid in (task / 'children').read_text().split()]


def test_every_image_that_was_sent_is_accounted_for_and_times_are_taken_by_kind(echo_model, tmp_path):
    file = tmp_path / 'bench.json'
    with start_bench(echo_model, '--frames', '20', '--rate', '20', '--json', str(file)) as bench:
        output, _ = bench.communicate(timeout=120)
    assert bench.returncode == 0, output
    figures = json.loads(file.read_text())
    [run] = figures['runs']
    assert '--ros' in figures['command']
    assert figures['machine']['cores'] > 0
    assert figures['metadata']['BenchmarkMetadata.TEST_DATETIME']
    assert (run['correction_interval'], run['motion'], run['threads'] > 0) == (1, 'none', True)
    keys = run['ros2_benchmark']
    assert keys['BasicPerformanceMetrics.NUM_FRAMES_SENT'] == 20
    assert keys['BasicPerformanceMetrics.NUM_MISSED_FRAMES'] == 20 - run['masks']
    assert keys['BasicPerformanceMetrics.MIN_LATENCY'] <= run['end_to_end_ms']['p50']
    assert 'BasicPerformanceMetrics.MEAN_FRAME_RATE' not in keys  # of frames that were handed over one by one
    assert run['sent'] == 20
    assert (run['size'], run['rate_hz'], run['engine']) == ([48, 64], 20, 'onnxruntime')
    ends = ('not_received', 'dropped', 'bad', 'failed', 'published')
    assert sum(run[name] for name in ends) == 20, run
    assert 5 < run['masks'] <= run['published']
    for kind in ('key', 'propagated'):
        assert run['frames'][kind] > 0
        times = run['ms'][kind]
        assert 0 < times['outside']['p50'] < times['latency']['p50'] <= times['latency']['p99']
    assert run['end_to_end_ms']['p50'] > run['ms']['propagated']['latency']['p50']
    assert 'what came of the images' in output


def test_a_precision_that_the_engine_has_not_is_left_out_and_tables_are_written_as_markdown(
    echo_model, tmp_path
):
    words = ('--precision', 'bf16', '--frames', '8', '--rate', '20')
    markdown = ('--markdown', str(tmp_path / 'bench.md'))
    with start_bench(echo_model, *words, '--precision', 'fp32', *markdown) as bench:
        output, _ = bench.communicate(timeout=200)
    assert bench.returncode == 0, output
    refusal = 'engine onnxruntime with provider cpu runs fp32 and int8, precision is bf16'
    assert f'left out: {refusal}' in output
    page = (tmp_path / 'bench.md').read_text()
    assert '**what came of the images**' in page
    assert '--ros --engine onnxruntime' in page  # the command that made it
    assert '| echo, onnxruntime fp32, N = 5 | 64x48 | 20 |' in page
    assert 'bf16' not in page.split('**', 1)[1]
    with start_bench(echo_model, *words) as bench:
        output, _ = bench.communicate(timeout=200)
    assert bench.returncode == 2
    assert f'vss: error: {refusal}' in output


def test_in_the_shared_memory_of_a_container_large_images_arrive_and_are_answered(echo_model, tmp_path):
    if which('unshare') is None or subprocess.run([*CONTAINER, 'true'], capture_output=True).returncode:
        pytest.skip('needs a mount of its own, which is not allowed here')
    file = tmp_path / 'bench.json'
    words = ('--size', '1920x1080', '--frames', '15', '--rate', '5', '--json', str(file))
    with start_bench(echo_model, *words, within=CONTAINER) as bench:
        output, _ = bench.communicate(timeout=120)
    assert bench.returncode == 0, output
    [run] = json.loads(file.read_text())['runs']
    assert run['masks'] > 10, run  # where one of the processes has no segment: 0 to 2


def test_a_run_of_which_too_few_masks_came_back_does_not_cost_the_times_of_the_others():
    run = Run('echo', 'onnxruntime', 'fp32', 5, False, '1x1', (48, 64), 60.0)
    times = {'p50': 1.0, 'p99': 2.0}
    measured = {'ms': {'key': {'latency': times, 'outside': times}}, 'frames': {'key': 4}}
    reports = [
        {**asdict(run), 'ms': {}, 'frames': {}, 'end_to_end_ms': None},
        {**asdict(run), **measured, 'end_to_end_ms': times},
    ]
    assert len(times_table(reports).rows) == 2


@pytest.mark.skipif(not Path('/proc/self/task').exists(), reason='needs /proc to see the child processes')
def test_ctrl_c_ends_the_node_and_the_camera_too(echo_model):
    with start_bench(echo_model, '--frames', '100000', '--rate', '30') as bench:
        children: list[int] = []
        deadline = time.monotonic() + 120
        while len(children) < 2:  # the node, and then the camera
            assert bench.poll() is None, bench.communicate()
            assert time.monotonic() < deadline, 'the camera was not started'
            time.sleep(0.05)
            children = children_of(bench)
        bench.send_signal(signal.SIGINT)
        output, _ = bench.communicate(timeout=60)
        assert bench.returncode == 130, output
        assert 'Traceback' not in output
        assert not [pid for pid in children if Path(f'/proc/{pid}').exists()]


@pytest.mark.parametrize('again', ['onnxruntime', 'auto'])
def test_the_node_is_not_measured_twice_on_one_engine(echo_model, again, monkeypatch, capsys):
    monkeypatch.setattr('vss_ros.core.engines.AUTO_ORDER', ('onnxruntime',))
    words = ['bench', str(echo_model), '--ros', '--engine', 'onnxruntime', '--engine', again]
    assert main(words) == 2
    assert 'echo, onnxruntime cpu fp32 would be measured twice' in capsys.readouterr().err


def test_what_is_asked_for_twice_is_measured_once(echo_model, tmp_path):
    file = tmp_path / 'bench.json'
    words = ['--key-frame-interval', '3', '--frames', '8', '--rate', '20'] * 2
    with start_bench(echo_model, *words, '--json', str(file)) as bench:
        output, _ = bench.communicate(timeout=120)
    assert bench.returncode == 0, output
    assert len(json.loads(file.read_text())['runs']) == 1


def test_a_source_of_images_is_refused(echo_model):
    with start_bench(echo_model, '--source', 'drive.mp4') as bench:
        output, _ = bench.communicate(timeout=60)
    assert bench.returncode == 2
    assert '--source cannot be used with --ros' in output
