"""See errorlog.pxd for the contracts."""

import logging
import traceback

# Descriptors of the base classes, which run no code of the application's
GROUP_MEMBERS = BaseExceptionGroup.exceptions
TRACEBACK = BaseException.__traceback__
TYPE_NAME = type.__dict__["__qualname__"]
CAUSE = BaseException.__cause__
CONTEXT = BaseException.__context__

cdef enum:
    MOST_TRACEBACKS = 1000              # members of groups whose tracebacks are written for one error
    MOST_REFUSALS = 5                   # refusals in one second that have a line each in the error log


cdef class ErrorLog:
    """A logger for code that others rely on. If a handler or a filter of the user's raises an exception, the event
    loop's exception handler gets it, and nobody else."""

    def __init__(self, logger, loop):
        self.logger = logger
        self.loop = loop
        self.warned_of = set()

    def error(self, *arguments):
        self.log(logging.ERROR, arguments)

    def warning(self, *arguments):
        self.log(logging.WARNING, arguments)

    def info(self, *arguments):
        self.log(logging.INFO, arguments)

    def debug(self, *arguments):
        self.log(logging.DEBUG, arguments)

    cdef int log(self, int level, tuple arguments) except -1:
        try:
            self.logger.log(level, *arguments)
        except Exception as failure:
            message = arguments[0] % arguments[1:] if len(arguments) > 1 else arguments[0]
            self.loop.call_exception_handler({"message": f"{message} (logging fails: {type_name(failure)})"})
        return 0

    cdef int warn_once(self, str text) except -1:
        if text not in self.warned_of:
            self.warned_of.add(text)
            self.warning(text)
        return 0

    cdef int log_error(self, str message, object error) except -1:
        cdef object fault = "it holds too many exceptions"
        cdef object frames = TRACEBACK.__get__(error)
        try:
            if not has_many_tracebacks(error):
                self.logger.error(message, exc_info=(type(error), error, frames))
                return 0
        except Exception as failure:
            fault = f"{type_name(failure)} while it was logged"
        self.error(
            "%sNot with all that it grew out of: %s.\nTraceback (most recent call last):\n%s%s",
            message, fault, "".join(traceback.format_tb(frames)), type_name(error))
        return 0

    cdef bint tells_refusal(self) noexcept:
        self.refusals_told += 1
        if self.refusals_told > MOST_REFUSALS:
            self.refusals_untold += 1
            return False
        return True

    cdef int count_refusals(self) except -1:
        """Log how many refusals there were without a line of their own."""
        cdef Py_ssize_t count = self.refusals_untold
        self.refusals_told = 0
        self.refusals_untold = 0
        if count:
            self.warning("%d more refused in the same second", count)
        return 0


cdef str type_name(object value):
    return TYPE_NAME.__get__(type(value))


cdef bint has_many_tracebacks(object error) except -1:
    """Whether a traceback would be endless: the traceback module writes an exception that is in several groups once for
    each way that leads to it."""
    cdef list pending = [error]
    cdef set seen = set()               # ids; a cause or context is written once, however many ways lead to it
    cdef int members = 0
    while pending and members <= MOST_TRACEBACKS:
        error = pending.pop()
        if id(error) not in seen:
            seen.add(id(error))
            pending.extend([origin for origin in (CAUSE.__get__(error), CONTEXT.__get__(error)) if origin is not None
                            and id(origin) not in seen])
        if issubclass(type(error), BaseExceptionGroup):
            if type(error).exceptions is not GROUP_MEMBERS:
                return True             # code of the application's makes the members, and may make more each time
            pending.extend(GROUP_MEMBERS.__get__(error))
            members += len(GROUP_MEMBERS.__get__(error))
    return members > MOST_TRACEBACKS
