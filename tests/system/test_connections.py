"""Which connections replylog follows, from which byte on, and which it does not."""
import socket

from conversation import FrameClient, client_listed
from replylog import Replylog
from resp import encode
from server import PreloadedServer, Server
from test_waiting import blocked
from waiting import wait_until


def cases(function):
    function.cases = {name: (name,) for name in ("valkey-9.1", "redis-7.0")}
    return function


@cases
def test_closed_before_it_is_read(name):
    """The request and the client's FIN have both arrived when the server first reads. replylog follows the connection
    from its first byte."""
    requests = [encode([b"ECHO", b"multibulk"]), b"ECHO inline\r\n"]
    with Server(name) as server, server.client() as sleeper, Replylog(server.pid, 0) as replylog:
        sleeper.send("DEBUG", "SLEEP", "0.3")
        replies = {}
        for request in requests:
            with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
                client.sendall(request)
                client.shutdown(socket.SHUT_WR)
                addr = "127.0.0.1:%d" % client.getsockname()[1]
                replies[addr] = b"".join(iter(lambda: client.recv(4096), b""))
        sleeper.read()
        replylog.wait_replies(len(requests))
        replylog.stop()
    records = {record["client_addr"]: record for record in replylog.replies()}
    for addr, reply in replies.items():
        record = records[addr]
        assert (record["reply_bytes"], record["attribution"], record["cmd"]) == (len(reply), "exact", "ECHO"), record


@cases
def test_first_read_is_not_seen(name):
    """replylog sees the accept but not the first read. It must not take the reply to that read for the reply to the next
    command."""
    with PreloadedServer(name, library="first_recv") as server, server.client() as other, \
            Replylog(server.pid, 0) as replylog, server.client() as client:
        client.send("BLPOP", "list", "0")
        blocked(other)
        client.send("ECHO", "behind")
        wait_until(lambda: int(client_listed(other, client.addr)["qbuf"]), "ECHO behind it, unread")
        other.call("RPUSH", "list", "x" * 1000)
        assert client.read() == [b"list", b"x" * 1000] and client.read() == b"behind"
        assert client.call("ECHO", "joined") == b"joined"
        wait_until(lambda: any("joined" in record["argv"] for record in replylog.replies()), "record of the last command")
        records = replylog.stop()
    assert [record["argv"] for record in replylog.replies() if record["client_addr"] == client.addr] == \
        [["ECHO", "joined"]], replylog.replies()
    assert sum(record["count"] for record in records if record.get("reason") == "framing") == 1, records


@cases
def test_left_out(name):
    """Connections that stop having one reply per command are left out from that command on, and counted."""
    with Server(name) as server, Replylog(server.pid, 0) as replylog:
        with server.client() as subscriber, server.client() as monitor, server.client() as publisher:
            assert subscriber.call("ECHO", "before") == b"before"
            monitor.call("MONITOR")
            publisher.call("PUBLISH", "channel", "x" * 10_000)
            monitor.read()
            replylog.wait_replies(2)
            stop = replylog.stop()[-1]
    assert [record.get("cmd") for record in replylog.replies()] == ["ECHO", "PUBLISH"], replylog.replies()
    assert stop["left_out_monitor"] == 1 and stop["dropped"] == 0 and stop["left_out_bytes"] > 10_000, stop


def test_server_as_a_client():
    """The traffic between a replica and its primary is not traffic of clients, on either side."""
    with Server("valkey-9.1") as primary, Server("valkey-9.1") as replica:
        with Replylog(primary.pid, 0) as on_primary, Replylog(replica.pid, 0) as on_replica:
            with replica.client() as client, primary.client() as writer:
                client.call("REPLICAOF", "127.0.0.1", primary.port)
                writer.call("SET", "key", "x" * 1000)
                while client.call("GET", "key") != b"x" * 1000:
                    pass
            on_replica.wait_replies(2)
            stops = [replylog.stop()[-1] for replylog in (on_primary, on_replica)]
    assert {record["cmd"] for record in on_replica.replies()} <= {"REPLICAOF", "GET"}, on_replica.replies()
    assert {record["cmd"] for record in on_primary.replies()} <= {"SET", "PING", "AUTH"}, on_primary.replies()
    assert stops[0]["left_out_replication"] >= 1 and not stops[0]["dropped"] and not stops[1]["dropped"], stops


def test_urgent_data(name, tap):
    """A byte of urgent data, which TCP counts but does not hand to the server: before the first command, between two
    commands, twice before one read, and before the client's FIN."""
    with Server(name) as server, Replylog(server.pid, 0, "--tap", tap) as replylog, FrameClient(server.port) as conn, \
            server.client() as sleeper:
        for number in range(3):
            conn.sock.send(b"!", socket.MSG_OOB)
            assert conn.ask("ECHO", f"between {number}")
        sleeper.send("DEBUG", "SLEEP", "0.3")
        # The kernel drops the first for the second, and the server's read stops there.
        for word in ("a", "b"):
            conn.sock.send(b"!", socket.MSG_OOB)
            conn.send(("ECHO", word))
        conn.frames(2)
        conn.sock.send(b"!", socket.MSG_OOB)
        conn.send(("ECHO", "last"))
        conn.sock.shutdown(socket.SHUT_WR)
        conn.rest()
        sleeper.read()
        replylog.wait_replies(7)
        records = replylog.stop()
    assert records[-1]["dropped"] == 0, records
    words = [record["argv"][1] for record in replylog.replies() if record["client_addr"] == conn.addr]
    assert words == ["between 0", "between 1", "between 2", "a", "b", "last"], words


test_urgent_data.cases = {f"{name},{tap}": (name, tap) for name in ("valkey-9.1", "redis-7.0")
                          for tap in ("auto", "connection")}
