import re
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from vss_ros.core.classes import load_classes
from vss_ros.core.errors import FrameError, SettingsError, SourceError
from vss_ros.core.frame import Frame, Segmentation
from vss_ros.core.settings import StreamSettings
from vss_ros.core.sinks.open import open_sink
from vss_ros.core.sources.open import SourceSettings, open_source
from vss_ros.core.stream.segmenter import VideoSegmenter

rosbags = pytest.importorskip('rosbags.rosbag2')
from rosbags.highlevel import AnyReader  # noqa: E402
from rosbags.typesys import Stores, get_types_from_msg, get_typestore  # noqa: E402

STORE = get_typestore(Stores.ROS2_JAZZY)
IMAGE, COMPRESSED = 'sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage'
STAMP_NS = 1_700_000_000_123_456_789  # no float holds it


def picture(number, size=(24, 32)):
    image = np.random.default_rng(number).integers(0, 256, (*size, 3), np.uint8)
    return cv2.GaussianBlur(image, (0, 0), 3)


def header(stamp_ns, camera='front'):
    time = STORE.types['builtin_interfaces/msg/Time'](*divmod(stamp_ns, 10**9))
    return STORE.types['std_msgs/msg/Header'](time, camera)


def image_message(pixels, encoding, stamp_ns):
    height, width = pixels.shape[:2]
    data = np.ascontiguousarray(pixels).view(np.uint8).reshape(-1)
    fields = header(stamp_ns), height, width, encoding, 0, data.size // height, data
    return STORE.types[IMAGE](*fields)


def write_bag(path, topics, storage='MCAP', every_ns=1, lag_ns=0):
    """Writes topic -> messages; the n-th messages of all topics are recorded together, or so much later."""
    plugin = rosbags.StoragePlugin[storage]
    with rosbags.Writer(path, version=9, storage_plugin=plugin) as writer:
        for place, (topic, messages) in enumerate(topics.items()):
            connection = writer.add_connection(topic, messages[0].__msgtype__, typestore=STORE)
            for number, message in enumerate(messages):
                at_ns = 5000 + number * every_ns + place * lag_ns
                writer.write(connection, at_ns, STORE.serialize_cdr(message, message.__msgtype__))
    return path


def read(path, **settings):
    source = open_source(str(path), SourceSettings(**settings))
    try:
        return list(source)
    finally:
        source.close()


@pytest.mark.parametrize('storage', ['MCAP', 'SQLITE3'])
def test_a_bag_gives_images_with_the_stamp_and_frame_id_of_their_headers(tmp_path, storage):
    images = [picture(number) for number in range(3)]
    messages = [image_message(image, 'bgr8', STAMP_NS + i) for i, image in enumerate(images)]
    source = open_source(str(write_bag(tmp_path / 'bag', {'/camera': messages}, storage)))
    assert len(source) == 3
    for _ in range(2):
        frames = list(source)
        assert [frame.stamp_ns for frame in frames] == [STAMP_NS, STAMP_NS + 1, STAMP_NS + 2]
        assert {(frame.camera, frame.encoding) for frame in frames} == {('front', 'bgr8')}
        assert all(np.array_equal(frame.image, image) for frame, image in zip(frames, images, strict=True))
    source.close()


def test_a_single_file_of_a_bag_is_a_bag(tmp_path):
    messages = {'/camera': [image_message(picture(0), 'bgr8', 7)]}
    mcap = write_bag(tmp_path / 'a', messages) / 'a.mcap'
    db3 = write_bag(tmp_path / 'b', messages, 'SQLITE3') / 'b.db3'
    assert len(read(mcap)) == len(read(db3)) == 1


def test_encodings_are_converted_and_kept_by_name(tmp_path):
    image = picture(1)
    path = write_bag(tmp_path / 'bag', {'/camera': [image_message(image[..., ::-1], 'rgb8', 7)]})
    (frame,) = read(path)
    assert np.array_equal(frame.image, image)
    assert frame.encoding == 'rgb8'


