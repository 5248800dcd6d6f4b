"""Connections that are not clients with one reply per command, older and newer than replylog: it recognises them, counts
them by kind, and never logs a reply on them."""
from contextlib import ExitStack, contextmanager

from conversation import FrameClient, asker, finish, on_servers
from replylog import Replylog
from server import Server
from slot import free_port
from waiting import wait_until

PAYLOAD = "p" * 20_000


def left_out(stop):
    """The number of such connections of each kind."""
    prefix = "left_out_"
    kinds = {key.removeprefix(prefix): count for key, count in stop.items() if key.startswith(prefix) and count}
    kinds.pop("bytes", None)
    return kinds


@on_servers
def test_monitor(name, io_threads):
    """An older and a newer MONITOR: what the server sends to them is no reply."""
    with Server(name, io_threads=io_threads) as server, FrameClient(server.port) as older:
        older.ask("MONITOR")
        with Replylog(server.pid, 0) as replylog, FrameClient(server.port) as newer, FrameClient(server.port) as conn:
            newer.ask("MONITOR")
            ask = asker(conn, expected := [])
            for turn in range(50):
                ask("SET", f"key:{turn}", PAYLOAD)
            for monitor in (older, newer):
                while b'"key:49"' not in monitor.frame():
                    pass
            stop = finish(replylog, (conn, expected))
    assert left_out(stop) == {"monitor": 2} and stop["unjoined"] == 0, stop
    assert not [record for record in replylog.replies() if record["client_addr"] in (older.addr, newer.addr)]
    assert stop["left_out_bytes"] > 2 * 50 * len(PAYLOAD), stop


@on_servers
def test_monitor_ends(name, io_threads):
    """RESET makes it an ordinary client again, which replylog may still leave out, but must not misread."""
    with Server(name, io_threads=io_threads) as server, Replylog(server.pid, 0) as replylog, \
            FrameClient(server.port) as monitor, FrameClient(server.port) as conn:
        ask = asker(conn, expected := [])
        monitor.send(("MONITOR",), ("RESET",), ("ECHO", "behind"))
        while b"behind" not in monitor.frame():
            pass
        ask("SET", "key", PAYLOAD)
        stop = finish(replylog, (conn, expected))
    for record in replylog.replies():
        if record["client_addr"] == monitor.addr:
            assert (record["cmd"], record["reply_bytes"]) == ("ECHO", len("$6\r\nbehind\r\n")), record
    assert left_out(stop) == {"monitor": 1}, stop


@on_servers
def test_refused(name, io_threads):
    """The server refuses the command, so the connection stays an ordinary client, and replylog follows it."""
    with Server(name, io_threads=io_threads) as server, Replylog(server.pid, 0) as replylog, \
            FrameClient(server.port) as conn:
        for refused in (("MONITOR", "x"), ("SYNC", "x"), ("REPLCONF", "x"), ("REPLCONF", "x"), ("PSYNC", "x")):
            conn.send(refused)
            assert conn.frame().startswith(b"-"), refused
            conn.send(("ECHO", refused[0]))
            assert refused[0].encode() in conn.frame()
        replylog.wait_replies(5)
        stop = replylog.stop()[-1]
    records = [record for record in replylog.replies() if record["client_addr"] == conn.addr]
    assert [(record["argv"], record["attribution"]) for record in records] == [
        (["ECHO", refused], "exact") for refused in ("MONITOR", "SYNC", "REPLCONF", "REPLCONF", "PSYNC")], records
    assert left_out(stop) == {"monitor": 1, "replication": 1} and stop["unjoined"] == 0, stop


def replicate(replica, primary, key):
    """Makes a server a replica, and waits until it has the current data."""
    with replica.client() as client, primary.client() as writer:
        client.call("REPLICAOF", "127.0.0.1", primary.port)
        catch_up(client, writer, key)


def catch_up(client, writer, key):
    writer.call("SET", key, PAYLOAD)
    wait_until(lambda: client.answer("GET", key) == PAYLOAD.encode(), f"{key} on the replica")


def pair(name, io_threads):
    options = ("--repl-diskless-sync-delay", "0")
    return [Server(name, *options, io_threads=io_threads) for _ in range(2)]


def check_pair(on_primary, on_replica, clients):
    """replylog logs only clients' commands, on both sides."""
    stops = [replylog.stop()[-1] for replylog in (on_primary, on_replica)]
    for replylog in (on_primary, on_replica):
        # A replica first sends PING and AUTH, before it says that it is one.
        known = {record["cmd"] for record in replylog.replies() if record["client_addr"] in clients}
        others = {record["cmd"] for record in replylog.replies() if record["client_addr"] not in clients}
        assert known <= {"SET", "GET", "REPLICAOF", "INFO"} and others <= {"PING", "AUTH"}, (known, others)
        assert not [record for record in replylog.records() if record["event"] == "dropped"]
    assert {record["cmd"] for record in on_primary.replies()} >= {"SET"}, on_primary.replies()
    return stops


