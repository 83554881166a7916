/* What C alone needs for the works of the benchmark, made of csrc and nothing else: the floor that every other
 * contender stands on. No error is handled but by -1, no limit kept, no deadline. */
#ifndef SOCKFRAME_FLOOR_H
#define SOCKFRAME_FLOOR_H

#include <stddef.h>
#include <stdint.h>

#include "descriptors.h"
#include "sockframe.h"

#define PIECE 65536  /* bytes of a receive, of a decoder's feed and of a buffer of small frames */
#define SPANS 256    /* frames looked for at once */

/* What becomes of a payload: nothing, a copy in memory of its own, or it is kept for a check. */
enum mode { IN_PLACE, COPIES, KEEPS };

typedef struct {
    sf_framing framing;
    sf_scan scan;
    uint8_t *data;           /* what is here: */
    uint64_t size, room;     /* bytes, of so many that fit */
    void **copies;           /* of the payloads of the last piece */
    uint64_t count, most;
    uint8_t *kept;           /* where payloads are kept, one behind the other, */
    uint64_t *stops;         /* and where each ends */
    uint64_t frames, bytes;  /* of all payloads so far */
} floor_reader;

/* Make the framing LengthPrefix(4), or Delimiter(b"\r\n"). */
void floor_framing(sf_framing *framing, int crlf);

/* Make room for `more` bytes behind those that are here. */
void reader_reserve(floor_reader *reader, uint64_t more);

/* Take all whole frames that are here: their number, or -1 where the stream is wrong. */
int64_t reader_take(floor_reader *reader, int mode);

/* Give back the copies of the last piece. */
void reader_drop(floor_reader *reader);

void reader_free(floor_reader *reader);

#endif
