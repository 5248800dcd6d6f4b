"""Tests run side by side. A slot gives each process of tests its own ports and its own copies of the servers' binaries."""
import contextlib
import functools
import itertools
import os
import random
import shutil
import socket
from pathlib import Path


class Slot:
    """What one process of tests has for itself while others run: a number below 40, and what follows from it. The lowest
    that is free, by a name in the network namespace that the kernel forgets when the process ends, however it ends."""
    COUNT, FIRST_PORT, PORTS = 40, 10_000, 500

    def __init__(self):
        self.number = next(filter(self.claim, range(self.COUNT)), None)
        assert self.number is not None, f"{self.COUNT} processes of tests at once"
        # Below the ports that the kernel gives to clients (ip_local_port_range): these would take a server's while it is
        # restarted.
        first = self.FIRST_PORT + self.number * self.PORTS
        ports = list(range(first, first + self.PORTS))
        turn = random.randrange(self.PORTS)
        self.ports = itertools.cycle(ports[turn:] + ports[:turn])

    def claim(self, number):
        self.claimed = socket.socket(socket.AF_UNIX)
        try:
            self.claimed.bind(f"\0tests of replylog {number}")
        except OSError:
            self.claimed.close()
            return False
        return True

    def free_port(self):
        for port in itertools.islice(self.ports, self.PORTS):
            with socket.socket() as sock:
                # As servers do: connections of the last one that are in TIME_WAIT are no hindrance.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                with contextlib.suppress(OSError):
                    sock.bind(("127.0.0.1", port))
                    return port
        raise AssertionError(f"no port of slot {self.number} is free")

    def binary(self, root, path):
        """A copy of a server's binary, a path in the same chroot. Probes are put into a file: those of other tests, and of
        whoever observes that server on this machine, would be in ours, too."""
        folder = f"/tmp/replylog-slot-{self.number}"
        link, original = Path(f"{root}{path}"), Path(f"{root}{path}").resolve()
        copy = Path(f"{root}{folder}/{original.name}")
        copy.parent.mkdir(exist_ok=True)
        if not copy.exists() or copy.stat().st_mtime_ns != original.stat().st_mtime_ns:
            shutil.copy2(original, f"{copy}.new")
            os.rename(f"{copy}.new", copy)
        # Debian's is a link to another name, and looks at the one that it is called by.
        name = copy.with_name(link.name)
        if not name.exists():
            name.symlink_to(copy.name)
        return f"{folder}/{link.name}"


@functools.cache
def slot():
    """Of this process: first asked for after its fork."""
    return Slot()


def free_port():
    return slot().free_port()
