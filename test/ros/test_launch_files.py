"""The launch files and RViz, as far as they can be checked without `launch`, which has no wheel."""

import ast
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
ARGUMENTS = {
    'segmentation': (
        'namespace params_file input_image_topic image_transport model engine precision gpu_id '
        'use_sim_time autostart rviz log_level'
    ),
    'replay': 'bag rate loop delay rviz use_sim_time',
}


@pytest.mark.parametrize('name', ARGUMENTS)
def test_a_launch_file_compiles_and_takes_its_arguments(name):
    path = ROOT / 'launch' / f'{name}.launch.py'
    tree = ast.parse(path.read_text())
    compile(tree, path, 'exec')
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert 'generate_launch_description' in functions
    table = next(
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], 'id', '') == 'ARGUMENTS'
    )
    assert [ast.literal_eval(entry.elts[0]) for entry in table.elts] == ARGUMENTS[name].split()


def test_rviz_shows_camera_overlay_mask_and_confidence():
    config = yaml.safe_load((ROOT / 'rviz' / 'segmentation.rviz').read_text())
    displays = config['Visualization Manager']['Displays']
    assert {display['Name']: display['Topic']['Value'] for display in displays} == {
        'Camera': '/image_raw',
        'Overlay': '/segmentation/overlay',
        'Mask': '/segmentation/mask',
        'Confidence': '/segmentation/confidence',
    }
