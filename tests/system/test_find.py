"""How replylog selects servers: by pid, port, socket or --all, one or several at once."""
import os
import shutil
import signal
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

from environment import BINARY, Skip
from processes import end
from replylog import Replylog, run_replylog
from resp import encode
from server import Server
from slot import free_port, slot
from test_errors import assert_refused, pipelined_echo, process, waiting_bytes
from test_schema import check_record, parse_line, read_schema
from waiting import wait_until


def own_user():
    """Servers of a user of their own. Without CAP_SYS_PTRACE, --all sees only these, and no server of another user or
    another test."""
    return 64_321 + slot().number


class OwnServer(Server):
    def command(self, binary=None):
        user = own_user()
        os.chown(f"{self.dir}{self.work}", user, user)
        argv = super().command(binary)
        return [argv[0], f"--userspec={user}:{user}", *argv[1:]]


class OwnReplylog(Replylog):
    """Runs as the user of the servers, with the capabilities that README lists."""

    def __enter__(self):
        if not shutil.which("setpriv"):
            raise Skip("no setpriv")
        self.folder = tempfile.TemporaryDirectory(dir="/tmp")
        os.chmod(self.folder.name, 0o755)
        self.argv[0] = shutil.copy(BINARY, self.folder.name)
        capabilities = "-all,+bpf,+perfmon"
        user = own_user()
        self.argv = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", f"--inh-caps={capabilities}",
                     f"--ambient-caps={capabilities}", *self.argv]
        return super().__enter__()

    def __exit__(self, *arguments):
        super().__exit__(*arguments)
        self.folder.cleanup()


def echo(server, word):
    with server.client() as client:
        client.drain(encode([b"ECHO", word.encode()]), 1)


def started(replylog):
    """The pids of the servers with a start record so far."""
    return [record["server_pid"] for record in replylog.records() if record["event"] == "start"]


def words(records, pid):
    """The arguments of the ECHOs that this server answered."""
    return [record["argv"][1] for record in records
            if record["event"] == "reply" and record["server_pid"] == pid and record["cmd"] == "ECHO"]


def one_observed(server, *flags):
    with Replylog(None, 0, *flags) as replylog:
        echo(server, "found")
        replylog.wait_replies(1)
        records = replylog.stop()
    assert replylog.returncode == 0 and replylog.stderr == "", replylog.stderr
    assert {record["server_pid"] for record in records} == {server.pid}, records
    assert words(records, server.pid) == ["found"], records


@contextmanager
def saving_child(server):
    """A forked child of the server, in the middle of its BGSAVE."""
    with server.client() as client:
        client.call("CONFIG", "SET", "rdb-key-save-delay", "10000000")
        client.call("SET", "key", "value")
        client.call("BGSAVE")
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children")
    child = int(wait_until(children.read_text, "forked child").split()[0])
    try:
        yield child
    finally:
        os.kill(child, signal.SIGKILL)


# ---- one ------------------------------------------------------------------------------------------------------------

def test_port():
    with Server("valkey-9.1") as server, Server("redis-7.0"):
        one_observed(server, "--port", str(server.port))


def test_port_ipv6_only():
    with Server("valkey-9.1", "--bind", "::1", "127.0.0.1") as server:
        with server.client() as client:
            client.call("CONFIG", "SET", "bind", "::1")
        run = run_replylog("--check", "--json", "--port", str(server.port))
        assert run.returncode == 0 and f'"server_pid":{server.pid},' in run.stdout, run


def test_unixsocket():
    """The socket's path in the server's root differs from ours. A link to its folder works too."""
    name = f"replylog {os.getpid()}.sock"
    with Server("valkey-9.1", "--unixsocket", f"/tmp/{name}") as server, tempfile.TemporaryDirectory() as folder:
        path = f"{server.dir}/tmp/{name}"
        try:
            one_observed(server, "--unixsocket", path)
            os.symlink(f"{server.dir}/tmp", f"{folder}/link")
            one_observed(server, "--unixsocket", f"{folder}/link/{name}")
            # The path in the server's root, which does not exist in ours.
            one_observed(server, "--unixsocket", f"/tmp/{name}")
        finally:
            os.unlink(path)


def test_no_listener():
    port = str(free_port())
    assert_refused(run_replylog("--port", port), port)
    assert_refused(run_replylog("--unixsocket", "/no/such.sock"), "/no/such.sock")


