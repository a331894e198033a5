"""Reference arrays of the methods and the weights they were made with."""

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
def filled_davss(reference_arrays):
    """Builds DAVSS with its reference weights: filled_davss(classes, **options).

    A file of its arrays says where they are not those of `weight_of`: plain ones would let Xception grow
    without bounds and DMNet see no difference between any two pictures.
    """
    from vss_ros.methods.davss import Davss

    tensors: dict[tuple[str, torch.Size], torch.Tensor] = {}  # 57 million numbers are worth keeping

    def build(classes: int, **options) -> nn.Module:
        arrays = reference_arrays('davss_a.npz')
        with torch.device('meta'):
            method = Davss(classes, **options)
        method.to_empty(device='cpu')
        state = method.state_dict()
        for name, tensor in state.items():
            key = name, tensor.shape
            if key not in tensors:
                scale = float(arrays[f'scale/{name}']) if f'scale/{name}' in arrays else 1
                tensors[key] = weight_of(*key) * scale
                if f'override/{name}' in arrays:
                    tensors[key] = torch.from_numpy(arrays[f'override/{name}'])
            state[name] = tensors[key]
        method.load_state_dict(state)
        return method.eval()

    return build


@pytest.fixture(scope='session')
def reference_weight():
    """Makes one of the weights behind the reference arrays: reference_weight(name, shape)."""
    return weight_of


@pytest.fixture(scope='session')
def reference_arrays():
    """Loads a file of reference arrays by name."""
    return lambda name: np.load(DATA / name)


@pytest.fixture(scope='session')
def published_keys():
    """Loads names and shapes in a published file with so many classes: {name: [sizes]}."""
    files = {19: 'evss_keys.json', 11: 'evss_keys_camvid.json'}
    return lambda classes: json.loads((DATA / files[classes]).read_text())


@pytest.fixture(scope='session')
def published_trace():
    """What every layer of the released EVSS gave for the first frames of `evss_a.npz`, in its order."""
    return json.loads((DATA / 'evss_trace.json').read_text())


@pytest.fixture(scope='session')
def published_davss_keys():
    """Names and shapes in the file that the authors of DAVSS published, 19 classes: {name: [sizes]}."""
    return json.loads((DATA / 'davss_keys.json').read_text())
