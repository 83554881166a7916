/* Every vector, read by the contract of sockframe.h, however the stream is cut: whole, at every two-way
 * cut, byte by byte, in all partitions (up to 14 bytes) or at seeded random cuts, with trailing bytes, and
 * many frames at once; each of them against a guard page behind the bytes and again against one in front
 * of them. Of a stream of more than LONG bytes, the cuts are those near a frame's ends, and some between.
 *
 *     test_vectors FILE...
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <stdarg.h>

#include "guard.h"
#include "vectors.h"

#define LONG 4096
#define ALL_PARTITIONS 14
#define RANDOM_CUTS 64
#define AROUND 70 /* bytes around a frame's end where a long stream is cut: a delimiter, a header */

static unsigned long passed, failed;
static guard memory, made;

/* Where a frame lies, from its first byte on; an overlong one that is skipped has no payload. */
typedef struct { uint64_t size, start, stop; int overlong; } found;

/* What is being read: for messages, and what its first reading found. */
static struct {
    const char *file;
    const block *block;
    const stream_case *stream;
    found *frame;        /* each frame of the first reading, skipped ones too */
    size_t known;
    uint64_t *cut;       /* the ends of the chunks */
    size_t cuts;
    int behind;          /* the guard page is behind the bytes */
    int failed;
} now;

__attribute__((format(printf, 2, 3)))
static int fail(int line, const char *format, ...)
{
    va_list values;
    if (!now.failed++) {
        printf("%s:%d: ", now.file, line);
        va_start(values, format);
        vprintf(format, values);
        va_end(values);
        if (now.cuts) {
            printf(" (cut at");
            for (size_t i = 0; i < now.cuts && i < 16; i++)
                printf(" %" PRIu64, now.cut[i]);
            printf("%s, guard page %s)", now.cuts > 16 ? " ..." : "", now.behind ? "behind" : "in front");
        }
        printf("\n");
    }
    return 0;
}

static int same(const uint8_t *data, uint64_t size, bytes expected)
{
    return size == expected.size && (!size || !memcmp(data, expected.data, expected.size));
}

static const uint8_t *place(const uint8_t *data, uint64_t size, int behind)
{
    return behind ? guard_end(&memory, data, size) : guard_start(&memory, data, size);
}

/* ---- one reading ---- */

static int check_fault(const sf_scan *scan, const wrong *expected, uint64_t held)
{
    int line = now.stream->line;
    if (scan->fault != expected->fault || scan->number != expected->number || scan->limit != expected->limit ||
        scan->seen != expected->seen)
        return fail(line, "fault %s %" PRIu64 " %" PRIu64 " %" PRIu64 ", not %s", fault_name(scan->fault),
                    scan->number, scan->limit, scan->seen, fault_name(expected->fault));
    if (scan->seen > held)
        return fail(line, "%" PRIu64 " bytes show the fault and %" PRIu64 " were given", scan->seen, held);
    return 1;
}

/* Kinds that search for the end of a frame, and must not search a byte twice. */
static int searches(void)
{
    const char *name = now.block->framing.kind->name;
    return !strcmp(name, "delimiter") || !strcmp(name, "crlf") || !strcmp(name, "header_block") ||
           !strcmp(name, "cobs") || !strcmp(name, "slip");
}

/* The payload of a frame is the one that is expected; one that was stuffed is made first, against a guard page. */
static int same_payload(const uint8_t *held, const sf_scan *scan, bytes expected)
{
    if (!scan->by)
        return scan->plain == scan->stop - scan->start && same(held + scan->start, scan->plain, expected);
    if (scan->plain != expected.size || scan->plain > made.room)
        return 0;
    for (uint64_t plain = 0; plain < scan->plain + 3 && plain <= made.room; plain += 1 + scan->plain / 3) {
        sf_scan other = *scan; /* the bytes were others when they were scanned: another thread has changed them */
        other.plain = plain;
        sf_unstuff(&other, held, made.low + made.room - plain);
    }
    uint8_t *payload = now.behind ? made.low + made.room - scan->plain : made.low;
    sf_unstuff(scan, held, payload);
    return same(payload, scan->plain, expected);
}

/* ---- an overlong frame that is passed over ---- */

typedef struct {
    uint64_t at, passed;  /* the frame's first byte in the stream; bytes of it that are dropped */
    int overlong;
    uint8_t *payload;     /* of a frame that is cut off, to be freed */
    uint64_t size;
} passing;

