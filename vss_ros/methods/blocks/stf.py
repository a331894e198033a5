"""STF: a transformer that fuses the features of three frames; as published it has two layers."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from vss_ros.methods.blocks.icsa import Icsa, Size, fitting_block
from vss_ros.methods.blocks.resize import resize

FRAMES = 3
HEADS, DEPTH = 2, 1  # as published
DROPPED = 0.1  # of attention weights and of what residuals add, in training


class FeedForward(nn.Module):
    """Base of layers that end in two linear maps per cell; holds them under the published names."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(width, width // 2)
        self.linear2 = nn.Linear(width // 2, width)
        self.dropout = nn.Dropout(DROPPED)

    def feed_forward(self, tokens: Tensor) -> Tensor:
        return self.linear2(self.dropout(self.linear1(tokens).relu()))


class EncoderLayer(FeedForward):
    """Every cell of every frame looks at all frames; tokens (N, 3, h, w, d) in and out."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width)
        self.self_attn = Icsa(width, heads, DROPPED)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, tokens: Tensor, encoding: Tensor, block: Size) -> Tensor:
        found = self.self_attn(tokens, tokens, encoding, encoding, block)
        tokens = self.norm1(tokens + self.dropout(found))
        return self.norm2(tokens + self.dropout(self.feed_forward(tokens)))


class DecoderLayer(FeedForward):
    """One frame (N, 1, h, w, d) looks at itself, then at the encoded frames (N, 3, h, w, d)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width)
        self.self_attn = Icsa(width, heads, DROPPED)
        self.multihead_attn = Icsa(width, heads, DROPPED)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.norm3 = nn.LayerNorm(width)

    def forward(
        self, query: Tensor, encoded: Tensor, query_encoding: Tensor, encoding: Tensor, block: Size
    ) -> Tensor:
        found = self.self_attn(query, query, query_encoding, query_encoding, block)
        query = self.norm1(query + self.dropout(found))
        found = self.multihead_attn(query, encoded, query_encoding, encoding, block)
        query = self.norm2(query + self.dropout(found))
        return self.norm3(query + self.dropout(self.feed_forward(query)))


class Stack(nn.Module):
    """Layers in a row, each of which is given the same beside the tokens of the one before."""

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, tokens: Tensor, *others: Tensor, block: Size) -> Tensor:
        for layer in self.layers:
            tokens = layer(tokens, *others, block)
        return tokens


class Stf(nn.Module):
    """Features of three frames (N, d, 3, h, w) -> fused features of one of them (N, d, h, w).

    Args:
        width: channels d.
        grid: (rows, columns) of the stored positional encodings; they are resized to h x w.
        block: (rows, columns) wanted of the blocks of ICSA, see `fitting_block`. No weight depends on it.
        heads: of attention; they divide d. No shape of a weight depends on it.
        depth: how many layers the encoder has, and the decoder.
    """

    def __init__(self, width: int, grid: Size, block: Size, heads: int = HEADS, depth: int = DEPTH) -> None:
        super().__init__()
        self.block = block
        self.pe_enc = nn.Parameter(torch.empty(1, width, FRAMES, *grid))
        self.pe_dec = nn.Parameter(torch.empty(1, width, 1, *grid))
        self.encoder = Stack(EncoderLayer(width, heads) for _ in range(depth))
        self.decoder = Stack(DecoderLayer(width, heads) for _ in range(depth))
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, features: Tensor, centre: int = 1) -> Tensor:
        """Fuse.

        Args:
            features: in the order of time, (N, d, 3, h, w).
            centre: which of the three the result belongs to; the published order has it in the middle.
        """
        tokens = features.permute(0, 2, 3, 4, 1)
        size = features.shape[3:]
        encodings = encoding_at(self.pe_dec, size), encoding_at(self.pe_enc, size)
        query, encoded = tokens[:, centre : centre + 1], self.encode(tokens)
        fused = self.decoder(query, encoded, *encodings, block=fitting_block(size, self.block))
        return fused[:, 0].permute(0, 3, 1, 2)

    def encode(self, tokens: Tensor) -> Tensor:
        """What the encoder makes of the tokens of three frames, (N, 3, h, w, d) in and out."""
        size = tokens.shape[2:4]
        encoding = encoding_at(self.pe_enc, size)
        return self.encoder(tokens, encoding, block=fitting_block(size, self.block))

    @torch.no_grad()
    def fold(self, size: Size) -> None:
        """Keep the encodings at the one size (h, w) of maps to come instead of the stored one."""
        for name in ('pe_enc', 'pe_dec'):
            resized = resize_encoding(getattr(self, name), size)
            setattr(self, name, nn.Parameter(resized, requires_grad=False))


def resize_encoding(encoding: Tensor, size: Size) -> Tensor:
    """Resize (1, d, t, rows, columns) to (1, d, t, h, w); trilinear is bilinear where t stays."""
    frames = encoding.shape[2]
    return resize(encoding.flatten(1, 2), size).unflatten(1, (-1, frames))


def encoding_at(encoding: Tensor, size: Size) -> Tensor:
    """A stored encoding as tokens (1, t, h, w, d)."""
    return resize_encoding(encoding, size).permute(0, 2, 3, 4, 1)
