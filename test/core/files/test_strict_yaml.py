import pytest
import yaml

from vss_ros.core.files.strict_yaml import load_strictly


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('a: 1\nb: c: 2', r'mapping values are not allowed here \(line 2, column 5\)'),
        ('a: [1,\nb: 2', r"expected ',' or ']', but got '<stream end>' \(line 2, column 5\)"),
        ('a: 1\nb: !mine 2', r"could not determine a constructor for the tag '!mine' \(line 2, column 4\)"),
        ('a: 1\nb: 2\na: 3', r'a is given twice \(line 1 and after\)'),
    ],
)
def test_a_mistake_is_told_in_one_line_with_its_place(text, message):
    with pytest.raises(yaml.YAMLError, match=f'^{message}$'):
        load_strictly(text)


def test_references_are_read_unless_they_are_refused():
    text = 'a: &it [1]\nb: *it'
    assert load_strictly(text) == {'a': [1], 'b': [1]}
    with pytest.raises(yaml.YAMLError, match='refers to parts of itself'):
        load_strictly(text, references=False)