/* SF_LONG has come: what will be delivered, if anything, is here already. */
static int begin_passing(passing *state, const uint8_t *held, uint64_t size, const sf_scan *scan)
{
    const sf_framing *by = scan->by;
    state->overlong = 1;
    state->passed = 0;
    state->payload = NULL;
    state->size = 0;
    if (!by || by->overlong == SF_OVERLONG_ERROR || !by->kind->skip)
        return fail(now.stream->line, "an overlong frame that nobody skips");
    if (by->overlong == SF_OVERLONG_SKIP)
        return 1;
    if (scan->start > size || size - scan->start < by->max_length)
        return fail(now.stream->line, "an overlong frame is cut off before that is here");
    state->size = by->max_length;
    state->payload = malloc((size_t)state->size + 1);
    if (!state->payload)
        return fail(now.stream->line, "out of memory");
    if (state->size)
        memcpy(state->payload, held + scan->start, (size_t)state->size);
    return 1;
}

/* The frame that was passed over gives what it must: the next payload, or nothing. */
static int end_passing(passing *state, size_t *frames, uint64_t *skipped)
{
    const stream_case *stream = now.stream;
    int fine = 1;
    if (!state->payload)
        fine = (*skipped)++ < stream->skipped || fail(stream->line, "a frame too many is skipped");
    else if (*frames == stream->frames || !same(state->payload, state->size, stream->frame[*frames]))
        fine = fail(stream->line, "frame %zu is cut off elsewhere", *frames);
    else
        ++*frames;
    free(state->payload);
    state->overlong = 0;
    state->payload = NULL;
    return fine;
}

/* Read a frame in one piece: as `scan` should be after all of its cuts. */
static int scan_afresh(const uint8_t *data, uint64_t size, int ended, sf_scan *scan)
{
    memset(scan, 0xA5, sizeof *scan);
    sf_scan_begin(scan);
    scan->ended = ended;
    int status = sf_scan_frame(&now.block->framing, data, size, scan);
    return status == SF_LONG ? sf_skip_frame(data, size, scan) : status;
}

/* ---- one reading, cut anywhere ---- */

/* More bytes are asked for: what is said must hold for the frame, or fault, that will come. `held` counts those
 * of the frame that were dropped, too. */
static int check_need(const sf_scan *scan, const sf_scan *fresh, const passing *state, uint64_t held, size_t frames,
                      uint64_t skipped, int trailing)
{
    const stream_case *stream = now.stream;
    int line = stream->line, whole = !state->overlong && scan->size;
    size_t place = frames + (size_t)skipped;
    if (!scan->need)
        return fail(line, "0 bytes needed");
    if (scan->need != fresh->need ||
        (whole && (scan->size != fresh->size || scan->start != fresh->start || scan->stop != fresh->stop)))
        return fail(line, "need %" PRIu64 " when resumed, %" PRIu64 " afresh", scan->need, fresh->need);
    if (state->overlong && (scan->passed != fresh->passed || scan->left != fresh->left || scan->resume != fresh->resume))
        return fail(line, "%" PRIu64 " bytes passed, %" PRIu64 " afresh", scan->passed, fresh->passed);
    if (whole && scan->size != held + scan->need)
        return fail(line, "%" PRIu64 " of %" PRIu64 " bytes need %" PRIu64, held, scan->size, scan->need);
    if (!state->overlong && !whole && searches() && scan->resume + SF_TEXT_MAX < held)
        return fail(line, "%" PRIu64 " bytes would be searched again", held - scan->resume);
    if (place < stream->frames + stream->skipped && place < now.known) {
        const found *frame = &now.frame[place];
        if (held + scan->need > frame->size)
            return fail(line, "%" PRIu64 " + %" PRIu64 " bytes needed of %" PRIu64, held, scan->need, frame->size);
        if (!state->overlong && (scan->quiet > frame->size || (whole && scan->quiet <= held && scan->stop >= held)))
            return fail(line, "nothing was said to show before %" PRIu64 " bytes", scan->quiet);
        if (whole && (scan->size != frame->size || scan->start != frame->start || scan->stop != frame->stop))
            return fail(line, "a frame of %" PRIu64 " bytes was said to have %" PRIu64, frame->size, scan->size);
    }
    if (place == stream->frames + stream->skipped && state->at == stream->good && !trailing) {
        if (stream->fault.fault && held >= stream->fault.seen)
            return fail(line, "no fault in %" PRIu64 " bytes of the frame", held);
        if (stream->fault.fault && !state->overlong && stream->fault.seen < scan->quiet)
            return fail(line, "a fault shows where none was said to");
        if (!stream->fault.fault && state->at + held == stream->data.size) {
            if (scan->need != stream->need)
                return fail(line, "need %" PRIu64 ", not %" PRIu64, scan->need, stream->need);
            if (held - state->passed != stream->held)
                return fail(line, "%" PRIu64 " bytes held, not %" PRIu64, held - state->passed, stream->held);
        }
    }
    return 1;
}

