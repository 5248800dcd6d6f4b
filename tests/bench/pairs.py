"""Rounds of runs. Each round measures every row once, in an order that shifts by one each round, and compares it with the
round's own run with nothing beside the server. A drift of the machine then affects all rows alike."""
import statistics

from environment import Skip

from bench import client, meter

BASE = "nothing"
STATS_RUNS = 3      # counts vary less than times


def commands_processed(server):
    with server.client() as ours:
        return client.commands_processed(ours)


def measure(server, row, load, seconds, stats=False):
    """One run with the row beside the server."""
    with row.beside(server) as beside:
        commands = commands_processed(server)
        main, io = meter.server_cpu(server.pid)
        own = meter.process_ns(beside.pid) if beside.pid else 0
        spent = meter.programs_time(beside.pid) if stats else None
        result = {"row": row.name, **load.run(server, seconds)}
        main_after, io_after = meter.server_cpu(server.pid)
        result.update(main_ns=main_after - main, io_ns=io_after - io)
        if beside.pid:
            result.update(own_ns=meter.process_ns(beside.pid) - own, own_kib=meter.peak_kib(beside.pid),
                          kernel_bytes=sum(meter.kernel_bytes(beside.pid)))
        if stats:
            result["bpf_ns"], result["bpf_runs"] = (
                after - before for after, before in zip(meter.programs_time(beside.pid), spent))
        # For loads that do not count them: valkey-benchmark forgets commands outstanding at its end. The bench's own INFO
        # and the like are a few among thousands.
        result.setdefault("commands", commands_processed(server) - commands)
    for key in ("hits_main", "hits_io", "replies", "dropped"):
        if key in beside.stop:
            result[key] = beside.stop[key]
    return result


def usable(server, rows):
    """Returns the rows that can be measured on this server, and why the others can't."""
    lacking = {row.name: row.lacks(server) for row in rows}
    return [row for row in rows if not lacking[row.name]], {name: why for name, why in lacking.items() if why}


def rounds(server, rows, load, seconds, count, say):
    """Returns {"runs": of all rounds, "stats": of extra runs of each row with programs, "lacking": {row: why}}."""
    rows, lacking = usable(server, rows)
    runs = []
    measure(server, rows[0], load, min(seconds, 1))     # warms the server and its caches up
    for number in range(count):
        turn = number % len(rows)
        for row in rows[turn:] + rows[:turn]:
            if row.name in lacking:
                continue
            try:
                runs.append({"round": number, **measure(server, row, load, seconds)})
            except Skip as reason:
                lacking[row.name] = str(reason)
        say(runs, number)
    with meter.bpf_stats():
        stats = [measure(server, row, load, seconds, stats=True) for _ in range(min(count, STATS_RUNS)) for row in rows
                 if row.has_programs and row.name not in lacking]
    return {"runs": runs, "stats": stats, "lacking": lacking}


def of_row(result, name):
    return [run for run in result["runs"] if run["row"] == name]


def ratios(result, name, key="rate"):
    """The row's value divided by the baseline's, in each round that has both."""
    base = {run["round"]: run[key] for run in of_row(result, BASE)}
    return [run[key] / base[run["round"]] for run in of_row(result, name) if base.get(run["round"])]


def names(result):
    """The rows that were measured, in order."""
    return list(dict.fromkeys(run["row"] for run in sorted(result["runs"], key=lambda run: run["round"])))


def median(values):
    return statistics.median(values) if values else None


def spread(values):
    """Returns (median, least, most), or None."""
    return (statistics.median(values), min(values), max(values)) if values else None
