"""Transitions, services and errors of a node that runs in its own process."""

import shutil
from importlib.util import find_spec

import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import Transition
from ros_harness import pixels, values_of
from sensor_msgs.msg import Image
from std_msgs.msg import String


def test_every_transition_leads_where_it_should(robot):
    assert robot.state == 'unconfigured'
    for verb, state in (
        ('configure', 'inactive'),
        ('activate', 'active'),
        ('deactivate', 'inactive'),
        ('activate', 'active'),
        ('deactivate', 'inactive'),
        ('cleanup', 'unconfigured'),
        ('configure', 'inactive'),
        ('cleanup', 'unconfigured'),
    ):
        assert robot.change(verb)
        assert robot.state == state
    mask = f'{robot.name}/mask'
    robot.probe.until(lambda: robot.probe.node.count_publishers(mask) == 0, 'the end of the topics')


@pytest.mark.parametrize('transition', [Transition.TRANSITION_ACTIVATE, 99, 0, 255])
def test_an_invalid_transition_is_refused_and_the_node_lives(robot, transition):
    assert not robot.change(transition)
    assert robot.state == 'unconfigured'


def test_nothing_is_answered_while_inactive_and_all_after_activation(robot):
    robot.listen('mask', Image)
    robot.start()
    robot.show()
    assert robot.change('deactivate')
    robot.probe.until(lambda: robot.camera.get_subscription_count() == 0, 'the end of the subscription')
    robot.camera.publish(robot.image())
    before = len(robot.received['mask'])
    robot.probe.spin_for(0.3)  # within which its mask would come
    assert len(robot.received['mask']) == before
    assert robot.change('activate')
    robot.until_connected()
    robot.show()


def test_activation_begins_with_a_key_frame(robot):
    robot.listen_to_all()
    robot.start()
    for _ in range(2):
        image = robot.image()
        robot.show(image)
        info = robot.info(image.header)
        assert (info['kind'], info['reset_reason']) == ('key', 'activated')
        assert robot.change('deactivate')
        assert robot.change('activate')
        robot.until_connected()


def test_a_late_joiner_gets_the_labels(robot):
    robot.start()
    robot.listen('label_names', String, latched=True)
    message = robot.probe.until(lambda: robot.received['label_names'], 'the labels')[-1]
    assert 'name: road' in message.data


def test_labels_are_there_before_activation(robot):
    assert robot.change('configure')
    robot.listen('label_names', String, latched=True)
    robot.probe.until(lambda: robot.received['label_names'], 'the labels')


def test_a_missing_model_fails_with_one_line_and_can_be_repaired(robot, node, echo_model, tmp_path):
    path = tmp_path / 'late'
    assert robot.set(model=str(path)) == ''
    assert not robot.change('configure')
    assert robot.state == 'unconfigured'
    status = robot.diagnostics(lambda status: status.level == DiagnosticStatus.ERROR, 'an error')
    assert str(path) in status.message
    assert 'vss export' in status.message
    assert '\n' not in status.message
    shutil.copytree(echo_model, path)
    robot.start()
    assert robot.change('deactivate')
    assert 'Traceback' not in node.log


def test_a_damaged_model_fails_and_can_be_repaired(robot, echo_model, tmp_path):
    path = tmp_path / 'damaged'
    shutil.copytree(echo_model, path)
    (path / 'segmenter.onnx').write_bytes(b'no network')
    assert robot.set(model=str(path)) == ''
    assert not robot.change('configure')
    robot.diagnostics(lambda status: 'damaged' in status.message, 'the damage')
    shutil.copy(echo_model / 'segmenter.onnx', path)
    assert robot.change('configure')
    robot.diagnostics(lambda status: status.level == DiagnosticStatus.OK, 'no more error')


def test_an_engine_that_cannot_run_the_model_fails_with_the_reason(robot):
    assert robot.set(engine='onnxruntime', precision='fp16') == ''
    assert not robot.change('configure')
    robot.diagnostics(lambda status: 'set precision to fp32' in status.message, 'the reason')


