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
    """A number that no other process of tests has at the same time, and the ports and folders derived from it. It takes
    the lowest free number by binding a name in the network namespace, which the kernel frees when the process ends,
    however it ends."""
    COUNT, FIRST_PORT, PORTS = 40, 10_000, 500

    def __init__(self):
        self.number = next(filter(self.claim, range(self.COUNT)), None)
        assert self.number is not None, f"{self.COUNT} processes of tests at once"
        # Below ip_local_port_range: the kernel could give a client the port of a server that is restarting.
        first = self.FIRST_PORT + self.number * self.PORTS
        ports = list(range(first, first + self.PORTS))
        start = random.randrange(self.PORTS)
        self.ports = itertools.cycle(ports[start:] + ports[:start])

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
                # Servers set this too, so connections of an earlier server in TIME_WAIT do not block the port.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                with contextlib.suppress(OSError):
                    sock.bind(("127.0.0.1", port))
                    return port
        raise AssertionError(f"no port of slot {self.number} is free")

    def binary(self, root, path):
        """Copies a server's binary inside its chroot and returns the copy's path there. The kernel puts probes into a
        file, so a shared file would also have the probes of other tests, and of anybody who observes that server on this
        machine."""
        folder = f"/tmp/replylog-slot-{self.number}"
        link, original = Path(f"{root}{path}"), Path(f"{root}{path}").resolve()
        copy = Path(f"{root}{folder}/{original.name}")
        copy.parent.mkdir(exist_ok=True)
        if not copy.exists() or copy.stat().st_mtime_ns != original.stat().st_mtime_ns:
            shutil.copy2(original, f"{copy}.new")
            os.rename(f"{copy}.new", copy)
        # Debian's binary is a link to another name, and behaves by the name that it is called by.
        name = copy.with_name(link.name)
        if not name.exists():
            name.symlink_to(copy.name)
        return f"{folder}/{link.name}"


@functools.cache
def slot():
    """The slot of this process. Each process asks for it first after its fork."""
    return Slot()


def free_port():
    return slot().free_port()
