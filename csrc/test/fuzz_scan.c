/* Invariant: what a stream gives (frames, overlong frames that are passed over, a fault with its place and
 * numbers, what is needed, what its end gives) is the same read whole, byte by byte and at any cuts; a frame and
 * a fault lie within the bytes given, and are found as soon as they are whole; no payload is longer than
 * max_length, and one that is cut off is just that long; a frame is never said to need more than it does, and its
 * payload holds no fault once its place is known; of a frame that is passed over, 64 bytes stay at most; many
 * frames at once are the same as one by one. A payload is refused, or its frame gives back just that payload,
 * stuffed or not; the one exception is an own length of zero (LengthField, Varint), which is filled in: what comes
 * back must then wrap to the same frame. All else is a fault.
 *
 * The input chooses a framing (one of the vectors', or any other, with its options), then a cutting; the
 * rest is the stream.
 */
#define _GNU_SOURCE

#include "guard.h"
#include "vectors.h"

#ifndef VECTORS
#define VECTORS "../tests/vectors"
#endif
#define MOST 4096
#define NODES 24
#define TEXTS 48

#define CHECK(what)                                                                                                   \
    do {                                                                                                              \
        if (!(what)) {                                                                                                \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #what);                                        \
            abort();                                                                                                  \
        }                                                                                                             \
    } while (0)

static guard memory, made;
static const sf_framing *listed[1024];
static size_t lists;

/* ---- the input's framing ---- */

static struct { const uint8_t *data; size_t size; } input;
static sf_framing node[NODES];
static const sf_framing *family[NODES][8];
static sf_text text[TEXTS];
static uint8_t letters[TEXTS][SF_TEXT_MAX], table[NODES][512];
static size_t nodes, texts;

static uint8_t take(void)
{
    if (!input.size)
        return 0;
    input.size--;
    return *input.data++;
}

static uint64_t take_64(unsigned count)
{
    uint64_t value = 0;
    while (count--)
        value = value << 8 | take();
    return value;
}

static uint64_t take_limit(void)
{
    uint8_t byte = take();
    return byte < 200 ? byte % 24 : byte < 230 ? UINT64_C(8388608) : byte < 250 ? INT64_MAX : take_64(7);
}

/* A text of `least` to 64 bytes out of few letters: most are short. */
static void take_text(uint64_t least, uint8_t first)
{
    uint8_t byte = take();
    uint64_t size = least + (byte < 250 ? byte % 4 : 60u + byte % 4);
    if (size > SF_TEXT_MAX)
        size = SF_TEXT_MAX;
    for (uint64_t i = 0; i < size; i++)
        letters[texts][i] = (uint8_t)(first + take() % 3);
    text[texts].data = letters[texts];
    text[texts].size = size;
    texts++;
}

static int starts(const sf_text *one, const sf_text *other)
{
    return one->size <= other->size && !memcmp(one->data, other->data, (size_t)one->size);
}

static void take_delimiters(sf_framing *framing)
{
    size_t wanted = 1 + take() % 3;
    framing->number[0] = take() & 1;
    framing->number[1] = take() & 1;
    for (size_t i = 0; i < wanted; i++) {
        take_text(1, 'a');
        for (size_t j = 0; j < framing->texts; j++)
            if (starts(&framing->text[j], &text[texts - 1]) || starts(&text[texts - 1], &framing->text[j])) {
                texts--; /* one that is the start of another is refused */
                return;
            }
        framing->texts++;
    }
}

static void take_length_field(sf_framing *framing)
{
    uint64_t *number = framing->number, size = 1 + take() % 8;
    uint64_t all = UINT64_MAX >> (64 - 8 * size);
    uint8_t flags = take();
    number[0] = size;
    number[1] = flags & 1 ? take() % (SF_OFFSET_MAX + 1) : take() % 4;
    number[2] = flags >> 1 & 1;
    number[3] = flags & 4 ? take_64((unsigned)size) & all : all;
    if (!number[3])
        number[3] = 1;
    number[4] = flags & 8 ? take() % (8 * size) : 0;
    number[5] = flags & 16 ? take_64(4) : 1;
    if (!number[5])
        number[5] = 1;
    number[6] = flags >> 5 & 1;
    number[7] = flags & 64 ? take_64(4) : take() % 16;
    number[8] = 1 + (flags & 128 ? take() : 0);
    uint64_t strip = take() % (SF_OFFSET_MAX + 1);
    number[9] = strip > number[1] && strip < number[1] + size ? number[1] : strip;
    number[10] = take() & 1;
    take_text(0, 'x');
    framing->texts = 1;
}

