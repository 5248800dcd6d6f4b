"""Both taps and all three attach modes give the same records."""
from contextlib import ExitStack, contextmanager

import oracle
from environment import Skip
from replylog import Replylog, run_replylog
from server import Server

MODES = {"session": "uprobe_session", "multi": "uprobe_multi", "perf": "perf"}


@contextmanager
def attached(server, mode, *flags):
    """A replylog with this attach mode. kernel.uses_the_best_attach_mode checks that a kernel which claims to lack a mode
    does lack it."""
    with ExitStack() as stack:
        try:
            replylog = stack.enter_context(Replylog(server.pid, 0, "--tap", "connection", "--attach", mode, *flags))
        except AssertionError as error:
            lack = f"this kernel has no {MODES[mode]}"
            if lack in str(error):
                raise Skip(lack) from None
            raise
        yield replylog


def test_every_mode_is_exact(mode):
    with Server("valkey-9.1", io_threads=2) as server:
        with attached(server, mode) as replylog:
            outcome = oracle.run(server.port, 4000, connections=4)
            replylog.wait_replies(sum(map(len, outcome.expected.values())))
            records = replylog.stop()
        print(records[0]["probes"], records[-1])
        assert all(MODES[mode] in probe for probe in records[0]["probes"])
        oracle.compare(outcome.expected, records)
        server.assert_untouched()


test_every_mode_is_exact.cases = {mode: (mode,) for mode in MODES}


def test_all_probes_at_once(mode):
    """All probes, for plain connections and TLS: more probes than programs."""
    with Server("valkey-9.1") as server:
        with attached(server, mode, "--dispatch") as replylog:
            assert server.answers()
            replylog.wait_replies(1)
            records = replylog.stop()
        assert replylog.returncode == 0 and replylog.stderr == "", (replylog.returncode, replylog.stderr)
        assert {"connTLSWritev", "connSocketWritev", "call"} < {probe.split()[1] for probe in records[0]["probes"]}
        assert records[1]["cmd"] == "PING" and records[-1]["event"] == "stop", records
        server.assert_untouched()


test_all_probes_at_once.cases = {mode: (mode,) for mode in MODES}


def test_both_taps_say_the_same(name, io_threads):
    """Both taps observe the same server at the same time, and each record of one is a record of the other."""
    with Server(name, io_threads=io_threads) as server, ExitStack() as stack:
        try:
            taps = [stack.enter_context(Replylog(server.pid, 0, "--tap", tap)) for tap in ("connection", "socket")]
        except AssertionError as error:
            if "tracepoint" in str(error):
                raise Skip("this kernel has no socket tap") from None
            raise
        outcome = oracle.run(server.port, 10_000, connections=8)
        said = []
        for replylog in taps:
            replylog.wait_replies(sum(map(len, outcome.expected.values())))
            records = replylog.stop()
            print(replylog.argv, records[-1])
            oracle.compare(outcome.expected, records)
            said.append(by_connection(records))
    assert said[0] == said[1]


SAME = ("argv", "argc", "reply_bytes", "client_id", "request_bytes", "kind", "attribution", "state", "db", "resp",
        "writes", "argv_encoding", "argv_truncated")


def by_connection(records):
    """The parts of each record that both taps must agree on. Times differ, and so does the order of connections."""
    said = {}
    for record in records:
        if record["event"] == "reply":
            said.setdefault(record["client_addr"], []).append([record.get(key) for key in SAME])
    return said


test_both_taps_say_the_same.cases = {f"{name},{threads} io threads": (name, threads)
                                     for name in ("valkey-9.1", "redis-7.0") for threads in (1, 2)}


def test_other_process_of_the_same_binary(mode):
    """replylog neither logs nor counts the traffic of another server that runs the same binary."""
    with Server("valkey-9.1") as server, Server("valkey-9.1") as other:
        with attached(server, mode) as replylog:
            with other.client() as client:
                for _ in range(100):
                    client.call("PING")
            with server.client() as client:
                client.call("ECHO", "mine")
            replylog.wait_replies(1)
            records = replylog.stop()
        assert [record["cmd"] for record in records[1:-1]] == ["ECHO"]
        assert records[-1]["hits_main"] < 20, records[-1]


test_other_process_of_the_same_binary.cases = {mode: (mode,) for mode in MODES}


def test_unknown_mode():
    done = run_replylog("-p", "1", "--attach", "kprobe")
    assert done.returncode == 2 and "kprobe" in done.stderr