static int check_end(const uint8_t *data, uint64_t held, sf_scan *scan, passing *state)
{
    const stream_case *stream = now.stream;
    int line = stream->line, status;
    const uint8_t *bytes_held = place(data + state->at + state->passed, held, now.behind);
    sf_scan fresh;
    scan->ended = 1;
    status = state->overlong ? sf_skip_frame(bytes_held, held, scan)
                             : sf_scan_frame(&now.block->framing, bytes_held, held, scan);
    if (status == SF_LONG) {
        if (!begin_passing(state, bytes_held, held, scan))
            return 0;
        status = sf_skip_frame(bytes_held, held, scan);
    }
    uint64_t all = held + state->passed;
    int fine = 1;
    if (stream->at_end.fault) {
        fine = status == SF_FAULT ? check_fault(scan, &stream->at_end, all) : fail(line, "no fault at the end");
    } else if (stream->ending == DELIVERS || stream->ending == SKIPS) {
        if (status != SF_FRAME || scan->size != held)
            fine = fail(line, "the end makes no frame of %" PRIu64 " bytes", all);
        else if ((stream->ending == SKIPS) != (state->overlong && !state->payload))
            fine = fail(line, "the end skips %d frames", stream->ending != SKIPS);
        else if (state->payload)
            fine = same(state->payload, state->size, stream->last) || fail(line, "another frame cut off at the end");
        else if (stream->ending == DELIVERS)
            fine = same_payload(bytes_held, scan, stream->last) || fail(line, "another frame at the end");
    } else if (status != SF_NEED || (stream->ending == IS_CLEAN && scan->need) ||
               (all && stream->ending == NOTHING && scan->need != stream->need)) {
        fine = fail(line, "the end gives %d, need %" PRIu64, status, scan->need);
    }
    bytes_held = place(data + state->at, all, now.behind);
    if (status != scan_afresh(bytes_held, all, 1, &fresh) || (status == SF_NEED && scan->need != fresh.need))
        return fail(line, "another end when resumed");
    return fine;
}

