/*
 * Finds the first byte outside a class of bytes, and reads field names. Plain C11, no Python.
 *
 * A range is always (p, end). No implementation reads a byte at or behind `end`: inputs may end at an
 * unmapped page. Pointers are borrowed for the length of a call.
 *
 * Implementations: scalar (any machine), SSE2 (every x86-64), NEON (every aarch64), and AVX2, taken at run
 * time for what is longer than SCAN_NEAR bytes: shorter runs do not pay for the indirect call.
 */
#ifndef FASTASGI_SCAN_H
#define FASTASGI_SCAN_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__GNUC__) && defined(__SSE2__)
#define SCAN_SSE2 1
#include <immintrin.h>
#elif defined(__GNUC__) && defined(__aarch64__)
#define SCAN_NEON 1
#include <arm_neon.h>
#endif

#if defined(SCAN_SSE2) && defined(__x86_64__)
#define SCAN_AVX2 1
#endif

/* ---- Classes ------------------------------------------------------------------------------------ */

typedef enum {
    SCAN_VALUE,   /* field-content and blanks, RFC 9110 5.5: HTAB, 0x20-0x7e, 0x80-0xff */
    SCAN_PATH,    /* visible ASCII except "#", "?" and "%" */
    SCAN_QUERY,   /* visible ASCII except "#" */
    SCAN_TOKEN,   /* tchar, RFC 9110 5.6.2 */
    SCAN_REGNAME, /* unreserved and sub-delims, RFC 3986 3.2.2 */
    SCAN_QUOTED,  /* qdtext, RFC 9110 5.6.4 */
    SCAN_CLASSES
} ScanClass;

/* Bit SCAN_x of entry c is set when byte c belongs to class SCAN_x. */
static const uint8_t scan_table[256] = {
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x21, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x21, 0x3f, 0x07, 0x29, 0x3f, 0x2d, 0x3f, 0x3f, 0x37, 0x37, 0x3f, 0x3f, 0x37, 0x3f, 0x3f, 0x27,
    0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x27, 0x37, 0x27, 0x37, 0x27, 0x25,
    0x27, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f,
    0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x27, 0x07, 0x27, 0x2f, 0x3f,
    0x2f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f,
    0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x27, 0x2f, 0x27, 0x3f, 0x00,
    0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21,
    0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21,
    0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21,
    0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21,
    0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21,
    0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21,
    0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21,
    0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21, 0x21,
};

/* A tchar in lower case; 0 for all other bytes. */
static const uint8_t scan_lower[256] = {
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x21, 0x00, 0x23, 0x24, 0x25, 0x26, 0x27, 0x00, 0x00, 0x2a, 0x2b, 0x00, 0x2d, 0x2e, 0x00,
    0x30, 0x31, 0x32, 0x33, 0x34, 0x35, 0x36, 0x37, 0x38, 0x39, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x61, 0x62, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x6b, 0x6c, 0x6d, 0x6e, 0x6f,
    0x70, 0x71, 0x72, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7a, 0x00, 0x00, 0x00, 0x5e, 0x5f,
    0x60, 0x61, 0x62, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x6b, 0x6c, 0x6d, 0x6e, 0x6f,
    0x70, 0x71, 0x72, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7a, 0x00, 0x7c, 0x00, 0x7e, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
};

static inline int scan_is(ScanClass class, uint8_t byte)
{
    return scan_table[byte] >> class & 1;
}

/* SP or HTAB: what RFC 9110 5.6.3 calls OWS and BWS. */
static inline int scan_is_blank(uint8_t byte)
{
    return byte == ' ' || byte == '\t';
}

/* The value of a hexadecimal digit, or -1. */
static inline int scan_hex(uint8_t byte)
{
    if (byte >= '0' && byte <= '9')
        return byte - '0';
    byte |= 0x20;
    return byte >= 'a' && byte <= 'f' ? byte - 'a' + 10 : -1;
}

static inline const uint8_t *scan_scalar(ScanClass class, const uint8_t *p, const uint8_t *end)
{
    while (p < end && scan_is(class, *p))
        p++;
    return p;
}

/* ---- SSE2 --------------------------------------------------------------------------------------- */

#ifdef SCAN_SSE2

static inline __m128i scan_equal16(__m128i bytes, char byte)
{
    return _mm_cmpeq_epi8(bytes, _mm_set1_epi8(byte));
}

/* Bit i is set when byte i lies outside the class. Only for the first three classes. */
static inline unsigned scan_outside16(ScanClass class, __m128i bytes)
{
    __m128i outside = scan_equal16(bytes, 0x7f);
    if (class == SCAN_VALUE) {
        __m128i low = _mm_cmpeq_epi8(_mm_min_epu8(bytes, _mm_set1_epi8(0x1f)), bytes);
        outside = _mm_or_si128(outside, _mm_andnot_si128(scan_equal16(bytes, '\t'), low));
    } else {
        /* Signed: bytes from 0x80 are negative, so this takes them too. */
        outside = _mm_or_si128(outside, _mm_cmplt_epi8(bytes, _mm_set1_epi8(0x21)));
        outside = _mm_or_si128(outside, scan_equal16(bytes, '#'));
        if (class == SCAN_PATH)
            outside = _mm_or_si128(outside, _mm_or_si128(scan_equal16(bytes, '?'), scan_equal16(bytes, '%')));
    }
    return (unsigned)_mm_movemask_epi8(outside);
}

