"""Every method as a small model that tests of several kinds share; see `shared_model` in conftest.py."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from vss_ros.exporting.verify import example_frames
from vss_ros.methods import build_method
from vss_ros.methods.method import Method

LITE: dict[str, object] = {'backbone': 'lite', 'flow': 'dis'}
VARIANTS = {  # of each method the one that is quickest to write
    'evss': ('evss', {}),
    'evss-lite': ('evss-lite', {}),
    'evss-lite magnified': ('evss-lite', {'magnify': 1.333, 'glance': 'two_thirds', 'norms': 'mixed'}),
    'evss-lite behind csrnet': ('evss-lite', {'backbone': 'csrnet', 'glance': 'full', 'norms': 'mixed'}),
    'evss-lite composed': ('evss-lite', {'carry': 'composed', 'correction_interval': 2}),
    'evss-lite calibrated': ('evss-lite', {'temperatures': (1.5, 0.8, 2.0), 'correction_interval': 3}),
    'davss': ('davss', {'backbone': 'lite'}),
    'twnet': ('twnet', {'encoder': 'lite', 'layer': 1, 'flow': 'dis'}),
    'twnet lite': ('twnet', {'encoder': 'lite', 'layer': 2, 'heads': 'stem', 'residual': 'quarter'}),
    'twnet layer 3': ('twnet', {'encoder': 'lite', 'layer': 3}),
    'st-memory': ('st-memory', {'backbone': 'lite', 'grid': (8, 12)}),
    'st-memory alone': ('st-memory', {'backbone': 'lite', 'frames': 'alone'}),
    'per-frame': ('per-frame', {'backbone': 'lite'}),
    'dff': ('dff', {'backbone': 'lite'}),
    'dff calibrated': ('dff', {'backbone': 'lite', 'temperatures': (1.5, 0.8, 2.0)}),
    'accel': ('accel', LITE),
    'dvsnet': ('dvsnet', LITE),
    'dvsnet composed': ('dvsnet', {**LITE, 'carry': 'composed'}),
}
CLASSES = 11
SIZE = (64, 96)


def method_model(variant: str) -> tuple[str, Callable[[], Method], tuple[int, int]]:
    """What `shared_model` wants to know: name, method and size."""
    name, options = VARIANTS[variant]
    return variant, lambda: lifelike(build_method(name, CLASSES, options)), SIZE


def lifelike(method):
    """Gives a new method seeded weights with which it sees every class in turn."""
    torch.manual_seed(0)
    batch = torch.from_numpy(np.stack(example_frames(SIZE, 8)))
    norms = [module for module in method.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    with torch.no_grad():
        for module in method.modules():
            if isinstance(module, nn.Conv2d):  # some start with zeros, and then change nothing
                still = module.weight.flatten(1).abs().sum(1) == 0
                module.weight[still] = 0.1 * torch.randn_like(module.weight[still])
        for name, memory in method.named_buffers():
            if 'memory' in name:
                memory.normal_()
        for norm in norms:
            norm.momentum = None  # the mean of all that is seen
        method.train()
        for _ in range(3):
            two_steps(method, batch)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        method.eval()
        for layer, scores in classifiers(method, batch).items():
            scale = 3 / scores.std((0, 2, 3))  # every class gets mean 0 and deviation 3 over the pixels
            layer.weight *= scale.view(-1, 1, 1, 1)
            layer.bias.sub_(scores.mean((0, 2, 3))).mul_(scale)
    return method


def run_step(method, kind, tensors):
    """Runs a step; returns `tensors` and all that the graphs added."""
    tensors = dict(tensors)
    for graph in method.graphs_of(kind):
        tensors |= method.run(graph, tensors)
    return tensors


def two_steps(method, batch):
    """A key step of the first four images and a propagated one of the next: four streams at once."""
    first, then = batch.split(4)
    key = run_step(method, 'key', {'image': first, **method.host_tensors(first)})
    if 'propagated' not in method.steps:
        return key
    return run_step(
        method, 'propagated', {'image': then, **method.host_tensors(then), **method.state_of(key)}
    )


def classifiers(method, batch):
    """The layers that give a score per class, and what they give."""
    found: dict[nn.Conv2d, torch.Tensor] = {}
    layers = [module for module in method.modules() if isinstance(module, nn.Conv2d)]
    handles = [
        layer.register_forward_hook(lambda layer, _inputs, output: found.update({layer: output}))
        for layer in layers
        if layer.out_channels == CLASSES
    ]
    two_steps(method, batch)
    for handle in handles:
        handle.remove()
    return found
