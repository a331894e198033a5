"""Stage `growth`: CSRNet begins as a trained light segmenter made wider (Net2Net, Chen et al. 2016).

Both are of one kind: four stages of two residual blocks, pooled context, a decoder that goes up step by step.
So the light network is written into the first channels of the wide one. A new channel begins with random
weights, and what reads it with zeros: it changes nothing yet, and learns from the first step on. CSRNet's
second and third pass begin by handing on what the first one gave. Two parts are not the same, and only nearly
fit: grids of the pooled context, and the stem, where a pooled 7x7 convolution stands for two of 3x3. The
stage teaches the stem to give the light one's features; what follows is learnt in the stage `segmenter`, for
which the light network makes a good teacher.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from vss_ros.core.described import Described, setting
from vss_ros.core.errors import ModelError, SettingsError
from vss_ros.methods.blocks.csrnet import CsrNet
from vss_ros.methods.blocks.image import magnified, to_rgb
from vss_ros.methods.blocks.lite import LiteSegmenter
from vss_ros.methods.key_frames import KeyFrames
from vss_ros.training import augment
from vss_ros.training.augment import check_crop, check_scales
from vss_ros.training.data import LabelledImages
from vss_ros.training.loop import Batch
from vss_ros.training.shares import Shares
from vss_ros.training.teacher import load_teacher

if TYPE_CHECKING:
    from vss_ros.training.gather import Gathered
    from vss_ros.training.recipe import StageRecipe

PASSED = 3.0  # how far the choice between a coarse map and a finer one leans to the finer: 95 %
# Level of the light context (1, 2, 4 rows) -> that of CSRNet (8, 4, 2 rows) it is written into.
SHARED_LEVELS = ((0, 2), (1, 2), (2, 1))
EXAMPLES = 16  # images that norms take their statistics from
Part = Any  # of a network: PyTorch does not say of what type


@dataclass(frozen=True)
class GrowthSettings(Described):
    """What the network grows from, and the views its stem sees."""

    light: str = setting('', 'what it grows from, MODEL/PREFIX as in start')
    batch: int = setting(8, 'views, of which batch norm needs two', range=(2, math.inf))
    crop: tuple[int, ...] = setting((), 'height, width of a view; that of the images if not given')
    scales: tuple[float, float] = setting((0.6, 2.0), 'the smallest and the largest one of a view')

    def __post_init__(self) -> None:
        super().__post_init__()
        check_crop(self.crop)
        check_scales(self.scales)


class GrowthStage:
    """Grows CSRNet and trains its stem; all else stays as it grew."""

    name = 'growth'
    settings_class = GrowthSettings
    method_class = KeyFrames

    def __init__(
        self,
        wide: CsrNet,
        light: LiteSegmenter,
        sets: Sequence[tuple[LabelledImages, float]],
        aside: LabelledImages,
        settings: GrowthSettings,
        seed: int = 0,
    ) -> None:
        """`sets`: images, whose labels are not needed, and the share of every batch drawn from them."""
        self.module, self._light, self._settings, self._seed = wide, light, settings, seed
        self.size = settings.batch
        self._sets, self._aside = Shares(sets), aside
        largest = self._sets.largest.images
        places = np.linspace(0, len(largest) - 1, min(EXAMPLES, len(largest))).astype(int)
        examples = torch.from_numpy(np.stack([largest[place] for place in places]))
        grow(wide, light, to_rgb(examples.to(next(wide.parameters()).device)))
        stem = (wide.backbone.conv1, wide.backbone.bn1, wide.backbone.layer1)
        wide.requires_grad_(False)
        for part in stem:
            part.requires_grad_(True)

    @classmethod
    def create(cls, method: KeyFrames, data: Gathered, recipe: StageRecipe) -> GrowthStage:
        light = cls.check(method, data, recipe)
        assert isinstance(method.csrnet, CsrNet)
        images = data.images(recipe.shares)
        return cls(method.csrnet, light, images, data.aside, recipe.sampling, data.seed)

    @classmethod
    def check(cls, method: KeyFrames, data: Gathered, recipe: StageRecipe) -> LiteSegmenter:
        """Raises what `create` would, which grows the network, too; returns what it grows out of."""
        light = load_teacher(recipe.sampling.light, data.class_set, 'light')
        if not isinstance(light, LiteSegmenter) or not isinstance(method.csrnet, CsrNet):
            raise ModelError(
                f'{cls.name} makes a CSRNet (backbone: csrnet) out of a light segmenter (backbone: lite); '
                f'{recipe.sampling.light} or the recipe has another network'
            )
        if light.magnify != method.csrnet.magnify:
            raise SettingsError(
                f'{recipe.sampling.light} looks at images {light.magnify} times as large as they are, and '
                f'what grows out of it must, too; set magnify: {light.magnify} in the options of the recipe'
            )
        data.images(recipe.shares)
        return light

    def batch(self, step: int, samples: Sequence[int] | None = None) -> Batch:
        views = [self._view(step, index) for index in (range(self.size) if samples is None else samples)]
        return {'images': np.stack(views)}

    def _view(self, step: int, index: int) -> np.ndarray:
        rng = np.random.default_rng([self._seed, step, index])
        chosen = self._sets.pick(rng)
        image, _ = augment.random_view(rng, chosen, self._settings.scales, self._settings.crop)
        return augment.recolour(rng, image)

    def losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {'stem': self._unexplained(self.module, to_rgb(batch['images']))}

    def _unexplained(self, wide: nn.Module, rgb: Tensor) -> Tensor:
        assert isinstance(wide, CsrNet)
        features = wide.backbone.to_quarter(wide.normalise(magnified(rgb, wide.magnify)))
        return unlike(features, features_at_quarter(self._light, rgb))

    @torch.no_grad()
    def validate(self, average: nn.Module) -> dict[str, float]:
        """`explained`: per cent of the variance of the light stem's features that the wide one's have."""
        device = next(average.parameters()).device
        missed = []
        for image in self._aside.images:
            rgb = to_rgb(torch.from_numpy(image)[None].to(device))
            missed.append(self._unexplained(average, rgb).item())
        return {'explained': 100 * (1 - float(np.mean(missed)))} if missed else {}


@torch.no_grad()
def features_at_quarter(light: LiteSegmenter, rgb: Tensor) -> Tensor:
    """What the light stem and first stage give, (N, 32, h, w); they follow the images to their device."""
    return light.to(rgb.device).to_quarter(magnified(rgb, light.magnify))


def unlike(wide: Tensor, light: Tensor) -> Tensor:
    """Mean squared difference of the channels both have, as a share of the variance of `light`: a scalar."""
    deviation = light.std((0, 2, 3), keepdim=True) + 0.03  # some channels are silent
    return ((wide[:, : light.shape[1]].float() - light.float()) / deviation).square().mean()


@torch.no_grad()
def grow(wide: CsrNet, light: LiteSegmenter, examples: Tensor) -> None:
    """Write a light network into a wide one that is freshly made.

    Args:
        examples: images, RGB in [0, 1], (N, 3, H, W), from which norms that are new take their statistics.
    """
    trunk: Any = wide.backbone
    whole: Any = light
    for layer, stage in (
        (trunk.layer1, whole.encoder_4),
        (trunk.layer2, whole.encoder_8),
        (trunk.layer3, whole.encoder_16),
        (trunk.layer4, whole.encoder_32),
    ):
        for block, residual in zip(layer, stage, strict=True):
            _grow_block(block, residual)
    _grow_context(trunk.spp, whole.context)
    for fuse, skip, decoder in zip(
        trunk.upsample,
        (whole.skip_16, whole.skip_8, whole.skip_4),
        (whole.decoder_16, whole.decoder_8, whole.decoder_4),
        strict=True,
    ):
        _widen(fuse.bottleneck, skip)
        _add_up(fuse)
        _widen(fuse.blend_conv, decoder)
    passing = [
        *_pass_on_pooled(trunk.spp_up1),
        *_pass_on_pooled(trunk.spp_up2),
        *(norm for fuse in (*trunk.upsample_up2, *trunk.upsample_up3) for norm in _pass_on_skip(fuse)),
        wide.logits.norm,
    ]
    adding = [fuse.sk.conv_out.norm for fuse in trunk.upsample]
    _widen_convolution(wide.logits.conv, whole.scores)
    _settle_norms(wide, light, examples, {*passing, *adding})


def _settle_norms(wide: CsrNet, light: LiteSegmenter, examples: Tensor, unchanging: set[nn.Module]) -> None:
    """Give norms the statistics of what they get once the stem is taught; some are to change nothing."""

    def settle(norm: Part, inputs: tuple[Tensor, ...]) -> None:
        variance, mean = torch.var_mean(inputs[0], (0, 2, 3), correction=0)
        new = (norm.running_var == 1) & (norm.running_mean == 0)  # as no trained channel has
        norm.running_mean[new], norm.running_var[new] = mean[new], variance[new]
        if norm in unchanging:
            norm.weight.copy_((norm.running_var + norm.eps).sqrt())
            norm.bias.copy_(norm.running_mean)

    layer: Part = wide.backbone.layer1
    features = features_at_quarter(light, examples)
    new_channels = layer[-1].conv2.out_channels - features.shape[1]
    taught = nn.functional.pad(features, (0, 0, 0, 0, 0, new_channels))
    hooks = [layer.register_forward_hook(lambda *_: taught)]
    for name, module in wide.named_modules():
        if isinstance(module, nn.BatchNorm2d) and not name.startswith('backbone.layer1'):
            hooks.append(module.register_forward_pre_hook(settle))
    training = wide.training
    wide.eval()(examples)
    wide.train(training)
    for hook in hooks:
        hook.remove()


def _grow_block(block: Part, residual: Part) -> None:
    _widen_pair(block.conv1, block.bn1, residual.first)
    _widen_pair(block.conv2, block.bn2, residual.second)
    if not isinstance(block.downsample, nn.Identity):
        _widen_pair(block.downsample[0], block.downsample[1], residual.shortcut)


def _grow_context(pooling: Part, context: Part) -> None:
    layers = pooling.spp
    _widen(layers['spp_bn'], context.entry)
    width, light = layers['spp_bn'].conv.out_channels, context.entry[0].out_channels
    join, fuse = context.join, layers['spp_fuse']
    _widen_pair(fuse.conv, fuse.norm, join)
    fuse.conv.weight[:light, light:] = 0
    used = [0, 0, 0]
    for number, (level, taking) in enumerate(SHARED_LEVELS):
        source, target = context.levels[level], layers[f'spp{taking}']
        count, at = source[0].out_channels, used[taking]
        target.conv.weight[at : at + count] = 0
        target.conv.weight[at : at + count, :light] = source[0].weight
        _copy_norm(target.norm, source[1], at)
        column = width + taking * target.conv.out_channels + at
        begin = light + number * count
        fuse.conv.weight[:light, column : column + count] = join[0].weight[:, begin : begin + count]
        used[taking] += count


def _add_up(fuse: Part) -> None:
    """As the light decoder does: the sum of both maps, which is twice their mean."""
    _same_choice(fuse, 0.0)
    _identity(fuse.sk.conv_out.conv, 2.0)


def _pass_on_skip(fuse: Part) -> Iterator[nn.Module]:
    _same_choice(fuse, -PASSED)
    for layer in (fuse.bottleneck, fuse.sk.conv_out, fuse.blend_conv):
        _identity(layer.conv)
        yield layer.norm


def _pass_on_pooled(pooling: Part) -> Iterator[nn.Module]:
    for name in ('spp_bn', 'spp_fuse'):
        layer = pooling.spp[name]
        _identity(layer.conv)
        yield layer.norm


def _same_choice(fuse: Part, leaning: float) -> None:
    for linear in (fuse.sk.fc1, fuse.sk.fc2):
        linear.weight.zero_()
        linear.bias.zero_()
    fuse.sk.fc1.bias.fill_(leaning)


def _identity(convolution: nn.Conv2d, scale: float = 1.0) -> None:
    nn.init.zeros_(convolution.weight)
    middle = convolution.kernel_size[0] // 2
    outputs = torch.arange(convolution.out_channels)
    convolution.weight[outputs, outputs, middle, middle] = scale


def _widen(layer: Part, light: Part) -> None:
    _widen_pair(layer.conv, layer.norm, light)


def _widen_pair(convolution: nn.Conv2d, norm: nn.BatchNorm2d, light: Part) -> None:
    _widen_convolution(convolution, light[0])
    _copy_norm(norm, light[1])


def _widen_convolution(wide: nn.Conv2d, light: nn.Conv2d) -> None:
    outputs, inputs = light.weight.shape[:2]
    wide.weight[:outputs] = 0
    shared = min(inputs, wide.in_channels)
    wide.weight[:outputs, :shared] = light.weight[:, :shared]
    if wide.bias is not None and light.bias is not None:
        wide.bias[:outputs] = light.bias


def _copy_norm(wide: nn.BatchNorm2d, light: nn.BatchNorm2d, at: int = 0) -> None:
    here = slice(at, at + light.num_features)
    for name in ('weight', 'bias', 'running_mean', 'running_var'):
        getattr(wide, name)[here] = getattr(light, name)
