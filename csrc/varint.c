/* Varint: a LEB128 length of what follows it, at an offset. */
#include "kind.h"

enum { OFFSET, MAX_BYTES, CANONICAL, STRIP_ALL, STRIP };

/* Read a varint at data[0]: its bytes, 0 where more are needed, or -1 with the fault in *fault and the
 * bytes that show it in *seen. What was read so far is in *value. */
static int read_varint(const sf_framing *framing, const uint8_t *data, uint64_t size, uint64_t *value, int *fault,
                       uint64_t *seen)
{
    uint64_t most = framing->number[MAX_BYTES];
    *value = 0;
    for (uint64_t i = 0; i < size; i++) { /* the last of `most` bytes ends it, or is a fault */
        *seen = i + 1;
        *fault = SF_VARINT_LONG;
        if (i == 9 && data[i] > 1)
            return -1;
        *value |= (uint64_t)(data[i] & 0x7f) << (7 * i);
        if (data[i] & 0x80) {
            if (i + 1 == most)
                return -1;
            continue;
        }
        *fault = SF_VARINT_CANONICAL;
        if (framing->number[CANONICAL] && i && !data[i])
            return -1;
        return (int)(i + 1);
    }
    return 0;
}

static uint64_t write_varint(uint8_t *data, uint64_t value)
{
    uint64_t size = 0;
    for (; value > 0x7f; value >>= 7)
        data[size++] = (uint8_t)(value | 0x80);
    data[size++] = (uint8_t)value;
    return size;
}

static int scan_varint(const sf_framing *framing, const uint8_t *data, uint64_t size, sf_scan *scan)
{
    const uint64_t *number = framing->number;
    uint64_t offset = number[OFFSET], value, seen, header, start;
    int fault, bytes;
    if (size <= offset)
        return sf_want(scan, offset + 1 - size);
    bytes = read_varint(framing, data + offset, size - offset, &value, &fault, &seen);
    if (bytes < 0)
        return sf_fail(scan, fault, 0, number[MAX_BYTES], offset + seen);
    if (!bytes) {
        /* One byte more at the least, and what the shortest continuation announces. */
        if (number[CANONICAL])
            value = sf_add(value, UINT64_C(1) << (7 * (size - offset)));
        return sf_want(scan, value > framing->max_length ? 1 : 1 + value);
    }
    header = offset + (uint64_t)bytes;
    start = number[STRIP_ALL] ? header : number[STRIP];
    if (value > framing->max_length || header - start + value > framing->max_length)
        return sf_too_long(framing, scan, sf_add(value, header - start), header, size, sf_add(header, value), start,
                           sf_add(header, value));
    if (size - header < value)
        return sf_await(scan, size, header + value, start, header + value);
    return sf_found(scan, header + value, start, header + value);
}

static int wrap_varint(const sf_framing *framing, const uint8_t *payload, uint64_t size, sf_wrapped *out)
{
    const uint64_t *number = framing->number;
    uint64_t strip = number[STRIP_ALL] ? number[OFFSET] : number[STRIP], before = number[OFFSET] - strip;
    uint64_t body = size, value, seen, bytes;
    uint8_t field[10];
    if (size > framing->max_length)
        return sf_refuse(out, SF_WRAP_TOO_LONG, size, framing->max_length);
    memset(out->header, 0, (size_t)strip);
    out->header_size = (uint32_t)strip;
    if (!number[STRIP_ALL]) {
        if (size <= before)
            return sf_refuse(out, SF_WRAP_SHORT, size, before + 1);
        if (payload[before]) {
            int fault, own = read_varint(framing, payload + before, size - before, &value, &fault, &seen);
            if (own <= 0 || value != size - before - (uint64_t)own)
                return sf_refuse(out, SF_WRAP_FIELD, own > 0 ? value : 0, size - before - (uint64_t)(own > 0 ? own : 1));
            return 0;
        }
        body = size - before - 1;
        sf_copy(out->header + strip, payload, before);
        out->replaced = before + 1;
    }
    bytes = write_varint(field, body);
    if (bytes > number[MAX_BYTES])
        return sf_refuse(out, SF_WRAP_CAPACITY, body, (UINT64_C(1) << (7 * number[MAX_BYTES])) - 1);
    if (!number[STRIP_ALL] && before + bytes + body > framing->max_length)
        return sf_refuse(out, SF_WRAP_TOO_LONG, before + bytes + body, framing->max_length);
    sf_copy(out->header + number[OFFSET], field, bytes);
    out->header_size = (uint32_t)(number[OFFSET] + bytes);
    return 0;
}

const sf_kind sf_varint = {.name = "varint", .scan = scan_varint, .wrap = wrap_varint, .skip = sf_skip_sized};
