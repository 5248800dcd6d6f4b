"""--follow: replylog observes the successor of a server that has ended."""
import os
import shutil
import signal
import subprocess
import time

from environment import BINARY
from processes import end
from replylog import Replylog, run_replylog
from restarts import check_runs, copied_binary, kill_observed, observe_word, polls_again, replied, restart
from server import Server
from test_errors import assert_refused
from test_find import echo, saving_child, started, words
from waiting import wait_until


def flags_for(server, by):
    return {"pid": (server.pid, 0), "port": (None, 0, "--port", str(server.port)),
            "unixsocket": (None, 0, "--unixsocket", f"{server.dir}{server.work}/sock")}[by]


def test_restarts(by):
    with Server("valkey-9.1") as server:
        if by == "unixsocket":
            restart(server, "--unixsocket", f"{server.work}/sock")
        pids = [server.pid]
        with Replylog(*flags_for(server, by), "--follow") as replylog:
            observe_word(server, replylog, "first")
            for word in ("second", "third"):
                restart(server)
                pids.append(server.pid)
                observe_word(server, replylog, word)
            check_runs(replylog, pids, ["first", "second", "third"])
        server.assert_untouched()


test_restarts.cases = {by: (by,) for by in ("pid", "port", "unixsocket")}


def test_upgrade():
    """The successor is another binary under the same path."""
    with Server("valkey-9.1") as server, copied_binary(server) as path:
        restart(server, binary=path)
        pids = [server.pid]
        with Replylog(server.pid, 0, "--follow") as replylog:
            observe_word(server, replylog, "old")
            new = f"{server.dir}{path}.new"
            shutil.copy(f"{server.dir}{path}", new)
            with open(new, "ab") as file:
                file.write(b"another file")
            os.rename(new, f"{server.dir}{path}")
            restart(server, binary=path)
            pids.append(server.pid)
            observe_word(server, replylog, "new")
            check_runs(replylog, pids, ["old", "new"])


def test_other_servers_are_not_followed():
    """replylog follows neither a server on another port, nor the dead server's child, nor, when the server was named by
    pid, a server that already ran before."""
    with Server("valkey-9.1") as server, Server("valkey-9.1"):
        pids = [server.pid]
        with Replylog(server.pid, 0, "--follow") as replylog:
            observe_word(server, replylog, "first")
            with saving_child(server):
                kill_observed(server, replylog)
                polls_again(replylog)
                restart(server)
                pids.append(server.pid)
                observe_word(server, replylog, "second")
            check_runs(replylog, pids, ["first", "second"])


def test_signal_while_waiting():
    with Server("valkey-9.1") as server, Replylog(server.pid, 0, "--follow") as replylog:
        kill_observed(server, replylog)
        assert replylog.process.poll() is None
        records = replylog.stop(signal.SIGTERM)
        assert replylog.returncode == 0 and replylog.stderr == ""
        assert [record["event"] for record in records] == ["start", "stop"], records


def test_reader_gone_while_waiting():
    ours, theirs = os.pipe()
    with Server("valkey-9.1") as server:
        process = subprocess.Popen([BINARY, "-p", str(server.pid), "-f"], stdout=theirs, stderr=subprocess.PIPE,
                                   text=True)
        os.close(theirs)
        try:
            with open(ours, "rb", 0) as reader:
                assert b'"start"' in reader.readline()
                server.process.kill()
                assert b'"stop"' in reader.readline()
            assert process.wait(20) == 1
            assert process.stderr.read() == "replylog: stdout: Broken pipe\n"
        finally:
            end(process, signal.SIGKILL)
            process.stderr.close()


def test_waits_for_the_first_one():
    """With --port, replylog may start before its server."""
    server = Server("valkey-9.1")
    with Replylog(None, 0, "--port", str(server.port), "--follow", wait=False) as replylog, server:
        observe_word(server, replylog, "first")
        check_runs(replylog, [server.pid], ["first"])


def test_crash_loop():
    """Servers that end before, while or after replylog attaches to them."""
    with Server("valkey-9.1") as server, Replylog(server.pid, 0, "--follow") as replylog:
        for pause in (0, 0.05, 0.1, 0.13, 0.16, 0.2, 0.25, 0.3):
            restart(server)
            # This waits for nothing: it kills each server at another point of the attach.
            time.sleep(pause)
        wait_until(lambda: server.pid in started(replylog) or replylog.process.poll() is not None, "last start record", 60)
        assert replylog.process.poll() is None, replylog.stderr
        observe_word(server, replylog, "last")
        records = replylog.stop()
    assert replylog.returncode == 0, replylog.stderr
    assert words(records, server.pid) == ["last"]
    events = [record["event"] for record in records if record["event"] in ("start", "stop")]
    assert events == ["start", "stop"] * (len(events) // 2), events
    print(replylog.stderr)


def test_several():
    with Server("valkey-9.1") as first, Server("redis-7.0") as second:
        with Replylog(first.pid, 0, "-p", str(second.pid), "--follow") as replylog:
            observe_word(first, replylog, "a")
            observe_word(second, replylog, "b")
            restart(first)
            observe_word(first, replylog, "c")
            echo(second, "d")
            replied(replylog, "d")
            records = replylog.stop()
        assert replylog.returncode == 0 and replylog.stderr == "", replylog.stderr
        assert words(records, first.pid)[-1:] == ["c"] and words(records, second.pid) == ["b", "d"], records


def test_off_by_default():
    with Server("valkey-9.1") as server, Replylog(server.pid, 0) as replylog:
        restart(server)
        assert replylog.finish()[-1]["reason"] == "server_exited"
        assert replylog.returncode == 0


def test_not_a_server():
    assert_refused(run_replylog("--follow", "-p", str(os.getpid())))
