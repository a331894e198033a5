"""Key frames that are looked at larger than they are: the option `magnify`."""

from __future__ import annotations

import copy

import pytest
import torch
from method_models import LITE, SIZE
from torch import nn
from torch.nn import functional

from vss_ros.core.errors import SettingsError
from vss_ros.exporting.verify import example_frames
from vss_ros.methods import build_method
from vss_ros.methods.blocks.csrnet import CsrNet
from vss_ros.methods.blocks.decide import decide
from vss_ros.methods.blocks.lite import LiteSegmenter
from vss_ros.methods.key_frames import BACKBONES

CLASSES = 11
METHODS = {
    'per-frame': {'backbone': 'lite'},
    'dff': {**LITE, 'scale_field': False},
    'accel': LITE,
    'dvsnet': LITE,
    'evss': {**LITE, 'fusion': 'quarter'},
    'evss-lite': LITE,
}


@pytest.fixture(params=METHODS)
def method(request):
    torch.manual_seed(0)
    options = METHODS[request.param]
    return build_method(request.param, CLASSES, {**options, 'decision': 'half', 'magnify': 1.5}).eval()


@pytest.fixture(scope='module')
def image():
    return torch.from_numpy(example_frames(SIZE, 1)[0][None])


@pytest.mark.parametrize('network', [LiteSegmenter, CsrNet])
@pytest.mark.parametrize(('magnify', 'seen'), [(1.5, (96, 144)), (1.333, (84, 128)), (2, (128, 192))])
def test_it_is_the_network_itself_on_the_enlarged_image(network, magnify, seen):
    torch.manual_seed(0)
    plain, close = network(CLASSES).eval(), network(CLASSES, magnify=magnify).eval()
    close.load_state_dict(plain.state_dict())  # the same weights fit
    rgb = torch.rand(1, 3, *SIZE)
    enlarged = functional.interpolate(rgb, seen, mode='bilinear')
    assert torch.equal(close(rgb), plain(enlarged))
    assert close(rgb).shape[2:] == (seen[0] // 4, seen[1] // 4)


@torch.no_grad()
def test_a_key_frame_is_decided_from_the_finer_scores_and_carried_in_cells_of_the_image(method, image):
    fine, key = method.key_scores(image), method.segmenter(image)
    assert fine.shape[2:] == (24, 36)
    assert torch.equal(key['mask'], decide(fine, SIZE, 'half')['mask'])
    if method.state:
        cells = (SIZE[0] // 4, SIZE[1] // 4)
        assert torch.equal(key['scores'], functional.interpolate(fine, cells, mode='bilinear'))


@torch.no_grad()
def test_it_gives_the_same_once_it_takes_the_bytes_of_the_camera(method, image):
    folded = copy.deepcopy(method)
    folded.fold(SIZE)
    assert torch.allclose(folded.key_scores(image), method.key_scores(image), atol=1e-4)


def test_a_network_that_cannot_do_it_is_not_asked_to(monkeypatch):
    plain = nn.Conv2d(3, CLASSES, 4, 4)
    monkeypatch.setitem(BACKBONES, 'lite', lambda classes, magnify: plain)
    assert build_method('per-frame', CLASSES, {'backbone': 'lite'}).csrnet is plain
    with pytest.raises(SettingsError, match='norms is mixed, which Conv2d has not; use batch'):
        build_method('per-frame', CLASSES, {'backbone': 'lite', 'norms': 'mixed'})
    with pytest.raises(SettingsError, match=r"magnify is 1\.5, and the network of backbone 'lite' looks at"):
        build_method('per-frame', CLASSES, {'backbone': 'lite', 'magnify': 1.5})


@pytest.mark.parametrize('magnify', [0.5, 5, 'twice', True, float('nan'), None])
def test_a_size_that_cannot_be_used_is_refused(magnify):
    with pytest.raises(SettingsError, match=r'magnify is .*; use a number'):
        build_method('evss-lite', CLASSES, {'magnify': magnify})
