"""Pushes and messages answer no command, wherever they arrive."""
from contextlib import contextmanager

from conversation import EITHER, FrameClient, asker, client_listed, compare, doubtful, elements, finish, on_servers, on_versions, \
    push, records_of, reply, frame_client, wait_records
from replylog import Replylog
from server import Server
from slot import free_port
from waiting import wait_until

BIG = "m" * 100_000
LARGE = 20_000_000         # more than sockets take, less than client-output-buffer-limit lets a subscriber have


def message(conn, other, channel, payload, command="PUBLISH"):
    assert other.call(command, channel, payload) > 0
    return conn.frame()


@on_servers
def test_resp2_subscriber(name, io_threads):
    """Several confirmations are one reply. Messages, small and large, and PING arrive between them."""
    with frame_client(name, io_threads) as (conn, other, replylog):
        ask = asker(conn, expected := [])
        ask("SUBSCRIBE", "a", "b", "c", frames=3)
        for channel, payload in (("a", "small"), ("b", BIG), ("c", "")):
            expected.append(push(message(conn, other, channel, payload), "message", channel))
        ask("PING")
        ask("PING", "payload")
        ask("PSUBSCRIBE", "x*", "y*", frames=2)
        expected.append(push(message(conn, other, "xyz", BIG), "pmessage", "xyz", "x*"))
        ask("GET", "key")                       # the server refuses it to a RESP2 subscriber
        assert expected[-1][2] > 40
        ask("UNSUBSCRIBE", "b")
        expected.append(push(message(conn, other, "a", "more"), "message", "a"))
        ask("UNSUBSCRIBE", frames=2)            # from all remaining channels
        ask("UNSUBSCRIBE")                      # from no channel: one confirmation
        expected.append(push(message(conn, other, "yz", "more"), "pmessage", "yz", "y*"))
        ask("PUNSUBSCRIBE", frames=2)
        ask("ECHO", "plain again")
        finish(replylog, (conn, expected))


@on_servers
def test_resp3_subscriber(name, io_threads):
    """A RESP3 subscriber sends commands between messages."""
    with frame_client(name, io_threads) as (conn, other, replylog):
        ask = asker(conn, expected := [])
        ask("HELLO", "3")
        ask("SUBSCRIBE", "a", "b", frames=2)
        for turn in range(20):
            expected.append(push(message(conn, other, "a", BIG if turn % 5 == 0 else "x" * turn), "message", "a"))
            ask("ECHO", "y" * turn)
        ask("PSUBSCRIBE", "a*")
        assert other.call("PUBLISH", "a", "twice") == 2
        expected += [push(conn.frame(), "message", "a"), push(conn.frame(), "pmessage", "a", "a*")]
        ask("PING")
        # Its own message arrives before or after the reply to PUBLISH.
        conn.send(("PUBLISH", "b", "own"))
        for frame in conn.frames(2):
            pushed = frame.startswith(b">")
            expected.append(push(frame, "message", "b") if pushed else reply(("PUBLISH", "b", "own"), frame))
        ask("UNSUBSCRIBE", frames=2)
        ask("PUNSUBSCRIBE")
        ask("ECHO", "plain again")
        finish(replylog, (conn, expected))


@on_servers
def test_resp3_lists_like_messages(name, io_threads):
    """A list that a RESP3 subscriber reads may look like a message of RESP2. In RESP3 it is still a reply."""
    with frame_client(name, io_threads) as (conn, other, replylog):
        ask = asker(conn, expected := [])
        ask("HELLO", "3")
        ask("SUBSCRIBE", "a")
        for kind, size in (("message", 3), ("pmessage", 4), ("subscribe", 3)):
            ask("RPUSH", kind, kind, *["x" * 10] * (size - 1))
            ask("LRANGE", kind, "0", "-1")
            ask("ECHO", "y" * 100)
        expected.append(push(message(conn, other, "a", BIG), "message", "a"))
        ask("UNSUBSCRIBE")
        ask("ECHO", "plain again")
        finish(replylog, (conn, expected))


@on_servers
def test_pipeline_between_messages(name, io_threads):
    """Deep pipelines of a client to which others publish all the time."""
    commands = [("ECHO", "e" * (size * 37 % 3000)) for size in range(2000)]
    with frame_client(name, io_threads) as (conn, other, replylog):
        expected = [reply(("HELLO", "3"), conn.ask("HELLO", "3"))]
        expected.append(reply(("SUBSCRIBE", "a"), conn.ask("SUBSCRIBE", "a")))
        for begin in range(0, len(commands), 100):
            conn.send(*commands[begin:begin + 50])
            other.sock.sendall(b"PUBLISH a message\r\n" * 30)
            conn.send(*commands[begin + 50:begin + 100])
            waiting = commands[begin:begin + 100]
            messages = 30
            while waiting or messages:
                frame = conn.frame()
                if frame.startswith(b">"):
                    messages -= 1
                    expected.append(push(frame, "message", "a"))
                else:
                    expected.append(reply(waiting.pop(0), frame, kind=EITHER))
            for _ in range(30):
                other.read()
        finish(replylog, (conn, expected))


