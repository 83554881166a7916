/* Cobs: consistent overhead byte stuffing (Cheshire and Baker 1999): no zero in the frame but its end.
 * Zeros in front of a frame are passed over, as receivers that have to find a beginning do. */
#include "kind.h"

/* The most bytes that stuffing makes of `size`. */
static uint64_t most_stuffed(uint64_t size) { return size + size / 254 + 1; }

/* The payload's size of the stuffed data[0 .. size), or -1 where a code points behind the end at *place. */
static int64_t plain_size(const uint8_t *data, uint64_t size, uint64_t *place)
{
    uint64_t plain = 0;
    for (uint64_t at = 0, code; at < size; at += code) {
        code = sf_once(data + at);
        if (!code || code > size - at) {
            *place = at;
            return -1;
        }
        plain += code - 1 + (code < 255 && at + code < size);
    }
    return (int64_t)plain;
}

static int scan_cobs(const sf_framing *framing, const uint8_t *data, uint64_t size, sf_scan *scan)
{
    uint64_t limit = framing->max_length, start = sf_leading(0, data, scan->resume, size), end, bound, place = 0;
    if (start == size) {
        scan->resume = size;
        return sf_want(scan, scan->ended ? 0 : 2);
    }
    bound = start + most_stuffed(limit) + 1;
    end = sf_find_byte(0, data, scan->resume > start ? scan->resume : start, size < bound ? size : bound);
    if (end == size || end == bound) {
        if (size >= bound)
            return sf_too_long(framing, scan, 0, bound, size, 0, start, 0);
        scan->resume = size;
        return sf_want(scan, 1);
    }
    int64_t plain = plain_size(data + start, end - start, &place);
    if (plain < 0)
        return sf_fail(scan, SF_STUFFING, data[start + place], 0, end + 1);
    if ((uint64_t)plain > limit)
        return sf_too_long(framing, scan, 0, end + 1, size, end + 1, start, end);
    (void)sf_found(scan, end + 1, start, end);
    scan->plain = (uint64_t)plain;
    scan->by = framing;
    return SF_FRAME;
}

static int skip_cobs(const sf_framing *framing, const uint8_t *data, uint64_t size, sf_scan *scan)
{
    (void)framing;
    return sf_skip_stuffed(0, data, size, scan);
}

static void unstuff_cobs(const uint8_t *data, uint64_t size, uint8_t *payload, uint64_t plain)
{
    uint64_t done = 0;
    for (uint64_t at = 0, code; at < size; at += code) {
        code = sf_once(data + at);
        if (!code || code > size - at || code - 1 > plain - done)
            break;
        memcpy(payload + done, data + at + 1, (size_t)(code - 1));
        done += code - 1;
        if (code < 255 && at + code < size && done < plain)
            payload[done++] = 0;
    }
    if (done < plain)
        memset(payload + done, 0, (size_t)(plain - done));
}

static void stuff_cobs(const uint8_t *payload, uint64_t size, uint8_t *body, uint64_t body_size)
{
    uint64_t code = 0, done = 1;
    body[0] = 1;
    for (uint64_t i = 0; i < size; i++) {
        uint8_t byte = sf_once(payload + i);
        if (done == body_size)
            return;
        if (byte) {
            body[done++] = byte;
            ++body[code];
        }
        if (!byte || (body[code] == 255 && i + 1 < size)) {
            if (done == body_size)
                return;
            code = done++;
            body[code] = 1;
        }
    }
    memset(body + done, 1, (size_t)(body_size - done));
}

static int wrap_cobs(const sf_framing *framing, const uint8_t *payload, uint64_t size, sf_wrapped *out)
{
    uint64_t run = 0;
    if (size > framing->max_length)
        return sf_refuse(out, SF_WRAP_TOO_LONG, size, framing->max_length);
    out->body_size = size + 1;
    for (uint64_t i = 0; i < size; i++) {
        run = payload[i] ? run + 1 : 0;
        if (run == 254 && i + 1 < size) {
            out->body_size++;
            run = 0;
        }
    }
    out->by = framing;
    out->trailer[0] = 0;
    out->trailer_size = 1;
    return 0;
}

const sf_kind sf_cobs = {.name = "cobs", .scan = scan_cobs, .wrap = wrap_cobs, .skip = skip_cobs,
                         .unstuff = unstuff_cobs, .stuff = stuff_cobs};
