"""Flow is learnt from videos whose flow nobody knows, by what their images say of it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
import yaml

from vss_ros.core.errors import SettingsError
from vss_ros.methods import build_method
from vss_ros.methods.blocks.flownet import FlowNet
from vss_ros.methods.blocks.image import to_rgb
from vss_ros.training.clip_sources import ClipLibrary
from vss_ros.training.clips import Clip
from vss_ros.training.gather import Gathered
from vss_ros.training.loop import FitSettings, fit
from vss_ros.training.photometric import bending, in_cells, photometric_difference, visible
from vss_ros.training.recipe import load_recipe, parse_recipe
from vss_ros.training.stages.flow import FlowSettings, FlowStage
from vss_ros.training.streets import draw_street
from vss_ros.training.trainer import Trainer

CPU = torch.device('cpu')
HEIGHT, WIDTH = 64, 96
TERMS = ['end_point_error', 'photometric', 'smoothness']


@pytest.fixture(scope='module')
def street():
    """Current and previous image, RGB in cells, and the exact flow, from a drawn street."""
    clip = draw_street(3, 1, 2, 128, 192)
    previous, current = in_cells(to_rgb(torch.from_numpy(clip.images))).split(1)
    return current, previous, torch.from_numpy(clip.flows)


def texture(seed=0, height=HEIGHT, width=WIDTH):
    """Soft random spots, uint8 (H, W, 3)."""
    noise = np.random.default_rng(seed).uniform(0, 255, (height, width, 3)).astype(np.float32)
    spots = cv2.GaussianBlur(noise, (0, 0), 6)
    return (255 * (spots - spots.min()) / (spots.max() - spots.min())).astype(np.uint8)


def moving(right, down, frames=6):
    """A view of `texture` that moves by whole cells a frame: then its flow is (right, down) everywhere."""
    wide = texture(0, HEIGHT + 80, WIDTH + 80)
    places = [(40 + 4 * down * t, 40 + 4 * right * t) for t in range(frames)]
    images = np.stack([wide[top : top + HEIGHT, left : left + WIDTH] for top, left in places])
    return Clip(images, np.full(images.shape[:3], 255, np.uint8))


def video(clip, **how):
    return ClipLibrary([clip], HEIGHT, WIDTH, recoloured=False, **how), 1.0


def video_stage(seed=0, batch=4, **how):
    torch.manual_seed(0)
    settings = FlowSettings(batch=batch)
    return FlowStage(FlowNet(), [], [], 0.0, settings, seed, [video(moving(1, 0), **how)])


def tensors(batch):
    return {name: torch.from_numpy(array) for name, array in batch.items()}


def everywhere(flow):
    return torch.ones_like(flow[:, :1], dtype=torch.bool)


def test_the_true_flow_of_a_street_differs_less_than_none_and_than_a_wrong_one(street):
    current, previous, flow = street
    assert flow.square().sum(1).sqrt().mean() > 0.5

    def difference(guess):
        return photometric_difference(current, previous, guess, everywhere(flow)).item()

    generator = torch.Generator().manual_seed(0)
    wrong = [flow + shift for shift in (0.5, -0.5)]
    wrong += [flow + torch.randn(flow.shape, generator=generator) for _ in range(3)]
    true = difference(flow)
    assert true < 0.9 * difference(torch.zeros_like(flow))
    assert all(true < 0.95 * difference(guess) for guess in wrong)


def test_the_difference_is_the_one_worked_out_by_hand():
    # Of two rows of two cells each sees the three others. Only the last is brighter, by 0.9 grey levels, in
    # one image: 6 of the 16 comparisons (4 are of a cell with itself) are of 1/sqrt(2) with 0.
    image, other = torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 2)
    image[..., 1, 1] = 0.9 / 255
    flow = torch.zeros(1, 2, 2, 2)
    difference = photometric_difference(image, other, flow, everywhere(flow))
    assert difference.item() == pytest.approx(6 / 16 * 0.5 / 0.6, rel=1e-4)


@pytest.mark.parametrize(('gain', 'offset'), [(1.0, 0.2), (0.7, 0.0), (1.4, -0.1)])
def test_another_light_hardly_counts(street, gain, offset):
    current, _, flow = street
    lit = gain * current + offset

    def difference(one, other):
        return photometric_difference(one, other, torch.zeros_like(flow), everywhere(flow)).item()

    shifted = current.roll(1, 3)
    assert difference(lit, current) < 0.1 * difference(shifted, current)
    assert (lit - current).abs().mean() > (shifted - current).abs().mean()
    if gain == 1:
        assert difference(lit, current) < 1e-4


def test_what_is_not_seen_in_both_images_does_not_count(street):
    current, previous, flow = street
    seen = everywhere(flow)
    seen[..., 8:20, 10:30] = False
    flow = flow.clone().requires_grad_()
    expected = photometric_difference(current, previous, flow, seen)
    expected.sum().backward()
    assert (flow.grad[~seen.expand_as(flow)] == 0).all()
    assert flow.grad.abs().sum() > 0
    changed = current.where(seen, torch.rand_like(current))
    with torch.no_grad():
        assert photometric_difference(changed, previous, flow, seen).item() == pytest.approx(expected.item())
        assert (
            photometric_difference(changed, previous, flow, everywhere(flow)).item() > 1.1 * expected.item()
        )


def test_where_nothing_is_seen_the_loss_is_zero_and_so_is_its_gradient(street):
    current, previous, flow = street
    flow = flow.clone().requires_grad_()
    difference = photometric_difference(current, previous, flow, ~everywhere(flow))
    difference.sum().backward()
    assert difference.tolist() == [0.0]
    assert (flow.grad == 0).all()


def test_a_cell_whose_flow_leaves_the_image_is_not_seen():
    flow = torch.zeros(1, 2, 6, 8)
    flow[:, 0, :, -2:] = 2.0
    flow[:, 1, 0] = -0.5
    seen = visible(flow, torch.zeros_like(flow))
    expected = everywhere(flow)
    expected[..., -2:] = False
    expected[..., 0, :] = False
    assert torch.equal(seen, expected)


def test_a_cell_that_another_one_hides_is_not_seen():
    # An object of two columns went two cells to the right, before a background that rests.
    flow, back = torch.zeros(1, 2, 6, 12), torch.zeros(1, 2, 6, 12)
    flow[:, 0, :, 6:8] = -2.0
    back[:, 0, :, 4:6] = 2.0
    seen = visible(flow.requires_grad_(), back)
    assert not seen.requires_grad
    expected = everywhere(flow)
    expected[..., 4:6] = False
    assert torch.equal(seen, expected)


def test_a_network_that_knows_nothing_is_not_told_that_everything_is_hidden():
    flow = torch.zeros(2, 2, 6, 8)
    flow[:, 0] = 1.0
    back = flow.clone()
    back[1] *= -1
    seen = visible(flow, back)
    assert torch.equal(seen[0], seen[1])
    assert seen[..., :-1].all()


def test_a_flow_that_grows_evenly_does_not_bend_and_at_an_edge_it_may():
    rows, columns = torch.meshgrid(torch.arange(6.0), torch.arange(8.0), indexing='ij')
    image = torch.full((1, 3, 6, 8), 0.5)
    even = torch.stack([0.5 * columns - 0.2 * rows, 0.1 * rows + 2])[None]
    assert bending(even, image).item() == pytest.approx(0, abs=1e-6)
    step = torch.zeros(1, 2, 6, 8)
    step[:, 0, :, 4:] = 1.0
    assert bending(step, image).item() == pytest.approx(2 * 6 / (2 * 6 * 6))
    image[..., 4:] = 1.0
    assert bending(step, image).item() == pytest.approx(np.exp(-5) * 2 * 6 / (2 * 6 * 6))


@pytest.mark.parametrize('size', [(2, 2), (2, 9), (9, 2)])
def test_losses_of_the_smallest_images_are_finite(size):
    flow, image = torch.rand(1, 2, *size), torch.rand(1, 3, *size)
    seen = visible(flow, -flow)
    assert torch.isfinite(photometric_difference(image, image, flow, seen) + bending(flow, image)).all()


@pytest.mark.parametrize(('right', 'down'), [(1, 0), (0, -1)])
def test_the_flow_network_learns_from_a_video_alone(tmp_path, right, down):
    clip = moving(right, down)
    torch.manual_seed(0)
    stage = FlowStage(FlowNet(), [], [], 0.0, FlowSettings(batch=4), 0, [video(clip, mirrored=False)])
    current, previous = (to_rgb(torch.from_numpy(images)) for images in (clip.images[1:], clip.images[:-1]))
    true = torch.tensor([right, down])[:, None, None]

    @torch.no_grad()
    def end_point_error():
        return (stage.module(current, previous) - true).square().sum(1).sqrt().mean().item()

    told = []
    before = end_point_error()
    settings = FitSettings(24, learning_rate=2e-3, warmup_steps=2, averaging=0.5, precision='fp32')
    fit(stage, settings, tmp_path, CPU, report=lambda step, values: told.append(values))
    assert all(values['end_point_error'] == 0 for values in told)  # nobody told the flow
    assert end_point_error() < 0.5 * min(before, 1.0)  # 1 cell: the error of no flow


def test_pairs_of_a_video_are_neighbours_in_their_order():
    clip = Clip(
        np.stack([np.full((HEIGHT, WIDTH, 3), 40 * t, np.uint8) for t in range(4)]),
        np.full((4, HEIGHT, WIDTH), 255, np.uint8),
    )
    stage = FlowStage(FlowNet(), [], [], 0.0, FlowSettings(batch=30), 0, [video(clip)])
    batch = stage.batch(0)
    assert not batch['known'].any()
    assert not batch['flows'].any()
    apart = [len(np.unique(batch[name][:, 0, 0, 0])) for name in ('images', 'previous')]
    assert min(apart) > 3
    pairs = [stage._drawn(np.random.default_rng(seed)) for seed in range(20)]
    steps = {(int(pair.image[0, 0, 0]) - int(pair.previous[0, 0, 0])) // 40 for pair in pairs}
    assert steps == {1, 2}  # some at double speed


def mixed_stage(**changed):
    clips = [draw_street(0, 0, 3, HEIGHT, WIDTH, drive=8)]
    stills = ClipLibrary(clips, HEIGHT, WIDTH).stills()
    torch.manual_seed(0)
    settings = FlowSettings(batch=6, crop=(48, 64), **changed)
    return FlowStage(FlowNet(), [(stills, 0.3)], clips, 0.3, settings, 5, [video(moving(1, 0))])


def test_a_batch_of_all_kinds_depends_on_seed_and_step_alone_and_may_be_shared():
    one, other = mixed_stage(), mixed_stage()
    other.batch(0)
    for step in range(3):
        whole, again = one.batch(step), other.batch(step)
        parts = [one.batch(step, part) for part in (range(3), range(3, 6))]
        for name, array in whole.items():
            assert np.array_equal(array, again[name])
            assert np.array_equal(array, np.concatenate([part[name] for part in parts]))
    known = np.concatenate([one.batch(step)['known'] for step in range(3)])
    assert 0 < known.sum() < len(known)


def test_each_pair_counts_the_same_wherever_it_is():
    stage = mixed_stage(photometric=2.0, smoothness=0.3)
    batch = stage.batch(0)
    assert 0 < batch['known'].sum() < 6
    with torch.no_grad():
        whole = stage.losses(tensors(batch))
        alone = [stage.losses(tensors(stage.batch(0, [index]))) for index in range(6)]
    assert list(whole) == TERMS
    for name, term in whole.items():
        assert term.item() == pytest.approx(np.mean([terms[name].item() for terms in alone]), rel=1e-4)
    for known, terms in zip(batch['known'], alone, strict=True):
        assert list(terms) == TERMS
        assert (terms['end_point_error'] > 0, terms['photometric'] > 0) == (known, not known)


def test_weights_of_the_losses_are_those_of_the_settings():
    terms = [mixed_stage(photometric=weight, smoothness=3 * weight) for weight in (1.0, 2.0)]
    batch = tensors(terms[0].batch(0))
    with torch.no_grad():
        once, twice = (stage.losses(batch) for stage in terms)
    assert twice['photometric'].item() == pytest.approx(2 * once['photometric'].item())
    assert twice['smoothness'].item() == pytest.approx(2 * once['smoothness'].item())


def test_no_gradient_runs_through_what_is_seen():
    stage = video_stage()
    batch = tensors(stage.batch(0))
    seen = []
    stage.module.register_forward_hook(lambda module, inputs, flow: seen.append(flow.requires_grad))
    terms = stage.losses(batch)
    assert seen == [True, False]
    sum(terms.values()).backward()
    assert all(torch.isfinite(weight.grad).all() for weight in stage.module.parameters())


def test_the_images_are_compared_in_full_precision_where_the_network_is_not():
    stage = video_stage()
    batch = tensors(stage.batch(0))
    kept = {}

    def keep(module, inputs, flow):
        kept.setdefault('flow', flow.detach().float())

    stage.module.register_forward_hook(keep)
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
        term = stage.losses(batch)['smoothness']
    expected = bending(kept['flow'], in_cells(to_rgb(batch['images']))).mean()
    assert term.dtype == torch.float32
    assert term.item() == pytest.approx(FlowSettings().smoothness * expected.item(), rel=1e-5)


def write_video(path, images):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'MJPG'), 15, images.shape[2:0:-1])
    for image in images:
        writer.write(image)
    writer.release()
    return path


def recipe(sampling=None, shares=None, steps=2):
    stage = {
        'fit': {'steps': steps, 'precision': 'fp32', 'save_every_steps': 2},
        'sampling': {'batch': 2, **(sampling or {})},
        'shares': shares or {'drive': 1},
    }
    return {
        'method': 'dff',
        'options': {'backbone': 'lite', 'flow': 'network', 'decision': 'quarter'},
        'classes': 'camvid11',
        'image': {'height': HEIGHT, 'width': WIDTH},
        'streets': {'clips': 1, 'frames': 2},
        'stages': {'flow': stage},
    }


def create(folder, images, **changes):
    written = parse_recipe('tiny', recipe(**changes))
    data = Gathered(written, {'drive': write_video(folder / 'drive.avi', images)}, folder)
    method = build_method('dff', data.classes, written.options)
    return FlowStage.create(method, data, written.stages[0])


def test_a_recipe_gives_the_stage_flow_a_share_of_a_video_and_resumes_to_the_same(tmp_path):
    drive = write_video(tmp_path / 'drive.avi', moving(1, 0).images)

    def weights(run, *steps):
        for count in steps:
            content = yaml.safe_dump(recipe(steps=count, shares={'drive': 0.5, 'streets': 0.5}))
            (tmp_path / 'tiny.yaml').write_text(content)
            trainer = Trainer(load_recipe(str(tmp_path / 'tiny.yaml')), {'drive': drive}, tmp_path / run)
            trainer.run(CPU, count != steps[0], lambda *_: None)
        return trainer.method.flownet.state_dict()

    whole, resumed = weights('whole', 4), weights('resumed', 2, 4)
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def test_a_video_without_a_share_is_not_looked_at(tmp_path):
    stage = create(tmp_path, moving(1, 0).images[:1], shares={'drive': 0, 'streets': 1})
    assert list(stage.losses(tensors(stage.batch(0)))) == ['end_point_error']


@pytest.mark.parametrize(
    ('frames', 'sampling', 'message'),
    [
        (1, {}, 'drive: no clip has 2 frames'),
        (3, {'photometric': 0}, 'photometric is 0, so nothing is learnt from drive; use more, or no video'),
        (3, {'photometric': -1}, 'photometric is -1; use 0 or more'),
        (3, {'smoothness': float('nan')}, 'smoothness is nan'),
    ],
)
def test_a_video_that_nothing_can_be_learnt_from_is_refused(tmp_path, frames, sampling, message):
    with pytest.raises(SettingsError, match=message):
        create(tmp_path, moving(1, 0).images[:frames], sampling=sampling)


def test_a_share_of_a_video_can_do_without_smoothness(tmp_path):
    stage = create(tmp_path, moving(1, 0).images, sampling={'smoothness': 0})
    terms = stage.losses(tensors(stage.batch(0)))
    assert terms['smoothness'] == 0
    assert terms['photometric'] > 0
