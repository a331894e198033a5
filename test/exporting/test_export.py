import os
import shutil

import numpy as np
import onnx
import pytest
import torch
import yaml
from torch import Tensor, nn

from vss_ros.core.engines import load_engine
from vss_ros.core.errors import ModelError, SettingsError, ShapeError
from vss_ros.core.model.folder import load_model
from vss_ros.core.settings import EngineSettings
from vss_ros.exporting.description import method_name
from vss_ros.exporting.export import export, export_again
from vss_ros.exporting.onnx_rules import broken_rules
from vss_ros.exporting.verify import difference, example_frames, verify
from vss_ros.exporting.weights import load_method, stored_dtype, stored_state
from vss_ros.methods import METHODS, build_method
from vss_ros.methods.method import Method

SIZE = (32, 48)


class Small(Method):
    """Every frame is a key frame, by one convolution: the quickest method to export."""

    steps = {'key': ('segmenter',)}
    state = {}

    def __init__(self, classes: int, fault: str = 'none') -> None:
        super().__init__(classes, fault=fault)
        self.network = nn.Conv2d(3, classes, 3, stride=4, padding=1)

    def segmenter(self, image: Tensor) -> dict[str, Tensor]:
        scores = self.network(image.float().permute(0, 3, 1, 2) / 255)
        if self.options['fault'] == 'slow softmax':
            scores = scores.softmax(1)
        if self.options['fault'] == 'wrong export':
            scores = scores + float(torch.onnx.is_in_onnx_export())
        mask = scores.repeat_interleave(4, 2).repeat_interleave(4, 3).argmax(1).float()
        confidence = (mask * 0 + 100).to(torch.uint8)
        return {'scores': scores, 'mask': mask.to(torch.uint8), 'confidence': confidence}


@pytest.fixture(autouse=True, scope='module')
def small_is_a_method():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(METHODS, 'small', f'{Small.__module__}:Small')
        yield


def write_small(folder, fault='none', class_set='camvid11', image_size=SIZE, **rest):
    torch.manual_seed(0)
    method = Small(11, fault)
    return export(method, folder, name='small', class_set=class_set, image_size=image_size, **rest)


@pytest.fixture(scope='module')
def small(tmp_path_factory):
    """A model folder of Small; copy it before you change it."""
    umask = os.umask(0o022)
    try:
        return write_small(
            tmp_path_factory.mktemp('small') / 'model', training={'epochs': 3, 'miou': [0.5, 0.6]}
        )
    finally:
        os.umask(umask)


@pytest.fixture
def target(small, tmp_path):
    """A model folder of one's own, which an export may replace."""
    return shutil.copytree(small.path, tmp_path / 'model')


def test_a_model_folder_holds_the_graphs_the_weights_and_the_description(small):
    assert [entry.name for entry in small.path.parent.iterdir()] == ['model']
    names = sorted(file.name for file in small.path.iterdir())
    assert names == ['model.yaml', 'segmenter.onnx', 'weights.safetensors']
    assert (small.name, small.method, small.flow, small.image_size) == ('small', 'small', 'none', SIZE)
    assert (small.options, small.training) == ({'fault': 'none'}, {'epochs': 3, 'miou': [0.5, 0.6]})
    assert small.graphs['segmenter'].outputs['scores'].shape == (1, 11, 8, 12)


def test_a_description_reads_well(small):
    text = (small.path / 'model.yaml').read_text()
    assert 'image: {height: 32, width: 48}\n' in text
    assert '      scores: [float32, [1, 11, 8, 12]]\n' in text
    assert '  key: [segmenter]\n' in text


def test_the_files_of_a_model_can_be_read_by_everybody(small):
    assert {oct(file.stat().st_mode & 0o777) for file in small.path.iterdir()} == {'0o644'}
    assert small.path.stat().st_mode & 0o777 == 0o755


def test_graphs_say_nothing_of_the_machine_they_were_made_on(small):
    content = small.graphs['segmenter'].file.read_bytes()
    for word in (b'stack_trace', b'.py', os.fsencode(os.getcwd())):
        assert word not in content


def test_the_same_method_gives_the_same_bytes(small, tmp_path):
    again = write_small(tmp_path / 'again')
    assert again.graphs['segmenter'].sha256 == small.graphs['segmenter'].sha256
    assert again.weights.read_bytes() == small.weights.read_bytes()


