"""Threshold 0: how many records per second replylog writes to a file, and from which rate on it drops and counts them."""
import tempfile
import time

from bench import meter
from bench.client import Load
from bench.row import SCRATCH, recording
from bench.workload import KEY

RATES = (25_000, 50_000, 100_000, 150_000, 200_000, 300_000, 400_000, None)     # None: as fast as possible
PIPELINE = 16


def measure(server, flags, rate, seconds, keys):
    """Sends load for some seconds. Returns the records when replylog has written all that it had buffered."""
    load = Load(["GET", KEY], PIPELINE, 50, keys, rate=rate)
    SCRATCH.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=SCRATCH) as file:
        with recording(server, [*flags, "--threshold", "0"], file.name) as beside:
            own, begin = meter.process_ns(beside.pid), time.monotonic()
            result = load.run(server, seconds)
            elapsed = time.monotonic() - begin
            own = meter.process_ns(beside.pid) - own
        size = file.seek(0, 2)
    stop = beside.stop
    return {"wanted": rate, "rate": result["rate"], "p99_ms": result["p99_ms"], "seconds": elapsed, "own_ns": own,
            "replies": stop["replies"], "dropped": stop["dropped"], "bytes": size}


def run(server, flags, seconds, keys, say):
    points = []
    for rate in RATES:
        if rate and points and points[-1]["rate"] < points[-1]["wanted"] * 0.8:
            continue    # beyond what this machine can send, only the last rate tells something new
        points.append(measure(server, flags, rate, seconds, keys))
        say(points[-1])
    return points


def kept(point):
    """The share of replies that became records. After the load nothing more is lost."""
    return point["replies"] / max(1, point["replies"] + point["dropped"])
