"""Static int8 quantisation of a file: `python -m vss_ros.exporting.quantise SOURCE TARGET INPUTS FORM`.

INPUTS is an npz file of arrays named `number/input`: what the graph takes on the frames to calibrate on.
FORM is one of FORMS.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

QUANTISED = ('Conv',)  # nearly all of the time; what lies between the networks stays fp32
# Symmetric activations, with fp32 biases, are what TensorRT takes and what OpenVINO is fastest with; unsigned
# ones what ONNX Runtime is fast with on CPUs.
FORMS = ('int8', 'int8_symmetric')
PERCENTILE = 99.99  # of an activation's values that its range holds; a few outliers would cost all others


class Reader:
    """Hands the inputs to the quantiser, some at a time: it keeps every activation of those it was given."""

    def __init__(self, file: str) -> None:
        arrays = np.load(file, allow_pickle=False)
        feeds: dict[str, dict[str, np.ndarray]] = {}
        for name in arrays.files:
            number, _, tensor = name.partition('/')
            feeds.setdefault(number, {})[tensor] = arrays[name]
        self._feeds = list(feeds.values())
        self.set_range(0, len(self._feeds))

    def __len__(self) -> int:
        return len(self._feeds)

    def set_range(self, start_index: int, end_index: int) -> None:
        self._next: Iterator[dict[str, np.ndarray]] = iter(self._feeds[start_index:end_index])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._next, None)


def main(source: str, target: str, inputs: str, form: str) -> None:
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    is_symmetric = form == 'int8_symmetric'
    quantize_static(
        source,
        target,
        Reader(inputs),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QInt8 if is_symmetric else QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        # A CPU without VNNI adds two products in 16 bits, where weights of 7 bits cannot overflow.
        reduce_range=not is_symmetric,
        per_channel=True,
        op_types_to_quantize=list(QUANTISED),
        nodes_to_exclude=_kept(source, is_symmetric),
        calibrate_method=CalibrationMethod.Percentile,
        extra_options={
            'WeightSymmetric': True,
            'ActivationSymmetric': is_symmetric,
            'QuantizeBias': not is_symmetric,
            'CalibPercentile': PERCENTILE,
            'CalibStridedMinMax': 1,  # frames at a time, for the other methods of calibration, too
        },
    )


def _kept(file: str, is_symmetric: bool) -> list[str]:
    """The first two convolutions and the last one: they cost little time and, in int8, most of the accuracy.

    The second, because ONNX Runtime would reorder the map of the first, the largest of all, for it in int8.
    In the symmetric form also those that read what an instance norm gave: OpenVINO makes the quantisation a
    part of that norm, and loses 2 % of the labels by it (2026.4).
    """
    import onnx

    nodes = onnx.load(file).graph.node
    convolutions = [node for node in nodes if node.op_type in QUANTISED]
    if len(convolutions) <= 3:
        return []
    kept = [*convolutions[:2], convolutions[-1]]
    if is_symmetric:
        makers = {output: node for node in nodes for output in node.output}
        kept += [node for node in convolutions if _reads_instance_norm(node, makers)]
    return [node.name for node in kept]


def _reads_instance_norm(convolution: Any, makers: dict[str, Any]) -> bool:
    """Whether, but for what only passes maps on, its input comes from an InstanceNormalization."""
    sources = [convolution.input[0]]
    while sources:
        maker = makers.get(sources.pop())
        if maker is None:
            continue
        if maker.op_type == 'InstanceNormalization':
            return True
        if maker.op_type in ('Relu', 'Concat'):
            sources += maker.input
    return False


if __name__ == '__main__':
    main(*sys.argv[1:])