static const sf_framing *take_framing(int depth, uint64_t limit, int overlong);

static void take_tagged(sf_framing *framing, size_t at, int depth)
{
    size_t wanted = 1 + take() % 4;
    framing->number[0] = take() % 4;
    framing->number[1] = take();
    if (!framing->number[1])
        framing->number[1] = 255;
    framing->child = family[at];
    for (size_t i = 0; i < wanted; i++)
        family[at][framing->children++] = take_framing(depth + 1, framing->max_length, framing->overlong);
    memset(table[at], 0, sizeof table[at]);
    for (size_t tag = 0; tag < 256; tag++)
        table[at][2 * tag] = (uint8_t)((tag * 7 + tag / 16) % (wanted + 1));
    text[texts].data = table[at];
    text[texts].size = 512;
    texts++;
    framing->texts = 1;
}

static void take_header_block(sf_framing *framing)
{
    take_text(1, 'x');
    framing->number[0] = text[texts - 1].size + 3 + take() % 32;
    framing->number[1] = take() & 1;
    take_text(1, take() & 1 ? 'a' : '\n'); /* which is followed by \v and \f */
    if (take() & 1) {
        static const uint8_t lines[] = "\r\n\r\n";
        memcpy(letters[texts - 1], lines, 4);
        text[texts - 1].size = 4;
    }
    framing->texts = 2;
}

/* A framing; one in another delivers no more than `limit` bytes, and treats overlong frames as that does. */
static const sf_framing *take_framing(int depth, uint64_t limit, int overlong)
{
    static const char *const built[] = {"fixed", "delimiter", "crlf", "length_prefix", "length_field", "varint",
                                        "ascii_length", "until_close", "cobs", "slip", "header_block", "tagged"};
    size_t choice = take() % (depth > 1 || nodes > NODES - 8 ? 11u : 12u), at = nodes++;
    sf_framing *framing = &node[at];
    memset(framing, 0, sizeof *framing);
    framing->overlong = overlong ? overlong : take() % 3;
    if (framing->overlong == SF_OVERLONG_TRUNCATE && (choice == 8 || choice == 9)) /* what is stuffed can't be cut */
        choice = 0;
    framing->kind = sf_kind_named(built[choice]);
    framing->max_length = take_limit();
    if (framing->max_length > limit)
        framing->max_length = limit;
    framing->text = &text[texts];
    switch (choice) {
    case 0:
        framing->number[0] = 1 + take() % 16;
        break;
    case 1:
        take_delimiters(framing);
        break;
    case 3:
        framing->number[0] = 1 + take() % 8;
        framing->number[1] = take() & 1;
        framing->number[2] = take() & 1;
        break;
    case 4:
        take_length_field(framing);
        break;
    case 5:
        framing->number[0] = take() % 4;
        framing->number[1] = 1 + take() % 10;
        framing->number[2] = take() & 1;
        framing->number[3] = take() & 1;
        framing->number[4] = framing->number[3] ? 0 : take() % (framing->number[0] + 1);
        break;
    case 6:
        framing->number[0] = take() % (SF_DIGITS_MAX + 1);
        framing->number[1] = 2 + take() % 15;
        take_text(framing->number[0] ? 0 : 1, 'x');
        take_text(0, 'x');
        framing->texts = 2;
        break;
    case 10:
        take_header_block(framing);
        break;
    case 11:
        take_tagged(framing, at, depth);
        framing->text = &text[texts - 1];
        break;
    default:
        break;
    }
    return framing;
}

static const sf_framing *choose(void)
{
    nodes = texts = 0;
    if (take() & 1)
        return listed[take_64(2) % lists];
    return take_framing(0, UINT64_MAX, SF_OVERLONG_ERROR);
}

/* ---- the invariant ---- */

/* A frame; one that was passed over has `by`, and its start as it was told. */
typedef struct { uint64_t at, size, start, stop, plain; const sf_framing *overlong, *by; } found;

