"""Models and images that many tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

TINY_SIZE = (64, 96)


@pytest.fixture(scope='session')
def tiny_model(tmp_path_factory) -> Path:
    """A model folder that runs in a millisecond: evss-lite with random weights at 64x96, flow from DIS."""
    pytest.importorskip('torch')
    return export_tiny(tmp_path_factory.mktemp('models') / 'tiny')


def export_tiny(folder: Path, **options) -> Path:
    """Exports evss-lite with seeded random weights at 64x96 and returns the folder."""
    import torch

    from vss_ros.methods import build_method
    from vss_ros.methods.export import export

    torch.manual_seed(0)
    method = build_method('evss-lite', 11, options)
    export(method, folder, name=folder.name, class_set='camvid11', image_size=TINY_SIZE)
    return folder
