"""The command line of `segmentation_node`: arguments of ROS, and beside them `--help` alone."""

from __future__ import annotations

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from textwrap import fill

from vss_ros.ros.parameters import TABLE, Entry

ABOUT = """\
Segments the images of one camera topic, as a lifecycle node.

    segmentation_node --ros-args -r image_raw:=/camera/image_raw -p autostart:=true
    segmentation_node --ros-args --params-file segmentation.yaml

topics it takes:
  image_raw, or with image_transport image_raw/compressed, image_raw/ffmpeg, image_raw/foxglove
  camera_info

topics it gives:
  ~/mask, ~/confidence, ~/camera_info, ~/frame_info, ~/label_names, ~/label_info, /diagnostics
  for people: ~/color_mask, ~/overlay, ~/distortion, ~/mask/compressed

services:
  ~/enable, ~/request_key_frame, ~/reset, and those of every lifecycle node"""

MORE = """\
All parameters are in config/segmentation.yaml, to be copied and given as --params-file. More on them, on
topics and on errors is in docs/ros_interface.md of the source."""


def check_arguments(words: Sequence[str]) -> None:
    """Refuses arguments that are not known, and prints the help where that is wanted.

    Args:
        words: the arguments, without the name of the program and without those of ROS.

    Raises:
        SystemExit: the help was printed (code 0), or an error (code 2).
    """
    parser = ArgumentParser(
        prog='segmentation_node',
        usage='%(prog)s [--help] [--ros-args ...]',
        description='\n'.join([ABOUT, '', 'parameters (their defaults):', *map(_line, TABLE)]),
        epilog=MORE,
        formatter_class=RawDescriptionHelpFormatter,
    )
    _, unknown = parser.parse_known_args(words)
    if unknown:
        parser.error(f'unknown arguments: {" ".join(unknown)}; those of ROS come after --ros-args')


def _line(entry: Entry) -> str:
    default = str(entry.default).lower() if isinstance(entry.default, bool) else str(entry.default)
    choices = f'; {entry.description.values}' if entry.description.choices else ''
    text = f'{entry.name} ({default or "empty"}): {entry.descriptor().description}{choices}'
    return fill(text, 110, initial_indent='  ', subsequent_indent='      ')
