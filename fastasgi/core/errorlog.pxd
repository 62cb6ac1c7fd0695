"""The error log, for code that others rely on: it works whatever a handler, a filter or an exception of the user's
does.

Must not know: connections, the application's messages.
"""


cdef class ErrorLog:
    """A logger. If a handler or a filter of the user's raises an exception, the event loop's exception handler gets
    it."""

    cdef:
        object logger                   # logging.Logger
        object loop
        int refusals_told               # refusals since the last count of which a line has told
        Py_ssize_t refusals_untold      # refusals since the last count without a line, because there were many
        set warned_of                   # the texts of warn_once()

    cdef int log(self, int level, tuple arguments) except -1
    cdef int warn_once(self, str text) except -1        # the first time only
    # Logs an exception with its traceback; if a handler of the user's or the traceback's size prevents that, with a
    # part of it
    cdef int log_error(self, str message, object error) except -1
    cdef bint tells_refusal(self) noexcept      # counts a refusal. Whether it is to have a line
    cdef int count_refusals(self) except -1     # logs how many had no line; to be called each second


cdef str type_name(object value)                # the qualified name of its type; runs no code of a metaclass
