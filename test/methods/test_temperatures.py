"""Temperatures of the confidence: what they change, what they leave alone, and the age they go by."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from method_models import run_step

from vss_ros.core.engines import load_engine
from vss_ros.core.errors import SettingsError
from vss_ros.core.frame import Frame
from vss_ros.core.settings import EngineSettings, StreamSettings
from vss_ros.core.stream.segmenter import VideoSegmenter
from vss_ros.exporting.verify import example_frames
from vss_ros.methods import build_method
from vss_ros.methods.blocks.decide import decide

CLASSES = 5
TEMPERATURES = [1.5, 0.8, 2.0]
LITE = {'backbone': 'lite', 'flow': 'dis'}
PROPAGATING = {
    'evss-lite': ('evss-lite', {}),
    'evss-lite composed': ('evss-lite', {'carry': 'composed'}),
    'davss': ('davss', {**LITE, 'fusion': 'quarter'}),
    'twnet': ('twnet', {'encoder': 'lite', 'layer': 1}),
    'twnet layer 3': ('twnet', {'encoder': 'lite', 'layer': 3}),
    'dff': ('dff', {**LITE, 'scale_field': False}),
    'dff with a scale field': ('dff', {'backbone': 'lite'}),
    'accel': ('accel', LITE),
    'dvsnet': ('dvsnet', LITE),
}
IN_FULL = {
    'per-frame': {'backbone': 'lite'},
    'st-memory': {'backbone': 'lite', 'grid': (8, 12)},
}


def built(name, options, temperatures):
    torch.manual_seed(0)
    return build_method(name, CLASSES, {**options, 'temperatures': temperatures}).eval()


def run(method, images):
    """A key frame and propagated frames; gives (scores that were decided, tensors of the step) of each."""
    found, seen, decided = [], [], method.decided

    def keep(scores, size, age=None):
        seen.append((scores, size))
        return decided(scores, size, age)

    method.decided = keep
    state: dict[str, torch.Tensor] = {}
    for number, image in enumerate(images):
        tensors = {'image': torch.from_numpy(image[None]), **state}
        tensors |= method.host_tensors(tensors['image']) | {'age': torch.full((1, 1, 1, 1), float(number))}
        with torch.no_grad():
            tensors = run_step(method, 'propagated' if number else 'key', tensors)
        state = method.state_of(tensors)
        found.append((*seen[-1], tensors))
    return found


@pytest.fixture(scope='module')
def images():
    return example_frames((64, 96), 5)


@pytest.mark.parametrize('variant', PROPAGATING)
def test_every_age_has_its_temperature_and_the_last_serves_all_later_ones(variant, images):
    name, options = PROPAGATING[variant]
    found = run(built(name, options, TEMPERATURES), images)
    plain = run(built(name, options, ()), images)
    for (scores, size, tensors), (_, _, others), temperature in zip(
        found, plain, [1.5, 0.8, 2.0, 2.0, 2.0], strict=True
    ):
        assert torch.equal(tensors['mask'], others['mask'])
        part = size[0] // tensors['mask'].shape[1]
        align = options.get('align_corners', name == 'davss')
        expected = decide(scores / temperature, size, {1: 'full', 2: 'half', 4: 'quarter'}[part], align)
        difference = expected['confidence'].int() - tensors['confidence'].int()
        assert difference.abs().max() <= 1
    assert not torch.equal(found[0][2]['confidence'], plain[0][2]['confidence'])


@pytest.mark.parametrize('name', IN_FULL)
def test_a_method_that_computes_all_in_full_takes_one_temperature(name, images):
    with pytest.raises(SettingsError, match='3 temperatures were given, but this method computes every'):
        built(name, IN_FULL[name], TEMPERATURES)
    hot, plain = (built(name, IN_FULL[name], temperatures) for temperatures in ([9.0], ()))
    assert hot.state == plain.state
    hot, plain = (run(method, images[:1])[0][2] for method in (hot, plain))
    assert torch.equal(hot['mask'], plain['mask'])
    assert hot['confidence'].float().mean() < plain['confidence'].float().mean()


@pytest.mark.parametrize(
    'temperatures', [1.3, ['1.3'], [0], [-1.0], [float('nan')], [float('inf')], [True], {1.3: 1}]
)
def test_temperatures_that_cannot_be_used_are_refused_with_an_example(temperatures):
    with pytest.raises(SettingsError, match=r'use a list of numbers above 0.* such as \[1.3, 1.2\]'):
        built('evss-lite', {}, temperatures)


def test_several_frames_in_a_batch_may_have_several_ages():
    method = built('evss-lite', {}, TEMPERATURES)
    scores = torch.randn(3, CLASSES, 8, 8)
    ages = torch.tensor([1.0, 2.0, 1.0]).view(3, 1, 1, 1)
    found = method.decided(scores, (32, 32), ages)
    for index, temperature in enumerate([0.8, 2.0, 0.8]):
        alone = decide(scores[index : index + 1], (32, 32), 'half', temperature=torch.tensor(temperature))
        assert torch.equal(found['confidence'][index], alone['confidence'][0])


@pytest.mark.parametrize('temperatures', [(), (1.3,), TEMPERATURES])
def test_only_graphs_that_tell_ages_apart_take_the_age(temperatures):
    method = built('evss-lite', {}, temperatures)
    takes = {graph for graph in method.graphs if 'age' in method.inputs_of(graph)}
    assert takes == ({'correction'} if len(temperatures) > 1 else set())


@pytest.fixture(scope='module')
def models(shared_model):
    """The same weights without temperatures and with them."""

    def build(temperatures):
        torch.manual_seed(0)
        return build_method('evss-lite', 11, {'temperatures': temperatures})

    return [
        shared_model(name, lambda temperatures=temperatures: build(temperatures))
        for name, temperatures in (('plain', ()), ('with temperatures', TEMPERATURES))
    ]


def confidences(model, images, name='onnxruntime', **settings):
    """The stream's (mask, confidence) of each image."""
    engine = load_engine(model, EngineSettings(name, threads=1))
    segmenter = VideoSegmenter(model, engine, StreamSettings(4, output_size='network', **settings))
    found = [segmenter.step(Frame(image, n * 10**8)) for n, image in enumerate(images)]
    segmenter.close()
    return [(one.mask, one.confidence) for one in found]


