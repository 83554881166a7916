/* HeaderBlock: header lines up to a separator; one of them tells the length of the body behind it. */
#include "kind.h"

enum { MAX_HEADER, STRIP };
enum { FIELD, SEPARATOR };

static int lower(int byte) { return byte >= 'A' && byte <= 'Z' ? byte + 32 : byte; }

static int blank(int byte) { return byte == ' ' || byte == '\t'; }

/* Whether data[from .. to) is the name of the length field, in any case. */
static int is_field(const sf_text *field, const uint8_t *data, uint64_t from, uint64_t to)
{
    if (to - from != field->size)
        return 0;
    for (uint64_t i = 0; i < field->size; i++)
        if (lower(data[from + i]) != lower(field->data[i]))
            return 0;
    return 1;
}

/* Read the digits in data[from .. to), blanks around them: 0, or -1. A number over 2**64 - 1 is that. */
static int read_digits(const uint8_t *data, uint64_t from, uint64_t to, uint64_t *value)
{
    while (from < to && blank(data[from]))
        from++;
    while (from < to && blank(data[to - 1]))
        to--;
    if (from == to || to - from > SF_DIGITS_MAX)
        return -1;
    for (*value = 0; from < to; from++) {
        if (data[from] < '0' || data[from] > '9')
            return -1;
        *value = *value > UINT64_MAX / 10 ? UINT64_MAX : sf_add(*value * 10, (uint64_t)(data[from] - '0'));
    }
    return 0;
}

/* Read the lines of the header data[0 .. size): SF_NONE with the length, or the fault. */
static int read_header(const sf_framing *framing, const uint8_t *data, uint64_t size, uint64_t *length)
{
    int told = 0;
    for (uint64_t begin = 0, next; begin < size; begin = next) {
        const uint8_t *feed = memchr(data + begin, '\n', (size_t)(size - begin));
        uint64_t end = feed ? (uint64_t)(feed - data) : size, name, value;
        next = feed ? end + 1 : size;
        if (end > begin && data[end - 1] == '\r')
            end--;
        const uint8_t *colon = memchr(data + begin, ':', (size_t)(end - begin));
        if (!colon || colon == data + begin || blank(data[begin])) {
            if (begin == 0 && !colon && end)
                continue; /* a first line of another kind: a request, a status */
            return SF_HEADER_LINE;
        }
        for (name = (uint64_t)(colon - data); name > begin && blank(data[name - 1]); name--)
            ;
        if (!is_field(&framing->text[FIELD], data, begin, name))
            continue;
        if (data + name != colon || read_digits(data, name + 1, end, &value) < 0 || (told && value != *length))
            return SF_HEADER_FIELD;
        *length = value;
        told = 1;
    }
    return told ? SF_NONE : SF_HEADER_FIELD;
}

static int scan_header_block(const sf_framing *framing, const uint8_t *data, uint64_t size, sf_scan *scan)
{
    const sf_text *separator = &framing->text[SEPARATOR];
    uint64_t most = framing->number[MAX_HEADER], bound = most + separator->size, length, header, start, around;
    header = sf_find_end(separator, data, scan->resume, size < bound ? size : bound);
    if (!header) {
        if (size >= bound)
            return sf_fail(scan, SF_HEADER_LONG, 0, most, bound);
        scan->resume = size;
        return sf_want(scan, sf_missing(separator, data, size));
    }
    scan->resume = header - 1; /* found at once when the body is here */
    int fault = read_header(framing, data, header - separator->size, &length);
    if (fault != SF_NONE)
        return sf_fail(scan, fault, 0, 0, header);
    start = framing->number[STRIP] ? header : 0;
    around = header - start;
    if (length > framing->max_length || length + around > framing->max_length)
        return sf_too_long(framing, scan, sf_add(length, around), header, size, sf_add(header, length), start,
                           sf_add(header, length));
    if (size - header < length)
        return sf_await(scan, size, header + length, start, header + length);
    return sf_found(scan, header + length, start, header + length);
}

static int wrap_header_block(const sf_framing *framing, const uint8_t *payload, uint64_t size, sf_wrapped *out)
{
    const sf_text *field = &framing->text[FIELD], *separator = &framing->text[SEPARATOR];
    uint64_t value = size, count = 0, at = field->size;
    uint8_t digits[20];
    if (size > framing->max_length)
        return sf_refuse(out, SF_WRAP_TOO_LONG, size, framing->max_length);
    if (!framing->number[STRIP]) {
        /* The header is part of the payload, and must be right. */
        uint64_t most = framing->number[MAX_HEADER] + separator->size, length = 0;
        uint64_t header = sf_find_end(separator, payload, 0, size < most ? size : most);
        if (!header)
            return sf_refuse(out, SF_WRAP_SHORT, size, size + sf_missing(separator, payload, size));
        if (read_header(framing, payload, header - separator->size, &length) != SF_NONE)
            length = 0;
        else if (length == size - header)
            return 0;
        return sf_refuse(out, SF_WRAP_FIELD, length, size - header);
    }
    do
        digits[count++] = (uint8_t)('0' + value % 10);
    while (value /= 10);
    if (at + 2 + count > framing->number[MAX_HEADER]) {
        uint64_t largest = 0;
        for (uint64_t most = at + 2; most < framing->number[MAX_HEADER]; most++)
            largest = largest * 10 + 9;
        return sf_refuse(out, SF_WRAP_CAPACITY, size, largest);
    }
    sf_copy(out->header, field->data, field->size);
    memcpy(out->header + at, ": ", 2);
    for (at += 2; count; at++)
        out->header[at] = digits[--count];
    sf_copy(out->header + at, separator->data, separator->size);
    out->header_size = (uint32_t)(at + separator->size);
    return 0;
}

const sf_kind sf_header_block = {
    .name = "header_block", .scan = scan_header_block, .wrap = wrap_header_block, .skip = sf_skip_sized};
