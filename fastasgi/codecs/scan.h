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

#if defined(SCAN_SSE2) || defined(SCAN_NEON)
#define SCAN_VECTORS 1
#endif
#if defined(SCAN_SSE2) && defined(__x86_64__)
#define SCAN_AVX2 1
#endif

/* --- Classes --- */

typedef enum {
    SCAN_VALUE,   /* field-content and blanks, RFC 9110 section 5.5: HTAB, 0x20-0x7e, 0x80-0xff */
    SCAN_PATH,    /* visible ASCII except "#", "?" and "%" */
    SCAN_QUERY,   /* visible ASCII except "#" */
    SCAN_TOKEN,   /* tchar, RFC 9110 section 5.6.2 */
    SCAN_REGNAME, /* unreserved and sub-delims, RFC 3986 section 3.2.2 */
    SCAN_QUOTED,  /* qdtext, RFC 9110 section 5.6.4 */
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

/* SP or HTAB: what RFC 9110 section 5.6.3 calls OWS and BWS. */
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

/* --- 16 bytes at once: SSE2 and NEON --- */

#if defined(SCAN_SSE2)

typedef __m128i ScanVector;

static inline ScanVector scan_load16(const uint8_t *p)
{
    return _mm_loadu_si128((const __m128i *)(const void *)p);
}

static inline void scan_store16(uint64_t *p, ScanVector bytes)
{
    _mm_storeu_si128((__m128i *)(void *)p, bytes);
}

static inline ScanVector scan_and16(ScanVector a, ScanVector b)
{
    return _mm_and_si128(a, b);
}

static inline ScanVector scan_or16(ScanVector a, ScanVector b)
{
    return _mm_or_si128(a, b);
}

static inline ScanVector scan_without16(ScanVector a, ScanVector b)
{
    return _mm_andnot_si128(b, a);
}

static inline ScanVector scan_all16(uint8_t byte)
{
    return _mm_set1_epi8((char)byte);
}

static inline ScanVector scan_equal16(ScanVector bytes, uint8_t byte)
{
    return _mm_cmpeq_epi8(bytes, scan_all16(byte));
}

/* From `low` up to `high`, in the circle of byte values. */
static inline ScanVector scan_range16(ScanVector bytes, uint8_t low, uint8_t high)
{
    ScanVector offset = low ? _mm_sub_epi8(bytes, scan_all16(low)) : bytes;
    return _mm_cmpeq_epi8(_mm_min_epu8(offset, scan_all16((uint8_t)(high - low))), offset);
}

/* Not 0 if a byte is set; scan_index() tells the first one. */
static inline uint64_t scan_any16(ScanVector mask)
{
    return (uint64_t)(unsigned)_mm_movemask_epi8(mask);
}

static inline size_t scan_index(uint64_t any)
{
    return (size_t)__builtin_ctzll(any);
}

#elif defined(SCAN_NEON)

typedef uint8x16_t ScanVector;

static inline ScanVector scan_load16(const uint8_t *p)
{
    return vld1q_u8(p);
}

static inline void scan_store16(uint64_t *p, ScanVector bytes)
{
    vst1q_u64(p, vreinterpretq_u64_u8(bytes));
}

static inline ScanVector scan_and16(ScanVector a, ScanVector b)
{
    return vandq_u8(a, b);
}

static inline ScanVector scan_or16(ScanVector a, ScanVector b)
{
    return vorrq_u8(a, b);
}

static inline ScanVector scan_without16(ScanVector a, ScanVector b)
{
    return vbicq_u8(a, b);
}

static inline ScanVector scan_all16(uint8_t byte)
{
    return vdupq_n_u8(byte);
}

static inline ScanVector scan_equal16(ScanVector bytes, uint8_t byte)
{
    return vceqq_u8(bytes, scan_all16(byte));
}

static inline ScanVector scan_range16(ScanVector bytes, uint8_t low, uint8_t high)
{
    return vcleq_u8(vsubq_u8(bytes, scan_all16(low)), scan_all16((uint8_t)(high - low)));
}

/* Four bits a byte. */
static inline uint64_t scan_any16(ScanVector mask)
{
    return vget_lane_u64(vreinterpret_u64_u8(vshrn_n_u16(vreinterpretq_u16_u8(mask), 4)), 0);
}

static inline size_t scan_index(uint64_t any)
{
    return (size_t)__builtin_ctzll(any) >> 2;
}

#endif

#ifdef SCAN_VECTORS

/* The bytes outside the class, one of the first three. */
static inline ScanVector scan_outside16(ScanClass class, ScanVector bytes)
{
    if (class == SCAN_VALUE) {
        ScanVector control = scan_without16(scan_range16(bytes, 0, 0x1f), scan_equal16(bytes, '\t'));
        return scan_or16(control, scan_equal16(bytes, 0x7f));
    }
    ScanVector outside = scan_or16(scan_range16(bytes, 0x7f, 0x20), scan_equal16(bytes, '#'));
    if (class == SCAN_PATH)
        outside = scan_or16(outside, scan_or16(scan_equal16(bytes, '?'), scan_equal16(bytes, '%')));
    return outside;
}

/* The first byte outside among the last 16, all of which before `p` are inside. */
static inline const uint8_t *scan_last16(ScanClass class, const uint8_t *end)
{
    uint64_t outside = scan_any16(scan_outside16(class, scan_load16(end - 16)));
    return outside ? end - 16 + scan_index(outside) : end;
}

static inline const uint8_t *scan_by16(ScanClass class, const uint8_t *p, const uint8_t *end)
{
    if (end - p < 16)
        return scan_scalar(class, p, end);
    for (; end - p >= 16; p += 16) {
        uint64_t outside = scan_any16(scan_outside16(class, scan_load16(p)));
        if (outside)
            return p + scan_index(outside);
    }
    return scan_last16(class, end);
}

#endif

/* --- 32 bytes at once: AVX2 --- */

#ifdef SCAN_AVX2

#define SCAN_FOR_AVX2 __attribute__((target("avx2")))

SCAN_FOR_AVX2 static inline __m256i scan_equal32(__m256i bytes, char byte)
{
    return _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8(byte));
}

