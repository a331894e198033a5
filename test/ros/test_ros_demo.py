"""`vss demo` from start to end: the real node, on real topics, in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from processes import started

pytest.importorskip('matplotlib')
pytest.importorskip('av')

ROOT = Path(__file__).parents[2]


def start_demo(model: Path, folder: Path, *arguments: str) -> AbstractContextManager[subprocess.Popen]:
    command = [sys.executable, '-m', 'vss_ros.cli.main', 'demo', '--model', str(model), '--size', '64x48']
    return started(
        [*command, '--output-dir', str(folder), *arguments],
        env=os.environ | {'PYTHONPATH': os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_demo_writes_pictures_and_counts_every_frame(echo_model, tmp_path):
    with start_demo(echo_model, tmp_path, '--seconds', '1', '--key-frame-interval', '3') as demo:
        output, _ = demo.communicate(timeout=120)
    assert demo.returncode == 0, output
    rows = {
        cells[1].strip(): cells[2].strip()
        for line in output.splitlines()
        if len(cells := line.split('│')) > 3
    }
    assert rows['frames sent'] == '15'
    received, dropped = int(rows['masks received from the node']), int(rows['frames dropped for a newer one'])
    assert 5 < received <= 15
    assert sum(map(int, rows['key / propagated / carried frames'].split('/'))) == received
    assert received + dropped <= int(rows['frames received by the node'])
    assert '%' in rows['mIoU against the exact labels']
    for name in ('contact_sheet.png', 'overlay.mp4', 'node.log'):
        assert (tmp_path / name).stat().st_size > 0


@pytest.mark.parametrize('sent', [signal.SIGINT, signal.SIGHUP])
def test_demo_ends_the_node_on_ctrl_c_and_when_its_terminal_is_closed(echo_model, tmp_path, sent):
    with start_demo(echo_model, tmp_path, '--seconds', '60') as demo:
        log = tmp_path / 'node.log'
        deadline = time.monotonic() + 120
        while not log.exists():
            assert demo.poll() is None, demo.communicate()
            assert time.monotonic() < deadline, 'the node was not started'
            time.sleep(0.05)
        demo.send_signal(sent)
        output, _ = demo.communicate(timeout=60)
    assert demo.returncode == 130, output
    assert 'Traceback' not in output
    assert not (tmp_path / 'overlay.mp4').exists()


def test_demo_names_a_model_that_does_not_exist(tmp_path):
    with start_demo(tmp_path / 'nothing', tmp_path) as demo:
        output, _ = demo.communicate(timeout=60)
    assert demo.returncode == 2
    assert "nothing' was not found" in output
