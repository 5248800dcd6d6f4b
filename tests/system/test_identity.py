"""Who a record says the client was, compared with what the server says about the connection and what the client itself
said."""
from conversation import FrameClient, on_servers, records_of, wait_records
from replylog import Replylog
from server import Server

WORDS = ("db", "resp", "client_name", "user", "lib_name", "lib_ver")
USER = ("ACL", "SETUSER", "bob", "on", ">secret", "~*", "&*", "+@all")


class Known:
    """The identity that a client's records must have, with one command after each change of it."""

    def __init__(self, conn, **known):
        self.conn = conn
        self.known = known
        self.wanted = []

    def says(self, *argv, succeeds=True, **changes):
        """changes: the fields known from then on; None: no longer known."""
        frame = self.conn.ask(*argv)
        assert frame.startswith(b"-") != succeeds, (argv, frame)
        self.known = {word: value for word, value in {**self.known, **changes}.items() if value is not None}
        step = f"step {len(self.wanted)} behind {argv}"
        self.conn.ask("ECHO", step)
        self.wanted.append((step, dict(self.known)))

    def check(self, replylog):
        wait_records(replylog, self.conn, 2 * len(self.wanted))
        records = {record["argv"][1]: record for record in records_of(replylog, self.conn) if record["cmd"] == "ECHO"}
        for step, known in self.wanted:
            said = {word: records[step][word] for word in WORDS if word in records[step]}
            assert said == known, f"{step}: says {said}, not {known}"


def converse(known, is_recent):
    """Everything that a client can say about itself, also what the server refuses. Older servers know no libraries, and
    options of a HELLO that fails may have taken effect (see below)."""
    says = known.says
    says("CLIENT", "SETNAME", "first", client_name="first")
    says("CLIENT", "SETNAME", "with space", succeeds=False)
    says("SELECT", "3", db=3)
    says("SELECT", "99", succeeds=False)
    says("SELECT", "none", succeeds=False)
    says("AUTH", "bob", "wrong", succeeds=False)
    says("AUTH", "bob", "secret", user="bob")
    says("AUTH", "bob", "wrong", succeeds=False)
    says("HELLO", "3", resp=3)
    says("HELLO", "9", succeeds=False)
    says("HELLO", "3", "AUTH", "nobody", "wrong", succeeds=False)
    if is_recent:
        says("HELLO", "3", "AUTH", "nobody", "wrong", "SETNAME", "never", succeeds=False)
        says("HELLO", "2", "AUTH", "default", "", "SETNAME", "with space", succeeds=False)
    says("HELLO", "2", "SETNAME", "second", resp=2, client_name="second")
    says("HELLO", "3", "SETNAME", "third", "AUTH", "bob", "secret", resp=3, client_name="third")
    if is_recent:
        says("CLIENT", "SETINFO", "LIB-NAME", "lib", lib_name="lib")
        says("client", "setinfo", "lib-ver", "1.2.3", lib_ver="1.2.3")
        says("CLIENT", "SETINFO", "LIB-NAME", "with space", succeeds=False)
    else:
        says("CLIENT", "SETINFO", "LIB-NAME", "lib", succeeds=False)
    says("CLIENT", "SETNAME", "", client_name=None)
    says("CLIENT", "SETNAME", "fourth", client_name="fourth")
    says("RESET", db=0, resp=2, client_name=None, user=None)
    says("AUTH", "bob", "secret", user="bob")


def test_what_clients_say(name, io_threads, transport):
    """Over each transport, with the id and address that the server itself shows."""
    with Server(name, io_threads=io_threads, transport=transport) as server, Replylog(server.pid, 0) as replylog:
        with server.client() as other, FrameClient(server.transport) as conn:
            other.call(*USER)
            number = int(conn.ask("CLIENT", "ID")[1:])
            known = Known(conn, db=0, resp=2)
            converse(known, name != "redis-7.0")
            wait_records(replylog, conn, 2 * len(known.wanted) + 1)
            replylog.stop()
            known.check(replylog)
            assert {record["client_id"] for record in records_of(replylog, conn)} == {number}


test_what_clients_say.cases = {
    f"{name},{io_threads} io threads,{transport}": (name, io_threads, transport)
    for name in ("valkey-9.1", "redis-7.0") for io_threads in (1, 2) for transport in ("tcp4", "tcp6", "unix")}


@on_servers
def test_older_connections(name, io_threads):
    """replylog does not know what older connections said before. It takes the id from the server's structs, and the
    database from their next SELECT."""
    with Server(name, io_threads=io_threads) as server, server.client() as other, FrameClient(server.port) as conn:
        other.call(*USER)
        converse(Known(conn), name != "redis-7.0")
        conn.ask("SELECT", "2")
        number = int(conn.ask("CLIENT", "ID")[1:])
        with Replylog(server.pid, 0) as replylog:
            known = Known(conn)
            known.says("CLIENT", "SETNAME", "later")
            known.says("SELECT", "4", db=4)
            known.says("SELECT", "99", succeeds=False)
            known.says("HELLO", "3")
            known.says("AUTH", "bob", "secret")
            known.says("RESET", db=0)
            known.check(replylog)
            assert replylog.stop()[-1]["joined"] >= 1
    assert {record["client_id"] for record in records_of(replylog, conn)} == {number}