SCAN_FOR_AVX2 static inline __m256i scan_outside32(ScanClass class, __m256i bytes)
{
    __m256i outside = scan_equal32(bytes, 0x7f);
    if (class == SCAN_VALUE) {
        __m256i low = _mm256_cmpeq_epi8(_mm256_min_epu8(bytes, _mm256_set1_epi8(0x1f)), bytes);
        return _mm256_or_si256(outside, _mm256_andnot_si256(scan_equal32(bytes, '\t'), low));
    }
    /* Signed: bytes from 0x80 are negative, so this takes them too. */
    outside = _mm256_or_si256(outside, _mm256_cmpgt_epi8(_mm256_set1_epi8(0x21), bytes));
    outside = _mm256_or_si256(outside, scan_equal32(bytes, '#'));
    if (class == SCAN_PATH)
        outside =
            _mm256_or_si256(outside, _mm256_or_si256(scan_equal32(bytes, '?'), scan_equal32(bytes, '%')));
    return outside;
}

SCAN_FOR_AVX2 static inline const uint8_t *scan_by32(ScanClass class, const uint8_t *p, const uint8_t *end)
{
    if (end - p < 32)
        return scan_by16(class, p, end);
    for (; end - p >= 32; p += 32) {
        __m256i bytes = _mm256_loadu_si256((const __m256i *)(const void *)p);
        unsigned outside = (unsigned)_mm256_movemask_epi8(scan_outside32(class, bytes));
        if (outside)
            return p + __builtin_ctz(outside);
    }
    if (end - p >= 16)
        return scan_by16(class, p, end);
    return scan_last16(class, end);
}

SCAN_FOR_AVX2 static const uint8_t *scan_far_by32(ScanClass class, const uint8_t *p, const uint8_t *end)
{
    return class == SCAN_VALUE  ? scan_by32(SCAN_VALUE, p, end)
           : class == SCAN_PATH ? scan_by32(SCAN_PATH, p, end)
                                : scan_by32(SCAN_QUERY, p, end);
}

static const uint8_t *scan_far_by16(ScanClass class, const uint8_t *p, const uint8_t *end)
{
    return class == SCAN_VALUE  ? scan_by16(SCAN_VALUE, p, end)
           : class == SCAN_PATH ? scan_by16(SCAN_PATH, p, end)
                                : scan_by16(SCAN_QUERY, p, end);
}

/* What goes on behind the first SCAN_NEAR bytes; scan_choose() sets it. */
static const uint8_t *(*scan_far)(ScanClass, const uint8_t *, const uint8_t *) = scan_far_by16;

#endif

/* --- The chosen one --- */

#define SCAN_NEAR 64

/* To be called once, before the first scan(). */
static inline void scan_choose(void)
{
#ifdef SCAN_AVX2
    if (__builtin_cpu_supports("avx2"))
        scan_far = scan_far_by32;
#endif
}

/* The first byte of [p, end) outside `class`, or `end`. */
static inline const uint8_t *scan(ScanClass class, const uint8_t *p, const uint8_t *end)
{
#ifdef SCAN_VECTORS
    if (class <= SCAN_QUERY && end - p >= 16) {
#ifdef SCAN_AVX2
        const uint8_t *far = p + SCAN_NEAR;
#endif
        do {
            uint64_t outside = scan_any16(scan_outside16(class, scan_load16(p)));
            if (outside)
                return p + scan_index(outside);
            p += 16;
#ifdef SCAN_AVX2
            if (p == far)
                return scan_far(class, p, end);
#endif
        } while (end - p >= 16);
        return scan_last16(class, end);
    }
#endif
    return scan_scalar(class, p, end);
}

/* What the tests compare: each implementation by itself, and the chosen mixture. */
typedef enum { SCAN_WITH_SCALAR, SCAN_WITH_16, SCAN_WITH_32, SCAN_WITH_CHOSEN } ScanImplementation;

