/* Decoding from memory, receiving and sending: one stream, one thread. */
#define _GNU_SOURCE
#include "floor.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

void floor_framing(sf_framing *framing, int crlf)
{
    static const sf_text end = {(const uint8_t *)"\r\n", 2};
    memset(framing, 0, sizeof *framing);
    framing->kind = sf_kind_named(crlf ? "delimiter" : "length_prefix");
    framing->max_length = UINT64_C(1) << 30;
    framing->text = &end;
    framing->texts = crlf ? 1 : 0;
    framing->number[0] = crlf ? 0 : 4;
}

/* ---- a stream in, frames out ---- */

static void reader_begin(floor_reader *reader, int crlf, uint8_t *kept, uint64_t *stops)
{
    memset(reader, 0, sizeof *reader);
    floor_framing(&reader->framing, crlf);
    reader->kept = kept;
    reader->stops = stops;
    reader_reserve(reader, PIECE);
    sf_scan_begin(&reader->scan);
}

void reader_reserve(floor_reader *reader, uint64_t more)
{
    if (reader->room - reader->size >= more)
        return;
    reader->room = reader->size + more > 2 * reader->room ? reader->size + more : 2 * reader->room;
    if (!(reader->data = realloc(reader->data, reader->room)))
        abort();
}

void reader_drop(floor_reader *reader)
{
    for (uint64_t i = 0; i < reader->count; i++)
        free(reader->copies[i]);
    reader->count = 0;
}

void reader_free(floor_reader *reader)
{
    reader_drop(reader);
    free(reader->copies);
    free(reader->data);
}

static void copy(floor_reader *reader, const uint8_t *payload, uint64_t size)
{
    if (reader->count == reader->most) {
        reader->most = 2 * reader->most + SPANS;
        if (!(reader->copies = realloc(reader->copies, reader->most * sizeof *reader->copies)))
            abort();
    }
    void *made = malloc(size + 1);
    if (!made)
        abort();
    memcpy(made, payload, size);
    reader->copies[reader->count++] = made;
}

static inline void deliver(floor_reader *reader, int mode, const uint8_t *payload, uint64_t size)
{
    if (mode == COPIES)
        copy(reader, payload, size);
    if (mode == KEEPS) {
        memcpy(reader->kept + reader->bytes, payload, size);
        reader->stops[reader->frames] = reader->bytes + size;
    }
    reader->frames++;
    reader->bytes += size;
}

static inline int64_t take(floor_reader *reader, int mode)
{
    const sf_framing *framing = &reader->framing;
    uint64_t at = 0, used, searched, before = reader->frames;
    sf_span spans[SPANS];
    for (;;) {
        size_t found = SPANS;
        while (framing->kind->frames && found == SPANS && !reader->scan.resume) {
            const uint8_t *data = reader->data + at;
            found = framing->kind->frames(framing, data, reader->size - at, spans, SPANS, &used, &searched);
            for (size_t i = 0; i < found; i++)
                deliver(reader, mode, data + spans[i].start, spans[i].stop - spans[i].start);
            at += used;
            reader->scan.resume = found < SPANS ? searched : 0;
        }
        int status = sf_scan_frame(framing, reader->data + at, reader->size - at, &reader->scan);
        if (status == SF_NEED)
            break;
        if (status != SF_FRAME)
            return -1;
        deliver(reader, mode, reader->data + at + reader->scan.start, reader->scan.stop - reader->scan.start);
        at += reader->scan.size;
        sf_scan_begin(&reader->scan);
    }
    if (at)
        memmove(reader->data, reader->data + at, reader->size - at);
    reader->size -= at;
    return (int64_t)(reader->frames - before);
}

int64_t reader_take(floor_reader *reader, int mode)
{
    switch (mode) { /* for the compiler: a loop for each */
    case COPIES: return take(reader, COPIES);
    case KEEPS: return take(reader, KEEPS);
    default: return take(reader, IN_PLACE);
    }
}

/* Decode a stream `times` times, fed piece by piece into the reader's buffer, as a receive would bring it: the
 * number of frames, or -1. */
int64_t floor_decode(int crlf, int mode, const uint8_t *stream, uint64_t size, int64_t times, uint8_t *kept,
                     uint64_t *stops)
{
    int64_t frames = 0;
    while (times--) {
        floor_reader reader;
        reader_begin(&reader, crlf, kept, stops);
        for (uint64_t at = 0; at < size; at += PIECE) {
            uint64_t here = size - at < PIECE ? size - at : PIECE;
            reader_reserve(&reader, here);
            memcpy(reader.data + reader.size, stream + at, here);
            reader.size += here;
            reader_drop(&reader);
            int64_t found = reader_take(&reader, mode);
            if (found < 0)
                return found;
            frames += found;
        }
        reader_free(&reader);
    }
    return frames;
}

