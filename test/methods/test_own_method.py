"""A method of one's own: as the documentation shows it, and the mistakes that export names."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from vss_ros.core.errors import ModelError, SettingsError, ShapeError
from vss_ros.core.model.folder import load_model
from vss_ros.exporting.export import export
from vss_ros.exporting.weights import load_method
from vss_ros.methods import METHODS, build_method, method_class
from vss_ros.methods.blocks.image import to_rgb
from vss_ros.methods.blocks.warp import warp
from vss_ros.methods.flow_warping import FlowWarping
from vss_ros.methods.method import Method

ARCHITECTURE = Path(__file__).parents[2] / 'docs' / 'architecture.md'
SIZE = (32, 48)


class Single(Method):
    """One convolution on every frame; the mistakes are in its subclasses."""

    steps = {'key': ('segmenter',)}
    state = {}
    key_network = 'network'

    def __init__(self, classes: int, **options) -> None:
        super().__init__(classes, **options)
        self.network = nn.Conv2d(3, classes, 4, 4)

    def segmenter(self, image: Tensor) -> dict[str, Tensor]:
        scores = self.segment(to_rgb(image))
        return {'scores': scores, **self.decided(scores, image.shape[1:3])}


class LosesGain(Single):
    def __init__(self, classes: int, gain: float = 1, bias: float = 0) -> None:
        super().__init__(classes, bias=bias)
        self.gain = gain

    def segment(self, rgb: Tensor) -> Tensor:
        return self.gain * super().segment(rgb)


class LosesWidth(Single):
    def __init__(self, classes: int, width: int = 8) -> None:
        super().__init__(classes)
        self.network = nn.Sequential(nn.Conv2d(3, width, 4, 4), nn.Conv2d(width, classes, 1))


class InventsAnOption(Single):
    def __init__(self, classes: int) -> None:
        super().__init__(classes, width=8)


class ReadsTheClock(Single):
    made = 0

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        ReadsTheClock.made += 1
        self.gain = ReadsTheClock.made

    def segment(self, rgb: Tensor) -> Tensor:
        return self.gain * super().segment(rgb)


class Unsteady(Single):
    steps = {'key': ('segmenter',), 'propagated': ('more',)}
    state = {'scores': 'previous_scores'}

    def more(self, image: Tensor, previous_scores: Tensor) -> dict[str, Tensor]:
        return self.decided(previous_scores + self.segment(to_rgb(image)), image.shape[1:3])


class Unnamed(Single):
    def segmenter(self, image: Tensor) -> Tensor:
        return self.segment(to_rgb(image))


class Unsure(Single):
    def segmenter(self, image: Tensor) -> dict[str, Tensor]:
        return {'mask': super().segmenter(image)['mask']}


class Misspelt(Single):
    steps = {'key': ('segmentor',)}


class Bare(Single):
    steps = {'key': 'segmenter'}


class Foreign(Single):
    steps = {'key': ('segmenter',), 'between': ('segmenter',)}


class Stepless(Single):
    steps = None


class Stateless(Single):
    state = None


class Headless(Single):
    key_network = 'net'


class Shuffling(Single):
    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.network = nn.Sequential(nn.Conv2d(3, 4 * classes, 8, 8), nn.PixelShuffle(2))


class Branching(Single):
    def segment(self, rgb: Tensor) -> Tensor:
        scores = super().segment(rgb)
        return 2 * scores if scores.mean() > 0 else scores


class Moving(FlowWarping, Single):
    """Carries two tensors along the flow."""

    steps = {'key': ('segmenter',), 'propagated': ('flow', 'warp', 'decide')}
    state = {'scores': 'previous_scores', 'trust': 'previous_trust'}

    def __init__(self, classes: int, flow: str = 'dis') -> None:
        super().__init__(classes, flow=flow)

    def segmenter(self, image: Tensor) -> dict[str, Tensor]:
        given = super().segmenter(image)
        return {**given, 'trust': given['scores'].sigmoid()}

    def warp(self, previous_scores: Tensor, previous_trust: Tensor, flow: Tensor) -> dict[str, Tensor]:
        return {'warped': warp(previous_scores, flow), 'warped_trust': warp(previous_trust, flow)}

    def decide(self, warped: Tensor, warped_trust: Tensor) -> dict[str, Tensor]:
        size = [4 * side for side in warped.shape[2:]]
        return {'scores': warped, 'trust': warped_trust, **self.decided(warped, size)}


class Fading(Moving):
    def warp(self, previous_scores: Tensor, previous_trust: Tensor, flow: Tensor) -> dict[str, Tensor]:
        given = super().warp(previous_scores, previous_trust, flow)
        return {**given, 'warped_trust': 0.5 * given['warped_trust']}


class Swapping(Moving):
    def warp(self, previous_trust: Tensor, previous_scores: Tensor, flow: Tensor) -> dict[str, Tensor]:
        return super().warp(previous_scores, previous_trust, flow)


class Adding(Moving):
    def warp(self, previous_scores: Tensor, previous_trust: Tensor, flow: Tensor) -> dict[str, Tensor]:
        given = super().warp(previous_scores, previous_trust, flow)
        return {**given, 'speed': flow.square().sum(1, keepdim=True)}


class Constant(Moving):
    def segmenter(self, image: Tensor) -> dict[str, Tensor]:
        given = super().segmenter(image)
        return {**given, 'trust': torch.ones_like(given['scores'])}


class Idle(Moving):
    def decide(self, image: Tensor, warped: Tensor, warped_trust: Tensor) -> dict[str, Tensor]:
        return super().decide(warped, warped_trust)


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Exports a class of this file: write(class, **options)."""

    def export_it(kind, size=SIZE, **options):
        monkeypatch.setitem(METHODS, 'own', f'{kind.__module__}:{kind.__qualname__}')
        torch.manual_seed(0)
        method = build_method('own', 11, options)
        return export(method, tmp_path / 'm', name='m', class_set='camvid11', image_size=size)

    return export_it


