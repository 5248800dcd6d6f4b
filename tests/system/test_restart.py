"""A server that executes its program again under the same pid: replylog ends the run with a stop record, and with
--follow observes the new image."""
import ctypes
import os
import re
import signal
import time
from pathlib import Path

from conversation import request
from replylog import Replylog
from restarts import age, polls_again, replied
from server import PreloadedServer, Server
from test_drain import SlowReader
from test_find import OwnReplylog, OwnServer, echo, words
from test_overhead import BUDGET, Load
from test_schema import check_record, parse_line, read_schema
from waiting import wait_until

NAMES = ("valkey-9.1", "redis-7.0")
BIG = 30_000_000


class ExecutingServer(PreloadedServer):
    """A server that executes a program of the test's choice."""

    def __init__(self, name, executes=None):
        super().__init__(name, library="executes")
        self.preload_env = [f"EXECUTED={self.work}/executed", *([f"EXECUTES={executes}"] if executes else [])]


def image(server):
    """The addresses of code, data and stack, which differ in each new image."""
    return Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()[23:26]


def restart_in_place(server):
    pid, before = server.pid, image(server)
    with server.client() as client:
        client.send("DEBUG", "RESTART")
        assert not client.sock.recv(1000), "an answer to DEBUG RESTART"
    wait_until(lambda: image(server) != before, "new image")
    wait_until(server.answers, f"answer from {server.name}")
    assert server.pid == pid and server.process.poll() is None


def runs_of(records, pid):
    """The records of one server, run by run."""
    runs = []
    for record in records:
        if record["server_pid"] == pid:
            if record["event"] == "start":
                runs.append([])
            runs[-1].append(record)
    return runs


def check_two_runs(records, pid, follows=True):
    first, second = runs_of(records, pid)
    assert (first[-1]["event"], first[-1]["reason"]) == ("stop", "server_restarted"), first
    assert (second[-1]["event"], second[-1]["reason"]) == ("stop", "signal"), second
    assert words(first, pid) == ["first"] and words(second, pid)[-1:] == ["second"], records
    assert second[0].get("follows") == (first[0]["run_id"] if follows else None)
    assert all(record["attribution"] == "exact" for run in (first, second) for record in run[1:-1]), records
    assert first[-1]["dropped"] == second[-1]["dropped"] == 0, records


def follow_restart(server, replylog, follows=True):
    echo(server, "first")
    replied(replylog, "first")
    restart_in_place(server)
    wait_until(lambda: len(runs_of(replylog.records(), server.pid)) == 2, "second start record")
    echo(server, "second")
    replied(replylog, "second")
    records = replylog.stop()
    assert replylog.returncode == 0 and replylog.stderr == "", replylog.stderr
    check_two_runs(records, server.pid, follows)
    schema = read_schema()
    for line in replylog.lines:
        check_record(schema, parse_line(line))


def test_ends_the_run(name, *flags):
    """Like the server's end: outstanding replies are aborted. replylog logs nothing of the new image, and leaves no
    probe."""
    with Server(name) as server, server.client() as setup:
        setup.call("SETRANGE", "big", BIG - 1, "x")
        with Replylog(server.pid, 0, *flags) as replylog, SlowReader(server) as slow:
            slow.sock.sendall(request("GET", "big"))
            slow.read(1000)
            echo(server, "last")
            restart_in_place(server)
            records = replylog.finish()
        assert replylog.returncode == 0 and replylog.stderr == "", replylog.stderr
        said = [(record["cmd"], record["state"]) for record in records[1:-1]]
        assert said == [("ECHO", "complete"), ("GET", "aborted")], records
        assert 1000 <= records[2]["bytes_sent"] < BIG <= records[2]["bytes_expected"], records
        assert (records[-1]["reason"], records[-1]["dropped"]) == ("server_restarted", 0), records
        server.assert_untouched()


test_ends_the_run.cases = {**{name: (name,) for name in NAMES},
                           **{f"{name},connection tap": (name, "--tap", "connection") for name in NAMES}}


def test_followed(name, by):
    with Server(name) as server:
        # With -p, a server that is older than the end of the last one would not count as its successor.
        wait_until(lambda: age(server.pid) > 2, "older server")
        which = (server.pid, 0) if by == "pid" else (None, 0, "--port", str(server.port))
        with Replylog(*which, "--follow") as replylog:
            follow_restart(server, replylog)
        server.assert_untouched()


test_followed.cases = {f"{name} by {by}": (name, by) for name in NAMES for by in ("pid", "port")}


def test_again_and_again():
    with Server("valkey-9.1") as server, Replylog(server.pid, 0, "--follow") as replylog:
        for number in range(4):
            wait_until(lambda: len(runs_of(replylog.records(), server.pid)) == number + 1, f"start record {number}")
            echo(server, f"word {number}")
            replied(replylog, f"word {number}")
            restart_in_place(server)
        wait_until(lambda: len(runs_of(replylog.records(), server.pid)) == 5, "last start record")
        records = replylog.stop()
    runs = runs_of(records, server.pid)
    assert [run[-1]["reason"] for run in runs] == ["server_restarted"] * 4 + ["signal"], records
    assert [words(run, server.pid) for run in runs[:-1]] == [[f"word {number}"] for number in range(4)], records


