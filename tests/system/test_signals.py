"""replylog ends in order although much is going on."""
import os
import select
import signal
import socket
import subprocess
import time

from environment import BINARY
from processes import end
from replylog import Replylog
from server import Server
from waiting import wait_until


def test_signal_sent_twice_at_once():
    """timeout(1) sends a signal to its child and then to the process group. replylog treats it as one signal."""
    for _ in range(5):
        with Server("valkey-9.1") as server, Replylog(server.pid, 0) as replylog:
            replylog.process.send_signal(signal.SIGTERM)
            replylog.process.send_signal(signal.SIGTERM)
            assert replylog.finish()[-1]["event"] == "stop"
            assert replylog.returncode == 0, replylog.stderr


def test_signal_under_load():
    """A load that fills the ring faster than replylog empties it does not keep it from ending, nor from counting."""
    with Server("valkey-9.1") as server:
        load = subprocess.Popen(
            ["chroot", server.dir, "/usr/bin/valkey-benchmark", "-p", str(server.port), "-t", "get", "-c", "20", "-P", "64",
             "-n", "20000000", "-q"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            with Replylog(server.pid, 0, "--ring-size", "64kb") as replylog:
                replylog.wait_replies(20_000)
                began = time.monotonic()
                stop = replylog.stop()[-1]
                print(f"ended after {time.monotonic() - began:.1f} s: {stop}")
            assert load.poll() is None, "the load ended first: the test proves nothing"
            assert replylog.returncode == 0 and stop["event"] == "stop"
            dropped = sum(r["count"] for r in replylog.records() if r["event"] == "dropped")
            assert stop["dropped"] == dropped and stop["replies"] == len(replylog.replies())
        finally:
            end(load, signal.SIGKILL)


def test_socket_reader_gone():
    """stdout is a socket, as under journald, and its reader closes while nothing is logged."""
    with Server("valkey-9.1") as server:
        reader, stdout = socket.socketpair()
        process = subprocess.Popen([str(BINARY), "-p", str(server.pid)], stdin=subprocess.DEVNULL, stdout=stdout,
                                   stderr=subprocess.PIPE, start_new_session=True)
        try:
            stdout.close()
            wait_until(lambda: select.select([reader], [], [], 0)[0], "start record")
            assert b'"event":"start"' in reader.recv(1 << 16)
            reader.close()
            assert process.wait(10) == 1
            assert process.stderr.read() == b"replylog: stdout: Broken pipe\n"
        finally:
            end(process)
            process.stderr.close()
        server.assert_untouched()


def test_closed_stdout():
    """stdout is closed: no file that replylog opens may take its descriptor."""
    with Server("valkey-9.1") as server:
        process = subprocess.run([str(BINARY), "-p", str(server.pid)], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                 preexec_fn=lambda: os.close(1), timeout=20)
        assert process.returncode == 1
        assert process.stderr == (b"replylog: stdout is closed: replylog writes its records there, "
                                  b"so redirect it to a file or a pipe\n"), process.stderr
