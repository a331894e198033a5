"""Reference arrays of EVSS and the weights they were made with."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

DATA = Path(__file__).parents[1] / 'data'


def weight_of(name: str, shape: torch.Size) -> torch.Tensor:
    """A tensor that depends on nothing but its own name and shape; layers keep their scale."""
    if name.endswith('num_batches_tracked'):
        return torch.zeros(shape, dtype=torch.int64)
    noise = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(tuple(shape))
    if len(shape) > 1:
        noise *= np.sqrt(2 / np.prod(shape[1:]))
    elif name.endswith('running_var'):
        noise = 1 + 0.1 * np.abs(noise)
    elif name.endswith('.weight'):
        noise = 1 + 0.1 * noise
    else:
        noise *= 0.1
    return torch.from_numpy(noise.astype(np.float32))


def fill(network: nn.Module) -> nn.Module:
    """Give a network the weights behind the reference arrays, ready for inference."""
    state = {name: weight_of(name, tensor.shape) for name, tensor in network.state_dict().items()}
    network.load_state_dict(state)
    return network.eval()


@pytest.fixture(scope='session')
def filled_evss():
    """Builds EVSS with the reference weights: filled_evss(classes, **options)."""
    from vss_ros.methods.evss import Evss

    return lambda classes, **options: fill(Evss(classes, **options))


@pytest.fixture(scope='session')
def reference_arrays():
    """Loads a file of reference arrays by name."""
    return lambda name: np.load(DATA / name)


@pytest.fixture(scope='session')
def published_keys():
    """Loads names and shapes in a published file with so many classes: {name: [sizes]}."""
    files = {19: 'evss_keys.json', 11: 'evss_keys_camvid.json'}
    return lambda classes: json.loads((DATA / files[classes]).read_text())
