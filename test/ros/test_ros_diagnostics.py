"""What `/diagnostics` calls a warning or an error, and when it stops to."""

import re
from types import SimpleNamespace

import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from ros_harness import kind_and_reason, show, values_of
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from vss_ros.ros.diagnostics import QOS_NEWS_S
from vss_ros.ros.settings import NodeSettings
from vss_ros.ros.statistics import StreamStatistics
from vss_ros.ros.topic_source import TopicSource


def test_frames_that_take_too_long_are_a_warning_and_then_an_error(stream):
    assert stream.set(diagnostics__max_allowed_processing_time_ms=0.0) == ''
    show(stream)
    text = 'took longer than 0 ms'
    status = stream.diagnostics(lambda status: text in status.message, 'the slowness')
    assert status.level == DiagnosticStatus.WARN
    assert stream.set(diagnostics__max_acceptable_consecutive_delay_ms=0.0) == ''
    show(stream)
    stream.diagnostics(lambda s: text in s.message and s.level == DiagnosticStatus.ERROR, 'an error')
    assert stream.set(diagnostics__max_allowed_processing_time_ms=1e6) == ''
    show(stream)
    stream.diagnostics(lambda status: text not in status.message, 'the end of it')


def test_frames_that_all_come_too_late_after_one_another_to_be_propagated_are_a_warning(stream):
    assert stream.set(input_timeout_s=60.0) == ''  # or the warning would end with the silence after them
    for _ in range(4):
        image = stream.image()
        stream.stamp(image, step_ns=10**9)
        assert kind_and_reason(show(stream, image))[0] == 'key'
    text = 'came more than 0.5 s after the one before'
    status = stream.diagnostics(lambda status: text in status.message, 'the gaps')
    assert status.level == DiagnosticStatus.WARN
    assert 'raise max_frame_gap_s' in status.message
    assert stream.set(max_frame_gap_s=60.0) == ''
    stream.received['diagnostics'].clear()
    stream.diagnostics(lambda status: 'after the one before' not in status.message, 'the end of it')
    show(stream)
    stream.diagnostics(lambda status: text not in status.message, 'no more of it')


def test_frames_that_all_begin_a_new_stream_for_other_reasons_are_a_warning_with_the_reasons(stream):
    for number in range(4):
        image = stream.image()
        image.header.frame_id = f'camera {number % 2}'
        assert kind_and_reason(show(stream, image))[0] == 'key'
    text = 'as it began a new stream: camera changed'
    status = stream.diagnostics(lambda status: text in status.message, 'the new streams')
    assert status.level == DiagnosticStatus.WARN
    assert 'let one camera publish' in status.message


def test_images_of_a_second_publisher_on_the_topic_are_a_warning_as_long_as_it_is_there(stream):
    second = stream.probe.node.create_publisher(Image, stream.camera.topic_name, 1)
    stream.probe.until(lambda: second.get_subscription_count(), 'the subscription')
    stream.received['diagnostics'].clear()
    stream.diagnostics(lambda status: True, 'the publishers')
    stream.received['diagnostics'].clear()
    status = stream.diagnostics(lambda status: True, 'what it is')
    assert 'publishers are on' not in status.message  # it has sent nothing yet

    def told():
        for camera in (stream.camera, second):
            camera.publish(stream.image())
        statuses = [s for m in stream.received['diagnostics'] for s in m.status if stream.name[1:] in s.name]
        return [s for s in statuses if '2 publishers are on' in s.message]

    status = stream.probe.until(told, 'the second one')[0]
    assert status.level == DiagnosticStatus.WARN
    assert 'give each its own topic' in status.message
    stream.probe.node.destroy_publisher(second)
    stream.diagnostics(lambda status: 'publishers are on' not in status.message, 'the end of it')


def test_a_frame_that_is_in_work_for_too_long_is_an_error_before_it_is_done(robot, slow_model):
    settings = {'model': str(slow_model), 'engine': 'onnxruntime', 'key_frame_interval': 1}
    limits = {
        'diagnostics__max_allowed_processing_time_ms': 1.0,
        'diagnostics__max_acceptable_consecutive_delay_ms': 5.0,
    }
    assert robot.set(**settings, **limits) == ''
    robot.start()

    def told():
        robot.camera.publish(robot.image())
        robot.probe.spin_for(0.05)
        statuses = [s for m in robot.received['diagnostics'] for s in m.status if robot.name[1:] in s.name]
        return [s.level for s in statuses if 'a frame has been in work for' in s.message]

    assert set(robot.probe.until(told, 'an error')) == {DiagnosticStatus.ERROR}


