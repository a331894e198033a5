"""What EVSS and the methods it is compared with have in common: how key frames are segmented.

By CSRNet of EVSS, or by the segmenter of evss-lite, whose weights fit all of them without a change. So what
differs between these methods is what happens on propagated frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from vss_ros.core.described import check_choice
from vss_ros.core.errors import SettingsError
from vss_ros.core.frame import CELL
from vss_ros.methods.blocks.csrnet import CsrNet
from vss_ros.methods.blocks.lite import LiteSegmenter
from vss_ros.methods.blocks.mixed_norm import NORMS, with_norms
from vss_ros.methods.blocks.resize import resize
from vss_ros.methods.method import Method

BACKBONES: dict[str, Callable[[int, float], nn.Module]] = {  # of the number of classes, and `magnify`
    'csrnet': CsrNet,
    'lite': lambda classes, magnify: LiteSegmenter(classes, magnify=magnify),
}
MOST_MAGNIFIED = 4


class KeyFrames(Method):
    """A method whose key frames are segmented by the network `csrnet`.

    Its subclass sets `csrnet` to what `build_csrnet` gives.

    Args:
        classes: number of classes K.
        backbone: the network, `csrnet`, that of EVSS, or `lite`, that of evss-lite.
        magnify: how much larger than it is a key frame is looked at. More cells then lie on what is two
            pixels wide, for as much more work as there are more pixels; the network must be trained for it.
            The key frame is decided from those finer scores, while what is carried stays in cells of the
            image.
        norms: those in the network's encoder, `batch` or `mixed`, see `MixedNorm`. The weights are the same;
            the network must be trained, or trained on, for them.
        options: the subclass's own, and those of `Method`.
    Raises:
        SettingsError: an option has a value that cannot be used.
    """

    csrnet: nn.Module
    key_network = 'csrnet'
    shared = ('backbone', 'magnify', 'norms')

    def __init__(
        self,
        classes: int,
        *,
        backbone: str = 'csrnet',
        magnify: float = 1,
        norms: str = 'batch',
        **options: Any,
    ) -> None:
        super().__init__(classes, backbone=backbone, magnify=magnify, norms=norms, **options)
        check_choice('backbone', backbone, tuple(BACKBONES))
        check_choice('norms', norms, NORMS)

    def build_csrnet(self) -> nn.Module:
        """RGB in [0, 1], (N, 3, H, W) -> scores (N, K, h', w'), a quarter of the image as it is looked at.

        Raises:
            SettingsError: an option cannot be used, or not by this network, which then lacks an attribute
                `magnify` of that value, or a `mix_norms`.
        """
        backbone, magnify = self.options['backbone'], self.options['magnify']
        if not 1 <= magnify <= MOST_MAGNIFIED:
            raise SettingsError(f'magnify is {magnify!r}; use a number from 1 to {MOST_MAGNIFIED}')
        network = BACKBONES[backbone](self.classes, magnify)
        if getattr(network, 'magnify', 1) != magnify:
            raise SettingsError(
                f'magnify is {magnify!r}, and the network of backbone {backbone!r} looks at images as they '
                'are; use 1'
            )
        return with_norms(network, self.options['norms'])

    def key_scores(self, image: Tensor) -> Tensor:
        """image uint8 (N, H, W, 3) BGR -> scores (N, K, h', w'); float32 also under autocast."""
        return self.csrnet(self.look(image, self.csrnet)).float()

    def in_cells(self, scores: Tensor, size: Sequence[int]) -> Tensor:
        """Key frame's scores (N, K, h', w') as they are carried, (N, K, h, w); `size`: the image's (H, W)."""
        return resize(scores, [side // CELL for side in size])

    def segment(self, rgb: Tensor) -> Tensor:
        return self.in_cells(super().segment(rgb), rgb.shape[2:])
