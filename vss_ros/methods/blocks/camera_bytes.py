"""A network's first convolution made to take the bytes of a camera, BGR in [0, 255], as they are.

That saves passes over the image in an exported graph.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def take_camera_bytes(stem: nn.Module, in_rows: bool = True) -> None:
    """Change the first convolution from RGB in [0, 1] to BGR in [0, 255], for the same result.

    Args:
        in_rows: what it takes was made of a camera's rows just before, see `CameraConvolution`.
    """
    replace_first(stem, CameraConvolution if in_rows else _of_camera_bytes)


def takes_camera_bytes(network: nn.Module) -> bool:
    """Whether a network takes BGR in [0, 255], and no longer RGB in [0, 1]."""
    return getattr(network, 'takes_camera_bytes', False)


def _of_camera_bytes(first: nn.Conv2d) -> nn.Conv2d:
    with torch.no_grad():
        first.weight.copy_(first.weight.flip(1) / 255)
    return first


def replace_first(stem: nn.Module, change: Callable[[nn.Conv2d], nn.Conv2d]) -> None:
    """Put what `change` makes of the first convolution into its place."""
    name, first = next(
        (name, module) for name, module in stem.named_modules() if isinstance(module, nn.Conv2d)
    )
    parent, _, attribute = name.rpartition('.')
    setattr(stem.get_submodule(parent), attribute, change(first))


class CameraConvolution(nn.Conv2d):
    """A first convolution from RGB in [0, 1] as one from BGR in [0, 255], in the order the camera gives.

    A camera's rows are BGR, BGR, ...: one channel three times as wide, over which a kernel of three times the
    width takes steps of three times the length. Planes, (N, 3, H, W), are taken as before, but where they
    were made of such rows the two transpositions cancel in an exported graph: a pass over the image less.
    """

    def __init__(self, first: nn.Conv2d) -> None:
        (rows, columns), (down, right) = first.kernel_size, first.stride
        (above, left) = (int(padding) for padding in first.padding)
        super().__init__(
            1,
            first.out_channels,
            (rows, 3 * columns),
            (down, 3 * right),
            (above, 3 * left),
            bias=first.bias is not None,
        )
        with torch.no_grad():
            self.weight.copy_((first.weight.flip(1) / 255).permute(0, 2, 3, 1).reshape_as(self.weight))
            if self.bias is not None and first.bias is not None:
                self.bias.copy_(first.bias)

    def forward(self, bgr: Tensor) -> Tensor:
        count, _, height, width = bgr.shape
        return super().forward(bgr.permute(0, 2, 3, 1).reshape(count, 1, height, 3 * width))
