"""The camera of `vss bench --ros`: a process that publishes raw images of a street at a fixed rate.

    python -m vss_ros.ros.bench_camera NAMESPACE HEIGHT WIDTH RATE_HZ FRAMES

Prints one line of JSON when it is done: how many images were sent, and how many of them late, by more than
half a period, because the machine was busy.
"""

from __future__ import annotations

import json
import sys
import time
from itertools import cycle, islice

import rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from vss_ros.core.synthetic import StreetClip
from vss_ros.ros.conversions import image_message

PICTURES = 8  # rendered; the camera goes forward and back over them
WAIT_S = 60.0


def main(namespace: str, height: int, width: int, rate_hz: float, count: int) -> int:
    street = [frame.image for frame in StreetClip(11, PICTURES, height, width)]
    messages = [image_message(image, 'bgr8', Header(frame_id='camera')) for image in street]
    rclpy.init(args=[])
    node = Node('camera', namespace=namespace)
    try:
        images = node.create_publisher(
            Image, 'image_raw', QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        )
        deadline_s = time.monotonic() + WAIT_S
        while not images.get_subscription_count():
            if time.monotonic() > deadline_s or not rclpy.ok():
                print('nobody subscribes to the images', file=sys.stderr)
                return 1
            time.sleep(0.01)
        late = 0
        start_s = time.monotonic() + 1 / rate_hz
        there_and_back = cycle([*messages, *messages[-2:0:-1]])
        for number, message in enumerate(islice(there_and_back, count)):
            due_s = start_s + number / rate_hz
            time.sleep(max(0.0, due_s - time.monotonic()))
            late += time.monotonic() - due_s > 0.5 / rate_hz
            message.header.stamp.sec, message.header.stamp.nanosec = divmod(time.time_ns(), 10**9)
            images.publish(message)
        print(json.dumps({'sent': count, 'late': late}))
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    words = sys.argv[1:]
    sys.exit(main(words[0], int(words[1]), int(words[2]), float(words[3]), int(words[4])))
