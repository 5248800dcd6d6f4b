#!/usr/bin/python3
"""PID 1 of a guest of scripts/kernels. It sets an empty kernel up for the system tests, runs the tests named on the
kernel's command line after "--", and prints one line with the result:

    kernels: <release>: <n> passed, <n> failed, <n> skipped
"""
import ctypes
import fcntl
import os
import socket
import struct
import subprocess
import sys
import termios
import traceback
from pathlib import Path

SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1      # linux/sockios.h, linux/if.h
RB_POWER_OFF = 0x4321FEDC                                    # linux/reboot.h
SYSLOG_ACTION_READ_ALL = 3                                   # linux/syslog.h
# Documentation/admin-guide/tainted-kernels.rst: the kernel has had an oops, or has issued a warning.
TAINT_DIE, TAINT_WARN = 1 << 7, 1 << 9
MOUNTS = (("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("tmpfs", "/dev/shm"))

libc = ctypes.CDLL(None, use_errno=True)


def mount_all():
    for kind, target in MOUNTS:
        os.makedirs(target, exist_ok=True)
        if libc.mount(kind.encode(), target.encode(), kind.encode(), 0, None):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), target)


def bring_up_loopback():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = fcntl.ioctl(sock, SIOCGIFFLAGS, struct.pack("16sh14x", b"lo", 0))
        flags = struct.unpack("16sh14x", request)[1] | IFF_UP
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags))


def run_tests(names):
    """Returns run.py's last line, the counts."""
    # One at a time: the tests' deadlines are long enough for one on emulated cores.
    runner = [sys.executable, str(Path(__file__).resolve().with_name("run.py")), "--jobs", "1", *names]
    last = ""
    with subprocess.Popen(runner, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            last = line.strip()
            print(line, end="", flush=True)
    return last


def complained():
    """Says whether the kernel printed an oops or a warning, which a test need not notice, and prints its messages."""
    if not int(Path("/proc/sys/kernel/tainted").read_text()) & (TAINT_DIE | TAINT_WARN):
        return False
    messages = ctypes.create_string_buffer(1 << 18)
    length = libc.klogctl(SYSLOG_ACTION_READ_ALL, messages, len(messages))
    print(messages.raw[:length].decode("utf-8", "replace"))
    return True


def main():
    os.environ["PATH"] = "/usr/sbin:/usr/bin"
    mount_all()
    bring_up_loopback()
    counted = run_tests(sys.argv[1:])
    outcome = "the kernel complained" if complained() else counted
    print(f"kernels: {os.uname().release}: {outcome}", flush=True)


if __name__ == "__main__":
    try:
        main()
    except BaseException:
        traceback.print_exc()
    finally:
        # The end of PID 1 would be a panic, so the guest powers off. It first waits until the serial port has sent
        # everything.
        termios.tcdrain(sys.stdout)
        libc.reboot(RB_POWER_OFF)
