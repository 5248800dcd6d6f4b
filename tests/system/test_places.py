"""Servers in containers and chroots, and servers whose binary was deleted or replaced. The records of each are exact."""
import ctypes
import fcntl
import os
import shutil
import socket
import struct
import threading
from contextlib import contextmanager
from pathlib import Path

from environment import BINARY
from replylog import Replylog, run_replylog
from resp import Client, encode
from restarts import age, check_runs, copied_binary, kill_observed, observe_word, polls_again, restart
from server import Server
from test_check import check
from test_errors import assert_refused
from transport import Tcp
from waiting import wait_until

CLONE_NEWNET = 0x40000000
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
BIG = 3_000_000


def in_network_of(pid, function):
    """Calls function() in a thread that is in the network namespace of pid."""
    libc = ctypes.CDLL(None, use_errno=True)
    result = []

    def call():
        with open(f"/proc/{pid}/ns/net", "rb") as namespace:
            if libc.setns(namespace.fileno(), CLONE_NEWNET):
                result.append(OSError(ctypes.get_errno(), "setns"))
                return
        try:
            result.append(function())
        except OSError as error:
            result.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    if isinstance(result[0], OSError):
        raise result[0]
    return result[0]


def loopback_up():
    with socket.socket() as sock:
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))


class ContainerServer(Server):
    """A server in its own mount, pid and network namespaces. Its binary is on a file system that only it sees."""

    def command(self, binary=None):
        self.inner = None
        image = f"{self.dir}/opt"
        original = f"{self.dir}/usr/bin/{self.kind}-server"
        script = f"mount -t tmpfs none {image} && cp {original} {image}/server && exec \"$@\""
        return ["unshare", "--mount", "--pid", "--net", "--fork", "--kill-child", "sh", "-c", script, "sh",
                *super().command("/opt/server")]

    @property
    def pid(self):
        """The server's pid in the host's namespace. In its container it is 1."""
        if not self.inner:
            parent = self.process.pid
            children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
            if not children or not os.readlink(f"/proc/{children[0]}/exe").endswith("/opt/server"):
                raise OSError("not started yet")
            self.inner = int(children[0])
            in_network_of(self.inner, loopback_up)
        return self.inner

    def client(self, timeout=30):
        return in_network_of(self.pid, lambda: Client(self.port, timeout))


def observed_exactly(server):
    """Compares the records of a large reply, a pipeline and a small reply with the bytes that arrived."""
    with server.client() as client:
        client.call("SETRANGE", "big", BIG - 1, "x")
    with Replylog(server.pid, 0) as replylog, server.client() as client:
        lengths = client.drain(encode([b"GET", b"big"]), 1)
        lengths += client.drain(encode([b"ECHO", b"y" * 1000]) * 50, 50)
        replylog.wait_replies(len(lengths))
        records = replylog.stop()
    assert replylog.returncode == 0 and replylog.stderr == "", replylog.stderr
    assert lengths[0] == BIG + len(f"${BIG}\r\n\r\n")
    assert [record["reply_bytes"] for record in records[1:-1]] == lengths
    assert {record["attribution"] for record in records[1:-1]} == {"exact"}
    assert {record["server_pid"] for record in records} == {server.pid}
    assert records[0]["server_version"].startswith(server.kind), records[0]
    server.assert_untouched()
    return records


def test_container(name, io_threads):
    with ContainerServer(name, io_threads=io_threads) as server:
        assert f"\t{server.pid}\t1\n" in Path(f"/proc/{server.pid}/status").read_text(), "no pid namespace"
        start = observed_exactly(server)[0]
        assert start["server_exe"].endswith("/opt/server"), start
        assert not os.path.exists(start["server_exe"]), "the file can be seen from here: the test proves nothing"


test_container.cases = {"valkey-9.1": ("valkey-9.1", 1), "valkey-9.1,4 io threads": ("valkey-9.1", 4),
                        "redis-7.0": ("redis-7.0", 1)}


def listen_on(server, port):
    server.port = port
    server.transport = Tcp(port)
    restart(server)


def test_container_by_port():
    """The port on which the server listens in its own network. A server on the same port elsewhere makes it ambiguous."""
    with ContainerServer("valkey-9.1") as server:
        (record,) = check("--port", str(server.port))
        assert record["server_pid"] == server.pid and record["listens"] == [f"tcp {server.port}"], record
        with Server("valkey-9.1") as other:
            listen_on(other, server.port)
            run = run_replylog("--check", "--port", str(server.port))
            assert run.returncode == 1 and f"-p {server.pid}" in run.stderr and f"-p {other.pid}" in run.stderr, run


