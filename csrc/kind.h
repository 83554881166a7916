/* What every kind of framing answers with: one line each for a frame, a need, a fault, a refusal. */
#ifndef SOCKFRAME_KIND_H
#define SOCKFRAME_KIND_H

#include <string.h>

#include "sockframe.h"

/* Copy and compare `size` bytes, none of which need be there where it is 0: of what is in memory a size fits
 * size_t, also where that has 32 bits. */
static inline void sf_copy(uint8_t *to, const uint8_t *from, uint64_t size)
{
    if (size)
        memcpy(to, from, (size_t)size);
}

static inline int sf_equal(const uint8_t *one, const uint8_t *other, uint64_t size)
{
    return !size || !memcmp(one, other, (size_t)size);
}

/* A byte that is looked at more than once, and that another thread may change between: it is read once. */
static inline uint8_t sf_once(const uint8_t *data) { return *(const volatile uint8_t *)data; }

/* Have data[from .. to) brought into the cache while other work is done: what is read in order the processor sees coming,
 * but not what a length leaps to. */
static inline void sf_bring_near(const uint8_t *data, uint64_t from, uint64_t to, uint64_t size)
{
#ifdef __GNUC__
    for (to = to < size ? to : size; from < to; from += 64)
        __builtin_prefetch(data + from);
#else
    (void)data, (void)from, (void)to, (void)size;
#endif
}

static inline int sf_found(sf_scan *scan, uint64_t size, uint64_t start, uint64_t stop)
{
    scan->size = size;
    scan->start = start;
    scan->stop = stop;
    scan->plain = stop - start;
    scan->by = NULL;
    return SF_FRAME;
}

/* At least `need` more bytes are missing, and nothing else is known; 0: no frame has begun. */
static inline int sf_want(sf_scan *scan, uint64_t need)
{
    scan->need = need;
    scan->size = 0;
    scan->quiet = 0;
    return SF_NEED;
}

/* The whole frame is known and not yet here: `have` bytes of it are. */
static inline int sf_await(sf_scan *scan, uint64_t have, uint64_t size, uint64_t start, uint64_t stop)
{
    (void)sf_found(scan, size, start, stop);
    scan->need = size - have;
    scan->quiet = stop < size ? stop + 1 : size;
    return SF_NEED;
}

static inline int sf_fail(sf_scan *scan, int fault, uint64_t number, uint64_t limit, uint64_t seen)
{
    scan->fault = fault;
    scan->number = number;
    scan->limit = limit;
    scan->seen = seen;
    return SF_FAULT;
}

/* A payload above the limit, `length` bytes or 0 where that is not known; `seen` bytes show it, `have` are
 * here. The frame has `size` bytes (0: not known), its payload lies from `start` to `stop`. */
static inline int sf_too_long(const sf_framing *framing, sf_scan *scan, uint64_t length, uint64_t seen,
                              uint64_t have, uint64_t size, uint64_t start, uint64_t stop)
{
    if (framing->overlong == SF_OVERLONG_ERROR || size == UINT64_MAX)
        return sf_fail(scan, SF_TOO_LONG, length, framing->max_length, seen);
    if (framing->overlong == SF_OVERLONG_TRUNCATE && have < start + framing->max_length) {
        (void)sf_want(scan, start + framing->max_length - have);
        scan->quiet = start + framing->max_length;
        return SF_NEED;
    }
    scan->size = size;
    scan->start = start;
    scan->by = framing;
    scan->left = size;
    scan->behind = size - stop;
    scan->passed = 0;
    scan->resume = seen; /* so much was searched */
    return SF_LONG;
}

