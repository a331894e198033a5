"""Graphs of other precisions beside those in fp32."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from vss_ros.core.engines import load_engine
from vss_ros.core.errors import EngineError, ModelError
from vss_ros.core.files.share import DEFAULT_MODEL
from vss_ros.core.frame import Frame
from vss_ros.core.model.folder import load_model
from vss_ros.core.settings import EngineSettings
from vss_ros.core.stream.segmenter import VideoSegmenter

pytest.importorskip('onnxscript')

import torch
from method_models import CLASSES, SIZE, VARIANTS

from vss_ros.exporting import precisions
from vss_ros.exporting.export import export
from vss_ros.exporting.lower_precision import lower_precision
from vss_ros.exporting.verify import example_frames
from vss_ros.exporting.weights import load_method
from vss_ros.methods import build_method


@pytest.fixture(scope='module')
def model(shared_folder, street):
    """The default model's weights in small graphs, in fp32, fp16 and int8.

    Not random weights: those spread near ties all over the image, which int8 decides either way.
    """

    def write(folder):
        method = load_method(load_model(DEFAULT_MODEL))
        export(method, folder, name='small', class_set='camvid11', image_size=street[0].shape[:2])
        precisions.add_fp16(load_model(folder))
        precisions.add_int8(load_model(folder), street)

    return load_model(shared_folder('precisions', write))


@pytest.mark.parametrize('variant', VARIANTS)
def test_every_method_computes_in_half_precision_between_the_same_tensors(variant):
    name, options = VARIANTS[variant]
    torch.manual_seed(0)
    method = build_method(name, CLASSES, options).eval()
    image = torch.from_numpy(example_frames(SIZE, 1)[0])[None]
    with torch.no_grad():
        exact = method.examples(image)
        lower = lower_precision(method, torch.bfloat16).examples(image)
    assert any(parameter.dtype == torch.bfloat16 for parameter in method.parameters())
    for graph, example in exact.items():
        for output, expected in example.outputs.items():
            found = lower[graph].outputs[output]
            assert found.dtype == expected.dtype, output
            assert found.shape == expected.shape, output


def test_an_fp16_graph_computes_in_half_precision_between_float32_tensors(model):
    for name in ('segmenter', 'correction'):
        proto = onnx.load(str(model.graphs_in('fp16')[name].file))
        kernels = [tensor.data_type for tensor in proto.graph.initializer if len(tensor.dims) == 4]
        assert set(kernels) == {TensorProto.FLOAT16}
        border = [*proto.graph.input, *proto.graph.output]
        assert {value.type.tensor_type.elem_type for value in border} <= {
            TensorProto.FLOAT,
            TensorProto.UINT8,
        }


@pytest.mark.parametrize(
    ('form', 'is_there'), [('fp32', True), ('int8', True), ('fp16', False), ('int8_symmetric', False)]
)
def test_graphs_for_gpus_have_no_argmax(model, form, is_there):
    for name in ('segmenter', 'correction'):
        nodes = onnx.load(str(model.graphs_in(form)[name].file)).graph.node
        assert ('ArgMax' in {node.op_type for node in nodes}) == is_there


def test_the_warp_stays_in_float32(model):
    assert model.graphs_in('fp16')['warp'] == model.graphs['warp']
    assert model.graphs_in('int8')['warp'] == model.graphs['warp']


def test_adding_a_precision_leaves_the_fp32_graphs_as_they_were(model, tmp_path):
    method = load_method(load_model(DEFAULT_MODEL))
    again = export(method, tmp_path / 'm', name='small', class_set='camvid11', image_size=model.image_size)
    for name, graph in again.graphs.items():
        assert (model.graphs[name].sha256, model.graphs[name].inputs) == (graph.sha256, graph.inputs)


def in_floats(model, form):
    """Which convolutions of a form's segmenter stay in fp32."""
    nodes = onnx.load(str(model.graphs_in(form)['segmenter'].file)).graph.node
    dequantised = {name for node in nodes if node.op_type == 'DequantizeLinear' for name in node.output}
    convolutions = [node for node in nodes if node.op_type == 'Conv']
    return [not {node.input[0], node.input[1]} <= dequantised for node in convolutions]