@pytest.mark.skipif(find_spec('ffmpeg_image_transport_msgs') is not None, reason='the messages are installed')
def test_a_transport_whose_messages_are_not_installed_fails_at_configure_with_their_package(robot):
    assert robot.set(image_transport='ffmpeg') == ''
    assert not robot.change('configure')
    robot.diagnostics(lambda status: 'ffmpeg-image-transport-msgs' in status.message, 'the package')


def test_enable_stops_and_goes_with_the_model_loaded(robot):
    robot.listen_to_all()
    robot.start()
    robot.show()
    assert robot.enable(False).success
    robot.probe.until(lambda: robot.camera.get_subscription_count() == 0, 'the end of the subscription')
    robot.diagnostics(lambda status: status.message == 'active, disabled', 'the state')
    assert robot.enable(True).success
    robot.until_connected()
    image = robot.image()
    robot.show(image)
    assert robot.info(image.header)['reset_reason'] == 'enabled'


def test_to_enable_a_node_that_is_enabled_changes_nothing(robot):
    robot.listen_to_all()
    robot.start()
    robot.show()
    assert robot.enable(True).success
    image = robot.image()
    robot.show(image)
    info = robot.info(image.header)
    assert (info['kind'], info['age_frames'], info['reset_reason']) == ('propagated', '1', '')


def test_a_node_that_was_disabled_before_takes_no_images_when_it_is_activated(robot):
    robot.listen('mask', Image)
    assert robot.change('configure')
    assert robot.enable(False).success
    assert robot.change('activate')
    robot.diagnostics(lambda status: status.message == 'active, disabled', 'the state')
    assert robot.camera.get_subscription_count() == 0
    assert robot.enable(True).success
    robot.until_connected()
    robot.show()


@pytest.mark.parametrize(('service', 'reason'), [('request_key_frame', ''), ('reset', 'requested')])
def test_a_key_frame_can_be_asked_for(robot, service, reason):
    robot.listen_to_all()
    robot.start()
    kinds = []
    for ask in (False, False, True, False):
        if ask:
            assert robot.trigger(service).success
        image = robot.image()
        robot.show(image)
        kinds.append(robot.info(image.header))
    assert [info['kind'] for info in kinds] == ['key', 'propagated', 'key', 'propagated']
    assert kinds[2]['reset_reason'] == reason


@pytest.mark.parametrize('service', ['request_key_frame', 'reset'])
def test_services_for_the_stream_say_when_there_is_none(robot, service):
    answer = robot.trigger(service)
    assert not answer.success
    assert 'not configured' in answer.message


def test_diagnostics_tell_the_health_of_the_stream(robot, echo_model):
    robot.listen('mask', Image)
    robot.start()
    for _ in range(7):
        robot.show()
    status = robot.diagnostics(lambda status: values_of(status).get('published') == '7', 'seven masks')
    values = values_of(status)
    assert status.level == DiagnosticStatus.OK
    assert values['engine'] == 'onnxruntime'
    assert values['model_path'] == str(echo_model)
    assert values['resets.activated'] == '1'
    assert float(values['latency_p99_ms']) >= float(values['latency_p50_ms']) > 0
    assert float(values['input_rate_hz']) > 0
    assert float(values['output_rate_hz']) > 0


def test_silence_on_the_topic_is_reported_with_topic_and_publishers(robot):
    assert robot.set(input_timeout_s=0.2) == ''
    robot.start()
    status = robot.diagnostics(lambda status: 'no image on' in status.message, 'the silence')
    assert status.level == DiagnosticStatus.WARN
    assert f'{robot.prefix}/image_raw' in status.message
    assert '/probe' in status.message


def test_masks_keep_their_content_through_a_restart_of_the_stream(robot):
    robot.listen('mask', Image)
    robot.start()
    for value in (1, 7, 10):
        assert (pixels(robot.show(robot.image(value))) == value).all()
