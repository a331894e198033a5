"""What the methods share that carry something along the optical flow: its source, and how it is followed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vss_ros.core.described import check_choice
from vss_ros.core.frame import CELL
from vss_ros.core.motion import DIS
from vss_ros.methods.blocks.flownet import FlowNet
from vss_ros.methods.blocks.image import to_rgb
from vss_ros.methods.blocks.resize import resize
from vss_ros.methods.blocks.warp import compose, warp
from vss_ros.methods.method import Method

FLOWS = ('network', *DIS, 'motion_vectors')
COMPOSED = 'composed'  # a value of `carry`


class FlowWarping(Method):
    """A method whose propagated frames take `flow`, from a network of its own or from the host.

    Flow is in cells of h x w = H/4 x W/4 and points from the current frame to the previous one: the anchor,
    if frames between the two were only carried.

    What is carried is what the graph `warp` takes as `previous_...`. A method with an option `carry` may
    let it be `composed`: then that of the key frame stays as it is, as `key_...`; a graph `compose` follows
    the flow back to the key frame, and `warp` reads there once. Warping from frame to frame instead
    interpolates what was interpolated before, and blurs it.

    Args:
        classes: number of classes K.
        flow: `network`, or the host that brings `flow` (1, 2, h, w) with every propagated frame; the
            method then has no flow network and no `flow` graph.
        options: the subclass's own, and those of the other classes that it inherits from.
    Attributes:
        choices: the values each of the subclass's options may have.
    Raises:
        SettingsError: an option has none of the values it may have.
    """

    steps = {'key': ('segmenter',), 'propagated': ('flow', 'warp', 'correction')}
    choices: dict[str, tuple[str, ...]] = {}

    def __init__(self, classes: int, *, flow: str = 'network', **options: Any) -> None:
        super().__init__(classes, flow=flow, **options)
        for name, choices in {**self.choices, 'flow': FLOWS}.items():
            check_choice(name, self.options[name], choices)
        if flow == 'network':
            self.flownet = self.build_flownet()
        else:
            self.host_stages = ('flow',)
        self.composes = self.options.get('carry') == COMPOSED
        if self.composes:
            carried = {name for name in super().inputs_of('warp') if name.startswith('previous_')}
            kept = {output: later for output, later in self.state.items() if later not in carried}
            of_key = {_of_key(name): _of_key(name) for name in sorted(carried)}
            self.state = kept | of_key | {'key_flow': 'previous_key_flow'}
            stages = self.steps['propagated']
            at = stages.index('warp')
            self.steps = {**self.steps, 'propagated': (*stages[:at], 'compose', *stages[at:])}

    def inputs_of(self, graph: str) -> tuple[str, ...]:
        names = super().inputs_of(graph)
        return tuple(map(_of_key, names)) if self.composes and graph == 'warp' else names

    def build_flownet(self) -> nn.Module:
        """flownet(rgb, previous rgb) -> flow (N, 2, h, w); RGB in [0, 1], float (N, 3, H, W)."""
        return FlowNet()

    def host_tensors(self, image: Tensor) -> dict[str, Tensor]:
        tensors = super().host_tensors(image)
        if self.host_stages:
            height, width = image.shape[1] // CELL, image.shape[2] // CELL
            tensors['flow'] = torch.zeros(len(image), 2, height, width, device=image.device)
        return tensors

    def flow(self, image: Tensor, previous_image: Tensor) -> dict[str, Tensor]:
        """Two images, uint8 (N, H, W, 3) BGR -> flow (N, 2, h, w)."""
        return {'flow': self.flownet(to_rgb(image), to_rgb(previous_image)).float()}

    def warp(self, previous_scores: Tensor, flow: Tensor) -> dict[str, Tensor]:
        """Scores of an earlier frame (N, K, h, w) and flow to it (N, 2, h, w) -> warped (N, K, h, w)."""
        return {'warped': warp(previous_scores, flow)}

    def compose(self, flow: Tensor, previous_key_flow: Tensor) -> dict[str, Tensor]:
        """Flow to the previous frame, and that frame's to the key frame -> flow to the key frame."""
        return {'key_flow': compose(flow, previous_key_flow)}

    def from_key(self, **carried: Tensor) -> dict[str, Tensor]:
        """What a key frame leaves to be carried, under the names of the state."""
        if not self.composes:
            return carried
        some = next(iter(carried.values()))
        still = 0 * some[:, :1].expand(-1, 2, -1, -1)  # not a constant, which some runtimes do not give
        return {f'key_{name}': maps for name, maps in carried.items()} | {'key_flow': still}

    def carried_on(self, **carried: Tensor) -> dict[str, Tensor]:
        """What a propagated frame hands on of what it carried; nothing where the key frame's stays."""
        return {} if self.composes else carried


class AppearanceWarping(FlowWarping):
    """Carries the appearance along with the scores, to be compared with the current frame.

    It is the key frame at a quarter, RGB in [0, 1], float (N, 3, h, w).
    """

    state = {
        'image': 'previous_image',
        'scores': 'previous_scores',
        'appearance': 'previous_appearance',
    }

    def warp(  # type: ignore[override]
        self, previous_scores: Tensor, previous_appearance: Tensor, flow: Tensor
    ) -> dict[str, Tensor]:
        """Scores (N, K, h, w) and appearance (N, 3, h, w) of an earlier frame, read along the flow to it."""
        both = warp(torch.cat((previous_scores, previous_appearance), 1), flow)
        warped, appearance = both.split((self.classes, 3), 1)
        return {'warped': warped, 'warped_appearance': appearance}

    def quarter(self, rgb: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 3, h, w)."""
        return resize(rgb, (rgb.shape[2] // CELL, rgb.shape[3] // CELL), self.align_corners)


def _of_key(name: str) -> str:
    """`previous_scores` -> `key_scores`, `flow` -> `key_flow`."""
    return f'key_{name.removeprefix("previous_")}'