static struct {
    found frame[MOST];
    size_t frames;
    uint64_t rest;        /* where the last, unfinished or bad frame begins */
    sf_scan end;          /* how it goes on: a fault, or what is needed; then with the end of the stream */
    int status, status_ended;
    const sf_framing *overlong, *overlong_ended; /* who passes it over */
    sf_scan ended;
} whole;

static const uint8_t *place(const uint8_t *data, uint64_t size) { return guard_end(&memory, data, size); }

static void check_frame(const sf_framing *framing, const sf_scan *scan, uint64_t held)
{
    CHECK(scan->size <= held);
    CHECK(scan->start <= scan->stop);
    CHECK(scan->stop <= scan->size);
    CHECK(scan->plain <= framing->max_length);
    CHECK(scan->by ? scan->by->kind->unstuff != NULL : scan->plain == scan->stop - scan->start);
}

static void check_long(const sf_framing *framing, const sf_scan *scan, uint64_t held)
{
    const sf_framing *by = scan->by;
    CHECK(by && by->kind->skip && by->overlong != SF_OVERLONG_ERROR && by->max_length <= framing->max_length);
    CHECK(!scan->passed && scan->resume <= held && scan->behind <= scan->left);
    CHECK(by->overlong != SF_OVERLONG_TRUNCATE || (scan->start <= held && held - scan->start >= by->max_length));
    CHECK(!scan->left || scan->left - scan->start - scan->behind > by->max_length || by->kind->unstuff);
}

static void same_fault(const sf_scan *one, const sf_scan *other)
{
    CHECK(one->fault == other->fault);
    CHECK(one->number == other->number);
    CHECK(one->limit == other->limit);
    CHECK(one->seen == other->seen);
}

static void same_scan(int status, int overlong, const sf_scan *one, const sf_scan *other)
{
    if (status == SF_FAULT) {
        same_fault(one, other);
        return;
    }
    CHECK(status == SF_FRAME || one->need == other->need);
    if (overlong) {
        CHECK(one->by == other->by && one->start == other->start && one->left == other->left);
        CHECK(one->behind == other->behind && one->passed == other->passed && one->resume == other->resume);
        return;
    }
    CHECK(one->size == other->size);
    if (one->size) {
        CHECK(one->start == other->start);
        CHECK(one->stop == other->stop);
    }
}

/* Scan from a frame's first byte on, and pass over an overlong one: `overlong` says who does. */
static int fresh_scan(const sf_framing *framing, const uint8_t *held, uint64_t size, int ended, sf_scan *scan,
                      const sf_framing **overlong)
{
    memset(scan, 0xA5, sizeof *scan);
    sf_scan_begin(scan);
    scan->ended = ended;
    *overlong = NULL;
    int status = sf_scan_frame(framing, held, size, scan);
    CHECK(status == SF_FRAME || status == SF_NEED || status == SF_FAULT || status == SF_LONG);
    if (status != SF_LONG)
        return status;
    check_long(framing, scan, size);
    *overlong = scan->by;
    status = sf_skip_frame(held, size, scan);
    CHECK(status == SF_FAULT || (status == SF_FRAME || status == SF_NEED));
    CHECK(status == SF_FAULT || (scan->size <= size && scan->passed == scan->size));
    CHECK(status != SF_NEED || size - scan->size < SF_TEXT_MAX);
    return status;
}

static void read_whole(const sf_framing *framing, const uint8_t *data, uint64_t size)
{
    sf_scan scan;
    uint64_t at = 0;
    whole.frames = 0;
    while ((whole.status = fresh_scan(framing, place(data + at, size - at), size - at, 0, &scan, &whole.overlong)) ==
           SF_FRAME) {
        CHECK(scan.size);
        if (!whole.overlong)
            check_frame(framing, &scan, size - at);
        whole.frame[whole.frames++] = (found){at, scan.size, scan.start, scan.stop, scan.plain, whole.overlong, scan.by};
        at += scan.size;
    }
    whole.rest = at;
    whole.end = scan;
    if (whole.status == SF_FAULT) {
        CHECK(scan.seen <= size - at);
        CHECK(scan.seen);
        CHECK(scan.fault > SF_NONE && scan.fault < SF_WRAP_TOO_LONG);
        return;
    }
    CHECK(scan.need);
    whole.status_ended = fresh_scan(framing, place(data + at, size - at), size - at, 1, &whole.ended,
                                    &whole.overlong_ended);
    if (whole.status_ended == SF_FRAME) {
        if (!whole.overlong_ended)
            check_frame(framing, &whole.ended, size - at);
        CHECK(whole.ended.size == size - at);
    } else if (whole.status_ended == SF_FAULT) {
        CHECK(whole.ended.seen <= size - at);
    }
}

