/*
 * The Huffman code of HPACK (RFC 7541 section 5.2 and appendix B), both ways. Plain C11, no Python.
 *
 * A range is always (p, end). Nothing is read at or behind `end`. Pointers are borrowed for the length of a
 * call.
 *
 * The code is canonical: codes of one length follow each other in the order of their symbols, and longer
 * codes follow shorter ones. So the lengths are all that has to be written down; huffman_build() makes the
 * tables.
 */
#ifndef FASTASGI_HUFFMAN_H
#define FASTASGI_HUFFMAN_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define HUFFMAN_EOS 256
#define HUFFMAN_SYMBOLS 257
#define HUFFMAN_SHORTEST 5 /* bits of a code, at least */
#define HUFFMAN_LONGEST 30 /* bits of a code, at most */

/* Bits of each symbol's code; the last one is EOS. */
static const uint8_t huffman_lengths[HUFFMAN_SYMBOLS] = {
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28,
    28, 28, 28, 28, 28, 28, 6,  10, 10, 12, 13, 6,  8,  11, 10, 10, 8,  11, 8,  6,  6,  6,  5,  5,  5,  6,
    6,  6,  6,  6,  6,  6,  7,  8,  15, 6,  12, 10, 13, 6,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,
    7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  8,  7,  8,  13, 19, 13, 14, 6,  15, 5,  6,  5,  6,  5,  6,  6,
    6,  5,  7,  7,  6,  6,  6,  5,  6,  7,  6,  5,  5,  6,  7,  7,  7,  7,  7,  15, 11, 14, 13, 28, 20, 22,
    20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23,
    22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22,
    23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22,
    25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
};

/* The codes, in the lowest bits. */
static uint32_t huffman_codes[HUFFMAN_SYMBOLS];

/* --- Tables of the decoder --- */

#define HUFFMAN_ROOT_BITS 12

/*
 * What the next 12 bits begin with: two symbols if both codes are whole, or one. The last byte of `symbols`
 * is of no account then.
 */
typedef struct {
    uint8_t symbols[2];
    uint8_t first; /* bits of the first symbol's code; 0 if it is longer than 12 bits */
    uint8_t all;   /* bits of all codes */
} HuffmanEntry;

static HuffmanEntry huffman_root[1 << HUFFMAN_ROOT_BITS];

/* For codes of n bits: the first code behind them, in the highest of 32 bits; 2^32 - 1 at the end. */
static uint32_t huffman_behind[HUFFMAN_LONGEST + 1];
/* Added to a code of n bits, it makes an index of huffman_ordered. */
static uint16_t huffman_offset[HUFFMAN_LONGEST + 1];
/* The symbols in the order of their codes. */
static uint16_t huffman_ordered[HUFFMAN_SYMBOLS];

/* The length of the code at the head of these bits, which are at least 30. */
static inline unsigned huffman_length(uint32_t bits, unsigned shortest)
{
    while (bits >= huffman_behind[shortest] && shortest < HUFFMAN_LONGEST)
        shortest++;
    return shortest;
}

/* The symbol whose code of `length` bits these bits begin with. */
static inline unsigned huffman_symbol(uint32_t bits, unsigned length)
{
    return huffman_ordered[(uint16_t)((bits >> (32 - length)) + huffman_offset[length])];
}

/* Sets one entry of huffman_root: to the symbols whose codes are whole in these highest 12 bits. */
static inline void huffman_fill(HuffmanEntry *entry, uint32_t bits)
{
    unsigned first = huffman_length(bits, HUFFMAN_SHORTEST);
    if (first > HUFFMAN_ROOT_BITS)
        return;
    entry->symbols[0] = (uint8_t)huffman_symbol(bits, first);
    entry->first = entry->all = (uint8_t)first;
    bits <<= first;
    unsigned second = huffman_length(bits, HUFFMAN_SHORTEST);
    if (first + second <= HUFFMAN_ROOT_BITS) {
        entry->symbols[1] = (uint8_t)huffman_symbol(bits, second);
        entry->all = (uint8_t)(first + second);
    }
}

/* To be called once, before anything else. */
static inline void huffman_build(void)
{
    uint32_t code = 0;
    unsigned count = 0;
    for (unsigned length = 1; length <= HUFFMAN_LONGEST; length++) {
        code <<= 1;
        huffman_offset[length] = (uint16_t)(count - code);
        for (unsigned symbol = 0; symbol < HUFFMAN_SYMBOLS; symbol++) {
            if (huffman_lengths[symbol] == length) {
                huffman_codes[symbol] = code++;
                huffman_ordered[count++] = (uint16_t)symbol;
            }
        }
        huffman_behind[length] = length < HUFFMAN_LONGEST ? code << (32 - length) : UINT32_MAX;
    }
    for (uint32_t bits = 0; bits < 1u << HUFFMAN_ROOT_BITS; bits++)
        huffman_fill(&huffman_root[bits], bits << (32 - HUFFMAN_ROOT_BITS));
}

