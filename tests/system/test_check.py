"""--check reports what replylog would do, and does nothing."""
import json
import os
import re
import subprocess

from environment import BINARY
from replylog import run_replylog
from server import Server
from test_attach import MODES
from test_errors import binary_for_everyone, process
from test_schema import check_record, parse_line, read_schema

SITES = ("connSocketRead", "connSocketWrite", "connSocketWritev", "connSocketClose", "connSocketAccept")


def check(*flags, expect=0):
    """Returns the objects of --check --json, each checked against docs/SCHEMA.md."""
    run = subprocess.run([BINARY, "--check", "--json", *flags], stdin=subprocess.DEVNULL, capture_output=True,
                         timeout=60)
    print(run)
    assert run.returncode == expect, run
    assert bool(run.stderr) == bool(expect), run
    records = [parse_line(line) for line in run.stdout.splitlines(keepends=True)]
    for record in records:
        check_record(read_schema(), record)
        assert record["event"] == "check" and record["would_attach"] == ("reason" not in record), record
    return records


# The key of its median, by what the hit is for.
COSTS = {
    "each read and each write of a plain connection": "cost_per_io_ns",
    "each read and each write of a connection": "cost_per_io_ns",
    "each read and each write of a TLS connection": "cost_per_tls_io_ns",
    "each accept and each close of a connection": "cost_per_entry_ns",
    "each command, on the main thread": "cost_per_command_ns",
}


def check_costs(record):
    """{key: kind of hit}: each was measured here and now, or it says why not; a number only where one was measured."""
    assert record["cost_source"].startswith("measured just now on this machine, on replylog's own process"), record
    kinds = {}
    for hit in record["cost_hits"]:
        measured = re.fullmatch(r"(.+?) (?:(\d+) ns \((\d+)-(\d+)\)|not measured, this machine is too busy just now): (.+)",
                                hit)
        key = COSTS[measured[5]]
        kinds[key] = measured[1].removesuffix(", single-stepped")
        if measured[2]:
            median, low, high = (int(measured[i]) for i in (2, 3, 4))
            assert record[key] == median > 0 and low <= median <= high, (hit, record)
        else:
            # A tracepoint's hit costs little beside what the calls that are timed cost in any case.
            assert measured[1] == "raw_tracepoint" and key not in record, record
    assert {key for key in record if key.startswith("cost_per_")} <= set(kinds), record
    return kinds


def test_server(name, io_threads):
    with Server(name, io_threads=io_threads) as server:
        (record,) = check("-p", str(server.pid))
        assert server.patched() == 0
        assert record["server_pid"] == server.pid
        assert record["server_exe"] == os.readlink(f"/proc/{server.pid}/exe")
        with server.client() as client:
            info = client.call("INFO", "server").decode()
        assert record["server_version"].startswith(server.kind)
        assert record["server_version"].split()[1] in info, record
        assert len(record["server_build_id"]) == 40
        assert record["listens"] == [f"tcp {server.port}"] and record["transports"] == ["tcp"], record
        assert record["io_threads"] == io_threads - 1, record
        assert record["cost_threads"] == ("io" if io_threads > 1 else "main")
        assert [site.split()[0] for site in record["sites"]][:len(SITES)] == list(SITES), record["sites"]
        assert record["tap"] in ("socket", "connection"), record
        assert "cost_per_io_ns" in check_costs(record), record
        assert set(record["features"]) >= {"btf", "bpf_loop"}
        assert "CAP_BPF" in record["capabilities"]


test_server.cases = {
    "valkey-9.1": ("valkey-9.1", 1), "valkey-9.1,4 io threads": ("valkey-9.1", 4),
    "redis-7.0": ("redis-7.0", 1), "redis-7.0,2 io threads": ("redis-7.0", 2),
}


def test_unixsocket():
    path = f"/tmp/check-{os.getpid()}.sock"
    with Server("valkey-9.1", "--unixsocket", path) as server:
        try:
            (record,) = check("-p", str(server.pid))
        finally:
            os.unlink(f"{server.dir}{path}")
        assert record["listens"] == [f"tcp {server.port}", f"unix {path}"], record
        assert record["transports"] == ["tcp", "unix"]


def test_words():
    """The text for people has the same facts, each on a line or more."""
    with Server("valkey-9.1") as server:
        run = run_replylog("--check", "--port", str(server.port))
        assert run.returncode == 0 and run.stderr == "", run
        (record,) = check("-p", str(server.pid))
        for key in ("server_version", "server_exe", "server_build_id", "kernel", "attach", "cost_source"):
            assert record[key] in run.stdout, f"{key} is not in {run.stdout}"
        for item in record["sites"] + record["listens"] + record["features"] + record["capabilities"]:
            assert item in run.stdout, f"{item} is not in {run.stdout}"
        assert "would attach  yes\n" in run.stdout
        assert server.patched() == 0


