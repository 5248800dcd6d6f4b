"""Threshold 0: how many records per second reach a file, and from where on they are dropped, and counted."""
import tempfile
import time

from bench import meter
from bench.client import Load
from bench.row import SCRATCH, recording
from bench.workload import KEY

RATES = (25_000, 50_000, 100_000, 150_000, 200_000, 300_000, 400_000, None)     # None: as fast as they can
PIPELINE = 16


def measure(server, flags, rate, seconds, keys):
    """Replies come for some seconds; records, until replylog has written what was under way."""
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
            continue    # more than this machine can: only the last one says something new
        points.append(measure(server, flags, rate, seconds, keys))
        say(points[-1])
    return points


def kept(point):
    """Of the replies, the part that became records: once the load is over nothing is lost any more."""
    return point["replies"] / max(1, point["replies"] + point["dropped"])