/* --- Decoding --- */

/* Bytes that have to be there for what huffman_decode() makes of n bytes. */
static inline size_t huffman_room(size_t n)
{
    return n * 8 / HUFFMAN_SHORTEST + 2;
}

static inline uint64_t huffman_load8(const uint8_t *p)
{
    return (uint64_t)p[0] << 56 | (uint64_t)p[1] << 48 | (uint64_t)p[2] << 40 | (uint64_t)p[3] << 32 |
           (uint64_t)p[4] << 24 | (uint64_t)p[5] << 16 | (uint64_t)p[6] << 8 | p[7];
}

/*
 * Decodes the end of a string: the highest `count` of `bits`, less than 64, then [p, end). What follows the
 * last symbol is padding: less than 8 bits, with which EOS begins. Returns the end of what was written, or
 * NULL.
 */
static inline uint8_t *huffman_decode_last(uint64_t bits, unsigned count, const uint8_t *p,
                                           const uint8_t *end, uint8_t *out)
{
    for (;;) {
        for (; count <= 56 && p < end; p++, count += 8)
            bits |= (uint64_t)*p << (56 - count);
        uint64_t padded = count < 64 ? bits | ~(uint64_t)0 >> count : bits;
        HuffmanEntry entry = huffman_root[padded >> (64 - HUFFMAN_ROOT_BITS)];
        unsigned length = entry.all;
        if (length && length <= count) {
            memcpy(out, entry.symbols, 2);
            out += 1 + (length > entry.first);
        } else {
            uint32_t head = (uint32_t)(padded >> 32);
            length = huffman_length(head, HUFFMAN_SHORTEST);
            if (length > count)
                return count < 8 && padded == ~(uint64_t)0 ? out : NULL;
            unsigned symbol = huffman_symbol(head, length);
            if (symbol == HUFFMAN_EOS)
                return NULL;
            *out++ = (uint8_t)symbol;
        }
        bits <<= length;
        count -= length;
    }
}

/*
 * Writes the string whose code is [p, end) to `out`, where huffman_room() bytes have to be there. Returns its
 * end; NULL if the code is malformed: EOS is in it, or its padding has 8 bits or more, or is not what EOS
 * begins with.
 */
static inline uint8_t *huffman_decode(const uint8_t *p, const uint8_t *end, uint8_t *out)
{
    uint64_t bits = 0;  /* the next bits, from the highest on */
    unsigned count = 0; /* how many of them count; those behind them are 0, or what will be there anyway */
    while (end - p >= 8) {
        bits |= huffman_load8(p) >> count;
        p += (63 - count) >> 3;
        count |= 56;
        do {
            HuffmanEntry entry = huffman_root[bits >> (64 - HUFFMAN_ROOT_BITS)];
            unsigned length = entry.all;
            if (length) {
                memcpy(out, entry.symbols, 2);
                out += 1 + (length > entry.first);
            } else {
                uint32_t head = (uint32_t)(bits >> 32);
                length = huffman_length(head, HUFFMAN_ROOT_BITS + 1);
                unsigned symbol = huffman_symbol(head, length);
                if (symbol == HUFFMAN_EOS)
                    return NULL;
                *out++ = (uint8_t)symbol;
            }
            bits <<= length;
            count -= length;
        } while (count >= HUFFMAN_LONGEST);
    }
    return huffman_decode_last(bits, count, p, end, out);
}

/* --- Encoding --- */

/* Bytes that huffman_encode() makes of [p, end). */
static inline size_t huffman_size(const uint8_t *p, const uint8_t *end)
{
    size_t bits = 0;
    while (p < end)
        bits += huffman_lengths[*p++];
    return (bits + 7) / 8;
}

/* Writes the code of [p, end) to `out` and returns its end. */
static inline uint8_t *huffman_encode(const uint8_t *p, const uint8_t *end, uint8_t *out)
{
    uint64_t bits = 0;  /* the last bits that are not written yet, and written ones before them */
    unsigned count = 0; /* how many are not written */
    for (; p < end; p++) {
        bits = bits << huffman_lengths[*p] | huffman_codes[*p];
        count += huffman_lengths[*p];
        for (; count >= 8; count -= 8)
            *out++ = (uint8_t)(bits >> (count - 8));
    }
    if (count)
        *out++ = (uint8_t)(bits << (8 - count) | 0xffu >> count);
    return out;
}

#endif
