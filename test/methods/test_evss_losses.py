"""The losses of EVSS agree with the released program, and stay finite where it does not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from release_evss import evss_losses, predict, pseudo_labels

from vss_ros.methods.evss_losses import Prediction, edge_label

SETS = {'citys': (19, (5, 11, 12)), 'camvid': (11, (2, 9, 10))}
LIMITS = {'eval': (1e-3, 1e-2), 'train': (5e-3, 5e-2)}  # losses, gradients; batch of two


def rgb(arrays, name):
    return torch.from_numpy(arrays[name]).permute(0, 3, 1, 2).float() / 255


@pytest.fixture(scope='module')
def losses_of(filled_evss, reference_arrays):
    """Runs one training step's forward and backward pass: losses_of('citys', 'train')."""
    arrays = reference_arrays('evss_loss.npz')
    done = {}

    def run(dataset, mode):
        if (dataset, mode) not in done:
            evss = filled_evss(SETS[dataset][0])
            evss.flownet.train(mode == 'train')
            evss.conet.train(mode == 'train')
            key, current = rgb(arrays, f'{dataset}__key'), rgb(arrays, f'{dataset}__cur')
            edges = torch.from_numpy(arrays[f'{dataset}__edge_label']).long()
            prediction = predict(evss, key, current)
            losses = evss_losses(prediction, pseudo_labels(evss, current), edges)
            losses['total'].backward()
            done[dataset, mode] = evss, losses
        return *done[dataset, mode], arrays

    return run


@pytest.mark.parametrize('mode', LIMITS)
@pytest.mark.parametrize('dataset', SETS)
def test_losses_agree_with_the_release(losses_of, dataset, mode):
    _, losses, arrays = losses_of(dataset, mode)
    assert list(losses) == ['warp', 'semantic', 'edge', 'edge_semantics', 'total']
    found = [loss.item() for loss in losses.values()]
    assert found == pytest.approx(arrays[f'{dataset}__{mode}_losses'], abs=LIMITS[mode][0])


@pytest.mark.parametrize('mode', LIMITS)
@pytest.mark.parametrize('dataset', SETS)
def test_gradients_agree_with_the_release(losses_of, dataset, mode):
    evss, _, arrays = losses_of(dataset, mode)
    parameters = dict(evss.named_parameters())
    names = [str(name) for name in arrays['grad_names']]
    norms = [float(parameters[name].grad.norm()) for name in names]
    limit = LIMITS[mode][1]
    np.testing.assert_allclose(norms, arrays[f'{dataset}__{mode}_grad_norm'], limit, 1e-6)
    prefix = f'{dataset}__{mode}_grad__'
    whole = [name.removeprefix(prefix) for name in arrays if name.startswith(prefix)]
    assert len(whole) == 4
    for name in whole:
        found, expected = parameters[name].grad.numpy(), arrays[prefix + name]
        np.testing.assert_allclose(found, expected, 0, limit * np.abs(expected).max())


@pytest.mark.parametrize('dataset', SETS)
def test_only_the_flow_network_and_conet_learn(losses_of, dataset):
    evss, _, arrays = losses_of(dataset, 'eval')
    learning = {name for name, value in evss.named_parameters() if value.grad is not None}
    assert learning == {str(name) for name in arrays['grad_names']}
    assert not any(name.startswith('csrnet') for name in learning)


@pytest.mark.parametrize('dataset', SETS)
def test_running_statistics_after_a_training_step_agree_with_the_release(losses_of, dataset):
    evss, _, arrays = losses_of(dataset, 'train')
    norm = evss.conet.conv1[1]
    prefix = f'{dataset}__train_after__conet.conv1.1.'
    for name in ('running_mean', 'running_var'):
        np.testing.assert_allclose(getattr(norm, name), arrays[prefix + name], atol=1e-5)


@pytest.mark.parametrize('dataset', SETS)
def test_edge_labels_equal_those_of_the_release(reference_arrays, dataset):
    arrays = reference_arrays('evss_loss.npz')
    for labels, expected in zip(arrays[f'{dataset}__label'], arrays[f'{dataset}__edge_label'], strict=True):
        found = edge_label(labels, SETS[dataset][1])
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, expected)


