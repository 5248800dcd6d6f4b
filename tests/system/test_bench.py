"""scripts/bench: that it measures what it says. No time is asserted."""
import re
import sys
import xml.etree.ElementTree

from harness import ROOT, Server, make

sys.path.append(str(ROOT / "tests"))
from bench import client, pairs, plot, report, row  # noqa: E402
from bench.workload import WORKLOADS  # noqa: E402

# As valkey-benchmark 9.1 prints it.
OUTPUT = """
Latency by percentile distribution:
0.000% <= 0.167 milliseconds (cumulative count 208)
50.000% <= 0.631 milliseconds (cumulative count 840080)
98.438% <= 2.439 milliseconds (cumulative count 1631296)
99.219% <= 3.479 milliseconds (cumulative count 1644112)
99.902% <= 5.975 milliseconds (cumulative count 1655440)
100.000% <= 9.159 milliseconds (cumulative count 1657056)

Cumulative distribution of latencies:
99.952% <= 7.103 milliseconds (cumulative count 1656256)

Summary:
  throughput summary: 828576.00 requests per second
  latency summary (msec):
          avg       min       p50       p95       p99       max
        0.704     0.160     0.631     1.311     3.103     9.159
"""
KEYS, PIPELINE = 1000, 16


def test_reads_the_benchmark():
    assert client.parse(OUTPUT) == {"rate": 828576.0, "p50_ms": 0.631, "p99_ms": 3.103, "p999_ms": 5.975}


def test_ratio_is_of_the_same_round():
    runs = [{"round": 0, "row": "nothing", "rate": 100}, {"round": 0, "row": "x", "rate": 50},
            {"round": 1, "row": "x", "rate": 30}, {"round": 1, "row": "nothing", "rate": 40},
            {"round": 2, "row": "x", "rate": 7}]
    assert pairs.ratios({"runs": runs}, "x") == [0.5, 0.75]


def measured():
    """One short round with every row that needs nothing installed."""
    flags = "--tap connection"
    make("empty_probes")
    with Server("valkey-9.1") as server:
        WORKLOADS["get"].fill(server, KEYS)
        row.commandlog(server, -1)
        rows = row.rows([flags], ["empty", "commandlog", "monitor"])
        found = pairs.rounds(server, rows, WORKLOADS["get"].load(PIPELINE, 10, KEYS), 1, 1, lambda *_: None)
        server.assert_untouched()
    return f"replylog {flags}", found


def test_measures_each_row():
    replylog, found = measured()
    assert not found["lacking"], found["lacking"]
    assert pairs.names(found) == ["nothing", replylog, "empty programs --tap connection", "COMMANDLOG", "MONITOR"]
    for run in found["runs"]:
        assert run["commands"] and run["rate"] and run["main_ns"] and not run["io_ns"], run
    run, = pairs.of_row(found, replylog)
    # A read and a write for each pipeline; connections' first and last ones are a few more or less.
    expected = 2 * run["commands"] / PIPELINE
    assert abs(run["hits_main"] - expected) < 0.1 * expected and not run["hits_io"], run
    # Entry and return of each are a run of a program, of replylog's and of the empty ones alike.
    for run in found["stats"]:
        assert run["bpf_ns"] and run["bpf_runs"] > 3 * run["commands"] / PIPELINE, run
    assert len(found["stats"]) == 2, found["stats"]
    result = {"part": "workload", "workload": "get", "title": "GET", "pipeline": PIPELINE, "io_threads": 1,
              "server": "valkey-9.1", "seconds": 1, "command": "test", "date": "", "replylog": "", "load_before": 0,
              "machine": {"cpu": "", "cores": 2, "virtual": False, "memory_gib": 1, "kernel": "", "arch": ""}, **found}
    page = report.PAGE.read_text()
    once = report.fill(page, [result])
    assert report.fill(once, [result]) == once
    throughput = re.search(r"<!-- bench:throughput -->\n(.*?)<!-- /bench", once, re.S).group(1)
    assert replylog in throughput and "MONITOR" in throughput, throughput
    xml.etree.ElementTree.fromstring(plot.throughput([result]))