/* Read now.cut chunks of `data`: the vector's stream, with other bytes behind it where `trailing`. */
static int read_chunks(const uint8_t *data, int trailing, passing *state)
{
    const stream_case *stream = now.stream;
    const sf_framing *framing = &now.block->framing;
    uint64_t size = 0, skipped = 0;
    size_t frames = 0;
    sf_scan scan, fresh;
    sf_scan_begin(&scan);
    for (size_t i = 0; i < now.cuts; i++) {
        for (;;) {
            if (trailing && frames == stream->frames && skipped == stream->skipped && !stream->fault.fault)
                return 1;
            uint64_t here = state->at + state->passed;
            size = now.cut[i] - here;
            const uint8_t *held = place(data + here, size, now.behind);
            int status = state->overlong ? sf_skip_frame(held, size, &scan) : sf_scan_frame(framing, held, size, &scan);
            if (status == SF_LONG) {
                if (!begin_passing(state, held, size, &scan))
                    return 0;
                continue;
            }
            uint64_t all = state->passed + size;
            if (status != SF_FRAME && status != scan_afresh(place(data + state->at, all, now.behind), all, 0, &fresh))
                return fail(stream->line, "another result when resumed");
            if (status == SF_FAULT) {
                if (!stream->fault.fault || state->at != stream->good || frames != stream->frames ||
                    skipped != stream->skipped)
                    return fail(stream->line, "unexpected fault %s at %" PRIu64, fault_name(scan.fault), state->at);
                return check_fault(&scan, &stream->fault, all) && check_fault(&fresh, &stream->fault, all);
            }
            if (state->overlong && (scan.size > size || scan.passed != state->passed + scan.size))
                return fail(stream->line, "%" PRIu64 " bytes passed of %" PRIu64, scan.size, size);
            if (status == SF_NEED) {
                if (state->overlong) {
                    state->passed += scan.size;
                    size -= scan.size;
                }
                if (size > SF_TEXT_MAX && state->overlong)
                    return fail(stream->line, "%" PRIu64 " bytes of an overlong frame stay", size);
                if (!check_need(&scan, &fresh, state, all, frames, skipped, trailing))
                    return 0;
                break;
            }
            found frame = {state->passed + scan.size, 0, 0, state->overlong};
            size_t known = frames + (size_t)skipped;
            if (state->overlong) {
                if (!end_passing(state, &frames, &skipped))
                    return 0;
            } else {
                frame = (found){scan.size, scan.start, scan.stop, 0};
                if (frames == stream->frames)
                    return fail(stream->line, "a frame too many at %" PRIu64, state->at);
                if (!scan.size || scan.size > size || scan.start > scan.stop || scan.stop > scan.size)
                    return fail(stream->line, "a frame of %" PRIu64 " bytes in %" PRIu64, scan.size, size);
                if (!same_payload(held, &scan, stream->frame[frames]))
                    return fail(stream->line, "frame %zu has another payload", frames);
                if (scan_afresh(held, size, 0, &fresh) != SF_FRAME || scan.size != fresh.size)
                    return fail(stream->line, "another frame when resumed");
                frames++;
            }
            if (now.known == known)
                now.frame[now.known++] = frame;
            if (frame.size != now.frame[known].size || frame.overlong != now.frame[known].overlong)
                return fail(stream->line, "frame %zu has another size", known);
            state->at += frame.size;
            state->passed = 0;
            sf_scan_begin(&scan);
        }
    }
    if (stream->fault.fault || frames != stream->frames || skipped != stream->skipped ||
        (!trailing && state->at != stream->good))
        return fail(stream->line, "%zu frames of %zu, %" PRIu64 " skipped of %" PRIu64 ", %" PRIu64 " bytes, no fault",
                    frames, stream->frames, skipped, stream->skipped, state->at);
    return trailing || check_end(data, size, &scan, state);
}

static int read_cut(const uint8_t *data, int trailing)
{
    passing state = {0, 0, 0, NULL, 0};
    int fine = read_chunks(data, trailing, &state);
    free(state.payload);
    return fine;
}

/* ---- all readings of a stream ---- */

static void cut_at(uint64_t end)
{
    if (!now.cuts || now.cut[now.cuts - 1] < end)
        now.cut[now.cuts++] = end;
}

/* Near the end of a frame or of the stream, or one of the places between. */
static int worth_cutting(uint64_t at, uint64_t size)
{
    uint64_t end = 0;
    if (size <= LONG || at < AROUND || size - at < AROUND || at % (size / 32) == 0)
        return 1;
    for (size_t i = 0; i < now.known; i++) {
        end += now.frame[i].size;
        if (at + AROUND > end && at < end + AROUND)
            return 1;
    }
    return 0;
}

static uint64_t seed;

static uint64_t chance(uint64_t below)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed % below;
}

static int read_at(const uint8_t *data, uint64_t size, uint64_t first, int trailing)
{
    now.cuts = 0;
    if (first)
        cut_at(first);
    now.cut[now.cuts++] = size; /* also a chunk of nothing */
    return read_cut(data, trailing);
}

static int read_all_cuts(void)
{
    const bytes *data = &now.stream->data;
    uint64_t size = data->size;
    if (!read_at(data->data, size, 0, 0))
        return 0;
    for (uint64_t at = 0; at <= size; at++)
        if (worth_cutting(at, size) && !read_at(data->data, size, at, 0))
            return 0;
    now.cuts = 0;
    for (uint64_t at = 0; at <= size; at++)
        if (worth_cutting(at, size))
            now.cut[now.cuts++] = at;
    if (!read_cut(data->data, 0))
        return 0;
    if (size <= ALL_PARTITIONS) {
        for (uint32_t mask = 0; size && mask < UINT32_C(1) << (size - 1); mask++) {
            now.cuts = 0;
            for (uint32_t i = 0; i + 1 < size; i++)
                if (mask >> i & 1)
                    cut_at(i + 1);
            cut_at(size);
            if (!read_cut(data->data, 0))
                return 0;
        }
        return 1;
    }
    for (int i = 0; i < (size > LONG ? 4 : RANDOM_CUTS); i++) {
        uint64_t longest = size > LONG ? size / 8 : 1 + chance(size);
        now.cuts = 0;
        for (uint64_t at = 0; at < size;) {
            at += 1 + chance(longest);
            cut_at(at < size ? at : size);
        }
        if (!read_cut(data->data, 0))
            return 0;
    }
    return 1;
}

