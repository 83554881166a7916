/* What every kind of framing answers with: one line each for a frame, a need, a fault, a refusal. */
#ifndef SOCKFRAME_KIND_H
#define SOCKFRAME_KIND_H

#include <string.h>

#include "sockframe.h"

static inline int sf_found(sf_scan *scan, uint64_t size, uint64_t start, uint64_t stop)
{
    scan->size = size;
    scan->start = start;
    scan->stop = stop;
    return SF_FRAME;
}

/* At least `need` more bytes are missing, and nothing else is known. */
static inline int sf_want(sf_scan *scan, uint64_t need)
{
    scan->need = need;
    scan->size = 0;
    return SF_NEED;
}

/* The whole frame is known and not yet here: `have` bytes of it are. */
static inline int sf_await(sf_scan *scan, uint64_t have, uint64_t size, uint64_t start, uint64_t stop)
{
    (void)sf_found(scan, size, start, stop);
    scan->need = size - have;
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

static inline int sf_refuse(sf_wrapped *out, int fault, uint64_t number, uint64_t limit)
{
    out->fault = fault;
    out->number = number;
    out->limit = limit;
    return -1;
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
