/* Searching bytes 64 at a time: a block answers with one bit for each byte that is in a set, so that many short
 * frames are found without a call for each. By the vectors that every x86-64 and arm64 has; in plain C elsewhere,
 * and where SF_PORTABLE says so. */
#ifndef SOCKFRAME_SEARCH_H
#define SOCKFRAME_SEARCH_H

#include <string.h>

#include "sockframe.h"

#if defined(__SSE2__) && !defined(SF_PORTABLE)
#define SF_SSE2
#include <emmintrin.h>
#elif defined(__ARM_NEON) && defined(__aarch64__) && defined(__AARCH64EL__) && !defined(SF_PORTABLE)
#define SF_NEON
#include <arm_neon.h>
#endif

#define SF_BLOCK 64
#define SF_SET_FEW 4 /* bytes that are compared one by one: more are looked up in a table */
#define SF_FAR 2     /* empty blocks behind which a call of the C library pays: lines of 64 bytes do without */

/* A set of bytes. */
typedef struct {
    unsigned count;
    uint8_t byte[SF_SET_FEW];   /* where there are no more */
    uint64_t table[4];          /* a bit for each of the 256 */
} sf_set;

static inline int sf_set_has(const sf_set *set, uint8_t byte)
{
    return (int)(set->table[byte >> 6] >> (byte & 63) & 1);
}

static inline void sf_set_add(sf_set *set, uint8_t byte)
{
    if (sf_set_has(set, byte))
        return;
    if (set->count < SF_SET_FEW)
        set->byte[set->count] = byte;
    set->count++;
    set->table[byte >> 6] |= UINT64_C(1) << (byte & 63);
}

/* Eight bytes, the first of them the lowest or the highest: compilers make one load of it. */
static inline uint64_t sf_load_low(const uint8_t *data)
{
    return (uint64_t)data[0] | (uint64_t)data[1] << 8 | (uint64_t)data[2] << 16 | (uint64_t)data[3] << 24 |
           (uint64_t)data[4] << 32 | (uint64_t)data[5] << 40 | (uint64_t)data[6] << 48 | (uint64_t)data[7] << 56;
}

static inline uint64_t sf_load_high(const uint8_t *data)
{
    return (uint64_t)data[7] | (uint64_t)data[6] << 8 | (uint64_t)data[5] << 16 | (uint64_t)data[4] << 24 |
           (uint64_t)data[3] << 32 | (uint64_t)data[2] << 40 | (uint64_t)data[1] << 48 | (uint64_t)data[0] << 56;
}

/* The number of the lowest bit of `bits`, which has one. */
static inline unsigned sf_lowest(uint64_t bits)
{
#if defined(__GNUC__) && !defined(SF_PORTABLE)
    return (unsigned)__builtin_ctzll(bits);
#else
    unsigned number = 0;
    for (unsigned half = 32; half; half >>= 1)
        if (!(bits & ((UINT64_C(1) << half) - 1))) {
            bits >>= half;
            number += half;
        }
    return number;
#endif
}

/* Which of the 64 bytes at `data` are `byte`: the lowest bit is that of the first. */
static inline uint64_t sf_block_byte(const uint8_t *data, uint8_t byte)
{
#ifdef SF_SSE2
    const __m128i wanted = _mm_set1_epi8((char)byte);
    uint64_t bits = 0;
    for (unsigned i = 0; i < 4; i++) {
        __m128i part = _mm_loadu_si128((const __m128i *)(const void *)(data + 16 * i));
        bits |= (uint64_t)(uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(part, wanted)) << 16 * i;
    }
    return bits;
#elif defined(SF_NEON)
    static const uint8_t weights[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    const uint8x16_t wanted = vdupq_n_u8(byte), weight = vld1q_u8(weights);
    uint8x16_t part[4];
    for (unsigned i = 0; i < 4; i++)
        part[i] = vandq_u8(vceqq_u8(vld1q_u8(data + 16 * i), wanted), weight);
    part[0] = vpaddq_u8(vpaddq_u8(part[0], part[1]), vpaddq_u8(part[2], part[3]));
    return vgetq_lane_u64(vreinterpretq_u64_u8(vpaddq_u8(part[0], part[0])), 0);
#else
    const uint64_t ones = UINT64_C(0x0101010101010101), low = 0x7F * ones;
    uint64_t bits = 0;
    for (unsigned i = 0; i < 8; i++) {
        /* A byte that is right is 0 here, and the only one that does not carry into its highest bit. */
        uint64_t part = sf_load_low(data + 8 * i) ^ byte * ones;
        uint64_t equal = ~(((part & low) + low) | part | low) >> 7;
        bits |= equal * UINT64_C(0x0102040810204080) >> 56 << 8 * i;
    }
    return bits;
#endif
}

/* Which of the 64 bytes at `data` are in the set. */
static inline uint64_t sf_block(const sf_set *set, const uint8_t *data)
{
    if (set->count == 1)
        return sf_block_byte(data, set->byte[0]);
    uint64_t bits = 0;
    if (set->count <= SF_SET_FEW)
        for (unsigned i = 0; i < set->count; i++)
            bits |= sf_block_byte(data, set->byte[i]);
    else
        for (unsigned i = 0; i < SF_BLOCK; i++)
            bits |= (uint64_t)sf_set_has(set, data[i]) << i;
    return bits;
}

/* The same for the last, fewer than 64 bytes, behind which nothing is read. */
static inline uint64_t sf_block_last(const sf_set *set, const uint8_t *data, uint64_t size)
{
    uint8_t block[SF_BLOCK] = {0};
    memcpy(block, data, (size_t)size);
    return sf_block(set, block) & ((UINT64_C(1) << size) - 1);
}

/* Where a search is: {.next = from} begins one that expects many hits, {.next = from, .far = SF_FAR} one whose first
 * is likely far. */
typedef struct {
    uint64_t base, bits;  /* a block, and which of its bytes are still to be told */
    uint64_t next;        /* where the bytes begin that were not looked at */
    unsigned far;         /* blocks without a hit, in a row */
} sf_search;

/* The next byte of data[0 .. size) that is in the set, or size: each byte is looked at once. Where blocks are empty,
 * the C library goes on for a single byte: it costs a call, and is faster by the byte. */
static inline uint64_t sf_next(sf_search *search, const sf_set *set, const uint8_t *data, uint64_t size)
{
    while (!search->bits) {
        uint64_t at = search->next;
        if (at >= size)
            return size;
        if (search->far >= SF_FAR && set->count == 1) {
            const uint8_t *hit = memchr(data + at, set->byte[0], (size_t)(size - at));
            at = hit ? (uint64_t)(hit - data) : size;
            search->next = at + 1;
            search->far = 0;
            return at;
        }
        search->base = at;
        search->next = at + SF_BLOCK;
        search->bits = size - at >= SF_BLOCK ? sf_block(set, data + at) : sf_block_last(set, data + at, size - at);
        search->far = search->bits ? 0 : search->far + 1;
    }
    uint64_t hit = search->base + sf_lowest(search->bits);
    search->bits &= search->bits - 1;
    return hit;
}

#endif
