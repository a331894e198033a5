"""Norms of which half the channels look at each image alone: the option `norms`."""

from __future__ import annotations

import pytest
import torch
from method_models import LITE
from torch import nn

from vss_ros.core.errors import SettingsError
from vss_ros.core.model.folder import load_model
from vss_ros.exporting.fused_norms import fuse_norms
from vss_ros.exporting.lower_precision import lower_precision
from vss_ros.methods import build_method
from vss_ros.methods.blocks.mixed_norm import NORMS, HalfInstanceNorm, MixedNorm
from vss_ros.training.start import start_from

CHANNELS = 6
METHODS = {
    'per-frame': {'backbone': 'lite'},
    'evss': {},
    'dff': {**LITE, 'scale_field': False},
    **dict.fromkeys(('accel', 'dvsnet', 'evss-lite'), LITE),
}


def randomly(norm: nn.Module) -> nn.Module:
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2)
        norm.bias.normal_()
    return norm


@pytest.fixture
def norm():
    torch.manual_seed(0)
    return randomly(MixedNorm(CHANNELS))


@pytest.fixture
def maps(norm):
    return 3 * torch.rand(4, CHANNELS, 5, 7) + torch.randn(4, CHANNELS, 1, 1)


@pytest.mark.parametrize('trains', [True, False])
def test_the_first_half_is_an_instance_norm_and_the_other_a_batch_norm(norm, maps, trains):
    alone, together = nn.InstanceNorm2d(CHANNELS, affine=True), nn.BatchNorm2d(CHANNELS)
    for each in (alone, together):
        each.load_state_dict(norm.state_dict(), strict=False)
        each.train(trains)
    expected = torch.cat((alone(maps)[:, :3], together(maps)[:, 3:]), 1)
    assert torch.allclose(norm.train(trains)(maps), expected, atol=1e-5)
    assert torch.allclose(norm.running_mean[3:], together.running_mean[3:])
    assert torch.allclose(norm.running_var[3:], together.running_var[3:])


def test_half_of_the_channels_do_not_notice_another_light(norm, maps):
    dark = 0.4 * maps - 0.3
    seen, seen_dark = (norm.eval()(each) for each in (maps, dark))
    assert torch.allclose(seen_dark[:, :3], seen[:, :3], atol=1e-3)
    assert not torch.allclose(seen_dark[:, 3:], seen[:, 3:], atol=0.1)


def test_its_weights_are_those_of_a_batch_norm_with_statistics_of_all_channels(norm, maps):
    for _ in range(100):
        norm.train()(maps)
    batch_norm = nn.BatchNorm2d(CHANNELS).eval()
    batch_norm.load_state_dict(norm.state_dict())
    of_images = maps.var((2, 3)).mean(0)
    assert torch.allclose(batch_norm.running_mean, maps.mean((0, 2, 3)), atol=1e-3)
    assert torch.allclose(batch_norm.running_var[:3], of_images[:3], rtol=0.01)


def test_gradients_can_wait_until_more_frames_were_seen(norm, maps):
    """A stream is run through the network before its losses are summed up."""
    convolution = nn.Conv2d(CHANNELS, CHANNELS, 1)
    with torch.autocast('cpu', torch.bfloat16):
        loss = sum(norm.train()(convolution(each)).float().square().sum() for each in (maps, 2 * maps))
    loss.backward()
    assert torch.isfinite(norm.weight.grad).all()


def test_sums_over_large_images_fit_into_half_precision(norm):
    maps = (20 + torch.rand(1, CHANNELS, 90, 120)).half()
    found = norm.eval().half()(maps)
    assert found.dtype == torch.float16
    assert torch.allclose(found[0, :3].float().std((1, 2)), norm.weight[:3].detach().float(), rtol=0.05)


@pytest.mark.parametrize('name', METHODS)
def test_every_method_takes_the_weights_of_one_with_batch_norms(name):
    plain, mixed = (build_method(name, 11, {**METHODS[name], 'norms': norms}) for norms in ('batch', 'mixed'))
    assert any(isinstance(module, MixedNorm) for module in mixed.csrnet.modules())
    mixed.load_state_dict(plain.state_dict())


@pytest.mark.parametrize(
    ('name', 'options', 'network'),
    [
        ('davss', {'backbone': 'lite'}, 'deeplab'),
        ('twnet', {'encoder': 'lite', 'layer': 1}, 'cnn'),
        ('st-memory', {'backbone': 'lite'}, 'pspnet'),
    ],
)
def test_other_methods_on_the_light_segmenter_have_them_where_it_has_them(name, options, network):
    theirs = build_method(name, 11, {**options, 'norms': 'mixed'}).get_submodule(network)
    ours = build_method('evss-lite', 11, {'norms': 'mixed'}).csrnet

    def places(module):
        return {at for at, layer in module.named_modules() if isinstance(layer, MixedNorm)}

    assert places(theirs) == places(ours) != set()


@pytest.mark.parametrize('norms', NORMS)
def test_a_glance_has_the_norms_of_key_frames(norms):
    method = build_method('evss-lite', 11, {'norms': norms})
    kinds = [[type(layer) for layer in network.modules()] for network in (method.csrnet, method.glance)]
    assert [found.count(MixedNorm) for found in kinds] == [kinds[0].count(MixedNorm)] * 2
    assert (MixedNorm in kinds[0]) == (norms == 'mixed')


@pytest.mark.parametrize(
    ('name', 'network'), [('davss', 'DeepLab'), ('twnet', 'LightFpn'), ('st-memory', 'PspNet')]
)
def test_published_networks_have_none(name, network):
    with pytest.raises(SettingsError, match=f'norms is mixed, which {network} has not; use batch'):
        build_method(name, 11, {'norms': 'mixed'})


def test_going_on_from_weights_that_learnt_with_other_norms_is_warned_of(caplog):
    learnt_with = load_model('camvid-evss-lite').options.get('norms', 'batch')
    (other,) = set(NORMS) - {learnt_with}
    method = build_method('per-frame', 11, {'backbone': 'lite', 'magnify': 1.333, 'norms': other})
    start_from(method, {'csrnet': 'camvid-evss-lite/csrnet'})
    assert f'csrnet has norms {other}, and learnt with {learnt_with}' in caplog.text


@torch.no_grad()
def test_the_convolution_before_it_does_the_batch_norm_of_its_half_in_the_end(norm, maps):
    norm.train()(maps)
    network = nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 3, bias=False), norm).eval()
    expected = network(maps)
    fuse_norms(network, lambda: network(maps))
    assert isinstance(network[1], HalfInstanceNorm)
    assert torch.allclose(network(maps), expected, atol=1e-5)
    assert network.half()(maps.half()).dtype == torch.float16


def test_an_instance_norm_has_its_weights_in_float32_where_the_network_has_not():
    method = build_method('per-frame', 11, {'backbone': 'lite', 'norms': 'mixed'}).eval()
    frame = torch.zeros(1, 64, 96, 3, dtype=torch.uint8)
    fuse_norms(method, lambda: method.examples(frame))
    lower_precision(method, torch.bfloat16)
    norms = [module for module in method.modules() if isinstance(module, HalfInstanceNorm)]
    of_norms = {id(parameter) for norm in norms for parameter in norm.parameters()}
    assert len(of_norms) == 2 * len(norms) > 0
    for parameter in method.parameters():
        assert parameter.dtype == (torch.float32 if id(parameter) in of_norms else torch.bfloat16)
    method.examples(frame)
