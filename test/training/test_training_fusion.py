"""STF learns behind a frozen network, the memory fills, MAR learns on it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from method_models import run_step
from torch.nn import functional

from vss_ros.core.classes import load_classes
from vss_ros.core.errors import ModelError, SettingsError
from vss_ros.core.synthetic import StreetClip
from vss_ros.methods import build_method
from vss_ros.methods.blocks.resize import resize
from vss_ros.training.clip_sources import ClipLibrary
from vss_ros.training.clips import Clip
from vss_ros.training.loop import FitSettings, fit
from vss_ros.training.recipe import StageRecipe, load_recipe, parse_recipe
from vss_ros.training.stages import fusion
from vss_ros.training.stages.fusion import (
    FusionSettings,
    FusionStage,
    RefinementSettings,
    RefinementStage,
    labelled,
)
from vss_ros.training.start import start_from
from vss_ros.training.trainer import Trainer

HEIGHT, WIDTH, CLASSES = 64, 96, 11
FIT = {'learning_rate': 3e-3, 'warmup_steps': 2, 'averaging': 0.5, 'precision': 'fp32'}


@pytest.fixture(scope='module')
def street():
    frames = list(StreetClip(3, 6, HEIGHT, WIDTH))
    return Clip(np.stack([f.image for f in frames]), np.stack([f.mask for f in frames]))


def lite(**options):
    """STF+MAR on the trained segmenter."""
    torch.manual_seed(0)
    options = {'backbone': 'lite', 'grid': (8, 12), 'keys_per_class': 2, **options}
    method = build_method('st-memory', CLASSES, options)
    start_from(method, {'pspnet': 'camvid-evss-lite/csrnet'})
    return method


def fusion_stage(method, clips, kind=FusionStage, **settings):
    small = kind.settings_class(**{'batch': 2, 'frames': 4, **settings})
    library = ClipLibrary(clips, HEIGHT, WIDTH)
    return kind(method, [(library, 1.0)], clips[:1], np.full(CLASSES, 1 / CLASSES), small)


def train(stage, folder, steps):
    """Losses of the first and the last quarter of a short training."""
    losses = []

    def keep(step, values):
        if 'loss' in values:
            losses.append(values['loss'])

    fit(stage, FitSettings(steps, **FIT), folder, torch.device('cpu'), report=keep)
    return np.mean(losses[: steps // 4]), np.mean(losses[-(steps // 4) :])


def changed(method, before):
    """Names of the weights that are others than before, but for the counters of norms."""
    return {name for name, value in method.state_dict().items() if not torch.equal(value, before[name])}


def copied(method):
    return {name: value.clone() for name, value in method.state_dict().items()}


CLASSIFIER = ('pspnet.skip_4.', 'pspnet.decoder_4.', 'pspnet.scores.')


def test_stf_and_the_classifier_learn_and_nothing_else(street, tmp_path):
    method = lite()
    before = copied(method)
    stage = fusion_stage(method, [street])
    score = stage.validate(stage.module)['miou']
    first, last = train(stage, tmp_path, 16)
    assert last < first
    assert stage.validate(stage.module)['miou'] > score
    names = changed(method, before)
    assert {name.split('.')[0] for name in names} == {'STF', 'pspnet'}
    assert all(name.startswith(('STF.', *CLASSIFIER)) for name in names)


@pytest.mark.parametrize('frames', ['published', 'causal', 'centred'])
def test_clips_run_like_the_graphs_of_the_method(street, frames):
    method = lite(frames=frames, refinement='none')
    stage = fusion_stage(method, [street])
    method.eval()
    images = torch.from_numpy(street.images)
    with torch.no_grad():
        found = stage.scores(images[None])
        tensors = run_step(method, 'key', {'image': images[:1]})
        for number in range(1, len(images)):
            tensors = run_step(
                method, 'propagated', {'image': images[number, None], **method.state_of(tensors)}
            )
            if number >= 2:
                torch.testing.assert_close(found[number - 2 : number - 1], tensors['scores'])


@pytest.mark.parametrize(('frames', 'place'), [('published', 2), ('causal', 3)])
def test_the_loss_is_taken_on_the_frame_that_the_method_labels(street, frames, place):
    labels = np.full((4, HEIGHT, WIDTH), 255, np.uint8)
    labels[place] = street.labels[place]
    stage = fusion_stage(lite(frames=frames), [Clip(street.images[:4], labels)])
    batch = {name: torch.from_numpy(array) for name, array in stage.batch(0).items()}
    assert stage.losses(batch)['cross_entropy'] > 0
    labels[place], labels[0] = 255, street.labels[0]
    with pytest.raises(SettingsError, match=f'with frames: {frames} the frame {3 - place} before the last'):
        stage.batch(0)


def test_the_loss_is_taken_at_full_size_if_that_is_asked_for(street):
    stage = fusion_stage(lite(), [street], full_size=True)
    batch = {name: torch.from_numpy(array) for name, array in stage.batch(0).items()}
    stage.module.eval()
    with torch.no_grad():
        scores = resize(stage.scores(batch['images']), (HEIGHT, WIDTH))
        labels = labelled(stage.method, batch['labels']).flatten(0, 1).long()
        expected = functional.cross_entropy(scores, labels, ignore_index=255)
        assert stage.losses(batch)['cross_entropy'].item() == pytest.approx(expected.item(), rel=1e-4)


def test_a_new_classifier_knows_nothing(street):
    method = lite()
    before = copied(method)
    fusion_stage(method, [street], new_classifier=True)
    names = changed(method, before)
    assert 'pspnet.scores.weight' in names
    assert all(name.startswith(CLASSIFIER) for name in names)


def test_mar_learns_from_a_full_memory_that_stays_as_it_is(street, tmp_path):
    method = lite()
    method.MAR.remember(torch.randn(2 * CLASSES, 64), torch.randn(CLASSES, 64))
    before = copied(method)
    first, last = train(fusion_stage(method, [street], RefinementStage), tmp_path, 16)
    assert last < first
    names = changed(method, before)
    assert all(name.startswith(('MAR.HEdecoder.', *CLASSIFIER)) for name in names)
    assert any(name.startswith('MAR.HEdecoder.') for name in names)


class Same:
    """Data of one clip, which is given as it is, or mirrored."""

    def __init__(self, clip):
        self.class_set, self.classes, self.seed = load_classes('camvid11'), CLASSES, 0
        self.frequencies = np.full(CLASSES, 1 / CLASSES)
        self._clip = clip

    def clips(self, shares, recoloured=True, following=0, mirrored=True):
        return [(Same(mirror(self._clip) if mirrored else self._clip), 1.0)]

    def check_labelled(self, shares):
        """This clip is."""

    def clips_aside(self, frames, following=0):
        return []

    def clip(self, rng, frames, backwards=False):
        return Clip(self._clip.images[:frames], self._clip.labels[:frames])


def mirror(clip):
    return Clip(*(np.ascontiguousarray(frames[:, :, ::-1]) for frames in (clip.images, clip.labels)))


def refinement(clip, method):
    """The stage as a recipe makes it."""
    recipe = StageRecipe('refinement', FitSettings(1), RefinementSettings(memory_clips=2), {'streets': 1})
    return RefinementStage.create(method, Same(clip), recipe)


def seen_right(method, images):
    """A clip of three frames that the method sees every class in, and labels right."""
    method.eval()
    with torch.no_grad():
        by_age = method.features(torch.from_numpy(images))['features'].split(1)[::-1]
        fused = method.fuse(*by_age)
        scores = method.classify(fused, *by_age)
        last, scale = method.pspnet.scores, 1 / scores.std((0, 2, 3))
        last.weight *= scale.view(-1, 1, 1, 1)
        last.bias.sub_(scores.mean((0, 2, 3))).mul_(scale)
        labels = resize(method.classify(fused, *by_age), (HEIGHT // 8, WIDTH // 8)).argmax(1)[0]
    labels = labels.byte().numpy().repeat(8, 0).repeat(8, 1)
    return Clip(images, np.stack([labels] * 3))


def test_the_memory_is_filled_before_mar_is_trained(street):
    for first in range(len(street.images) - 2):  # which frames show it all classes depends on the weights
        method = lite()
        clip = seen_right(method, street.images[first : first + 3])
        if len(np.unique(clip.labels)) == CLASSES:
            break
    else:
        pytest.fail('there are no three frames in which the method sees every class')
    stage = refinement(clip, method)
    assert method.MAR.memory_key.abs().amax(2).min() > 0
    rows = method.MAR.memory_value[0].unflatten(0, (CLASSES, 2))
    assert torch.equal(rows[:, 0], rows[:, 1])
    assert set(stage.module) == {'MAR', 'classifier'}


def test_the_memory_is_filled_from_clips_that_are_not_mirrored(street, monkeypatch):
    seen = []
    monkeypatch.setattr(fusion, 'build_memory', lambda _, clips, *__: seen.extend(clips))
    refinement(street, lite())
    assert len(seen) == 2
    assert all(torch.equal(images, torch.from_numpy(street.images[:3])) for images, _ in seen)


def test_a_class_that_was_never_seen_is_named(street):
    labels = np.minimum(street.labels, 3)
    with pytest.raises(ModelError, match=r'too few cells of .*bicyclist.* were recognised'):
        refinement(Clip(street.images, labels), lite())


def test_a_method_without_a_memory_is_not_refined(street):
    with pytest.raises(SettingsError, match='no memory to train on'):
        refinement(street, lite(refinement='none'))


def test_frames_alone_are_refined_but_not_fused(street, tmp_path):
    method = lite(frames='alone')
    method.MAR.remember(torch.randn(2 * CLASSES, 64), torch.randn(CLASSES, 64))
    before = copied(method)
    first, last = train(fusion_stage(method, [street], RefinementStage), tmp_path, 16)
    assert last < first
    assert {name.split('.')[0] for name in changed(method, before)} == {'MAR', 'pspnet'}
    recipe = StageRecipe('fusion', FitSettings(1), FusionSettings(), {'streets': 1})
    with pytest.raises(SettingsError, match='no STF to train with frames: alone; leave out the stage fusion'):
        FusionStage.create(method, Same(street), recipe)


def test_samples_that_are_too_few_for_batch_norm_are_refused():
    with pytest.raises(SettingsError, match='batch norm needs 2 samples or more of 3 frames'):
        FusionSettings(batch=1, frames=3)
    with pytest.raises(SettingsError, match='frames is 2; use 3 or more'):
        FusionSettings(frames=2)


def test_a_prototype_of_no_features_is_refused():
    with pytest.raises(SettingsError, match='good_per_class is 0; use 1 or more'):
        RefinementSettings(good_per_class=0)


@pytest.mark.parametrize('name', ['st-memory', 'st-memory-lite'])
def test_the_recipes_are_read(name):
    recipe = load_recipe(name)
    assert [stage.name for stage in recipe.stages][-2:] == ['fusion', 'refinement']
    assert build_method_on_meta(recipe).delay_frames == 1


def build_method_on_meta(recipe):
    with torch.device('meta'):
        return build_method(recipe.method, CLASSES, dict(recipe.options))


def test_other_methods_have_nothing_to_fuse(tmp_path):
    stage = {'fit': {'steps': 1}, 'shares': {'streets': 1}}
    recipe = parse_recipe(
        'a',
        {
            'method': 'evss-lite',
            'classes': 'camvid11',
            'image': {'height': HEIGHT, 'width': WIDTH},
            'stages': {'fusion': stage},
        },
    )
    with pytest.raises(SettingsError, match='the stage fusion trains StMemory, not evss-lite'):
        Trainer(recipe, {}, tmp_path).run(torch.device('cpu'), False, lambda *_: None)