/* What is needed is said of the frame that comes in the whole stream, if one comes. `held` counts the bytes of an
 * overlong one that were dropped. */
static void check_need(const sf_scan *scan, int overlong, uint64_t at, uint64_t held, size_t frames)
{
    uint64_t size = overlong ? 0 : scan->size;
    CHECK(scan->need);
    CHECK(!size || size == held + scan->need);
    if (frames < whole.frames) {
        const found *frame = &whole.frame[frames];
        CHECK(held < frame->size);
        CHECK(held + scan->need <= frame->size);
        CHECK(overlong || (scan->quiet <= frame->size && (!size || scan->quiet > held || scan->stop < held)));
        CHECK(!size || (size == frame->size && scan->start == frame->start && scan->stop == frame->stop));
    } else if (whole.status == SF_FAULT) {
        CHECK(at == whole.rest);
        CHECK(held < whole.end.seen);
        CHECK(overlong || scan->quiet <= whole.end.seen);
    }
}

/* Read in chunks of 1 to `longest` bytes; 1: byte by byte. */
static void read_cut(const sf_framing *framing, const uint8_t *data, uint64_t size, uint64_t seed, uint64_t longest)
{
    uint64_t at = 0, end = 0, passed = 0;
    size_t frames = 0;
    const sf_framing *overlong = NULL, *overlong_fresh;
    sf_scan scan, fresh;
    int status;
    sf_scan_begin(&scan);
    for (;;) {
        uint64_t held = end - at - passed;
        const uint8_t *bytes_held = place(data + at + passed, held);
        status = overlong ? sf_skip_frame(bytes_held, held, &scan) : sf_scan_frame(framing, bytes_held, held, &scan);
        if (status == SF_LONG) {
            CHECK(!overlong);
            check_long(framing, &scan, held);
            overlong = scan.by;
            status = sf_skip_frame(bytes_held, held, &scan);
        }
        CHECK(status == fresh_scan(framing, place(data + at, end - at), end - at, 0, &fresh, &overlong_fresh));
        CHECK(overlong == overlong_fresh);
        same_scan(status, overlong != NULL, &scan, &fresh);
        if (overlong && status != SF_FAULT) {
            CHECK(scan.size <= held && scan.passed == passed + scan.size);
            CHECK(status == SF_FRAME || held - scan.size < SF_TEXT_MAX);
            passed += scan.size;
        }
        if (status == SF_FRAME) {
            CHECK(frames < whole.frames);
            const found *frame = &whole.frame[frames++];
            CHECK(at == frame->at && frame->overlong == overlong && frame->start == scan.start);
            CHECK(frame->size == (overlong ? passed : scan.size));
            CHECK(overlong || (frame->stop == scan.stop && frame->plain == scan.plain && frame->by == scan.by));
            at += frame->size;
            passed = 0;
            overlong = NULL;
            sf_scan_begin(&scan);
            continue;
        }
        if (status == SF_FAULT) {
            CHECK(whole.status == SF_FAULT && frames == whole.frames && at == whole.rest);
            same_fault(&scan, &whole.end);
            CHECK(end - at >= scan.seen);
            return;
        }
        check_need(&scan, overlong != NULL, at, end - at, frames);
        if (end == size)
            break;
        seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
        end += 1 + (seed >> 33) % longest;
        if (end > size)
            end = size;
    }
    CHECK(whole.status == SF_NEED && frames == whole.frames && at == whole.rest && overlong == whole.overlong);
    same_scan(SF_NEED, overlong != NULL, &scan, &whole.end);
    uint64_t held = size - at - passed;
    const uint8_t *rest = place(data + at + passed, held);
    scan.ended = 1;
    status = overlong ? sf_skip_frame(rest, held, &scan) : sf_scan_frame(framing, rest, held, &scan);
    if (status == SF_LONG) {
        CHECK(!overlong);
        overlong = scan.by;
        status = sf_skip_frame(rest, held, &scan);
    }
    CHECK(status == whole.status_ended && overlong == whole.overlong_ended);
    same_scan(status, overlong != NULL, &scan, &whole.ended);
    CHECK(status != SF_FRAME || scan.size == held);
}

