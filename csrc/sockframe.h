/* sockframe: finding and making frames in a byte stream. The whole C interface.
 *
 * Contract. No function allocates, keeps a pointer, or has state outside its arguments. The caller
 * owns all memory: descriptions (sf_framing) are filled once and only read afterwards, so threads may
 * share them; a scan belongs to one stream. Nothing is read beyond the given size. All lengths are
 * unsigned 64-bit and compared before anything is added to them.
 *
 * A stream is read frame by frame: clear the scan (sf_scan_begin), give it the bytes from the first
 * byte of the frame on, as many as are here, and again all of them with the new ones when it
 * asked for more. What it answers depends on the bytes alone, never on how they were cut; `resume`
 * makes it go on where it stopped, so no byte is searched twice.
 *
 *     switch (sf_scan_frame(framing, data, size, &scan)) {
 *     case SF_FRAME:  scan.size bytes on the wire, payload data[scan.start .. scan.stop)
 *     case SF_NEED:   at least scan.need more bytes; scan.size is the whole frame where it is known
 *     case SF_FAULT:  scan.fault, .number, .limit, .seen: final, this is no frame
 *     }
 *
 * So many bytes are missing for a frame; a fault can show with any byte that comes, but where scan.size
 * is known only behind the payload, from byte scan.stop on.
 */
#ifndef SOCKFRAME_H
#define SOCKFRAME_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SF_NUMBERS 11       /* parameters of a kind */
#define SF_TEXT_MAX 64      /* bytes of a delimiter, separator or end */
#define SF_OFFSET_MAX 240   /* bytes in front of a length field, or taken off a frame */
#define SF_DIGITS_MAX 20    /* digits of an ASCII length */
#define SF_HEADER_MAX 256   /* bytes that wrapping puts in front of a payload */
#define SF_TRAILER_MAX 320  /* and behind it: an end and padding */

enum sf_status { SF_FAULT = -1, SF_NEED = 0, SF_FRAME = 1 };

/* What can be wrong: with a stream (scan), then with a payload (wrap). */
enum sf_fault {
    SF_NONE,
    SF_TOO_LONG,          /* number: the payload's length (0: longer than limit); limit: max_length */
    SF_NEGATIVE,          /* a negative length; number: its absolute value */
    SF_TOO_SHORT,         /* number: the frame's size; limit: the least it can be */
    SF_DIGIT,             /* number: the byte that is no digit */
    SF_LEADING_ZERO,
    SF_DIGITS,            /* more than SF_DIGITS_MAX digits */
    SF_SEPARATOR,         /* number: the byte that is not the separator's */
    SF_END,               /* number: the byte that is not the end's */
    SF_VARINT_LONG,       /* limit: max_bytes */
    SF_VARINT_CANONICAL,  /* limit: max_bytes */
    SF_BARE,              /* number: the bare CR or LF */
    SF_TAG,               /* number: the tag that is not listed */

    SF_WRAP_TOO_LONG,     /* number: the payload's length; limit: max_length */
    SF_WRAP_CAPACITY,     /* number: the length; limit: the largest that the field holds */
    SF_WRAP_DELIMITER,    /* number: where in the payload a delimiter begins */
    SF_WRAP_UNENDED,      /* a payload kept with its delimiter does not end with one */
    SF_WRAP_SIZE,         /* number: the payload's length; limit: the only one allowed */
    SF_WRAP_SCALE,        /* number: the frame's size; limit: the unit it is counted in */
    SF_WRAP_FIELD,        /* number: the payload's own length; limit: the right one */
    SF_WRAP_SHORT,        /* number: the payload's length; limit: the least, with its header */
    SF_WRAP_TAG,          /* the payload does not begin with the tag of a framing */
    SF_WRAP_LAST,         /* a payload after one that lasts until the stream ends */
    SF_FAULTS
};

typedef struct { const uint8_t *data; uint64_t size; } sf_text;

struct sf_kind;

/* A framing, compiled: what each number and text means is said in the kind's own file. */
typedef struct sf_framing {
    const struct sf_kind *kind;
    uint64_t max_length;                        /* of a payload, as it is delivered; at most INT64_MAX */
    uint64_t number[SF_NUMBERS];
    const sf_text *text;
    size_t texts;
    const struct sf_framing *const *child;
    size_t children;
} sf_framing;

typedef struct {
    int ended;             /* in: the stream ends behind these bytes */
    uint64_t resume;       /* in and out: bytes of this frame that need no second search */
    uint64_t size;         /* out: bytes of the frame on the wire; SF_NEED: 0 where not known */
    uint64_t start, stop;  /* out: the payload in it; SF_NEED: where size is known */
    uint64_t need;         /* out, SF_NEED: at least so many more bytes; 1 or more */
    uint64_t number, limit;/* out, SF_FAULT: see enum sf_fault */
    uint64_t seen;         /* out, SF_FAULT: bytes of the frame that show the fault */
    int fault;             /* out, SF_FAULT */
} sf_scan;

typedef struct {
    uint8_t header[SF_HEADER_MAX];
    uint8_t trailer[SF_TRAILER_MAX];
    uint32_t header_size, trailer_size;
    uint64_t replaced;     /* leading bytes of the payload that the header stands for */
    int last;              /* nothing can follow this frame in its stream */
    int fault;
    uint64_t number, limit;
} sf_wrapped;

/* Where a payload lies. */
typedef struct { uint64_t start, stop; } sf_span;

/* One kind of framing: the only dispatch there is. `frames`, where a kind has it, finds many whole, good
 * frames from data[0] on, at most `most`, and leaves all else to `scan`: their number, and the bytes that
 * they take in *used. */
typedef struct sf_kind {
    const char *name;
    int (*scan)(const sf_framing *framing, const uint8_t *data, uint64_t size, sf_scan *scan);
    int (*wrap)(const sf_framing *framing, const uint8_t *payload, uint64_t size, sf_wrapped *out);
    size_t (*frames)(const sf_framing *framing, const uint8_t *data, uint64_t size, sf_span *spans, size_t most,
                     uint64_t *used);
} sf_kind;

/* The table of all kinds, ended by NULL; and the one of that name, or NULL. */
extern const sf_kind *const sf_kinds[];
const sf_kind *sf_kind_named(const char *name);

/* What a fault is, in a few words: one of enum sf_fault. */
const char *sf_fault_text(int fault);

/* Make ready for the first byte of a frame. */
static inline void sf_scan_begin(sf_scan *scan) { scan->ended = 0; scan->resume = 0; }

/* Look for one frame at data[0]: SF_FRAME, SF_NEED or SF_FAULT. */
static inline int sf_scan_frame(const sf_framing *framing, const uint8_t *data, uint64_t size, sf_scan *scan)
{
    return framing->kind->scan(framing, data, size, scan);
}

/* Make what goes before and behind a payload: 0, or -1 with out->fault; the frame on the wire is
 * header, payload[replaced ..], trailer. */
static inline int sf_wrap_frame(const sf_framing *framing, const uint8_t *payload, uint64_t size, sf_wrapped *out)
{
    out->header_size = out->trailer_size = 0;
    out->replaced = 0;
    out->last = 0;
    return framing->kind->wrap(framing, payload, size, out);
}

#ifdef __cplusplus
}
#endif
#endif
