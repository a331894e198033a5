"""Static int8 quantisation of one ONNX file: `python -m vss_ros.methods.quantise SOURCE TARGET INPUTS`.

INPUTS is an npz file of arrays named `number/input`: what the graph takes on the frames to calibrate on.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np

QUANTISED = ('Conv',)  # nearly all of the time; what lies between the networks stays fp32


class Reader:
    """Hands the inputs to the quantiser one by one."""

    def __init__(self, file: str) -> None:
        arrays = np.load(file, allow_pickle=False)
        feeds: dict[str, dict[str, np.ndarray]] = {}
        for name in arrays.files:
            number, _, tensor = name.partition('/')
            feeds.setdefault(number, {})[tensor] = arrays[name]
        self._feeds: Iterator[dict[str, np.ndarray]] = iter(feeds.values())

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


def main(source: str, target: str, inputs: str) -> None:
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    quantize_static(
        source,
        target,
        Reader(inputs),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        op_types_to_quantize=list(QUANTISED),
        calibrate_method=CalibrationMethod.MinMax,
    )


if __name__ == '__main__':
    main(*sys.argv[1:])
