"""scripts/bench measures what it claims to measure. No test asserts a time."""
import re
import sys
import xml.etree.ElementTree

from environment import ROOT, make
from server import Server
from waiting import wait_until

sys.path.append(str(ROOT / "tests"))
from bench import client, pairs, plot, report, row, turns  # noqa: E402
from bench.workload import WORKLOADS  # noqa: E402

# The output of valkey-benchmark 9.1.
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
    # Each pipeline is one read and one write. Connections add a few when they open and close.
    expected = 2 * run["commands"] / PIPELINE
    assert abs(run["hits_main"] - expected) < 0.1 * expected and not run["hits_io"], run
    # Each entry and each return runs one program, with replylog's programs and with the empty ones.
    for run in found["stats"]:
        assert run["bpf_ns"] and run["bpf_runs"] > 3 * run["commands"] / PIPELINE, run
    assert len(found["stats"]) == 2, found["stats"]
    result = saved("workload", found)
    throughput = reported("throughput", result)
    assert replylog in throughput and "MONITOR" in throughput, throughput
    xml.etree.ElementTree.fromstring(plot.throughput([result]))


def saved(part, found):
    """A result as the report reads it from its file."""
    return {"part": part, "workload": "get", "title": "GET", "pipeline": PIPELINE, "io_threads": 1,
            "server": "valkey-9.1", "seconds": 1, "command": "test", "date": "", "replylog": "", "load_before": 0,
            "machine": {"cpu": "", "cores": 2, "virtual": False, "memory_gib": 1, "kernel": "", "arch": ""}, **found}


def reported(marker, *found):
    """Fills the page's text between these markers, checks that filling it again changes nothing, and returns that text."""
    once = report.fill(report.PAGE.read_text(), found)
    assert report.fill(once, found) == once
    return re.search(rf"<!-- bench:{marker} -->\n(.*?)<!-- /bench", once, re.S).group(1)


def test_confidence_of_a_median():
    assert turns.median([3, 1, 2]) == (2, 1, 3)
    # 100 values, by the binomial distribution: from the 40th to the 61st are 96 %, from the 41st to the 60th 94 %.
    assert turns.median(range(1, 101)) == (50.5, 40, 61)


def test_summary_puts_turns_and_rounds_together():
    """The summary has replylog from the turns, and the other rows from the rounds with the same pipeline."""
    in_turns = saved("turns", {"base": [{"rate": 100}], "turns": {"replylog --tap socket": [{"rate": 0.5}]},
                               "programs": {"replylog --tap socket": [1]}})
    in_rounds = saved("workload", {"runs": [
        {"round": 0, "row": name, "rate": rate, "commands": 1, "main_ns": 1, "p50_ms": 1, "p99_ms": 1, "p999_ms": 1}
        for name, rate in (("nothing", 100), ("replylog --tap socket", 90), ("MONITOR", 25))], "stats": []})
    other_pipeline = {**in_turns, "pipeline": 64}
    lines = reported("summary", in_turns, in_rounds, other_pipeline).splitlines()
    assert "|  | replylog --tap socket | MONITOR |" in lines, lines
    assert f"| GET, pipeline {PIPELINE} | 0.50 | 0.25 |" in lines, lines
    assert "| GET, pipeline 64 | 0.50 | - |" in lines, lines
    assert "Not measured yet" in reported("summary", in_rounds)


def test_measures_in_turns():
    """The load continues while replylog attaches and detaches."""
    flags = "--tap connection"
    with Server("valkey-9.1") as server:
        WORKLOADS["get"].fill(server, KEYS)
        found = turns.run(server, [row.ReplylogRow(flags)], WORKLOADS["get"].load(PIPELINE, 10, KEYS), 2, lambda *_: None)
        with server.client() as ours:
            wait_until(lambda: client.connected(ours) == 1, "end of the load", 30)
        server.assert_untouched()
    name = f"replylog {flags}"
    assert [set(ratios) for ratios in found["turns"][name]] == [{"rate", "main_ns"}] * 2, found["turns"]
    assert len(found["base"]) == 3 and all(window["rate"] > 1000 and window["main_ns"] for window in found["base"])
    assert len(found["programs"][name]) == 3 and min(found["programs"][name]) > 0, found["programs"]
    assert name in reported("turns", saved("turns", found))
