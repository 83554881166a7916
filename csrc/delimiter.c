/* Delimiter: a payload, then one of the delimiters (texts). A frame ends where the earliest of them
 * ends; where several end there, the longest is taken off. Searching for ends, not beginnings, means
 * that nothing is searched twice: what was searched holds no end. */
#include "kind.h"
#include "search.h"

enum { KEEP, DELIVER_TAIL };

static uint64_t longest(const sf_framing *framing)
{
    uint64_t most = 0;
    for (size_t i = 0; i < framing->texts; i++)
        if (framing->text[i].size > most)
            most = framing->text[i].size;
    return most;
}

/* Whether a delimiter ends at data[end]; that the bytes in front of its last one are right is seen without a call
 * where they are one at most. */
static inline int ends(const sf_text *text, const uint8_t *data, uint64_t end)
{
    uint64_t before = text->size - 1;
    if (end <= before || data[end - 1] != text->data[before])
        return 0;
    return before == 1 ? data[end - 2] == text->data[0] : sf_equal(data + end - text->size, text->data, before);
}

/* The size of the longest delimiter that ends at data[end], or 0. */
static inline uint64_t ending(const sf_framing *framing, const uint8_t *data, uint64_t end)
{
    uint64_t most = 0;
    for (size_t i = 0; i < framing->texts; i++)
        if (framing->text[i].size > most && ends(&framing->text[i], data, end))
            most = framing->text[i].size;
    return most;
}

/* The last bytes of all delimiters: to end is to end with one of them. */
static sf_set lasts(const sf_framing *framing)
{
    sf_set set = {0};
    for (size_t i = 0; i < framing->texts; i++)
        sf_set_add(&set, framing->text[i].data[framing->text[i].size - 1]);
    return set;
}

/* The earliest end of a delimiter behind data[from], its size in *taken; 0 where none ends by data[size]. */
static uint64_t find_end(const sf_framing *framing, const uint8_t *data, uint64_t from, uint64_t size, uint64_t *taken)
{
    sf_set set = lasts(framing);
    sf_search search = {.next = from, .far = SF_FAR};
    uint64_t hit;
    while ((hit = sf_next(&search, &set, data, size)) < size)
        if ((*taken = ending(framing, data, hit + 1)))
            return hit + 1;
    return 0;
}

/* The least number of bytes that would complete a delimiter behind data[size]. */
static uint64_t missing(const sf_framing *framing, const uint8_t *data, uint64_t size)
{
    uint64_t least = SF_TEXT_MAX;
    for (size_t i = 0; i < framing->texts; i++) {
        uint64_t one = sf_missing(&framing->text[i], data, size);
        if (one < least)
            least = one;
    }
    return least;
}

static int scan_delimiter(const sf_framing *framing, const uint8_t *data, uint64_t size, sf_scan *scan)
{
    /* Behind `bound` bytes without an end the payload is too long, wherever it may end. */
    uint64_t limit = framing->max_length, keep = framing->number[KEEP], taken = 0;
    uint64_t bound = limit + (keep ? 1 : longest(framing));
    uint64_t end = find_end(framing, data, scan->resume, size < bound ? size : bound, &taken);
    if (end) {
        uint64_t stop = keep ? end : end - taken;
        if (stop > limit)
            return sf_too_long(framing, scan, 0, end, size, end, 0, end);
        return sf_found(scan, end, 0, stop);
    }
    if (size >= bound)
        return sf_too_long(framing, scan, 0, bound, size, 0, 0, 0);
    if (scan->ended && framing->number[DELIVER_TAIL] && size) {
        if (size > limit)
            return sf_too_long(framing, scan, 0, size, size, size, 0, size);
        return sf_found(scan, size, 0, size);
    }
    scan->resume = size;
    return sf_want(scan, missing(framing, data, size));
}

/* Delimiters of which the byte in front of their last one tells all: a single byte, a pair, or both, as in lines that
 * CR LF or LF end. */
