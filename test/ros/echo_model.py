"""A model folder made by hand whose answers can be told in advance.

The mask is the blue channel of the image, the confidence 250 on key frames and 200 on propagated ones,
where the distortion is 0.5 and the corrected share 0.25.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from vss_ros.core.model.files import sha256_of

onnx = pytest.importorskip('onnx')
TensorProto, helper, numpy_helper = onnx.TensorProto, onnx.helper, onnx.numpy_helper

HEIGHT, WIDTH = 48, 64
KEY_CONFIDENCE, PROPAGATED_CONFIDENCE = 250, 200
TYPES = {'uint8': TensorProto.UINT8, 'float32': TensorProto.FLOAT}


def write_echo_model(
    folder: Path,
    rounds: int = 0,
    size: tuple[int, int] = (HEIGHT, WIDTH),
    black_is_quick: bool = False,
    fails_at: int | None = None,
) -> Path:
    """Writes the folder and returns it.

    Args:
        rounds: of a loop that does nothing, to make key frames slow (0.7 to 5 us each).
        black_is_quick: no rounds for a black image, as that of the warm-up; more for more blue.
        fails_at: from this blue on the graphs end in an error of the runtime.
    """
    height, width = size
    image, mask = ('uint8', (1, height, width, 3)), ('uint8', (1, height, width))
    distortion = np.full((1, 1, height // 4, width // 4), 0.5, np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    graphs = {
        'segmenter': _graph(
            {'image': image},
            {'mask': mask, 'confidence': mask},
            [
                *_blue(),
                *_confidence(KEY_CONFIDENCE),
                *_level(rounds or fails_at),
                *_delay(rounds, black_is_quick),
                *_failure(fails_at),
            ],
        ),
        'correction': _graph(
            {'image': image, 'previous_mask': mask},
            {
                'mask': mask,
                'confidence': mask,
                'distortion': ('float32', distortion.shape),
                'corrected': ('float32', (1,)),
            },
            [
                *_blue(),
                *_confidence(PROPAGATED_CONFIDENCE),
                _constant('distortion', distortion),
                _constant('corrected', np.array([0.25], np.float32)),
                *_level(fails_at),
                *_failure(fails_at),
            ],
        ),
    }
    for name, graph in graphs.items():
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)
        onnx.checker.check_model(model)
        onnx.save(model, folder / f'{name}.onnx')
    description = {
        'format': 1,
        'method': 'echo',
        'classes': 'camvid11',
        'image': {'height': height, 'width': width},
        'steps': {'key': ['segmenter'], 'propagated': ['correction']},
        'state': {'mask': 'previous_mask'},
        'graphs': {
            name: {
                'file': f'{name}.onnx',
                'sha256': sha256_of(folder / f'{name}.onnx'),
                'inputs': _specs(graph.input),
                'outputs': _specs(graph.output),
            }
            for name, graph in graphs.items()
        },
    }
    (folder / 'model.yaml').write_text(yaml.safe_dump(description))
    return folder


def _graph(inputs, outputs, nodes):
    def infos(tensors):
        return [helper.make_tensor_value_info(n, TYPES[t], shape) for n, (t, shape) in tensors.items()]

    return helper.make_graph(nodes, 'graph', infos(inputs), infos(outputs))


def _constant(name, value):
    return helper.make_node('Constant', [], [name], value=numpy_helper.from_array(np.asarray(value)))


def _blue():
    return [_constant('zero', np.int64(0)), helper.make_node('Gather', ['image', 'zero'], ['mask'], axis=3)]


def _confidence(value):
    return [
        helper.make_node('Shape', ['mask'], ['mask_shape']),
        helper.make_node(
            'ConstantOfShape',
            ['mask_shape'],
            ['confidence'],
            value=numpy_helper.from_array(np.array([value], np.uint8)),
        ),
    ]


def _level(wanted):
    if not wanted:
        return []
    return [
        helper.make_node('Cast', ['mask'], ['levels'], to=TensorProto.INT64),
        helper.make_node('ReduceMax', ['levels'], ['level'], keepdims=0),
    ]


def _failure(fails_at):
    """Reads one of so many numbers: the runtime refuses a place that is not there."""
    if not fails_at:
        return []
    return [
        _constant('numbers', np.zeros(fails_at, np.float32)),
        helper.make_node('Gather', ['numbers', 'level'], ['number'], axis=0),
    ]


def _delay(rounds, black_is_quick):
    if not rounds:
        return []
    body = helper.make_graph(
        [
            helper.make_node('Identity', ['go'], ['go_on']),
            _constant('one', np.float32(1)),
            helper.make_node('Add', ['count', 'one'], ['count_up']),
        ],
        'body',
        [
            helper.make_tensor_value_info('i', TensorProto.INT64, ()),
            helper.make_tensor_value_info('go', TensorProto.BOOL, ()),
            helper.make_tensor_value_info('count', TensorProto.FLOAT, ()),
        ],
        [
            helper.make_tensor_value_info('go_on', TensorProto.BOOL, ()),
            helper.make_tensor_value_info('count_up', TensorProto.FLOAT, ()),
        ],
    )
    return [
        _constant('rounds', np.int64(rounds)),
        helper.make_node('Mul', ['level', 'rounds'], ['trips']),
        _constant('yes', np.bool_(True)),
        _constant('start', np.float32(0)),
        helper.make_node(
            'Loop', ['trips' if black_is_quick else 'rounds', 'yes', 'start'], ['counted'], body=body
        ),
    ]


def _specs(values):
    names = {number: name for name, number in TYPES.items()}
    return {
        value.name: [
            names[value.type.tensor_type.elem_type],
            [dim.dim_value for dim in value.type.tensor_type.shape.dim],
        ]
        for value in values
    }
