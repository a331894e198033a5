"""Models and images that many tests share."""

from __future__ import annotations

import fcntl
import functools
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import vss_ros  # noqa: F401  first, so that ONNX Runtime reports nothing, whatever imports it

if TYPE_CHECKING:
    from vss_ros.core.model.folder import ModelFolder
    from vss_ros.methods.method import Method

sys.path.insert(0, str(Path(__file__).parent))

# A robot segments without PyTorch, and its tests run without it as well.
HAS_TORCH = find_spec('torch') is not None
NEED_TORCH = ['exporting', 'methods', 'torch_engine', 'training']
NEED_TORCH += ['calibration/test_confidence.py', 'calibration/test_correction.py']
collect_ignore = [] if HAS_TORCH else NEED_TORCH
TINY_SIZE = (64, 96)  # (height, width)

# What is started in the background ignores Ctrl-C, and so would the programs that tests start and stop by it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # and under nohup
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_report_header() -> str | None:
    return None if HAS_TORCH else 'PyTorch is not installed: tests of what needs it are left out'


@pytest.fixture(scope='session', autouse=True)
def temporary_files_go_with_the_run(tmp_path_factory):
    """Programs leave files in the temporary folder, above all those that tests kill."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('TMPDIR', str(tmp_path_factory.getbasetemp()))
        patch.setattr(tempfile, 'tempdir', None)
        yield


@pytest.fixture(scope='session', autouse=HAS_TORCH)
def operators_are_read_once():
    """The ONNX exporter reads its own library anew for every graph, a quarter of the time for small ones."""
    try:
        from torch.onnx._internal.exporter._registration import ONNXRegistry
    except ImportError:  # of another version, in which the tests take longer
        yield
        return
    read = functools.cache(ONNXRegistry.from_torchlib)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, 'from_torchlib', staticmethod(read))
        yield


@pytest.fixture(scope='session')
def shared_folder(tmp_path_factory):
    """Writes folders, each once for all workers. Nobody may change them afterwards."""
    shared = tmp_path_factory.getbasetemp()
    if 'PYTEST_XDIST_WORKER' in os.environ:
        shared = shared.parent

    def make(name: str, write: Callable[[Path], object]) -> Path:
        folder = shared / 'shared' / name
        folder.parent.mkdir(exist_ok=True)
        with (folder.parent / f'{name}.lock').open('w') as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.exists():
                write(folder)
        return folder

    return make


@pytest.fixture(scope='session')
def shared_model(shared_folder):
    """Exports methods, each once for all workers, because that takes a while."""
    pytest.importorskip('torch')
    pytest.importorskip('onnx')
    from vss_ros.core.model.folder import load_model
    from vss_ros.exporting.export import export

    def make(name: str, build: Callable[[], Method], size: tuple[int, int] = TINY_SIZE) -> ModelFolder:
        def write(folder: Path) -> None:
            export(build(), folder, name=name, class_set='camvid11', image_size=size)

        return load_model(shared_folder(name, write))

    return make


@pytest.fixture(scope='session')
def tiny_model(shared_model) -> Path:
    """A model folder that runs in milliseconds: evss-lite for camvid11 at 64x96, flow from DIS.

    Its weights are random, yet it sees all over the image a mixture of classes that follows the image.
    """
    pytest.importorskip('torch')
    return shared_model('tiny', tiny_method).path


@pytest.fixture(scope='session')
def late_models(tmp_path_factory) -> dict[int, Path]:
    """Model folders by how many frames their results are late; see `late_model.py`."""
    pytest.importorskip('onnxruntime')
    from late_model import write_late_model

    folder = tmp_path_factory.mktemp('late')
    return {delay: write_late_model(folder / f'late-{delay}', delay) for delay in (1, 2, 3)}


@pytest.fixture(scope='session')
def street() -> list[np.ndarray]:
    """Twelve images of a drive through a street at the size of the tiny model, BGR."""
    from vss_ros.core.synthetic import StreetClip

    return [frame.image for frame in StreetClip(7, 12, *TINY_SIZE)]


def tiny_method(name: str = 'evss-lite', **options):
    """A method for 11 classes with seeded random weights that spread their scores over the classes."""
    import torch

    from vss_ros.exporting.verify import example_frames
    from vss_ros.methods import build_method
    from vss_ros.methods.blocks.image import to_rgb

    torch.manual_seed(0)
    method = build_method(name, 11, options)
    rgb = to_rgb(torch.from_numpy(np.stack(example_frames(TINY_SIZE, 4))))
    with torch.no_grad():
        torch.nn.init.normal_(_last_convolution(method.conet).weight, std=0.1)
        method.train()
        for _ in range(20):  # the norms learn what an image looks like
            method.look_again(rgb, method.csrnet(rgb))
        method.eval()
        last, scores = _last_convolution(method.csrnet), method.csrnet(rgb)
        scale = 3 / scores.std((0, 2, 3))  # every class gets mean 0 and deviation 3 over the pixels
        last.weight *= scale.view(-1, 1, 1, 1)
        last.bias.sub_(scores.mean((0, 2, 3))).mul_(scale)
    return method


def _last_convolution(network):
    import torch

    return [module for module in network.modules() if isinstance(module, torch.nn.Conv2d)][-1]
