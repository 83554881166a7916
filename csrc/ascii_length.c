/* AsciiLength: a length in digits, of fixed width or ended by a separator. */
#include "kind.h"

enum { WIDTH, BASE };
enum { SEPARATOR, END };

/* The value of a digit, or 255: no sign, blank or underscore is one. */
static unsigned digit_value(uint8_t byte)
{
    if (byte >= '0' && byte <= '9')
        return byte - '0';
    if (byte >= 'a' && byte <= 'f')
        return byte - 'a' + 10u;
    if (byte >= 'A' && byte <= 'F')
        return byte - 'A' + 10u;
    return 255;
}

static uint64_t append_digit(uint64_t value, uint64_t base, uint64_t digit)
{
    if (value > UINT64_MAX / base)
        return UINT64_MAX;
    return sf_add(value * base, digit);
}

/* The least number of bytes that are missing behind `digits` digits of the value so far, where
 * `separator` bytes of the separator are here. */
static uint64_t missing(const sf_framing *framing, uint64_t digits, uint64_t value, uint64_t separator)
{
    uint64_t width = framing->number[WIDTH], more = width ? width - digits : !digits;
    for (uint64_t i = 0; i < more; i++)
        value = append_digit(value, framing->number[BASE], 0);
    more += framing->text[SEPARATOR].size - separator;
    return value > framing->max_length ? more : more + value + framing->text[END].size;
}

static int scan_ascii_length(const sf_framing *framing, const uint8_t *data, uint64_t size, sf_scan *scan)
{
    const sf_text *separator = &framing->text[SEPARATOR], *end = &framing->text[END];
    uint64_t width = framing->number[WIDTH], base = framing->number[BASE], value = 0, digits = 0, header, stop;
    for (; digits < size && !(width && digits == width); digits++) {
        unsigned digit = digit_value(data[digits]);
        if (digit >= base) {
            if (!width && digits && data[digits] == separator->data[0])
                break;
            return sf_fail(scan, SF_DIGIT, data[digits], 0, digits + 1);
        }
        if (!width && digits == 1 && data[0] == '0')
            return sf_fail(scan, SF_LEADING_ZERO, 0, 0, 2);
        if (digits == SF_DIGITS_MAX)
            return sf_fail(scan, SF_DIGITS, 0, SF_DIGITS_MAX, digits + 1);
        value = append_digit(value, base, digit);
    }
    int matched = sf_match(scan, SF_SEPARATOR, separator, data, digits, size);
    if (matched < 0)
        return SF_FAULT;
    if (digits < width || (uint64_t)matched < separator->size)
        return sf_want(scan, missing(framing, digits, value, (uint64_t)matched));
    header = digits + separator->size;
    if (value > framing->max_length)
        return sf_too_long(framing, scan, value, header, size, sf_add(sf_add(value, end->size), header), header,
                           sf_add(header, value));
    stop = header + value;
    if (size >= stop && sf_match(scan, SF_END, end, data, stop, size) < 0)
        return SF_FAULT;
    if (size < stop + end->size)
        return sf_await(scan, size, stop + end->size, header, stop);
    return sf_found(scan, stop + end->size, header, stop);
}

static int wrap_ascii_length(const sf_framing *framing, const uint8_t *payload, uint64_t size, sf_wrapped *out)
{
    const sf_text *separator = &framing->text[SEPARATOR], *end = &framing->text[END];
    uint64_t width = framing->number[WIDTH], base = framing->number[BASE], most = width ? width : SF_DIGITS_MAX;
    uint64_t value = size, count = 0;
    uint8_t digits[64];
    (void)payload;
    if (size > framing->max_length)
        return sf_refuse(out, SF_WRAP_TOO_LONG, size, framing->max_length);
    do
        digits[count++] = (uint8_t)"0123456789abcdef"[value % base];
    while ((value /= base));
    if (count > most) {
        uint64_t largest = 0;
        for (uint64_t i = 0; i < most; i++)
            largest = append_digit(largest, base, base - 1);
        return sf_refuse(out, SF_WRAP_CAPACITY, size, largest);
    }
    while (count < width)
        digits[count++] = '0';
    for (uint64_t i = 0; i < count; i++)
        out->header[i] = digits[count - 1 - i];
    sf_copy(out->header + count, separator->data, separator->size);
    out->header_size = (uint32_t)(count + separator->size);
    sf_copy(out->trailer, end->data, end->size);
    out->trailer_size = (uint32_t)end->size;
    return 0;
}

static int skip_ascii_length(const sf_framing *framing, const uint8_t *data, uint64_t size, sf_scan *scan)
{
    return sf_skip_known(data, size, scan, &framing->text[END]);
}

const sf_kind sf_ascii_length = {
    .name = "ascii_length", .scan = scan_ascii_length, .wrap = wrap_ascii_length, .skip = skip_ascii_length};
