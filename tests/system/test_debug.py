"""--debug explains each change and each loss of a connection: client, direction, position and reason. It prints no
secret."""
import json
import os
import re
import tempfile

from conversation import FrameClient
from replylog import Replylog
from resp import encode
from server import ModuleServer, PreloadedServer, Server
from waiting import wait_until

LINE = re.compile(r"debug: \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z (?:server (\d+): )?(.+)")
NOT_OURS = ("libbpf: ",)        # as the kernel and libbpf word it
SECRET = "hunter2-of-the-test"
STRAY = b"?stray\r\n"


def explained(text, server=None):
    """Returns the lines of --debug without libbpf's log. Each line is whole. With server, each line names that server."""
    said = []
    for line in text.splitlines():
        match = LINE.fullmatch(line)
        assert match, f"no whole line: {line!r}"
        assert server is None or int(match[1]) == server.pid, line
        if not match[2].startswith(NOT_OURS):
            said.append(match[2])
    return said


def about(said, addr, *words):
    """Returns the one line about that client's address that has all words."""
    found = [line for line in said if f" {addr} " in line and all(word in line for word in words)]
    assert len(found) == 1, f"{len(found)} lines about {addr} with {words}: {found} of\n" + "\n".join(said)
    return found[0]


def client_id(server, conn):
    with server.client() as client:
        for line in client.call("CLIENT", "LIST").decode().splitlines():
            if f" addr={conn.addr} " in line:
                return int(line.split()[0].removeprefix("id="))
    raise AssertionError(f"no client {conn.addr}")


def stopped(replylog, server):
    replylog.stop()
    return explained(replylog.stderr, server)


def losses(replylog):
    return {record["reason"] for record in replylog.records() if record["event"] == "dropped"}


def test_a_connection():
    """An older and a newer connection are found, joined and closed, and so is a MONITOR of each age."""
    with Server("valkey-9.1") as server, FrameClient(server.port) as older, FrameClient(server.port) as monitor:
        older.ask("PING")
        monitor.ask("MONITOR")
        number = client_id(server, older)
        with Replylog(server.pid, 0, "--debug") as replylog:
            older.ask("PING")
            with FrameClient(server.port) as newer, FrameClient(server.port) as excluded:
                newer.ask("PING")
                excluded.ask("MONITOR")
            server.client().call("PING")
            said = stopped(replylog, server)
    assert about(said, older.addr, "unknown -> unjoined").startswith(f"client {number} {older.addr} (connection ")
    about(said, older.addr, "request byte 0: unjoined -> followed: the server's structs prove")
    about(said, newer.addr, "request byte 0: accepted -> followed")
    about(said, newer.addr, "followed -> unknown: the server closes", "; 1 commands read, 1 replies written; 14 bytes read, 7")
    about(said, excluded.addr, "request byte ", "followed -> draining")
    about(said, monitor.addr, "unjoined -> left out", "MONITOR")
    assert any(line.startswith("attached: ") for line in said) and said[-1] == "detached: a signal came", said
    assert "processed" in replylog.stderr and "libbpf: " in replylog.stderr, "the log of libbpf and the verifier"


def test_bytes_that_do_not_fit():
    """A request and a reply that can't be framed, a reply too many, and bytes that replylog did not see."""
    with PreloadedServer("valkey-9.1", library="stray_write") as server:
        for tap, why in (("socket", "replylog cannot read the reply (loss: framing)"),
                         ("connection", "the kernel counts bytes written that replylog did not see (loss: missed); 8 bytes")):
            with Replylog(server.pid, 0, "--debug", "--tap", tap) as replylog, FrameClient(server.port) as conn, \
                    FrameClient(server.port) as other:
                conn.ask("PING")
                other.ask("PING")
                number = client_id(server, conn)
                conn.send(("ECHO", "STRAY"))
                assert conn.frame() == STRAY
                conn.frame()
                other.sock.sendall(b"*1\r\n?9\r\n")
                other.rest()
                said = stopped(replylog, server)
            line = about(said, conn.addr, "followed -> unjoined")
            assert line.startswith(f"client {number} {conn.addr} (connection ") and why in line, line
            assert tap == "connection" or "reply byte 7: " in line and "; 1 commands" not in line, line
            about(said, other.addr, "request byte 18: followed -> draining", "an argument does not begin with '$'")
            assert losses(replylog) >= {re.search(r"loss: (\w+)", why)[1]}, replylog.records()


def test_out_of_step():
    with ModuleServer("valkey-9.1") as server, Replylog(server.pid, 0, "--debug") as replylog, FrameClient(server.port) as conn:
        conn.ask("PING")
        conn.send(("unruly.twice", 10, 10))
        conn.frames(2)
        said = stopped(replylog, server)
    about(said, conn.addr, "reply byte ", "followed -> unjoined: the server wrote a reply although no command is outstanding")
    assert losses(replylog) == {"out_of_step"}, replylog.records()


def test_no_secret_is_shown():
    """Neither ordinary traffic nor badly framed bytes that begin with a secret show it."""
    acl = ("ACL", "SETUSER", "alice", "on", f">{SECRET}", "~*", "+@all")
    with Server("valkey-9.1") as server, Replylog(server.pid, 0, "--debug") as replylog, FrameClient(server.port) as conn, \
            FrameClient(server.port) as other:
        conn.ask(*acl)
        conn.ask("AUTH", "alice", SECRET)
        conn.ask("HELLO", 3, "AUTH", "alice", SECRET)
        conn.ask("AUTH", "alice", f"{SECRET}-wrong")
        conn.ask("CONFIG", "SET", "requirepass", SECRET)
        conn.ask("CONFIG", "GET", "requirepass")
        other.sock.sendall(encode([b"AUTH", SECRET.encode()]).replace(b"$19\r\n", b""))
        other.rest()
        said = stopped(replylog, server)
    assert any("(not shown)" in line for line in said), said
    assert SECRET not in replylog.stderr and "'h'" not in replylog.stderr, replylog.stderr


def test_nothing_without_it():
    with PreloadedServer("valkey-9.1", library="stray_write") as server, Replylog(server.pid, 0) as replylog, \
            FrameClient(server.port) as conn:
        conn.send(("ECHO", "STRAY"))
        conn.frames(2)
        replylog.stop()
    assert replylog.stderr == "", replylog.stderr


def test_in_a_file():
    """Two servers: lines are whole, and each names its server."""
    with tempfile.TemporaryDirectory() as folder, Server("valkey-9.1") as one, Server("redis-7.0") as two:
        path = os.path.join(folder, "debug")
        with open(path, "w") as file:
            file.write("debug: 2000-01-01T00:00:00.000000Z before\n")
        with Replylog(one.pid, 0, "-p", str(two.pid), f"--debug={path}") as replylog:
            wait_until(lambda: sum(json.loads(line)["event"] == "start" for line in list(replylog.lines)) == 2, "two starts")
            for server in (one, two):
                with FrameClient(server.port) as conn:
                    conn.ask("PING")
            replylog.stop()
        with open(path) as file:
            text = file.read()
    said = explained(text)
    assert said[0] == "before" and replylog.stderr == "", replylog.stderr
    for server in (one, two):
        own = [line for line in text.splitlines() if f" server {server.pid}: " in line]
        assert any("attached: " in line for line in own) and any("accepted -> followed" in line for line in own), own