def test_int8_graphs_quantise_convolutions_and_nothing_else(model):
    floats = in_floats(model, 'int8')
    assert floats == [True, True, *[False] * (len(floats) - 3), True]  # the ends stay fp32


def test_what_reads_an_instance_norm_stays_in_floats_for_openvino(model):
    nodes = onnx.load(str(model.graphs['segmenter'].file)).graph.node
    norms = [node.op_type for node in nodes].count('InstanceNormalization')
    assert norms == 7  # one in each block but those at 1/32, and one in the stem
    assert sum(in_floats(model, 'int8_symmetric')) == 3 + norms


def zero_points(model, form):
    """Types and values of the zero points of activations and of weights in a form's segmenter."""
    graph = onnx.load(str(model.graphs_in(form)['segmenter'].file)).graph
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    activations = [arrays[n.input[2]] for n in graph.node if n.op_type == 'QuantizeLinear']
    kernels = [
        arrays[n.input[2]]
        for n in graph.node
        if n.op_type == 'DequantizeLinear' and n.input[0] in arrays and arrays[n.input[0]].ndim == 4
    ]
    return activations, kernels


def test_the_symmetric_form_is_the_one_that_tensorrt_takes(model):
    activations, kernels = zero_points(model, 'int8_symmetric')
    assert activations
    assert kernels
    assert all(zero.dtype == np.int8 and not zero.any() for zero in (*activations, *kernels))
    graph = onnx.load(str(model.graphs_in('int8_symmetric')['segmenter'].file)).graph
    assert not any(tensor.data_type == TensorProto.INT32 and tensor.dims for tensor in graph.initializer)


def test_the_form_for_cpus_has_unsigned_activations_and_weights_per_channel(model):
    activations, kernels = zero_points(model, 'int8')
    assert {zero.dtype for zero in activations} == {np.dtype(np.uint8)}
    assert {zero.dtype for zero in kernels} == {np.dtype(np.int8)}
    assert any(zero.size > 1 for zero in kernels)


def test_weights_for_cpus_cannot_overflow_sixteen_bits(model):
    """Processors without VNNI add two products of 8 bits in 16."""
    graph = onnx.load(str(model.graphs_in('int8')['segmenter'].file)).graph
    kernels = [numpy_helper.to_array(t) for t in graph.initializer if t.data_type == TensorProto.INT8]
    kernels = [kernel for kernel in kernels if kernel.ndim == 4]
    assert kernels
    assert max(int(np.abs(kernel.astype(int)).max()) for kernel in kernels) <= 64


@pytest.mark.parametrize('engine', ['onnxruntime', 'openvino'])
def test_an_int8_stream_differs_from_fp32_in_few_pixels(model, street, engine, tmp_path):
    if engine == 'openvino':
        pytest.importorskip('openvino')
    masks = {}
    for precision in ('fp32', 'int8'):
        settings = EngineSettings(engine, precision, engine_cache=str(tmp_path / 'cache'))
        loaded = load_engine(model, settings)
        assert loaded.describe()['precision'] == precision
        segmenter = VideoSegmenter(model, loaded)
        stream = [Frame(image, n * 50_000_000) for n, image in enumerate(street)]
        masks[precision] = np.stack([segmenter.step(frame).mask for frame in stream])
    assert 0.85 < (masks['fp32'] == masks['int8']).mean() < 1


def test_onnx_runtime_on_the_cpu_does_not_pretend_to_run_fp16(model):
    with pytest.raises(EngineError, match='precision is fp16; set precision to fp32'):
        load_engine(model, EngineSettings('onnxruntime', 'fp16'))


def test_a_precision_that_is_not_there_is_named_with_the_command_that_makes_it(tiny_model):
    with pytest.raises(
        ModelError, match=r'has no int8 graphs; make them with: vss export .* --precision int8'
    ):
        load_engine(load_model(tiny_model), EngineSettings('onnxruntime', 'int8'))


