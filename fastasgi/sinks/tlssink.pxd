"""TLS on a socket, by OpenSSL as the ssl module wraps it: SSLObject between two MemoryBIO.

Must not know: certificates and settings (see tls), what the decrypted bytes mean.
"""

from fastasgi.codecs.clienthello cimport ClientHello
from fastasgi.codecs.tlsrecords cimport RecordCursor
from fastasgi.core.contracts cimport Connection
from fastasgi.core.memory cimport ReadBuffer
from fastasgi.sinks.socketsink cimport SocketSink


cdef class BorrowedMemory:
    """Memory that an object of the ssl module reads or writes while it is called, by the buffer protocol.

    Each call has one of its own, since Python code that runs meanwhile may encrypt or decrypt for another connection.
    """

    cdef:
        char* p                         # borrows
        Py_ssize_t n                    # bytes


cdef class TLSWorker:
    """What the TLS connections of one worker share; one event at a time uses it."""

    cdef:
        object source                   # where contexts come from: a Source, see tlssink.pyi
        ReadBuffer records              # where the next read from the network goes


cdef class TLSHandshake(Connection):
    """Has a connection's place, and its deadline, until it is known which wire is spoken over TLS."""

    cdef bint is_draining               # the deadline was shortened, since the worker drains


cdef class TLSSink(SocketSink):
    """A sink whose bytes go to the socket in TLS records.

    OpenSSL gets records one by one, so that it never has to say that it wants more, and keeps memory for one record
    only. If the kernel accepts no more, plain text waits in `backlog`, and is encrypted when there is room.
    """

    cdef:
        TLSWorker tls_worker
        bint is_open                    # secure() has been called: what comes is TLS
        ClientHello hello               # the one that is coming, if its name has to be known first; or None
        object tls                      # ssl.SSLObject; None before its first bytes, and once the connection is lost
        bint calls_back                 # OpenSSL hands the name of a ClientHello to a callback of the user's
        object incoming                 # ssl.MemoryBIO
        object outgoing                 # ssl.MemoryBIO
        bint established                # the handshake is done
        bint peer_is_done               # the peer sends nothing more: it has sent close_notify, or a FIN without
        bint keeps_half                 # the peer sends nothing more, but the connection goes on sending
        object backlog                  # collections.deque of bytes to encrypt; while it is not None, blocked is set
        Py_ssize_t backlog_size         # bytes in the backlog that have not been encrypted
        Py_ssize_t backlog_at           # bytes of its first object that have been encrypted

        # Of the read under way, what is not decrypted; both NULL between two reads
        char* records_at
        char* records_end
        RecordCursor record             # that is coming in

    cdef int feed(self, char* p, Py_ssize_t n) except -1        # bytes from the network
    cdef int feed_records(self) except -1
    cdef int wrap(self, str name) except -1
    cdef int refuse_hello(self, ClientHello hello) except -1
    cdef bint shake(self) except -1
    cdef Py_ssize_t decrypt(self, char* p, Py_ssize_t room) except -2
    cdef int deliver(self, ReadBuffer plain, Py_ssize_t n) except -1
    cdef int peer_has_ended(self) except -1
    cdef int refuse_plain(self, const char* p, Py_ssize_t n) except -1
    cdef int give_up(self, str reason) except -1
    cdef int break_off(self, object error) except -1
    cdef bytes encrypt(self, const char* p, Py_ssize_t n)
    cdef int send_records(self) except -1
    cdef int pump(self) except -1
    cdef int say_end(self) except -1