def test_a_model_is_replaced_as_a_whole_but_what_people_added_stays(target):
    (target / 'README.md').write_text('trained on a rainy day')
    (target / 'mine.onnx').write_text('of another method')
    (target / 'segmenter.onnx').rename(target / 'gone.onnx')  # of the method before
    text = (target / 'model.yaml').read_text()
    (target / 'model.yaml').write_text(text.replace('segmenter.onnx', 'gone.onnx'))
    assert write_small(target, image_size=(64, 48)).image_size == (64, 48)
    assert [entry.name for entry in target.parent.iterdir()] == ['model']
    assert (target / 'README.md').read_text() == 'trained on a rainy day'
    assert (target / 'mine.onnx').read_text() == 'of another method'
    assert not (target / 'gone.onnx').exists()


@pytest.mark.parametrize('where', ['.', 'deeper'])
def test_the_folder_that_one_is_in_is_not_replaced(target, monkeypatch, where):
    (target / 'deeper').mkdir()
    monkeypatch.chdir(target / where)
    before = target.stat().st_ino
    with pytest.raises(ModelError, match='is where you are; name another folder'):
        write_small(target)
    assert target.stat().st_ino == before


def test_a_folder_of_other_things_is_left_alone(tmp_path):
    (tmp_path / 'holiday.png').write_text('')
    with pytest.raises(ModelError, match='is there and is no model folder; choose another name'):
        write_small(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ['holiday.png']


def test_classes_of_ones_own_go_with_the_model_wherever_it_is_written_again(tmp_path):
    file = tmp_path / 'mine.yaml'
    file.write_text(''.join(['classes:\n', *(f'- {{name: c{i}, colour: [{i}, 0, 0]}}\n' for i in range(11))]))
    model = write_small(tmp_path / 'model', class_set=str(file))
    file.unlink()
    assert (model.classes.name, model.classes.names[10]) == ('mine', 'c10')
    export_again(model, tmp_path / 'again')
    assert load_model(tmp_path / 'again').classes == model.classes


@pytest.mark.parametrize(
    ('arguments', 'error', 'message'),
    [
        (
            {'fault': 'slow softmax'},
            ModelError,
            r"graph 'segmenter' breaks a rule of export: .*over channels",
        ),
        ({'fault': 'wrong export'}, ModelError, r'segmenter\.scores differs from PyTorch by 1.* is allowed'),
        ({'training': {'miou': np.float32(0.5)}}, ModelError, 'plain values only'),
        ({'class_set': 'cityscapes19'}, ModelError, 'method has 11 classes, class set cityscapes19 has 19'),
        ({'class_set': 'mars'}, SettingsError, "no class set 'mars'"),
        ({'image_size': (0, 48)}, SettingsError, 'image_size'),
        ({'weights_dtype': 'int8'}, SettingsError, "weights_dtype is 'int8'; use one of fp32, fp16"),
    ],
)
def test_a_refused_export_leaves_what_was_there(target, arguments, error, message):
    before = (target / 'model.yaml').read_bytes()
    with pytest.raises(error, match=message):
        write_small(target, **arguments)
    assert [entry.name for entry in target.parent.iterdir()] == ['model']
    assert (target / 'model.yaml').read_bytes() == before
    load_model(target)


def test_a_size_that_the_maps_do_not_fit_is_refused(tmp_path):
    with pytest.raises(ShapeError, match='width and height must be multiples of 4'):
        export(
            build_method('evss-lite', 11), tmp_path / 'm', name='m', class_set='camvid11', image_size=(62, 96)
        )
    assert not any(tmp_path.iterdir())


def test_a_method_that_could_not_be_rebuilt_is_refused(monkeypatch):
    monkeypatch.delitem(METHODS, 'small')
    with pytest.raises(ModelError, match='is in no line of METHODS'):
        method_name(Small(11))


def test_weights_that_were_replaced_since_the_model_was_read_are_refused(small, tmp_path):
    model = load_model(shutil.copytree(small.path, tmp_path / 'copy'))
    data = bytearray(model.weights.read_bytes())
    data[-1] ^= 1
    model.weights.write_bytes(data)
    with pytest.raises(ModelError, match=r'weights\.safetensors is damaged or was changed'):
        load_method(model)


def test_weights_that_are_not_finite_are_refused(tmp_path):
    method = Small(11)
    with torch.no_grad():
        method.network.weight[0] = float('nan')
    with pytest.raises(ModelError, match='weights are not finite'):
        export(method, tmp_path / 'm', name='m', class_set='camvid11', image_size=SIZE)


def test_half_weights_take_half_the_space_and_the_graphs_compute_with_them(small, tmp_path):
    method = Small(11).train()
    before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    half = export(
        method, tmp_path / 'half', name='half', class_set='camvid11', image_size=SIZE, weights_dtype='fp16'
    )
    assert half.weights.stat().st_size < 0.7 * small.weights.stat().st_size
    assert (stored_dtype(half), stored_dtype(small)) == ('fp16', 'fp32')
    image = example_frames(SIZE, 1)[0][None]
    with torch.no_grad():
        own = method.segmenter(torch.from_numpy(image))['scores'].numpy()
    onnx_scores, torch_scores = (
        load_engine(half, EngineSettings(engine)).run('segmenter', {'image': image})['scores']
        for engine in ('onnxruntime', 'torch')
    )
    assert np.allclose(onnx_scores, torch_scores, atol=1e-5)
    assert not np.allclose(onnx_scores, own, atol=1e-5)
    # The method in the caller's hands stays as it was.
    assert method.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in method.state_dict().items())


