"""Each stage learns something in a few steps, and a whole recipe ends in a model folder."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
import yaml
from torch.nn import functional

from vss_ros.cli.main import main
from vss_ros.core.errors import SettingsError
from vss_ros.core.model_folder import load_model
from vss_ros.core.motion.dis import DisMotion
from vss_ros.methods import build_method
from vss_ros.methods.blocks.image import to_rgb
from vss_ros.methods.blocks.pspnet import PspNet
from vss_ros.methods.blocks.resize import resize
from vss_ros.methods.evss_losses import Prediction
from vss_ros.training.clip_sources import ClipLibrary
from vss_ros.training.clips import Clip
from vss_ros.training.correction import CorrectionSettings, CorrectionStage
from vss_ros.training.data import class_frequencies
from vss_ros.training.flow import FlowSettings, FlowStage
from vss_ros.training.loop import FitSettings, fit
from vss_ros.training.propagation import host_flows
from vss_ros.training.recipe import load_recipe, parse_recipe
from vss_ros.training.report import write_card
from vss_ros.training.segmenter import SegmenterSettings, SegmenterStage
from vss_ros.training.streets import draw_street
from vss_ros.training.trainer import Trainer

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


def test_clips_without_labels_are_learnt_from_the_segmenter_itself(streets):
    unlabelled = [Clip(clip.images, np.full_like(clip.labels, 255)) for clip in streets]
    stage = correction_stage(lite(flow='dis'), unlabelled)
    batch = {name: torch.from_numpy(array) for name, array in stage.batch(0).items()}
    assert stage.losses(batch)['cross_entropy'] > 0


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
        state = method.state_of(method.step('key', {'image': batch['images'][:, 0]}))
        for index, frame in enumerate(frames, 1):
            inputs = {'image': batch['images'][:, index], 'flow': batch['flows'][:, index - 1], **state}
            step = method.step('propagated', inputs)
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
    stage = correction_stage(method, streets)
    scores = stage.validate(stage.module)
    assert set(scores) == {f'{kind}_{d}' for kind in ('corrected', 'warped') for d in (1, 2, 3)}


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


def tiny_recipe(**changes):
    stage = {'fit': {'steps': 2, 'precision': 'fp32'}, 'shares': {'camvid': 0.5, 'streets': 0.5}}
    return {
        'method': 'evss-lite',
        'classes': 'camvid11',
        'image': {'height': HEIGHT, 'width': WIDTH},
        'streets': {'clips': 1, 'frames': 3},
        'held_out': 0.5,
        'stages': {
            'segmenter': {**stage, 'sampling': {'batch': 2}},
            'correction': {**stage, 'sampling': {'batch': 2, 'frames': 3, 'judged': 1}},
        },
        **changes,
    }


@pytest.fixture
def labelled_folder(tmp_path, streets):
    for part in ('images', 'labels'):
        (tmp_path / 'camvid' / part).mkdir(parents=True)
    for index, (image, label) in enumerate(zip(streets[0].images, streets[0].labels, strict=True)):
        cv2.imwrite(str(tmp_path / 'camvid' / 'images' / f'a_{index}.png'), image)
        cv2.imwrite(str(tmp_path / 'camvid' / 'labels' / f'a_{index}.png'), label)
    return tmp_path / 'camvid'


def check_report(folder, recipe):
    """The report says what was trained from what, and the card of the model leads there."""
    report = (folder / 'report.md').read_text()
    for said in (
        'Data: camvid | 2 labelled images, 2 more kept aside; sha256 of the files ',
        'Data: streets | 1 clips of 3 frames, drawn from seed 1000',
        'Seed | 0',
        f'PyTorch {torch.__version__}',
        '| segmenter | 2 | 2 | fp32 |',
        '| miou |',
        '| frames after the key frame, % | 1 | 2 |\n| --- | --- | --- |\n| corrected |',
        '![Losses and scores](curves.png)',
    ):
        assert said in report
    assert str(recipe.parent) not in report
    assert cv2.imread(str(folder / 'curves.png')).shape[0] > 300
    assert yaml.safe_load((folder / 'recipe.yaml').read_text()) == yaml.safe_load(recipe.read_text())
    card = (folder / 'README.md').read_text()
    assert 'report.md' in card
    assert 'miou' not in card  # the card would keep it when the model is trained anew


def test_a_card_that_somebody_wrote_stays(tmp_path, labelled_folder):
    trainer = Trainer(parse_recipe('tiny', tiny_recipe()), {'camvid': labelled_folder}, tmp_path)
    (tmp_path / 'README.md').write_text('Mine.')
    write_card(trainer, tmp_path)
    assert (tmp_path / 'README.md').read_text() == 'Mine.'


def test_vss_train_ends_in_a_model_that_loads_and_resumes_to_the_same(tmp_path, labelled_folder):
    recipe = tmp_path / 'tiny.yaml'
    recipe.write_text(yaml.safe_dump(tiny_recipe(), sort_keys=False))
    words = ['train', str(recipe), '--data', f'camvid:{labelled_folder}', '--runs', str(tmp_path / 'runs')]
    assert main([*words, '-o', str(tmp_path / 'model'), '--device', 'cpu']) == 0
    model = load_model(tmp_path / 'model')
    assert model.method == 'evss-lite'
    assert model.training['recipe'] == 'tiny'
    check_report(tmp_path / 'model', recipe)
    weights = tmp_path / 'runs' / 'tiny' / 'weights.safetensors'
    before = weights.read_bytes()
    weights.unlink()
    assert main([*words, '--resume', '--device', 'cpu']) == 0
    assert weights.read_bytes() == before
    resumed = Trainer(load_recipe(str(recipe)), {'camvid': labelled_folder}, tmp_path / 'runs' / 'tiny')
    resumed.run(CPU, True, lambda *_: None)
    assert resumed.scores == {name: model.training[name] for name in resumed.scores} != {}


def test_a_training_does_not_write_over_another(tmp_path):
    stages = {'segmenter': {'fit': {'steps': 1, 'precision': 'fp32'}, 'shares': {'streets': 1}}}
    recipe = parse_recipe('tiny', tiny_recipe(stages=stages))
    folder = tmp_path / 'tiny'

    def meanwhile(stage, step, values):
        with pytest.raises(SettingsError, match='another training writes'):
            Trainer(recipe, {}, folder).run(CPU, True, lambda *_: None)

    Trainer(recipe, {}, folder).run(CPU, False, meanwhile)
    with pytest.raises(SettingsError, match='--resume'):
        Trainer(recipe, {}, folder).run(CPU, False, lambda *_: None)


def test_a_stage_that_does_not_fit_into_the_memory_of_the_device_says_what_to_lower(tmp_path, monkeypatch):
    stages = {'segmenter': {'fit': {'steps': 1, 'precision': 'fp32'}, 'shares': {'streets': 1}}}
    trainer = Trainer(parse_recipe('tiny', tiny_recipe(stages=stages)), {}, tmp_path / 'tiny')

    def losses(self, batch):
        raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 20.00 GiB')

    monkeypatch.setattr(SegmenterStage, 'losses', losses)
    with pytest.raises(SettingsError, match=r'segmenter does not fit.*lower its batch.*20\.00 GiB'):
        trainer.run(CPU, False, lambda *_: None)


def test_a_run_that_goes_on_as_no_unbroken_one_would_is_warned_of(tmp_path, labelled_folder, caplog):
    data, folder = {'camvid': labelled_folder}, tmp_path / 'runs' / 'tiny'

    def train(steps, resume):
        file, content = tmp_path / 'tiny.yaml', tiny_recipe()
        content['stages']['segmenter']['fit']['steps'] = steps
        file.write_text(yaml.safe_dump(content, sort_keys=False))
        Trainer(load_recipe(str(file)), data, folder).run(CPU, resume, lambda *_: None)

    train(1, False)
    train(1, True)
    assert not caplog.text
    train(2, True)
    assert 'not that of the run before: stages.segmenter.fit.steps' in caplog.text
    assert 'correction.safetensors was trained behind segmenter as it was before' in caplog.text


def test_what_a_stage_begins_anew_is_the_same_when_the_stage_before_was_resumed(tmp_path):
    fit = {'steps': 1, 'precision': 'fp32'}
    stages = {
        'segmenter': {'fit': fit, 'sampling': {'batch': 2}, 'shares': {'streets': 1}},
        'fusion': {
            'fit': fit,
            'sampling': {'batch': 2, 'new_classifier': True},
            'shares': {'streets': 1},
        },
    }
    options = {'backbone': 'lite'}
    recipe = parse_recipe('tiny', tiny_recipe(method='st-memory', options=options, stages=stages))
    losses = []

    def keep(stage, step, values):
        if stage == 'fusion':
            losses.append(values['loss'])

    Trainer(recipe, {}, tmp_path / 'runs').run(CPU, False, keep)
    (tmp_path / 'runs' / 'fusion.safetensors').unlink()
    Trainer(recipe, {}, tmp_path / 'runs').run(CPU, True, keep)
    assert losses[0] == losses[1]


def test_data_that_is_not_given_is_asked_for_by_name(tmp_path):
    with pytest.raises(SettingsError, match=r'camvid.*--data'):
        Trainer(parse_recipe('tiny', tiny_recipe()), {}, tmp_path)


def test_an_option_of_another_kind_is_refused(tmp_path, labelled_folder):
    recipe = parse_recipe('tiny', tiny_recipe(options={'w_f': 'x'}))
    with pytest.raises(SettingsError, match=r'w_f.* cannot be used'):
        Trainer(recipe, {'camvid': labelled_folder}, tmp_path)


def test_streets_do_not_teach_the_ids_of_other_classes(tmp_path):
    stages = {'segmenter': {'fit': {'steps': 1}, 'shares': {'streets': 1}}}
    recipe = parse_recipe('tiny', tiny_recipe(classes='cityscapes19', stages=stages))
    with pytest.raises(SettingsError, match=r'streets are drawn with the classes camvid11'):
        Trainer(recipe, {}, tmp_path).run(CPU, False, lambda *_: None)


def test_a_stage_of_another_method_is_refused_before_anything_is_trained(tmp_path):
    stage = {'fit': {'steps': 1}, 'shares': {'streets': 1}}
    recipe = parse_recipe('tiny', tiny_recipe(stages={'segmenter': stage, 'joint': stage}))
    with pytest.raises(SettingsError, match='joint trains Davss'):
        Trainer(recipe, {}, tmp_path)


def test_data_that_does_not_exist_is_refused_by_its_path(tmp_path):
    with pytest.raises(SettingsError, match=r'camvid:.*nowhere does not exist'):
        Trainer(parse_recipe('tiny', tiny_recipe()), {'camvid': tmp_path / 'nowhere'}, tmp_path)


@pytest.mark.parametrize(
    ('more', 'message'),
    [(['-o', 'FOLDER'], 'is no model folder'), (['--data', 'camvid:FOLDER'], 'given twice')],
)
def test_what_could_not_be_exported_or_is_not_clear_is_refused_at_once(
    tmp_path, capsys, labelled_folder, more, message
):
    recipe = tmp_path / 'tiny.yaml'
    recipe.write_text(yaml.safe_dump(tiny_recipe(), sort_keys=False))
    words = ['train', str(recipe), '--data', f'camvid:{labelled_folder}', '--runs', str(tmp_path / 'runs')]
    assert main([*words, *(word.replace('FOLDER', str(labelled_folder)) for word in more)]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / 'runs').exists()


def test_a_stage_for_a_network_that_the_method_lacks_is_refused(tmp_path):
    flow = {'fit': {'steps': 1}, 'shares': {'streets': 1}}
    recipe = parse_recipe('tiny', tiny_recipe(options={'flow': 'dis'}, stages={'flow': flow}))
    with pytest.raises(SettingsError, match='flownet'):
        Trainer(recipe, {}, tmp_path).run(CPU, False, lambda *_: None)


def test_a_device_that_is_not_there_is_one_line(tmp_path, capsys, labelled_folder):
    recipe = tmp_path / 'tiny.yaml'
    recipe.write_text(yaml.safe_dump(tiny_recipe(), sort_keys=False))
    words = ['train', str(recipe), '--data', f'camvid:{labelled_folder}', '--device', 'no-such']
    assert main(words) == 2
    assert 'no-such' in capsys.readouterr().err