/* Behind the frames at once, `scan` goes on where they stopped, and finds what it does afresh. */
static int goes_on(const uint8_t *data, uint64_t size, uint64_t searched)
{
    const uint8_t *held = place(data, size, now.behind);
    int line = now.stream->line;
    sf_scan scan, fresh;
    if (searched > size)
        return fail(line, "%" PRIu64 " bytes of %" PRIu64 " were searched", searched, size);
    sf_scan_begin(&scan);
    sf_scan_begin(&fresh);
    scan.resume = searched;
    int status = sf_scan_frame(&now.block->framing, held, size, &scan);
    if (status != sf_scan_frame(&now.block->framing, held, size, &fresh))
        return fail(line, "another result behind the frames at once");
    if (status == SF_FAULT ? scan.fault != fresh.fault || scan.number != fresh.number || scan.limit != fresh.limit ||
                                 scan.seen != fresh.seen
                           : scan.size != fresh.size || (status == SF_NEED && scan.need != fresh.need) ||
                                 (status == SF_LONG && (scan.left != fresh.left || scan.resume != fresh.resume)))
        return fail(line, "something else behind the frames at once");
    if (status == SF_NEED && searches() && searched + SF_TEXT_MAX < size)
        return fail(line, "%" PRIu64 " bytes would be searched again behind the frames at once", size - searched);
    return 1;
}

/* `frames`, where the kind has it: in the first bytes of the stream, as many as `scan` finds whole. */
static int read_many(void)
{
    const stream_case *stream = now.stream;
    const sf_framing *framing = &now.block->framing;
    sf_span spans[8];
    if (!framing->kind->frames)
        return 1;
    for (uint64_t size = 0; size <= stream->data.size; size++) {
        if (!worth_cutting(size, stream->data.size))
            continue;
        for (size_t most = 0; most <= 8; most += most ? most : 1) {
            const uint8_t *held = place(stream->data.data, size, now.behind);
            uint64_t used = UINT64_MAX, searched = UINT64_MAX, at = 0;
            size_t count = framing->kind->frames(framing, held, size, spans, most, &used, &searched);
            if (count > most || count > now.known ||
                (!count && most && now.known && now.frame[0].size <= size && !now.frame[0].overlong))
                return fail(stream->line, "%zu frames at once in %" PRIu64 " bytes", count, size);
            for (size_t i = 0; i < count; i++) {
                if (now.frame[i].overlong || spans[i].start != at + now.frame[i].start || spans[i].stop != at + now.frame[i].stop)
                    return fail(stream->line, "frame %zu at once is elsewhere", i);
                at += now.frame[i].size;
            }
            if (used != at || used > size)
                return fail(stream->line, "%zu frames at once take %" PRIu64 " bytes", count, used);
            if (count < most && !goes_on(stream->data.data + used, size - used, searched))
                return 0;
        }
    }
    return 1;
}

static int read_trailing(void)
{
    static const char *const behind[] = {"0", "\r\n\n", "\xff\xff\xff\xff\xff\xff\xff\xff\xff", "\0\0\0\0\0", "5:hello,"};
    static const size_t sizes[] = {1, 3, 9, 5, 8};
    const stream_case *stream = now.stream;
    uint64_t size = stream->fault.fault ? stream->data.size : stream->good;
    uint8_t *data = malloc((size_t)size + 16);
    int fine = data != NULL;
    for (size_t i = 0; fine && i < sizeof sizes / sizeof *sizes; i++) {
        if (size)
            memcpy(data, stream->data.data, (size_t)size);
        memcpy(data + size, behind[i], sizes[i]);
        fine = read_at(data, size + sizes[i], 0, 1) && read_at(data, size + sizes[i], size, 1);
    }
    free(data);
    return fine;
}

/* ---- payloads ---- */

static void count(void) { *(now.failed ? &failed : &passed) += 1; }

/* Read a whole frame: it must hold just this payload. */
static int read_back(int line, const uint8_t *wire, uint64_t size, int last, bytes payload)
{
    sf_scan scan;
    const uint8_t *held = place(wire, size, 1);
    sf_scan_begin(&scan);
    scan.ended = last;
    if (sf_scan_frame(&now.block->framing, held, size, &scan) != SF_FRAME || scan.size != size)
        return fail(line, "what was wrapped is no frame");
    return same_payload(held, &scan, payload) || fail(line, "another payload comes back");
}