static void read_many(const sf_framing *framing, const uint8_t *data, uint64_t size, size_t most)
{
    static sf_span spans[MOST];
    uint64_t used = 0, searched = 0, at = 0;
    if (!framing->kind->frames)
        return;
    size_t count = framing->kind->frames(framing, place(data, size), size, spans, most, &used, &searched);
    CHECK(count <= most && count <= whole.frames);
    CHECK(count || !most || !whole.frames || whole.frame[0].overlong);
    for (size_t i = 0; i < count; i++) {
        CHECK(!whole.frame[i].overlong);
        CHECK(spans[i].start == at + whole.frame[i].start);
        CHECK(spans[i].stop == at + whole.frame[i].stop);
        at += whole.frame[i].size;
    }
    CHECK(used == at);
    if (count == most)
        return;
    sf_scan scan, fresh;
    const sf_framing *overlong;
    const uint8_t *held = place(data + at, size - at);
    int status = fresh_scan(framing, held, size - at, 0, &fresh, &overlong);
    CHECK(searched <= size - at);
    sf_scan_begin(&scan);
    scan.resume = searched;
    int again = sf_scan_frame(framing, held, size - at, &scan);
    CHECK((again == SF_LONG) == (overlong != NULL));
    if (again == SF_LONG)
        again = sf_skip_frame(held, size - at, &scan);
    CHECK(again == status);
    same_scan(status, overlong != NULL, &scan, &fresh);
}

/* Wrap a payload: the frame's size, or 0 where it is refused. */
static uint64_t wrap(const sf_framing *framing, const uint8_t *payload, uint64_t size, uint8_t *wire, sf_wrapped *out)
{
    const uint8_t *held = place(payload, size);
    memset(out, 0xA5, sizeof *out);
    if (sf_wrap_frame(framing, held, size, out) < 0) {
        CHECK(out->fault >= SF_WRAP_TOO_LONG && out->fault < SF_WRAP_LAST);
        return 0;
    }
    CHECK(out->header_size <= SF_HEADER_MAX && out->trailer_size <= SF_TRAILER_MAX);
    CHECK(out->replaced <= size && out->replaced <= out->header_size);
    CHECK(size <= framing->max_length);
    const uint8_t *body = out->body;
    uint64_t rest = out->body_size;
    if (out->by) {
        CHECK(rest <= made.room);
        body = made.low + made.room - rest;
        sf_stuff(out, held, size, made.low + made.room - rest);
    } else {
        CHECK(body == held + out->replaced && rest == size - out->replaced);
    }
    memcpy(wire, out->header, out->header_size);
    if (rest)
        memcpy(wire + out->header_size, body, (size_t)rest);
    memcpy(wire + out->header_size + rest, out->trailer, out->trailer_size);
    return out->header_size + rest + out->trailer_size;
}

/* The payload of the frame at data[0], `plain` bytes. */
static const uint8_t *payload_of(const uint8_t *data, uint64_t start, uint64_t stop, uint64_t plain,
                                 const sf_framing *by)
{
    sf_scan scan;
    if (!by)
        return data + start;
    uint8_t *payload = made.low + made.room - plain;
    scan.start = start;
    scan.stop = stop;
    scan.plain = plain;
    scan.by = by;
    sf_unstuff(&scan, data, payload);
    return payload;
}

