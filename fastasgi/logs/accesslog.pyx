"""See accesslog.pxd for the contracts."""

import json
import re
import signal
import time

from cpython.mem cimport PyMem_RawFree, PyMem_RawRealloc
from cpython.unicode cimport PyUnicode_AsUTF8AndSize, PyUnicode_DecodeUTF8
from libc.string cimport memcpy

from fastasgi.codecs.address cimport endpoint_text
from fastasgi.codecs.heads cimport DECIMAL_ROOM, put_bytes, put_decimal, reason_phrase
from fastasgi.codecs.text cimport is_token

cdef extern from "logs/fatal.h" nogil:
    void catch_fatal_signal(int number, bint is_crash)
    void add_waiting_lines(waiting_lines* lines)
    void remove_waiting_lines(const waiting_lines* lines)

# Signals that end a process unless it handles or ignores them
CRASHES = ("SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT", "SIGSYS", "SIGTRAP")
ENDS = ("SIGTERM", "SIGHUP", "SIGINT", "SIGQUIT", "SIGALRM", "SIGVTALRM", "SIGPROF", "SIGXCPU", "SIGUSR1", "SIGUSR2",
        "SIGIO", "SIGPWR", "SIGSTKFLT")

cdef enum:
    BATCH_SIZE = 65536                  # bytes of formatted lines that are written at once

ATOMS = ("client", "method", "path", "query", "http_version", "status", "bytes", "duration_us", "time",
         "user_agent", "referer")


class Atom(str):
    """A named value of an access log format, header[name] included."""


def parse_format(format: str) -> list:
    """Split a format such as '{client} {method} {path} {header[x-request-id]}' into literals and Atoms.

    "{{" and "}}" stand for braces. Raises ValueError that names the atom which doesn't exist.
    """
    parts = []
    for literal, doubled, name in re.findall(r"([^{}]+)|(\{\{|\}\})|\{([^{}]*)\}|[{}]", format):
        if literal or doubled:
            parts.append(literal or doubled[0])
        elif name in ATOMS or header_name(name) is not None:
            parts.append(Atom(name.lower()))
        else:
            known = ", ".join(ATOMS)
            raise ValueError(f"no atom {{{name}}} in an access log format; there are: {known}, header[name]")
    return parts


cdef bytes header_name(object atom):
    """The name of the field that header[name] stands for, a str or an Atom, in lower case; None if it is no such
    atom."""
    cdef bytes name
    if not (atom.startswith("header[") and atom.endswith("]")):
        return None
    name = atom.removeprefix("header[").removesuffix("]").lower().encode("ascii", "replace")
    return name if is_token(name, len(name)) else None


cdef class AccessLog:
    """One line a response.

    `format` is None for uvicorn's line, "json", or a format string (see parse_format). `route` says where lines go,
    and is asked again before each batch: to its `write` in batches, of whole lines, or through its `logger` one by one.
    """

    def __init__(self, *, str format, route):
        self.as_json = format == "json"
        self.atoms = None if format is None or self.as_json else parse_format(format)
        self.prefix = self.request_prefix = self.request_suffix = b""
        self.status_texts = {}
        self.route = route
        self.write = route.write
        route.flush = self.flush
        self.look()

    def __dealloc__(self):
        remove_waiting_lines(&self.waiting)
        PyMem_RawFree(self.lines)

    def flush(self) -> None:
        """Write what is batched."""
        if self.length == 0:
            return
        text = PyUnicode_DecodeUTF8(self.lines, self.length, "backslashreplace")
        self.length = 0
        self.write(text)

    def close(self) -> None:
        """Write what is batched; nothing comes any more."""
        self.flush()
        remove_waiting_lines(&self.waiting)
        self.is_waiting = False
        self.route.close()

    cdef bint look(self) except -1:
        self.is_on = self.route.look()
        self.logger = self.route.logger
        self.at_once = self.route.at_once
        self.prefix = self.route.prefix.encode()
        if self.use_colors != self.route.use_colors:
            self.use_colors = self.route.use_colors
            self.request_prefix = b"\x1b[1m" if self.use_colors else b""
            self.request_suffix = b"\x1b[0m" if self.use_colors else b""
            self.status_texts.clear()
        self.waiting.descriptor = self.route.descriptor
        if self.waiting.descriptor >= 0 and not self.is_waiting and not self.at_once:
            self.outlive_signals()
        return self.is_on

    cdef int outlive_signals(self) except -1:
        """Have what is batched written before a signal ends the process; but not if Python handles it."""
        self.waiting.lines = &self.lines
        self.waiting.length = &self.length
        self.is_waiting = True
        add_waiting_lines(&self.waiting)
        for name in CRASHES + ENDS:
            number = getattr(signal, name, None)
            if number is not None and not callable(signal.getsignal(number)):
                catch_fatal_signal(number, name in CRASHES)
        return 0

    cdef int record(self, dict scope, int status, long long body_bytes, double duration_s) except -1:
        """Log one response. body_bytes are those on the wire; duration_s is the time since the request's head came, -1
        if that is not known."""
        if self.length == 0 and self.logger is None and not self.look():
            return 0
        if self.atoms is None and not self.as_json:
            if self.logger is None:
                return self.put_default_line(scope, status)
            self.logger.info('%s - "%s %s HTTP/%s" %d', client_text(scope), scope["method"], target_text(scope),
                             scope["http_version"], status)
            return 0
        values = atom_values(scope, status, body_bytes, duration_s)
        if self.as_json:
            line = json.dumps(values)
        else:
            line = "".join([atom_text(values, scope, part) if type(part) is Atom else part for part in self.atoms])
        if self.logger is not None:
            self.logger.info("%s", line)
            return 0
        return self.put_line(line)

    cdef int put_default_line(self, dict scope, int status) except -1:
        cdef Py_ssize_t client_length = 0, method_length, version_length
        cdef const char* client = NULL
        cdef bytes raw_path = <bytes>scope["raw_path"]
        cdef bytes query = <bytes>scope["query_string"]
        cdef bytes status_text = self.status_text(status)
        cdef const char* method = PyUnicode_AsUTF8AndSize(scope["method"], &method_length)
        cdef const char* version = PyUnicode_AsUTF8AndSize(scope["http_version"], &version_length)
        cdef object address = scope["client"]
        cdef char* p
        if address is not None:
            client = PyUnicode_AsUTF8AndSize((<tuple>address)[0], &client_length)
        p = self.reserve(client_length + method_length + version_length + 4 * (len(raw_path) + len(query))
                         + len(self.prefix) + len(self.request_prefix) + len(self.request_suffix)
                         + len(status_text) + DECIMAL_ROOM + 24)
        p = put_bytes(p, self.prefix)
        if client is not NULL:
            memcpy(p, client, client_length)
            p[client_length] = c":"
            p = put_decimal(p + client_length + 1, (<tuple>address)[1])
        p = put_bytes(p, b' - "')
        p = put_bytes(p, self.request_prefix)
        memcpy(p, method, method_length)
        p += method_length
        p[0] = c" "
        p = put_escaped(p + 1, raw_path)
        if query:
            p[0] = c"?"
            p = put_escaped(p + 1, query)
        p = put_bytes(p, b" HTTP/")
        memcpy(p, version, version_length)
        p = put_bytes(p + version_length, self.request_suffix)
        p = put_bytes(p, b'" ')
        p = put_bytes(p, status_text)
        self.length = p - self.lines
        if self.length > BATCH_SIZE or self.at_once:
            self.flush()
        return 0

    cdef int put_line(self, str line) except -1:
        cdef bytes data = line.encode("utf-8", "backslashreplace") + b"\n"
        self.length = put_bytes(self.reserve(len(data)), data) - self.lines
        if self.length > BATCH_SIZE or self.at_once:
            self.flush()
        return 0

    cdef char* reserve(self, Py_ssize_t n) except NULL:
        cdef char* lines
        if self.length + n > self.capacity:
            lines = <char*>PyMem_RawRealloc(self.lines, self.length + n + BATCH_SIZE)
            if lines is NULL:
                raise MemoryError()
            self.lines = lines
            self.capacity = self.length + n + BATCH_SIZE
        return self.lines + self.length

    cdef bytes status_text(self, int status):
        text = self.status_texts.get(status)
        if text is None:
            text = self.status_texts[status] = f"{describe_status(status, self.use_colors)}\n".encode("ascii")
        return text


