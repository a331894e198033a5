"""The light segmenter as the CNN of TWNet; it is of the same U shape, and its weights keep their names."""

from __future__ import annotations

from torch import Tensor

from vss_ros.methods.blocks.lite import MIDDLE_GREY, LiteSegmenter, resize_like
from vss_ros.methods.blocks.u_shape import UShape

HEADS = (('stem', 'encoder_4'), ('encoder_8',), ('encoder_16',), ('encoder_32',))
SIDES = ('16', '8', '4')  # of the lateral connections, as parts of the image's


class LiteUShape(UShape):
    """The layers of a `LiteSegmenter` as the parts of a `UShape`."""

    head_widths = (32, 64, 128, 192)
    widths = (64, 64, 64)
    magnify = 1

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.grey = MIDDLE_GREY
        for name, layers in LiteSegmenter(classes).named_children():
            self.add_module(name, layers)

    # The layers have the same names.
    mix_norms, take_camera_bytes = LiteSegmenter.mix_norms, LiteSegmenter.take_camera_bytes

    def head(self, number: int, maps: Tensor) -> Tensor:
        if number == 1:
            maps = maps - self.grey
        for name in HEADS[number - 1]:
            maps = self.get_submodule(name)(maps)
        return maps

    def take_context(self, maps: Tensor) -> Tensor:
        return self.get_submodule('context')(maps)

    def lateral(self, number: int, maps: Tensor) -> Tensor:
        return self.get_submodule(f'skip_{SIDES[number - 1]}')(maps)

    def connect(self, number: int, coarse: Tensor, lateral: Tensor) -> Tensor:
        merge = self.get_submodule(f'decoder_{SIDES[number - 1]}')
        return merge(lateral + resize_like(coarse, lateral))

    def classify(self, features: Tensor) -> Tensor:
        return self.get_submodule('scores')(features)

    def without(self, heads: int, laterals: int) -> None:
        dropped = [name for names in HEADS[heads:] for name in names]
        for side in SIDES[:laterals]:
            dropped += [f'skip_{side}', f'decoder_{side}']
        for name in (*dropped, 'context'):
            delattr(self, name)
