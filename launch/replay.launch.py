"""Plays a bag into the segmentation node and shows the result in RViz.

    ros2 launch vss_ros replay.launch.py bag:=my_bag input_image_topic:=/camera/image_raw

The bag gives the clock. Every argument of segmentation.launch.py can be given too.
"""

import os

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
    SetEnvironmentVariable,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

SHARE = get_package_share_directory('vss_ros')
PROFILES_VARIABLES = ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE')

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
    profile = []
    if not any(os.environ.get(name) for name in PROFILES_VARIABLES):
        # The player is the publisher here, and it is the publisher that needs the room for images.
        path = os.path.join(SHARE, 'config', 'fastdds_images.xml')
        profile = [SetEnvironmentVariable(PROFILES_VARIABLES[0], path)]
    return LaunchDescription(
        [
            *profile,
            *(
                DeclareLaunchArgument(name, default_value=value, description=text)
                for name, value, text in ARGUMENTS
            ),
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
    values = {name: LaunchConfiguration(name).perform(context) for name, _, _ in ARGUMENTS}
    command = ['ros2', 'bag', 'play', values['bag'], '--rate', values['rate'], '--delay', values['delay']]
    if values['use_sim_time'].lower() == 'true':
        command.append('--clock')
    if values['loop'].lower() == 'true':
        command.append('--loop')
    return [ExecuteProcess(cmd=command, output='screen')]
