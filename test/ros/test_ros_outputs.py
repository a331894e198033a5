"""What the node publishes: headers, sizes, encodings and contents."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from echo_model import KEY_CONFIDENCE, PROPAGATED_CONFIDENCE
from ros_harness import DEADLINE_S, OUTPUTS, Gate, NodeProcess, Robot, changed, pixels, values_of
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from vss_ros.core.classes import load_classes
from vss_ros.core.files.share import DEFAULT_MODEL
from vss_ros.core.frame import Segmentation
from vss_ros.core.model.folder import load_model
from vss_ros.ros.topic_frame import TopicFrame
from vss_ros.ros.topic_sink import frame_info, stages_on_engine

SIZE = (96, 128)


def camera_info(header, size=SIZE) -> CameraInfo:
    info = CameraInfo(header=header, height=size[0], width=size[1], distortion_model='plumb_bob')
    info.k = [100.0, 0.0, 64.0, 0.0, 120.0, 48.0, 0.0, 0.0, 1.0]
    info.p = [100.0, 0.0, 64.0, 5.0, 0.0, 120.0, 48.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    return info


def show_with_camera_info(robot, image) -> None:
    """Publishes a camera_info and, once it surely is there, its image."""
    robot.camera_info.publish(camera_info(image.header))
    robot.show(robot.image(0, SIZE))  # messages of one process arrive in order, its answer comes later
    robot.show(image)


def answers(robot, header) -> dict:
    return {topic: robot.answer(header, topic) for topic in OUTPUTS}


@pytest.mark.parametrize(
    ('seconds', 'nanoseconds', 'frame_id'),
    [(12, 34, 'camera_optical'), (2**31 - 1, 999_999_999, ''), (-5, 4_000_000_000, 'ein/längerer name')],
)
def test_every_output_carries_the_header_of_its_image(robot, seconds, nanoseconds, frame_id):
    robot.listen_to_all()
    robot.start()
    header = Header(frame_id=frame_id)
    header.stamp.sec, header.stamp.nanosec = seconds, nanoseconds
    image = robot.image(3, SIZE, header=header)
    show_with_camera_info(robot, image)
    assert {topic: message.header for topic, message in answers(robot, header).items()} == dict.fromkeys(
        OUTPUTS, header
    )


def test_outputs_have_the_size_of_the_image_and_their_encodings(robot):
    robot.listen_to_all()
    robot.start()
    image = robot.image(3, SIZE)
    show_with_camera_info(robot, image)
    messages = answers(robot, image.header)
    encodings = {topic: m.encoding for topic, m in messages.items() if isinstance(m, Image)}
    assert encodings == {
        'mask': 'mono8',
        'confidence': 'mono8',
        'color_mask': 'rgb8',
        'overlay': 'rgb8',
        'distortion': 'mono8',
    }
    assert {(m.height, m.width) for m in messages.values() if isinstance(m, Image)} == {SIZE}
    assert all(m.step * m.height == len(m.data) for m in messages.values() if isinstance(m, Image))


def test_outputs_show_what_the_model_said(robot):
    robot.listen_to_all()
    robot.start()
    key, propagated = robot.image(4, SIZE), robot.image(8, SIZE)
    for image, confidence, distortion in ((key, KEY_CONFIDENCE, 0), (propagated, PROPAGATED_CONFIDENCE, 128)):
        robot.show(image)
        value = image.data[0]
        colour = np.array(load_classes('camvid11').colours[value])
        assert (pixels(robot.answer(image.header, 'mask')) == value).all()
        assert (pixels(robot.answer(image.header, 'confidence')) == confidence).all()
        assert (pixels(robot.answer(image.header, 'distortion')) == distortion).all()
        assert (pixels(robot.answer(image.header, 'color_mask')) == colour).all()
        assert np.abs(pixels(robot.answer(image.header, 'overlay')) - (colour + value) / 2).max() <= 1
        coded = np.frombuffer(robot.answer(image.header, 'mask/compressed').data, np.uint8)
        assert (cv2.imdecode(coded, cv2.IMREAD_UNCHANGED) == np.full(SIZE, value)).all()


def test_frame_info_tells_everything_about_a_frame(robot):
    robot.listen_to_all()
    robot.start()
    robot.show(robot.image(4))
    image = robot.image(8)
    robot.show(image)
    info = robot.info(image.header)
    assert info['kind'] == 'propagated'
    assert info['age_frames'] == '1'
    assert float(info['age_ms']) == 33
    assert float(info['corrected_share']) == 0.25
    assert info['dropped'] == '0'
    assert float(info['mean_confidence']) == pytest.approx(PROPAGATED_CONFIDENCE / 255, abs=1e-3)
    assert float(info['share.car']) == 1
    assert float(info['share.road']) == float(info['share.unlabelled']) == 0
    assert DEADLINE_S * 1e3 > float(info['latency_ms']) > float(info['correction_ms']) > 0
    assert float(info['engine_ms']) == float(info['correction_ms'])
    (status,) = robot.answer(image.header, 'frame_info').status
    assert (status.message, status.hardware_id) == ('propagated', image.header.frame_id)


@pytest.mark.parametrize(('known', 'told'), [(0.75, '0.75000'), (0.0, '0.00000'), (None, None)])
def test_frame_info_says_what_was_expected_and_what_was_corrected_only_where_it_is_known(known, told):
    mask = np.full(SIZE, 3, np.uint8)
    frame = TopicFrame(np.zeros((*SIZE, 3), np.uint8), 0)
    found = Segmentation(mask, mask, False, 1, 0, 0, corrected_share=known, expected_accuracy=known)
    message = frame_info(frame, found, load_classes('camvid11'), set(), latency_ms=1.0, dropped=0)
    values = values_of(message.status[0])
    assert (values.get('expected_accuracy'), values.get('corrected_share')) == (told, told)


def test_an_image_may_be_segmented_in_regions_and_frame_info_says_how_many_are_key(robot):
    assert 'regions is ' in robot.set(regions='3x9')
    assert 'do not go together' in robot.set_together(regions='2x2', background_key_frames=True)
    assert robot.set_together(regions='3x2', region_overlap=0.25) == ''
    robot.listen_to_all()
    robot.start()
    assert 'can change only while' in robot.set(regions='1x1')
    key, propagated = robot.image(4, (51, 77)), robot.image(8, (51, 77))
    kinds = [('key', '6', KEY_CONFIDENCE, 0), ('propagated', '0', PROPAGATED_CONFIDENCE, 128)]
    for image, (kind, keys, confidence, distortion) in zip((key, propagated), kinds, strict=True):
        mask = pixels(robot.show(image))
        assert mask.shape == (51, 77)
        assert (mask == image.data[0]).all()
        assert (pixels(robot.answer(image.header, 'confidence')) == confidence).all()
        assert (pixels(robot.answer(image.header, 'distortion')) == distortion).all()
        info = robot.info(image.header)
        assert (info['kind'], info['regions'], info['key_regions']) == (kind, '6', keys)
        assert float(info['engine_ms']) > 0
    assert robot.trigger('request_key_frame').success
    image = robot.image(3, (51, 77))
    robot.show(image)
    assert robot.info(image.header)['key_regions'] == '6'


def test_an_image_too_small_for_the_regions_is_a_bad_one_like_others_that_cannot_be_used(robot):
    assert robot.set(regions='4x2') == ''
    robot.listen_to_all()
    robot.start()
    robot.show(robot.image(4))
    robot.camera.publish(robot.image(4, (48, 3)))
    status = robot.diagnostics(lambda status: values_of(status).get('bad') == '1', 'the small image')
    assert values_of(status)['failed'] == '0'
    assert 'image is 3x48, too small for 4x2 regions' in values_of(status)['last_error']
    image = robot.image(4)
    robot.show(image)
    assert robot.info(image.header)['reset_reason'] == 'bad frame'


@pytest.mark.parametrize(
    ('made_with', 'motion', 'is_on_engine'),
    [
        ('network', 'model', True),
        ('network', 'network', True),
        ('network', 'dis', False),
        ('dis', 'model', False),
    ],
)
def test_flow_that_the_host_computes_is_no_time_of_the_engine(made_with, motion, is_on_engine):
    model = load_model(DEFAULT_MODEL)
    graphs = {**model.graphs, 'flow': model.graphs['warp']} if made_with == 'network' else model.graphs
    stages = stages_on_engine(replace(model, flow=made_with, graphs=graphs), motion)
    assert stages == {*model.graphs, 'flow'} if is_on_engine else {*model.graphs}


def test_an_overlay_has_the_colours_of_the_image(robot):
    robot.listen_to_all()
    robot.start()
    image = robot.image(3, SIZE)
    image.encoding, image.step = 'bgr8', 3 * SIZE[1]
    image.data = np.full((*SIZE, 3), (200, 30, 4), np.uint8).tobytes()  # a deep blue
    robot.show(image)
    mask = pixels(robot.answer(image.header, 'color_mask'))[0, 0].astype(int)
    shown = pixels(robot.answer(image.header, 'overlay'))[0, 0].astype(int)
    assert np.abs(shown - (mask + np.array([4, 30, 200])) / 2).max() <= 1


def test_frame_info_counts_the_images_that_a_newer_one_replaced(robot):
    robot.listen_to_all()
    robot.start()
    robot.show()
    robot.show()
    assert robot.set(max_rate=0.001) == ''  # now they wait
    images = [robot.image(3) for _ in range(3)]
    for number, image in enumerate(images, 3):
        robot.camera.publish(image)
        wanted = str(number)
        robot.diagnostics(lambda status, n=wanted: values_of(status).get('received') == n, 'the image')
    assert robot.set(max_rate=0.0) == ''
    assert robot.info(images[-1].header)['dropped'] == '2'


def test_what_nobody_subscribes_to_is_not_made(tmp_path, echo_model, robot_in):
    made_in_vain = changed(
        'from vss_ros.core.frame import Segmentation',
        'from vss_ros.ros import topic_sink',
        'Segmentation.distortion = topic_sink.TopicSink._confidence_message = None',
        'topic_sink.frame_info = topic_sink.painted = topic_sink.overlay = topic_sink.png_message = None',
    )
    with NodeProcess(tmp_path, 'thrifty', program=made_in_vain, model=echo_model, engine='onnxruntime'):
        robot = robot_in('thrifty')
        robot.listen('mask', Image)
        robot.start()
        robot.show()
        robot.show()
        status = robot.diagnostics(lambda status: values_of(status).get('published') == '2', 'two masks')
        assert values_of(status)['failed'] == '0'


def test_an_overlay_comes_once_somebody_listens(robot):
    robot.listen('mask', Image)
    robot.start()
    robot.show()
    robot.listen('overlay', Image)
    robot.until_connected()

    def overlay_comes():
        image = robot.image()
        robot.show(image)
        return robot.received['overlay']

    robot.probe.until(overlay_comes, 'an overlay')


def test_the_network_size_can_be_asked_for_with_its_camera_info(robot):
    assert robot.set(output_size='network') == ''
    robot.listen_to_all()
    robot.start()
    image = robot.image(3, SIZE)
    show_with_camera_info(robot, image)
    messages = answers(robot, image.header)
    sizes = {(m.height, m.width) for m in messages.values() if isinstance(m, (Image, CameraInfo))}
    assert sizes == {(48, 64)}
    assert list(messages['camera_info'].k) == [50, 0, 32, 0, 60, 24, 0, 0, 1]
    assert list(messages['camera_info'].p) == [50, 0, 32, 2.5, 0, 60, 24, 0, 0, 0, 1, 0]


def test_camera_info_passes_through_unchanged_at_the_size_of_the_image(robot):
    robot.listen_to_all()
    robot.start()
    image = robot.image(3, SIZE)
    show_with_camera_info(robot, image)
    assert robot.answer(image.header, 'camera_info') == camera_info(image.header)


def test_images_that_waited_in_a_queue_have_their_own_camera_info(robot):
    assert robot.set(drop_policy='queue', queue_size=30) == ''
    robot.listen_to_all()
    robot.start()
    robot.show()
    assert robot.set(max_rate=0.001) == ''  # now all of them wait
    images = [robot.image(3, SIZE) for _ in range(25)]
    for number, image in enumerate(images):
        info = camera_info(image.header)
        info.k[0] = 200 + number
        robot.camera_info.publish(info)
        robot.camera.publish(image)
    robot.diagnostics(lambda status: int(values_of(status).get('received', 0)) > len(images), 'the images')
    assert robot.set(max_rate=20.0) == ''
    robot.answer(images[-1].header, 'camera_info')
    stamps = [image.header.stamp for image in images]
    for info in robot.received['camera_info']:  # a busy machine may leave some out
        assert info.k[0] == 200 + stamps.index(info.header.stamp)


def test_a_camera_info_that_is_sent_after_its_image_is_that_of_the_image(tmp_path, echo_model, robot_in):
    gate = Gate(tmp_path)
    options = {'program': changed(*gate.lines), 'model': echo_model, 'engine': 'onnxruntime'}
    with NodeProcess(tmp_path, 'late_info', **options):
        robot = robot_in('late_info')
        robot.listen_to_all()
        robot.start()
        gate.shut()
        image = robot.image(3, SIZE)
        robot.camera.publish(image)
        robot.diagnostics(lambda status: values_of(status).get('received') == '1', 'the image')
        robot.camera_info.publish(camera_info(image.header))
        robot.diagnostics(
            lambda status: values_of(status).get('camera_info_received') == '1', 'the camera_info'
        )
        gate.open()
        robot.answer(image.header, 'camera_info')


def test_confidence_can_be_a_float_image(robot):
    assert robot.set(confidence_encoding='32FC1') == ''
    robot.listen_to_all()
    robot.start()
    image = robot.image()
    robot.show(image)
    confidence = robot.answer(image.header, 'confidence')
    assert confidence.encoding == '32FC1'
    assert np.allclose(pixels(confidence), KEY_CONFIDENCE / 255)


def test_compressed_images_are_understood(robot, node, probe):
    assert robot.set(image_transport='compressed') == ''
    other = Robot(probe, node.namespace, compressed=True)
    other.listen('mask', Image)
    other.start()
    for extension in ('.png', '.jpg'):
        message = CompressedImage(format=extension[1:])
        message.data.frombytes(cv2.imencode(extension, np.full((*SIZE, 3), 6, np.uint8))[1].tobytes())
        other.stamp(message)
        assert (pixels(other.show(message)) == 6).all()
    other.close()


def test_settings_change_while_running(robot):
    robot.listen_to_all()
    robot.start()
    robot.show()
    assert robot.set(confidence_threshold=0.9, key_frame_interval=3, overlay_alpha=1.0) == ''
    kinds, masks, unlabelled, overlays = '', [], [], []
    for _ in range(4):
        image = robot.image(2)
        masks.append(int(pixels(robot.show(image))[0, 0]))
        overlays.append(pixels(robot.answer(image.header, 'overlay'))[0, 0].tolist())
        info = robot.info(image.header)
        kinds += info['kind'][0]
        unlabelled.append(float(info['share.unlabelled']))
    assert kinds == 'ppkp'
    assert masks == [255, 255, 2, 255]  # propagated frames are less confident than 0.9
    assert unlabelled == [1, 1, 0, 1]
    as_it_is, colour = [2, 2, 2], list(load_classes('camvid11').colours[2])
    assert overlays == [as_it_is, as_it_is, colour, as_it_is]
    assert robot.set(publish_confidence=False) == ''
    before = len(robot.received['confidence'])
    robot.show()
    robot.show()
    assert len(robot.received['confidence']) == before


def test_refused_settings_leave_everything_as_it_was(robot):
    robot.start()
    assert 'can change only while' in robot.set(model='other')
    assert 'can change only while' in robot.set_together(overlay_alpha=0.25, drop_policy='queue')
    assert robot.get('overlay_alpha') == 0.5
    assert robot.set(overlay_alpha=1.5) != ''
    assert robot.set(key_frame_interval=0) != ''
    assert 'wrong' in robot.set(overlay_alpha='much').lower()
    assert 'scheduler' in robot.set(scheduler='clever')
    assert "needs 'path'" in robot.set(scheduler='adaptive')  # of this model, which has no flow
    assert robot.get('scheduler') == 'fixed'
    assert robot.set_together(overlay_alpha=0.25, key_frame_interval=2) == ''
    assert (robot.get('overlay_alpha'), robot.get('key_frame_interval')) == (0.25, 2)
    assert robot.set(max_rate=10) == ''  # a whole number is understood as a double
    assert robot.get('max_rate') == 10.0


def test_parameters_are_described(robot):
    alpha, engine = robot.describe('overlay_alpha', 'engine')
    assert alpha.description
    assert (alpha.floating_point_range[0].from_value, alpha.floating_point_range[0].to_value) == (0, 1)
    assert 'onnxruntime' in engine.additional_constraints
