/* The files of tests/vectors, read: the format is told in tests/vectorfiles.py. */
#ifndef SOCKFRAME_TEST_VECTORS_H
#define SOCKFRAME_TEST_VECTORS_H

#include <stddef.h>
#include <stdint.h>

#include "../sockframe.h"

typedef struct { uint8_t *data; size_t size; } bytes;

typedef struct { int fault; uint64_t number, limit, seen; } wrong; /* fault: SF_NONE where there is none */

typedef struct {
    int line;
    bytes data;
    bytes *frame;
    size_t frames;
    uint64_t skipped;     /* overlong frames that are skipped */
    uint64_t good, need;  /* bytes in whole frames; least number of missing bytes, where no fault is there */
    uint64_t held;        /* bytes of the rest that stay, where an overlong frame is passed over; else all */
    wrong fault, at_end;  /* of the bytes; of the end of the stream behind them */
    enum { NOTHING, DELIVERS, SKIPS, IS_CLEAN } ending; /* the end of the stream: makes a frame of the rest, */
    bytes last;           /* `last`; an overlong one, which is skipped; or finds that no frame has begun */
} stream_case;

typedef struct {
    int line;
    bytes payload, wire, back;
    wrong refused;
} encode_case;

typedef struct {
    int line;
    sf_framing framing;
    uint64_t least;       /* bytes that are missing in front of a frame */
    stream_case *stream;
    size_t streams;
    encode_case *encode;
    size_t encodes;
} block;

typedef struct {
    const char *name;
    block *block;
    size_t blocks;
} vector_file;

/* Read a file; one that can't be read ends the program with a message. */
vector_file read_vectors(const char *path);

/* Free all that was read. */
void free_vectors(void);

/* "TOO_LONG" and so on. */
const char *fault_name(int fault);

#endif