static inline const uint8_t *scan_sse2(ScanClass class, const uint8_t *p, const uint8_t *end)
{
    for (; end - p >= 16; p += 16) {
        unsigned outside = scan_outside16(class, _mm_loadu_si128((const __m128i *)(const void *)p));
        if (outside)
            return p + __builtin_ctz(outside);
    }
    return scan_scalar(class, p, end);
}

#endif

/* ---- AVX2 --------------------------------------------------------------------------------------- */

#ifdef SCAN_AVX2

#define SCAN_TARGET_AVX2 __attribute__((target("avx2")))

SCAN_TARGET_AVX2 static inline __m256i scan_equal32(__m256i bytes, char byte)
{
    return _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8(byte));
}

SCAN_TARGET_AVX2 static inline unsigned scan_outside32(ScanClass class, __m256i bytes)
{
    __m256i outside = scan_equal32(bytes, 0x7f);
    if (class == SCAN_VALUE) {
        __m256i low = _mm256_cmpeq_epi8(_mm256_min_epu8(bytes, _mm256_set1_epi8(0x1f)), bytes);
        outside = _mm256_or_si256(outside, _mm256_andnot_si256(scan_equal32(bytes, '\t'), low));
    } else {
        outside = _mm256_or_si256(outside, _mm256_cmpgt_epi8(_mm256_set1_epi8(0x21), bytes));
        outside = _mm256_or_si256(outside, scan_equal32(bytes, '#'));
        if (class == SCAN_PATH)
            outside = _mm256_or_si256(outside, _mm256_or_si256(scan_equal32(bytes, '?'), scan_equal32(bytes, '%')));
    }
    return (unsigned)_mm256_movemask_epi8(outside);
}

SCAN_TARGET_AVX2 static inline const uint8_t *scan_avx2(ScanClass class, const uint8_t *p, const uint8_t *end)
{
    for (; end - p >= 32; p += 32) {
        unsigned outside = scan_outside32(class, _mm256_loadu_si256((const __m256i *)(const void *)p));
        if (outside)
            return p + __builtin_ctz(outside);
    }
    return scan_sse2(class, p, end);
}

SCAN_TARGET_AVX2 static const uint8_t *scan_avx2_value(const uint8_t *p, const uint8_t *end)
{
    return scan_avx2(SCAN_VALUE, p, end);
}

SCAN_TARGET_AVX2 static const uint8_t *scan_avx2_path(const uint8_t *p, const uint8_t *end)
{
    return scan_avx2(SCAN_PATH, p, end);
}

SCAN_TARGET_AVX2 static const uint8_t *scan_avx2_query(const uint8_t *p, const uint8_t *end)
{
    return scan_avx2(SCAN_QUERY, p, end);
}

static const uint8_t *scan_sse2_value(const uint8_t *p, const uint8_t *end)
{
    return scan_sse2(SCAN_VALUE, p, end);
}

static const uint8_t *scan_sse2_path(const uint8_t *p, const uint8_t *end)
{
    return scan_sse2(SCAN_PATH, p, end);
}

static const uint8_t *scan_sse2_query(const uint8_t *p, const uint8_t *end)
{
    return scan_sse2(SCAN_QUERY, p, end);
}

/* What scans a long run: indexed by the first three classes, replaced by scan_choose(). */
static const uint8_t *(*scan_far[3])(const uint8_t *, const uint8_t *) = {scan_sse2_value, scan_sse2_path,
                                                                        scan_sse2_query};

#endif

/* ---- NEON --------------------------------------------------------------------------------------- */

#ifdef SCAN_NEON

static inline uint8x16_t scan_equal16(uint8x16_t bytes, uint8_t byte)
{
    return vceqq_u8(bytes, vdupq_n_u8(byte));
}

/* Nibble i is 0xf where byte i of the mask is 0xff. */
static inline uint64_t scan_nibbles(uint8x16_t mask)
{
    return vget_lane_u64(vreinterpret_u64_u8(vshrn_n_u16(vreinterpretq_u16_u8(mask), 4)), 0);
}

