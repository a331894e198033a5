"""Two processes take half of every batch each, and learn what one learns from the whole."""

from __future__ import annotations

import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
import yaml
from safetensors.numpy import load_file
from torch import nn

from vss_ros.cli.main import main
from vss_ros.core.errors import SettingsError
from vss_ros.training.processes import Processes, own_device
from vss_ros.training.recipe import parse_recipe
from vss_ros.training.trainer import Trainer

RECIPE = {
    'method': 'evss-lite',
    'options': {'flow': 'network'},
    'classes': 'camvid11',
    'image': {'height': 64, 'width': 96},
    'stages': {
        # No norms, and a loss that is a mean over equal parts: nothing here may differ but rounding.
        'flow': {
            'fit': {'steps': 3, 'warmup_steps': 0, 'learning_rate': 1e-4, 'precision': 'fp32'},
            'sampling': {'batch': 4},
            'shares': {'stills': 1, 'drive': 1},
        }
    },
}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A recipe and the data of it."""
    folder = tmp_path_factory.mktemp('processes')
    rng = np.random.default_rng(0)
    for part in ('images', 'labels'):
        (folder / 'stills' / part).mkdir(parents=True)
    for number in range(3):
        image = cv2.GaussianBlur(rng.integers(0, 255, (64, 96, 3)).astype(np.uint8), (0, 0), 3)
        cv2.imwrite(str(folder / 'stills' / 'images' / f'a_{number}.png'), image)
        cv2.imwrite(str(folder / 'stills' / 'labels' / f'a_{number}.png'), np.full((64, 96), 3, np.uint8))
    writer = cv2.VideoWriter(str(folder / 'drive.avi'), cv2.VideoWriter.fourcc(*'MJPG'), 15, (96, 64))
    for shift in range(4):
        writer.write(np.roll(image, 4 * shift, 1))
    writer.release()
    (folder / 'tiny.yaml').write_text(yaml.safe_dump(RECIPE))
    return folder


def train(folder, runs, *launcher):
    command = [sys.executable, *launcher, '-m', 'vss_ros.cli.main', 'train', str(folder / 'tiny.yaml')]
    command += [
        '--data',
        f'stills:{folder / "stills"}',
        '--data',
        f'drive:{folder / "drive.avi"}',
        '--runs',
        str(folder / runs),
        '--device',
        'cpu',
        '--threads',
        '1',
    ]
    result = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert result.returncode == 0, result.stderr[-3000:]
    lines = [json.loads(line) for line in (folder / runs / 'tiny' / 'flow.jsonl').read_text().splitlines()]
    return [line['loss'] for line in lines], load_file(folder / runs / 'tiny' / 'weights.safetensors'), result


def test_torchrun_follows_the_curve_of_one_process(folder):
    losses, weights, _ = train(folder, 'one')
    launcher = ('-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2')
    shared_losses, shared_weights, result = train(folder, 'two', *launcher)
    assert shared_losses == pytest.approx(losses, rel=1e-4)
    for name, value in weights.items():
        np.testing.assert_allclose(shared_weights[name], value, atol=1e-4, err_msg=name)
    assert result.stdout.count('weights.safetensors') == 1
    assert '2 processes' in (folder / 'two' / 'tiny' / 'report.md').read_text()


def test_every_sample_of_a_batch_goes_to_one_process():
    parts = [list(Processes(rank, 3).part(12)) for rank in range(3)]
    assert [sample for part in parts for sample in part] == list(range(12))
    assert len({len(part) for part in parts}) == 1


@pytest.mark.parametrize(('size', 'count'), [(5, 2), (2, 2), (4, 3)])
def test_a_batch_that_cannot_be_shared_out_is_refused(size, count):
    with pytest.raises(SettingsError, match=f'batch of {size} cannot be shared by {count}'):
        Processes(0, count).part(size)


def test_a_batch_of_a_later_stage_that_cannot_be_shared_out_is_refused_before_the_first_is_trained(
    folder, tmp_path
):
    correction = {'fit': {'steps': 1}, 'sampling': {'batch': 2}, 'shares': {'stills': 1}}
    recipe = parse_recipe('later', RECIPE | {'stages': RECIPE['stages'] | {'correction': correction}})
    data = {'stills': folder / 'stills', 'drive': folder / 'drive.avi'}
    trainer = Trainer(recipe, data, tmp_path / 'later')
    with pytest.raises(SettingsError, match='correction: a batch of 2 cannot be shared by 2 processes'):
        trainer.run(torch.device('cpu'), False, lambda *_: None, Processes(0, 2))


def test_each_process_has_a_gpu_of_its_own_and_looks_at_no_other(folder, monkeypatch, capsys):
    monkeypatch.setenv('WORLD_SIZE', '8')
    monkeypatch.setenv('LOCAL_RANK', '7')
    assert own_device('cuda') == 'cuda:7'
    assert own_device('cpu') == 'cpu'
    with pytest.raises(SettingsError, match=r'device is cuda:1, and there are 8 processes; use cuda'):
        own_device('cuda:1')
    if torch.cuda.device_count() <= 7:
        assert main(['train', str(folder / 'tiny.yaml'), '--device', 'cuda']) == 2
        assert 'device cuda:7 cannot be used here' in capsys.readouterr().err
    monkeypatch.delenv('WORLD_SIZE')
    assert [own_device(name) for name in ('cuda', 'cuda:1')] == ['cuda', 'cuda:1']


def test_norms_that_were_synchronised_in_training_are_plain_ones_afterwards():
    inner = nn.Sequential(nn.BatchNorm2d(4))
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, 1e-3, 0.2), inner)
    image = torch.rand(2, 3, 8, 8)
    network(image)  # so that there are statistics
    network[1].requires_grad_(False)
    network.eval()
    expected, parameters = network(image), list(network.parameters())
    nn.SyncBatchNorm.convert_sync_batchnorm(network)
    Processes(0, 2).unshare(network)
    assert [type(network[1]), type(network[2][0])] == [nn.BatchNorm2d] * 2
    assert (network[1].momentum, network[1].training) == (0.2, False)
    assert all(one is other for one, other in zip(network.parameters(), parameters, strict=True))
    assert torch.equal(network(image), expected)
