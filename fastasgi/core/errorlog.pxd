"""The error log, for code that others rely on: whatever a handler, a filter or an exception of the user's does.

Must not know: connections, the application's messages.
"""


cdef class ErrorLog:
    """A logger's front. What a handler or a filter of the user's raises goes to the event loop's exception handler."""

    cdef:
        object logger                   # logging.Logger
        object loop
        int refusals_told               # lines on refusals since the last count
        Py_ssize_t refusals_untold      # refusals without a line since the last count, because they are many

    cdef int log(self, int level, tuple arguments) except -1
    # With its traceback; or, if a handler of the user's or the traceback's own depth prevents that, without
    cdef int log_error(self, str message, object error) except -1
    cdef bint tells_refusal(self) noexcept      # whether one more refusal is to have a line; counts it
    cdef int count_refusals(self) except -1     # tells how many had none; to be called each second


cdef str type_name(object value)                # qualified; runs no code of a metaclass
