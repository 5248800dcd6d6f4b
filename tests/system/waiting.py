"""Tests never sleep for a fixed time. They poll for what they wait for, with a deadline."""
import select
import time


def wait_until(condition, what, seconds=20.0, interval=0.005):
    """Returns condition()'s first true value. Polls with growing pauses, so that waiting takes no CPU away."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"no {what} within {seconds:g} s")
        time.sleep(interval)
        interval = min(interval * 1.5, 0.1)


def readable(fd, seconds):
    return bool(select.select([fd], [], [], seconds)[0])
