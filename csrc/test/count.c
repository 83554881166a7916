/* What scanning costs, to be counted by callgrind: finds the frames of 64 KiB once and then three times, for each row of
 * a table, and calls getppid() before, between and behind, where callgrind is told to write down its counts. Prints the
 * row's name and the number of frames in a round. bench/budgets.py runs it. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../sockframe.h"

#define SIZE 65536
#define SPANS 256

static uint8_t data[SIZE];

static size_t count(const sf_framing *framing, uint64_t size, int rounds)
{
    static sf_span spans[SPANS];
    size_t frames = 0;
    while (rounds--) {
        uint64_t at = 0, used = 0, searched = 0;
        size_t found = SPANS;
        for (frames = 0; found == SPANS; at += used)
            frames += found = framing->kind->frames(framing, data + at, size - at, spans, SPANS, &used, &searched);
    }
    return frames;
}

/* Fill `data` with frames, each payload all 'a': the bytes that they take. */
static uint64_t fill(const sf_framing *framing, uint64_t payload)
{
    uint64_t at = 0;
    sf_wrapped wrapped;
    uint8_t *letters = malloc((size_t)payload + 1);
    if (!letters)
        exit(2);
    memset(letters, 'a', (size_t)payload);
    if (sf_wrap_frame(framing, letters, payload, &wrapped) < 0)
        exit(2);
    while (SIZE - at >= wrapped.header_size + payload + wrapped.trailer_size) {
        memcpy(data + at, wrapped.header, wrapped.header_size);
        memcpy(data + at + wrapped.header_size, letters, (size_t)payload);
        at += wrapped.header_size + payload;
        memcpy(data + at, wrapped.trailer, wrapped.trailer_size);
        at += wrapped.trailer_size;
    }
    free(letters);
    return at;
}

int main(void)
{
    static const sf_text ends[] = {{(const uint8_t *)"\r\n", 2}, {(const uint8_t *)"\n", 1}, {(const uint8_t *)";", 1}};
    static const struct { const char *name, *kind; uint64_t payload, number; size_t texts; } rows[] = {
        {"scan length 64 B", "length_prefix", 64, 4, 0},
        {"scan length of 3 bytes, 64 B", "length_prefix", 64, 3, 0},
        {"scan CRLF 16 B", "delimiter", 16, 0, 1},
        {"scan CRLF 64 B", "delimiter", 64, 0, 1},
        {"scan CRLF 1 KiB", "delimiter", 1024, 0, 1},
        {"scan lines 64 B", "delimiter", 64, 0, 2},
        {"scan three delimiters 64 B", "delimiter", 64, 0, 3},
        {"scan strict CRLF 64 B", "crlf", 64, 0, 0},
        {"scan strict CRLF 1 KiB", "crlf", 1024, 0, 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        sf_framing framing = {.kind = sf_kind_named(rows[i].kind), .max_length = 8388608, .number = {rows[i].number},
                              .text = ends, .texts = rows[i].texts};
        uint64_t size = fill(&framing, rows[i].payload);
        (void)getppid();
        size_t frames = count(&framing, size, 1);
        (void)getppid();
        if (count(&framing, size, 3) != frames)
            return 1;
        (void)getppid();
        printf("%zu %s\n", frames, rows[i].name);
    }
    return 0;
}
