"""What every engine must do, checked on each; `torch` is the one the others are compared with."""

import dataclasses
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from vss_ros.core.engines import AUTO_ORDER, ENGINE_CLASSES, engine_class, load_engine
from vss_ros.core.errors import EngineError, MissingLibraryError, ModelError, PrecisionError
from vss_ros.core.frame import Frame
from vss_ros.core.model.files import sha256_of
from vss_ros.core.model.folder import load_model
from vss_ros.core.settings import EngineSettings, StreamSettings
from vss_ros.core.stream.segmenter import VideoSegmenter

ENGINES = sorted(ENGINE_CLASSES)
# Shares that may differ, of the mask and of the confidence. TensorRT multiplies in TF32, and weights that are
# random make classes nearly equal: where bits are cut off instead of rounded, 1.3 and 11 % differed.
BOUNDS = {'tensorrt': (0.03, 0.2)}
FRAME_NS = 66_666_667


@pytest.fixture(scope='module')
def engines(model, tmp_path_factory):
    """Every engine, loaded once, by name; one that cannot be here skips the tests that ask for it."""
    loaded, cache = Engines(), tmp_path_factory.mktemp('cache')
    for name in ENGINES:
        try:
            loaded[name] = load_engine(model, EngineSettings(engine=name, engine_cache=str(cache)))
        except (MissingLibraryError, EngineError) as error:
            loaded.refusals[name] = error
    yield loaded
    for engine in loaded.values():
        engine.close()


class Engines(dict):
    def __init__(self):
        self.refusals = {}

    def __missing__(self, name):
        error = self.refusals[name]
        if isinstance(error, MissingLibraryError) or (name == 'tensorrt' and not has_cuda()):
            pytest.skip(str(error))
        raise error


def has_cuda() -> bool:
    torch = pytest.importorskip('torch')
    return torch.cuda.is_available()


@pytest.fixture(params=ENGINES)
def engine(request, engines):
    return engines[request.param]


def frames(images, start=0):
    return [Frame(image, (start + number) * FRAME_NS) for number, image in enumerate(images)]


def segment(model, engine, stream, **settings):
    segmenter = VideoSegmenter(model, engine, StreamSettings(**settings))
    return [segmenter.step(frame) for frame in stream]