/* Pass over a frame of known size; `end` is checked, where it closes the frame. */
static inline int sf_skip_known(const uint8_t *data, uint64_t size, sf_scan *scan, const sf_text *end)
{
    uint64_t here = size < scan->left ? size : scan->left;
    uint64_t body = scan->left > scan->behind ? scan->left - scan->behind : 0;
    for (uint64_t i = body; i < here && end; i++) {
        uint64_t place = scan->behind - scan->left + i;
        if (place < end->size && data[i] != end->data[place])
            return sf_fail(scan, SF_END, data[i], 0, scan->passed + i + 1);
    }
    scan->size = here;
    scan->left -= here;
    scan->passed += here;
    scan->need = scan->left;
    return scan->left ? SF_NEED : SF_FRAME;
}

static inline int sf_skip_sized(const sf_framing *framing, const uint8_t *data, uint64_t size, sf_scan *scan)
{
    (void)framing;
    return sf_skip_known(data, size, scan, NULL);
}

/* The end of the first `text` that ends behind data[from], or 0: what was searched is not searched again. */
static inline uint64_t sf_find_end(const sf_text *text, const uint8_t *data, uint64_t from, uint64_t size)
{
    int last = text->data[text->size - 1];
    while (from < size) {
        const uint8_t *hit = memchr(data + from, last, (size_t)(size - from));
        if (!hit)
            return 0;
        from = (uint64_t)(hit - data) + 1;
        if (from >= text->size && sf_equal(data + from - text->size, text->data, text->size))
            return from;
    }
    return 0;
}

/* How many bytes `fill` are in front of a frame, of which data[0 .. resume) was searched: behind them it holds no
 * other `fill`, so that halving finds their end. */
static inline uint64_t sf_leading(int fill, const uint8_t *data, uint64_t resume, uint64_t size)
{
    uint64_t low = 0, high = resume;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (data[middle] == fill)
            low = middle + 1;
        else
            high = middle;
    }
    while (low < size && data[low] == fill)
        low++;
    return low;
}

/* The least number of bytes that would complete `text` behind data[size]. */
static inline uint64_t sf_missing(const sf_text *text, const uint8_t *data, uint64_t size)
{
    uint64_t part = text->size - 1 < size ? text->size - 1 : size;
    while (part && !sf_equal(data + size - part, text->data, part))
        part--;
    return text->size - part;
}

/* The first `byte` from data[from] on, or size. */
static inline uint64_t sf_find_byte(int byte, const uint8_t *data, uint64_t from, uint64_t size)
{
    const uint8_t *hit = from < size ? memchr(data + from, byte, (size_t)(size - from)) : NULL;
    return hit ? (uint64_t)(hit - data) : size;
}

/* Pass over a stuffed frame, which `byte` ends. */
static inline int sf_skip_stuffed(int byte, const uint8_t *data, uint64_t size, sf_scan *scan)
{
    if (scan->left)
        return sf_skip_known(data, size, scan, NULL);
    uint64_t end = sf_find_byte(byte, data, scan->resume, size);
    scan->resume = 0;
    scan->size = end < size ? end + 1 : size;
    scan->passed += scan->size;
    scan->need = 1;
    return end < size ? SF_FRAME : SF_NEED;
}

static inline int sf_refuse(sf_wrapped *out, int fault, uint64_t number, uint64_t limit)
{
    out->fault = fault;
    out->number = number;
    out->limit = limit;
    return SF_FAULT;
}

/* a + b, or the largest number where that overflows: such a length is always over the limit. */
static inline uint64_t sf_add(uint64_t a, uint64_t b) { return a > UINT64_MAX - b ? UINT64_MAX : a + b; }

/* Check that what is here of `text` at data[at] is right: the number of its bytes that are here, or
 * -1 with the fault. */
static inline int sf_match(sf_scan *scan, int fault, const sf_text *text, const uint8_t *data, uint64_t at,
                           uint64_t size)
{
    uint64_t here = size - at < text->size ? size - at : text->size;
    for (uint64_t i = 0; i < here; i++)
        if (data[at + i] != text->data[i]) {
            (void)sf_fail(scan, fault, data[at + i], 0, at + i + 1);
            return -1;
        }
    return (int)here;
}

#endif