def test_what_fp16_holds_is_stored_in_it_and_the_rest_in_full():
    method = build_method('evss-lite', 11)
    norm = method.csrnet.stem[0][1]
    norm.running_var[3] = 1e6
    norm.running_mean[3] = 1e-9
    state, whole = stored_state(method, 'fp16'), method.state_dict()
    kept = {name for name, tensor in state.items() if tensor.dtype == torch.float32}
    assert kept == {'csrnet.stem.0.1.running_var'}
    assert {tensor.dtype for name, tensor in state.items() if name.endswith('tracked')} == {torch.int64}
    for name, tensor in state.items():
        assert torch.allclose(tensor.to(whole[name].dtype), whole[name], rtol=1e-3, atol=1e-6), name


def test_a_method_comes_back_from_its_folder_with_other_options(tiny_model):
    model = load_model(tiny_model)
    method = load_method(model, {'w_f': 0.5, 'decision': 'full'})
    assert method.options == {**model.options, 'w_f': 0.5, 'decision': 'full'}
    assert not method.training
    with pytest.raises(ModelError, match=r"{'flow': 'network'} needs flownet, for which .* has no weights"):
        load_method(model, {'flow': 'network'})
    with pytest.raises(SettingsError, match="w_f is 'much'; use a number"):
        load_method(model, {'w_f': 'much'})


@pytest.mark.parametrize(
    ('expected', 'found', 'share'),
    [
        (np.float32([1, -2]), np.float32([1, -2]), 0),
        (np.float32([1, -2]), np.float32([1.002, -2]), 0.5),  # 0.002 of the 0.002 * 2 that are allowed
        (np.float32([0.1, 0]), np.float32([0.101, 0]), 0.5),
        (np.uint8([0] * 2000), np.uint8([0] * 1998 + [7, 7]), 1.0),
        (np.uint8([0] * 100), np.uint8([0] * 99 + [7]), 1.0),
    ],
)
def test_a_difference_is_given_as_a_share_of_what_is_allowed(expected, found, share):
    assert difference('graph.tensor', expected, found) == pytest.approx(share, rel=1e-3)


@pytest.mark.parametrize(
    ('expected', 'found'),
    [
        (np.float32([1, -2]), np.float32([1.005, -2])),
        (np.float32([1, -2]), np.float32([np.nan, -2])),
        (np.float32([1, np.inf]), np.float32([1, np.inf])),
        (np.uint8([0] * 2000), np.uint8([0] * 1997 + [1, 1, 1])),
        (np.uint8([0] * 100), np.int64([0] * 100)),
        (np.uint8([0] * 100), np.uint8([0] * 99)),
    ],
)
def test_a_difference_beyond_what_is_allowed_is_refused(expected, found):
    with pytest.raises(ModelError, match=r'graph\.tensor'):
        difference('graph.tensor', expected, found)


def test_confidence_may_be_rounded_either_way():
    assert difference('graph.confidence', np.uint8([10, 20]), np.uint8([11, 19])) == 0
    with pytest.raises(ModelError):
        difference('graph.confidence', np.uint8([10, 20]), np.uint8([12, 22]))


@pytest.mark.parametrize(
    ('name', 'options'),
    [
        (
            'evss-lite',
            {
                'flow': 'network',
                'fusion': 'full',
                'decision': 'full',
                'reference': 'previous',
                'carry': 'warped',
            },
        ),
    ],
)
def test_every_variant_exports_proved_and_by_the_rules(tmp_path, name, options):
    torch.manual_seed(0)
    method = build_method(name, 11, options).eval()
    model = export(method, tmp_path / 'model', name=name, class_set='camvid11', image_size=(64, 96))
    try:
        for spec in model.graphs.values():
            assert broken_rules(onnx.load(str(spec.file))) == []
        frames = [torch.from_numpy(frame[None]) for frame in example_frames((64, 96), 4)]
        assert max(verify(method, model, frames).values()) < 0.1
        assert yaml.safe_load((model.path / 'model.yaml').read_text())['options'] == method.options
    finally:
        shutil.rmtree(model.path)  # 30 MB with a flow network