def assert_alike(found, expected, differing=1e-3, less_sure=1e-3):
    """Masks may differ where two classes are nearly equal: in 1 of 1000 pixels."""
    assert [s.is_key for s in found] == [s.is_key for s in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.mask.shape == other.mask.shape
        assert (one.mask != other.mask).mean() <= differing
        steps = np.abs(one.confidence.astype(int) - other.confidence)
        assert (steps > 1).mean() <= less_sure


def test_an_engine_gives_what_the_model_folder_promises(engine, model, street):
    tensors = {'image': street[0][None], 'flow': np.zeros((1, 2, 16, 24), np.float32)}
    for stage in ('segmenter', 'warp', 'correction'):
        graph = model.graphs[stage]
        tensors |= {later: tensors[name] for name, later in model.state.items() if name in tensors}
        tensors |= engine.run(stage, tensors)
        for name, spec in graph.outputs.items():
            array = engine.to_host(tensors[name])
            assert (str(array.dtype), array.shape) == (spec.dtype, spec.shape), name


@pytest.mark.parametrize('name', [name for name in ENGINES if name != 'torch'])
def test_twelve_frames_with_three_key_frames_equal_those_of_pytorch(name, engines, model, street):
    found = segment(model, engines[name], frames(street), key_frame_interval=5)
    assert ''.join('K' if s.is_key else '.' for s in found) == 'K....K....K.'
    expected = segment(model, engines['torch'], frames(street), key_frame_interval=5)
    assert_alike(found, expected, *BOUNDS.get(name, ()))
    shares = [s.corrected_share for s in found if not s.is_key]
    assert min(shares) > 0  # else the correction was not tested


def test_a_stream_that_is_reset_goes_on_as_a_new_one(engine, model, street):
    segmenter = VideoSegmenter(model, engine)
    for frame in frames(street[:4]):
        segmenter.step(frame)
    segmenter.reset()
    again = [segmenter.step(frame) for frame in frames(street[4:9], start=4)]
    assert_alike(again, segment(model, engine, frames(street[4:9])))


def test_a_new_image_size_starts_a_new_stream(engine, model, street):
    small = [cv2.resize(image, (50, 70)) for image in street[6:9]]
    segmenter = VideoSegmenter(model, engine)
    for frame in frames(street[:3]):
        segmenter.step(frame)
    found = [segmenter.step(frame) for frame in frames(small, start=3)]
    assert (found[0].is_key, found[0].reset_reason) == (True, 'size changed')
    assert_alike(found, segment(model, engine, frames(small)))


def test_two_streams_on_one_engine_do_not_touch_each_other(engine, model, street):
    streams = [frames(street[:6]), frames(street[:5:-1])]
    alone = [segment(model, engine, stream) for stream in streams]
    segmenters = [VideoSegmenter(model, engine) for _ in streams]
    together = [
        [segmenter.step(frame) for segmenter, frame in zip(segmenters, pair, strict=True)]
        for pair in zip(*streams, strict=True)
    ]
    for number, expected in enumerate(alone):
        assert_alike([pair[number] for pair in together], expected)


def test_the_image_of_the_caller_is_not_written_to(engine, model, street):
    image = street[0].copy()
    image.setflags(write=False)
    engine.run('segmenter', {'image': image[None]})
    assert np.array_equal(image, street[0])


def test_a_mirrored_image_is_taken_like_any_other(engine, street):
    mirrored = street[0][:, ::-1]
    found = engine.to_host(engine.run('segmenter', {'image': mirrored[None]})['mask'])
    expected = engine.to_host(engine.run('segmenter', {'image': mirrored.copy()[None]})['mask'])
    assert np.array_equal(found, expected)


def test_an_unknown_graph_is_refused_with_those_there_are(engine):
    for graph in ('nonsense', 'forward', 'state_dict'):
        with pytest.raises(EngineError, match=f"no graph '{graph}'; it has segmenter, warp, correction"):
            engine.run(graph, {})


def test_a_missing_tensor_is_refused_by_name(engine, street):
    with pytest.raises(EngineError, match=r"'correction' needs warped, reference_labels; the step has image"):
        engine.run('correction', {'image': street[0][None]})


def test_an_engine_says_what_a_bug_report_needs(engine):
    described = engine.describe()
    assert described['engine'] == engine.name
    assert {'version', 'device', 'precision', 'threads'} <= set(described)
    assert all(isinstance(value, str) and value for value in described.values())


def test_auto_says_what_it_took_and_why_nothing_before_it(model, tmp_path):
    engine = load_engine(model, EngineSettings(engine_cache=str(tmp_path / 'cache')))
    passed_over = AUTO_ORDER[: AUTO_ORDER.index(engine.name)]
    assert engine.describe()['chosen'].startswith(f'auto took {engine.name} (')
    assert all(f'; {name}: ' in engine.describe()['chosen'] for name in passed_over)


@pytest.mark.parametrize(
    ('name', 'title', 'module'),
    [
        ('torch', 'PyTorch', 'vss_ros.torch_engine.engine'),
        ('onnxruntime', 'ONNX Runtime', 'vss_ros.core.engines.onnx_runtime'),
        ('openvino', 'OpenVINO', 'vss_ros.core.engines.openvino'),
        ('tensorrt', 'TensorRT', 'vss_ros.core.engines.tensor_rt'),
    ],
)
@pytest.mark.parametrize('kind', ['ImportError', 'OSError'])
def test_a_runtime_that_is_installed_and_cannot_be_loaded_is_refused_with_the_cause(
    tmp_path, monkeypatch, name, title, module, kind
):
    (tmp_path / f'{name}.py').write_text(f"raise {kind}('libcudart.so.12: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, name, raising=False)
    for loaded in (module, f'{module}_build'):
        monkeypatch.delitem(sys.modules, loaded, raising=False)
    with pytest.raises(EngineError, match=rf'{title} cannot be loaded: libcudart\.so\.12'):
        engine_class(name)


def test_torch_without_the_library_that_reads_weights_is_refused_by_its_name(monkeypatch):
    pytest.importorskip('torch')
    for module in ('safetensors', 'safetensors.torch'):
        monkeypatch.setitem(sys.modules, module, None)
    for module in ('vss_ros.torch_engine.engine', 'vss_ros.exporting.weights'):
        monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(MissingLibraryError, match=r'safetensors is not installed; .*vss_ros\[train\]'):
        engine_class('torch')


def test_auto_says_why_no_engine_works(model):
    if has_cuda():
        pytest.skip('this machine has CUDA')
    with pytest.raises(
        EngineError, match=r'no engine can run this model here; tensorrt: .*onnxruntime: .*precision is fp16'
    ):
        load_engine(model, EngineSettings(precision='fp16'))


def test_onnx_runtime_refuses_a_precision_it_does_not_have(model):
    with pytest.raises(EngineError, match='precision is bf16; set precision to fp32'):
        load_engine(model, EngineSettings('onnxruntime', 'bf16'))


def test_onnx_runtime_refuses_a_graph_that_is_not_the_one_described(model, tiny_model):
    graphs = {**model.graphs, 'warp': dataclasses.replace(model.graphs['warp'], inputs={})}
    with pytest.raises(EngineError, match=r'warp\.onnx: its inputs are not those of model\.yaml'):
        load_engine(dataclasses.replace(model, graphs=graphs), EngineSettings('onnxruntime'))


def test_onnx_runtime_refuses_a_file_that_is_no_graph(model, tmp_path):
    file = tmp_path / 'warp.onnx'
    file.write_text('no graph')
    warp = dataclasses.replace(model.graphs['warp'], file=file, sha256=sha256_of(file))
    graphs = {**model.graphs, 'warp': warp}
    with pytest.raises(EngineError, match=r'ONNX Runtime refuses .*warp\.onnx'):
        load_engine(dataclasses.replace(model, graphs=graphs), EngineSettings('onnxruntime'))


@pytest.mark.parametrize('name', ['onnxruntime', 'openvino'])
def test_a_file_that_was_changed_after_the_model_was_read_is_refused(tiny_model, tmp_path, name):
    pytest.importorskip(name)
    folder = Path(shutil.copytree(tiny_model, tmp_path / 'model'))
    model = load_model(folder)
    with (folder / 'warp.onnx').open('ab') as file:
        file.write(b'more')
    with pytest.raises(ModelError, match=r'warp\.onnx is damaged or was changed: its sha256'):
        load_engine(model, EngineSettings(name, engine_cache=str(tmp_path / 'cache')))


@pytest.mark.parametrize('name', ['onnxruntime', 'openvino'])
@pytest.mark.parametrize('place', ['w', 'weights/' + 'w' * 200])
def test_tensors_in_another_file_are_refused_because_nothing_vouches_for_it(model, tmp_path, name, place):
    onnx, _ = pytest.importorskip('onnx'), pytest.importorskip(name)
    file = tmp_path / 'segmenter.onnx'
    (tmp_path / place).parent.mkdir(exist_ok=True)
    onnx.save(
        onnx.load(str(model.graphs['segmenter'].file)),
        str(file),
        save_as_external_data=True,
        location=place,
        size_threshold=1024,
    )
    graph = dataclasses.replace(model.graphs['segmenter'], file=file, sha256=sha256_of(file))
    other = dataclasses.replace(model, graphs={**model.graphs, 'segmenter': graph})
    with pytest.raises(ModelError, match=r'segmenter\.onnx keeps tensors in another file'):
        load_engine(other, EngineSettings(name, engine_cache=str(tmp_path / 'cache')))


@pytest.mark.parametrize(
    'entry',
    [
        b'\x0a\x08location\x12\x01w',
        b'\x12\x01w\x0a\x08location',  # fields may come in any order
        b'\x0a\x88\x00location\x12\x01w',  # and a length may be padded
        b'\x0a\x88\x80\x80\x00location\x12\x01w',
    ],
)
def test_another_file_is_found_in_whatever_form_it_is_named(model, tmp_path, entry):
    onnx = pytest.importorskip('onnx')
    field = b'\x6a' + bytes([len(entry)]) + entry
    tensor = onnx.TensorProto.FromString(field)
    assert [(each.key, each.value) for each in tensor.external_data] == [('location', 'w')]
    file = tmp_path / 'segmenter.onnx'
    file.write_bytes(field)
    graph = dataclasses.replace(model.graphs['segmenter'], file=file, sha256=sha256_of(file))
    with pytest.raises(ModelError, match='keeps tensors in another file'):
        graph.read()


def test_onnx_runtime_reports_a_tensor_of_the_wrong_size_by_graph(engines):
    with pytest.raises(EngineError, match="graph 'segmenter' failed in ONNX Runtime"):
        engines['onnxruntime'].run('segmenter', {'image': np.zeros((1, 8, 8, 3), np.uint8)})


@pytest.mark.parametrize(
    ('name', 'module', 'cores'),
    [('openvino', 'vss_ros.core.engines.openvino', 1), ('torch', 'vss_ros.torch_engine.engine', 3)],
)
def test_a_cpu_has_one_thread_for_each_core_that_may_be_used(model, monkeypatch, name, module, cores):
    pytest.importorskip(name)
    torch = pytest.importorskip('torch')
    monkeypatch.setattr(f'{module}.usable_cores', lambda: cores)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    before = torch.get_num_threads()
    try:
        described = load_engine(model, EngineSettings(name)).describe()
    finally:
        torch.set_num_threads(before)
    assert described['threads'] == str(cores)


def test_torch_refuses_a_gpu_that_is_not_there(model):
    with pytest.raises(EngineError, match='gpu_id is 97; PyTorch sees'):
        load_engine(model, EngineSettings('torch', gpu_id=97))


def test_torch_refuses_half_precision_on_the_cpu(model):
    if has_cuda():
        pytest.skip('this machine has CUDA')
    with pytest.raises(EngineError, match=r'fp16 on CUDA only.*set precision to fp32'):
        load_engine(model, EngineSettings('torch', 'fp16'))


@pytest.mark.parametrize('precision', ['bf16', 'fp16'])
def test_lower_precision_changes_few_pixels(model, engines, street, precision):
    try:
        engine = load_engine(model, EngineSettings('torch', precision))
    except PrecisionError as error:  # this processor has no such arithmetic
        pytest.skip(str(error))
    found = segment(model, engine, frames(street[:4]))
    for one, other in zip(found, segment(model, engines['torch'], frames(street[:4])), strict=True):
        assert (one.mask != other.mask).mean() < 0.05
    assert engine.describe()['precision'] == precision


def test_torch_refuses_a_model_without_weights(model):
    with pytest.raises(ModelError, match='has no weights, only graphs'):
        load_engine(dataclasses.replace(model, weights=None), EngineSettings('torch'))


def test_torch_refuses_weights_of_other_networks(model):
    with pytest.raises(ModelError, match=r'weights\.safetensors does not fit method evss'):
        load_engine(dataclasses.replace(model, method='evss', options={}), EngineSettings('torch'))