/* Wrap a payload: 1 and the frame (to be freed) in *wire, 0 where it is refused, -1 after a failure. */
static int wrap(int line, bytes payload, int behind, bytes *wire, sf_wrapped *out)
{
    const uint8_t *data = place(payload.data, payload.size, behind);
    memset(out, 0xA5, sizeof *out);
    if (sf_wrap_frame(&now.block->framing, data, payload.size, out) < 0)
        return 0;
    if (out->header_size > SF_HEADER_MAX || out->trailer_size > SF_TRAILER_MAX || out->replaced > payload.size ||
        (out->by && out->body_size > made.room)) {
        fail(line, "header %u, trailer %u, replaced %" PRIu64, out->header_size, out->trailer_size, out->replaced);
        return -1;
    }
    const uint8_t *body = out->body;
    if (out->by) {
        for (uint64_t body_size = 1; body_size < out->body_size + 3; body_size += 1 + out->body_size / 3) {
            sf_wrapped other = *out; /* likewise */
            other.body_size = body_size;
            sf_stuff(&other, data, payload.size, made.low + made.room - body_size);
        }
        uint8_t *room = behind ? made.low + made.room - out->body_size : made.low;
        sf_stuff(out, data, payload.size, room);
        body = room;
    } else if (body != data + out->replaced || out->body_size != payload.size - out->replaced) {
        fail(line, "the body is not the rest of the payload");
        return -1;
    }
    wire->size = (size_t)(out->header_size + out->body_size + out->trailer_size);
    wire->data = malloc(wire->size + 1);
    if (!wire->data)
        return -1;
    memcpy(wire->data, out->header, out->header_size);
    if (out->body_size)
        memcpy(wire->data + out->header_size, body, (size_t)out->body_size);
    memcpy(wire->data + out->header_size + out->body_size, out->trailer, out->trailer_size);
    return 1;
}

/* A payload three times at once: frame by frame what it is alone (`wire`; NULL: refused), in just the room that is asked for. */
static int wrap_many(int line, bytes payload, const bytes *wire, int last)
{
    const uint8_t *data = place(payload.data, payload.size, 1);
    const sf_text texts[3] = {{data, payload.size}, {data, payload.size}, {data, payload.size}};
    uint64_t size = wire ? wire->size : 0, used = 1;
    size_t fine = wire && !last ? 3 : 0;
    if (sf_wrap_many(&now.block->framing, texts, 3, 0, 1, NULL, &used) != fine || used)
        return fail(line, "looked at three times, it is another");
    if (!fine || !size)
        return 1;
    if (sf_wrap_many(&now.block->framing, texts, 3, size - 1, UINT64_MAX, made.low, &used) || used)
        return fail(line, "a frame is larger than the largest");
    for (uint64_t enough = 0; enough <= 2 * size + 1; enough += size > 4096 ? size : 1) {
        size_t many = enough ? (size_t)((enough - 1) / size) + 1 : 0;
        uint8_t *room = made.low + made.room - (enough + size + 8);
        if (enough + size + 8 > made.room)
            break;
        if (sf_wrap_many(&now.block->framing, texts, 3, size, enough, room, &used) != many || used != many * size)
            return fail(line, "%" PRIu64 " bytes are not enough", enough);
        for (size_t i = 0; i < many; i++)
            if (!same(room + i * size, (size_t)size, *wire))
                return fail(line, "frame %zu of three is another", i);
    }
    return 1;
}

static void run_encode(const encode_case *one, int behind)
{
    bytes wire;
    sf_wrapped out;
    int done = wrap(one->line, one->payload, behind, &wire, &out);
    if (done < 0)
        return;
    if (one->refused.fault) {
        if (done)
            (void)fail(one->line, "it is wrapped, not refused");
        else if (out.fault != one->refused.fault || out.number != one->refused.number || out.limit != one->refused.limit)
            (void)fail(one->line, "refused as %s %" PRIu64 " %" PRIu64, fault_name(out.fault), out.number, out.limit);
    } else if (!done) {
        (void)fail(one->line, "refused as %s %" PRIu64 " %" PRIu64, fault_name(out.fault), out.number, out.limit);
    } else if (!same(wire.data, wire.size, one->wire)) {
        (void)fail(one->line, "another frame");
    } else {
        (void)read_back(one->line, wire.data, wire.size, out.last, one->back);
    }
    (void)wrap_many(one->line, one->payload, done ? &wire : NULL, out.last);
    if (done)
        free(wire.data);
}

