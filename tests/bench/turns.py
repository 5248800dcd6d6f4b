"""Many short turns within one load: replylog attaches and detaches beside a server that is never idle. The machine's own
fluctuation is mostly the same right before, during and right after a turn, and many turns average out the rest. Rounds
(pairs.py) start a new load for each row, which alone changes the result on a VM by more than replylog does."""
import contextlib
import math
import statistics
import time

from bench import meter, pairs
from bench.client import commands_processed

WINDOW_S = 0.5
KEYS = ("rate", "main_ns", "io_ns")


def snapshot(server, client):
    commands = commands_processed(client)
    return time.monotonic(), commands, *meter.server_cpu(server.pid)


def window(server, client):
    """Commands per second, and nanoseconds of the main and IO threads per command, over half a second."""
    began, *before = snapshot(server, client)
    time.sleep(WINDOW_S)
    ended, *after = snapshot(server, client)
    commands, main, io = (new - old for new, old in zip(after, before))
    return {"rate": commands / (ended - began), "main_ns": main / commands, "io_ns": io / commands}


def turn(server, client, row, before):
    """Returns (the row's measurement divided by the mean of those right before and right after, the one after)."""
    with row.beside(server):
        beside = window(server, client)
    after = window(server, client)
    return {key: beside[key] * 2 / (before[key] + after[key]) for key in KEYS if before[key] + after[key]}, after


def programs(server, client, row, count):
    """BPF nanoseconds per command, from some measurements with the kernel's statistics on."""
    found = []
    with row.beside(server) as beside, meter.bpf_stats():
        for _ in range(count):
            spent, commands = meter.programs_time(beside.pid)[0], commands_processed(client)
            time.sleep(WINDOW_S)
            spent, commands = (meter.programs_time(beside.pid)[0] - spent, commands_processed(client) - commands)
            found.append(spent / commands)
    return found


def run(server, rows, load, count, say):
    """Returns {"base": measurements with nothing, "turns": {row: [ratios]}, "programs": {row: [ns per command]},
    "lacking": {row: why}}."""
    rows, lacking = pairs.usable(server, rows)
    turns, base = {row.name: [] for row in rows}, []
    with contextlib.ExitStack() as stack:
        stack.enter_context(load.going_on(server))
        client = stack.enter_context(server.client())
        base.append(window(server, client))
        for number in range(count):
            for row in rows:
                ratios, after = turn(server, client, row, base[-1])
                turns[row.name].append(ratios)
                base.append(after)
            if (number + 1) % 10 == 0:
                say(f"    {number + 1} turns")
        spent = {row.name: programs(server, client, row, max(3, count // 5)) for row in rows if row.has_programs}
    return {"base": base, "turns": turns, "programs": spent, "lacking": lacking}


def median(values):
    """Returns (median, low, high). The interval has 95 % confidence by the order of the values, for any distribution:
    from rank n/2 - 0.98 sqrt(n) to 1 + n/2 + 0.98 sqrt(n). For few values it is all of them."""
    values = sorted(values)
    middle, reach = len(values) / 2, 0.98 * math.sqrt(len(values))
    low = max(0, math.floor(middle - reach) - 1)
    high = min(len(values) - 1, math.ceil(middle + reach))
    return statistics.median(values), values[low], values[high]


def of_key(result, name, key):
    """The values of one row, or None where there is no such thread."""
    found = [ratios[key] for ratios in result["turns"][name] if key in ratios]
    return median(found) if found else None