def test_what_a_model_without_temperatures_is_exported_as_has_none_of_this(models):
    plain, calibrated = models
    assert 'age' not in plain.graphs['correction'].inputs
    assert 'temperatures' not in plain.options
    assert calibrated.options['temperatures'] == TEMPERATURES
    assert calibrated.graphs['correction'].inputs['age'].shape == (1, 1, 1, 1)
    nodes = [len(onnx.load(str(model.graphs['correction'].file)).graph.node) for model in models]
    assert 0 < nodes[1] - nodes[0] < 15


@pytest.mark.parametrize('engine', ['onnxruntime', 'openvino', 'torch'])
def test_engines_agree_on_the_confidence_and_the_mask_is_that_without_temperatures(models, images, engine):
    if engine == 'openvino':
        pytest.importorskip('openvino')
    plain, calibrated = (confidences(model, images * 2, engine) for model in models)
    reference = confidences(models[1], images * 2)
    for (mask, _), (same, sure), (_, expected) in zip(plain, calibrated, reference, strict=True):
        assert (mask != same).mean() < 1e-3
        assert (np.abs(sure.astype(int) - expected.astype(int)) > 1).mean() < 1e-2


class AgesSeen:
    """A real engine that notes the age that each graph is given, by its name."""

    def __init__(self, engine):
        self.engine, self.ages = engine, []

    def __getattr__(self, name):
        return getattr(self.engine, name)

    def run(self, graph, tensors):
        if 'age' in tensors and graph == 'correction':
            self.ages.append(tensors['age'].item())
        return self.engine.run(graph, tensors)


@pytest.mark.parametrize('late', [{}, {'background_key_frames': True, 'background_delay_frames': 2}])
def test_graphs_are_told_the_age_that_the_answer_speaks_of(models, images, late):
    """Where a key frame takes effect late as well."""
    engine = AgesSeen(load_engine(models[1], EngineSettings('onnxruntime', threads=1)))
    segmenter = VideoSegmenter(models[1], engine, StreamSettings(4, correction_interval=1, **late))
    found = [segmenter.step(Frame(images[number % 5], number * 10**8)) for number in range(12)]
    segmenter.close()
    assert engine.ages == [one.age_frames for one in found if one.kind == 'propagated']
    assert len(set(engine.ages)) > 1