/* A payload that was received can be sent as it is, or is refused. */
static void run_round_trip(const stream_case *stream, bytes payload)
{
    bytes wire;
    sf_wrapped out;
    if (wrap(stream->line, payload, 1, &wire, &out) > 0) {
        (void)read_back(stream->line, wire.data, wire.size, out.last, payload);
        free(wire.data);
    }
}

static void run_stream(const stream_case *stream)
{
    now.stream = stream;
    now.known = now.cuts = 0;
    now.failed = 0;
    seed = UINT64_C(0x9E3779B97F4A7C15) + (uint64_t)stream->line;
    for (now.behind = 1; now.behind >= 0 && !now.failed; now.behind--)
        if (read_all_cuts() && read_trailing()) {
            now.cuts = 0;
            (void)read_many();
        }
    now.cuts = 0;
    for (size_t i = 0; i < stream->frames; i++)
        run_round_trip(stream, stream->frame[i]);
    if (stream->ending == DELIVERS)
        run_round_trip(stream, stream->last);
    count();
}

static void run_file(const vector_file *file)
{
    now.file = file->name;
    for (const block *one = file->block; one < file->block + file->blocks; one++) {
        sf_scan scan;
        now.block = one;
        now.failed = 0;
        sf_scan_begin(&scan);
        if (sf_scan_frame(&one->framing, NULL, 0, &scan) != SF_NEED || scan.need != one->least)
            (void)fail(one->line, "least %" PRIu64 ", not %" PRIu64, scan.need, one->least);
        count();
        for (size_t i = 0; i < one->streams; i++)
            run_stream(&one->stream[i]);
        now.cuts = 0;
        for (size_t i = 0; i < one->encodes; i++) {
            now.failed = 0;
            run_encode(&one->encode[i], 1);
            run_encode(&one->encode[i], 0);
            count();
        }
    }
}

/* The table of kinds is found by name, and every fault has words of its own. */
static void run_tables(void)
{
    now.file = "kinds.c";
    now.failed = 0;
    now.cuts = 0;
    for (const sf_kind *const *kind = sf_kinds; *kind; kind++)
        if (sf_kind_named((*kind)->name) != *kind)
            (void)fail(0, "%s is not found", (*kind)->name);
    if (sf_kind_named("") || sf_kind_named("fixe") || sf_kind_named("fixed "))
        (void)fail(0, "a kind that is not there is found");
    for (int one = 0; one < SF_FAULTS; one++)
        for (int other = -1; other < one; other++)
            if (!*sf_fault_text(one) || !strcmp(sf_fault_text(one), sf_fault_text(other)))
                (void)fail(0, "%s has the words of another", fault_name(one));
    if (strcmp(sf_fault_text(-1), sf_fault_text(SF_FAULTS)))
        (void)fail(0, "a fault that is not there has words");
    count();
}

static void largest(const vector_file *file, size_t *size)
{
    for (const block *one = file->block; one < file->block + file->blocks; one++) {
        for (size_t i = 0; i < one->streams; i++)
            if (one->stream[i].data.size > *size)
                *size = one->stream[i].data.size;
        for (size_t i = 0; i < one->encodes; i++)
            if (one->encode[i].payload.size > *size)
                *size = one->encode[i].payload.size;
    }
}

int main(int arguments, char **argument)
{
    vector_file file[32];
    size_t files = 0, size = 0;
    for (int i = 1; i < arguments && files < 32; i++) {
        file[files] = read_vectors(argument[i]);
        largest(&file[files++], &size);
    }
    memory = guard_make(size + 1024);
    made = guard_make(2 * size + 1024); /* nothing is stuffed to more than that */
    now.cut = calloc(size + 1024, sizeof *now.cut);
    now.frame = calloc(size + 1024, sizeof *now.frame);
    if (!now.cut || !now.frame)
        return 2;
    run_tables();
    for (size_t i = 0; i < files; i++)
        run_file(&file[i]);
    free(now.cut);
    free(now.frame);
    free_vectors();
    printf("test_vectors: %lu passed, %lu failed\n", passed, failed);
    return failed || !passed;
}
