from pathlib import Path

import pytest

from vss_ros.cli.main import _parser
from vss_ros.core.classes import load_classes
from vss_ros.core.errors import ModelError, SourceError
from vss_ros.core.files.paths import user_path
from vss_ros.core.model.folder import find_model
from vss_ros.core.sinks.open import open_sink
from vss_ros.core.sources.open import open_source


def test_a_tilde_is_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv('HOME', str(tmp_path))
    assert user_path('~/a b') == tmp_path / 'a b'
    assert user_path('a/~') == Path('a/~')


def test_a_name_that_begins_with_a_tilde_is_a_name_like_any_other(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError, match=r'~drive.mp4 does not exist'):
        open_source('~drive.mp4')
    with pytest.raises(ModelError, match=r"'~model' was not found"):
        find_model('~model')
    open_sink('~masks/', load_classes('camvid11')).close()
    assert (tmp_path / '~masks').is_dir()


@pytest.mark.parametrize(
    'words',
    [
        'run x --labels=~/it',
        'bench --json=~/it',
        'demo --output-dir=~/it',
        'evaluate x --output=~/it',
        'train x --runs=~/it',
        'calibrate x --stills=~/it',
    ],
)
def test_a_tilde_within_an_option_makes_no_folder_of_that_name(monkeypatch, tmp_path, words):
    monkeypatch.setenv('HOME', str(tmp_path))
    verb = words.split()[0]
    assert tmp_path / 'it' in vars(_parser(verb).parse_args(words.split())).values()
