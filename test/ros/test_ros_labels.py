"""What the label topics say, without a node."""

from types import SimpleNamespace

import yaml

from vss_ros.core.classes import load_classes
from vss_ros.ros.labels import fill_label_info


def test_label_names_are_yaml_with_id_name_and_colour():
    classes = load_classes('camvid11')
    entries = yaml.safe_load(classes.as_yaml())
    assert [entry['id'] for entry in entries] == list(range(11))
    assert tuple(entry['name'] for entry in entries) == classes.names
    assert tuple(tuple(entry['colour']) for entry in entries) == classes.colours


def test_label_info_maps_ids_to_names():
    # vision_msgs has no wheel; its messages are filled by attribute, so plain objects show what they get.
    classes, header = load_classes('camvid11'), object()
    message = fill_label_info(SimpleNamespace(), SimpleNamespace, classes, 0.3, header)
    assert message.header is header
    assert message.threshold == 0.3
    assert {entry.class_id: entry.class_name for entry in message.class_map} == dict(enumerate(classes.names))