/* Receive frames until the end of the stream: their number, or -1. */
int64_t floor_receive(int fd, int crlf, int mode, uint8_t *kept, uint64_t *stops)
{
    floor_reader reader;
    int64_t frames = 0, here, found;
    reader_begin(&reader, crlf, kept, stops);
    for (;;) {
        /* A frame that is known to be large is asked for as a whole. */
        uint64_t need = reader.size ? reader.scan.need : 0;
        reader_reserve(&reader, need > PIECE / 2 ? need : PIECE / 2);
        here = sf_receive(fd, reader.data + reader.size, reader.room - reader.size, SF_NEVER);
        if (here <= 0)
            break;
        reader.size += (uint64_t)here;
        reader_drop(&reader);
        if ((found = reader_take(&reader, mode)) < 0)
            return found;
        frames += found;
    }
    found = reader.size || here ? -1 : frames;
    reader_free(&reader);
    return found;
}

/* ---- payloads in, a stream out ---- */

static int send_pieces(int fd, struct iovec *pieces, size_t count)
{
    sf_outgoing outgoing = {.pieces = pieces, .count = count, .next = 0, .sent = 0};
    return sf_send_all(fd, &outgoing, SF_NEVER);
}

/* Send `count` payloads of `size` bytes, which lie one behind the other, `times` times: 0, or -1. Small frames are
 * gathered in one buffer, large payloads sent from where they are. */
int floor_send(int fd, int crlf, const uint8_t *payloads, uint64_t size, uint64_t count, int64_t times)
{
    sf_framing framing;
    sf_wrapped wrapped;
    uint8_t *buffer = malloc(PIECE);
    size_t held = 0;
    int failed = !buffer;
    floor_framing(&framing, crlf);
    for (uint64_t i = 0; !failed && i < count * (uint64_t)times; i++) {
        const uint8_t *payload = payloads + i % count * size;
        if ((failed = sf_wrap_frame(&framing, payload, size, &wrapped)))
            break;
        uint64_t whole = wrapped.header_size + wrapped.body_size + wrapped.trailer_size;
        if (held && held + whole > PIECE) {
            failed = send_pieces(fd, &(struct iovec){buffer, held}, 1);
            held = 0;
        }
        if (!failed && whole > PIECE / 2) {
            struct iovec pieces[] = {{buffer, held}, {wrapped.header, wrapped.header_size},
                                     {(void *)wrapped.body, wrapped.body_size},
                                     {wrapped.trailer, wrapped.trailer_size}};
            failed = send_pieces(fd, pieces, 4);
            held = 0;
            continue;
        }
        memcpy(buffer + held, wrapped.header, wrapped.header_size);
        held += wrapped.header_size;
        memcpy(buffer + held, wrapped.body, wrapped.body_size);
        held += wrapped.body_size;
        memcpy(buffer + held, wrapped.trailer, wrapped.trailer_size);
        held += wrapped.trailer_size;
    }
    if (!failed && held)
        failed = send_pieces(fd, &(struct iovec){buffer, held}, 1);
    free(buffer);
    return failed ? -1 : 0;
}

/* ---- one frame after the other, there and back ---- */

/* Receive one frame: its payload in reader->data from `*start` on, its size, or -1 at the end. */
static int64_t receive_one(int fd, floor_reader *reader, uint64_t *start)
{
    for (reader->size = 0;;) {
        reader_reserve(reader, PIECE);
        int64_t here = sf_receive(fd, reader->data + reader->size, reader->room - reader->size, SF_NEVER);
        if (here <= 0)
            return -1;
        reader->size += (uint64_t)here;
        sf_scan_begin(&reader->scan);
        if (sf_scan_frame(&reader->framing, reader->data, reader->size, &reader->scan) == SF_FRAME) {
            *start = reader->scan.start;
            return (int64_t)(reader->scan.stop - reader->scan.start);
        }
    }
}

/* Answer each frame with its payload, to the end of the stream. */
void floor_reply(int fd)
{
    floor_reader reader;
    uint64_t start;
    int64_t size;
    reader_begin(&reader, 0, NULL, NULL);
    while ((size = receive_one(fd, &reader, &start)) >= 0)
        if (floor_send(fd, 0, reader.data + start, (uint64_t)size, 1, 1))
            break;
    reader_free(&reader);
}

/* Send a payload and take the reply, so many times: 0, or -1 where it is another. */
int floor_ask(int fd, const uint8_t *payload, uint64_t size, int64_t times)
{
    floor_reader reader;
    uint64_t start = 0;
    int failed = 0;
    reader_begin(&reader, 0, NULL, NULL);
    while (!failed && times--)
        failed = floor_send(fd, 0, payload, size, 1, 1) || receive_one(fd, &reader, &start) != (int64_t)size ||
                 memcmp(reader.data + start, payload, size);
    reader_free(&reader);
    return failed ? -1 : 0;
}