static inline uint64_t scan_outside16(ScanClass class, uint8x16_t bytes)
{
    uint8x16_t outside = scan_equal16(bytes, 0x7f);
    if (class == SCAN_VALUE) {
        uint8x16_t low = vcltq_u8(bytes, vdupq_n_u8(0x20));
        outside = vorrq_u8(outside, vbicq_u8(low, scan_equal16(bytes, '\t')));
    } else {
        int8x16_t blank = vdupq_n_s8(0x21);
        outside = vorrq_u8(outside, vcltq_s8(vreinterpretq_s8_u8(bytes), blank));
        outside = vorrq_u8(outside, scan_equal16(bytes, '#'));
        if (class == SCAN_PATH)
            outside = vorrq_u8(outside, vorrq_u8(scan_equal16(bytes, '?'), scan_equal16(bytes, '%')));
    }
    return scan_nibbles(outside);
}

static inline const uint8_t *scan_neon(ScanClass class, const uint8_t *p, const uint8_t *end)
{
    for (; end - p >= 16; p += 16) {
        uint64_t outside = scan_outside16(class, vld1q_u8(p));
        if (outside)
            return p + (__builtin_ctzll(outside) >> 2);
    }
    return scan_scalar(class, p, end);
}

#endif

/* ---- The chosen one ----------------------------------------------------------------------------- */

#define SCAN_NEAR 64

/* To be called once before scan(). */
static inline void scan_choose(void)
{
#ifdef SCAN_AVX2
    if (__builtin_cpu_supports("avx2")) {
        scan_far[SCAN_VALUE] = scan_avx2_value;
        scan_far[SCAN_PATH] = scan_avx2_path;
        scan_far[SCAN_QUERY] = scan_avx2_query;
    }
#endif
}

/* The first byte of [p, end) outside `class`, or `end`. */
static inline const uint8_t *scan(ScanClass class, const uint8_t *p, const uint8_t *end)
{
    if (class > SCAN_QUERY)
        return scan_scalar(class, p, end);
#if defined(SCAN_AVX2)
    for (int i = 0; i < SCAN_NEAR; i += 16, p += 16) {
        if (end - p < 16)
            return scan_scalar(class, p, end);
        unsigned outside = scan_outside16(class, _mm_loadu_si128((const __m128i *)(const void *)p));
        if (outside)
            return p + __builtin_ctz(outside);
    }
    return scan_far[class](p, end);
#elif defined(SCAN_SSE2)
    return scan_sse2(class, p, end);
#elif defined(SCAN_NEON)
    return scan_neon(class, p, end);
#else
    return scan_scalar(class, p, end);
#endif
}

/* ---- Field names -------------------------------------------------------------------------------- */

#define SCAN_NAME_BYTES 32

/* A field name of at most 32 bytes: in lower case, padded with zeros. */
typedef struct {
    uint64_t word[SCAN_NAME_BYTES / 8];
} ScanName;

/* Folds the `n` bytes at `p`, at most 32, all of them tchar. */
static inline void scan_fold(const uint8_t *p, size_t n, ScanName *name)
{
    uint8_t folded[SCAN_NAME_BYTES] = {0};
    for (size_t i = 0; i < n; i++)
        folded[i] = scan_lower[p[i]];
    memcpy(name, folded, sizeof folded);
}

#ifdef SCAN_SSE2

/* All bytes, then no bytes: loaded from 16 - n, a mask of the first n bytes. */
static const uint8_t scan_first[32] = {
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
};

static inline __m128i scan_fold16(__m128i bytes)
{
    __m128i upper = _mm_and_si128(_mm_cmpgt_epi8(bytes, _mm_set1_epi8('A' - 1)), _mm_cmplt_epi8(bytes, _mm_set1_epi8('Z' + 1)));
    return _mm_or_si128(bytes, _mm_and_si128(upper, _mm_set1_epi8(0x20)));
}

#endif

/*
 * The length of the name before the first ":" at `p`, which it folds into `name`; or 0 where it can't tell
 * cheaply (no ":" within 32 bytes, too few bytes for a vector load, no vectors). Any byte may be in the name.
 */
static inline size_t scan_name(const uint8_t *p, const uint8_t *end, ScanName *name)
{
#ifdef SCAN_SSE2
    size_t skipped = 0;
    if (end - p < 16)
        return 0;
    __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)p);
    unsigned colons = (unsigned)_mm_movemask_epi8(scan_equal16(bytes, ':'));
    if (!colons) {
        if (end - p < 32)
            return 0;
        _mm_storeu_si128((__m128i *)(void *)name->word, scan_fold16(bytes));
        bytes = _mm_loadu_si128((const __m128i *)(const void *)(p + 16));
        colons = (unsigned)_mm_movemask_epi8(scan_equal16(bytes, ':'));
        if (!colons)
            return 0;
        skipped = 16;
    } else {
        name->word[2] = name->word[3] = 0;
    }
    size_t n = (size_t)__builtin_ctz(colons);
    __m128i mask = _mm_loadu_si128((const __m128i *)(const void *)(scan_first + 16 - n));
    _mm_storeu_si128((__m128i *)(void *)((uint8_t *)name->word + skipped), _mm_and_si128(scan_fold16(bytes), mask));
    return skipped + n;
#else
    (void)p, (void)end, (void)name;
    return 0;
#endif
}

#endif
