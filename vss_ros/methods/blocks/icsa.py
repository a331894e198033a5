"""ICSA, attention in two stages over blocks of a map: far and sparse, then near and dense (STF).

Tokens are (N, t, h, w, d): t frames of h x w cells with d channels. The plane is cut into blocks, and
a cell is known by its block and by its offset in it. The first stage gathers the cells of one offset,
a lattice over all blocks and frames; the second gathers the cells of one block.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from vss_ros.core.errors import ShapeError

# Axes after cutting: N, t, block row, offset row, block column, offset column, d. Those of a group
# first, those of its tokens after them.
BY_OFFSET = (0, 3, 5, 1, 2, 4, 6)
BY_BLOCK = (0, 2, 4, 1, 3, 5, 6)

Size = Sequence[int]


class Attention(nn.Module):
    """Multi-head attention with the weights of `nn.MultiheadAttention` and far fewer moves of axes."""

    def __init__(self, width: int, heads: int, dropped: float) -> None:
        super().__init__()
        self.heads, self.dropped = heads, dropped
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """query (groups, q, d), key and value (groups, k, d) -> (groups, q, d)."""
        query, key, value = (self.project(i, tokens) for i, tokens in enumerate((query, key, value)))
        dropped = self.dropped if self.training else 0.0
        found = functional.scaled_dot_product_attention(query, key, value, dropout_p=dropped)
        return self.out_proj(found.transpose(1, 2).flatten(2))

    def project(self, i: int, tokens: Tensor) -> Tensor:
        """Tokens (groups, n, d) by the i-th of three linear maps, cut into (groups, heads, n, d / heads)."""
        width = tokens.shape[-1]
        rows = slice(i * width, (i + 1) * width)
        projected = functional.linear(tokens, self.in_proj_weight[rows], self.in_proj_bias[rows])
        return projected.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class Icsa(nn.Module):
    """Multi-head attention per offset, then per block.

    Args:
        width: channels d of a token.
        dropped: share of the attention weights left out in training.
    """

    def __init__(self, width: int, heads: int, dropped: float) -> None:
        super().__init__()
        self.self_attn_short = Attention(width, heads, dropped)
        self.self_attn_long = Attention(width, heads, dropped)

    def forward(
        self, query: Tensor, key: Tensor, query_encoding: Tensor, key_encoding: Tensor, block: Size
    ) -> Tensor:
        """What the tokens of `query` find in those of `key`.

        Args:
            query: (N, t, h, w, d).
            key: (N, s, h, w, d), the values as well.
            query_encoding, key_encoding: their places, added before asking but not to the values;
                (1, t, h, w, d) and (1, s, h, w, d).
            block: (rows, columns) of a block; they divide h and w.
        Returns:
            (N, t, h, w, d).
        """
        asked = group(query + query_encoding, block, BY_OFFSET)
        known = group(key + key_encoding, block, BY_OFFSET)
        values = group(key, block, BY_OFFSET)
        found = self.self_attn_long(asked, known, values)
        found = ungroup(found, query.shape, block, BY_OFFSET)

        # No residual, norm or activation between the stages, and the places are added again.
        asked = group(found + query_encoding, block, BY_BLOCK)
        values = group(found, block, BY_BLOCK)
        found = self.self_attn_short(asked, asked, values)
        return ungroup(found, query.shape, block, BY_BLOCK)


def group(tokens: Tensor, block: Size, order: Sequence[int]) -> Tensor:
    """Tokens (N, t, h, w, d) as groups that attend to each other, (groups, tokens, d)."""
    cut = tokens.reshape(cut_shape(tokens.shape, block)).permute(*order)
    return cut.flatten(3, 5).flatten(0, 2)


def ungroup(groups: Tensor, shape: Size, block: Size, order: Sequence[int]) -> Tensor:
    """The reverse of `group`: (groups, tokens, d) -> (N, t, h, w, d) = `shape`."""
    cut = cut_shape(shape, block)
    back = [order.index(axis) for axis in range(len(order))]
    return groups.reshape([cut[axis] for axis in order]).permute(*back).reshape(shape)


def cut_shape(shape: Size, block: Size) -> list[int]:
    images, frames, height, width, channels = shape
    rows, columns = block
    return [images, frames, height // rows, rows, width // columns, columns, channels]


def fitting_block(size: Size, wanted: Size) -> tuple[int, int]:
    """The block nearest to the wanted one that divides a map.

    Args:
        size: (h, w) of the map.
        wanted: (rows, columns).
    Raises:
        ShapeError: no side between half and twice the wanted one divides the map's.
    """
    return fitting_side(size[0], wanted[0]), fitting_side(size[1], wanted[1])


def fitting_side(length: int, wanted: int) -> int:
    """The divisor of `length` nearest to `wanted`, the smaller one of two; a short `length` whole."""
    if length <= wanted:
        return length
    divisors = [side for side in range(-(-wanted // 2), 2 * wanted + 1) if length % side == 0]
    if not divisors:
        multiple = wanted * round(length / wanted)
        raise ShapeError(
            f'a map side of {length} cells cannot be cut into blocks of about {wanted}; choose an image '
            f'size that gives a multiple of {wanted} cells, {multiple} say, or another block'
        )
    return min(divisors, key=lambda side: abs(side - wanted))
