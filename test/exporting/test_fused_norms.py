"""Batch norms become a part of the convolutions before them, where that changes nothing."""

from __future__ import annotations

import pytest
import torch
from method_models import SIZE, method_model
from torch import nn

from vss_ros.exporting.fused_norms import fuse_norms
from vss_ros.exporting.verify import example_frames


def norms_in(network):
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


def seen(network, channels=3):
    """Lets the norms of a network see something."""
    torch.manual_seed(0)
    network.train()
    for _ in range(5):
        network(3 * torch.randn(4, channels, 8, 8) + 1)
    return network.eval()


@pytest.mark.parametrize('variant', ['evss-lite', 'davss', 'twnet lite', 'st-memory', 'dff', 'accel'])
def test_the_norms_of_a_method_go_and_its_graphs_give_the_same(variant):
    _, build, _ = method_model(variant)
    method = build()
    frames = [torch.from_numpy(image[None]) for image in example_frames(SIZE, 2)]
    with torch.no_grad():
        before = method.examples(*frames)
        assert norms_in(method)
        fuse_norms(method, lambda: method.examples(*frames))
        # Three of DMNet's come after a ReLU, as released.
        assert len(norms_in(method)) == (3 if variant == 'davss' else 0)
        for graph, example in method.examples(*frames).items():
            for name, tensor in example.outputs.items():
                expected = before[graph].outputs[name].float()
                if tensor.dtype == torch.uint8:  # a near tie may fall either way, and so may half a level
                    differs = (tensor.float() - expected).abs() > (name == 'confidence')
                    assert differs.float().mean() < 0.005, (graph, name)
                else:
                    assert torch.allclose(tensor, expected, rtol=1e-3, atol=1e-3), (graph, name)


class Tangle(nn.Module):
    """Convolutions and norms that are not simply one after the other."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.convolutions = nn.ModuleList(nn.Conv2d(3, 4, 3, padding=1, bias=False) for _ in range(2))
        self.norms = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(2))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        (one, other), (norm, second) = self.convolutions, self.norms
        if self.way == 'two convolutions share a norm':
            return norm(one(x)) + norm(other(x))
        if self.way == 'two norms share a convolution':
            y = one(x)
            return norm(y) + second(y)
        if self.way == 'something in place comes between':
            return norm(self.relu(one(x)))
        if self.way == 'something else comes between':
            return norm(one(x) * 2)
        return norm(self.relu(x[:, [0, 1, 2, 0]]))


@pytest.mark.parametrize(
    'way',
    [
        'two convolutions share a norm',
        'two norms share a convolution',
        'something in place comes between',
        'something else comes between',
        'no convolution comes before',
    ],
)
def test_a_norm_that_is_not_simply_behind_a_convolution_stays(way):
    network = seen(Tangle(way))
    x = torch.randn(2, 3, 8, 8)
    expected = network(x.clone())
    fuse_norms(network, lambda: network(x.clone()))
    assert len(norms_in(network)) == 2
    assert torch.equal(network(x.clone()), expected)


def test_a_network_whose_last_layers_are_new_is_put_in_its_last_form_as_well():
    network = seen(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    x = torch.randn(2, 3, 8, 8)
    expected = network(x)
    network.train()
    fuse_norms(network, lambda: network(x))
    assert isinstance(network[1], nn.Identity)
    assert torch.allclose(network(x), expected, atol=1e-5)
