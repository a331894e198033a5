"""A model folder made by hand whose results are late, and can be told in advance.

The mask is the blue channel of the image `delay` frames before the newest one, the confidence that of the
newest one: it tells which frame had been seen when the answer was given.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from vss_ros.core.model.files import sha256_of

onnx = pytest.importorskip('onnx')
TensorProto, helper = onnx.TensorProto, onnx.helper

HEIGHT, WIDTH = 48, 64


def write_late_model(folder: Path, delay: int) -> Path:
    """Writes the folder, for a delay of 1 or more frames, and returns it."""
    older = [f'older_{age}' for age in range(1, delay + 1)]
    image = {'image': ('uint8', [1, HEIGHT, WIDTH, 3])}
    kept = {name: image['image'] for name in older}
    masks = {name: ('uint8', [1, HEIGHT, WIDTH]) for name in ('mask', 'confidence')}
    graphs = {
        'start': (image, kept, [helper.make_node('Identity', ['image'], [name]) for name in older]),
        'echo': (image | kept, masks, [_blue(older[-1], 'mask'), _blue('image', 'confidence')]),
    }
    folder.mkdir(parents=True)
    entries = {}
    for name, (inputs, outputs, nodes) in graphs.items():
        zero = helper.make_tensor('zero', TensorProto.INT64, [], [0])
        graph = helper.make_graph(nodes, name, _infos(inputs), _infos(outputs), [zero])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)
        onnx.checker.check_model(model)
        file = folder / f'{name}.onnx'
        onnx.save(model, file)
        entries[name] = {'file': file.name, 'sha256': sha256_of(file), 'inputs': inputs, 'outputs': outputs}
    description = {
        'format': 1,
        'method': 'late echo',
        'classes': 'camvid11',
        'image': {'height': HEIGHT, 'width': WIDTH},
        'steps': {'key': ['start', 'echo'], 'propagated': ['echo']},
        'state': dict(zip(['image', *older], older, strict=False)),
        'delay_frames': delay,
        'graphs': entries,
    }
    (folder / 'model.yaml').write_text(yaml.dump(description, Dumper=_PlainDumper))
    return folder


class _PlainDumper(yaml.SafeDumper):
    """Writes tuples as lists, and nothing as a reference to something before."""

    def ignore_aliases(self, data):
        return True


_PlainDumper.add_representer(tuple, yaml.SafeDumper.represent_list)


def _infos(tensors):
    return [helper.make_tensor_value_info(n, TensorProto.UINT8, shape) for n, (_, shape) in tensors.items()]


def _blue(image, mask):
    return helper.make_node('Gather', [image, 'zero'], [mask], axis=3)
