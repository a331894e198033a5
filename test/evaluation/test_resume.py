"""What was counted is kept, and taken up again."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest

from vss_ros.core.errors import SettingsError
from vss_ros.core.sources.synthetic import SyntheticSource
from vss_ros.evaluation.deployment import DeploymentProtocol
from vss_ros.evaluation.distance import DistanceProtocol
from vss_ros.evaluation.evaluate import Checkpoint, evaluate
from vss_ros.evaluation.filmstrip import MOST, Filmstrip


class Street:
    def __init__(self, seed):
        self.name = f'street {seed}'
        self._frames = list(SyntheticSource(seed, 4, height=64, width=96))

    def frames(self, before, after=0):
        return iter(enumerate(self._frames))


class PulledPlug:
    """A clip that ends the run."""

    name = 'pulled plug'

    def frames(self, before, after=0):
        raise KeyboardInterrupt


@pytest.fixture(scope='module')
def streets():
    return [Street(seed) for seed in (1, 2, 3)]


@pytest.fixture
def scorers(subjects):
    """Makes protocols as a new process would."""
    classes = subjects[0].model.classes

    def make():
        return [
            DistanceProtocol(subjects[:2], classes, [0, 2], Filmstrip(classes)),
            DeploymentProtocol(subjects[:2], classes, 3, Filmstrip(classes)),
        ]

    return make


def counts(protocols):
    return [arrays for protocol in protocols for arrays in (protocol.arrays(), protocol.film.arrays())]


def test_a_run_that_is_taken_up_again_ends_with_the_same_counts(streets, scorers, tmp_path):
    path = tmp_path / 'progress.npz'
    straight = scorers()
    evaluate(streets, straight)
    with pytest.raises(KeyboardInterrupt):
        evaluate([*streets[:2], PulledPlug()], scorers(), Checkpoint(path, {'a': 1}, False))
    resumed = scorers()
    checkpoint = Checkpoint(path, {'a': 1}, resume=True)
    assert checkpoint.clips_done == 2
    evaluate([PulledPlug(), PulledPlug(), streets[2]], resumed, checkpoint)
    for expected, found in zip(counts(straight), counts(resumed), strict=True):
        assert expected.keys() == found.keys()
        for name, values in expected.items():
            assert np.array_equal(values, found[name]), name


def test_without_resume_a_run_begins_anew(streets, scorers, tmp_path):
    path = tmp_path / 'progress.npz'
    evaluate(streets[:1], scorers(), Checkpoint(path, {}, False))
    assert Checkpoint(path, {}, resume=False).clips_done == 0


def test_counts_of_other_settings_are_refused(streets, scorers, tmp_path):
    path = tmp_path / 'progress.npz'
    evaluate(streets[:1], scorers(), Checkpoint(path, {'interval': 5}, False))
    with pytest.raises(SettingsError, match='other models, data or settings'):
        Checkpoint(path, {'interval': 9}, resume=True)


@pytest.mark.parametrize('damage', [b'', b'not a zip file', 'cut off'])
def test_a_damaged_file_is_refused(streets, scorers, tmp_path, damage):
    path = tmp_path / 'progress.npz'
    evaluate(streets[:1], scorers(), Checkpoint(path, {}, False))
    path.write_bytes(path.read_bytes()[:2000] if damage == 'cut off' else damage)
    with pytest.raises(SettingsError, match='is damaged'):
        Checkpoint(path, {}, resume=True)


@pytest.mark.parametrize(
    'lost',
    ['clips_done', 'film-distance/strip', 'film-distance/0/title', 'distance/tiny/2/frames', 'distance/'],
)
def test_a_file_that_lacks_something_is_refused(streets, scorers, tmp_path, lost):
    path = tmp_path / 'progress.npz'
    evaluate(streets[:1], scorers(), Checkpoint(path, {}, False))
    with np.load(path) as file:
        kept = {name: file[name] for name in file if not name.startswith(lost)}
        assert len(kept) < len(file.files)
    np.savez(path, **kept)
    with pytest.raises(SettingsError, match='is damaged'):
        evaluate(streets[:1], scorers(), Checkpoint(path, {}, resume=True))


@pytest.mark.parametrize(
    ('name', 'value'), [('distance/tiny/2/frames', np.zeros(7)), ('clips_done', -1), ('clips_done', [1, 2])]
)
def test_a_file_with_counts_of_another_kind_is_refused(streets, scorers, tmp_path, name, value):
    path = tmp_path / 'progress.npz'
    evaluate(streets[:1], scorers(), Checkpoint(path, {}, False))
    with np.load(path) as file:
        arrays = {**file, name: np.array(value)}
    np.savez(path, **arrays)
    with pytest.raises(SettingsError, match='is damaged'):
        evaluate(streets[:1], scorers(), Checkpoint(path, {}, resume=True))


def test_a_model_may_have_any_name(streets, subjects, tmp_path):
    path, classes = tmp_path / 'progress.npz', subjects[0].model.classes
    rows = [replace(subjects[2], name=os.fsdecode(b'caf\xe9 /%C3 50%'))]
    protocols = [[DistanceProtocol(rows, classes, [0], None)] for _ in range(2)]
    evaluate(streets[:1], protocols[0], Checkpoint(path, {}, False))
    Checkpoint(path, {}, resume=True).restore(protocols[1])
    expected, found = (protocol.arrays() for [protocol] in protocols)
    assert expected.keys() == found.keys()
    assert all(np.array_equal(values, found[name]) for name, values in expected.items())


def test_a_picture_may_be_of_a_clip_with_any_name(subjects):
    title, classes = os.fsdecode(b'caf\xe9'), subjects[0].model.classes
    (frame,) = SyntheticSource(0, 1, height=64, width=96)
    film, restored = Filmstrip(classes), Filmstrip(classes)
    film.offer(title, frame)
    restored.restore(film.arrays())
    assert [sample.title for sample in restored.samples()] == [title]


def test_what_is_held_does_not_grow_with_the_number_of_frames(subjects):
    film = Filmstrip(subjects[0].model.classes)
    (frame,) = SyntheticSource(0, 1, height=64, width=96)
    sizes = []
    for number in range(200):
        film.offer(f'frame {number}', frame)
        sizes.append(len(film.arrays()))
    assert max(sizes[20:]) <= 1 + 3 * 2 * MOST
    titles = [int(sample.title.split()[1]) for sample in film.samples()]
    assert len(titles) <= MOST
    assert len(set(np.diff(titles))) == 1  # evenly spread
    assert titles[0] == 0
    assert titles[-1] >= 100