typedef struct {
    int known, first;  /* first: of the pair, or -1 */
    uint64_t least;    /* bytes to take off where `first` is not there: 0, for that is no end, or 1 */
} brief;

static brief make_brief(const sf_framing *framing)
{
    const sf_text *one = &framing->text[0], *other = &framing->text[framing->texts - 1];
    if (one->size > other->size) {
        const sf_text *longer = one;
        one = other;
        other = longer;
    }
    if (framing->texts > 2 || other->size > 2 || (one != other && one->size == other->size) ||
        one->data[one->size - 1] != other->data[other->size - 1])
        return (brief){0, 0, 0};
    return (brief){1, other->size == 2 ? other->data[0] : -1, one->size == 1};
}

static size_t frames_delimiter(const sf_framing *framing, const uint8_t *data, uint64_t size, sf_span *spans, size_t most,
                               uint64_t *used, uint64_t *searched)
{
    uint64_t limit = framing->max_length, keep = framing->number[KEEP], at = 0, hit = 0;
    brief quick = make_brief(framing);
    sf_set set = lasts(framing);
    sf_search search = {.next = 0};
    size_t found = 0;
    while (found < most && (hit = sf_next(&search, &set, data, size)) < size) {
        uint64_t end = hit + 1, taken;
        if (quick.known)
            taken = hit > at && data[hit - 1] == quick.first ? 2 : quick.least;
        else
            taken = ending(framing, data + at, end - at);
        if (!taken)
            continue;
        uint64_t stop = keep ? end : end - taken;
        if (stop - at > limit)
            break;
        spans[found].start = at;
        spans[found++].stop = stop;
        at = end;
    }
    *used = at;
    *searched = found < most ? hit - at : 0;
    return found;
}

static int wrap_delimiter(const sf_framing *framing, const uint8_t *payload, uint64_t size, sf_wrapped *out)
{
    const sf_text *first = &framing->text[0];
    uint64_t taken = 0, end;
    if (size > framing->max_length)
        return sf_refuse(out, SF_WRAP_TOO_LONG, size, framing->max_length);
    end = find_end(framing, payload, 0, size, &taken);
    if (framing->number[KEEP]) {
        if (!end)
            return sf_refuse(out, SF_WRAP_UNENDED, size, 0);
        return end == size ? 0 : sf_refuse(out, SF_WRAP_DELIMITER, end - taken, 0);
    }
    if (end)
        return sf_refuse(out, SF_WRAP_DELIMITER, end - taken, 0);
    /* The end of the payload and the delimiter together must not make an earlier or a longer one. */
    uint8_t seam[2 * SF_TEXT_MAX];
    uint64_t before = size < SF_TEXT_MAX ? size : SF_TEXT_MAX;
    sf_copy(seam, payload + size - before, before);
    sf_copy(seam + before, first->data, first->size);
    end = find_end(framing, seam, before, before + first->size, &taken);
    if (end != before + first->size || taken != first->size)
        return sf_refuse(out, SF_WRAP_DELIMITER, size - before + end - taken, 0);
    sf_copy(out->trailer, first->data, first->size);
    out->trailer_size = (uint32_t)first->size;
    return 0;
}

/* Pass over a frame of unknown size: as much stays as may be the start of a delimiter. */
static int skip_delimiter(const sf_framing *framing, const uint8_t *data, uint64_t size, sf_scan *scan)
{
    uint64_t taken = 0, stays = longest(framing) - 1, end;
    if (scan->left)
        return sf_skip_known(data, size, scan, NULL);
    end = find_end(framing, data, scan->resume, size, &taken);
    int whole = end || (scan->ended && framing->number[DELIVER_TAIL]);
    scan->need = missing(framing, data, size);
    scan->size = end ? end : whole ? size : size > stays ? size - stays : 0;
    scan->passed += scan->size;
    scan->resume = size - scan->size;
    return whole ? SF_FRAME : SF_NEED;
}

const sf_kind sf_delimiter = {
    .name = "delimiter", .scan = scan_delimiter, .wrap = wrap_delimiter, .skip = skip_delimiter,
    .frames = frames_delimiter};