/* `received`: the payload came out of a frame, so that its own length is right. */
static void round_trip(const sf_framing *framing, const uint8_t *payload, uint64_t size, int received)
{
    static uint8_t wire[2 * MOST + 1024], again[2 * MOST + 1024], back[2 * MOST + 1024];
    static uint8_t many[2 * (2 * MOST + 1024) + 9];
    const sf_framing *overlong;
    sf_wrapped out;
    sf_scan scan;
    uint64_t length = wrap(framing, payload, size, wire, &out);
    if (!length && !out.last)
        return;
    const uint8_t *held = place(wire, length);
    CHECK(fresh_scan(framing, held, length, out.last, &scan, &overlong) == SF_FRAME);
    CHECK(scan.size == length && !overlong);
    const sf_text twice[2] = {{payload, size}, {payload, size}};
    uint64_t used;
    size_t count = sf_wrap_many(framing, twice, 2, length, length + 1, many, &used);
    CHECK(count == (out.last ? 0 : 2) && used == count * length);
    CHECK(!count || (!memcmp(many, wire, (size_t)length) && !memcmp(many + length, wire, (size_t)length)));
    uint64_t got = scan.plain;
    memcpy(back, payload_of(held, scan.start, scan.stop, got, scan.by), (size_t)got);
    if (got == size && (!size || !memcmp(back, payload, (size_t)size)))
        return;
    CHECK(!received && out.replaced);
    sf_wrapped second;
    CHECK(wrap(framing, back, got, again, &second) == length);
    CHECK(!memcmp(again, wire, (size_t)length));
}

static void round_trip_frame(const sf_framing *framing, const uint8_t *stream, const found *frame)
{
    static uint8_t payload[MOST];
    const uint8_t *data = stream + frame->at;
    if (frame->overlong && frame->overlong->overlong == SF_OVERLONG_TRUNCATE)
        round_trip(framing, data + frame->start, frame->overlong->max_length, 0);
    if (frame->overlong)
        return;
    memcpy(payload, payload_of(data, frame->start, frame->stop, frame->plain, frame->by), (size_t)frame->plain);
    round_trip(framing, payload, frame->plain, 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *arguments, char ***argument);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    input.data = data;
    input.size = size;
    const sf_framing *framing = choose();
    uint64_t seed = take_64(2);
    const uint8_t *stream = input.data;
    uint64_t length = input.size < MOST ? input.size : MOST - 1;
    read_whole(framing, stream, length);
    read_cut(framing, stream, length, seed, 1);
    read_cut(framing, stream, length, seed, 1 + seed % 16);
    read_cut(framing, stream, length, seed, 1 + length);
    read_many(framing, stream, length, MOST);
    read_many(framing, stream, length, seed % 8);
    for (size_t i = 0; i < whole.frames; i++)
        round_trip_frame(framing, stream, &whole.frame[i]);
    if (whole.status == SF_NEED && whole.status_ended == SF_FRAME) {
        const sf_scan *last = &whole.ended;
        round_trip_frame(framing, stream, &(found){whole.rest, last->size, last->start, last->stop, last->plain,
                                                   whole.overlong_ended, last->by});
    }
    round_trip(framing, stream, length, 0);
    return 0;
}

/* ---- the vectors: framings to choose from, and seeds ---- */

static void write_seed(const char *folder, size_t number, const bytes *stream)
{
    static char path[4096];
    if (stream->size >= MOST)
        return;
    static size_t count;
    snprintf(path, sizeof path, "%s/vector-%zu", folder, count++);
    FILE *file = fopen(path, "wb");
    const uint8_t head[5] = {1, (uint8_t)(number >> 8), (uint8_t)number, 0, 7};
    if (!file || fwrite(head, 1, sizeof head, file) != sizeof head ||
        (stream->size && fwrite(stream->data, 1, stream->size, file) != stream->size) || fclose(file)) {
        perror(path);
        exit(2);
    }
}

int LLVMFuzzerInitialize(int *arguments, char ***argument)
{
    const char *folder = *arguments == 3 && !strcmp((*argument)[1], "--seeds") ? (*argument)[2] : NULL;
    static char path[4096];
    memory = guard_make(2 * MOST + 1024);
    made = guard_make(2 * MOST + 1024);
    for (const sf_kind *const *kind = sf_kinds; *kind; kind++) {
        snprintf(path, sizeof path, "%s/%s.txt", VECTORS, (*kind)->name);
        vector_file file = read_vectors(path);
        for (const block *one = file.block; one < file.block + file.blocks && lists < 1024; one++) {
            listed[lists++] = &one->framing;
            for (size_t i = 0; folder && i < one->streams; i++)
                write_seed(folder, lists - 1, &one->stream[i].data);
        }
    }
    if (folder) {
        free_vectors();
        exit(0);
    }
    return 0;
}
