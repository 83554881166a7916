/* Lines("crlf"): lines ended by CR LF alone; a bare CR or LF is a fault. */
#include "kind.h"

/* The first CR or LF from data[from] on, or size. CR comes first in a line that is right, so the
 * LF is looked for in front of it only. */
static uint64_t find_break(const uint8_t *data, uint64_t from, uint64_t size)
{
    if (from >= size)
        return size;
    const uint8_t *cr = memchr(data + from, '\r', (size_t)(size - from));
    uint64_t at = cr ? (uint64_t)(cr - data) : size;
    const uint8_t *lf = at > from ? memchr(data + from, '\n', (size_t)(at - from)) : NULL;
    return lf ? (uint64_t)(lf - data) : at;
}

static int scan_crlf(const sf_framing *framing, const uint8_t *data, uint64_t size, sf_scan *scan)
{
    uint64_t limit = framing->max_length, bound = limit + 1;
    uint64_t window = size < bound ? size : bound;
    uint64_t at = find_break(data, scan->resume, window);
    if (at == window) {
        if (size >= bound)
            return sf_too_long(framing, scan, 0, bound, size, 0, 0, 0);
        scan->resume = size;
        return sf_want(scan, 2);
    }
    scan->resume = at;
    if (data[at] == '\n')
        return sf_fail(scan, SF_BARE, '\n', 0, at + 1);
    if (at + 1 == size)
        return sf_want(scan, 1);
    if (data[at + 1] != '\n')
        return sf_fail(scan, SF_BARE, '\r', 0, at + 2);
    return sf_found(scan, at + 2, 0, at);
}

static int wrap_crlf(const sf_framing *framing, const uint8_t *payload, uint64_t size, sf_wrapped *out)
{
    if (size > framing->max_length)
        return sf_refuse(out, SF_WRAP_TOO_LONG, size, framing->max_length);
    uint64_t at = find_break(payload, 0, size);
    if (at < size)
        return sf_refuse(out, SF_WRAP_DELIMITER, at, 0);
    memcpy(out->trailer, "\r\n", 2);
    out->trailer_size = 2;
    return 0;
}

static int skip_crlf(const sf_framing *framing, const uint8_t *data, uint64_t size, sf_scan *scan)
{
    uint64_t at = find_break(data, scan->resume, size);
    (void)framing;
    scan->need = at == size ? 2 : 1;
    scan->size = at;
    scan->resume = 0;
    if (at < size && data[at] == '\n')
        return sf_fail(scan, SF_BARE, '\n', 0, scan->passed + at + 1);
    if (at + 1 < size) {
        if (data[at + 1] != '\n')
            return sf_fail(scan, SF_BARE, '\r', 0, scan->passed + at + 2);
        scan->size = at + 2;
    }
    scan->passed += scan->size;
    return scan->size == at + 2 ? SF_FRAME : SF_NEED;
}

const sf_kind sf_crlf = {.name = "crlf", .scan = scan_crlf, .wrap = wrap_crlf, .skip = skip_crlf};
