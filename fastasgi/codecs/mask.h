/*
 * WebSocket payloads: takes the mask off (RFC 6455 section 5.3), checks UTF-8 (RFC 3629). Plain C11, no
 * Python.
 *
 * Both go on across pieces of any size. No implementation touches a byte outside the given ranges: inputs may
 * end at an unmapped page. Pointers are borrowed for the length of a call.
 *
 * Implementations: scalar (any machine), SSE2 (every x86-64), NEON (every aarch64), and AVX2, taken at run
 * time for what is longer than MASK_NEAR bytes: shorter payloads do not pay for the indirect call.
 */
#ifndef FASTASGI_MASK_H
#define FASTASGI_MASK_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__GNUC__) && defined(__SSE2__)
#define MASK_SSE2 1
#include <immintrin.h>
#elif defined(__GNUC__) && defined(__aarch64__)
#define MASK_NEON 1
#include <arm_neon.h>
#endif

#if defined(MASK_SSE2) || defined(MASK_NEON)
#define MASK_VECTORS 1
#endif
#if defined(MASK_SSE2) && defined(__x86_64__)
#define MASK_AVX2 1
#endif

/* --- Unmasking --- */

/*
 * A key is its four bytes as they lie in memory; the first one masks the first byte of the piece. All
 * unmask_* copy n bytes and return not 0 if one of the copied bytes is 0x80 or more, so that a text is
 * known to be ASCII without another look. `dst` and `src` do not overlap.
 */

#define MASK_HIGH_BITS 0x8080808080808080u

/* The key for what follows n bytes. */
static inline uint32_t mask_turn(uint32_t key, size_t n)
{
    unsigned bits = 8 * (unsigned)(n & 3);
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    return key << bits | key >> (-bits & 31);
#else
    return key >> bits | key << (-bits & 31);
#endif
}

static inline uint64_t mask_8(uint8_t *dst, const uint8_t *src, uint32_t key)
{
    uint64_t word;
    memcpy(&word, src, 8);
    word ^= (uint64_t)key << 32 | key;
    memcpy(dst, &word, 8);
    return word;
}

static inline uint64_t mask_4(uint8_t *dst, const uint8_t *src, uint32_t key)
{
    uint32_t word;
    memcpy(&word, src, 4);
    word ^= key;
    memcpy(dst, &word, 4);
    return word;
}

/* Less than 16 bytes. */
static inline int unmask_few(uint8_t *dst, const uint8_t *src, size_t n, uint32_t key)
{
    uint64_t seen = 0;
    if (n >= 8) {
        seen = mask_8(dst, src, key);
        seen |= mask_8(dst + n - 8, src + n - 8, mask_turn(key, n));
    } else if (n >= 4) {
        seen = mask_4(dst, src, key);
        seen |= mask_4(dst + n - 4, src + n - 4, mask_turn(key, n));
    } else {
        uint8_t bytes[4];
        memcpy(bytes, &key, 4);
        for (size_t i = 0; i < n; i++) {
            dst[i] = src[i] ^ bytes[i];
            seen |= dst[i];
        }
    }
    return (seen & MASK_HIGH_BITS) != 0;
}

static inline int unmask_scalar(uint8_t *dst, const uint8_t *src, size_t n, uint32_t key)
{
    uint64_t seen = 0;
    size_t done = 0;
    for (; n - done >= 16; done += 8)
        seen |= mask_8(dst + done, src + done, key);
    return unmask_few(dst + done, src + done, n - done, key) | ((seen & MASK_HIGH_BITS) != 0);
}

#if defined(MASK_SSE2)

typedef __m128i MaskVector;

static inline MaskVector mask_load16(const uint8_t *p)
{
    return _mm_loadu_si128((const __m128i *)(const void *)p);
}

static inline MaskVector mask_all16(uint32_t key)
{
    return _mm_set1_epi32((int)key);
}

static inline MaskVector mask_or16(MaskVector a, MaskVector b)
{
    return _mm_or_si128(a, b);
}

/* Copies and returns 16 bytes. */
static inline MaskVector mask_16(uint8_t *dst, const uint8_t *src, MaskVector key)
{
    MaskVector bytes = _mm_xor_si128(mask_load16(src), key);
    _mm_storeu_si128((__m128i *)(void *)dst, bytes);
    return bytes;
}

/* Whether a byte is 0x80 or more. */
static inline int mask_high16(MaskVector bytes)
{
    return _mm_movemask_epi8(bytes) != 0;
}

#elif defined(MASK_NEON)

typedef uint8x16_t MaskVector;

static inline MaskVector mask_load16(const uint8_t *p)
{
    return vld1q_u8(p);
}

