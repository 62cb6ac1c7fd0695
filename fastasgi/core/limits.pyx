"""See limits.pxd for the contracts."""

import math
import types


cdef class Limits:

    def __init__(self, config):
        for name in field_names():
            setattr(self, name, getattr(config, name) or 0)

    cdef double shortest_time_s(self):
        values = [getattr(self, name) for name in field_names()]
        return min([value for value in values if type(value) is float and value > 0], default=math.inf)


def field_names() -> list:
    """The names of the fields, each of which is a setting's."""
    return [name for name, value in vars(Limits).items() if isinstance(value, types.GetSetDescriptorType)]