@on_servers
def test_only_large_ones(name, io_threads):
    """With a threshold, a large message has one record, and small ones have none."""
    for protocol in ("2", "3"):
        with frame_client(name, io_threads, threshold=1000) as (conn, other, replylog):
            conn.ask("HELLO", protocol)
            conn.ask("SUBSCRIBE", "a")
            small = [message(conn, other, "a", "x" * 900) for _ in range(50)]
            large = message(conn, other, "a", "x" * 1000)
            exact = message(conn, other, "a", "x" * (1000 - (len(small[0]) - 900)))
            assert (len(exact), len(large) > 1000) == (1000, True)
            finish(replylog, (conn, [push(large, "message", "a"), push(exact, "message", "a")]))


@on_servers
def test_sharded(name, io_threads):
    with frame_client(name, io_threads) as (conn, other, replylog):
        ask = asker(conn, expected := [])
        for protocol in ("2", "3"):
            ask("HELLO", protocol)
            ask("SSUBSCRIBE", "a", "b", frames=2)
            ask("SUBSCRIBE", "c")
            expected.append(push(message(conn, other, "b", BIG, "SPUBLISH"), "smessage", "b"))
            expected.append(push(message(conn, other, "c", BIG), "message", "c"))
            ask("SUNSUBSCRIBE", "a")
            ask("SUNSUBSCRIBE")
            ask("GET")                          # an error
            ask("SUNSUBSCRIBE")
            ask("UNSUBSCRIBE")
            ask("SUNSUBSCRIBE")
            ask("ECHO", "plain again")
        finish(replylog, (conn, expected))


