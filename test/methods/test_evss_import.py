"""Published weights come in under all their names, and what does not fit is refused by name."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from vss_ros.core.errors import ModelError
from vss_ros.exporting.import_weights import import_weights, missing_networks
from vss_ros.methods.evss import Evss


@pytest.fixture(scope='module')
def filled(filled_evss):
    return filled_evss(11)


@pytest.fixture(scope='module')
def published(filled, published_keys):
    """A file's content as the authors saved it: wrapper prefixes, and the backbone twice."""
    ours = filled.state_dict()
    names = {name: name.replace('resnet.', 'csrnet.backbone.') for name in published_keys(11)}
    return {f'module.{name}': ours[own].clone() for name, own in names.items()}


@pytest.fixture
def evss():
    return Evss(11)


def assert_equal_states(found, expected):
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize('legacy', [True, False])
def test_a_full_model_as_published_loads(published, filled, evss, tmp_path, legacy):
    file = tmp_path / 'evss_camvid_best.pth'
    torch.save(published, file, _use_new_zipfile_serialization=not legacy)
    state = import_weights([file], evss)
    assert_equal_states(state, filled.state_dict())
    assert missing_networks(state, evss) == []
    evss.load_state_dict(state)


@pytest.mark.parametrize('absent', ['module.resnet.', 'module.csrnet.backbone.'])
def test_one_copy_of_the_backbone_is_enough(published, filled, evss, tmp_path, absent):
    file = tmp_path / 'one.safetensors'
    save_file({k: v for k, v in published.items() if not k.startswith(absent)}, file)
    assert_equal_states(import_weights([file], evss), filled.state_dict())


def test_two_different_backbones_are_refused(published, evss, tmp_path):
    name = 'module.resnet.layer3.0.conv1.weight'
    torch.save({**published, name: published[name] + 1}, tmp_path / 'mixed.pth')
    with pytest.raises(ModelError, match=r'two different backbones: csrnet.backbone.layer3.0.conv1'):
        import_weights([tmp_path / 'mixed.pth'], evss)


def test_single_networks_load_and_the_rest_is_named(filled, evss, tmp_path):
    files = {name: tmp_path / f'{name}.pth' for name in ('csrnet', 'flownet', 'conet')}
    for name, file in files.items():
        torch.save(filled.get_submodule(name).state_dict(), file)
    assert_equal_states(import_weights(list(files.values()), evss), filled.state_dict())
    state = import_weights([files['csrnet'], files['flownet']], evss)
    assert missing_networks(state, evss) == ['conet']
    expected = {k: v for k, v in filled.state_dict().items() if not k.startswith('conet')}
    assert_equal_states(state, expected)


def test_a_network_from_two_files_is_refused(published, filled, evss, tmp_path):
    full, flownet = tmp_path / 'full.pth', tmp_path / 'flownet.pth'
    torch.save(published, full)
    torch.save(filled.flownet.state_dict(), flownet)
    with pytest.raises(ModelError, match=r'flownet is in .*full.pth and in .*flownet.pth; give only'):
        import_weights([full, flownet], evss)


def test_the_flow_network_is_passed_over_where_the_host_gives_the_flow(published, tmp_path):
    torch.save(published, tmp_path / 'full.pth')
    evss = Evss(11, flow='dis')
    state = import_weights([tmp_path / 'full.pth'], evss)
    evss.load_state_dict(state)


def test_counters_of_norms_which_only_training_needs_may_be_missing(published, filled, evss, tmp_path):
    uncounted = {name: tensor for name, tensor in published.items() if 'num_batches' not in name}
    assert len(uncounted) < len(published)
    torch.save(uncounted, tmp_path / 'old.pth')
    state = import_weights([tmp_path / 'old.pth'], evss)
    counted = {name for name in filled.state_dict() if 'num_batches' in name}
    assert filled.state_dict().keys() - state.keys() == counted
    assert missing_networks(state, evss) == []