def test_container_by_unixsocket():
    """The socket's path in the container is another file here."""
    name = f"replylog-{os.getpid()}.sock"
    with ContainerServer("valkey-9.1", "--unixsocket", f"/tmp/{name}") as server:
        path = f"{server.dir}/tmp/{name}"
        try:
            (record,) = check("--unixsocket", path)
            assert record["server_pid"] == server.pid, record
        finally:
            os.unlink(path)


def test_container_restarts():
    """The successor has a new network namespace and the same cgroup: replylog follows it, and no server on the same port
    elsewhere."""
    with ContainerServer("valkey-9.1") as server, Server("valkey-9.1") as other:
        listen_on(other, server.port)
        pids = [server.pid]
        with Replylog(server.pid, 0, "--follow") as replylog:
            observe_word(server, replylog, "first")
            kill_observed(server, replylog)
            restart(other)
            polls_again(replylog)
            restart(server)
            pids.append(server.pid)
            observe_word(server, replylog, "second")
            check_runs(replylog, pids, ["first", "second"])


def test_other_container_is_not_followed():
    """replylog does not follow a container on the same port that ran all the time."""
    with ContainerServer("valkey-9.1") as server, ContainerServer("valkey-9.1") as other:
        listen_on(other, server.port)
        pids = [server.pid]
        with Replylog(server.pid, 0, "--follow") as replylog:
            observe_word(server, replylog, "first")
            # A server counts as a successor when it started at most a second before the other one's end.
            wait_until(lambda: age(other.pid) > 2, "older container")
            kill_observed(server, replylog)
            polls_again(replylog)
            restart(server)
            pids.append(server.pid)
            observe_word(server, replylog, "second")
            check_runs(replylog, pids, ["first", "second"])


def test_replylog_in_a_container(proc, flags):
    """In its own pid namespace, with that namespace's /proc or the host's, replylog refuses at once, even where it would
    wait for a server."""
    with Server("valkey-9.1") as server:
        own = ["unshare", "--pid", "--fork", "--kill-child", *proc, BINARY]
        which = [str({"PID": server.pid, "PORT": server.port}.get(flag, flag)) for flag in flags]
        assert_refused(run_replylog(argv=[*own, *which], timeout=20), "not the host's pid namespace")
        assert server.patched() == 0


test_replylog_in_a_container.cases = {
    f"{' '.join(flags)}{', own /proc' if proc else ''}": (proc, flags)
    for proc in ((), ("--mount-proc",))
    for flags in (("-p", "PID"), ("--port", "PORT"), ("--port", "PORT", "--follow"), ("--all", "--follow"),
                  ("--check", "-p", "PID"))}


def test_chroot():
    """Every server of these tests is in a chroot. This one checks the path in the record."""
    with Server("redis-7.0") as server:
        start = observed_exactly(server)[0]
        assert os.path.samefile(start["server_exe"], f"/proc/{server.pid}/exe"), start


@contextmanager
def server_from_copy(name):
    with Server(name) as server, copied_binary(server) as path:
        restart(server, binary=path)
        yield server, f"{server.dir}{path}"


def test_binary_deleted():
    with server_from_copy("valkey-9.1") as (server, path):
        Path(path).rename(f"{path}.away")
        Path(f"{path}.away").unlink()
        try:
            assert observed_exactly(server)[0]["server_exe"].endswith("(deleted)")
        finally:
            Path(path).touch()


def test_binary_replaced(by):
    """An upgrade replaces the binary while the old server runs: replylog probes the old one."""
    with server_from_copy("valkey-9.1") as (server, path):
        build_id = check("-p", str(server.pid))[0]["server_build_id"]
        with Server(by) as other:
            shutil.copy(f"{other.dir}/usr/bin/{other.kind}-server", f"{path}.new")
        os.rename(f"{path}.new", path)
        start = observed_exactly(server)[0]
        assert start["server_build_id"] == build_id and start["server_version"].startswith("valkey 9.1"), start


test_binary_replaced.cases = {by: (by,) for by in ("redis-7.0", "valkey-9.1")}