def test_in_a_pause():
    """The server restarts in a pause of --max-overhead, when no probe is attached."""
    with Server("valkey-9.1") as server, Replylog(server.pid, 0, "--max-overhead", BUDGET) as replylog:
        with server.client() as client:
            client.call("SETRANGE", "big", 100_000, "x")
        load = Load(server)
        with load:
            wait_until(lambda: replylog.records()[-1]["event"] == "paused", "pause", 120)
        load.close()
        began = time.monotonic()
        restart_in_place(server)
        records = replylog.finish()
        took = time.monotonic() - began
    assert replylog.returncode == 0 and replylog.stderr == "", replylog.stderr
    assert [record["event"] for record in records[-2:]] == ["paused", "stop"], records[-2:]
    assert records[-1]["reason"] == "server_restarted", records[-1]
    assert records[-2]["pause_us"] / 1e6 > took, "the pause was over before: the test proves nothing"


def test_one_of_several():
    """The runs of the other servers go on."""
    with Server("valkey-9.1") as server, Server("redis-7.0") as other:
        with Replylog(server.pid, 0, "-p", str(other.pid), "--follow") as replylog:
            wait_until(lambda: len([r for r in replylog.records() if r["event"] == "start"]) == 2, "start records")
            follow_restart(server, replylog)
        (run,) = runs_of(replylog.records(), other.pid)
        assert run[-1]["reason"] == "signal", run


def test_one_of_all():
    """With --all, replylog finds the new image like a server that has just started."""
    with OwnServer("valkey-9.1") as server, OwnReplylog(None, 0, "--all", "--follow") as replylog:
        follow_restart(server, replylog, follows=False)


def test_by_another_thread():
    """A thread other than the main one calls execve, and then has the pid of the process."""
    with ExecutingServer("valkey-9.1") as server, Replylog(server.pid, 0, "--follow") as replylog:
        thread = next(int(task.name) for task in Path(f"/proc/{server.pid}/task").iterdir()
                      if task.joinpath("comm").read_text().startswith("bio_"))
        before = image(server)
        echo(server, "first")
        replied(replylog, "first")
        # kill(2) would choose a thread. tgkill(2) takes one.
        assert ctypes.CDLL(None).tgkill(server.pid, thread, signal.SIGUSR1) == 0
        wait_until(lambda: image(server) != before, "new image")
        wait_until(lambda: len(runs_of(replylog.records(), server.pid)) == 2, "second start record")
        echo(server, "second")
        replied(replylog, "second")
        check_two_runs(replylog.stop(), server.pid)


def test_children_execute():
    """Forked and vforked children that execute something are not the server."""
    with ExecutingServer("valkey-9.1") as server, Replylog(server.pid, 0) as replylog:
        for _ in range(3):
            os.kill(server.pid, signal.SIGURG)
            done = Path(f"{server.dir}{server.work}/executed")
            wait_until(done.exists, "end of the children")
            done.unlink()
        echo(server, "still here")
        replied(replylog, "still here")
        records = replylog.stop()
    assert records[-1]["reason"] == "signal" and words(records, server.pid) == ["still here"], records


def test_executes_another_program():
    """Then the pid has no successor. A server that takes over its port is followed."""
    with ExecutingServer("valkey-9.1", executes="/bin/sleep") as server, Server("valkey-9.1") as other:
        with Replylog(server.pid, 0, "--follow") as replylog:
            echo(server, "first")
            replied(replylog, "first")
            os.kill(server.pid, signal.SIGUSR1)
            wait_until(lambda: replylog.records()[-1]["event"] == "stop", "stop record")
            polls_again(replylog)
            records = replylog.stop(signal.SIGTERM)
        assert replylog.returncode == 0 and replylog.stderr == "", replylog.stderr
        assert records[-1]["reason"] == "server_restarted" and len(runs_of(records, server.pid)) == 1, records
        assert not runs_of(records, other.pid), records


def test_while_replylog_attaches(tap, pause):
    """The server executes at another point of the attach each time. replylog refuses, ends, or observes the new image,
    and always reports something."""
    with Server("valkey-9.1") as server:
        with Replylog(server.pid, 0, "--tap", tap, wait=False) as replylog:
            # This waits for nothing: it reaches another point of the attach.
            time.sleep(pause)
            restart_in_place(server)
            wait_until(lambda: replylog.lines or replylog.process.poll() is not None, "start record, or end")
            echo(server, "word")
            wait_until(lambda: words(replylog.records(), server.pid) or replylog.process.poll() is not None,
                       "reply, or end")
            observed = replylog.process.poll() is None
            records = replylog.stop() if observed else replylog.finish()
        print(tap, pause, replylog.returncode, replylog.stderr, records[-1:])
        if observed:
            assert words(records, server.pid) == ["word"] and records[-1]["reason"] == "signal", records
        elif replylog.returncode:
            assert re.fullmatch(f"replylog: .*{server.pid}.*\n", replylog.stderr) and not records, replylog.stderr
        else:
            assert records[-1]["reason"] == "server_restarted" and not words(records, server.pid), records
        server.assert_untouched()


test_while_replylog_attaches.cases = {
    f"{tap} tap after {ms} ms": (tap, ms / 1000) for tap in ("auto", "connection") for ms in range(0, 800, 100)}
