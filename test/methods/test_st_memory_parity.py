"""STF+MAR gives what the released program gave, within the tolerance of another float32 program."""

from __future__ import annotations

import json
import zlib
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch

from vss_ros.methods.st_memory import StMemory

DATA = Path(__file__).parents[1] / 'data'
INPUTS = ('x_prev', 'x_cur', 'x_next')
STF_TOLERANCE, MAR_TOLERANCE = 1e-4, 3e-4
BLOCKS = {'s1': (4, 2), 's2': (2, 4), 's3': (16, 16)}


@pytest.fixture(scope='module')
def arrays(reference_arrays):
    return reference_arrays('st_memory_a.npz')


@pytest.fixture(scope='module')
def method(arrays, reference_weight):
    """STF and MAR with the reference weights; the image network keeps its own."""
    method = StMemory(19, frames='published', grid=(8, 6)).eval()
    state = {}
    for name, shape in published_shapes().items():
        override = f'override/{name}'
        state[name] = (
            torch.from_numpy(arrays[override]) if override in arrays else reference_weight(name, shape)
        )
    del state['MAR.memory_value']
    found = method.load_state_dict(state, strict=False)
    assert found.unexpected_keys == []
    keys, prototypes = state['MAR.memory_key'][0], torch.from_numpy(arrays['override/prototypes'])
    method.MAR.remember(keys, prototypes)
    return method


def published_shapes() -> dict[str, list[int]]:
    return json.loads((DATA / 'st_memory_keys.json').read_text())


def inputs_of(case: str, arrays) -> list[torch.Tensor]:
    """Features of three frames, (1, 512, h, w), in the order of time."""
    if f'{case}/x_cur' in arrays:
        return [torch.from_numpy(arrays[f'{case}/{name}']) for name in INPUTS]
    seeds = [zlib.crc32(f'st_memory_a.{case}.{name}'.encode()) for name in INPUTS]
    noise = [np.random.default_rng(seed).standard_normal((1, 512, 16, 32)) for seed in seeds]
    return [torch.from_numpy(values.astype(np.float32)).relu() for values in noise]


def fuse(method, case: str, features: list[torch.Tensor]) -> torch.Tensor:
    method.STF.block = BLOCKS[case]
    with torch.no_grad():
        return method.fuse(*reversed(features))


def assert_close(found: torch.Tensor, expected: np.ndarray, tolerance: float) -> None:
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=0, atol=tolerance)


def test_parameter_names_and_shapes_are_those_of_published_files(method):
    ours = {name: list(tensor.shape) for name, tensor in method.state_dict().items()}
    refining = {name: shape for name, shape in ours.items() if not name.startswith('pspnet.')}
    assert refining == published_shapes()


@pytest.mark.parametrize('case', BLOCKS)
def test_fused_features_agree_with_the_release(method, arrays, case):
    fused = fuse(method, case, inputs_of(case, arrays))
    if case == 's3':
        assert_close(fused[:, ::8], arrays['s3/out_every8'], STF_TOLERANCE)
    else:
        assert_close(fused, arrays[f'{case}/out'], STF_TOLERANCE)


def test_encoded_features_agree_with_the_release(method, arrays):
    method.STF.block = BLOCKS['s1']
    tokens = torch.stack(inputs_of('s1', arrays), 2).permute(0, 2, 3, 4, 1)
    with torch.no_grad():
        encoded = method.STF.encode(tokens)
    assert_close(encoded.permute(0, 4, 1, 2, 3), arrays['s1/enc_out'], STF_TOLERANCE)


@pytest.mark.parametrize('folded', [False, True])
@pytest.mark.parametrize(('given', 'expected'), [('m1/x', 'm1/out'), ('s1/out', 'c1/out')])
def test_refined_features_agree_with_the_release(method, arrays, given, expected, folded):
    mar = method.MAR.folded() if folded else method.MAR
    with torch.no_grad():
        assert_close(mar(torch.from_numpy(arrays[given])), arrays[expected], MAR_TOLERANCE)


def test_class_likelihood_agrees_with_the_release(method, arrays):
    mar, features = method.MAR, torch.from_numpy(arrays['m1/x'])
    with torch.no_grad():
        rows = mar.HEdecoder.attn.weights(features.permute(0, 2, 3, 1), mar.memory_key)
    likelihood = rows.unflatten(-1, (-1, mar.keys_per_class)).sum(-1)  # (N, h, w, K); no graph gives it
    assert_close(likelihood.flatten(1, 2), arrays['m1/class_attention'], 1e-5)


def test_encodings_kept_at_one_size_change_nothing(method, arrays):
    features = inputs_of('s2', arrays)
    folded = deepcopy(method)
    folded.fold((32, 96))
    assert folded.STF.pe_enc.shape == (1, 512, 3, 4, 12)
    assert torch.equal(fuse(folded, 's2', features), fuse(method, 's2', features))


@pytest.mark.parametrize('case', ['s1', 's2'])
def test_another_order_of_frames_is_told_apart(method, arrays, case):
    wrong = fuse(method, case, inputs_of(case, arrays)[::-1])
    assert (wrong - torch.from_numpy(arrays[f'{case}/out'])).abs().max() > 0.1