def test_edge_label_by_hand():
    labels = np.array([[1, 1, 3], [1, 3, 3], [255, 3, 9]], np.uint8)
    expected = [[1, 1, 0], [1, 1, 0], [0, 1, 1]]
    np.testing.assert_array_equal(edge_label(labels, thin_classes=()), expected)


def test_edge_label_takes_every_pixel_of_a_thin_class_and_none_beside_unknown_ones():
    labels = np.array([[1, 255, 3, 3], [1, 255, 3, 3], [1, 255, 3, 3]], np.uint8)
    assert not edge_label(labels, thin_classes=()).any()
    np.testing.assert_array_equal(edge_label(labels, thin_classes=(3,)), labels == 3)


def random_prediction(edge_bias):
    torch.manual_seed(0)
    scores = torch.randn(3, 2, 5, 8, 12, requires_grad=True)
    edge = torch.randn(2, 2, 8, 12) + torch.tensor([0, edge_bias]).view(1, 2, 1, 1)
    return scores, Prediction(scores[0], scores[1], edge.requires_grad_(), scores[2])


@pytest.mark.parametrize('edge_bias', [-100.0, 100.0])
@pytest.mark.parametrize('target', [0, 3, 255])
@pytest.mark.parametrize('edge', [0, 1])
def test_losses_are_finite_where_nothing_qualifies(edge_bias, target, edge):
    scores, prediction = random_prediction(edge_bias)
    shape = (2, 8, 12)
    losses = evss_losses(prediction, torch.full(shape, target), torch.full(shape, edge))
    losses['total'].backward()
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert torch.isfinite(scores.grad).all()
    assert torch.isfinite(prediction.edge.grad).all()
    if edge_bias < 0 or target in (0, 255):
        assert losses['edge_semantics'] == 0
    assert losses['edge'] == 0


def test_pixels_that_the_release_numbers_as_no_class_of_camvid_do_not_count():
    _, prediction = random_prediction(0.0)
    targets = torch.randint(0, 5, (2, 8, 12))
    void = torch.rand(2, 8, 12) < 0.3
    edges = targets.clamp(max=1)
    losses = [evss_losses(prediction, targets.masked_fill(void, unknown), edges) for unknown in (5, 11, 255)]
    for other in losses[:2]:
        assert {name: loss.item() for name, loss in other.items()} == pytest.approx(
            {name: loss.item() for name, loss in losses[2].items()}
        )


def test_edge_semantics_looks_only_at_predicted_edges_that_are_not_class_0():
    scores, prediction = random_prediction(0.0)
    targets = torch.randint(0, 5, (2, 8, 12))
    loss = evss_losses(prediction, targets, targets.clamp(max=1))['edge_semantics']
    (gradient,) = torch.autograd.grad(loss, scores)
    counted = (prediction.edge[:, 1] > prediction.edge[:, 0]) & (targets != 0)
    assert torch.equal(gradient[1].abs().sum(1) > 0, counted)
    assert not gradient[0].any()


def test_warp_loss_reaches_the_flow_network(filled_evss, reference_arrays):
    evss = filled_evss(11)
    arrays = reference_arrays('evss_loss.npz')
    key, current = rgb(arrays, 'camvid__key')[:1], rgb(arrays, 'camvid__cur')[:1]
    prediction = predict(evss, key, current)
    prediction.warped.sum().backward()
    assert evss.flownet.predict_flow2.weight.grad.abs().sum() > 0
    assert evss.conet.predict_cc.weight.grad is None


def test_a_given_flow_replaces_the_flow_network(filled_evss, reference_arrays):
    evss = filled_evss(11)
    image = rgb(reference_arrays('evss_loss.npz'), 'camvid__key')[:1]
    with torch.no_grad():
        still = predict(evss, image, image, torch.zeros(1, 2, 24, 32))
        assert torch.equal(still.warped.argmax(1), pseudo_labels(evss, image))