/* As scan(), by one implementation; NULL if this machine or class has none. */
static inline const uint8_t *scan_with(ScanImplementation implementation, ScanClass class, const uint8_t *p,
                                       const uint8_t *end)
{
    if (implementation == SCAN_WITH_SCALAR)
        return scan_scalar(class, p, end);
    if (implementation == SCAN_WITH_CHOSEN)
        return scan(class, p, end);
#ifdef SCAN_VECTORS
    if (implementation == SCAN_WITH_16 && class <= SCAN_QUERY)
        return scan_by16(class, p, end);
#endif
#ifdef SCAN_AVX2
    if (class <= SCAN_QUERY && __builtin_cpu_supports("avx2"))
        return scan_far_by32(class, p, end);
#endif
    return NULL;
}

/* --- Field names --- */

#define SCAN_NAME_BYTES 32

/* A field name of at most 32 bytes, in lower case, padded with zeros. */
typedef struct {
    uint64_t word[SCAN_NAME_BYTES / 8];
} ScanName;

/* Takes the `n` bytes at `p`, at most 32, as they are. */
static inline void scan_pad(const uint8_t *p, size_t n, ScanName *name)
{
    memset(name, 0, sizeof *name);
    memcpy(name, p, n);
}

/* Folds the `n` bytes at `p`, at most 32, all of them tchar. */
static inline void scan_fold(const uint8_t *p, size_t n, ScanName *name)
{
    uint8_t folded[SCAN_NAME_BYTES] = {0};
    for (size_t i = 0; i < n; i++)
        folded[i] = scan_lower[p[i]];
    memcpy(name, folded, sizeof folded);
}

#ifdef SCAN_VECTORS

static inline ScanVector scan_fold16(ScanVector bytes)
{
    return scan_or16(bytes, scan_and16(scan_range16(bytes, 'A', 'Z'), scan_all16(0x20)));
}

/* The first n bytes, n < 16. */
static inline ScanVector scan_first16(ScanVector bytes, size_t n)
{
    static const uint8_t masks[32] = {
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    };
    return scan_and16(bytes, scan_load16(masks + 16 - n));
}

#endif

/*
 * Folds the name before the first ":" at `p` and returns its length; 0 if that can't be told cheaply: no
 * ":" within 32 bytes, too few bytes for a vector, no vectors. The name is not validated: any byte may be in
 * it. A name of less than 16 bytes leaves the last two words alone.
 */
static inline size_t scan_name(const uint8_t *p, const uint8_t *end, ScanName *name)
{
#ifdef SCAN_VECTORS
    if (end - p < 16)
        return 0;
    ScanVector bytes = scan_load16(p);
    uint64_t colons = scan_any16(scan_equal16(bytes, ':'));
    if (colons) {
        size_t n = scan_index(colons);
        scan_store16(name->word, scan_first16(scan_fold16(bytes), n));
        return n;
    }
    if (end - p < 32)
        return 0;
    scan_store16(name->word, scan_fold16(bytes));
    bytes = scan_load16(p + 16);
    colons = scan_any16(scan_equal16(bytes, ':'));
    if (colons) {
        size_t n = scan_index(colons);
        scan_store16(name->word + 2, scan_first16(scan_fold16(bytes), n));
        return n + 16;
    }
#endif
    (void)p, (void)end, (void)name;
    return 0;
}

/* Whether two names of length `n` are equal. */
static inline int scan_same(const ScanName *a, const ScanName *b, size_t n)
{
    uint64_t difference = (a->word[0] ^ b->word[0]) | (a->word[1] ^ b->word[1]);
    if (n >= 16)
        difference |= (a->word[2] ^ b->word[2]) | (a->word[3] ^ b->word[3]);
    return !difference;
}

/* Mixes a name of length `n` into 64 bits, of which the highest are the best. */
static inline uint64_t scan_hash(const ScanName *name, size_t n, uint64_t multiplier)
{
    uint64_t mixed = name->word[0] ^ (name->word[1] << 23 | name->word[1] >> 41);
    if (n >= 16)
        mixed += name->word[2] ^ (name->word[3] << 17 | name->word[3] >> 47);
    return mixed * multiplier;
}

/* Mixes the length and the outer bytes of a value into 64 bits, of which the highest are the best. */
static inline uint64_t scan_sample(const uint8_t *p, size_t n)
{
    uint64_t first = 0, last = 0;
    if (n >= 8) {
        memcpy(&first, p, 8);
        memcpy(&last, p + n - 8, 8);
    } else if (n >= 4) {
        memcpy(&first, p, 4);
        memcpy(&last, p + n - 4, 4);
    } else if (n) {
        first = p[0];
        last = (uint64_t)p[n - 1] << 8 | p[n / 2];
    }
    return (first ^ (last << 23 | last >> 41) ^ n) * 0x9E3779B97F4A7C15u;
}

#endif
