"""Properties of single transports: nested calls, modules, listeners opened later, older clients."""
import contextlib
import os
import shutil
import socket

import oracle
import workload
from replylog import Replylog
from resp import Client, encode
from server import Server

MODES = ("session", "multi", "perf")
TLS_BUILDS = ("valkey-9.1", "redis-7.0", "valkey-9.1-symbols")


def test_nested_writes(mode):
    """connTLSWritev calls connTLSWrite: once for each buffer when they have many bytes, once with a copy of all when they
    have few, and by a jump for a single buffer. Every byte counts once, in each attach mode."""
    with Server("valkey-9.1", transport="tls") as server:
        with server.client() as client:
            workload.fill(client)
        with Replylog(server.pid, 0, "--tap", "connection", "--attach", mode) as replylog:
            with Client(server.transport) as client:
                argvs = [[b"LRANGE", b"l:wide", b"0", b"-1"], [b"LRANGE", b"l:wide", b"0", b"%d" % 400],
                         [b"MGET", *[b"s:16384"] * 12], [b"GET", b"s:1500000"]]
                lengths = client.drain(b"".join(map(encode, argvs)), len(argvs))
            replylog.wait_replies(len(argvs))
            stop = replylog.stop()[-1]
    assert [record["reply_bytes"] for record in replylog.replies()] == lengths, (replylog.replies(), lengths)
    assert stop["dropped"] == 0 and stop["unattributed_bytes"] == 0, stop


test_nested_writes.cases = {mode: (mode,) for mode in MODES}


def test_own_connection_layers(name):
    """TLS, a Unix socket and TCP side by side: each has its own probes, and replylog confuses none of them."""
    with Server(name, transport="tls") as server:
        ways = {"tls": server.transport, "tcp": server.port}
        with Replylog(server.pid, 0) as replylog:
            with Client(ways["tls"]) as tls, Client(ways["tcp"]) as tcp:
                for i in range(20):
                    assert tls.call("ECHO", f"tls {i}") == b"tls %d" % i
                    assert tcp.call("ECHO", f"tcp {i}") == b"tcp %d" % i
                addresses = {"tls": tls.addr, "tcp": tcp.addr}
            replylog.wait_replies(40)
            records = replylog.stop()
    replies = [record for record in records if record["event"] == "reply"]
    assert len(replies) == 40, replies
    for record in replies:
        assert record["client_addr"] == addresses[record["argv"][1][:3]], record
        assert record["attribution"] == "exact", record
    probed = " ".join(records[0]["probes"])
    assert all(function in probed for function in ("connTLSRead", "connTLSWritev", "connTLSAccept")), probed
    assert "connSocketRead" in probed or "sock_recv_length" in probed, probed
    assert "single-stepped" not in probed, probed


test_own_connection_layers.cases = {name: (name,) for name in TLS_BUILDS}


def test_older_connection_is_joined(transport):
    """The proof that nothing is outstanding is in the server's structs, with any transport."""
    with Server("valkey-9.1", transport=transport) as server, Client(server.transport) as older:
        older.call("PING")
        with Replylog(server.pid, 0) as replylog, Client(server.transport) as newer:
            older.call("ECHO", "older")
            newer.call("ECHO", "newer")
            replylog.wait_replies(2)
            replylog.stop()
    assert {record["argv"][1]: record["attribution"] for record in replylog.replies()} == \
        {"older": "exact", "newer": "exact"}, replylog.replies()


test_older_connection_is_joined.cases = {transport: (transport,) for transport in ("unix", "tls")}


def test_listener_comes_later():
    """replylog probes TLS in a server with TLS built in and no TLS listener, because the server may open one at any time."""
    with Server("valkey-9.1", transport="tls") as server, server.client() as admin:
        admin.call("CONFIG", "SET", "tls-port", 0)
        with Replylog(server.pid, 0) as replylog:
            admin.call("CONFIG", "SET", "tls-port", server.transport.port)
            with Client(server.transport) as client:
                client.call("ECHO", "x" * 100)
            replylog.wait_replies(2)
            replylog.stop()
    record, = [record for record in replylog.replies() if record["cmd"] == "ECHO"]
    assert (record["reply_bytes"], record["attribution"]) == (108, "exact"), record


def test_no_handshake():
    """A client that connects to the TLS port and never speaks TLS is not a TLS connection, and leaves no state behind."""
    with Server("valkey-9.1", transport="tls") as server, Replylog(server.pid, 0, "--max-clients", "8") as replylog:
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", server.transport.port), timeout=20) as stranger:
                stranger.sendall(b"*1\r\n$4\r\nPING\r\n")
                with contextlib.suppress(ConnectionResetError):
                    while stranger.recv(4096):
                        pass
        with Client(server.transport) as client:
            client.call("ECHO", "mine")
        replylog.wait_replies(1)
        stop = replylog.stop()[-1]
    assert [record["argv"] for record in replylog.replies()] == [["ECHO", "mine"]], replylog.replies()
    assert stop["dropped"] == 0, stop


class MovedModule(Server):
    """Its TLS module is in a folder of its own, where a test may damage it."""

    def arguments(self):
        self.module = f"{self.work}/tls.so"
        shutil.copy(f"{self.dir}/usr/lib/valkey-tls.so", f"{self.dir}{self.module}")
        return [self.module if text == "/usr/lib/valkey-tls.so" else text for text in super().arguments()]


def test_module_replaced_on_disk(how):
    """An upgrade replaces or removes the module's file: replylog uses the mapped one."""
    with MovedModule("valkey-9.1-stripped", io_threads=2, transport="tls") as server:
        path = f"{server.dir}{server.module}"
        os.unlink(path)
        if how == "replaced":
            with open(path, "w") as file:
                file.write("no ELF file\n")
        with server.client() as client:
            workload.fill(client)
        with Replylog(server.pid, 0) as replylog:
            outcome = oracle.run(server.transport, 1000, connections=4)
            replylog.wait_replies(sum(map(len, outcome.expected.values())))
            oracle.compare(outcome.expected, replylog.stop())
            assert replylog.stderr == "", replylog.stderr


test_module_replaced_on_disk.cases = {how: (how,) for how in ("deleted", "replaced")}
