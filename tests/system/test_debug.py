"""--debug: each change and loss of a connection is explained, by client, direction, position and reason; no secret is in it."""
import json
import os
import re
import tempfile

from conversation import Talker
from harness import ModuleServer, PreloadedServer, Replylog, Server, wait_until
from resp import encode

LINE = re.compile(r"debug: \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z (?:server (\d+): )?(.+)")
NOT_OURS = ("libbpf: ",)        # as the kernel and libbpf word it
SECRET = "hunter2-of-the-test"
STRAY = b"?stray\r\n"


def explained(text, server=None):
    """What is said, without the log of libbpf. Each line is whole; with server: and is about that one."""
    said = []
    for line in text.splitlines():
        match = LINE.fullmatch(line)
        assert match, f"no whole line: {line!r}"
        assert server is None or int(match[1]) == server.pid, line
        if not match[2].startswith(NOT_OURS):
            said.append(match[2])
    return said


def about(said, addr, *words):
    """The one line about that client's address that holds all words."""
    found = [line for line in said if f" {addr} " in line and all(word in line for word in words)]
    assert len(found) == 1, f"{len(found)} lines about {addr} with {words}: {found} of\n" + "\n".join(said)
    return found[0]


def client_id(server, talker):
    with server.client() as client:
        for line in client.call("CLIENT", "LIST").decode().splitlines():
            if f" addr={talker.addr} " in line:
                return int(line.split()[0].removeprefix("id="))
    raise AssertionError(f"no client {talker.addr}")


def stopped(replylog, server):
    replylog.stop()
    return explained(replylog.stderr, server)


def losses(replylog):
    return {record["reason"] for record in replylog.records() if record["event"] == "dropped"}


def test_a_connection():
    """One older and one newer: found, joined, closed; and a MONITOR of each age."""
    with Server("valkey-9.1") as server, Talker(server.port) as older, Talker(server.port) as monitor:
        older.ask("PING")
        monitor.ask("MONITOR")
        number = client_id(server, older)
        with Replylog(server.pid, 0, "--debug") as replylog:
            older.ask("PING")
            with Talker(server.port) as newer, Talker(server.port) as leaver:
                newer.ask("PING")
                leaver.ask("MONITOR")
            server.client().call("PING")
            said = stopped(replylog, server)
    assert about(said, older.addr, "unknown -> unjoined").startswith(f"client {number} {older.addr} (connection ")
    about(said, older.addr, "request byte 0: unjoined -> followed: the server's structs prove")
    about(said, newer.addr, "request byte 0: accepted -> followed")
    about(said, newer.addr, "followed -> unknown: the server closes", "; 1 commands read, 1 replies written; 14 bytes read, 7")
    about(said, leaver.addr, "request byte ", "followed -> draining")
    about(said, monitor.addr, "unjoined -> left out", "MONITOR")
    assert any(line.startswith("attached: ") for line in said) and said[-1] == "detached: a signal came", said
    assert "processed" in replylog.stderr and "libbpf: " in replylog.stderr, "the log of libbpf and the verifier"


def test_bytes_that_do_not_fit():
    """A request and a reply that can't be framed, a reply too many, and bytes that were not seen."""
    with PreloadedServer("valkey-9.1", library="stray_write") as server:
        for tap, why in (("socket", "replylog cannot read the reply (loss: framing)"),
                         ("connection", "the kernel counts bytes written that replylog did not see (loss: missed); 8 bytes")):
            with Replylog(server.pid, 0, "--debug", "--tap", tap) as replylog, Talker(server.port) as talker, \
                    Talker(server.port) as other:
                talker.ask("PING")
                other.ask("PING")
                number = client_id(server, talker)
                talker.send(("ECHO", "STRAY"))
                assert talker.frame() == STRAY
                talker.frame()
                other.sock.sendall(b"*1\r\n?9\r\n")
                other.rest()
                said = stopped(replylog, server)
            line = about(said, talker.addr, "followed -> unjoined")
            assert line.startswith(f"client {number} {talker.addr} (connection ") and why in line, line
            assert tap == "connection" or "reply byte 7: " in line and "; 1 commands" not in line, line
            about(said, other.addr, "request byte 18: followed -> draining", "an argument does not begin with '$'")
            assert losses(replylog) >= {re.search(r"loss: (\w+)", why)[1]}, replylog.records()


def test_out_of_step():
    with ModuleServer("valkey-9.1") as server, Replylog(server.pid, 0, "--debug") as replylog, Talker(server.port) as talker:
        talker.ask("PING")
        talker.send(("unruly.twice", 10, 10))
        talker.frames(2)
        said = stopped(replylog, server)
    about(said, talker.addr, "reply byte ", "followed -> unjoined: the server wrote a reply although no command is outstanding")
    assert losses(replylog) == {"out_of_step"}, replylog.records()


def test_no_secret_is_shown():
    """Neither where all is well nor where what is framed wrongly begins with it."""
    acl = ("ACL", "SETUSER", "alice", "on", f">{SECRET}", "~*", "+@all")
    with Server("valkey-9.1") as server, Replylog(server.pid, 0, "--debug") as replylog, Talker(server.port) as talker, \
            Talker(server.port) as other:
        talker.ask(*acl)
        talker.ask("AUTH", "alice", SECRET)
        talker.ask("HELLO", 3, "AUTH", "alice", SECRET)
        talker.ask("AUTH", "alice", f"{SECRET}-wrong")
        talker.ask("CONFIG", "SET", "requirepass", SECRET)
        talker.ask("CONFIG", "GET", "requirepass")
        other.sock.sendall(encode([b"AUTH", SECRET.encode()]).replace(b"$19\r\n", b""))
        other.rest()
        said = stopped(replylog, server)
    assert any("(not shown)" in line for line in said), said
    assert SECRET not in replylog.stderr and "'h'" not in replylog.stderr, replylog.stderr


def test_nothing_without_it():
    with PreloadedServer("valkey-9.1", library="stray_write") as server, Replylog(server.pid, 0) as replylog, \
            Talker(server.port) as talker:
        talker.send(("ECHO", "STRAY"))
        talker.frames(2)
        replylog.stop()
    assert replylog.stderr == "", replylog.stderr


def test_in_a_file():
    """Of two servers: whole lines, and it is said which server each is about."""
    with tempfile.TemporaryDirectory() as folder, Server("valkey-9.1") as one, Server("redis-7.0") as two:
        path = os.path.join(folder, "debug")
        with open(path, "w") as file:
            file.write("debug: 2000-01-01T00:00:00.000000Z before\n")
        with Replylog(one.pid, 0, "-p", str(two.pid), f"--debug={path}") as replylog:
            wait_until(lambda: sum(json.loads(line)["event"] == "start" for line in list(replylog.lines)) == 2, "two starts")
            for server in (one, two):
                with Talker(server.port) as talker:
                    talker.ask("PING")
            replylog.stop()
        with open(path) as file:
            text = file.read()
    said = explained(text)
    assert said[0] == "before" and replylog.stderr == "", replylog.stderr
    for server in (one, two):
        own = [line for line in text.splitlines() if f" server {server.pid}: " in line]
        assert any("attached: " in line for line in own) and any("accepted -> followed" in line for line in own), own
