"""Published weights of DAVSS come in whole or in parts, with and without wrapper prefixes.

The files hold one number per tensor, spread over its shape, so that they are small.
"""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from vss_ros.core.errors import ModelError
from vss_ros.exporting.import_weights import import_weights, missing_networks
from vss_ros.methods.davss import Davss
from vss_ros.methods.evss import Evss

NETWORKS = ('deeplab', 'flownet', 'cfnet', 'dmnet')
HEADS = ('deeplab.logits', 'cfnet.predict_cc')


@pytest.fixture(scope='module')
def davss():
    with torch.device('meta'):
        return Davss(19)


@pytest.fixture(scope='module')
def published(published_davss_keys):
    return {
        name: torch.tensor(i if name.endswith('num_batches_tracked') else float(i)).expand(shape)
        for i, (name, shape) in enumerate(published_davss_keys.items())
    }


def of_networks(tensors, *networks):
    return {name: tensor for name, tensor in tensors.items() if name.split('.')[0] in networks}


def assert_equal_states(found, expected):
    assert sorted(found) == sorted(expected)
    for name in expected:
        assert found[name].shape == expected[name].shape
        assert found[name].flatten()[0] == expected[name].flatten()[0]


@pytest.mark.parametrize('wrapper', ['', 'module.'])
def test_a_full_model_as_published_loads(davss, published, tmp_path, wrapper):
    torch.save({wrapper + name: tensor for name, tensor in published.items()}, tmp_path / 'best.pth')
    state = import_weights([tmp_path / 'best.pth'], davss)
    assert_equal_states(state, published)
    assert missing_networks(state, davss) == []


def test_wrappers_within_a_name_are_dropped_too(davss, published, tmp_path):
    wrapped = {name.replace('.', '.module.', 1): tensor for name, tensor in published.items()}
    torch.save(wrapped, tmp_path / 'best.pth')
    assert_equal_states(import_weights([tmp_path / 'best.pth'], davss), published)


def test_the_first_stages_load_from_their_two_files(davss, published, tmp_path):
    pretrained, dmnet = tmp_path / 'pretrained.pth', tmp_path / 'now.pth'
    torch.save(of_networks(published, 'deeplab', 'flownet'), pretrained)
    bare = {name.removeprefix('dmnet.'): t for name, t in of_networks(published, 'dmnet').items()}
    torch.save(bare, dmnet)
    state = import_weights([pretrained, dmnet], davss)
    assert_equal_states(state, of_networks(published, 'deeplab', 'flownet', 'dmnet'))
    assert missing_networks(state, davss) == ['cfnet']


@pytest.mark.parametrize('network', NETWORKS)
def test_each_network_loads_from_a_file_of_its_own(davss, published, tmp_path, network):
    bare = {f'module.{name.split(".", 1)[1]}': t for name, t in of_networks(published, network).items()}
    torch.save(bare, tmp_path / 'bare.pth')
    state = import_weights([tmp_path / 'bare.pth'], davss)
    assert_equal_states(state, of_networks(published, network))
    assert set(missing_networks(state, davss)) == set(NETWORKS) - {network}


def test_the_flow_network_of_evss_fits(davss, tmp_path):
    torch.manual_seed(0)
    flownet = Evss(11).flownet.state_dict()
    save_file(flownet, tmp_path / 'flownet.safetensors')
    state = import_weights([tmp_path / 'flownet.safetensors'], davss)
    assert_equal_states(state, {f'flownet.{name}': tensor for name, tensor in flownet.items()})


def test_a_model_of_11_classes_differs_in_four_tensors(published, tmp_path):
    with torch.device('meta'):
        camvid = Davss(11)
    names = {f'{head}.{kind}' for head in HEADS for kind in ('weight', 'bias')}
    other = {name: tensor[:11] if name in names else tensor for name, tensor in published.items()}
    torch.save(other, tmp_path / 'camvid.pth')
    assert_equal_states(import_weights([tmp_path / 'camvid.pth'], camvid), other)
    torch.save(published, tmp_path / 'cityscapes.pth')
    message = r'method of 11 classes: deeplab.logits.weight is \(19, 256, 1, 1\) instead of \(11,'
    with pytest.raises(ModelError, match=message):
        import_weights([tmp_path / 'cityscapes.pth'], camvid)


def test_published_weights_do_not_fit_the_light_networks(published, tmp_path):
    torch.save(of_networks(published, 'deeplab'), tmp_path / 'deeplab.pth')
    with torch.device('meta'):
        light = Davss(19, backbone='lite')
    with pytest.raises(ModelError, match=r'does not fit the method: missing deeplab.*\.stem'):
        import_weights([tmp_path / 'deeplab.pth'], light)
