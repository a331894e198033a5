"""Outputs appear complete or not at all."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest

from vss_ros.core.errors import SettingsError
from vss_ros.core.files.drafts import MARK, PREFIX, Draft, check_file, check_writable, write_file

WRITER = """
import sys
from pathlib import Path
from vss_ros.core.files.drafts import Draft

draft = Draft(Path(sys.argv[1]))
draft.path.with_suffix('').mkdir()  # as bags do, whose one file gets its name at the end
(draft.path.with_suffix('') / 'data').write_bytes(bytes(2_000_000))
print('ready', flush=True)
sys.stdin.read()
"""


def interrupt():
    raise KeyboardInterrupt


@contextmanager
def writer_of(target):
    """Another process that writes a target and does not come to an end; it is killed."""
    command = [sys.executable, '-c', WRITER, str(target)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b'ready\n'
            yield
        finally:
            process.send_signal(signal.SIGKILL)


def drafts_in(folder):
    return sorted(folder.glob('.unfinished-*'))


def test_a_draft_replaces_a_folder_as_a_whole(tmp_path):
    target = tmp_path / 'deep' / 'folder'
    for name in ('old', 'new'):
        draft = Draft(target, overwrite=True)
        draft.path.mkdir()
        (draft.path / name).write_text('')
        draft.publish()
    assert os.listdir(target) == ['new']
    assert os.listdir(target.parent) == ['folder']


def test_a_small_file_appears_complete_or_not_at_all(tmp_path, monkeypatch):
    write_file(tmp_path / 'a.txt', 'first')
    monkeypatch.setattr(os, 'replace', lambda *_: interrupt())
    with pytest.raises(KeyboardInterrupt):
        write_file(tmp_path / 'a.txt', 'second')
    assert os.listdir(tmp_path) == ['a.txt']
    assert (tmp_path / 'a.txt').read_text() == 'first'


def test_text_may_hold_the_name_of_any_file(tmp_path):
    write_file(tmp_path / 'a.txt', os.fsdecode(b'caf\xe9'))
    assert (tmp_path / 'a.txt').read_text() == 'caf\\udce9'


def test_a_folder_that_cannot_be_replaced_is_put_back(tmp_path):
    target = tmp_path / 'model'
    target.mkdir()
    (target / 'old').touch()
    draft = Draft(target, overwrite=True)  # nothing is written to draft.path, so the move fails
    with pytest.raises(FileNotFoundError):
        draft.publish()
    draft.discard()
    assert [entry.name for entry in tmp_path.rglob('*')] == ['model', 'old']


@pytest.mark.parametrize('done', [False, True])
def test_ctrl_c_while_a_folder_is_replaced_leaves_the_old_or_the_new_one(tmp_path, monkeypatch, done):
    move = os.replace

    def interrupted(source, target):
        if done:
            move(source, target)
        raise KeyboardInterrupt

    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'old').touch()
    draft = Draft(tmp_path / 'out', overwrite=True)
    draft.path.mkdir()
    (draft.path / 'new').touch()
    monkeypatch.setattr(os, 'replace', interrupted)
    with pytest.raises(KeyboardInterrupt):
        draft.publish()
    draft.discard()
    assert os.listdir(tmp_path) == ['out']
    assert os.listdir(tmp_path / 'out') == ['new' if done else 'old']


def test_a_folder_of_any_name_can_be_replaced(tmp_path):
    for content in ('old', 'new'):
        draft = Draft(tmp_path / 'replaced', overwrite=True)
        draft.path.mkdir()
        (draft.path / content).touch()
        draft.publish()
    assert os.listdir(tmp_path / 'replaced') == ['new']


def test_of_two_runs_with_one_output_the_second_to_end_does_not_replace_the_first(tmp_path):
    first, second = (Draft(tmp_path / 'scores.json') for _ in range(2))
    first.path.write_text('first')
    second.path.write_text('second')
    first.publish()
    with pytest.raises(SettingsError, match=r'scores.json was written by another meanwhile'):
        second.publish()
    second.discard()
    assert (tmp_path / 'scores.json').read_text() == 'first'
    assert os.listdir(tmp_path) == ['scores.json']


def test_a_link_stays_a_link_to_what_is_written(tmp_path):
    (tmp_path / 'elsewhere').mkdir()
    (tmp_path / 'link.json').symlink_to(tmp_path / 'elsewhere' / 'file.json')
    write_file(tmp_path / 'link.json', 'figures')
    assert (tmp_path / 'link.json').is_symlink()
    assert (tmp_path / 'elsewhere' / 'file.json').read_text() == 'figures'


def test_a_pipe_is_written_into_and_stays_one(tmp_path):
    os.mkfifo(tmp_path / 'pipe')
    reader = os.open(tmp_path / 'pipe', os.O_RDONLY | os.O_NONBLOCK)
    check_file(tmp_path / 'pipe')
    write_file(tmp_path / 'pipe', 'figures', overwrite=False)
    assert (tmp_path / 'pipe').is_fifo()
    assert os.read(reader, 100) == b'figures'
    os.close(reader)


@pytest.mark.parametrize('write', [check_file, lambda path: write_file(path, 'figures')])
def test_a_link_to_itself_is_refused_in_one_line(tmp_path, write):
    (tmp_path / 'loop').symlink_to(tmp_path / 'loop')
    with pytest.raises(SettingsError, match='leads back to itself'):
        write(tmp_path / 'loop')


def test_what_a_killed_process_left_is_removed_when_its_target_is_written_again(tmp_path, caplog):
    with writer_of(tmp_path / 'out.mcap'), writer_of(tmp_path / 'other.mcap'):
        pass
    assert len(drafts_in(tmp_path)) == 2
    Draft(tmp_path / 'out.mcap').discard()
    assert caplog.text.count('2.0 MB, was left from a process that was ended while it wrote') == 1
    (left,) = drafts_in(tmp_path)
    assert (left / 'other').is_dir()


def test_a_link_that_is_named_like_a_leftover_is_left_alone(tmp_path):
    theirs = tmp_path / 'theirs'
    theirs.mkdir()
    for name in ('out', 'out.replaced'):
        (theirs / name).write_text('theirs')
    (tmp_path / f'{PREFIX}x').symlink_to(theirs)
    Draft(tmp_path / 'out').discard()
    assert not (tmp_path / 'out').exists()
    assert sorted(path.name for path in theirs.iterdir()) == ['out', 'out.replaced']


def test_a_folder_may_hold_a_file_of_any_name_and_be_written_to(tmp_path):
    (tmp_path / 'draft').write_text('mine')
    check_writable(tmp_path)
    assert (tmp_path / 'draft').read_text() == 'mine'


def test_what_a_living_process_writes_is_left_alone(tmp_path, caplog):
    with writer_of(tmp_path / 'out.mcap'):
        (held,) = drafts_in(tmp_path)
        draft = Draft(tmp_path / 'out.mcap')
        assert held in drafts_in(tmp_path)
        draft.discard()
        assert drafts_in(tmp_path) == [held]
        assert (held / 'out' / 'data').stat().st_size == 2_000_000
    assert not caplog.text


def test_where_files_have_no_locks_what_may_be_left_is_named_and_stays(tmp_path, caplog, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, 'flock', no_locks)
    with writer_of(tmp_path / 'out.mcap'):
        (left,) = drafts_in(tmp_path)
    draft = Draft(tmp_path / 'out.mcap')
    draft.path.write_text('new')
    draft.publish()
    assert f'{left}, 2.0 MB, may be left' in caplog.text
    assert drafts_in(tmp_path) == [left]


def test_what_was_being_replaced_when_a_process_was_killed_is_put_back(tmp_path):
    left = tmp_path / '.unfinished-killed'
    for name in ('out', 'out.replaced'):
        (left / name).mkdir(parents=True)
    (left / 'out.replaced' / 'old').touch()
    with pytest.raises(SettingsError, match='out exists'):
        Draft(tmp_path / 'out')
    assert os.listdir(tmp_path) == ['out']
    assert os.listdir(tmp_path / 'out') == ['old']


def test_what_was_replaced_is_removed_where_the_new_one_was_in_its_place_when_a_process_was_killed(tmp_path):
    left, target = tmp_path / f'{PREFIX}killed', tmp_path / 'out'
    for folder in (target / 'new', left / 'out.replaced' / 'old'):
        folder.mkdir(parents=True)
    (left / MARK).write_text('out')
    Draft(target, overwrite=True).discard()
    assert os.listdir(tmp_path) == ['out']
    assert os.listdir(target) == ['new']


def test_what_looks_like_a_leftover_and_cannot_be_read_keeps_nobody_from_writing(tmp_path):
    (tmp_path / f'{PREFIX}theirs' / MARK).mkdir(parents=True)
    write_to = Draft(tmp_path / 'out')
    write_to.path.write_text('new')
    write_to.publish()
    assert sorted(os.listdir(tmp_path)) == [f'{PREFIX}theirs', 'out']


def test_a_draft_that_cannot_be_begun_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, 'flock', lambda *_: interrupt())
    with pytest.raises(KeyboardInterrupt):
        Draft(tmp_path / 'out')
    assert os.listdir(tmp_path) == []