def restart(robot) -> None:
    assert robot.change('deactivate')
    assert robot.change('activate')


def enable_again(robot) -> None:
    assert robot.enable(False).success
    assert robot.enable(True).success


@pytest.mark.parametrize('begin', [restart, enable_again])
def test_what_was_wrong_before_a_new_beginning_is_no_news_after_it(stream, begin):
    assert stream.set(diagnostics__max_allowed_processing_time_ms=0.0, max_consecutive_bad_frames=3) == ''
    show(stream)
    for _ in range(4):
        stream.camera.publish(stream.image(encoding='klingon8'))
    stream.diagnostics(lambda status: 'bad frames in a row' in status.message, 'the bad frames')
    begin(stream)
    stream.received['diagnostics'].clear()
    stream.diagnostics(lambda status: True, 'what is new')
    messages = [
        s.message for m in stream.received['diagnostics'] for s in m.status if stream.name[1:] in s.name
    ]
    assert set(messages) == {'active'}


def test_a_node_that_is_told_to_go_on_again_and_again_still_says_that_nothing_comes(stream):
    assert stream.set(input_timeout_s=1.5) == ''
    stream.received['diagnostics'].clear()

    def told(status) -> bool:
        assert stream.enable(True).success
        return 'no image on' in status.message

    stream.diagnostics(told, 'the silence')


def test_a_node_that_is_disabled_or_gets_nothing_is_not_called_slow(stream):
    assert stream.set(diagnostics__max_allowed_processing_time_ms=0.0, input_timeout_s=0.5) == ''
    show(stream)
    status = stream.diagnostics(lambda status: 'no image on' in status.message, 'the silence')
    assert 'took longer' not in status.message
    assert stream.enable(False).success
    stream.diagnostics(lambda status: status.message == 'active, disabled', 'nothing wrong')
    assert stream.enable(True).success


@pytest.mark.parametrize(
    ('frame_id', 'height', 'of'),
    [
        ('rear_optical', 48, "frame_id 'rear_optical' and 64 x 48 pixels"),
        ('camera_optical', 480, "frame_id 'camera_optical' and 64 x 480 pixels"),
    ],
)
def test_camera_infos_of_another_camera_or_size_are_a_warning_until_one_fits(stream, frame_id, height, of):
    def show_with(frame_id: str, height: int):
        image = stream.image()
        stream.camera_info.publish(CameraInfo(header=Header(frame_id=frame_id), height=height, width=64))
        show(stream, image)
        return [s for m in stream.received['diagnostics'] for s in m.status if stream.name[1:] in s.name][-1:]

    text, topic = 'fits the images', f'{stream.prefix}/camera_info'
    [status] = stream.probe.until(
        lambda: [s for s in show_with(frame_id, height) if text in s.message],
        'the camera_info that does not fit',
    )
    assert status.level == DiagnosticStatus.WARN
    assert f'no camera_info on {topic} fits' in status.message
    assert of in status.message
    assert "the images of frame_id 'camera_optical' and 64 x 48 pixels" in status.message
    assert values_of(status)['camera_info_topic'] == topic
    assert int(values_of(status)['camera_info_received']) > 0
    stream.probe.until(
        lambda: [s for s in show_with('camera_optical', 48) if text not in s.message], 'the end of it'
    )


@pytest.fixture
def watched(probe, statistics, diagnostics_of):
    """The diagnostics of an active stream whose topic nobody publishes on."""
    settings = NodeSettings(input_timeout_s=60.0)  # which no busy machine takes
    source = TopicSource(probe.node, settings, statistics, pytest.fail)
    yield diagnostics_of(source, settings)
    source.close()


