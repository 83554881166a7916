/* Tagged: a byte picks the framing (children) that reads the frame. */
#include "kind.h"

enum { OFFSET, MASK };
enum { TABLE }; /* 256 little-endian 16-bit numbers: the child of each tag, counted from 1; 0 is none */

static unsigned slot(const sf_framing *framing, uint8_t byte)
{
    const uint8_t *entry = framing->text[TABLE].data + 2 * (byte & framing->number[MASK]);
    return (unsigned)entry[0] | (unsigned)entry[1] << 8;
}

static int scan_tagged(const sf_framing *framing, const uint8_t *data, uint64_t size, sf_scan *scan)
{
    uint64_t least = framing->number[OFFSET] + 1;
    if (size < least)
        return sf_want(scan, least - size);
    unsigned number = slot(framing, data[least - 1]);
    if (!number)
        return sf_fail(scan, SF_TAG, data[least - 1] & framing->number[MASK], 0, least);
    int status = sf_scan_frame(framing->child[number - 1], data, size, scan);
    if (status == SF_FAULT && scan->seen < least)
        scan->seen = least;
    if (status == SF_FRAME && scan->size < least)
        return sf_fail(scan, SF_TOO_SHORT, scan->size, least, least);
    if (status == SF_LONG) {
        /* Nor may an overlong one end, or be bad, in front of its tag. */
        sf_scan trial = *scan;
        trial.ended = 0;
        int ending = sf_skip_frame(data, least - 1, &trial);
        if (ending == SF_FRAME)
            return sf_fail(scan, SF_TOO_SHORT, trial.size, least, least);
        if (ending == SF_FAULT)
            return sf_fail(scan, trial.fault, trial.number, trial.limit, least);
    }
    return status;
}

static int wrap_tagged(const sf_framing *framing, const uint8_t *payload, uint64_t size, sf_wrapped *out)
{
    uint64_t at = framing->number[OFFSET];
    unsigned number = at < size ? slot(framing, payload[at]) : 0;
    if (!number)
        return sf_refuse(out, SF_WRAP_TAG, 0, 0);
    int status = sf_wrap_frame(framing->child[number - 1], payload, size, out);
    if (status < 0)
        return status;
    /* A framing that takes the tag off, puts a header in front or stuffs must still leave it in its place. */
    uint64_t behind = at - out->header_size;
    uint8_t tag = at < out->header_size ? out->header[at] : payload[at];
    if (at >= out->header_size && !out->by && behind < out->body_size)
        tag = out->body[behind];
    else if (at >= out->header_size)
        return sf_refuse(out, SF_WRAP_TAG, 0, 0);
    return slot(framing, tag) == number ? 0 : sf_refuse(out, SF_WRAP_TAG, 0, 0);
}

const sf_kind sf_tagged = {.name = "tagged", .scan = scan_tagged, .wrap = wrap_tagged};
