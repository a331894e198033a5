"""Every method answers real images in the real node, as it answers them without ROS."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
from ros_harness import STEP_NS, NodeProcess, Robot, pixels
from sensor_msgs.msg import Image

from vss_ros.core.engines import load_engine
from vss_ros.core.frame import Frame
from vss_ros.core.settings import EngineSettings
from vss_ros.core.stream.segmenter import VideoSegmenter
from vss_ros.core.synthetic import StreetClip

pytest.importorskip('torch')
from method_models import SIZE, method_model

from vss_ros.methods import METHODS


@pytest.fixture(scope='module')
def images():
    return [frame.image for frame in StreetClip(1, 4, *SIZE)]


@pytest.fixture(params=METHODS)
def model(request, shared_model):
    """The method with its smallest networks and random weights, as a model folder."""
    return shared_model(*method_model(request.param))


def without_ros(model, images, pauses):
    """The masks of a stream; with pauses no frame waits for the one after it."""
    engine = load_engine(model, EngineSettings('onnxruntime', threads=1))
    segmenter = VideoSegmenter(model, engine)
    answers = []
    for number, image in enumerate(images):
        answers += segmenter.answers(Frame(image, number * STEP_NS))
        answers += segmenter.flush() if pauses else ()
    return [segmentation.mask for _, segmentation in chain(answers, segmenter.flush())]


def test_the_node_answers_as_the_segmenter_does(model, images, probe, tmp_path):
    namespace = model.method.replace('-', '_')
    options = {'model': model.path, 'engine': 'onnxruntime', 'threads': 1, 'drop_policy': 'queue'}
    with NodeProcess(tmp_path, namespace, **options) as node:
        robot = Robot(probe, node.namespace)
        robot.listen('mask', Image)
        robot.start()
        messages = [robot.image(size=SIZE) for _ in images]
        for message, image in zip(messages, images, strict=True):
            message.data[:] = type(message.data)('B', image.tobytes())
            robot.camera.publish(message)
        masks = [pixels(robot.answer(message.header)) for message in messages]
        robot.stop()
        robot.close()
    # A busy machine may make pauses, in which results that are late do not wait.
    for found, *expected in zip(masks, *(without_ros(model, images, p) for p in (False, True)), strict=True):
        # Sums may be taken in another order, which tips a pixel here and there.
        assert max(np.mean(found == mask) for mask in expected) > 0.995
    assert len(robot.received['mask']) == len(images)
