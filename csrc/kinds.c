/* The table of framing kinds and of fault texts. */
#include "kind.h"

extern const sf_kind sf_fixed, sf_delimiter, sf_crlf, sf_length_prefix, sf_length_field, sf_varint,
    sf_ascii_length, sf_tagged, sf_header_block, sf_cobs, sf_slip, sf_until_close;

const sf_kind *const sf_kinds[] = {
    &sf_fixed,
    &sf_delimiter,
    &sf_crlf,
    &sf_length_prefix,
    &sf_length_field,
    &sf_varint,
    &sf_ascii_length,
    &sf_tagged,
    &sf_header_block,
    &sf_cobs,
    &sf_slip,
    &sf_until_close,
    NULL,
};

static const char *const texts[SF_FAULTS] = {
    [SF_NONE] = "no fault",
    [SF_TOO_LONG] = "frame is too long",
    [SF_NEGATIVE] = "length is negative",
    [SF_TOO_SHORT] = "frame is shorter than its header",
    [SF_DIGIT] = "byte in the length is not a digit",
    [SF_LEADING_ZERO] = "length has a leading zero",
    [SF_DIGITS] = "length has too many digits",
    [SF_SEPARATOR] = "byte behind the length is not the separator",
    [SF_END] = "frame is not closed by its end",
    [SF_VARINT_LONG] = "varint is too long",
    [SF_VARINT_CANONICAL] = "varint is not the shortest",
    [SF_BARE] = "line has a bare CR or LF",
    [SF_TAG] = "tag is not listed",
    [SF_HEADER_LONG] = "header is too long",
    [SF_HEADER_LINE] = "header line has no name and colon",
    [SF_HEADER_FIELD] = "header does not tell one length",
    [SF_STUFFING] = "byte is not rightly stuffed",
    [SF_WRAP_TOO_LONG] = "payload is too long",
    [SF_WRAP_CAPACITY] = "length does not fit its field",
    [SF_WRAP_DELIMITER] = "payload holds a delimiter",
    [SF_WRAP_UNENDED] = "payload does not end with its delimiter",
    [SF_WRAP_SIZE] = "payload has the wrong length",
    [SF_WRAP_SCALE] = "frame is not a multiple of its unit",
    [SF_WRAP_FIELD] = "payload's own length is wrong",
    [SF_WRAP_SHORT] = "payload is too short",
    [SF_WRAP_TAG] = "payload does not begin with a listed tag",
    [SF_WRAP_LAST] = "payload follows one that lasts until the stream ends",
};

const sf_kind *sf_kind_named(const char *name)
{
    for (const sf_kind *const *kind = sf_kinds; *kind; kind++)
        if (!strcmp((*kind)->name, name))
            return *kind;
    return NULL;
}

const char *sf_fault_text(int fault)
{
    return fault >= 0 && fault < SF_FAULTS ? texts[fault] : "unknown fault";
}