static inline MaskVector mask_all16(uint32_t key)
{
    return vreinterpretq_u8_u32(vdupq_n_u32(key));
}

static inline MaskVector mask_or16(MaskVector a, MaskVector b)
{
    return vorrq_u8(a, b);
}

static inline MaskVector mask_16(uint8_t *dst, const uint8_t *src, MaskVector key)
{
    MaskVector bytes = veorq_u8(mask_load16(src), key);
    vst1q_u8(dst, bytes);
    return bytes;
}

static inline int mask_high16(MaskVector bytes)
{
    return vmaxvq_u8(bytes) >= 0x80;
}

#endif

#ifdef MASK_VECTORS

static inline int unmask_by16(uint8_t *dst, const uint8_t *src, size_t n, uint32_t key)
{
    if (n < 16)
        return unmask_few(dst, src, n, key);
    MaskVector keys = mask_all16(key);
    MaskVector seen = mask_16(dst, src, keys);
    for (size_t done = 16; n - done >= 16; done += 16)
        seen = mask_or16(seen, mask_16(dst + done, src + done, keys));
    /* The last 16 bytes, some of them for the second time. */
    seen = mask_or16(seen, mask_16(dst + n - 16, src + n - 16, mask_all16(mask_turn(key, n))));
    return mask_high16(seen);
}

#endif

#ifdef MASK_AVX2

#define MASK_FOR_AVX2 __attribute__((target("avx2")))

MASK_FOR_AVX2 static inline __m256i mask_32(uint8_t *dst, const uint8_t *src, __m256i key)
{
    __m256i bytes = _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)(const void *)src), key);
    _mm256_storeu_si256((__m256i *)(void *)dst, bytes);
    return bytes;
}

MASK_FOR_AVX2 static int unmask_by32(uint8_t *dst, const uint8_t *src, size_t n, uint32_t key)
{
    if (n < 32)
        return unmask_by16(dst, src, n, key);
    __m256i keys = _mm256_set1_epi32((int)key);
    __m256i seen = mask_32(dst, src, keys);
    __m256i seen_too = seen;
    size_t done = 32;
    for (; n - done >= 64; done += 64) {
        seen = _mm256_or_si256(seen, mask_32(dst + done, src + done, keys));
        seen_too = _mm256_or_si256(seen_too, mask_32(dst + done + 32, src + done + 32, keys));
    }
    if (n - done >= 32)
        seen = _mm256_or_si256(seen, mask_32(dst + done, src + done, keys));
    keys = _mm256_set1_epi32((int)mask_turn(key, n));
    seen = _mm256_or_si256(seen, mask_32(dst + n - 32, src + n - 32, keys));
    return _mm256_movemask_epi8(_mm256_or_si256(seen, seen_too)) != 0;
}

/* What copies more than MASK_NEAR bytes; mask_choose() sets it. */
static int (*unmask_far)(uint8_t *, const uint8_t *, size_t, uint32_t) = unmask_by16;

#endif

#define MASK_NEAR 128

/* To be called once, before the first unmask_copy(). */
static inline void mask_choose(void)
{
#ifdef MASK_AVX2
    if (__builtin_cpu_supports("avx2"))
        unmask_far = unmask_by32;
#endif
}

static inline int unmask_copy(uint8_t *dst, const uint8_t *src, size_t n, uint32_t key)
{
#ifdef MASK_AVX2
    if (n > MASK_NEAR)
        return unmask_far(dst, src, n, key);
#endif
#ifdef MASK_VECTORS
    return unmask_by16(dst, src, n, key);
#else
    return unmask_scalar(dst, src, n, key);
#endif
}

/* What the tests compare: each implementation by itself, and the chosen mixture. */
typedef enum { MASK_WITH_SCALAR, MASK_WITH_16, MASK_WITH_32, MASK_WITH_CHOSEN } MaskImplementation;

/* As unmask_copy(), by one implementation; -1 if this machine has none. */
static inline int unmask_with(MaskImplementation implementation, uint8_t *dst, const uint8_t *src, size_t n,
                              uint32_t key)
{
    if (implementation == MASK_WITH_SCALAR)
        return unmask_scalar(dst, src, n, key);
    if (implementation == MASK_WITH_CHOSEN)
        return unmask_copy(dst, src, n, key);
#ifdef MASK_VECTORS
    if (implementation == MASK_WITH_16)
        return unmask_by16(dst, src, n, key);
#endif
#ifdef MASK_AVX2
    if (__builtin_cpu_supports("avx2"))
        return unmask_by32(dst, src, n, key);
#endif
    return -1;
}

/* --- UTF-8 --- */

/*
 * Where a text stands between two of its bytes; UTF8_WHOLE at its beginning. The value is the place of the
 * state's 6 bits in each entry of utf8_next, which hold the state that follows.
 */
