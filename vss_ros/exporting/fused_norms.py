"""Batch norms as a part of the convolutions before them: the last form of a network that trains no more."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from vss_ros.methods.blocks.mixed_norm import MixedNorm, fuse_half

MADE_BY = '_vss_made_by'  # on a tensor: the convolution that it came out of, and its version then


def fuse_norms(network: nn.Module, run: Callable[[], object]) -> None:
    """Let convolutions do what the batch norms behind them did; the same but for rounding.

    A norm costs a pass over its map in eager PyTorch, and a third of the work of exporting a network. Which
    convolution it belongs to is seen while `run` runs the network, so no names or orders of modules matter.
    A norm that is fed by more than one convolution, or by one that feeds other norms too, stays.

    Args:
        network: put in eval mode, where it has to stay. Its weights have other names afterwards.
        run: runs all of it at least once.
    """
    network.eval()
    norms_of: dict[nn.Conv2d, set[nn.BatchNorm2d | MixedNorm]] = defaultdict(set)
    sources_of: dict[nn.Module, set[nn.Conv2d | None]] = defaultdict(set)

    def made(convolution: nn.Module, _: Any, output: Tensor) -> None:
        setattr(output, MADE_BY, (convolution, output._version))

    def taken(norm: nn.BatchNorm2d | MixedNorm, inputs: tuple[Tensor, ...]) -> None:
        convolution, version = getattr(inputs[0], MADE_BY, (None, 0))
        if inputs[0]._version != version:
            convolution = None  # something has changed the map in place since
        sources_of[norm].add(convolution)
        if convolution is not None:
            norms_of[convolution].add(norm)

    handles = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            handles.append(module.register_forward_hook(made))
        elif isinstance(module, nn.BatchNorm2d | MixedNorm):
            handles.append(module.register_forward_pre_hook(taken))
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()

    instead: dict[nn.Module, nn.Module] = {}
    for convolution, norms in norms_of.items():
        norm = next(iter(norms))
        if len(norms) != 1 or sources_of[norm] != {convolution}:
            continue
        if isinstance(norm, MixedNorm):
            instead[convolution], instead[norm] = fuse_half(convolution, norm)
        else:
            instead[convolution] = fuse_conv_bn_eval(convolution, norm)
            instead[norm] = nn.Identity()
    for parent in list(network.modules()):
        for name, child in list(parent._modules.items()):
            if child in instead:
                setattr(parent, name, instead[child])