def test_the_method_in_the_documentation_exports_as_it_says(tmp_path, monkeypatch):
    blocks = re.findall(r'```python\n(.*?)```', ARCHITECTURE.read_text(), re.DOTALL)
    [of_class] = [block for block in blocks if 'class Mine(Method)' in block]
    [of_export] = [block for block in blocks if "build_method('mine'" in block]
    module = ModuleType('mine_of_the_docs')
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(of_class, 'mine.py', 'exec'), vars(module))
    monkeypatch.setitem(METHODS, 'mine', f'{module.__name__}:Mine')
    monkeypatch.chdir(tmp_path)
    exec(of_export, {})
    model = load_model(tmp_path / 'mine')
    assert (model.image_size, model.options) == ((360, 480), {'width': 16, 'decision': 'half'})
    with pytest.raises(SettingsError, match='width is -2; use 1 or more'):
        build_method('mine', 11, {'width': -2})
    with pytest.raises(SettingsError, match="decision is 'bogus'; use one of full, half, quarter"):
        build_method('mine', 11, {'decision': 'bogus'})


def test_a_method_that_is_whole_is_exported(write):
    assert write(Moving).graphs.keys() == {'segmenter', 'warp', 'decide'}


@pytest.mark.parametrize(
    ('kind', 'options', 'lost'),
    [
        (LosesGain, {'gain': 4.0}, 'it lacks gain'),
        (LosesWidth, {'width': 4}, 'it lacks width'),
        (ReadsTheClock, {}, 'it has none'),
    ],
)
def test_a_model_that_would_be_rebuilt_as_another_is_refused(write, tmp_path, kind, options, lost):
    with pytest.raises(
        ModelError, match=rf'm/model\.yaml would not rebuild .*: .*{lost}\. Hand every option'
    ):
        write(kind, **options)
    assert not any(tmp_path.iterdir())


def test_a_constructor_that_hands_on_what_no_constructor_names_is_refused(write):
    with pytest.raises(ModelError, match=r'^InventsAnOption has no option width; it has none$'):
        write(InventsAnOption)


def test_an_option_that_is_lost_without_a_difference_is_no_matter(write):
    assert load_method(write(LosesGain)).gain == 1