@pytest.mark.parametrize(('suffix', 'error'), [('.png', 0), ('.jpg', 4)])
def test_compressed_images_are_decoded(tmp_path, suffix, error):
    image = picture(1)
    message = STORE.types[COMPRESSED](header(7), suffix[1:], cv2.imencode(suffix, image)[1])
    (frame,) = read(write_bag(tmp_path / 'bag', {'/camera/compressed': [message]}))
    assert np.abs(frame.image.astype(int) - image).mean() <= error
    assert (frame.stamp_ns, frame.camera) == (7, 'front')


def test_the_truth_is_the_mask_with_exactly_the_same_stamp(tmp_path):
    images = [image_message(picture(i), 'bgr8', 100 * i) for i in range(4)]
    masks = [
        image_message(np.full((24, 32), i, np.uint8), 'mono8', stamp)
        for i, stamp in enumerate((0, 101, 200, 250, 300))
    ]
    path = write_bag(tmp_path / 'bag', {'/camera': images, '/mask': masks})
    truths = [frame.truth for frame in read(path, mask_topic='/mask')]
    assert [None if truth is None else int(truth[0, 0]) for truth in truths] == [0, None, 2, 4]


@pytest.mark.parametrize('late', [[2, 4], [0, 1, 2, 3, 4], [4], [0], []])
def test_masks_that_belong_to_no_image_are_told_with_one_of_their_stamps(tmp_path, caplog, late):
    images = [image_message(picture(i), 'bgr8', STAMP_NS + 100 * i) for i in range(5)]
    stamps = [STAMP_NS + 100 * i + (i in late) for i in range(5)]
    masks = [image_message(np.zeros((24, 32), np.uint8), 'mono8', stamp) for stamp in stamps]
    path = write_bag(tmp_path / 'bag', {'/camera': images, '/mask': masks})
    source = open_source(str(path), SourceSettings(topic='/camera', mask_topic='/mask'))
    for number in (1, 2):  # a second pass counts anew
        assert sum(frame.truth is not None for frame in source) == 5 - len(late)
        assert len(caplog.records) == number * bool(late)
    source.close()
    if late:
        found = re.search(
            r'bag: (.*) masks of /mask were used for no image, that at (\S+) s for', caplog.text
        )
        assert found.groups() == (f'{len(late)} of 5', f'1700000000.{stamps[late[0]] % 10**9}')


def test_an_image_with_the_stamp_of_the_one_before_is_told_once(tmp_path, caplog):
    images = [image_message(picture(i), 'bgr8', stamp) for i, stamp in enumerate((1, 2, 2, 2, 5))]
    masks = [image_message(np.full((24, 32), i, np.uint8), 'mono8', 1 + i) for i in range(5)]
    path = write_bag(tmp_path / 'bag', {'/camera': images, '/mask': masks})
    truths = [frame.truth for frame in read(path, topic='/camera', mask_topic='/mask')]
    assert [int(truth[0, 0]) for truth in truths] == [0, 1, 1, 1, 4]
    assert caplog.text.count('two images have the stamp 0.000000002 s') == 1
    assert '2 of 5 masks of /mask were used for no image, that at 0.000000003 s for example' in caplog.text


def test_a_mask_that_cannot_be_decoded_is_told(tmp_path, caplog, monkeypatch):
    images = [image_message(picture(i), 'bgr8', 1 + i) for i in range(3)]
    masks = [image_message(np.zeros((24, 32), np.uint8), 'mono8', 1 + i) for i in range(3)]
    path = write_bag(tmp_path / 'bag', {'/camera': images, '/mask': masks})
    decode = AnyReader.deserialize
    mask = STORE.serialize_cdr(masks[1], IMAGE).tobytes()
    monkeypatch.setattr(
        AnyReader, 'deserialize', lambda *args: decode(*args) if bytes(args[1]) != mask else {}['lost']
    )
    frames = read(path, topic='/camera', mask_topic='/mask')
    assert [frame.truth is None for frame in frames] == [False, True, False]
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: the mask of /mask at 0.000 s is left out: it cannot be decoded: 'lost'"
    ]


