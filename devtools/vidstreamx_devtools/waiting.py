"""Waiting for conditions, never for time."""

from __future__ import annotations

import time


def until(condition, within: float, every: float = 0.2):
    """What the condition gives as soon as it is true, or its last answer when time is up."""
    deadline = time.monotonic() + within
    while True:
        answer = condition()
        if answer or time.monotonic() > deadline:
            return answer
        time.sleep(every)
