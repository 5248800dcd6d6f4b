#!/usr/bin/python3
"""under_filter.py FILTER PROGRAM ARGUMENTS: executes a program under a seccomp filter, which its children inherit."""
import ctypes
import os
import struct
import sys

# linux/filter.h, linux/seccomp.h, linux/prctl.h
LOAD, EQUAL, AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06
NUMBER, ARGUMENT = 0, 16                # offsets in struct seccomp_data
ALLOW, KILL, ERROR_EPERM = 0x7FFF0000, 0x80000000, 0x00050001
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 22, 38, 2

# x86-64's numbers. Older filters know those up to 334 and from 424 on. The numbers in between are the kernel's own.
PRCTL, EXIT_GROUP, FIRST_UNKNOWN, NEXT_KNOWN = 157, 231, 335, 424


def unknown_calls(action):
    """Treats unknown system calls as Docker's and systemd's filters do, among them the one of return probes (335)."""
    return [(LOAD, 0, 0, NUMBER), (AT_LEAST, 0, 2, FIRST_UNKNOWN), (AT_LEAST, 1, 0, NEXT_KNOWN), (RETURN, 0, 0, action),
            (RETURN, 0, 0, ALLOW)]


def one_call(number, argument, action):
    return [(LOAD, 0, 0, NUMBER), (EQUAL, 0, 3, number), (LOAD, 0, 0, ARGUMENT), (EQUAL, 0, 1, argument),
            (RETURN, 0, 0, action), (RETURN, 0, 0, ALLOW)]


FILTERS = {
    "unknown-fail": unknown_calls(ERROR_EPERM),
    "unknown-kill": unknown_calls(KILL),
    "no-filters": one_call(PRCTL, PR_SET_SECCOMP, ERROR_EPERM),
    "no-good-end": one_call(EXIT_GROUP, 0, KILL),
}


def main(name, *argv):
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in FILTERS[name])
    buffer = ctypes.create_string_buffer(code)
    program = struct.pack("HxxxxxxP", len(FILTERS[name]), ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in ((PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program)):
        if libc.prctl(*arguments):
            raise OSError(ctypes.get_errno(), "prctl")
    os.execvp(argv[0], argv)


if __name__ == "__main__":
    main(*sys.argv[1:])