@pytest.mark.parametrize('stamps', [(7, 7, 7), (1, 5, 5)])
def test_masks_of_one_stamp_are_refused_because_one_of_them_is_another_images_truth(tmp_path, stamps):
    masks = [image_message(np.full((24, 32), i, np.uint8), 'mono8', stamp) for i, stamp in enumerate(stamps)]
    images = [image_message(picture(i), 'bgr8', stamp) for i, stamp in enumerate(stamps)]
    path = write_bag(tmp_path / 'bag', {'/camera': images, '/mask': masks})
    with pytest.raises(SourceError, match=r'two masks of /mask have the stamp 0.000 s.* --mask-topic'):
        read(path, topic='/camera', mask_topic='/mask')


def test_where_a_driver_leaves_the_stamp_at_0_the_time_of_recording_stands_in(tmp_path, model, engine):
    images = [image_message(picture(i), 'bgr8', 0) for i in range(4)]
    path = write_bag(tmp_path / 'bag', {'/camera': images}, every_ns=10**9)
    frames = read(path)
    assert [frame.stamp_ns for frame in frames] == [5000 + i * 10**9 for i in range(4)]
    segmenter = VideoSegmenter(model, engine, StreamSettings(max_frame_gap_s=0.5))
    assert [segmenter.step(frame).reset_reason for frame in frames] == ['first frame', 'gap', 'gap', 'gap']


@pytest.mark.parametrize(('lag_ns', 'found'), [(0, [0, 1, 2]), (3, [None] * 3)])
def test_without_stamps_a_mask_belongs_to_the_image_recorded_with_it(tmp_path, caplog, lag_ns, found):
    images = [image_message(picture(i), 'bgr8', 0) for i in range(3)]
    masks = [image_message(np.full((24, 32), i, np.uint8), 'mono8', 0) for i in range(3)]
    path = write_bag(tmp_path / 'bag', {'/camera': images, '/mask': masks}, every_ns=10**8, lag_ns=lag_ns)
    truths = [frame.truth for frame in read(path, topic='/camera', mask_topic='/mask')]
    assert [None if truth is None else int(truth[0, 0]) for truth in truths] == found
    assert caplog.text.count('an image has no stamp, by which its mask of /mask') == (lag_ns > 0)


def test_stamps_that_begin_at_0_lose_no_mask_but_the_first(tmp_path):
    images = [image_message(picture(i), 'bgr8', 100 * i) for i in range(3)]
    masks = [image_message(np.full((24, 32), i, np.uint8), 'mono8', 100 * i) for i in range(3)]
    path = write_bag(tmp_path / 'bag', {'/camera': images, '/mask': masks}, lag_ns=1)
    truths = [frame.truth for frame in read(path, topic='/camera', mask_topic='/mask')]
    assert [None if truth is None else int(truth[0, 0]) for truth in truths] == [None, 1, 2]


@pytest.mark.parametrize(
    ('image_stamps', 'mask_stamps', 'who'),
    [((0, 1, 2), (0, 2, 1), '/mask'), ((0, 2, 1), (0, 1, 2), 'images')],
)
def test_masks_that_are_lost_because_a_bag_is_out_of_order_are_told_once(
    tmp_path, caplog, image_stamps, mask_stamps, who
):
    images = [image_message(picture(i), 'bgr8', stamp) for i, stamp in enumerate(image_stamps)]
    masks = [image_message(np.zeros((24, 32), np.uint8), 'mono8', stamp) for stamp in mask_stamps]
    path = write_bag(tmp_path / 'bag', {'/camera': images, '/mask': masks})
    frames = read(path, topic='/camera', mask_topic='/mask')
    assert len(frames) == 3
    assert any(frame.truth is None for frame in frames)
    assert caplog.text.count(f'{who} are not recorded in order of their stamps') == 1


