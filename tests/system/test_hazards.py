"""Tries what probing is known to do to servers. docs/HAZARDS.md names the test for each hazard."""
import re
import signal
import threading

from environment import ROOT
from processes import end
from replylog import Replylog
from resp import Client, encode
from run import discover
from server import Server
from test_errors import logs_a_reply, serves
from test_find import saving_child
from waiting import wait_until

NAMES = ("valkey-9.1", "redis-7.0")
KILLS = 4


class Load:
    """Clients that check the length of every reply until the test ends. A failure is raised then."""

    def __init__(self, server, clients=4):
        self.over = threading.Event()
        self.rounds = [0] * clients
        self.failures = []
        self.clients = [Client(server.port, 30) for _ in range(clients)]
        self.threads = [threading.Thread(target=self.run, args=(number,)) for number in range(clients)]

    def run(self, number):
        try:
            while not self.over.is_set():
                lengths = self.clients[number].drain(encode([b"ECHO", b"x" * 100]) * 20, 20)
                assert lengths == [108] * 20, lengths
                self.rounds[number] += 1
        except Exception as error:
            self.failures.append(error)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        for thread in self.threads:
            thread.join()
        for client in self.clients:
            client.close()

    def goes_on(self):
        """Waits until each client has received more replies."""
        before = list(self.rounds)
        wait_until(lambda: self.failures or all(now > then + 5 for now, then in zip(self.rounds, before)),
                   "more replies")
        if self.failures:
            raise self.failures[0]


def test_killed_under_load(name, io_threads, *flags):
    """kill -9 of replylog while probed functions have not returned, several times: every reply stays right."""
    with Server(name, io_threads=io_threads) as server:
        with Load(server) as load:
            for _ in range(KILLS):
                with Replylog(server.pid, 0, "--tap", "connection", *flags) as replylog:
                    load.goes_on()
                    assert server.patched() > 0, "no probe found in the server: this test sees nothing"
                    end(replylog.process, signal.SIGKILL)
                server.assert_untouched()
                load.goes_on()
        assert serves(server) and logs_a_reply(server)


test_killed_under_load.cases = {
    **{f"{name},{threads} io threads": (name, threads) for name in NAMES for threads in (1, 2)},
    "valkey-9.1,dispatch": ("valkey-9.1", 1, "--dispatch")}


def test_fork_under_load(name):
    """The server saves while it is probed. Its child has the breakpoints in its memory, and still does its work."""
    with Server(name) as server, Load(server) as load:
        with Replylog(server.pid, 0, "--tap", "connection", "--dispatch") as replylog, server.client() as client:
            for _ in range(3):
                client.call("SET", "key", "value")
                client.call("BGSAVE")
                wait_until(lambda: "rdb_bgsave_in_progress:0" in persistence(client), "end of the child")
                assert "rdb_last_bgsave_status:ok" in persistence(client), persistence(client)
                load.goes_on()
            with saving_child(server):
                # The child still has the breakpoints after the server has none.
                replylog.stop()
                load.goes_on()
            assert replylog.returncode == 0 and replylog.stderr == "", replylog.stderr
        server.assert_untouched()


test_fork_under_load.cases = {name: (name,) for name in NAMES}


def persistence(client):
    return client.call("INFO", "persistence").decode()


def test_crash_report(name, *flags):
    """A server that crashes inside a probed function writes its report and ends. backtrace(3) may cut the report short."""
    with Server(name) as server, Replylog(server.pid, 0, "--tap", "connection", *flags) as replylog:
        with server.client() as client:
            client.send("DEBUG", "SEGFAULT")
            client.sock.recv(1000)
        server.process.wait(30)
        records = replylog.finish()
        assert records[-1]["reason"] == "server_exited" and replylog.returncode == 0, (records[-1], replylog.stderr)
        assert server.process.returncode == -signal.SIGSEGV, server.process.returncode
        report = server.log()
    assert re.search(r"=== \w+ BUG REPORT START", report) and re.search(r"=== \w+ BUG REPORT END", report), report
    assert "crashed by signal: 11" in report, report


test_crash_report.cases = {f"{name}{',dispatch' if flags else ''}": (name, *flags)
                           for name in NAMES for flags in ((), ("--dispatch",))}


# ---- the table -----------------------------------------------------------------------------------------------------

def rows():
    for line in (ROOT / "docs/HAZARDS.md").read_text().splitlines():
        if line.startswith("| ") and not line.startswith("| hazard"):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def test_table():
    """Each hazard names existing tests or gives a reason, and the table names every test of this file."""
    system = {name.partition("[")[0] for name, *_ in discover()}
    named = set()
    for hazard, _, held in rows():
        if held.startswith("no test: "):
            continue
        names = re.findall(r"`([\w.]+(?::\w+)?)`", held)
        for name in names:
            path, _, function = name.partition(":")
            text = (ROOT / "tests/unit" / path).read_text() if function else ""
            assert re.search(rf"^static void {function}\(", text, re.M) if function else name in system, name
        assert names, hazard
        named.update(names)
    ours = {name for name in system if name.startswith("hazards.")}
    assert len(list(rows())) >= 15 and ours - {"hazards.table"} <= named, ours - named