@contextmanager
def cluster_of_one(name, io_threads, *options):
    cluster = "--cluster-enabled", "yes", "--cluster-port", str(free_port()), "--cluster-require-full-coverage", "no"
    with Server(name, *cluster, *options, io_threads=io_threads) as server, server.client() as other:
        other.call("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        wait_until(lambda: b"cluster_state:ok" in other.call("CLUSTER", "INFO"), "the cluster")
        yield server, other


@on_servers
def test_sharded_in_a_cluster(name, io_threads):
    """In a cluster, the confirmation of SUNSUBSCRIBE might be sent by the server on its own. replylog also assumes this
    where the process title does not say whether the server is in a cluster."""
    for options in ((), ("--proc-title-template", "{title} {listen-addr}")):
        with cluster_of_one(name, io_threads, *options) as (server, _), Replylog(server.pid, 0) as replylog, \
                FrameClient(server.port) as conn:
            ask = asker(conn, expected := [])
            ask("SSUBSCRIBE", "a")
            ask("SUNSUBSCRIBE", "a", mark=doubtful)
            ask("SUNSUBSCRIBE", mark=doubtful)
            ask("SSUBSCRIBE", "a")
            ask("SUNSUBSCRIBE", mark=doubtful)
            ask("ECHO", "plain again")
            finish(replylog, (conn, expected))


@contextmanager
def slot_goes(name, io_threads):
    """A subscriber of {a}1 and {b}1 that has not read a large reply yet, when the server gives up the slot of {a}1."""
    with cluster_of_one(name, io_threads) as (server, other), Replylog(server.pid, 0) as replylog, \
            FrameClient(server.port) as conn:
        other.call("SETRANGE", "large", LARGE - 1, "x")
        expected = []
        for argv in (("HELLO", "3"), ("SSUBSCRIBE", "{a}1"), ("SSUBSCRIBE", "{b}1")):
            expected.append(reply(argv, conn.ask(*argv)))
        conn.send(("GET", "large"))
        wait_until(lambda: int(client_listed(other, conn.addr)["omem"]), "a reply that waits")
        assert other.call("CLUSTER", "DELSLOTS", other.call("CLUSTER", "KEYSLOT", "{a}1")) == b"OK"
        yield conn, other, replylog, expected


@on_servers
def test_server_unsubscribes_another_channel(name, io_threads):
    """The server ends a subscription while the client's SUNSUBSCRIBE of another channel is outstanding."""
    with slot_goes(name, io_threads) as (conn, _, replylog, expected):
        commands = ("SUNSUBSCRIBE", "{b}1"), ("ECHO", "behind")
        conn.send(*commands)
        large, unasked, confirmed, echo = conn.frames(4)
        assert b"{a}1" in unasked and b"{b}1" in confirmed, (unasked, confirmed)
        expected += [reply(("GET", "large"), large, kind=EITHER), push(unasked, "sunsubscribe", "{a}1"),
                     doubtful(reply(commands[0], confirmed, kind=EITHER)), reply(commands[1], echo, kind=EITHER)]
        finish(replylog, (conn, expected))


@on_servers
def test_server_unsubscribes_the_same_channel(name, io_threads):
    """The server ends the subscription that the client's outstanding SUNSUBSCRIBE names, and then refuses that command."""
    with slot_goes(name, io_threads) as (conn, _, replylog, expected):
        commands = ("SUNSUBSCRIBE", "{a}1"), ("ECHO", "behind")
        conn.send(*commands)
        large, unasked, refused, echo = conn.frames(4)
        assert b"{a}1" in unasked and refused.startswith(b"-"), (unasked, refused)
        # What is given up takes the proof of its whole burst with it.
        expected += [doubtful(reply(("GET", "large"), large, kind=EITHER)),
                     doubtful(reply(commands[0], unasked, kind=EITHER))]
        wait_records(replylog, conn, len(expected))
        wait_until(lambda: any(b'"framing"' in line for line in replylog.lines), "what is given up")
        stop = replylog.stop()[-1]
        compare(records_of(replylog, conn), expected)
        assert stop["dropped"] == 1, stop


@on_versions
def test_a_thousand_at_once(name, io_threads):
    """A command for each channel, as task queues do it, in one write, with large replies between them where a subscriber
    may request some."""
    channels = [f"channel:{number}" for number in range(1000)]
    with frame_client(name, io_threads) as (conn, other, replylog):
        other.call("SET", "large", "x" * 20_000)
        for protocol in ("2", "3"):
            ask = asker(conn, expected := [])
            ask("HELLO", protocol)
            other_one = ("GET", "large") if protocol == "3" else ("PING",)
            for command, message in (("SUBSCRIBE", 1), ("UNSUBSCRIBE", 0)):
                commands = [argv for channel in channels for argv in ((command, channel), other_one)]
                conn.send(*commands)
                expected += [reply(argv, frame, kind=EITHER) for argv, frame in zip(commands, conn.frames(len(commands)))]
                assert other.call("PUBLISH", channels[-1], "payload") == message
                if message:
                    expected.append(push(conn.frame(), "message", channels[-1]))
            ask("ECHO", "plain again")
            wait_records(replylog, conn, len(expected))
            compare(records_of(replylog, conn), expected)
            del replylog.lines[1:]
        stop = replylog.stop()[-1]
        assert (stop["dropped"], stop["unattributed_bytes"], stop["joined"]) == (0, 0, 0), stop


@on_servers
def test_too_many_at_once(name, io_threads):
    """More subscribing commands than there is memory for: the confirmations of those that replylog gave up are not logged
    as pushes."""
    commands = [("SUBSCRIBE", f"channel:{number}") for number in range(100)]
    for protocol in ("2", "3"):
        with frame_client(name, io_threads, 0, "--argv-memory", "16kb") as (conn, other, replylog):
            expected = [reply(("HELLO", protocol), conn.ask("HELLO", protocol))]
            conn.send(*commands)
            frames = conn.frames(100)
            # What is given up takes the proof of its whole burst with it.
            expected += [doubtful(reply(argv, frame, kind=EITHER)) for argv, frame in zip(commands[:32], frames)]
            wait_records(replylog, conn, len(expected))
            message(conn, other, "channel:99", "payload")
            stop = replylog.stop()[-1]
            compare(records_of(replylog, conn), expected)
            losses = [(record["reason"], record["count"]) for record in replylog.records()
                      if record["event"] == "dropped" and record["count"]]
            assert losses == [("turns", 1)], (losses, stop)
            assert stop["unattributed_bytes"] > 0, stop


@on_servers
def test_reset(name, io_threads):
    """RESET ends subscriptions and RESP3. What looks like a message then is a reply."""
    with frame_client(name, io_threads) as (conn, other, replylog):
        other.call("RPUSH", "list", "message", "a", "payload")
        ask = asker(conn, expected := [])
        for protocol in ("2", "3"):
            ask("HELLO", protocol)
            ask("SUBSCRIBE", "a", "b", frames=2)
            expected.append(push(message(conn, other, "a", "x"), "message", "a"))
            ask("RESET")
            ask("LRANGE", "list", "0", "-1")
            assert other.call("PUBLISH", "a", "nobody") == 0
            ask("ECHO", "plain again")
        finish(replylog, (conn, expected))


def sorted_out(conn, commands, pushes, name):
    """The records expected for commands sent in one write, while that many pushes arrive between their replies."""
    conn.send(*commands)
    waiting, expected = list(commands), []
    while waiting or pushes:
        frame = conn.frame()
        if frame.startswith(b">"):
            pushes -= 1
            expected.append(push(frame, name))
        else:
            expected.append(reply(waiting.pop(0), frame))
    return expected


@on_servers
def test_invalidations(name, io_threads):
    """Client-side caching: invalidations of keys that the client has read, when others or the client itself write them."""
    with frame_client(name, io_threads) as (conn, other, replylog):
        other.call("RPUSH", "list", *(BIG for _ in range(5)))
        expected = []
        for argv in (("HELLO", "3"), ("CLIENT", "TRACKING", "ON"), ("GET", "key"), ("LRANGE", "list", "0", "-1")):
            expected.append(reply(argv, conn.ask(*argv)))
        other.call("SET", "key", "theirs")
        expected.append(push(conn.frame(), "invalidate"))
        expected.append(reply(("GET", "key"), conn.ask("GET", "key")))
        expected += sorted_out(conn, [("SET", "key", "own")], 1, "invalidate")
        other.call("FLUSHALL")      # an invalidation with a null instead of keys
        expected.append(push(conn.frame(), "invalidate"))
        expected.append(reply(("ECHO", "last"), conn.ask("ECHO", "last")))
        finish(replylog, (conn, expected))


@on_servers
def test_invalidations_in_transactions(name, io_threads):
    """The client's own writes inside MULTI: wherever the server puts the invalidations, their bytes belong to no reply."""
    with frame_client(name, io_threads) as (conn, other, replylog):
        other.call("SET", "b", BIG)
        setup = [("HELLO", "3"), ("CLIENT", "TRACKING", "ON"), ("GET", "a"), ("GET", "b"), ("MULTI",)]
        queued = [("GET", "b"), ("SET", "a", "1"), ("GET", "a"), ("SET", "b", "2"), ("SET", "a", "3")]
        expected = [reply(argv, conn.ask(*argv)) for argv in setup]
        expected += [reply(argv, conn.ask(*argv), kind="multi") for argv in queued]
        frames = [conn.ask("EXEC"), conn.ask("ECHO", "behind")]
        while sum(not frame.startswith(b">") for frame in frames) < 2:
            frames.append(conn.frame())
        pushes = [push(frame, "invalidate") for frame in frames if frame.startswith(b">")]
        executed, behind = [frame for frame in frames if not frame.startswith(b">")]
        assert pushes, frames
        expected += [reply(argv, frame, kind="multi") for argv, frame in zip(queued, elements(executed))]
        expected.append(reply(("ECHO", "behind"), behind))
        wait_records(replylog, conn, len(expected) + len(pushes))
        assert replylog.stop()[-1]["dropped"] == 0
        records = records_of(replylog, conn)
        # The order of pushes among the records depends on where the server writes them.
        compare([record for record in records if record["kind"] == "push"], pushes)
        compare([record for record in records if record["kind"] != "push"], expected)


@on_servers
def test_broadcast_invalidations(name, io_threads):
    """BCAST: invalidations of every key, between the replies of pipelines."""
    with frame_client(name, io_threads) as (conn, other, replylog):
        other.call("SET", "big", BIG)
        expected = [reply(argv, conn.ask(*argv)) for argv in (("HELLO", "3"), ("CLIENT", "TRACKING", "ON", "BCAST"))]
        for turn in range(30):
            conn.send(("GET", "big"))
            other.call("SET", f"key:{turn}", "value")
            for frame in conn.frames(2):
                pushed = frame.startswith(b">")
                expected.append(push(frame, "invalidate") if pushed else reply(("GET", "big"), frame))
        finish(replylog, (conn, expected))


@on_servers
def test_redirected_invalidations(name, io_threads):
    """RESP2: invalidations for another connection, as messages whose payload is an array or a null."""
    channel = "__redis__:invalidate"
    with frame_client(name, io_threads) as (conn, other, replylog):
        expected = [reply(("CLIENT", "ID"), frame := conn.ask("CLIENT", "ID"))]
        number = frame[1:-2].decode()
        expected.append(reply(("SUBSCRIBE", channel), conn.ask("SUBSCRIBE", channel)))
        other.call("CLIENT", "TRACKING", "ON", "REDIRECT", number)
        for keys in (["a"], ["b", "c" * 3000]):
            other.call("MGET", *keys)
            other.call("MSET", *(word for key in keys for word in (key, "value")))
            expected += [push(frame, "message", channel) for frame in conn.frames(len(keys))]
        other.call("GET", "a")
        other.call("FLUSHALL")
        expected.append(push(conn.frame(), "message", channel))
        expected.append(reply(("UNSUBSCRIBE",), conn.ask("UNSUBSCRIBE")))
        expected.append(reply(("ECHO", "plain again"), conn.ask("ECHO", "plain again")))
        finish(replylog, (conn, expected))