def test_messages_of_another_type_on_the_topic_of_the_images_are_passed_over(tmp_path):
    path = tmp_path / 'bag'
    with rosbags.Writer(path, version=9, storage_plugin=rosbags.StoragePlugin.MCAP) as writer:
        for kind, message in (
            (IMAGE, image_message(picture(0), 'bgr8', 5)),
            ('std_msgs/msg/String', STORE.types['std_msgs/msg/String']('hello')),
        ):
            connection = writer.add_connection('/camera', kind, typestore=STORE)
            writer.write(connection, 0, STORE.serialize_cdr(message, kind))
    assert [frame.stamp_ns for frame in read(path)] == [5]


def test_a_recording_without_metadata_is_told_from_a_folder_without_images(tmp_path):
    path = write_bag(tmp_path / 'bag', {'/camera': [image_message(picture(0), 'bgr8', 7)]})
    (path / 'metadata.yaml').unlink()
    with pytest.raises(SourceError, match=r'holds bags and no metadata.yaml.* `ros2 bag reindex`'):
        open_source(str(path), SourceSettings(topic='/camera'))
    cv2.imwrite(f'{path}/1.png', picture(0))  # a folder of images in which a bag lies
    assert len(read(path)) == 1


def test_damaged_metadata_is_told_in_one_line(tmp_path):
    path = write_bag(tmp_path / 'bag', {'/camera': [image_message(picture(0), 'bgr8', 7)]})
    (path / 'metadata.yaml').write_text('a: [')
    with pytest.raises(SourceError, match='cannot be read as a bag') as refused:
        open_source(str(path))
    assert '\n' not in str(refused.value)


@pytest.mark.parametrize('count', [-5, 999999999999999999999, 'many'])
def test_a_count_of_messages_that_no_bag_has_is_refused(tmp_path, count):
    path = write_bag(tmp_path / 'bag', {'/camera': [image_message(picture(0), 'bgr8', 7)]})
    content = yaml.safe_load((path / 'metadata.yaml').read_text())
    content['rosbag2_bagfile_information']['topics_with_message_count'][0]['message_count'] = count
    (path / 'metadata.yaml').write_text(yaml.safe_dump(content))
    with pytest.raises(SourceError, match=rf'/camera has {count!r} messages.*reindex'):
        open_source(str(path))


def test_images_beside_metadata_of_something_else_are_no_bag(tmp_path):
    cv2.imwrite(f'{tmp_path}/1.png', picture(0))
    (tmp_path / 'metadata.yaml').write_text('camera: front\n')
    assert len(read(tmp_path)) == 1


def test_a_folder_with_metadata_of_something_else_is_not_replaced(tmp_path):
    (tmp_path / 'metadata.yaml').write_text('camera: front\n')
    with pytest.raises(SettingsError, match='holds no bag and is not replaced'):
        open_sink(f'bag:{tmp_path}', load_classes('camvid11'), overwrite=True)
    assert (tmp_path / 'metadata.yaml').exists()


def test_an_empty_name_is_no_source(tmp_path, monkeypatch):
    cv2.imwrite(f'{tmp_path}/1.png', picture(0))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError, match='empty name'):
        open_source('')


def test_of_messages_and_masks_that_cannot_be_used_the_first_is_told_and_how_many(tmp_path, caplog):
    good, bad = ([image_message(picture(i), 'bgr8', 1 + i) for i in range(count)] for count in (4, 8))
    for message in bad[4:]:
        message.step = 5
    masks = [image_message(np.zeros((8, 8), np.uint8), 'mono8', 1 + i) for i in range(4)]
    path = write_bag(tmp_path / 'bag', {'/camera': good + bad[4:], '/mask': masks})
    assert len(read(path, topic='/camera', mask_topic='/mask')) == 4
    assert [record.getMessage() for record in caplog.records] == [
        f'{path}: the mask of /mask at 0.000 s is left out: labels are (8, 8); the image is (24, 32)',
        f'{path}: message 5 of /camera is skipped: step is 5 bytes; a row of 32 bgr8 pixels takes 96',
        f'{path}: 4 messages of /camera were skipped',
        f'{path}: 4 masks of /mask were left out',
    ]