HALF_WAY = [
    ("HELLO", "2", "AUTH", "alice", "secret", "SETNAME", "with space"), ("HELLO", "2", "AUTH", "alice", "secret", "NONSENSE"),
    ("HELLO", "3", "SETNAME", "other", "AUTH", "nobody", "wrong"),
]


def test_hello_that_fails_half_way(name):
    """After such a HELLO neither its own changes nor the earlier identity are certain."""
    with Server(name) as server, Replylog(server.pid, 0) as replylog:
        with server.client() as other:
            for user in ("alice", "bob"):
                other.call("ACL", "SETUSER", user, "on", ">secret", "~*", "+@all")
        conns = []
        for argv in HALF_WAY:
            with FrameClient(server.port) as conn:
                known = Known(conn, db=0, resp=2)
                known.says("HELLO", "2", "AUTH", "bob", "secret", "SETNAME", "first", client_name="first", user="bob")
                known.says("HELLO", "2", "AUTH", "bob", "wrong", succeeds=False)
                known.says(*argv, succeeds=False, client_name=None, user=None, resp=None)
                conns.append(known)
        for known in conns:
            known.check(replylog)
        replylog.stop()


test_hello_that_fails_half_way.cases = {name: (name,) for name in ("redis-6.0", "redis-7.0")}


def says_nothing_wrong(replylog, conn, truth):
    """Where replylog does not follow a transaction, fields may be absent, but never outdated."""
    records = {record["argv"][-1]: record for record in records_of(replylog, conn) if record["cmd"] == "ECHO"
               and record["reply_bytes"] != len("+QUEUED\r\n")}
    for step, known in truth.items():
        said = {word: records[step][word] for word in WORDS if word in records[step]}
        assert said.items() <= known.items(), f"{step}: says {said}, but it was {known}"
    return records


@on_servers
def test_in_transactions(name, io_threads):
    """SELECT and CLIENT SETNAME that are queued, and then run or discarded."""
    with Server(name, io_threads=io_threads) as server, Replylog(server.pid, 0) as replylog, \
            FrameClient(server.port) as conn:
        commands = [("SELECT", "3"), ("CLIENT", "SETNAME", "first"), ("ECHO", "before"),
                    ("MULTI",), ("SELECT", "5"), ("CLIENT", "SETNAME", "second"), ("DISCARD",), ("ECHO", "discarded"),
                    ("SELECT", "4"), ("ECHO", "selected"),
                    ("MULTI",), ("SELECT", "6"), ("CLIENT", "SETNAME", "third"), ("ECHO", "inside"), ("EXEC",),
                    ("ECHO", "executed"),
                    ("SELECT", "7"), ("CLIENT", "SETNAME", "fourth"), ("ECHO", "after")]
        for argv in commands:
            conn.ask(*argv)
        wait_records(replylog, conn, len(commands) + 2)
        replylog.stop()
    truth = {"before": (3, "first"), "discarded": (3, "first"), "selected": (4, "first"), "inside": (6, "third"),
             "executed": (6, "third"), "after": (7, "fourth")}
    records = says_nothing_wrong(replylog, conn, {
        step: {"db": db, "client_name": called, "resp": 2} for step, (db, called) in truth.items()})
    assert (records["before"]["db"], records["before"]["client_name"]) == (3, "first"), records["before"]
    assert (records["selected"]["db"], records["after"]["db"]) == (4, 7), records


@on_servers
def test_numbers_are_used_again(name, io_threads):
    """Many connections use few connection numbers, one after another. A silent client has no identity of an earlier one."""
    with Server(name, io_threads=io_threads) as server, Replylog(server.pid, 0, "--max-clients", "100") as replylog:
        with FrameClient(server.port) as keeper:
            keeper.ask(*USER)
            wanted = []
            for number in range(600):
                with FrameClient(server.port) as conn:
                    known = {"db": 0, "resp": 2}
                    if number % 3 == 0:
                        conn.ask("HELLO", "3", "AUTH", "bob", "secret", "SETNAME", f"name:{number}")
                        conn.ask("SELECT", "7")
                        known = {"db": 7, "resp": 3, "client_name": f"name:{number}", "user": "bob"}
                    conn.ask("ECHO", f"number:{number}")
                    wanted.append((conn.addr, known))
        replylog.wait_replies(1 + 600 + 400)
        assert replylog.stop()[-1]["dropped"] == 0
    records = {record["argv"][1]: record for record in replylog.replies() if record["cmd"] == "ECHO"}
    for number, (addr, known) in enumerate(wanted):
        record = records[f"number:{number}"]
        said = {word: record[word] for word in WORDS if word in record}
        assert (record["client_addr"], said) == (addr, known), (record, known)
