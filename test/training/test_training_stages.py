"""Each stage learns something in a few steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from method_models import run_step
from torch.nn import functional

from vss_ros.core.errors import SettingsError
from vss_ros.core.metrics import ConfusionMatrix
from vss_ros.core.motion.dis import DisMotion
from vss_ros.methods import build_method
from vss_ros.methods.blocks.image import to_rgb
from vss_ros.methods.blocks.pspnet import PspNet
from vss_ros.methods.blocks.resize import resize
from vss_ros.methods.blocks.warp import warp
from vss_ros.methods.evss_losses import Prediction
from vss_ros.training import stages
from vss_ros.training.clip_sources import ClipLibrary
from vss_ros.training.clips import Clip
from vss_ros.training.data import class_frequencies
from vss_ros.training.loop import FitSettings, fit
from vss_ros.training.propagation import host_flows
from vss_ros.training.shares import Shares
from vss_ros.training.stages import STAGES, stage_class
from vss_ros.training.stages.correction import CorrectionSettings, CorrectionStage
from vss_ros.training.stages.flow import FlowSettings, FlowStage
from vss_ros.training.stages.segmenter import SegmenterSettings, SegmenterStage
from vss_ros.training.streets import draw_street

CPU = torch.device('cpu')
HEIGHT, WIDTH, CLASSES = 64, 96, 11
FIT = {'learning_rate': 3e-3, 'warmup_steps': 2, 'averaging': 0.5, 'precision': 'fp32'}


@pytest.fixture(scope='module')
def streets():
    return [draw_street(0, number, 4, HEIGHT, WIDTH, drive=8) for number in range(2)]


def train(stage, folder, steps):
    """Losses of the first and the last quarter of a short training."""
    losses = []

    def keep(step, values):
        if 'loss' in values:
            losses.append(values['loss'])

    fit(stage, FitSettings(steps, **FIT), folder, CPU, report=keep)
    quarter = steps // 4
    return np.mean(losses[:quarter]), np.mean(losses[-quarter:])


def correction_stage(method, clips, **settings):
    torch.manual_seed(0)
    library = ClipLibrary(clips, HEIGHT, WIDTH)
    frequencies = class_frequencies([label for clip in clips for label in clip.labels], CLASSES)
    small = CorrectionSettings(**{'batch': 2, 'frames': 4, 'judged': 2, **settings})
    return CorrectionStage(method, [(library, 1.0)], clips[:1], frequencies, small)


def lite(**options):
    torch.manual_seed(0)
    return build_method('evss-lite', CLASSES, options)


def test_every_file_of_the_stages_is_named_after_one():
    files = {file.stem for file in Path(stages.__file__).parent.glob('*.py')} - {'__init__'}
    assert files <= set(STAGES)
    for name in STAGES:
        assert stage_class(name).name == name


def test_the_segmenter_learns(streets, tmp_path):
    stills = ClipLibrary(streets, HEIGHT, WIDTH).stills()
    kept, aside = stills.split(0.25)
    stage = SegmenterStage(lite().csrnet, CLASSES, [(kept, 1.0)], aside, SegmenterSettings(batch=2), seed=1)
    before = stage.validate(stage.module.eval())['miou']
    first, last = train(stage, tmp_path, 24)
    assert last < first
    assert stage.validate(stage.module)['miou'] > before


def test_without_softness_all_classes_weigh_the_same_in_the_segmenter(streets):
    stills = ClipLibrary(streets, HEIGHT, WIDTH).stills()
    settings = SegmenterSettings(batch=2, weight_softness=0.0, jaccard=0.0)
    stage = SegmenterStage(lite().csrnet, CLASSES, [(stills, 1.0)], stills.where([]), settings)
    batch = {name: torch.from_numpy(array) for name, array in stage.batch(0).items()}
    stage.module.eval()
    scores, labels = stage.module(to_rgb(batch['images'])), batch['labels'][:, ::2, ::2].long()
    expected = functional.cross_entropy(resize(scores, labels.shape[1:]), labels, ignore_index=255)
    assert stage.losses(batch)['cross_entropy'].item() == pytest.approx(expected.item(), rel=1e-4)


def test_the_auxiliary_head_of_pspnet_learns_too(streets):
    torch.manual_seed(0)
    network = PspNet(CLASSES)
    stills = ClipLibrary(streets, HEIGHT, WIDTH).stills()
    settings = SegmenterSettings(batch=2, weight_softness=0.0, jaccard=0.0)
    stage = SegmenterStage(network, CLASSES, [(stills, 1.0)], stills.where([]), settings)
    batch = {name: torch.from_numpy(array) for name, array in stage.batch(0).items()}
    terms = stage.losses(batch)
    assert set(terms) == {'cross_entropy', 'auxiliary'}
    sum(terms.values()).backward()
    assert all(weight.grad is not None for weight in network.parameters())
    assert terms['auxiliary'].item() == pytest.approx(0.4 * np.log(CLASSES), rel=0.2)


def test_the_correction_learns_behind_a_frozen_segmenter(streets, tmp_path):
    method = lite(flow='dis')
    frozen = {name: value.clone() for name, value in method.csrnet.state_dict().items()}
    first, last = train(correction_stage(method, streets), tmp_path, 16)
    assert last < first
    assert all(torch.equal(value, frozen[name]) for name, value in method.csrnet.state_dict().items())


def test_a_flow_network_is_trained_together_with_the_correction(streets):
    stage = correction_stage(lite(flow='network'), streets)
    batch = {name: torch.from_numpy(array) for name, array in stage.batch(0).items()}
    terms = stage.losses(batch)
    assert set(terms) == {'cross_entropy', 'jaccard', 'edge', 'edge_semantics', 'warp'}
    sum(terms.values()).backward()
    assert stage.module['flownet'].predict_flow2.weight.grad.abs().sum() > 0


def test_the_same_stage_trains_the_networks_of_evss(streets):
    torch.manual_seed(0)
    method = build_method('evss', CLASSES, {'flow': 'network'})
    stage = correction_stage(method, streets, judged=1, frames=2)
    batch = {name: torch.from_numpy(array) for name, array in stage.batch(0).items()}
    assert torch.isfinite(torch.stack(list(stage.losses(batch).values()))).all()


def test_the_edge_map_learns_where_the_warp_is_wrong_if_it_is_asked_to(streets):
    labels = torch.full((1, HEIGHT, WIDTH), 3, dtype=torch.uint8)  # no edge anywhere
    scores = torch.zeros(1, CLASSES, HEIGHT // 4, WIDTH // 4)
    scores[:, 3] = 1
    scores[:, 8, :, :6] = 2  # a quarter of the view was taken for another class
    blank = torch.zeros(1, 2, HEIGHT // 4, WIDTH // 4)
    blank[:, 0] = 9
    right = blank.clone()
    right[:, :, :, :6] = blank[:, :, :, :6].flip(1)

    def loss(edge, wanted):
        stage = correction_stage(lite(), streets, wrong_warps=wanted)
        return stage.terms(Prediction(scores, scores, edge, scores), labels)['edge'].item()

    assert loss(right, True) < 1e-3
    assert loss(blank, True) > 0.1
    assert loss(blank, False) == 0


def test_emphasis_makes_more_of_the_loss_where_the_warp_is_wrong(streets):
    labels = torch.full((1, HEIGHT, WIDTH), 3, dtype=torch.uint8)
    scores = torch.zeros(1, CLASSES, HEIGHT // 4, WIDTH // 4)
    scores[:, 3] = 1
    scores[:, 8, :, :6] = 2
    prediction = Prediction(scores, scores, torch.zeros(1, 2, HEIGHT // 4, WIDTH // 4), scores)

    def loss(emphasis):
        stage = correction_stage(lite(), streets, emphasis=emphasis)
        return stage.terms(prediction, labels)['cross_entropy'].item()

    assert loss(6.0) > loss(2.0) > loss(0.0)


def test_a_share_of_the_streams_runs_back_in_time(streets):
    ways = []

    class Watched(ClipLibrary):
        def clip(self, rng, frames, backwards=False):
            ways.append(backwards)
            return super().clip(rng, frames, backwards)

    for share in (0.0, 0.5, 1.0):
        stage = correction_stage(lite(flow='dis'), streets, backwards=share)
        stage._sources = Shares([(Watched(streets, HEIGHT, WIDTH), 1.0)])
        for step in range(10):
            stage.batch(step)
        assert abs(sum(ways) / 20 - share) < 0.3 * (share == 0.5) + 1e-9
        ways.clear()


def test_a_share_of_streams_backwards_is_for_streams_and_a_share():
    with pytest.raises(SettingsError, match=r'backwards is 1\.5; use 0 to 1'):
        CorrectionSettings(backwards=1.5)
    with pytest.raises(SettingsError, match='use 0 with hops'):
        CorrectionSettings(backwards=0.5, hops=1, intervals=(3,))


def test_clips_without_labels_are_learnt_from_the_segmenter_itself(streets):
    unlabelled = [Clip(clip.images, np.full_like(clip.labels, 255)) for clip in streets]
    stage = correction_stage(lite(flow='dis'), unlabelled)
    batch = {name: torch.from_numpy(array) for name, array in stage.batch(0).items()}
    assert stage.losses(batch)['cross_entropy'] > 0


def test_only_a_frame_without_any_label_is_learnt_from_the_segmenter_unless_all_are(streets):
    image = to_rgb(torch.from_numpy(streets[0].images[:2]))
    labels = torch.from_numpy(streets[0].labels[:2].copy())
    labels[0], labels[1, :8] = 255, 255
    given = labels.clone()
    own, found, pseudo = (
        correction_stage(lite(flow='dis'), streets, pseudo_labels=all_are).targets(truth, image)
        for all_are, truth in ((False, torch.full_like(labels, 255)), (False, labels), (True, labels))
    )
    assert own.max() < CLASSES
    assert torch.equal(pseudo, own)
    assert (found[0] == own[0]).float().mean() > 0.99
    assert torch.equal(found[1], given[1])
    assert torch.equal(labels, given)


@pytest.mark.parametrize('carry', ['warped', 'merged'])
def test_clips_run_like_the_graphs_of_the_method(streets, carry):
    method = lite(flow='dis', carry=carry).eval()
    torch.nn.init.normal_(method.conet.heads.weight)  # so that it changes something
    images = streets[0].images
    flows = host_flows('dis', images)
    batch = {'images': torch.from_numpy(images[None]), 'flows': torch.from_numpy(flows[None])}
    stage = correction_stage(method, streets)
    stage.module.eval()
    with torch.no_grad():
        frames = list(stage.run(batch, [1, 2, 3]))
        state = method.state_of(run_step(method, 'key', {'image': batch['images'][:, 0]}))
        for index, frame in enumerate(frames, 1):
            inputs = {'image': batch['images'][:, index], 'flow': batch['flows'][:, index - 1], **state}
            step = run_step(method, 'propagated', inputs)
            state = method.state_of(step)
            assert torch.allclose(frame.prediction.warped, step['warped'], atol=1e-4)
    last = frames[-1].prediction
    carried = last.merged if carry == 'merged' else last.warped
    assert torch.allclose(carried, step['scores'], atol=1e-4)


def test_host_flows_are_those_of_the_stream(streets):
    images, motion = streets[0].images, DisMotion()
    motion.update(images[0], wanted=False)
    assert np.array_equal(host_flows('dis', images)[0], motion.update(images[1], wanted=True)[0])


def test_scores_by_distance_compare_with_warping_alone(streets):
    method = lite(flow='dis').eval()
    warped = torch.randn(1, CLASSES, HEIGHT // 4, WIDTH // 4)  # scores that differ from cell to cell
    method.segment = lambda image: warped
    stage = correction_stage(method, streets)
    scores = stage.validate(stage.module)
    assert set(scores) == {f'{kind}_{d}' for kind in ('corrected', 'warped') for d in (1, 2, 3)}
    flows, labels = host_flows('dis', streets[0].images), streets[0].labels
    for distance in (1, 2, 3):
        warped, matrix = warp(warped, torch.from_numpy(flows[distance - 1][None])), ConfusionMatrix(CLASSES)
        matrix.update(labels[distance], resize(warped, (HEIGHT, WIDTH)).argmax(1)[0].byte().numpy())
        assert scores[f'warped_{distance}'] == pytest.approx(100 * matrix.miou())


def test_the_flow_network_learns(streets, tmp_path):
    torch.manual_seed(0)
    stage = FlowStage(lite(flow='network').flownet, [], streets, 1.0, FlowSettings(batch=4))
    first, last = train(stage, tmp_path, 24)
    assert last < first


def test_flow_pairs_come_from_stills_and_from_clips(streets):
    stills = ClipLibrary(streets, HEIGHT, WIDTH).stills()
    stage = FlowStage(lite(flow='network').flownet, [(stills, 0.5)], streets, 0.5, FlowSettings(batch=6))
    batch = stage.batch(0)
    assert batch['images'].shape == batch['previous'].shape == (6, HEIGHT, WIDTH, 3)
    assert batch['flows'].shape == (6, 2, HEIGHT // 4, WIDTH // 4)
    terms = stage.losses({name: torch.from_numpy(array) for name, array in batch.items()})
    assert torch.isfinite(terms['end_point_error'])
