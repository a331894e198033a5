"""Models made of a model: which there are, and what they carry from frame to frame."""

from __future__ import annotations

from dataclasses import replace

from vss_ros.core.model.accuracy_model import EXPECTED_ACCURACY
from vss_ros.core.model.files import TensorSpec
from vss_ros.evaluation.variants import carried_by_warp, without_correction


def test_a_model_that_does_not_propagate_has_no_row_of_warping(subjects):
    assert without_correction(subjects[2].model) is None


def with_warp(model, inputs, outputs, state):
    """The tiny model with other tensors around its warp."""
    warp = replace(model.graphs['warp'], inputs=dict.fromkeys(inputs), outputs=outputs)
    return replace(model, graphs={**model.graphs, 'warp': warp}, state=state)


def test_everything_a_warp_takes_is_carried_as_that_warp_gave_it(subjects):
    scores, colours = TensorSpec('float32', (1, 11, 16, 24)), TensorSpec('float32', (1, 3, 16, 24))
    state = {'image': 'previous_image', 'scores': 'previous_scores', 'look': 'previous_look'}
    taken = ['previous_scores', 'previous_look', 'flow']
    model = with_warp(subjects[0].model, taken, {'warped': scores, 'warped_look': colours}, state)
    assert carried_by_warp(without_correction(model)) == {'scores': 'warped', 'look': 'warped_look'}
    model = with_warp(subjects[0].model, taken, {'warped': scores}, state)
    assert without_correction(model) is None


def test_a_warp_of_features_is_no_warp_of_scores(subjects):
    features = {'warped': TensorSpec('float32', (1, 64, 16, 24))}
    state = {'scores': 'previous_scores'}
    model = with_warp(subjects[0].model, ['previous_scores', 'flow'], features, state)
    assert without_correction(model) is None


def test_a_step_without_a_look_at_the_image_corrects_nothing(subjects):
    assert [subject.corrects for subject in subjects] == [True, False, False]
    subject, model = subjects[0], subjects[0].model
    look = model.graphs['correction']
    for inputs, outputs, corrects in (
        ({'warped': None}, look.outputs, False),  # as DFF decides
        ({'image': None}, {EXPECTED_ACCURACY: None}, False),  # as DVSNet looks whether to go on
        ({'image': None}, {'scores': None}, True),
    ):
        graph = replace(look, inputs=inputs, outputs=outputs)
        other = replace(model, graphs={**model.graphs, 'correction': graph})
        assert replace(subject, model=other).corrects == corrects
