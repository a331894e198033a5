"""A method of one's own: the mistakes that are named."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from vss_ros.core.errors import ModelError, SettingsError, ShapeError
from vss_ros.methods import METHODS, build_method
from vss_ros.methods.blocks.image import to_rgb
from vss_ros.methods.export import export
from vss_ros.methods.method import Method


class Single(Method):
    """One convolution on every frame; the mistakes are in its subclasses."""

    steps = {'key': ('segmenter',)}
    state = {}
    key_network = 'network'

    def __init__(self, classes: int, **options) -> None:
        super().__init__(classes, **options)
        self.network = nn.Conv2d(3, classes, 4, 4)

    def segmenter(self, image: Tensor) -> dict[str, Tensor]:
        scores = self.segment(to_rgb(image))
        return {'scores': scores, **self.decided(scores, image.shape[1:3])}


class LosesWidth(Single):
    def __init__(self, classes: int, width: int = 8) -> None:
        super().__init__(classes)
        self.network = nn.Sequential(nn.Conv2d(3, width, 4, 4), nn.Conv2d(width, classes, 1))


def test_a_size_that_a_network_cannot_take_is_named_with_the_graph(tmp_path):
    method = build_method('per-frame', 11, {'backbone': 'lite'})
    method.csrnet.decoder_16 = nn.AvgPool2d(3, 2)  # a decoder whose maps do not fit
    method.csrnet.context = nn.MaxPool2d(40)
    with pytest.raises(
        ModelError, match=r"graph 'segmenter' fails for images of 100x60: RuntimeError: .*, such as 96x64"
    ):
        export(method, tmp_path / 'm', name='m', class_set='camvid11', image_size=(60, 100))


@pytest.mark.parametrize(
    ('name', 'options', 'nearest'),
    [('per-frame', {'backbone': 'lite'}, '640x352'), ('st-memory', {'backbone': 'lite'}, '640x352')],
)
def test_the_nearest_size_that_can_be_used_is_named(name, options, nearest):
    image = torch.zeros(1, 353, 641, 3, dtype=torch.uint8)
    with pytest.raises(ShapeError, match=f'image is 641x353; .* multiples of ., such as {nearest}'):
        build_method(name, 11, options).eval().examples(image)


@pytest.mark.parametrize('name', METHODS)
def test_every_method_refuses_a_decision_that_does_not_exist(name):
    with pytest.raises(SettingsError, match="decision is 'bogus'; use one of full, half, quarter"):
        build_method(name, 11, {'decision': 'bogus'})


def test_options_that_no_network_can_be_built_with_are_named(monkeypatch):
    monkeypatch.setitem(METHODS, 'own', f'{LosesWidth.__module__}:LosesWidth')
    with pytest.raises(SettingsError, match=r"options {'width': -2} of method 'own' cannot be used: Runtime"):
        build_method('own', 11, {'width': -2})
