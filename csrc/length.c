/* LengthPrefix and LengthField: a binary length in front of, or inside, the frame. */
#include "kind.h"
#include "search.h"

/* The most common size, without a loop: compilers make one or two instructions of it. */
static inline uint64_t read_4(const uint8_t *data, int little)
{
    uint32_t a = data[0], b = data[1], c = data[2], d = data[3];
    return little ? d << 24 | c << 16 | b << 8 | a : a << 24 | b << 16 | c << 8 | d;
}

/* A number of `size` bytes, of the `here` that may be read: in one load where eight may. */
static inline uint64_t read_number(const uint8_t *data, uint64_t here, uint64_t size, int little)
{
    if (size == 4)
        return read_4(data, little);
    if (here >= 8) {
        unsigned spare = (unsigned)(64 - 8 * size);
        return little ? sf_load_low(data) << spare >> spare : sf_load_high(data) >> spare;
    }
    uint64_t value = 0;
    for (uint64_t i = 0; i < size; i++)
        value = value << 8 | data[little ? size - 1 - i : i];
    return value;
}

static void write_number(uint8_t *data, uint64_t size, int little, uint64_t value)
{
    if (size == 4 && little) { /* compilers make one store of it */
        data[0] = (uint8_t)value;
        data[1] = (uint8_t)(value >> 8);
        data[2] = (uint8_t)(value >> 16);
        data[3] = (uint8_t)(value >> 24);
        return;
    }
    if (size == 4) {
        data[0] = (uint8_t)(value >> 24);
        data[1] = (uint8_t)(value >> 16);
        data[2] = (uint8_t)(value >> 8);
        data[3] = (uint8_t)value;
        return;
    }
    for (uint64_t i = 0; i < size; i++, value >>= 8)
        data[little ? i : size - 1 - i] = (uint8_t)value;
}

static uint64_t largest(uint64_t bytes) { return UINT64_MAX >> (64 - 8 * bytes); }

/* ---- LengthPrefix ---- */

enum { PREFIX, PREFIX_LITTLE, INCLUSIVE };
enum { LEAP = 256 }; /* from this length on, the next header is out of sight: the one of the fourth is asked for */

static int scan_length_prefix(const sf_framing *framing, const uint8_t *data, uint64_t size, sf_scan *scan)
{
    uint64_t header = framing->number[PREFIX], length;
    uint64_t least = framing->number[INCLUSIVE] ? header : 0;
    int little = (int)framing->number[PREFIX_LITTLE];
    if (size < header) {
        /* With zeros for what is missing, the length is the least that it can still be. */
        uint8_t start[8] = {0};
        sf_copy(start, data, size);
        length = read_number(start, sizeof start, header, little);
        length = length > least ? length - least : 0;
        return sf_want(scan, header - size + (length > framing->max_length ? 0 : length));
    }
    length = read_number(data, size, header, little);
    if (length < least)
        return sf_fail(scan, SF_TOO_SHORT, length, least, header);
    length -= least;
    if (length > framing->max_length)
        return sf_too_long(framing, scan, length, header, size, sf_add(header, length), header, header + length);
    if (size - header < length)
        return sf_await(scan, size, header + length, header, header + length);
    return sf_found(scan, header + length, header, header + length);
}

static size_t frames_length_prefix(const sf_framing *framing, const uint8_t *data, uint64_t size, sf_span *spans,
                                   size_t most, uint64_t *used, uint64_t *searched)
{
    uint64_t header = framing->number[PREFIX], least = framing->number[INCLUSIVE] ? header : 0;
    uint64_t limit = framing->max_length, at = 0, length;
    int little = (int)framing->number[PREFIX_LITTLE];
    size_t found = 0;
    while (found < most && size - at >= header) {
        length = read_number(data + at, size - at, header, little);
        if (length < least || (length -= least) > limit || length > size - at - header)
            break;
        if (length >= LEAP)
            sf_bring_near(data, at + 4 * (header + length), at + 4 * (header + length) + 256, size);
        spans[found].start = at + header;
        at = spans[found++].stop = at + header + length;
    }
    *used = at;
    *searched = 0;
    return found;
}

static int wrap_length_prefix(const sf_framing *framing, const uint8_t *payload, uint64_t size, sf_wrapped *out)
{
    uint64_t header = framing->number[PREFIX], added = framing->number[INCLUSIVE] ? header : 0;
    (void)payload;
    if (size > framing->max_length)
        return sf_refuse(out, SF_WRAP_TOO_LONG, size, framing->max_length);
    if (size + added > largest(header))
        return sf_refuse(out, SF_WRAP_CAPACITY, size + added, largest(header));
    write_number(out->header, header, (int)framing->number[PREFIX_LITTLE], size + added);
    out->header_size = (uint32_t)header;
    return 0;
}

const sf_kind sf_length_prefix = {.name = "length_prefix", .scan = scan_length_prefix, .wrap = wrap_length_prefix,
                                  .skip = sf_skip_sized, .frames = frames_length_prefix};

/* ---- LengthField ---- */

enum { FIELD, OFFSET, LITTLE, MASK, SHIFT, SCALE, SUBTRACT, ADD, ALIGN, STRIP, SIGNED };
enum { END };

static uint64_t header_size(const sf_framing *framing) { return framing->number[OFFSET] + framing->number[FIELD]; }

/* The least size of a frame without its padding: the header, what is stripped, and the end. */
static uint64_t least_size(const sf_framing *framing)
{
    uint64_t header = header_size(framing), strip = framing->number[STRIP];
    return (header > strip ? header : strip) + framing->text[END].size;
}

