/* Lines("crlf"): lines ended by CR LF alone; a bare CR or LF is a fault. */
#include "kind.h"
#include "search.h"

/* The first CR or LF from data[from] on, or size. CR comes first in a line that is right, so the
 * LF is looked for in front of it only. */
static uint64_t find_break(const uint8_t *data, uint64_t from, uint64_t size)
{
    uint64_t at = sf_find_byte('\r', data, from, size);
    return sf_find_byte('\n', data, from, at);
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

static size_t frames_crlf(const sf_framing *framing, const uint8_t *data, uint64_t size, sf_span *spans, size_t most,
                          uint64_t *used, uint64_t *searched)
{
    uint64_t at = 0, base = 0, before = 0, wrong = 0; /* before: 1 behind a block that ends with CR */
    unsigned far = 0;
    size_t found = 0;
    while (base < size && !wrong) {
        uint8_t last[SF_BLOCK] = {0};
        const uint8_t *block = data + base;
        uint64_t here = UINT64_MAX;
        if (size - base < SF_BLOCK) {
            block = memcpy(last, block, (size_t)(size - base));
            here = (UINT64_C(1) << (size - base)) - 1;
        }
        uint64_t cr = sf_block_byte(block, '\r'), lf = sf_block_byte(block, '\n') & ~cr; /* read twice: see sf_once */
        /* In front of the first byte that is LF or behind CR, but not both, each LF ends a line. */
        wrong = (lf ^ (cr << 1 | before)) & here;
        before = cr >> 63;
        far = lf | cr ? 0 : far + 1;
        for (lf &= (wrong & -wrong) - 1; lf; lf &= lf - 1) {
            uint64_t stop = base + sf_lowest(lf) - 1;
            if (found == most || stop - at > framing->max_length) {
                wrong = lf;
                break;
            }
            spans[found].start = at;
            spans[found++].stop = stop;
            at = stop + 2;
        }
        base += wrong ? sf_lowest(wrong) : SF_BLOCK;
        if (far == SF_FAR) {
            base = find_break(data, base, size);
            far = 0;
        }
    }
    if (base > size)
        base = size;
    *used = at;
    *searched = base > at ? base - at - 1 : 0;
    return found;
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

const sf_kind sf_crlf = {.name = "crlf", .scan = scan_crlf, .wrap = wrap_crlf, .skip = skip_crlf,
                          .frames = frames_crlf};
