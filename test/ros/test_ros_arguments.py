"""What the command line and files of parameters may say, and what is said of the rest."""

import re

import pytest
import yaml
from ros_harness import OUTPUTS, PROGRAM, NodeProcess

from vss_ros.ros.parameters import TABLE


def test_the_help_names_every_parameter_and_every_topic(tmp_path):
    node = NodeProcess(tmp_path, 'helping', program=(*PROGRAM, '--help'))
    assert node.wait() == 0
    text = ' '.join(node.log.split())
    for entry in TABLE:
        assert f' {entry.name} (' in text
        assert f'): {entry.description.text}' in text
    for topic in OUTPUTS:
        assert re.search(rf'~/{topic}\b', text)
    assert ' gpu_id (0): ' in text
    assert ' engine_cache (empty): ' in text
    assert 'docs/ros_interface.md' in text


@pytest.mark.parametrize('word', ['--autostart', 'front'])
def test_arguments_that_are_not_known_end_the_start_with_code_2(tmp_path, word):
    node = NodeProcess(tmp_path, 'misled', program=(*PROGRAM, word))
    assert node.wait() == 2
    assert f'error: unknown arguments: {word}; those of ROS come after --ros-args' in node.log


# rclpy takes these, the last of them when the topic is made.
KNOWN = {
    'use_sim_time': False,
    'start_type_description_service': False,
    'key_frame_interval': 3,
    'qos_overrides./image_raw.subscription.depth': 3,
}
OTHERS = {'of_another.node': 1, 'max_allowed_processing_time_ms': 90.0, 'key_frame_intervall': 3, 'xyz': 1}
WARNING = (
    'parameters that are not known and do nothing: '
    'key_frame_intervall (did you mean key_frame_interval?), '
    'max_allowed_processing_time_ms (did you mean diagnostics.max_allowed_processing_time_ms?), '
    'of_another.node, xyz'
)


def as_options(folder, values):
    return [word for name, value in values.items() for word in ('-p', f'{name}:={str(value).lower()}')]


def as_file(folder, values):
    path = folder / 'parameters.yaml'
    path.write_text(yaml.safe_dump({'/**': {'ros__parameters': values}}))
    return ['--params-file', str(path)]


@pytest.mark.parametrize('given', [as_options, as_file])
def test_parameters_that_are_not_known_are_named_at_start_in_one_line_with_what_may_be_meant(
    tmp_path, robot_in, given
):
    with NodeProcess(tmp_path, 'misspelt', *given(tmp_path, OTHERS | KNOWN)) as node:
        assert robot_in('misspelt').state == 'unconfigured'  # it starts all the same
        assert re.findall(r'param.* not known.*', node.log) == [WARNING]


@pytest.mark.parametrize('given', [as_options, as_file])
def test_a_whole_number_given_at_start_is_understood_as_a_double(tmp_path, robot_in, given):
    with NodeProcess(tmp_path, 'whole', *given(tmp_path, {'max_rate': 10, 'queue_size': 7})):
        robot = robot_in('whole')
        assert (robot.get('max_rate'), robot.get('queue_size')) == (10.0, 7)


def test_overrides_of_topics_that_the_node_does_not_have_are_named_when_its_topics_are_there(
    tmp_path, robot_in, echo_model
):
    start = 'qos_overrides./astray'
    given = {
        f'{start}/image_raw.subscription.depth': 3,
        f'{start}/image_rw.subscription.depth': 3,
        f'{start}/segmentation/mask.publisher.depth': 3,
        'qos_overrides./lidar/points.publisher.reliability': 'best_effort',
    }
    with NodeProcess(tmp_path, 'astray', *as_file(tmp_path, given), model=echo_model) as node:
        robot = robot_in('astray')
        robot.start()
        assert re.findall(r'QoS overrides of .*', node.log) == [
            'QoS overrides of topics that are not there and do nothing: '
            f'{start}/image_rw.subscription.depth (did you mean {start}/image_raw.subscription.depth?), '
            'qos_overrides./lidar/points.publisher.reliability'
        ]