def test_listener_is_no_server():
    """The process that listens on the port is no server."""
    with process("python3", "-c", "import socket, time; s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(); "
                 "print(s.getsockname()[1]); time.sleep(1000)") as listener:
        ports = wait_until(lambda: [line.split()[1] for line in Path(f"/proc/{listener.pid}/net/tcp").open()
                                    if line.split()[3] == "0A" and holds(listener.pid, line.split()[9])], "listener")
        assert_refused(run_replylog("--port", str(int(ports[0].split(":")[1], 16))), "listens there")


def holds(pid, inode):
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        try:
            if os.readlink(fd) == f"socket:[{inode}]":
                return True
        except OSError:
            pass
    return False


def test_several_listen_there():
    """Two servers listen on the same port in two network namespaces: replylog refuses to guess."""
    with Server("valkey-9.1") as server:
        other = subprocess.Popen(["unshare", "--net", *server.command()], stdin=subprocess.DEVNULL,
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        try:
            wait_until(lambda: os.path.samefile(f"/proc/{other.pid}/exe", f"/proc/{server.pid}/exe") and
                       f":{server.port:04X} " in Path(f"/proc/{other.pid}/net/tcp").read_text(), "second server")
            run = run_replylog("--port", str(server.port))
            assert_refused(run)
            assert f"-p {server.pid}" in run.stderr and f"-p {other.pid}" in run.stderr, run.stderr
        finally:
            end(other, signal.SIGKILL)


# ---- forked children ------------------------------------------------------------------------------------------------

def test_child_by_pid():
    with Server("valkey-9.1") as server, saving_child(server) as child:
        assert_refused(run_replylog("-p", str(child)), f"use -p {server.pid}")


def test_child_by_port():
    with Server("valkey-9.1") as server, saving_child(server):
        one_observed(server, "--port", str(server.port))


def test_orphan():
    """The server has been killed, and its child still writes."""
    with Server("valkey-9.1") as server:
        with saving_child(server) as child:
            server.process.kill()
            server.process.wait()
            assert_refused(run_replylog("-p", str(child)), "forked child")
            assert_refused(run_replylog("--port", str(server.port)), "listens there")


class Daemon(Server):
    """Its parent ends after it has forked the server."""
    inner = None

    def command(self, binary=None):
        return [*super().command(binary), "--daemonize", "yes", "--pidfile", f"{self.work}/pid"]

    @property
    def pid(self):
        if not self.inner:
            self.inner = int(Path(f"{self.dir}{self.work}/pid").read_text())
        return self.inner

    def answers(self):
        try:
            with self.client() as client:
                return client.call("PING") == b"PONG"
        except OSError:
            return False

    def stop(self):
        os.kill(self.pid, signal.SIGKILL)
        super().stop()


def test_daemon():
    """A daemon was forked and has never called execve, like a child that saves, but it is a server."""
    with Daemon("valkey-9.1") as server:
        one_observed(server, "-p", str(server.pid))
        one_observed(server, "--port", str(server.port))


# ---- several --------------------------------------------------------------------------------------------------------

def several_observed(replylog, servers):
    wait_until(lambda: set(started(replylog)) == {server.pid for server in servers}, "start records")
    for i in range(50):
        for server in servers:
            echo(server, f"{server.port}-{i}")
    replylog.wait_replies(50 * len(servers) + len(servers) - 1)
    records = replylog.stop()
    assert replylog.returncode == 0 and replylog.stderr == "", replylog.stderr
    for server in servers:
        own = [record for record in records if record["server_pid"] == server.pid]
        assert [own[0]["event"], own[-1]["event"]] == ["start", "stop"], own
        assert words(records, server.pid) == [f"{server.port}-{i}" for i in range(50)]
        assert [record["seq"] for record in own[1:-1]] == list(range(1, 51))
    assert len({record["run_id"] for record in records if record["event"] == "start"}) == len(servers)
    schema = read_schema()
    for line in replylog.lines:
        check_record(schema, parse_line(line))
    for server in servers:
        server.assert_untouched()


def test_several_pids():
    with Server("valkey-9.1") as first, Server("redis-7.0") as second, Server("valkey-9.1", io_threads=2) as third:
        with Replylog(first.pid, 0, "--port", str(second.port), "-p", str(third.pid)) as replylog:
            several_observed(replylog, [first, second, third])


def test_same_server_twice():
    with Server("valkey-9.1") as server:
        one_observed(server, "-p", str(server.pid), "--port", str(server.port), "-p", str(server.pid))


def test_all():
    with OwnServer("valkey-9.1") as first, OwnServer("redis-7.0") as second, Server("valkey-9.1"):
        with saving_child(first), OwnReplylog(None, 0, "--all") as replylog:
            several_observed(replylog, [first, second])


def test_all_follow():
    """replylog also observes servers that start later, and stops observing those that end."""
    with OwnServer("valkey-9.1") as first, OwnReplylog(None, 0, "--all", "--follow") as replylog:
        with OwnServer("valkey-9.1") as second:
            wait_until(lambda: second.pid in started(replylog), "second server's start record")
            echo(second, "late")
            replylog.wait_replies(2)
        echo(first, "early")
        wait_until(lambda: any(r["event"] == "stop" for r in replylog.records()), "second server's stop record")
        replylog.wait_replies(4)
        records = replylog.stop()
    assert replylog.returncode == 0 and replylog.stderr == "", replylog.stderr
    assert words(records, first.pid) == ["early"] and words(records, second.pid) == ["late"], records
    reasons = {record["server_pid"]: record["reason"] for record in records if record["event"] == "stop"}
    assert reasons == {first.pid: "signal", second.pid: "server_exited"}, reasons


def test_no_server_at_all():
    with Server("valkey-9.1"):
        with OwnReplylog(None, 0, "--all", wait=False) as replylog:
            replylog.finish()
        assert replylog.returncode == 1 and replylog.lines == []
        assert replylog.stderr.count("\n") == 1 and "--all" in replylog.stderr, replylog.stderr


def test_one_of_several_ends():
    """One server ends: its stop record arrives, and the other runs go on."""
    with Server("valkey-9.1") as first, Server("valkey-9.1") as second:
        with Replylog(first.pid, 0, "-p", str(second.pid)) as replylog:
            wait_until(lambda: len(started(replylog)) == 2, "start records")
            first.process.kill()
            wait_until(lambda: any(r["event"] == "stop" for r in replylog.records()), "stop record")
            echo(second, "alone")
            replylog.wait_replies(3)
            records = replylog.stop()
        assert replylog.returncode == 0, replylog.stderr
        assert words(records, second.pid) == ["alone"]
        assert [r["reason"] for r in records if r["event"] == "stop"] == ["server_exited", "signal"], records


def test_one_of_several_cannot_be_observed():
    """replylog reports the process on stderr and in the exit status, and observes the others."""
    with Server("valkey-9.1") as server, process("sleep", "1000") as sleep:
        with Replylog(server.pid, 0, "-p", str(sleep.pid)) as replylog:
            wait_until(lambda: "sleep" in Path(f"/proc/{sleep.pid}/comm").read_text() and started(replylog), "start")
            echo(server, "observed")
            replylog.wait_replies(1)
            records = replylog.stop()
        assert words(records, server.pid) == ["observed"]
        assert replylog.returncode == 1
        assert replylog.stderr.count("\n") == 1 and f"-p {sleep.pid}" in replylog.stderr, replylog.stderr


LONG = encode([b"ECHO", *[b"\xff" * 128] * 31])     # its reply is an error, and its record is the longest line


def test_long_lines_of_several():
    """Lines many times longer than an atomic write to a pipe, from two servers under load: each line is whole."""
    count = 2000
    with Server("valkey-9.1") as first, Server("valkey-9.1") as second:
        with Replylog(first.pid, 0, "-p", str(second.pid), "--ring-size", "64mb") as replylog:
            wait_until(lambda: len(started(replylog)) == 2, "start records")
            with first.client() as one, second.client() as other:
                for client in (one, other) * 4:
                    client.sock.sendall(LONG * (count // 4))
                for client in (one, other):
                    client.drain(b"", count)
            replylog.wait_replies(2 * count + 1)
            records = replylog.stop()
    assert min(map(len, replylog.lines[2:-2])) > 8192, "the lines are short: the test proves nothing"
    for server in (first, second):
        seqs = [r["seq"] for r in records if r["event"] == "reply" and r["server_pid"] == server.pid]
        assert seqs == list(range(1, count + 1)), seqs


def workers(replylog):
    return [int(pid) for pid in Path(f"/proc/{replylog.pid}/task/{replylog.pid}/children").read_text().split()]


def test_worker_killed():
    """A worker is killed: all lines are whole, the other servers are still observed, and replylog reports it."""
    with Server("valkey-9.1") as first, Server("valkey-9.1") as second:
        with Replylog(first.pid, 0, "-p", str(second.pid)) as replylog:
            wait_until(lambda: len(started(replylog)) == 2, "start records")
            with first.client() as client:
                client.sock.sendall(encode([b"ECHO", b"x" * 100]) * 3000)
                os.kill(workers(replylog)[0], signal.SIGKILL)
            echo(second, "alone")
            wait_until(lambda: words([r for r in replylog.records() if r.get("argc") == 2], second.pid), "reply")
            records = replylog.stop()
        assert replylog.returncode == 1
        assert f"-p {first.pid}" in replylog.stderr and "signal 9" in replylog.stderr, replylog.stderr
        assert words(records, second.pid) == ["alone"]
        first.assert_untouched()


def test_supervisor_killed():
    """The supervisor is killed: no worker remains."""
    with Server("valkey-9.1") as first, Server("valkey-9.1") as second:
        with Replylog(first.pid, 0, "-p", str(second.pid)) as replylog:
            wait_until(lambda: len(started(replylog)) == 2, "start records")
            children = workers(replylog)
            assert len(children) == 2 and first.patched() and second.patched()
            replylog.process.kill()
            wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children), "end of the workers")
        first.assert_untouched()
        second.assert_untouched()


def test_worker_signalled_twice():
    """A worker receives a signal from a terminal or service manager, and later another from its supervisor. It still
    writes everything."""
    with Server("valkey-9.1") as first, Server("valkey-9.1") as second:
        with Replylog(first.pid, 0, "-p", str(second.pid)) as replylog:
            wait_until(lambda: len(started(replylog)) == 2, "start records")
            children = workers(replylog)
            replylog.process.send_signal(signal.SIGSTOP)
            # More data than the supervisor's pipe holds, so the worker waits too.
            with first.client() as client:
                client.drain(LONG * 200, 200)
            for pid in children:
                os.kill(pid, signal.SIGINT)
            # Longer than the time in which two signals count as one.
            assert_still_runs(replylog.process, 0.5)
            for pid in children:
                os.kill(pid, signal.SIGTERM)
            replylog.process.send_signal(signal.SIGCONT)
            records = replylog.finish()
        assert replylog.returncode == 0 and replylog.stderr == "", replylog.stderr
        assert [r["reason"] for r in records if r["event"] == "stop"] == ["signal", "signal"], records
        assert len(replylog.replies()) == 200


def test_signals_to_the_group():
    """A terminal also signals the workers. replylog ends in order, even after two such signals."""
    with Server("valkey-9.1") as first, Server("valkey-9.1") as second:
        with Replylog(first.pid, 0, "-p", str(second.pid)) as replylog:
            wait_until(lambda: len(started(replylog)) == 2, "start records")
            for pid in [*workers(replylog), *workers(replylog)]:
                os.kill(pid, signal.SIGINT)
            records = replylog.stop()
        assert replylog.returncode == 0 and replylog.stderr == "", replylog.stderr
        assert [r["reason"] for r in records if r["event"] == "stop"] == ["signal", "signal"], records


def test_second_signal_to_several():
    """When nobody reads stdout, the second signal ends replylog and its workers."""
    with Server("valkey-9.1") as first, Server("valkey-9.1") as second:
        ours, theirs = os.pipe()
        replylog = subprocess.Popen([BINARY, "-t", "0", "-p", str(first.pid), "-p", str(second.pid)], stdout=theirs,
                                    stderr=subprocess.DEVNULL)
        os.close(theirs)
        with open(ours, "rb", 0) as reader:
            try:
                assert b'"start"' in reader.readline() and b'"start"' in reader.readline()
                children = workers(replylog)
                pipelined_echo(first, 5000)
                wait_until(lambda: waiting_bytes(reader) > 40_000, "full pipe")
                replylog.send_signal(signal.SIGINT)
                # Nobody reads stdout, so it can't end. Wait until a second signal no longer counts as the first.
                assert_still_runs(replylog, 1)
                replylog.send_signal(signal.SIGINT)
                assert replylog.wait(10) == 1
                wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children), "end of the workers")
            finally:
                end(replylog, signal.SIGKILL)
        first.assert_untouched()
        second.assert_untouched()


def assert_still_runs(process, seconds):
    try:
        raise AssertionError(f"ended with {process.wait(seconds)}")
    except subprocess.TimeoutExpired:
        pass


def test_reader_of_several_gone():
    with Server("valkey-9.1") as first, Server("valkey-9.1") as second:
        ours, theirs = os.pipe()
        replylog = subprocess.Popen([BINARY, "-p", str(first.pid), "-p", str(second.pid)], stdout=theirs,
                                    stderr=subprocess.PIPE, text=True)
        os.close(theirs)
        with open(ours, "rb", 0) as reader:
            assert b'"start"' in reader.readline()
        try:
            assert replylog.wait(20) == 1
            assert replylog.stderr.read() == "replylog: stdout: Broken pipe\n"
        finally:
            end(replylog, signal.SIGKILL)
            replylog.stderr.close()
        first.assert_untouched()
        second.assert_untouched()
