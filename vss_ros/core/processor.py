"""The processor that this process runs on: its name, and how much of it may be used."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

CPUS = Path('/sys/devices/system/cpu')
CONTROL_GROUPS = Path('/sys/fs/cgroup')
MEMBERSHIPS = Path('/proc/self/cgroup')


def processor_name() -> str:
    """Its name as its maker gives it, or the kind of machine where the system does not tell."""
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(':')[2].strip() for line in lines if line.startswith('model name'))
    return next(names, platform.processor() or platform.machine())


def usable_cores() -> int:
    """How many cores this process may keep busy, which a container or a launcher can restrict.

    Of hardware threads that share a core one counts: the products of a network keep all of it busy.
    """
    if not hasattr(os, 'sched_getaffinity'):
        return os.cpu_count() or 1
    cores = {_threads_of_core(cpu) for cpu in os.sched_getaffinity(0)}
    return max(min([len(cores), *_quotas()]), 1)


def _threads_of_core(cpu: int) -> str:
    try:
        return (CPUS / f'cpu{cpu}' / 'topology' / 'thread_siblings_list').read_text()
    except OSError:
        return str(cpu)


def _quotas() -> Iterator[int]:
    """How many cores' time each control group that this process is in leaves it, of those that limit it."""
    try:
        memberships = [line.split(':', 2) for line in MEMBERSHIPS.read_text().splitlines()]
    except OSError:
        return
    for _, controllers, group in (entry for entry in memberships if len(entry) == 3):
        if controllers and 'cpu' not in controllers.split(','):
            continue
        path = Path(controllers, group.strip('/'))  # in a container only the root may be there
        for folder in (CONTROL_GROUPS / each for each in (path, *path.parents)):
            with suppress(OSError, ValueError):  # `max`, say
                files = ('cpu.cfs_quota_us', 'cpu.cfs_period_us') if controllers else ('cpu.max',)
                text = ' '.join((folder / file).read_text() for file in files)
                quota, period = map(int, text.split())
                if quota > 0 and period > 0:  # -1: none
                    yield quota // period
