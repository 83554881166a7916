/* UntilClose: the whole stream is one payload. */
#include "kind.h"

static int scan_until_close(const sf_framing *framing, const uint8_t *data, uint64_t size, sf_scan *scan)
{
    (void)data;
    if (size > framing->max_length)
        return sf_too_long(framing, scan, 0, framing->max_length + 1, size, 0, 0, 0);
    return scan->ended ? sf_found(scan, size, 0, size) : sf_want(scan, 1);
}

static int skip_until_close(const sf_framing *framing, const uint8_t *data, uint64_t size, sf_scan *scan)
{
    (void)framing, (void)data;
    scan->size = size;
    scan->passed += size;
    scan->need = 1;
    return scan->ended ? SF_FRAME : SF_NEED;
}

static int wrap_until_close(const sf_framing *framing, const uint8_t *payload, uint64_t size, sf_wrapped *out)
{
    (void)payload;
    if (size > framing->max_length)
        return sf_refuse(out, SF_WRAP_TOO_LONG, size, framing->max_length);
    out->last = 1;
    return 0;
}

const sf_kind sf_until_close = {
    .name = "until_close", .scan = scan_until_close, .wrap = wrap_until_close, .skip = skip_until_close};
