"""Bad input gives one clear line and leaves nothing half-attached. Every way to end replylog is an orderly one."""
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import termios
from contextlib import contextmanager
from pathlib import Path

from environment import BINARY, Skip
from processes import end
from replylog import Replylog, run_replylog
from resp import encode
from server import Server
from waiting import readable, wait_until


def assert_refused(run, *words):
    """stdout is empty, stderr is one line with one of words in it, and the exit status is a failure but no crash."""
    print(f"{run.args} exits {run.returncode}: {run.stderr!r}")
    assert run.returncode > 0, run.returncode
    assert run.stdout == "", run.stdout
    assert run.stderr.endswith("\n") and run.stderr.count("\n") == 1, f"not one line: {run.stderr!r}"
    assert not words or any(word in run.stderr for word in words), f"none of {words} in {run.stderr!r}"


@contextmanager
def process(*argv):
    running = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        yield running
    finally:
        end(running, signal.SIGKILL)


def serves(server):
    with server.client() as client:
        return client.call("PING") == b"PONG"


def logs_a_reply(server):
    """A new replylog attaches and logs a reply."""
    with Replylog(server.pid, 0) as replylog, server.client() as client:
        client.drain(encode([b"ECHO", b"still here"]), 1)
        replylog.wait_replies(1)
        return [record["argv"] for record in replylog.stop() if record["event"] == "reply"] == [["ECHO", "still here"]]


# ---- refused -------------------------------------------------------------------------------------------------------

def test_no_such_pid():
    # The kernel only assigns pids below this number.
    pid = Path("/proc/sys/kernel/pid_max").read_text().strip()
    assert_refused(run_replylog("-p", pid), pid)


def test_not_a_server():
    with process("sleep", "1000") as sleep:
        assert_refused(run_replylog("-p", str(sleep.pid)), str(sleep.pid), "sleep")
    assert_refused(run_replylog("-p", str(os.getpid())))


class LoadedServer(Server):
    """A server that the dynamic loader starts, with the server's name as an argument."""

    def command(self, binary=None):
        chroot, folder, *server = super().command(binary)
        loader = next(folder.glob("lib*/ld-linux*.so.*"))
        return [chroot, folder, f"/{loader.relative_to(folder)}", *server]


def test_started_by_the_loader():
    """The process is the loader: the message names the server, and says what to do."""
    with LoadedServer("valkey-9.1") as server:
        run = run_replylog("-p", str(server.pid))
        assert_refused(run, f"{server.binary.rpartition('/')[0]}/valkey-check-rdb was started as an argument of ")
        assert run.stderr.endswith("ld-linux-x86-64.so.2: start the server directly\n") or os.uname().machine != "x86_64", run


def test_kernel_thread():
    comm = Path("/proc/2/comm")
    if not comm.exists() or comm.read_text().strip() != "kthreadd":
        raise Skip("pid 2 is no kernel thread here (a pid namespace)")
    assert_refused(run_replylog("-p", "2"))


def test_zombie():
    """A process that has ended, and that its parent has not waited for, has no memory to probe."""
    with process("true") as ended:
        wait_until(lambda: f"{ended.pid} (true) Z" in Path(f"/proc/{ended.pid}/stat").read_text(), "zombie")
        assert_refused(run_replylog("-p", str(ended.pid)))


BAD_COMMAND_LINES = [
    ([], "pid"), (["-p"], "pid"), (["--threshold", "1mb"], "pid"), (["-p", "0"], "0"), (["-p", "-1"], "-1"),
    (["-p", "abc"], "abc"), (["-p", ""], ""), (["-p", "1x"], "1x"), (["-p", "99999999999999999999"], "99999"),
    (["-p", "PID", "--threshold"], "threshold"), (["-p", "PID", "--threshold", ""], "threshold"),
    (["-p", "PID", "--threshold", "abc"], "abc"), (["-p", "PID", "--threshold", "-1"], "-1"),
    (["-p", "PID", "--threshold", "1q"], "1q"), (["-p", "PID", "--threshold", "1mbx"], "1mbx"),
    (["-p", "PID", "--threshold", "1 mb"], "1 mb"), (["-p", "PID", "--threshold", "1.5mb"], "1.5mb"),
    (["-p", "PID", "-t", "mb"], "mb"), (["-p", "PID", "--threshold", "99999999999999999999g"], "99999"),
    (["-p", "PID", "--nonsense"], "nonsense"), (["-p", "PID", "-Z"], "Z"), (["-p", "PID", "extra"], "extra"),
    (["-p", "PID", "line\nbreak"], "line"),
]


def test_bad_command_lines():
    with Server("valkey-9.1") as server:
        for argv, word in BAD_COMMAND_LINES:
            assert_refused(run_replylog(*(str(server.pid) if arg == "PID" else arg for arg in argv)), word)
        assert server.patched() == 0