@pytest.mark.parametrize(
    ('precision', 'options'),
    [('fp16', 'fp16'), ('int8', 'int8 --calibrate FOLDER'), ('int8_symmetric', 'int8 --calibrate FOLDER')],
)
def test_a_model_that_came_with_the_package_is_copied_for_another_precision(precision, options):
    with pytest.raises(
        ModelError,
        match=f'make a copy that has them with: vss export .*evss-lite -o mine --precision {options}$',
    ):
        load_model('camvid-evss-lite').graphs_in(precision)


def test_graphs_beyond_tolerance_are_refused_and_nothing_is_written(tiny_model, tmp_path, monkeypatch):
    folder = tmp_path / 'tiny'
    shutil.copytree(tiny_model, folder)
    before = sorted(file.name for file in folder.iterdir())

    def spoilt(method, dtype):
        for parameter in method.parameters():
            parameter.data.mul_(1.3)
        return lower(method, dtype)

    lower = precisions.lower_precision
    monkeypatch.setattr(precisions, 'lower_precision', spoilt)
    with pytest.raises(ModelError, match=r"fp16 computes graph 'segmenter' .* wrongly.*Nothing was written"):
        precisions.add_fp16(load_model(folder))
    assert sorted(file.name for file in folder.iterdir()) == before


@pytest.mark.parametrize(('images', 'missing'), [(0, 'segmenter, correction'), (1, 'correction')])
def test_int8_with_too_few_images_is_refused_before_any_work(tiny_model, street, images, missing):
    before = sorted(tiny_model.iterdir())
    with pytest.raises(ModelError, match=f'too few images to calibrate int8 on: none reached {missing};'):
        precisions.add_int8(load_model(tiny_model), street[:images])
    assert sorted(tiny_model.iterdir()) == before


def test_a_damaged_file_of_another_precision_is_found(model, tmp_path):
    folder = tmp_path / 'tiny'
    shutil.copytree(model.path, folder)
    [file] = folder.glob('segmenter.fp16-*.onnx')
    file.write_bytes(b'')
    with pytest.raises(ModelError, match=r'segmenter\.fp16-\w+\.onnx is damaged'):
        load_model(folder)


@pytest.mark.parametrize('preference', [0, 1000])
def test_a_comparison_that_sees_one_class_only_is_said_to_show_little(tmp_path, caplog, preference):
    method = load_method(load_model(DEFAULT_MODEL), {'decision': 'quarter'}, 'per-frame')
    with torch.no_grad():
        method.csrnet.scores.bias[3] += preference
    road = export(method, tmp_path / 'm', name='m', class_set='camvid11', image_size=SIZE)
    precisions.add_fp16(road)
    said = 'model m finds only class road on the frames of this comparison' in caplog.text
    assert said == bool(preference)


def test_if_the_second_form_of_int8_is_refused_the_first_is_not_written_either(
    tiny_model, tmp_path, street, monkeypatch
):
    folder = Path(shutil.copytree(tiny_model, tmp_path / 'tiny'))
    before = {file.name: file.read_bytes() for file in folder.iterdir()}

    def refuse(results, model, what):
        if what == 'int8_symmetric':
            raise EngineError('it computes wrongly')

    monkeypatch.setattr(precisions, 'refuse_failed', refuse)
    with pytest.raises(ModelError, match='Nothing was written'):
        precisions.add_int8(load_model(folder), street[:4])
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_a_model_to_which_a_precision_is_added_again_is_whole_at_any_time(model, tmp_path, monkeypatch):
    folder = Path(shutil.copytree(model.path, tmp_path / 'tiny'))
    files = {file.name for file in folder.iterdir()}

    def stopped(content, file):
        assert load_model(folder).has_precision('fp16')  # the new files are there, not yet named
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(precisions, 'write_yaml', stopped)
        with pytest.raises(KeyboardInterrupt):
            precisions.add_fp16(load_model(folder))
    assert load_model(folder).has_precision('fp16')
    precisions.add_fp16(load_model(folder))
    assert {file.name for file in folder.iterdir()} == files
