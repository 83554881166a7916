/* UntilClose: the whole stream is one payload. */
#include "kind.h"

static int scan_until_close(const sf_framing *framing, const uint8_t *data, uint64_t size, sf_scan *scan)
{
    (void)data;
    if (size > framing->max_length)
        return sf_fail(scan, SF_TOO_LONG, 0, framing->max_length, framing->max_length + 1);
    return scan->ended ? sf_found(scan, size, 0, size) : sf_want(scan, 1);
}

static int wrap_until_close(const sf_framing *framing, const uint8_t *payload, uint64_t size, sf_wrapped *out)
{
    (void)payload;
    if (size > framing->max_length)
        return sf_refuse(out, SF_WRAP_TOO_LONG, size, framing->max_length);
    out->last = 1;
    return 0;
}

const sf_kind sf_until_close = {"until_close", scan_until_close, wrap_until_close, NULL};