def test_a_bag_with_two_image_topics_needs_a_choice(tmp_path):
    messages = [image_message(picture(0), 'bgr8', 7)]
    path = write_bag(tmp_path / 'bag', {'/left': messages, '/right': messages})
    with pytest.raises(SourceError, match=r'several image topics; choose one with --topic: /left, /right'):
        open_source(str(path))
    assert len(read(path, topic='/right')) == 1
    with pytest.raises(SourceError, match=r'no image topic /rear; its image topics are: /left, /right'):
        open_source(str(path), SourceSettings(topic='/rear'))


def test_a_bag_without_images_is_refused(tmp_path):
    message = STORE.types['std_msgs/msg/String']('hello')
    path = write_bag(tmp_path / 'bag', {'/chat': [message]})
    with pytest.raises(SourceError, match='has no image topic; expected messages of sensor_msgs/msg/Image'):
        open_source(str(path))


def test_a_damaged_message_is_skipped_and_told(tmp_path, caplog):
    messages = [image_message(picture(i), 'bgr8', 1 + i) for i in range(3)]
    messages[1].step = 5
    path = write_bag(tmp_path / 'bag', {'/camera': messages})
    assert [frame.stamp_ns for frame in read(path)] == [1, 3]
    assert 'message 2 of /camera is skipped: step is 5 bytes' in caplog.text


def test_a_bag_whose_messages_are_all_damaged_is_an_error(tmp_path):
    path = write_bag(tmp_path / 'bag', {'/camera': [image_message(picture(0), '32FC1', 0)]})
    with pytest.raises(SourceError, match="no message of /camera can be used: encoding '32FC1'"):
        read(path)


def test_a_mask_of_another_size_is_no_truth_and_its_image_stays(tmp_path, caplog):
    topics = {
        '/camera': [image_message(picture(i), 'bgr8', i) for i in range(2)],
        '/mask': [
            image_message(np.zeros((8, 8), np.uint8), 'mono8', 0),
            image_message(np.zeros((24, 32), np.uint8), 'mono8', 1),
        ],
    }
    bad, good = read(write_bag(tmp_path / 'bag', topics), topic='/camera', mask_topic='/mask')
    assert bad.truth is None
    assert good.truth is not None
    assert 'mask of /mask at 0.000 s is left out: labels are (8, 8); the image is (24, 32)' in caplog.text


@pytest.mark.parametrize('share', [0.0, 0.3, 0.9])
def test_a_bag_that_is_cut_off_is_refused(tmp_path, share):
    messages = [image_message(picture(i), 'bgr8', i) for i in range(3)]
    file = write_bag(tmp_path / 'bag', {'/camera': messages}) / 'bag.mcap'
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    advice = '.* `mcap recover` on the file first' if share else ''
    with pytest.raises(SourceError, match=rf'bag.* cannot be read as a bag{advice}'):
        open_source(str(tmp_path / 'bag'))
    with pytest.raises(SourceError, match=rf'bag\.mcap cannot be read as a bag{advice}'):
        open_source(str(file))


def result(frame, number=0):
    """A segmentation that says `number` everywhere."""
    mask = np.full(frame.size, number, np.uint8)
    return Segmentation(mask, mask + 100, number == 0, number, 0, frame.stamp_ns)


def frames_of(count):
    return [Frame(picture(i), STAMP_NS + i * 10**8, 'front') for i in range(count)]


@pytest.mark.parametrize('name', ['out.mcap', 'bag:out'])
def test_results_come_back_from_a_bag_as_they_were_written(tmp_path, name):
    path = tmp_path / name.removeprefix('bag:')
    spec = str(path) if name == 'out.mcap' else f'bag:{path}'
    sink = open_sink(spec, load_classes('camvid11'), images=True)
    frames = frames_of(3)
    for number, frame in enumerate(frames):
        sink.write(frame, result(frame, number))
    assert [entry.name[0] for entry in tmp_path.iterdir()] == ['.'], 'nothing under its name before the end'
    sink.close()
    assert [entry.name for entry in tmp_path.iterdir()] == ['out.mcap' if name == 'out.mcap' else 'out']
    found = read(path, topic='/image_raw', mask_topic='/segmentation/mask')
    for number, (frame, copy) in enumerate(zip(frames, found, strict=True)):
        assert np.array_equal(copy.image, frame.image)
        assert (copy.stamp_ns, copy.camera) == (frame.stamp_ns, 'front')
        assert (copy.truth == number).all()