def test_missing_and_unexpected_names_are_listed(published, evss, tmp_path):
    damaged = dict(published)
    del damaged['module.conet.predict_cc.bias']
    damaged['module.conet.predict_dd.bias'] = torch.zeros(11)
    torch.save(damaged, tmp_path / 'damaged.pth')
    message = r'missing conet.predict_cc.bias; unexpected conet.predict_dd.bias'
    with pytest.raises(ModelError, match=message):
        import_weights([tmp_path / 'damaged.pth'], evss)


def test_weights_of_another_method_are_refused_with_a_short_list(evss, tmp_path):
    torch.save(nn.Sequential(*(nn.Linear(2, 2) for _ in range(20))).state_dict(), tmp_path / 'x.pth')
    with pytest.raises(ModelError, match=r'missing none; unexpected 0.weight, .* and 35 more. Choose the'):
        import_weights([tmp_path / 'x.pth'], evss)


def test_another_number_of_classes_is_refused(published, tmp_path):
    torch.save(published, tmp_path / 'full.pth')
    message = r'method of 19 classes: csrnet.logits.conv.weight is \(11, 128, 1, 1\) instead of \(19,'
    with pytest.raises(ModelError, match=message):
        import_weights([tmp_path / 'full.pth'], Evss(19))


class Harmful:
    def __reduce__(self):
        return exec, ('raise SystemExit("a weights file ran code")',)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ({'model': {'a': torch.zeros(1)}}, 'no mapping of names to tensors; .* bare state dict'),
        ({0: torch.zeros(1)}, 'no mapping of names to tensors'),
        ({'a': Harmful()}, 'is refused: it holds more than tensors'),
        ({'a': torch.zeros(2), 'b': torch.ones(2).to_sparse()}, 'b is no plain tensor of real numbers'),
        ({'a': torch.ones(2, device='meta')}, 'a is no plain tensor'),
        ({'a': torch.ones(2, dtype=torch.complex64)}, 'a is no plain tensor'),
    ],
)
def test_files_of_more_than_tensors_are_refused(evss, tmp_path, content, message):
    torch.save(content, tmp_path / 'odd.pth')
    with pytest.raises(ModelError, match=message):
        import_weights([tmp_path / 'odd.pth'], evss)


@pytest.mark.parametrize('name', ['cut.pth', 'cut.safetensors', 'empty.pth'])
def test_damaged_files_are_refused(filled, evss, tmp_path, name):
    file = tmp_path / name
    if name.endswith('safetensors'):
        save_file(filled.flownet.state_dict(), file)
    else:
        torch.save(filled.flownet.state_dict(), file)
    file.write_bytes(b'' if name.startswith('empty') else file.read_bytes()[:1000])
    with pytest.raises(ModelError, match=name):
        import_weights([file], evss)


@pytest.mark.parametrize('content', [b'Rar!\x1a\x07\x00', b'hello\n', b'<!DOCTYPE html>\n', b'\x80\x02\x8a'])
def test_files_of_other_kinds_are_refused(evss, tmp_path, content):
    file = tmp_path / 'evss_camvid_best.pth'
    file.write_bytes(content)
    with pytest.raises(ModelError, match=r'best.pth is refused: .* or is no PyTorch file'):
        import_weights([file], evss)


def test_a_program_of_torchscript_is_refused_and_nobody_is_told_to_run_it(evss, tmp_path):
    torch.jit.script(nn.Linear(2, 2)).save(str(tmp_path / 'x.pth'))
    with (
        pytest.warns(UserWarning, match='TorchScript'),
        pytest.raises(ModelError, match='holds more than tensors') as error,
    ):
        import_weights([tmp_path / 'x.pth'], evss)
    assert 'weights_only' not in str(error.value)


def test_an_empty_file_of_weights_is_told_as_such(evss, tmp_path):
    (tmp_path / 'x.pth').touch()
    with pytest.raises(ModelError, match=r'x\.pth cannot be read: it is empty; download it again'):
        import_weights([tmp_path / 'x.pth'], evss)


def test_a_file_that_is_not_there_is_named(evss, tmp_path):
    for name in ('no.pth', 'no.safetensors'):
        with pytest.raises(ModelError, match=f'{name} does not exist'):
            import_weights([tmp_path / name], evss)
