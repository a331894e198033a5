"""The CNN of TWNet: an encoder of four heads and, back up from it, three lateral connections.

Lateral connection n, for n = 1, 2, 3, works at 1/16, 1/8 and 1/4. It takes the features of the encoder's
head 4 - n through a 1x1 convolution (the lateral feature), adds the enlarged coarser features and merges them
by a 3x3 convolution. Its output is what TWNet carries along the flow with `layer` n.
Shapes: N batch, K classes, H x W image, h x w = H/4 x W/4. Sides are rounded up.
"""

from __future__ import annotations

import copy

from torch import Tensor, nn

LAST = 3  # of the lateral connections


class UShape(nn.Module):
    """Parts by number; what is left of the network on a propagated frame is `after` a lateral connection.

    A subclass says what its parts are: `head`, `take_context`, `lateral`, `connect` and `classify`.

    Attributes:
        head_widths: channels that leave each head.
        widths: channels that leave each lateral connection. The next one's lateral feature has as many.
    """

    head_widths: tuple[int, int, int, int]
    widths: tuple[int, int, int]

    def head(self, number: int, maps: Tensor) -> Tensor:
        """RGB in [0, 1] for head 1 -> features at 1/4; else those of the head before -> at half the size."""
        raise NotImplementedError

    def take_context(self, maps: Tensor) -> Tensor:
        """Features of head 4 -> the same with what lies far away mixed in."""
        raise NotImplementedError

    def lateral(self, number: int, maps: Tensor) -> Tensor:
        """Features of head 4 - number -> lateral feature."""
        raise NotImplementedError

    def connect(self, number: int, coarse: Tensor, lateral: Tensor) -> Tensor:
        """Coarser features and the lateral feature -> what leaves the lateral connection."""
        raise NotImplementedError

    def classify(self, features: Tensor) -> Tensor:
        """What leaves lateral connection 3 -> scores (N, K, h, w)."""
        raise NotImplementedError

    def without(self, heads: int, laterals: int) -> None:
        """Drop the heads from number `heads` + 1 on, the context, and the first `laterals` connections."""
        raise NotImplementedError

    def after(self, layer: int, more_heads: int = 0) -> UShape:
        """A copy of what still runs when lateral connection `layer` has its features from elsewhere.

        Args:
            more_heads: kept beside those that later lateral connections need.
        """
        rest = copy.deepcopy(self)
        rest.without(LAST - layer + more_heads, layer)
        return rest

    def encode(self, rgb: Tensor, heads: int) -> list[Tensor]:
        """Features of the first heads, the largest first."""
        maps, encoded = rgb, []
        for number in range(1, heads + 1):
            maps = self.head(number, maps)
            encoded.append(maps)
        return encoded

    def laterals(self, encoded: list[Tensor], layer: int) -> dict[int, Tensor]:
        """Lateral features of the connections after `layer`, by their number."""
        return {number: self.lateral(number, encoded[LAST - number]) for number in range(layer + 1, LAST + 1)}

    def interior(self, encoded: list[Tensor], layer: int) -> Tensor:
        """Features of all four heads -> features of lateral connection `layer`; 0 is the context."""
        features = self.take_context(encoded[LAST])
        for number in range(1, layer + 1):
            features = self.connect(number, features, self.lateral(number, encoded[LAST - number]))
        return features

    def finish(self, features: Tensor, laterals: dict[int, Tensor]) -> Tensor:
        """Features that left a lateral connection, and all the later lateral features -> scores."""
        for number in sorted(laterals):
            features = self.connect(number, features, laterals[number])
        return self.classify(features)

    def forward(
        self, maps: Tensor, layer: int | None = None, is_last: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Scores (N, K, h, w); with `layer` the features of that lateral connection before them.

        Args:
            maps: RGB in [0, 1], (N, 3, H, W); with `is_last` the features of the last lateral connection, of
                which scores are made and nothing else.
        """
        if is_last:
            return self.classify(maps)
        encoded = self.encode(maps, LAST + 1)
        features = self.interior(encoded, layer or 0)
        scores = self.finish(features, self.laterals(encoded, layer or 0))
        return scores if layer is None else (features, scores)
