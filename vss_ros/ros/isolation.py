"""A ROS domain of one's own on this machine, so that nothing else is heard and nothing else hears."""

from __future__ import annotations

import os
import socket

from vss_ros.core.errors import VssError

DOMAINS = range(1, 101)  # whose ports no system uses for anything else
FIRST_PORT = 32000


def claim_domain() -> socket.socket:
    """Claims a free domain for this process and its children, which talk on this machine only.

    To be called before the middleware is loaded.

    Returns:
        what keeps the domain ours until it is closed.
    Raises:
        VssError: all domains are taken.
    """
    for domain in DOMAINS:
        lock = socket.socket()
        try:
            lock.bind(('127.0.0.1', FIRST_PORT + domain))
        except OSError:
            lock.close()
            continue
        os.environ['ROS_DOMAIN_ID'] = str(domain)
        os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
        return lock
    raise VssError(f'no ROS domain of {DOMAINS[0]} to {DOMAINS[-1]} is free on this machine')