@pytest.mark.parametrize(
    ('counts', 'reasons'),
    [
        ({'missed': 4}, []),  # the noise of best effort
        ({'missed': 10}, ['10 images on .* 90 did: newer ones replaced them']),
        ({'missed': 10, 'lost': 6}, ['10 images on .*: 6 were lost on the way; start the PUBLISHER']),
        ({'lost': 10}, ['10 images on .*: 10 were lost on the way']),  # where nobody numbers them
        ({'missed': 10, 'dropped': 10}, []),  # it could not have segmented them anyway
    ],
)
def test_images_that_did_not_reach_the_node_are_a_warning_once_with_the_reason(
    watched, statistics, counts, reasons
):
    for what, number in {'received': 90, **counts}.items():
        statistics.count(what, number)
    problems = watched.problems()
    assert [level for level, _ in problems] == [DiagnosticStatus.WARN] * len(reasons)
    for (_, text), reason in zip(problems, reasons, strict=True):
        assert re.match(reason, text)
    assert watched.problems() == []


def test_why_images_do_not_connect_is_told_for_as_long_as_none_comes_and_all_else_a_while(
    watched, statistics, later
):
    text = 'reliability does not fit'
    statistics.qos_problem('/image_raw', text)
    statistics.qos_problem('/segmentation/mask', 'an audience that has left')
    assert watched.problems()[0] == (DiagnosticStatus.WARN, text)
    assert len(watched.problems()) == 2
    later(QOS_NEWS_S + 1)
    statistics.count('received')
    assert watched.problems() == []
    later(100)
    (_, silence), *others = watched.problems()
    assert re.match(r'no image on /image_raw for 1\d\d s; nobody publishes on it', silence)
    assert others == [(DiagnosticStatus.WARN, text)]


@pytest.mark.parametrize('enabled', [True, False])
def test_a_frame_that_does_not_come_back_is_an_error_also_while_the_node_is_disabled(
    probe, statistics, diagnostics_of, later, enabled
):
    settings = NodeSettings(input_timeout_s=60.0)
    source = TopicSource(probe.node, settings, statistics, pytest.fail)
    watched = diagnostics_of(source, settings)
    watched.enabled = enabled
    frames = iter(source)
    image = Image(height=1, width=1, step=1, encoding='mono8')
    image.data.append(0)
    source.on_image(image, {})
    assert next(frames) is not None
    assert watched.problems() == []
    later(10)  # and the worker still has it
    [(level, text)] = watched.problems()
    assert level == DiagnosticStatus.ERROR
    assert re.match(r'a frame has been in work for [1-5]\d s', text)
    source.close()


def test_a_frame_that_is_in_work_is_no_reason_to_say_that_no_mask_comes(
    probe, statistics, diagnostics_of, later
):
    settings = NodeSettings(input_timeout_s=60.0, max_acceptable_consecutive_delay_ms=1e6)
    source = TopicSource(probe.node, settings, statistics, pytest.fail)
    watched = diagnostics_of(source, settings)
    frames = iter(source)
    assert next(frames) is None  # late results are in work
    statistics.count('received')
    later(90)
    statistics.count('received')
    assert watched.problems() == []
    source.close()


def test_why_no_mask_comes_is_told_all_the_time_and_not_how_long_frames_took_before(
    watched, statistics, later
):
    statistics.took(0.3, allowed_s=0.2)
    for _ in range(8):
        statistics.count('received')
        statistics.bad_frame('bad', 'unknown encoding klingon8')
        later(20)
    skipped = '8 frames skipped, the last: unknown encoding klingon8'
    for _ in range(2):  # the second time nothing is new
        told, (level, silence) = watched.problems()
        assert (told, level) == ((DiagnosticStatus.WARN, skipped), DiagnosticStatus.ERROR)
        assert re.fullmatch(r'images come on /image_raw, and no mask has for 1\d\d s', silence)
    statistics.good_frame(1, None)
    [(_, slowness)] = watched.problems()
    assert 'took longer than 200 ms' in slowness


