/* Slip: RFC 1055: END closes a frame, ESC stands before what END and ESC have become. ENDs in front of
 * a frame are passed over, as the RFC's receiver does, so there is no empty frame. */
#include "kind.h"

enum { END = 0xC0, ESC = 0xDB, ESC_END = 0xDC, ESC_ESC = 0xDD };

/* The payload's size of the stuffed data[0 .. size), or -1 where an escape at *place is none. */
static int64_t plain_size(const uint8_t *data, uint64_t size, uint64_t *place)
{
    uint64_t plain = 0;
    for (uint64_t at = 0; at < size; at++, plain++)
        if (data[at] == ESC && (at + 1 == size || (data[++at] != ESC_END && data[at] != ESC_ESC))) {
            *place = at;
            return -1;
        }
    return (int64_t)plain;
}

static int scan_slip(const sf_framing *framing, const uint8_t *data, uint64_t size, sf_scan *scan)
{
    uint64_t limit = framing->max_length, start = sf_leading(END, data, scan->resume, size), end, bound, place = 0;
    if (start == size) {
        scan->resume = size;
        return sf_want(scan, scan->ended ? 0 : 2);
    }
    bound = sf_add(start, 2 * limit + 1);
    end = sf_find_byte(END, data, scan->resume > start ? scan->resume : start, size < bound ? size : bound);
    if (end == size || end == bound) {
        if (size >= bound)
            return sf_too_long(framing, scan, 0, bound, size, 0, start, 0);
        scan->resume = size;
        return sf_want(scan, data[size - 1] == ESC ? 2 : 1);
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

static int skip_slip(const sf_framing *framing, const uint8_t *data, uint64_t size, sf_scan *scan)
{
    (void)framing;
    return sf_skip_stuffed(END, data, size, scan);
}

static void unstuff_slip(const uint8_t *data, uint64_t size, uint8_t *payload, uint64_t plain)
{
    uint64_t done = 0;
    for (uint64_t at = 0; at < size && done < plain; at++) {
        uint8_t byte = sf_once(data + at);
        if (byte == ESC && ++at < size)
            byte = data[at] == ESC_END ? END : ESC;
        payload[done++] = byte;
    }
    if (done < plain)
        memset(payload + done, 0, (size_t)(plain - done));
}

static void stuff_slip(const uint8_t *payload, uint64_t size, uint8_t *body, uint64_t body_size)
{
    uint64_t done = 0;
    for (uint64_t i = 0; i < size && done < body_size; i++) {
        uint8_t byte = sf_once(payload + i);
        if (byte == END || byte == ESC) {
            body[done++] = ESC;
            if (done == body_size)
                return;
            byte = byte == END ? ESC_END : ESC_ESC;
        }
        body[done++] = byte;
    }
    if (done < body_size)
        memset(body + done, 0, (size_t)(body_size - done));
}

static int wrap_slip(const sf_framing *framing, const uint8_t *payload, uint64_t size, sf_wrapped *out)
{
    if (size > framing->max_length)
        return sf_refuse(out, SF_WRAP_TOO_LONG, size, framing->max_length);
    if (!size)
        return sf_refuse(out, SF_WRAP_SHORT, 0, 1);
    out->body_size = size;
    for (uint64_t i = 0; i < size; i++)
        out->body_size += payload[i] == END || payload[i] == ESC;
    out->by = framing;
    out->trailer[0] = END;
    out->trailer_size = 1;
    return 0;
}

const sf_kind sf_slip = {.name = "slip", .scan = scan_slip, .wrap = wrap_slip, .skip = skip_slip,
                         .unstuff = unstuff_slip, .stuff = stuff_slip};