def test_several():
    with Server("valkey-9.1") as first, Server("redis-7.0") as second:
        records = check("-p", str(first.pid), "--port", str(second.port))
        assert [record["server_pid"] for record in records] == [first.pid, second.pid]


def test_not_a_server():
    """One of several processes is no server: --check still reports the others, and its exit status is 1."""
    with Server("valkey-9.1") as server, process("sleep", "1000") as sleep:
        records = check("-p", str(sleep.pid), "-p", str(server.pid), expect=1)
        assert [record["would_attach"] for record in records] == [False, True]
        assert str(sleep.pid) in records[0]["reason"] and records[0]["sites"] == []
        run = run_replylog("--check", "-p", str(sleep.pid))
        assert run.returncode == 1 and "would attach  no\n" in run.stdout and run.stderr.count("\n") == 1, run


def test_missing_capability():
    """--check names the missing capability as the reason and in the list, and reports everything that it can find out."""
    with Server("valkey-9.1") as server, binary_for_everyone() as binary:
        dropped = "-perfmon,-sys_admin"
        run = run_replylog(argv=["setpriv", f"--inh-caps={dropped}", f"--bounding-set={dropped}", binary, "-p",
                                 str(server.pid), "--check", "--json"])
        record = json.loads(run.stdout)
        assert run.returncode == 1 and not record["would_attach"], run
        assert "CAP_PERFMON" in record["reason"] and "CAP_PERFMON" in record["capabilities_missing"], record
        assert len(record["sites"]) >= len(SITES) and "attach" not in record
        assert record["cost_source"] == "not measured: replylog would not attach, see the reason", record
        assert record["cost_hits"] == [] and not any(key.startswith("cost_per_") for key in record), record


def test_options_count():
    """--check reports what replylog would do with these options."""
    with Server("valkey-9.1") as server:
        for mode, name in MODES.items():
            (record,) = check("-p", str(server.pid), "--attach", mode)
            assert record["attach"] == name, record


def test_cost_kinds():
    """The hits that a run with these options would cause are measured, and no others."""
    with Server("valkey-9.1") as server:
        for mode, name in MODES.items():
            entry = "perf at entry" if mode == "perf" else "uprobe_multi at entry"
            (record,) = check("-p", str(server.pid), "--attach", mode, "--tap", "connection", "--dispatch")
            assert check_costs(record) == {
                "cost_per_io_ns": f"{name} at entry and return",
                "cost_per_entry_ns": entry,
                "cost_per_command_ns": f"{name} at entry and return",
            }, record
        (record,) = check("-p", str(server.pid), "--tap", "connection")
        assert set(check_costs(record)) == {"cost_per_io_ns", "cost_per_entry_ns"}, record
        (record,) = check("-p", str(server.pid))
        if record["tap"] == "socket":
            assert check_costs(record)["cost_per_io_ns"] == "raw_tracepoint", record


def site_addresses(server, record):
    """Where the functions of the connection layer that replylog would probe are in the server's memory."""
    inode = os.stat(f"/proc/{server.pid}/exe").st_ino
    with open(f"/proc/{server.pid}/maps") as maps:
        code = [line.split()[:5] for line in maps]
    (span, _, begin, _, _), = (entry for entry in code if int(entry[4]) == inode and "x" in entry[1])
    first, last = (int(text, 16) for text in span.split("-"))
    offsets = [int(site.split()[1], 16) - int(begin, 16) for site in record["sites"] if site.startswith("connSocket")]
    assert offsets and all(0 <= offset < last - first for offset in offsets), record
    return [first + offset for offset in offsets]


def test_server_gets_no_probe():
    """At no time of the measuring is a probe on the server. multi: such probes go to every process of a file."""
    with Server("valkey-9.1") as server, open(f"/proc/{server.pid}/mem", "rb", 0) as memory:
        flags = ("-p", str(server.pid), "--attach", "multi", "--tap", "connection")
        (record,) = check(*flags)
        addresses = site_addresses(server, record)

        def code():
            return [os.pread(memory.fileno(), 1, address) for address in addresses]

        untouched = code()
        run = subprocess.Popen([BINARY, "--check", "--json", *flags], stdout=subprocess.PIPE)
        while run.poll() is None:
            assert code() == untouched
        with run.stdout:
            assert "cost_per_io_ns" in check_costs(json.loads(run.stdout.read()))
        assert run.returncode == 0 and server.patched() == 0


def test_stdout_full():
    with Server("valkey-9.1") as server, open("/dev/full", "wb") as full:
        for flags in ([], ["--json"]):
            run = subprocess.run([BINARY, "--check", "-p", str(server.pid), *flags], stdout=full,
                                 stderr=subprocess.PIPE, text=True, timeout=60)
            assert run.returncode == 1 and run.stderr == "replylog: stdout: No space left on device\n", run
