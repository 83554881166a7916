/* FixedLength: every payload has the same length. */
#include "kind.h"

enum { LENGTH };

static int scan_fixed(const sf_framing *framing, const uint8_t *data, uint64_t size, sf_scan *scan)
{
    uint64_t length = framing->number[LENGTH];
    (void)data;
    if (length > framing->max_length) /* in a Tagged with a lower limit; a fault is in a byte, and needs one */
        return size ? sf_too_long(framing, scan, length, 1, size, length, 0, length) : sf_want(scan, 1);
    if (size < length)
        return sf_await(scan, size, length, 0, length);
    return sf_found(scan, length, 0, length);
}

static size_t frames_fixed(const sf_framing *framing, const uint8_t *data, uint64_t size, sf_span *spans, size_t most,
                           uint64_t *used, uint64_t *searched)
{
    uint64_t length = framing->number[LENGTH], at = 0;
    size_t found = 0;
    (void)data;
    for (; found < most && length <= framing->max_length && size - at >= length; at += length) {
        spans[found].start = at;
        spans[found++].stop = at + length;
    }
    *used = at;
    *searched = 0;
    return found;
}

static int wrap_fixed(const sf_framing *framing, const uint8_t *payload, uint64_t size, sf_wrapped *out)
{
    (void)payload;
    if (size > framing->max_length)
        return sf_refuse(out, SF_WRAP_TOO_LONG, size, framing->max_length);
    if (size != framing->number[LENGTH])
        return sf_refuse(out, SF_WRAP_SIZE, size, framing->number[LENGTH]);
    return 0;
}

const sf_kind sf_fixed = {.name = "fixed", .scan = scan_fixed, .wrap = wrap_fixed, .skip = sf_skip_sized,
                           .frames = frames_fixed};
