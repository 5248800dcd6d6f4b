"""The transports of a server: the server's options for each, and how a client connects."""
import socket
import ssl
import subprocess
from dataclasses import dataclass

UNIX = "unix"       # client_addr in the records of any client on a Unix socket


@dataclass(frozen=True)
class Tcp:
    """TCP, IPv4 or IPv6."""
    port: int
    host: str = "127.0.0.1"

    def options(self):
        return ["--bind", "127.0.0.1", *([] if self.host == "127.0.0.1" else [self.host]), "--port", str(self.port)]

    def connect(self, timeout, receive_buffer=None):
        sock = socket.socket(socket.AF_INET6 if ":" in self.host else socket.AF_INET)
        if receive_buffer:
            # Before it connects, because the TCP window depends on it.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.settimeout(timeout)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.connect((self.host, self.port))
        return sock

    def own_address(self, sock):
        host, port = sock.getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclass(frozen=True)
class Tls(Tcp):
    """TLS over IPv4. The server's files are in a folder of the chroot. Nobody checks a certificate."""
    files: str = ""
    root: str = ""      # of the chroot
    module: str = ""    # the module with TLS; "": built in

    def options(self):
        make_certificate(f"{self.root}{self.files}")
        return [*(["--loadmodule", self.module] if self.module else []),
                "--tls-port", str(self.port), "--tls-auth-clients", "no", "--tls-cert-file", f"{self.files}/tls.crt",
                "--tls-key-file", f"{self.files}/tls.key", "--tls-ca-cert-file", f"{self.files}/tls.crt"]

    def connect(self, timeout, receive_buffer=None):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context.wrap_socket(super().connect(timeout, receive_buffer))


@dataclass(frozen=True)
class Unix:
    root: str
    path: str

    def options(self):
        return ["--unixsocket", self.path]

    def connect(self, timeout, receive_buffer=None):
        sock = socket.socket(socket.AF_UNIX)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.settimeout(timeout)
        sock.connect(f"{self.root}{self.path}")
        return sock

    def own_address(self, sock):
        return UNIX


def at(where):
    """Takes a port on 127.0.0.1 for a transport."""
    return Tcp(where) if isinstance(where, int) else where


def make_certificate(folder):
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-subj", "/CN=localhost", "-days", "1", "-keyout", f"{folder}/tls.key", "-out",
                    f"{folder}/tls.crt"], check=True, capture_output=True)
