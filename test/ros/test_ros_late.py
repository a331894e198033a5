"""A model whose results are late: each is published with the header of the image it belongs to."""

import pytest
from ros_harness import OUTPUTS, NodeProcess, changed, pixels, values_of
from sensor_msgs.msg import CameraInfo


@pytest.fixture(scope='module')
def node(tmp_path_factory, late_models):
    """A node whose results are two frames late, and that drops none."""
    folder = tmp_path_factory.mktemp('late_node')
    options = {'model': late_models[2], 'engine': 'onnxruntime', 'drop_policy': 'queue', 'queue_size': 20}
    with NodeProcess(folder, 'late', **options) as node:
        yield node


def blue(message) -> int:
    """The one value of a picture."""
    values = set(pixels(message).flat)
    assert len(values) == 1
    return int(values.pop())


def test_every_output_carries_the_header_of_its_own_image(robot):
    robot.listen_to_all()
    robot.start()
    images = [robot.image(value) for value in range(1, 8)]
    for image in images:
        robot.camera.publish(image)
    robot.answer(images[-1].header, 'frame_info')  # without another image: a pause is enough
    for topic in ('mask', 'confidence', 'overlay', 'frame_info', 'mask/compressed'):
        robot.answer(images[-1].header, topic)
        assert [message.header for message in robot.received[topic]] == [image.header for image in images]
    assert [blue(mask) for mask in robot.received['mask']] == [1, 2, 3, 4, 5, 6, 7]
    for value, confidence in enumerate(robot.received['confidence'], 1):
        assert value <= blue(confidence) <= min(value + 2, 7)  # the newest image that it had seen
    assert robot.info(images[0].header)['reset_reason'] == 'activated'
    assert robot.info(images[1].header)['reset_reason'] == ''


def test_a_stream_goes_on_after_a_pause_without_answering_twice(robot):
    robot.listen('mask', OUTPUTS['mask'])
    robot.listen('frame_info', OUTPUTS['frame_info'])
    robot.start()
    first, second = robot.image(1), robot.image(2)
    for image in (first, second):
        robot.camera.publish(image)
        robot.answer(image.header, 'frame_info')
    later = [robot.image(value) for value in (3, 4, 5)]
    for image in later:
        robot.camera.publish(image)
    robot.answer(later[-1].header, 'frame_info')
    assert [blue(mask) for mask in robot.received['mask']] == [1, 2, 3, 4, 5]
    assert [robot.info(image.header)['reset_reason'] for image in (second, *later)] == [''] * 4


def test_deactivating_answers_what_is_owed_with_its_camera_info(robot):
    robot.listen('mask', OUTPUTS['mask'])
    robot.listen('camera_info', OUTPUTS['camera_info'])
    robot.start()
    images = [robot.image(value) for value in (1, 2, 3)]
    for image in images:
        robot.camera_info.publish(CameraInfo(header=image.header, height=image.height, width=image.width))
        robot.camera.publish(image)
    robot.answer(images[0].header)
    assert robot.change('deactivate')
    for image in images:
        robot.answer(image.header)
        robot.answer(image.header, 'camera_info')
    assert [blue(mask) for mask in robot.received['mask']] == [1, 2, 3]


def test_regions_are_refused_and_the_node_can_be_configured_without(robot):
    assert robot.set(regions='2x1') == ''
    assert not robot.change('configure')
    assert robot.set(regions='1x1') == ''
    robot.start()


def test_results_have_the_sizes_of_their_own_images(robot):
    robot.listen('mask', OUTPUTS['mask'])
    robot.start()
    images = [robot.image(1), robot.image(2, (24, 32)), robot.image(3, (96, 128))]
    for image in images:
        robot.camera.publish(image)
    masks = [robot.answer(image.header) for image in images]
    assert [(mask.height, mask.width) for mask in masks] == [(48, 64), (24, 32), (96, 128)]
    assert [blue(mask) for mask in masks] == [1, 2, 3]


def test_an_answer_that_cannot_be_published_costs_no_other_image_its_own(tmp_path, late_models, robot_in):
    failing = changed(
        'from vss_ros.ros import topic_sink',
        'made = topic_sink.image_message',
        'def image_message(array, encoding, header):',
        '    assert array.flat[0] != 2, "it cannot be published"',
        '    return made(array, encoding, header)',
        'topic_sink.image_message = image_message',
    )
    options = {'model': late_models[2], 'engine': 'onnxruntime', 'drop_policy': 'queue'}
    with NodeProcess(tmp_path, 'choosy', program=failing, **options):
        robot = robot_in('choosy')
        robot.listen('mask', OUTPUTS['mask'])
        robot.start()
        images = [robot.image(1), robot.image(2), robot.image(3, (24, 32))]  # a new stream, with a new size
        for image in images:
            robot.camera.publish(image)
        robot.answer(images[2].header)
        assert [blue(mask) for mask in robot.received['mask']] == [1, 3]
        robot.diagnostics(lambda status: values_of(status).get('failed') == '1', 'the failure')


def test_each_image_that_an_error_in_a_pause_costs_is_counted_once_and_told(tmp_path, late_models, robot_in):
    failing = changed(
        'from vss_ros.core.stream.segmenter import VideoSegmenter',
        'flush = VideoSegmenter.flush',
        'def failing(*arguments):',
        '    raise RuntimeError("out of memory")',
        'def flush_in_vain(self):',
        '    self._run = failing',
        '    try:',
        '        yield from flush(self)',
        '    finally:',
        '        del self._run',
        'VideoSegmenter.flush = flush_in_vain',
    )
    options = {'model': late_models[2], 'engine': 'onnxruntime', 'drop_policy': 'queue'}
    with NodeProcess(tmp_path, 'forgetful', program=failing, **options):
        robot = robot_in('forgetful')
        robot.start()
        for value in (1, 2):
            robot.camera.publish(robot.image(value))
        status = robot.diagnostics(lambda status: 'skipped' in status.message, 'what was lost')
        assert '2 frames skipped, the last: RuntimeError: out of memory' in status.message
        values = values_of(status)
        assert (values['received'], values['given_up'], values['failed']) == ('2', '2', '0')


def test_a_reset_answers_what_is_owed_and_starts_anew(robot):
    robot.listen('mask', OUTPUTS['mask'])
    robot.listen('frame_info', OUTPUTS['frame_info'])
    robot.start()
    images = [robot.image(value) for value in (1, 2, 3, 4)]
    for image in images[:3]:
        robot.camera.publish(image)
    robot.answer(images[0].header)
    assert robot.trigger('reset').success
    robot.camera.publish(images[3])
    assert robot.info(images[3].header)['reset_reason'] == 'requested'
    assert [blue(mask) for mask in robot.received['mask']] == [1, 2, 3, 4]
