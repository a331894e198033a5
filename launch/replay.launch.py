"""Plays a bag into the segmentation node and shows the result in RViz.

    ros2 launch vss_ros replay.launch.py bag:=my_bag input_image_topic:=/camera/image_raw

The bag gives the clock. Every argument of segmentation.launch.py can be given too.
"""

import os
import tempfile
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import ExecuteProcess, IncludeLaunchDescription, OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

from vss_ros.ros.fast_dds import use_image_profile
from vss_ros.ros.launch_arguments import declared, is_true, values_of

SHARE = get_package_share_directory('vss_ros')
FOLDER = tempfile.TemporaryDirectory(prefix='vss_ros_')  # until the end of this process

ARGUMENTS = (
    ('bag', None, 'the bag to play'),
    ('rate', '1.0', 'how fast, 1.0 is real time'),
    ('loop', 'false', 'start again at the end'),
    ('delay', '5.0', 'seconds before the bag starts, for the model to load'),
    ('rviz', 'true', 'show camera, overlay, mask and confidence'),
    ('use_sim_time', 'true', 'take the time from the bag'),
)


def generate_launch_description() -> LaunchDescription:
    launch_file = os.path.join(SHARE, 'launch', 'segmentation.launch.py')
    # The player is the publisher here, and it is the publisher that needs the room for images.
    use_image_profile(Path(FOLDER.name))
    return LaunchDescription(
        [
            *declared(ARGUMENTS),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(launch_file),
                launch_arguments={
                    name: LaunchConfiguration(name) for name in ('rviz', 'use_sim_time')
                }.items(),
            ),
            OpaqueFunction(function=play),
        ]
    )


def play(context: LaunchContext) -> list:
    """`ros2 bag play`, once the arguments are known."""
    values = values_of(context, ARGUMENTS)
    command = ['ros2', 'bag', 'play', values['bag'], '--rate', values['rate'], '--delay', values['delay']]
    if is_true(values, 'use_sim_time'):
        command.append('--clock')
    if is_true(values, 'loop'):
        command.append('--loop')
    return [ExecuteProcess(cmd=command, output='screen')]
