"""From camera images to what networks take."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vss_ros.core.errors import ShapeError
from vss_ros.core.frame import CELL
from vss_ros.methods.blocks.resize import resize


def to_planes(image: Tensor) -> Tensor:
    """Camera image, uint8 (N, H, W, 3) BGR, as float (N, 3, H, W), still BGR in [0, 255].

    Raises:
        ShapeError: H or W is not a multiple of 4, so that maps and image would not align.
    """
    check_size(image.shape[1:3], CELL)
    # Cast before moving axes: TensorRT takes uint8 only as the input of a cast.
    return image.float().permute(0, 3, 1, 2)


def check_size(size: Sequence[int], step: int) -> None:
    """Raises ShapeError, which names the nearest size, unless (H, W) are multiples of `step`."""
    if any(side % step for side in size):
        height, width = size
        near_height, near_width = (step * max(1, round(side / step)) for side in size)
        raise ShapeError(
            f'image is {width}x{height}; width and height must be multiples of {step}, such as '
            f'{near_width}x{near_height}'
        )


def to_rgb(image: Tensor) -> Tensor:
    """Camera image, uint8 (N, H, W, 3) BGR, as RGB in [0, 1], float (N, 3, H, W).

    Raises:
        ShapeError: as `to_planes`.
    """
    return to_planes(image).flip(1) / 255


def magnified(image: Tensor, factor: float) -> Tensor:
    """Planes (N, 3, H, W) enlarged bilinearly, each side to the nearest multiple of 4."""
    if factor == 1:
        return image
    return resize(image, [CELL * round(factor * side / CELL) for side in image.shape[2:]])


class Normalise(nn.Module):
    """Subtracts ImageNet's mean and divides by its deviation; RGB in [0, 1], (N, 3, H, W)."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
        std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
        self.register_buffer('mean', mean, persistent=False)
        self.register_buffer('std', std, persistent=False)

    def forward(self, rgb: Tensor) -> Tensor:
        return (rgb - self.mean) / self.std
