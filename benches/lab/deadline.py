"""A measurement never runs longer than it may."""

import contextlib
import signal
import time


class Passed(Exception):
    """The time is over, or somebody wants the run to end."""


class Deadline:
    def __init__(self, seconds):
        self.end = time.monotonic() + seconds

    def left(self):
        """Seconds."""
        return self.end - time.monotonic()


@contextlib.contextmanager
def limited(seconds):
    """Ends what is inside by `Passed`, so that every process that was started is stopped."""
    def stop(number, _):
        raise Passed("time is over" if number == signal.SIGALRM else "told to end")

    for number in (signal.SIGALRM, signal.SIGTERM):
        signal.signal(number, stop)
    signal.alarm(int(seconds))
    try:
        yield Deadline(seconds)
    finally:
        signal.alarm(0)