def test_the_confidence_and_the_names_of_the_classes_are_in_the_bag(tmp_path):
    classes = load_classes('camvid11')
    sink = open_sink(str(tmp_path / 'out.mcap'), classes)
    (frame,) = frames_of(1)
    sink.write(frame, result(frame, 3))
    sink.close()
    with AnyReader([Path(tmp_path / 'out.mcap')]) as reader:
        found = {c.topic: reader.deserialize(data, c.msgtype) for c, _, data in reader.messages()}
    assert set(found) == {f'/segmentation/{name}' for name in ('mask', 'confidence', 'label_names')}
    confidence = found['/segmentation/confidence']
    assert (confidence.encoding, confidence.height, confidence.width, confidence.step) == (
        'mono8',
        24,
        32,
        32,
    )
    assert (confidence.data == 103).all()
    names = yaml.safe_load(found['/segmentation/label_names'].data)
    assert [entry['name'] for entry in names] == list(classes.names)
    assert names[3] == {'id': 3, 'name': 'road', 'colour': [128, 64, 128]}


def test_who_listens_to_a_bag_late_still_gets_the_names_of_the_classes(tmp_path):
    sink = open_sink(str(tmp_path / 'out.mcap'), load_classes('camvid11'))
    for frame in frames_of(2):
        sink.write(frame, result(frame))
    sink.close()
    with AnyReader([tmp_path / 'out.mcap']) as reader:
        offered = {c.topic: c.ext.offered_qos_profiles[0] for c in reader.connections}
        count = {c.topic: c.msgcount for c in reader.connections}
    assert {topic.rpartition('/')[2]: qos.durability.name for topic, qos in offered.items()} == {
        'label_names': 'TRANSIENT_LOCAL',
        'mask': 'VOLATILE',
        'confidence': 'VOLATILE',
    }
    assert {qos.reliability.name for qos in offered.values()} == {'RELIABLE'}, 'who asks for it gets it'
    assert {qos.depth for qos in offered.values()} == {1}
    assert count['/segmentation/label_names'] == 1


def test_a_bag_is_not_replaced_unless_asked(tmp_path):
    classes = load_classes('camvid11')
    for name in ('out.mcap', 'folder'):
        spec = str(tmp_path / name) if name == 'out.mcap' else f'bag:{tmp_path / name}'
        for number in range(2):
            if number:
                with pytest.raises(SettingsError, match=f'{name} exists; choose another name or add --over'):
                    open_sink(spec, classes)
            sink = open_sink(spec, classes, overwrite=number > 0)
            for frame in frames_of(number + 1):
                sink.write(frame, result(frame))
            sink.close()
        assert len(read(tmp_path / name, topic='/segmentation/mask')) == 2


def test_a_bag_that_is_given_up_leaves_nothing(tmp_path):
    for spec in (f'bag:{tmp_path}/a', f'{tmp_path}/b.mcap'):
        sink = open_sink(spec, load_classes('camvid11'))
        (frame,) = frames_of(1)
        sink.write(frame, result(frame))
        sink.discard()
        sink.discard()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ('definition', 'fields', 'told'),
    [
        ('uint32 height\n', (1,), 'header.stamp.sec is no int'),
        ('std_msgs/Header header\nstring height\n', (header(0), '1'), 'height is no int'),
    ],
)
def test_a_bag_that_brings_an_image_of_its_own_along_is_refused(tmp_path, definition, fields, told):
    store = get_typestore(Stores.EMPTY)
    known = {name: STORE.fielddefs[name] for name in ('std_msgs/msg/Header', 'builtin_interfaces/msg/Time')}
    store.register({**known, **get_types_from_msg(definition, IMAGE)})
    with rosbags.Writer(tmp_path / 'bag', version=9, storage_plugin=rosbags.StoragePlugin.MCAP) as writer:
        connection = writer.add_connection('/camera', IMAGE, typestore=store)
        writer.write(connection, 5000, store.serialize_cdr(store.types[IMAGE](*fields), IMAGE))
    with pytest.raises(SourceError, match=f'no message of /camera can be used: it is no {IMAGE} .*: {told}'):
        read(tmp_path / 'bag')


