"""TWNet: tamed warping network for semantic video segmentation (Feng, Li, Li).

A key frame is segmented in full by a U-shaped CNN. A propagated frame warps features from inside that CNN
along the motion vectors of the video, as a codec warps images; a small network then corrects them (CFR), most
where the warped image differs from the current one (RGA). The corrected features are finished by the last
layers of the CNN and handed to the next frame.
Shapes: N batch, K classes, H x W image. The features are those of lateral connection `layer`, (N, c, h, w):
at 1/16, 1/8 or 1/4 of the image, c = 128, 64 or 64 (`lite`: 64). Flow is in cells of H/4 x W/4 and points
from the current frame to the previous one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from vss_ros.core.errors import SettingsError
from vss_ros.core.frame import CELL
from vss_ros.core.model.steps import DECISIONS
from vss_ros.methods.blocks.image import to_planes
from vss_ros.methods.blocks.light_fpn import ENCODERS, LightFpn
from vss_ros.methods.blocks.lite_u_shape import LiteUShape
from vss_ros.methods.blocks.mixed_norm import NORMS, with_norms
from vss_ros.methods.blocks.nonkey import CORRECTIONS, NonKeyCnn, halve, shrink
from vss_ros.methods.blocks.resize import resize
from vss_ros.methods.blocks.u_shape import LAST
from vss_ros.methods.blocks.warp import warp
from vss_ros.methods.flow_warping import COMPOSED, FlowWarping

LITE = 'lite'
HEADS = ('published', 'stem', 'more')


class TwNet(FlowWarping):
    """Graphs: segmenter | flow, compensation, correction. State: the image, the features, the picture.

    The picture is the image at the resolution of the residual, RGB in [0, 1], float, and there only for an
    attended correction. `layer` 3 has no correction: segmenter | flow, warp, classification.

    Args:
        classes: number of classes K.
        encoder: of the per-frame CNN: `mobilenet_v1` (published), `mobilenet_v2`, `resnet18`, or `lite`: the
            whole segmenter of evss-lite.
        layer: whose lateral connection's features are warped: 1 (most accurate), 2, or 3 (plain warping).
        heads: what of the encoder runs on propagated frames: `published`, every head that a later lateral
            connection needs; `stem` (only `lite`, layer 2): of the only such head its first two layers; or
            `more` (only layer 1): head 3 too, and CFR then takes its spatial features at 1/16 from there, as
            the paper may be read: more accurate and dearer.
        correction: of the features of layers 1 and 2: `attended` (CFR under RGA), `plain` (CFR alone), or
            `none`, the decoder alone; the paper measures all three.
        carry: `warped`, from frame to frame, or, with layer 3, `composed`, see `FlowWarping`; what is
            corrected has to be carried on.
        residual: resolution at which images are compared: `full`, `half` or `quarter` of the image.
        flow: see `FlowWarping`. The paper takes motion vectors.
        norms: of the per-frame CNN, `batch` (published), or with `lite` also `mixed`, see `MixedNorm`.
        options: those of `Method`.
    Raises:
        SettingsError: an option has a value that cannot be used.
    """

    key_network = 'cnn'
    steps = {'key': ('segmenter',), 'propagated': ('flow', 'compensation', 'correction')}
    state = {'image': 'previous_image', 'features': 'previous_features', 'picture': 'previous_picture'}
    choices = {
        'encoder': (*ENCODERS, LITE),
        'heads': HEADS,
        'correction': CORRECTIONS,
        'norms': NORMS,
        'residual': tuple(DECISIONS),
        'carry': ('warped', COMPOSED),
    }

    def __init__(
        self,
        classes: int,
        *,
        encoder: str = 'mobilenet_v1',
        layer: int = 1,
        heads: str = 'published',
        residual: str = 'half',
        flow: str = 'motion_vectors',
        carry: str = 'warped',
        correction: str = 'attended',
        norms: str = 'batch',
        **options: Any,
    ) -> None:
        if layer not in (1, 2, LAST):
            raise SettingsError(f'layer is {layer!r}; use 1, 2 or {LAST}')
        if carry == COMPOSED and layer != LAST:
            raise SettingsError(f'carry is composed with layer {layer}, which corrects; use layer {LAST}')
        self.is_attended = layer != LAST and correction == 'attended'
        if layer == LAST:  # FlowWarping builds on these
            self.steps = {**self.steps, 'propagated': ('flow', 'warp', 'classification')}
        if not self.is_attended:
            self.state = {name: later for name, later in self.state.items() if name != 'picture'}
        super().__init__(
            classes,
            encoder=encoder,
            layer=layer,
            heads=heads,
            residual=residual,
            flow=flow,
            carry=carry,
            correction=correction,
            norms=norms,
            **options,
        )
        if heads == 'stem' and (encoder, layer) != (LITE, 2):
            raise SettingsError(f"heads is 'stem' with encoder {encoder} and layer {layer}; use lite and 2")
        if heads == 'more' and layer != 1:
            raise SettingsError(f"heads is 'more' with layer {layer}; use layer 1")
        if heads == 'more' and correction == 'none':
            raise SettingsError("heads is 'more' with correction none, which needs no head; use published")
        self.layer, self.part = layer, DECISIONS[residual]
        self.cnn = with_norms(LiteUShape(classes) if encoder == LITE else LightFpn(classes, encoder), norms)
        if layer != LAST:
            self.nonkey = NonKeyCnn(self.cnn, layer, int(heads == 'more'), correction)
            if heads == 'stem':
                self.nonkey.cnn.encoder_4 = nn.Identity()

    def fill_in(self, untrained: Sequence[str]) -> None:
        """Without weights of its own the non-key-frame CNN begins as the per-frame CNN: plain warping."""
        if 'nonkey' in untrained and 'cnn' not in untrained:
            self.nonkey.start_from(self.cnn)

    def parameters_of(self, graph: str) -> tuple[str, ...]:
        names = super().parameters_of(graph)
        needless = {'compensation': ('image', 'previous_picture'), 'correction': ('residual',)}
        return tuple(name for name in names if self.is_attended or name not in needless.get(graph, ()))

    def segmenter(self, image: Tensor) -> dict[str, Tensor]:
        """image uint8 (N, H, W, 3) BGR -> features (N, c, h, w), picture, mask, confidence."""
        features, scores = self.cnn(self.look(image, self.cnn), self.layer)
        picture = {'picture': self.picture(image)} if self.is_attended else {}
        return {**self.from_key(features=features.float()), **picture, **self.results(scores)}

    def compensation(
        self,
        previous_features: Tensor,
        flow: Tensor,
        image: Tensor | None = None,
        previous_picture: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """What the frame before says of this one, and how far its image is from the truth.

        It is not called `warp`: engines may compute a graph of that name by themselves, and then nothing
        else in it.

        Args:
            previous_features: of the frame before.
            flow: (N, 2, H/4, W/4).
            image, previous_picture: uint8 (N, H, W, 3) BGR, and that of the frame before, for an attended
                correction, which the rest is for, too.
        Returns:
            warped_features: (N, c, h, w).
            residual: mean absolute difference of the picture and the warped previous one in each cell, in
                0..1, (N, 3, h, w).
            picture: what the next frame takes.
        """
        warped = {'warped_features': self.warped(previous_features, flow)}
        if image is None or previous_picture is None:
            return warped
        picture = self.picture(image)
        return {**warped, 'residual': self.residual(picture, previous_picture, flow), 'picture': picture}

    def correction(
        self,
        image: Tensor,
        warped_features: Tensor,
        residual: Tensor | None = None,
        age: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Correct the warped features where image and warped image differ, and finish the segmentation.

        Args:
            image: uint8 (N, H, W, 3) BGR.
            warped_features, residual: see `compensation`.
            age: see `decided`.
        Returns:
            features: what the next frame takes: the corrected ones.
            mask, confidence: see `decided`.
            distortion: the attention, if there is any: 0 keeps the warped features, 1 corrects them in full,
                (N, 1, h, w).
        """
        seen = self.look(image, self.nonkey.cnn)
        features, scores, attention = self.nonkey(seen, warped_features, residual)
        decided = self.results(scores, age)
        distortion = {} if attention is None else {'distortion': attention.float()}
        return {'features': features.float(), **decided, **distortion}

    def warp(self, previous_features: Tensor, flow: Tensor) -> dict[str, Tensor]:
        """Layer 3: features (N, c, H/4, W/4) and flow (N, 2, H/4, W/4) -> warped_features."""
        return {'warped_features': warp(previous_features, flow)}

    def classification(self, warped_features: Tensor, age: Tensor | None = None) -> dict[str, Tensor]:
        """Layer 3: warped features (N, c, H/4, W/4) -> features, unless composed, mask, confidence."""
        scores = self.cnn(warped_features, is_last=True)
        return {**self.carried_on(features=warped_features), **self.results(scores, age)}

    @property
    def cells(self) -> int:
        """Side of a cell of the features, in cells of the flow.

        The means of the flow and of the residual are over such cells, also where the image ends inside the
        last ones, not over equal parts of the image: cells are where the features lie. At layer 1 and 360
        rows, 22.5 cells, features that moved by 32 and 48 rows are warped with an error of 0.099 and 0.167 of
        their size, with equal parts of 0.109 and 0.182.
        """
        return 2 ** (LAST - self.layer)

    def warped(self, previous_features: Tensor, flow: Tensor) -> Tensor:
        """See `compensation`."""
        return warp(previous_features, self.reduced(flow) / self.cells)

    def residual(self, picture: Tensor, previous_picture: Tensor, flow: Tensor) -> Tensor:
        """See `compensation`."""
        pixels = CELL // self.part  # side of a cell of the flow, in pixels of the picture
        seen = warp(previous_picture, pixels * self.enlarged(flow, picture.shape[2:]))
        return shrink((picture - seen).abs(), self.cells * pixels)

    def reduced(self, flow: Tensor) -> Tensor:
        """Means of a flow (N, 2, H/4, W/4) at the size of the features.

        Where it is that of blocks, each counts as much as the next, also one that the image does not fill.
        """
        if self.options['flow'] != 'motion_vectors':
            return shrink(flow, self.cells)
        for _ in range(LAST - self.layer):
            flow = halve(flow)  # the first time to blocks
        return flow

    def enlarged(self, flow: Tensor, size: Sequence[int]) -> Tensor:
        """Flow at the size of the picture: a block's pixels all move by its vector, as in the codec."""
        if self.options['flow'] == 'motion_vectors':
            return functional.interpolate(flow, tuple(size))
        return resize(flow, size)

    def picture(self, image: Tensor) -> Tensor:
        """uint8 (N, H, W, 3) BGR -> RGB in [0, 1], float, at the resolution of the residual."""
        return self.shrink(to_planes(image)).flip(1) / 255

    def shrink(self, planes: Tensor) -> Tensor:
        """(N, 3, H, W) -> the same at the resolution of the residual."""
        return shrink(planes, self.part)

    def results(self, scores: Tensor, age: Tensor | None = None) -> dict[str, Tensor]:
        """Scores (N, K, H/4, W/4) -> mask, confidence, see `decided`."""
        size = CELL * scores.shape[2], CELL * scores.shape[3]
        return self.decided(scores.float(), size, age)
