"""Transitions, services, parameters and images, good and bad, in an order that nobody has thought of."""

from __future__ import annotations

import random

import numpy as np
import pytest
from ros_harness import TRANSITIONS, values_of
from sensor_msgs.msg import Image

STEPS = 250
LARGEST = 1_000_000  # bytes of data
SIDES = (0, 1, 2, 3, 16, 48, 64, 8193, 2**32 - 1)
ENCODINGS = ('bgr8', 'mono8', 'mono16', 'bayer_rggb8', 'yuv422', 'nv12', '16UC1', '32FC1', '', 'x' * 2000)
FATES = ('published', 'dropped', 'discarded', 'undecoded', 'bad', 'failed', 'given_up')
STEPS_NS = (33_000_000,) * 6 + (0, -50_000_000, 5 * 10**9)
VALUES = {
    'overlay_alpha': (0.0, 1.0, 2.0, float('nan')),
    'confidence_threshold': (0.0, 0.5, float('inf')),
    'key_frame_interval': (1, 2, 0),
    'scheduler': ('fixed', 'adaptive', 'random'),
    'max_rate': (0.0, 1000.0, 5e-324),
    'max_key_share': (1.0, 0.5, 1e-5),
    'min_interval': (1, 100),
    'image_transport': ('raw', 'compressed', 'ffmpeg'),
    'drop_policy': ('latest', 'queue'),
    'background_key_frames': (True, False),
    'output_size': ('input', 'network'),
    'motion': ('model', 'dis', 'dis_third', 'dis_half', 'network'),
    'label_info_period': (0.0, 10.0, 1e-9),
}


@pytest.mark.parametrize('seed', [1, 2])
def test_no_order_of_events_ends_the_node_or_keeps_it_from_working_afterwards(robot, node, seed):
    chance = random.Random(seed)
    robot.listen_to_all()
    for _ in range(STEPS):
        act(robot, chance)
        robot.probe.spin_for(chance.choice([0, 0, 0.01]))
        assert node.is_alive, node.log[-2000:]
    robot.stop()
    robot.restore()
    assert robot.enable(True).success
    robot.start()
    robot.show(robot.image())
    assert 'Traceback' not in node.log


@pytest.mark.parametrize('policy', ['latest', 'queue'])
def test_every_image_that_came_is_counted_by_what_became_of_it(robot, policy):
    chance = random.Random(3)
    assert robot.set(drop_policy=policy, queue_size=2) == ''
    robot.listen('mask', Image)
    robot.start()
    for _ in range(STEPS):
        deed = chance.choice(['enable', 'restart', 'trigger', *['good image', 'any image'] * 20])
        if deed == 'enable':
            assert robot.enable(False).success
            assert robot.enable(True).success
        elif deed == 'restart':
            assert robot.change('deactivate')
            assert robot.change('activate')
        elif deed == 'trigger':
            assert robot.trigger('request_key_frame').success
        else:
            robot.camera.publish(robot.image() if deed == 'good image' else any_image(robot, chance))
    robot.show()
    robot.received['diagnostics'].clear()  # of when it was inactive before
    assert robot.change('deactivate')  # now none waits
    counts = values_of(robot.diagnostics(lambda status: status.message == 'inactive', 'what was counted'))
    assert int(counts['received']) == sum(int(counts[what]) for what in FATES)


def act(robot, chance: random.Random) -> None:
    """Does one thing."""
    deed = chance.choice([*TRANSITIONS, 'enable', 'trigger', 'set', 'set', *['good image', 'any image'] * 3])
    if deed in TRANSITIONS:
        robot.change(deed)
    elif deed == 'enable':
        robot.enable(chance.random() < 0.7)
    elif deed == 'trigger':
        robot.trigger(chance.choice(['reset', 'request_key_frame']))
    elif deed == 'set':
        names = chance.sample(list(VALUES), chance.choice([1, 1, 3]))
        robot.set_together(**{name: chance.choice(VALUES[name]) for name in names})
    elif deed == 'good image':
        robot.camera.publish(robot.image(3, chance.choice([(48, 64), (1, 1), (1, 500), (2, 2)])))
    else:
        robot.camera.publish(any_image(robot, chance))


def any_image(robot, chance: random.Random):
    """An image whose fields need not fit each other."""
    message = robot.image()
    robot.stamp(message, chance.choice(STEPS_NS))
    message.height, message.width = chance.choice(SIDES), chance.choice(SIDES)
    message.encoding, message.is_bigendian = chance.choice(ENCODINGS), chance.choice([0, 1, 255])
    message.step = chance.choice([message.width, 3 * message.width + 7, 2**32 - 1, 0]) % 2**32
    size = min(message.step * message.height, LARGEST) + chance.choice([0, 0, 0, 1])
    message.data = type(message.data)('B', np.zeros(size, np.uint8).tobytes())
    return message