def test_a_folder_named_like_a_bag_of_ros_1_is_told_to_be_renamed(tmp_path):
    path = write_bag(tmp_path / 'drive.bag', {'/camera': [image_message(picture(0), 'bgr8', STAMP_NS)]})
    with pytest.raises(SourceError, match=r'drive.bag is a folder named like a bag of ROS 1.* rename it'):
        read(path)


def test_a_message_of_garbage_is_skipped(tmp_path, caplog):
    path = tmp_path / 'bag'
    with rosbags.Writer(path, version=9, storage_plugin=rosbags.StoragePlugin.MCAP) as writer:
        connection = writer.add_connection('/camera', IMAGE, typestore=STORE)
        for number, data in enumerate((b'', b'\0\1\0\0' + struct.pack('<iII', 1, 2, 1 << 30))):
            writer.write(connection, number, data)
        writer.write(connection, 2, STORE.serialize_cdr(image_message(picture(0), 'bgr8', 5), IMAGE))
    assert [frame.stamp_ns for frame in read(path)] == [5]
    assert caplog.text.count('is skipped: it cannot be decoded') == 1
    assert '2 messages of /camera were skipped' in caplog.text


@pytest.mark.parametrize('seconds', [-5, 2**31 - 1, -(2**31)])
def test_every_stamp_that_a_message_can_have_goes_into_a_bag_and_back(tmp_path, seconds):
    (frame,) = frames_of(1)
    frame = Frame(frame.image, seconds * 10**9 + 7)
    sink = open_sink(str(tmp_path / 'out.mcap'), load_classes('camvid11'), images=True)
    sink.write(frame, result(frame, 3))
    sink.close()
    (found,) = read(tmp_path / 'out.mcap', topic='/image_raw')
    assert found.stamp_ns == frame.stamp_ns
    with AnyReader([tmp_path / 'out.mcap']) as reader:
        assert {recorded_ns for _, recorded_ns, _ in reader.messages()} == {max(frame.stamp_ns, 0)}


@pytest.mark.parametrize('seconds', [2**31, -(2**31) - 1, 2**40])
def test_a_stamp_that_no_message_can_have_is_refused(tmp_path, seconds):
    (frame,) = frames_of(1)
    frame = Frame(frame.image, seconds * 10**9)
    sink = open_sink(str(tmp_path / 'out.mcap'), load_classes('camvid11'))
    with pytest.raises(FrameError, match='which a ROS message cannot hold'):
        sink.write(frame, result(frame, 3))
    sink.discard()
    assert list(tmp_path.iterdir()) == []


def test_masks_may_be_compressed_as_the_node_publishes_them(tmp_path):
    image, mask = picture(1), np.full((24, 32), 7, np.uint8)
    coded = cv2.imencode('.png', mask)[1].reshape(-1)
    colours = cv2.imencode('.png', image)[1].reshape(-1)
    compressed = STORE.types[COMPRESSED]
    path = write_bag(
        tmp_path / 'bag',
        {
            '/camera': [image_message(image, 'bgr8', STAMP_NS + number) for number in range(2)],
            '/mask/compressed': [
                compressed(header(STAMP_NS), 'mono8; png compressed mono8', coded),
                compressed(header(STAMP_NS + 1), 'png', colours),
            ],
        },
    )
    grey, coloured = read(path, topic='/camera', mask_topic='/mask/compressed')
    assert (grey.truth == mask).all()
    assert coloured.truth is None  # colours are not class ids
