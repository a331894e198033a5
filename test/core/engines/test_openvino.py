"""What is OpenVINO's alone: names of ports."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

pytest.importorskip('openvino')

from vss_ros.core.engines.openvino import _names


@pytest.mark.parametrize(('wanted', 'name'), [(['labels', 'scores'], 'scores'), (['warped'], 'warped')])
@pytest.mark.parametrize('any_name', ['scores', 'warped'])
def test_a_port_with_the_names_of_an_input_and_an_output_gets_that_of_the_model(wanted, name, any_name):
    port = SimpleNamespace(names={'scores', 'warped'}, any_name=any_name)  # as OpenVINO 2024.4 to 2025.3 has
    assert _names([port], wanted) == [name]


def test_a_port_that_the_model_does_not_name_keeps_its_name():
    assert _names([SimpleNamespace(names={'extra'}, any_name='extra')], ['scores']) == ['extra']