@pytest.mark.parametrize('what', ['bad', 'failed', None])
def test_frames_that_were_skipped_are_told_once_and_many_in_a_row_are_an_error(watched, statistics, what):
    watched.stream.given_up = 5
    statistics.bad_frame('bad', 'of before')
    watched.start_over()

    def skip(number: int) -> None:
        for _ in range(number):
            statistics.bad_frame(what, 'too dark')
        watched.stream.given_up += number if what is None else 0  # these are counted there

    assert watched.problems() == []
    skip(2)
    assert watched.problems() == [(DiagnosticStatus.WARN, '2 frames skipped, the last: too dark')]
    assert watched.problems() == []
    most = NodeSettings().max_consecutive_bad_frames
    skip(most - 3)
    text = f'{most} bad frames in a row, the last: too dark'
    assert watched.problems() == [(DiagnosticStatus.ERROR, text)]


def test_what_was_counted_before_a_new_configuration_is_forgotten(watched, statistics):
    statistics.bad_frame('bad', 'too dark')
    assert watched.problems()
    watched.stream.statistics = StreamStatistics()
    watched.start_over()
    assert watched.problems() == []


def test_new_streams_in_a_row_are_told_with_their_reasons_where_anything_could_be_propagated(
    watched, statistics
):
    for reason, told in (
        ('gap', []),
        ('gap', []),
        ('gap', ['each of the last 3 frames .* as it came more than 0.5 s after the one before']),
        ('camera changed', ['each of the last 4 frames .* new stream: gap .3., camera changed .1.;']),
    ):
        statistics.good_frame(1, reason)
        texts = [text for _, text in watched.problems()]
        assert [bool(re.match(*pair)) for pair in zip(told, texts, strict=True)] == [True] * len(told)
    watched.stream.model.propagates = False
    assert watched.problems() == []


@pytest.mark.parametrize('enabled', [True, False])
def test_a_worker_that_has_ended_is_an_error_also_while_the_node_is_disabled(watched, enabled):
    watched.enabled, watched.stream.is_running = enabled, False
    [(level, text)] = watched.problems()
    assert level == DiagnosticStatus.ERROR
    assert text.startswith('the worker thread has ended')


def test_frames_that_were_slow_for_longer_than_is_acceptable_are_an_error(watched, statistics):
    for seconds, expected in ((1.0, DiagnosticStatus.WARN), (2.5, DiagnosticStatus.ERROR)):
        statistics.took(0.1, allowed_s=0.2)
        statistics.took(seconds, allowed_s=0.2)
        [(level, text)] = watched.problems()
        assert level == expected
        assert text.startswith(f'every frame of the last {seconds} s took longer')


def test_one_frame_that_was_slow_is_not_called_every_frame_of_no_time(watched, statistics):
    statistics.took(0.01, allowed_s=0.0)
    [(level, text)] = watched.problems()
    assert level == DiagnosticStatus.WARN
    assert text.startswith('the last frame took longer than 200 ms; take a smaller model')


def test_key_frames_that_failed_in_the_background_are_a_warning_once(watched):
    watched.stream.background = SimpleNamespace(failed=1, in_work_s=0.0)
    watched.start_over()  # what failed before is no news
    assert watched.problems() == []
    watched.stream.background.failed = 3
    [(level, text)] = watched.problems()
    assert level == DiagnosticStatus.WARN
    assert 'key frames that failed in the background: 2' in text
    assert watched.problems() == []


def test_a_key_frame_that_does_not_come_out_of_the_background_is_an_error(watched):
    most_s = NodeSettings().max_acceptable_consecutive_delay_ms / 1e3
    watched.stream.background = SimpleNamespace(failed=0, in_work_s=0.9 * most_s)
    assert watched.problems() == []
    watched.stream.background.in_work_s = 1.1 * most_s
    [(level, text)] = watched.problems()
    assert level == DiagnosticStatus.ERROR
    assert 'a key frame has been in work in the background' in text


def test_images_that_wait_for_a_limited_rate_are_no_error_until_two_of_its_periods_bring_no_mask(
    probe, statistics, diagnostics_of, later
):
    settings = NodeSettings(max_rate=0.1, input_timeout_s=1.0)
    source = TopicSource(probe.node, settings, statistics, pytest.fail)
    watched = diagnostics_of(source, settings)
    for seconds, levels in ((0, []), (15, []), (10, [DiagnosticStatus.ERROR])):
        later(seconds)
        statistics.count('received')
        assert [level for level, _ in watched.problems()] == levels
    source.close()
