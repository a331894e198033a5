"""How much of the processor a process may use: what the system, a container or a launcher leaves it."""

from __future__ import annotations

import os

import pytest

from vss_ros.core import processor
from vss_ros.core.processor import processor_name, usable_cores


def test_a_processor_has_a_name():
    assert processor_name()


@pytest.mark.skipif(not hasattr(os, 'sched_setaffinity'), reason='processes cannot be bound to cores here')
def test_a_process_that_is_bound_to_one_core_gets_one_thread():
    cores = os.sched_getaffinity(0)
    assert 1 <= usable_cores() <= len(cores)
    os.sched_setaffinity(0, {min(cores)})
    try:
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, cores)


@pytest.fixture
def eight_cpus(tmp_path, monkeypatch):
    """Writes what the system tells of eight CPUs, of which two at a time share a core, and of a quota."""
    monkeypatch.setattr(os, 'sched_getaffinity', lambda _: set(range(8)), raising=False)
    for name in ('CPUS', 'CONTROL_GROUPS', 'MEMBERSHIPS'):
        monkeypatch.setattr(processor, name, tmp_path / name)

    def write(files):
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)

    def cores():
        write({f'CPUS/cpu{n}/topology/thread_siblings_list': f'{n % 4},{n % 4 + 4}\n' for n in range(8)})

    return write, cores


def test_threads_that_share_a_core_are_one_core(eight_cpus, monkeypatch):
    _, cores = eight_cpus
    assert usable_cores() == 8  # where the system does not tell
    cores()
    assert usable_cores() == 4
    monkeypatch.setattr(os, 'sched_getaffinity', lambda _: {0, 4, 5})
    assert usable_cores() == 2


V1 = 'CONTROL_GROUPS/cpu,cpuacct'


@pytest.mark.parametrize(
    ('files', 'expected'),
    [
        ({'MEMBERSHIPS': '0::/a/b\n', 'CONTROL_GROUPS/a/b/cpu.max': '250000 100000\n'}, 2),
        ({'MEMBERSHIPS': '0::/a/b\n', 'CONTROL_GROUPS/a/cpu.max': '50000 100000\n'}, 1),
        ({'MEMBERSHIPS': '0::/of/the/host\n', 'CONTROL_GROUPS/cpu.max': '300000 100000\n'}, 3),
        ({'MEMBERSHIPS': '0::/\n', 'CONTROL_GROUPS/cpu.max': 'max 100000\n'}, 4),
        (
            {
                'MEMBERSHIPS': '5:memory:/a\n4:cpu,cpuacct:/a\n0::/\n',
                f'{V1}/a/cpu.cfs_quota_us': '200000\n',
                f'{V1}/a/cpu.cfs_period_us': '100000\n',
                f'{V1}/cpu.cfs_quota_us': '-1\n',
                f'{V1}/cpu.cfs_period_us': '100000\n',
            },
            2,
        ),
        ({'MEMBERSHIPS': 'nonsense\n'}, 4),
    ],
)
def test_a_quota_of_time_is_a_limit_of_cores(eight_cpus, files, expected):
    write, cores = eight_cpus
    cores()
    write(files)
    assert usable_cores() == expected