@on_servers
def test_replica_that_comes(name, io_threads):
    first, second = pair(name, io_threads)
    with first as primary, second as replica, \
            Replylog(primary.pid, 0) as on_primary, Replylog(replica.pid, 0) as on_replica:
        with replica.client() as client, primary.client() as writer:
            client.call("REPLICAOF", "127.0.0.1", primary.port)
            for turn in range(5):
                catch_up(client, writer, f"key:{turn}")
            stops = check_pair(on_primary, on_replica, {client.addr, writer.addr})
    assert left_out(stops[0]) == {"replication": 1}, stops[0]
    assert set(left_out(stops[1])) <= {"replication", "outgoing"} and left_out(stops[1]), stops[1]


@on_servers
def test_replica_that_is_there(name, io_threads):
    first, second = pair(name, io_threads)
    with first as primary, second as replica:
        replicate(replica, primary, "before")
        with Replylog(primary.pid, 0) as on_primary, Replylog(replica.pid, 0) as on_replica, \
                replica.client() as client, primary.client() as writer:
            for turn in range(5):
                catch_up(client, writer, f"key:{turn}")
            stops = check_pair(on_primary, on_replica, {client.addr, writer.addr})
    for stop in stops:
        assert left_out(stop) == {"replication": 1} and stop["unjoined"] == 0, stop


@contextmanager
def cluster(name, io_threads, count=2):
    """Nodes that run, and have not met yet."""
    with ExitStack() as stack:
        yield [stack.enter_context(Server(name, "--cluster-enabled", "yes", "--cluster-port", str(free_port()),
                                          io_threads=io_threads)) for _ in range(count)]


def meet(nodes, conns):
    port = next(nodes[1].options[at + 1] for at, option in enumerate(nodes[1].options) if option == "--cluster-port")
    conns[0].ask("CLUSTER", "MEET", "127.0.0.1", nodes[1].port, port)
    for conn in conns:
        wait_until(lambda: conn.ask("CLUSTER", "NODES").count(b" connected") == len(nodes), "nodes that have met")


@on_servers
def test_cluster_links(name, io_threads):
    """Links made before and after the attach. The bus is binary, and its traffic never stops."""
    with cluster(name, io_threads) as nodes, ExitStack() as stack:
        setup = [stack.enter_context(FrameClient(node.port)) for node in nodes]
        replylogs = [stack.enter_context(Replylog(nodes[0].pid, 0))]
        meet(nodes, setup)
        replylogs.append(stack.enter_context(Replylog(nodes[1].pid, 0)))
        conns = [stack.enter_context(FrameClient(node.port)) for node in nodes]
        asked = []
        for conn in conns:
            ask = asker(conn, expected := [])
            for turn in range(20):
                ask("PING", "x" * turn)
            asked.append(expected)

        def pings_sent():
            text = setup[1].ask("CLUSTER", "INFO")
            return int(text.split(b"messages_sent:")[1].split(b"\r")[0])

        now = pings_sent()
        wait_until(lambda: pings_sent() >= now + 4, "messages on the bus")
        stops = [finish(replylog, (conn, expected)) for replylog, conn, expected in zip(replylogs, conns, asked)]
    ours = {conn.addr for conn in (*setup, *conns)}
    for replylog, stop in zip(replylogs, stops):
        assert {record["client_addr"] for record in replylog.replies()} <= ours, replylog.replies()
        # Each node has one link that it opened, and one that the other opened.
        assert left_out(stop).get("cluster", 0) + left_out(stop).get("outgoing", 0) >= 2, stop
        assert set(left_out(stop)) <= {"cluster", "outgoing"} and stop["unjoined"] == 0, stop


@on_servers
def test_migrate(name, io_threads):
    """The server as a client of another one: on its own side this is no client's conversation."""
    with Server(name, io_threads=io_threads) as source, Server(name, io_threads=io_threads) as target, \
            Replylog(source.pid, 0) as on_source, Replylog(target.pid, 0) as on_target, FrameClient(source.port) as conn:
        ask = asker(conn, expected := [])
        for turn in range(3):
            ask("SET", f"key:{turn}", PAYLOAD)
            ask("MIGRATE", "127.0.0.1", target.port, f"key:{turn}", "0", "5000")
        assert [size for _, _, size, _ in expected] == [5] * 6, expected
        on_target.wait_replies(3)
        stop = finish(on_source, (conn, expected))
        on_target.stop()
    assert {record["client_addr"] for record in on_source.replies()} == {conn.addr}, on_source.replies()
    assert stop["unjoined"] == 0 and set(left_out(stop)) <= {"outgoing"}, stop
    # On the other side it is an ordinary client.
    assert [record["cmd"] for record in on_target.replies()].count("RESTORE") == 3, on_target.replies()


@on_servers
def test_client_that_speaks_like_the_bus(name, io_threads):
    """An older client of a node, whose bytes begin like a message of the bus: replylog goes by the function that reads
    them, not by the bytes."""
    with cluster(name, io_threads, 1) as (node,), FrameClient(node.port) as older:
        older.ask("PING")
        with Replylog(node.pid, 0) as replylog:
            older.sock.sendall(b"RCmb x\r\n")
            assert older.frame().startswith(b"-ERR unknown command")
            for turn in range(3):
                older.ask("PING", f"{turn}")
            wait_until(lambda: len(replylog.replies()) >= 4, "records")
            stop = replylog.stop()[-1]
    assert [record["argv"][0] for record in replylog.replies()] == ["RCmb", "PING", "PING", "PING"], replylog.replies()
    assert left_out(stop) == {} and stop["unjoined"] == 0 and not stop["dropped"], stop
