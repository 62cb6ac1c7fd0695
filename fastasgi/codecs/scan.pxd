"""The declarations of scan.h for Cython. The contracts stand in scan.h."""

from libc.stdint cimport uint8_t, uint64_t


cdef extern from "codecs/scan.h" nogil:
    ctypedef enum ScanClass:
        SCAN_VALUE
        SCAN_PATH
        SCAN_QUERY
        SCAN_TOKEN
        SCAN_REGNAME
        SCAN_QUOTED

    ctypedef enum ScanImplementation:
        pass

    ctypedef struct ScanName:
        uint64_t word[4]

    enum:
        SCAN_NAME_BYTES

    const uint8_t scan_table[256]
    const uint8_t scan_lower[256]
    bint scan_is_blank(uint8_t byte)
    bint scan_is(ScanClass kind, uint8_t byte)
    int scan_hex(uint8_t byte)
    void scan_choose()
    const uint8_t* scan(ScanClass kind, const uint8_t* p, const uint8_t* end)
    const uint8_t* scan_with(
        ScanImplementation implementation, ScanClass kind, const uint8_t* p, const uint8_t* end)
    size_t scan_name(const uint8_t* p, const uint8_t* end, ScanName* name)
    void scan_pad(const uint8_t* p, size_t n, ScanName* name)
    void scan_fold(const uint8_t* p, size_t n, ScanName* name)
    bint scan_same(const ScanName* a, const ScanName* b, size_t n)
    uint64_t scan_sample(const uint8_t* p, size_t n)
    uint64_t scan_hash(const ScanName* name, size_t n, uint64_t multiplier)