@contextmanager
def binary_for_everyone():
    """replylog in a folder where an unprivileged user can execute it, wherever the repository is."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        yield shutil.copy(BINARY, folder)


def refused_without(server, *setpriv):
    if not shutil.which("setpriv"):
        raise Skip("no setpriv")
    with binary_for_everyone() as binary:
        return run_replylog(argv=["setpriv", *setpriv, binary, "-p", str(server.pid)])


def test_not_permitted():
    """An unprivileged user, and root without one capability: the message names what is missing."""
    with Server("valkey-9.1") as server:
        nobody = ("--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all")
        assert_refused(refused_without(server, *nobody), "CAP_")
        for missing in ("bpf", "perfmon"):
            # CAP_SYS_ADMIN includes both, so the test drops it with either.
            dropped = f"-{missing},-sys_admin"
            run = refused_without(server, f"--inh-caps={dropped}", f"--bounding-set={dropped}")
            assert_refused(run, f"CAP_{missing.upper()}")
        assert server.patched() == 0 and serves(server)


# ---- stdout --------------------------------------------------------------------------------------------------------

@contextmanager
def on_a_pipe(server, threshold="0"):
    """Yields (replylog, the read end of its stdout) after the start record."""
    ours, theirs = os.pipe()
    with open(ours, "rb", 0) as reader:
        replylog = subprocess.Popen([BINARY, "-p", str(server.pid), "--threshold", threshold], stdout=theirs,
                                    stderr=subprocess.PIPE, text=True)
        os.close(theirs)
        try:
            assert readable(reader, 30), "no start record"
            assert json.loads(reader.readline())["event"] == "start"
            yield replylog, reader
        finally:
            end(replylog, signal.SIGKILL)
            replylog.stderr.close()


def test_stdout_closed(busy):
    with Server("valkey-9.1") as server:
        with on_a_pipe(server) as (replylog, reader):
            reader.close()
            if busy:
                assert serves(server)
            replylog.wait(20)
            stderr = replylog.stderr.read()
            print(f"exits {replylog.returncode}: {stderr!r}")
            assert replylog.returncode > 0, replylog.returncode
            assert stderr.count("\n") <= 1, stderr
        server.assert_untouched()
        assert logs_a_reply(server)


test_stdout_closed.cases = {"with replies": (True,), "idle": (False,)}


def test_stdout_full():
    with Server("valkey-9.1") as server:
        with open("/dev/full", "wb") as full:
            run = subprocess.run([BINARY, "-p", str(server.pid)], stdout=full, stderr=subprocess.PIPE, text=True,
                                 timeout=60)
        run.stdout = ""
        assert_refused(run)
        server.assert_untouched()


# ---- ending --------------------------------------------------------------------------------------------------------

def test_signals(signum):
    with Server("valkey-9.1") as server:
        with Replylog(server.pid, 0) as replylog:
            assert serves(server)
            replylog.wait_replies(1)
            records = replylog.stop(signum)
            assert replylog.returncode == 0, replylog.returncode
            assert replylog.stderr == "", replylog.stderr
            assert [record["event"] for record in records] == ["start", "reply", "stop"], records
            assert records[-1]["reason"] == "signal", records[-1]
        server.assert_untouched()
        assert serves(server)


test_signals.cases = {"SIGINT": (signal.SIGINT,), "SIGTERM": (signal.SIGTERM,)}


def pipelined_echo(server, count):
    with server.client() as client:
        client.drain(encode([b"ECHO", b"e" * 100]) * count, count)


def waiting_bytes(pipe):
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


def test_second_signal():
    """When nobody reads stdout, replylog can't finish after the first signal. The second one ends it."""
    with Server("valkey-9.1") as server:
        with on_a_pipe(server) as (replylog, reader):
            pipelined_echo(server, 5000)
            # Its lines need much more room than a pipe has, so it now waits in a write.
            wait_until(lambda: waiting_bytes(reader) > 40_000, "full pipe")
            replylog.send_signal(signal.SIGINT)
            try:
                replylog.wait(1)
            except subprocess.TimeoutExpired:
                replylog.send_signal(signal.SIGINT)
            replylog.wait(10)
            assert readable(reader, 0)
        server.assert_untouched()


def test_server_ends(how):
    """The server is killed or shut down: a stop record with the reason, exit status 0."""
    with Server("valkey-9.1") as server, Replylog(server.pid, 0) as replylog:
        assert serves(server)
        replylog.wait_replies(1)
        if how == "killed":
            server.process.kill()
        else:
            with server.client() as client:
                client.send("SHUTDOWN", "NOSAVE")
        server.process.wait(20)
        records = replylog.finish()
        assert replylog.returncode == 0, replylog.returncode
        assert replylog.stderr.count("\n") <= 1, replylog.stderr
        assert records[-1]["event"] == "stop" and records[-1]["reason"] == "server_exited", records[-1]
        assert records[1]["event"] == "reply" and records[1]["argv"] == ["PING"], records


test_server_ends.cases = {"killed": ("killed",), "shut down": ("shut down",)}


def test_replylog_killed():
    """kill -9 of replylog leaves nothing behind: the server's code is unchanged, it serves, and the next replylog works."""
    with Server("valkey-9.1", io_threads=2) as server:
        for _ in range(3):
            with Replylog(server.pid, 0) as replylog:
                pipelined_echo(server, 100)
                assert server.patched() > 0, "no probe found in the server: this test proves nothing"
                end(replylog.process, signal.SIGKILL)
            server.assert_untouched()
            assert serves(server)
        assert logs_a_reply(server)


def test_two_at_once():
    """Two replylogs on one server each log everything, and the end of one does not affect the other."""
    with Server("valkey-9.1") as server, Replylog(server.pid, 0) as first, Replylog(server.pid, 0) as second:
        assert serves(server)
        first.wait_replies(1)
        assert len(first.stop()) == 3
        assert serves(server)
        second.wait_replies(2)
        assert len(second.stop()) == 4
        server.assert_untouched()