# Codes of ANSI's SGR sequence, by the first digit of a status
STATUS_COLORS = {1: 97, 2: 32, 3: 33, 4: 31, 5: 91}


def describe_status(status: int, use_colors: bool) -> str:
    """A status and its name, "404 Not Found", perhaps in the colour of its class; only 1xx to 5xx have one."""
    text = f"{status} {reason_phrase(status)}"
    color = STATUS_COLORS.get(status // 100) if use_colors else None
    return text if color is None else f"\x1b[{color}m{text}\x1b[0m"


cdef char* put_escaped(char* p, bytes data) noexcept:
    """Copy a request target. Quotes, backslashes and bytes that aren't visible ASCII become \\xNN, four bytes each."""
    cdef unsigned char c
    cdef const unsigned char* digits = b"0123456789abcdef"
    for c in data:
        if 0x20 < c < 0x7f and c != c"\"" and c != c"\\":
            p[0] = c
            p += 1
        else:
            p[0] = c"\\"
            p[1] = c"x"
            p[2] = digits[c >> 4]
            p[3] = digits[c & 15]
            p += 4
    return p


def escape(text: str) -> str:
    """`text` with all characters escaped that could end a line or a quoted string, or control a terminal."""
    return "".join([c if " " <= c <= "~" and c not in '"\\' else f"\\x{ord(c):02x}" for c in text])


def client_text(dict scope) -> str:
    """host:port of the client; empty for a unix socket, as in uvicorn's line."""
    return endpoint_text(scope["client"]) if scope["client"] else ""


def target_text(dict scope) -> str:
    """Path and query as the client sent them, escaped."""
    target = scope["raw_path"]
    if scope["query_string"]:
        target += b"?" + scope["query_string"]
    return escape(target.decode("latin-1"))


def header_text(dict scope, name: bytes) -> str:
    """All values of a request header, joined; "-" if there is none."""
    values = [value for key, value in scope["headers"] if key == name]
    return b", ".join(values).decode("latin-1") if values else "-"


def atom_values(dict scope, int status, long long body_bytes, double duration_s) -> dict:
    """The named values, unescaped."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "client": client_text(scope),
        "method": scope["method"],
        "path": scope["raw_path"].decode("latin-1"),
        "query": scope["query_string"].decode("latin-1"),
        "http_version": scope["http_version"],
        "status": status,
        "bytes": body_bytes,
        "duration_us": round(duration_s * 1e6) if duration_s >= 0 else None,
        "user_agent": header_text(scope, b"user-agent"),
        "referer": header_text(scope, b"referer"),
    }


def atom_text(dict values, dict scope, name) -> str:
    """One value of a line, escaped."""
    if name.startswith("header["):
        return escape(header_text(scope, header_name(name)))
    return "-" if values[name] is None else escape(str(values[name]))