static uint64_t read_field(const sf_framing *framing, const uint8_t *header)
{
    uint64_t size = framing->number[FIELD];
    return read_number(header + framing->number[OFFSET], size, size, (int)framing->number[LITTLE]);
}

static uint64_t sign_bit(const sf_framing *framing)
{
    return framing->number[SIGNED] ? UINT64_C(1) << (8 * framing->number[FIELD] - 1) : 0;
}

/* The frame's size without its padding, from a whole header; a size over 2**64 - 1 is that. */
static uint64_t frame_size(const sf_framing *framing, const uint8_t *header)
{
    const uint64_t *number = framing->number;
    uint64_t value = (read_field(framing, header) & number[MASK]) >> number[SHIFT];
    if (value > UINT64_MAX / number[SCALE])
        return UINT64_MAX;
    value *= number[SCALE];
    if (number[SUBTRACT])
        return value > number[ADD] ? value - number[ADD] : 0;
    return sf_add(value, number[ADD]);
}

static uint64_t padding(const sf_framing *framing, uint64_t size)
{
    uint64_t over = size % framing->number[ALIGN];
    return over ? framing->number[ALIGN] - over : 0;
}

static int scan_length_field(const sf_framing *framing, const uint8_t *data, uint64_t size, sf_scan *scan)
{
    const uint64_t *number = framing->number;
    const sf_text *end = &framing->text[END];
    uint64_t header = header_size(framing), least = least_size(framing), around = number[STRIP] + end->size;
    uint64_t whole, total;
    if (size < header) {
        /* With zeros for what is missing, the length is the least that it can still be. */
        uint8_t start[SF_HEADER_MAX] = {0};
        sf_copy(start, data, size);
        whole = frame_size(framing, start);
        if (whole < least)
            whole = least;
        if (whole - around > framing->max_length)
            return sf_want(scan, header - size);
        return sf_want(scan, whole + padding(framing, whole) - size);
    }
    uint64_t field = read_field(framing, data);
    if (field & sign_bit(framing))
        return sf_fail(scan, SF_NEGATIVE, largest(number[FIELD]) - field + 1, 0, header);
    whole = frame_size(framing, data);
    if (whole < least)
        return sf_fail(scan, SF_TOO_SHORT, whole, least, header);
    if (whole - around > framing->max_length)
        return sf_too_long(framing, scan, whole == UINT64_MAX ? whole : whole - around, header, size,
                           sf_add(whole, padding(framing, whole)), number[STRIP], whole - end->size);
    total = whole + padding(framing, whole);
    if (size >= whole - end->size && sf_match(scan, SF_END, end, data, whole - end->size, size) < 0)
        return SF_FAULT;
    if (size < total)
        return sf_await(scan, size, total, number[STRIP], whole - end->size);
    return sf_found(scan, total, number[STRIP], whole - end->size);
}

static int wrap_length_field(const sf_framing *framing, const uint8_t *payload, uint64_t size, sf_wrapped *out)
{
    const uint64_t *number = framing->number;
    const sf_text *end = &framing->text[END];
    uint64_t header = header_size(framing), strip = number[STRIP], delivered = header > strip ? header - strip : 0;
    uint64_t mask = number[MASK], fits = mask & ~sign_bit(framing), value, field = 0;
    uint64_t whole = size + strip + end->size;
    if (size > framing->max_length)
        return sf_refuse(out, SF_WRAP_TOO_LONG, size, framing->max_length);
    if (size < delivered)
        return sf_refuse(out, SF_WRAP_SHORT, size, delivered);
    if (!number[SUBTRACT] && whole < number[ADD])
        return sf_refuse(out, SF_WRAP_SHORT, size, size + number[ADD] - whole);
    value = number[SUBTRACT] ? whole + number[ADD] : whole - number[ADD];
    if (value % number[SCALE])
        return sf_refuse(out, SF_WRAP_SCALE, value, number[SCALE]);
    value /= number[SCALE];
    if (value > fits >> number[SHIFT] || value << number[SHIFT] & ~fits)
        return sf_refuse(out, SF_WRAP_CAPACITY, value, fits >> number[SHIFT]);
    out->header_size = (uint32_t)(header > strip ? header : strip);
    memset(out->header, 0, out->header_size);
    if (delivered) {
        sf_copy(out->header + strip, payload, delivered);
        out->replaced = delivered;
        field = read_field(framing, out->header);
        if ((field & mask) && (field & mask) != value << number[SHIFT])
            return sf_refuse(out, SF_WRAP_FIELD, (field & mask) >> number[SHIFT], value);
        if (field & sign_bit(framing))
            return sf_refuse(out, SF_WRAP_CAPACITY, field, largest(number[FIELD]) >> 1);
    }
    write_number(out->header + number[OFFSET], number[FIELD], (int)number[LITTLE],
                 (field & ~mask) | value << number[SHIFT]);
    sf_copy(out->trailer, end->data, end->size);
    memset(out->trailer + end->size, 0, (size_t)padding(framing, whole));
    out->trailer_size = (uint32_t)(end->size + padding(framing, whole));
    return 0;
}

static int skip_length_field(const sf_framing *framing, const uint8_t *data, uint64_t size, sf_scan *scan)
{
    return sf_skip_known(data, size, scan, &framing->text[END]);
}

const sf_kind sf_length_field = {
    .name = "length_field", .scan = scan_length_field, .wrap = wrap_length_field, .skip = skip_length_field};