@pytest.mark.parametrize(
    ('kind', 'message'),
    [
        (Misspelt, "Misspelt: step key names 'segmentor', and the class has no function of that name"),
        (Bare, "Bare: step key is 'segmenter'; expected a tuple of stages"),
        (Foreign, 'Foreign.steps is .*; expected stages of the steps key, propagated, carried'),
        (Stepless, 'Stepless.steps is None; expected stages of the steps key'),
        (Stateless, 'Stateless has no state; expected a dict'),
        (Headless, "Headless.key_network is 'net'; expected one of its networks: network"),
        (Unnamed, r"graph 'segmenter' returns Tensor; expected tensors by name, such as {'mask': mask"),
        (Unsteady, 'the state has scores, which no graph of the step gives; the step has image, age,'),
        (Constant, "graph 'segmenter' breaks a rule of export: output trust depends on no input"),
        (Idle, "graph 'decide' breaks a rule of export: nothing uses input image; leave it out"),
        (Fading, "warp.warped_trust is not previous_trust, warped. Engines compute a graph 'warp'"),
        (Swapping, 'warp.warped is not previous_trust, warped'),
        (Adding, "graph 'warp' takes .*, flow and gives warped, warped_trust, speed. Engines compute"),
        (Shuffling, r'\(of network\.1, PixelShuffle\) is a DepthToSpace, .* use reshape and permute'),
        (Branching, r"graph 'segmenter' cannot be written as ONNX: Could not guard .*\(.*\.py, line \d+\)$"),
        (Unsure, r'^[^ ]*/m: step key does not give confidence'),
    ],
)
def test_a_mistake_is_named_and_nothing_is_written(write, tmp_path, kind, message):
    with pytest.raises(ModelError, match=message):
        write(kind)
    assert not any(tmp_path.iterdir())


def test_an_exporter_that_cannot_be_loaded_is_named_and_nothing_is_written(write, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise ImportError("cannot import name 'OnnxFunction' from 'onnxscript'")

    monkeypatch.setattr(torch.onnx, 'export', fail)
    with pytest.raises(ModelError, match=r"graph 'segmenter' cannot be written as ONNX: .* 'onnxscript'"):
        write(Single)
    assert not any(tmp_path.iterdir())


def test_a_size_that_a_network_cannot_take_is_named_with_the_graph(tmp_path):
    method = build_method('per-frame', 11, {'backbone': 'lite'})
    method.csrnet.decoder_16 = nn.AvgPool2d(3, 2)  # a decoder whose maps do not fit
    method.csrnet.context = nn.MaxPool2d(40)
    with pytest.raises(
        ModelError, match=r"graph 'segmenter' fails for images of 100x60: RuntimeError: .*, such as 96x64"
    ):
        export(method, tmp_path / 'm', name='m', class_set='camvid11', image_size=(60, 100))


@pytest.mark.parametrize(
    ('name', 'options', 'nearest'),
    [('per-frame', {'backbone': 'lite'}, '640x352'), ('st-memory', {'backbone': 'lite'}, '640x352')],
)
def test_the_nearest_size_that_can_be_used_is_named(name, options, nearest):
    image = torch.zeros(1, 353, 641, 3, dtype=torch.uint8)
    with pytest.raises(ShapeError, match=f'image is 641x353; .* multiples of ., such as {nearest}'):
        build_method(name, 11, options).eval().examples(image)


@pytest.mark.parametrize('name', METHODS)
def test_every_method_refuses_a_decision_that_does_not_exist(name):
    with pytest.raises(SettingsError, match="decision is 'bogus'; use one of full, half, quarter"):
        build_method(name, 11, {'decision': 'bogus'})


@pytest.mark.parametrize('name', METHODS)
def test_a_constructor_refuses_an_option_that_its_method_has_not(name):
    with pytest.raises(ModelError, match=r'has no option decisions; it has \w+, .*temperatures$'):
        method_class(name)(11, decisions='half')


def test_options_that_no_network_can_be_built_with_are_named(monkeypatch):
    monkeypatch.setitem(METHODS, 'own', f'{LosesWidth.__module__}:LosesWidth')
    with pytest.raises(SettingsError, match=r"options {'width': -2} of method 'own' cannot be used: Runtime"):
        build_method('own', 11, {'width': -2})