typedef enum {
    UTF8_BAD = 0,     /* the text can't be UTF-8 any more */
    UTF8_WHOLE = 6,   /* between two characters */
    UTF8_LAST_1 = 12, /* so many continuation bytes to come */
    UTF8_LAST_2 = 18,
    UTF8_LAST_3 = 24,
    UTF8_E0 = 30, /* behind this byte: not every continuation byte may follow */
    UTF8_ED = 36,
    UTF8_F0 = 42,
    UTF8_F4 = 48
} Utf8State;

#define UTF8_STEP(from, to) ((uint64_t)(to) << (from))
#define UTF8_ASCII UTF8_STEP(UTF8_WHOLE, UTF8_WHOLE)
#define UTF8_MORE                                                                                            \
    (UTF8_STEP(UTF8_LAST_1, UTF8_WHOLE) | UTF8_STEP(UTF8_LAST_2, UTF8_LAST_1) |                              \
     UTF8_STEP(UTF8_LAST_3, UTF8_LAST_2))
#define UTF8_80 (UTF8_MORE | UTF8_STEP(UTF8_ED, UTF8_LAST_1) | UTF8_STEP(UTF8_F4, UTF8_LAST_2))
#define UTF8_90 (UTF8_MORE | UTF8_STEP(UTF8_ED, UTF8_LAST_1) | UTF8_STEP(UTF8_F0, UTF8_LAST_2))
#define UTF8_A0 (UTF8_MORE | UTF8_STEP(UTF8_E0, UTF8_LAST_1) | UTF8_STEP(UTF8_F0, UTF8_LAST_2))
#define UTF8_LEAD_2 UTF8_STEP(UTF8_WHOLE, UTF8_LAST_1)
#define UTF8_LEAD_3 UTF8_STEP(UTF8_WHOLE, UTF8_LAST_2)
#define UTF8_LEAD_4 UTF8_STEP(UTF8_WHOLE, UTF8_LAST_3)
#define UTF8_LEAD(state) UTF8_STEP(UTF8_WHOLE, state)
#define UTF8_X4(entry) entry, entry, entry, entry
#define UTF8_X16(entry) UTF8_X4(entry), UTF8_X4(entry), UTF8_X4(entry), UTF8_X4(entry)

/* What each byte makes of each state (RFC 3629 section 4); UTF8_BAD wherever nothing else is said. */
/* clang-format off */
static const uint64_t utf8_next[256] = {
    /* 00 */ UTF8_X16(UTF8_ASCII), UTF8_X16(UTF8_ASCII), UTF8_X16(UTF8_ASCII), UTF8_X16(UTF8_ASCII),
    /* 40 */ UTF8_X16(UTF8_ASCII), UTF8_X16(UTF8_ASCII), UTF8_X16(UTF8_ASCII), UTF8_X16(UTF8_ASCII),
    /* 80 */ UTF8_X16(UTF8_80), UTF8_X16(UTF8_90), UTF8_X16(UTF8_A0), UTF8_X16(UTF8_A0),
    /* c0 */ 0, 0, UTF8_LEAD_2, UTF8_LEAD_2, UTF8_X4(UTF8_LEAD_2), UTF8_X4(UTF8_LEAD_2), UTF8_X4(UTF8_LEAD_2),
    /* d0 */ UTF8_X16(UTF8_LEAD_2),
    /* e0 */ UTF8_LEAD(UTF8_E0), UTF8_X4(UTF8_LEAD_3), UTF8_X4(UTF8_LEAD_3), UTF8_X4(UTF8_LEAD_3),
    /* ed */ UTF8_LEAD(UTF8_ED), UTF8_LEAD_3, UTF8_LEAD_3,
    /* f0 */ UTF8_LEAD(UTF8_F0), UTF8_LEAD_4, UTF8_LEAD_4, UTF8_LEAD_4, UTF8_LEAD(UTF8_F4),
};
/* clang-format on */

/* The state behind [p, end), reached from `state`. */
static inline Utf8State utf8_check(Utf8State state, const uint8_t *p, const uint8_t *end)
{
    uint64_t now = state;
    while (end - p >= 16) {
#ifdef MASK_VECTORS
        if (now == UTF8_WHOLE && !mask_high16(mask_load16(p))) {
            p += 16;
            continue;
        }
#endif
        for (int i = 0; i < 16; i++)
            now = utf8_next[*p++] >> (now & 63);
        now &= 63;
        if (now == UTF8_BAD)
            return UTF8_BAD;
    }
    while (p < end)
        now = utf8_next[*p++] >> (now & 63);
    return (Utf8State)(now & 63);
}

#endif
