"""Servers under seccomp filters, as containers and service managers set them. replylog tries on a child of its own
whether a return probe would kill the server."""
import os
import sys
from pathlib import Path

from environment import BINARY, Skip
from replylog import run_replylog
from resp import encode
from server import Server
from test_attach import MODES, attached
from test_errors import assert_refused, serves

LAUNCHER = Path(__file__).with_name("under_filter.py")


def under_filter(name, argv):
    if os.uname().machine != "x86_64":
        raise Skip("under_filter.py knows the system calls of x86-64 only")
    return [sys.executable, LAUNCHER, name, *argv]


class FilteredServer(Server):
    def __init__(self, name, filter_name):
        super().__init__(name)
        self.filter_name = filter_name

    def command(self, binary=None):
        return under_filter(self.filter_name, super().command(binary))

    def __enter__(self):
        super().__enter__()
        assert "\nSeccomp:\t2\n" in Path(f"/proc/{self.pid}/status").read_text(), "no filter"
        return self


def test_survives(filter_name, mode):
    """The server lives, and replylog observes it with return probes."""
    with FilteredServer("valkey-9.1", filter_name) as server:
        with attached(server, mode) as replylog, server.client() as client:
            lengths = client.drain(encode([b"ECHO", b"x" * 1000]) * 100, 100)
            replylog.wait_replies(100)
            records = replylog.stop()
        assert replylog.returncode == 0 and replylog.stderr == "", replylog.stderr
        assert [record["reply_bytes"] for record in records[1:-1]] == lengths
        assert serves(server)
        server.assert_untouched()


test_survives.cases = {f"{name},{mode}": (name, mode) for name in ("unknown-fail", "unknown-kill") for mode in MODES}


def refused_under(filter_name, server, *flags):
    """What replylog prints when it runs under a filter itself, which its trial child inherits."""
    run = run_replylog(argv=under_filter(filter_name, [BINARY, "-p", str(server.pid), *flags]))
    assert_refused(run, "seccomp filter")
    assert serves(server) and server.patched() == 0
    return run.stderr


def test_child_dies():
    """On a kernel with the bug every such child dies. Here a filter kills it in its last step."""
    with FilteredServer("valkey-9.1", "unknown-fail") as server:
        for flags in (), ("--tap", "connection"), ("--dispatch",):
            assert "a return probe kills such a process" in refused_under("no-good-end", server, *flags)


def test_cannot_be_tried():
    """replylog can't set the filter, so it has no answer and refuses."""
    with FilteredServer("valkey-9.1", "unknown-fail") as server:
        assert "could not test on a child of its own" in refused_under("no-filters", server)


def test_no_filter_needs_no_trial():
    """The child would die, but replylog does not try: a server without a filter is not at risk."""
    with Server("valkey-9.1") as server:
        asks = [BINARY, "--check", "-p", str(server.pid), "--tap", "connection"]
        run = run_replylog(argv=under_filter("no-filters", asks))
        assert run.returncode == 0, run
