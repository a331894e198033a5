"""Starts the segmentation node for one camera.

    ros2 launch vss_ros segmentation.launch.py namespace:=front_camera
    ros2 launch vss_ros segmentation.launch.py input_image_topic:=/camera/color/image_raw rviz:=true

An argument that is left empty leaves the matter to `params_file`. Only `autostart` is true whatever that
says, unless false is given.
"""

import os
import tempfile
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import OpaqueFunction
from launch_ros.actions import LifecycleNode, Node

from vss_ros.core.settings import ENGINES, PRECISIONS
from vss_ros.ros.fast_dds import use_image_profile
from vss_ros.ros.launch_arguments import declared, is_true, values_of, whole_number
from vss_ros.ros.settings import IMAGE_TRANSPORTS

SHARE = get_package_share_directory('vss_ros')
FOLDER = tempfile.TemporaryDirectory(prefix='vss_ros_')  # until the end of this process

ARGUMENTS = (
    ('namespace', '', "the camera's namespace"),
    ('params_file', os.path.join(SHARE, 'config', 'segmentation.yaml'), 'parameters of the node'),
    ('input_image_topic', 'image_raw', 'the image topic; camera_info is expected beside it'),
    ('image_transport', '', f'{", ".join(IMAGE_TRANSPORTS)}, or any that image_transport can turn into raw'),
    ('model', '', 'name of a model or path of a model folder'),
    ('engine', '', ', '.join(ENGINES)),
    ('precision', '', ', '.join(PRECISIONS)),
    ('gpu_id', '', 'which GPU, from 0'),
    ('use_sim_time', '', 'take the time from /clock'),
    ('autostart', 'true', 'configure and activate the node; false leaves that to a lifecycle manager'),
    ('rviz', 'false', 'show camera, overlay, mask and confidence'),
    ('log_level', 'info', 'debug, info, warn, error or fatal'),
)


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription([*declared(ARGUMENTS), OpaqueFunction(function=start)])


def start(context: LaunchContext) -> list:
    """The nodes, once the arguments are known."""
    use_image_profile(Path(FOLDER.name))
    values = values_of(context, ARGUMENTS)
    topic, transport = values['input_image_topic'], values['image_transport']
    actions = []
    if transport not in ('', *IMAGE_TRANSPORTS):
        actions.append(republish(values))
        topic, transport = f'{topic}_decoded', 'raw'

    parameters: dict = {'autostart': is_true(values, 'autostart')}
    if values['use_sim_time']:
        parameters['use_sim_time'] = is_true(values, 'use_sim_time')
    given = {
        **{name: values[name] for name in ('model', 'engine', 'precision')},
        'image_transport': transport,
    }
    parameters.update({name: value for name, value in given.items() if value})
    if values['gpu_id']:
        parameters['gpu_id'] = whole_number(values, 'gpu_id')

    actions.append(
        LifecycleNode(
            package='vss_ros',
            executable='segmentation_node',
            name='segmentation',
            namespace=values['namespace'],
            parameters=[values['params_file'], parameters],
            remappings=[('image_raw', topic)] if topic != 'image_raw' else [],
            arguments=['--ros-args', '--log-level', values['log_level']],
            output='screen',
            emulate_tty=True,
        )
    )
    if is_true(values, 'rviz'):
        actions.append(rviz(values, topic))
    return actions


def republish(values: dict) -> Node:
    """Turns another transport into raw images on `<topic>_decoded`."""
    topic, transport = values['input_image_topic'], values['image_transport']
    return Node(
        package='image_transport',
        executable='republish',
        name='segmentation_republish',
        namespace=values['namespace'],
        arguments=[transport, 'raw'],  # Humble reads these, later releases the parameters
        parameters=[
            {
                'in_transport': transport,
                'out_transport': 'raw',
                'use_sim_time': is_true(values, 'use_sim_time'),
            }
        ],
        remappings=[
            ('in', topic),
            (f'in/{transport}', f'{topic}/{transport}'),
            ('out', f'{topic}_decoded'),
        ],
        output='screen',
    )


def rviz(values: dict, topic: str) -> Node:
    """RViz with the topics of this namespace."""
    space = '/' + values['namespace'].strip('/') if values['namespace'].strip('/') else ''
    image = topic if topic.startswith('/') else f'{space}/{topic}'
    pairs = [('/image_raw', image)]
    if space:
        names = ('color_mask', 'confidence', 'overlay')
        pairs += [(f'/segmentation/{name}', f'{space}/segmentation/{name}') for name in names]
    return Node(
        package='rviz2',
        executable='rviz2',
        name='segmentation_rviz',
        namespace=values['namespace'],
        arguments=['-d', os.path.join(SHARE, 'rviz', 'segmentation.rviz')],
        parameters=[{'use_sim_time': is_true(values, 'use_sim_time')}],
        remappings=pairs,
        output='screen',
    )
