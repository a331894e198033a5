"""The memory of STF+MAR holds what the published selection would take."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vss_ros.core.classes import load_classes
from vss_ros.core.errors import ModelError
from vss_ros.methods.blocks.resize import resize
from vss_ros.methods.st_memory import StMemory
from vss_ros.methods.st_memory_building import ClassSamples, MemoryBuilder, build_memory

CAMVID = load_classes('camvid11')


def select_plainly(scores, hard_size, good_size):
    """The rule as it is written down: lists sorted anew and thresholds moved at every sample."""
    hard, good, hard_threshold, good_threshold = [], [], 1.0, 0.0
    for i, score in enumerate(scores):
        if score < hard_threshold:
            hard.append((score, i))
            hard.sort()
            if len(hard) > hard_size:
                hard.pop()
            hard_threshold = hard[-1][0]
        elif score > good_threshold:
            good.append((score, -i))
            good.sort()
            if len(good) > good_size:
                good.pop(0)
            good_threshold = good[0][0]
    return [i for _, i in hard], [-i for _, i in good]


# Few values, so that there are ties; 1.0 is what a softmax in float32 reaches.
many_scores = st.lists(st.sampled_from([0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 1.0]), max_size=60)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(many_scores, st.integers(1, 5), st.integers(1, 5))
def test_samples_are_taken_by_the_streaming_rule(scores, hard, good):
    samples = ClassSamples(hard, good)
    for i, score in enumerate(scores):
        samples.offer(score, torch.tensor([float(i)]))
    found = [[int(sample.feature) for sample in kept] for kept in (samples.hard, samples.good)]
    assert found == list(select_plainly(scores, hard, good))


def one_cell(class_id, sureness, mark, truth=None):
    """A map of one cell: its feature (1, 1, 1), scores (11, 1, 1) and truth (8, 8)."""
    scores = torch.zeros(11, 1, 1)
    scores[class_id] = sureness
    truth = torch.full((8, 8), class_id if truth is None else truth, dtype=torch.uint8)
    return torch.full((1, 1, 1), float(mark)), scores, truth


def filled(**sizes):
    """Each class was seen four times, surer from time to time."""
    builder = MemoryBuilder(11, keys_per_class=3, **sizes)
    for class_id in range(11):
        for i in range(4):
            builder.add(*one_cell(class_id, 2.0 + i, 10 * class_id + i))
    return builder


@pytest.fixture
def builder():
    return filled()


def test_keys_are_the_hardest_and_prototypes_the_mean_of_the_good(builder):
    keys, prototypes = builder.memory(CAMVID)
    # The first cell starts the list of hard ones; all that follow are surer, so they are good.
    assert keys.shape == (33, 1)
    assert keys.flatten().tolist() == [10.0 * class_id for class_id in range(11) for _ in range(3)]
    assert prototypes.flatten().tolist() == [10.0 * class_id + 2 for class_id in range(11)]


def test_a_prototype_is_the_mean_of_as_many_of_the_best_as_are_asked_for():
    _, prototypes = filled(good_per_class=2).memory(CAMVID)
    assert prototypes.flatten().tolist() == [10.0 * class_id + 2.5 for class_id in range(11)]


@pytest.mark.parametrize('truth', [4, 255])
def test_cells_that_are_wrong_or_unlabelled_are_not_remembered(builder, truth):
    before = builder.memory(CAMVID)
    builder.add(*one_cell(3, 0.1, 99, truth))
    assert all(torch.equal(one, other) for one, other in zip(builder.memory(CAMVID), before, strict=True))


def test_a_class_that_was_never_recognised_is_named():
    builder = MemoryBuilder(11, keys_per_class=3)
    with pytest.raises(ModelError, match=r'too few cells of sky, building, pole, .* train longer'):
        builder.memory(CAMVID)


def test_a_trained_method_fills_its_own_memory():
    torch.manual_seed(0)
    method = StMemory(3, backbone='lite', grid=(8, 12), keys_per_class=2).eval()
    images = torch.randint(0, 256, (3, 64, 96, 3), dtype=torch.uint8)
    with torch.no_grad():
        by_age = method.features(images)['features'].split(1)[::-1]
        fused = method.fuse(*by_age)
        method.pspnet.scores.bias -= method.classify(fused, *by_age).mean((0, 2, 3))
        scores = resize(method.classify(fused, *by_age), (8, 12))
    truth = scores.argmax(1)[0].repeat_interleave(8, 0).repeat_interleave(8, 1).to(torch.uint8)
    build_memory(method, [(images, truth)], load_classes('cityscapes19'))

    cells = fused[0].flatten(1).T
    labels, sureness = truth[::8, ::8].flatten(), scores.softmax(1).amax(1).flatten()
    for class_id in range(3):
        hardest = sureness[labels == class_id].argsort()[:2]
        expected = cells[labels == class_id][hardest]
        torch.testing.assert_close(method.MAR.memory_key[0, 2 * class_id : 2 * class_id + 2], expected)
        rows = method.MAR.memory_value[0, 2 * class_id : 2 * class_id + 2]
        assert torch.equal(rows[0], rows[1])
        assert rows[0].abs().max() > 0


def test_a_method_without_memory_cannot_be_filled():
    method = StMemory(3, backbone='lite', grid=(8, 12), refinement='none')
    with pytest.raises(ModelError, match='no memory to fill; build it with refinement memory'):
        build_memory(method, [], CAMVID)
