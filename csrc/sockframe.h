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
 *     case SF_LONG:   an overlong frame that is to be passed over: its payload begins at scan.start; drop
 *                     what is here by and by, with sf_skip_frame, until that says SF_FRAME
 *     case SF_FAULT:  scan.fault, .number, .limit, .seen: final, this is no frame
 *     case SF_ERROR:  only from a kind that its user added: it has failed for reasons of its own
 *     }
 *
 * So many bytes are missing for a frame; a fault can show with any byte that comes, but where scan.quiet
 * says otherwise: another scan is of use only then.
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

enum sf_status { SF_ERROR = -2, SF_FAULT = -1, SF_NEED = 0, SF_FRAME = 1, SF_LONG = 2 };

/* What becomes of a frame whose payload is longer than max_length: a fault, or SF_LONG. */
enum sf_overlong { SF_OVERLONG_ERROR, SF_OVERLONG_SKIP, SF_OVERLONG_TRUNCATE };

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
    SF_HEADER_LONG,       /* limit: the longest header */
    SF_HEADER_LINE,       /* a header line without a name and a colon */
    SF_HEADER_FIELD,      /* a header without its length, or with two that differ */
    SF_STUFFING,          /* number: the byte that is no code or escape here */

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
    int overlong;                               /* enum sf_overlong */
    uint64_t number[SF_NUMBERS];
    const sf_text *text;
    size_t texts;
    const struct sf_framing *const *child;
    size_t children;
    void *context;                              /* for kinds that its user added */
} sf_framing;

typedef struct {
    int ended;             /* in: the stream ends behind these bytes */
    uint64_t resume;       /* in and out: bytes of this frame that need no second search */
    uint64_t size;         /* out: bytes of the frame on the wire; SF_NEED: 0 where not known */
    uint64_t start, stop;  /* out: the payload in it; SF_NEED: where size is known */
    uint64_t plain;        /* out, SF_FRAME: the payload's size, once sf_unstuff has made it */
    uint64_t need;         /* out, SF_NEED: at least so many more bytes; 0: no frame has begun */
    uint64_t quiet;        /* out, SF_NEED: where not 0, nothing shows before so many bytes of the frame are here */
    uint64_t number, limit;/* out, SF_FAULT: see enum sf_fault */
    uint64_t seen;         /* out, SF_FAULT: bytes of the frame that show the fault */
    int fault;             /* out, SF_FAULT */
    const struct sf_framing *by; /* out: who unstuffs the payload (NULL: nobody), or skips the frame */
    uint64_t left, behind; /* skipping: bytes of the frame from here on, if known, and behind its payload */
    uint64_t passed;       /* skipping: bytes of the frame in front of these */
    void *owner;           /* in: what holds the bytes, for kinds that its user added */
} sf_scan;

typedef struct {
    uint8_t header[SF_HEADER_MAX];
    uint8_t trailer[SF_TRAILER_MAX];
    uint32_t header_size, trailer_size;
    uint64_t replaced;     /* leading bytes of the payload that the header stands for */
    const uint8_t *body;   /* what goes between: the rest of the payload, */
    uint64_t body_size;
    const sf_framing *by;  /* or, where this is set, body_size bytes that sf_stuff makes of it */
    void *object;          /* for kinds that its user added: what holds the body */
    int last;              /* nothing can follow this frame in its stream */
    int fault;
    uint64_t number, limit;
} sf_wrapped;

/* Where a payload lies. */
typedef struct { uint64_t start, stop; } sf_span;

/* One kind of framing: the only dispatch there is. Not every kind has all of it:
 * skip     passes over an overlong frame; kinds without it can't find the next frame then
 * frames   finds many whole, good frames from data[0] on, at most `most`, and leaves all else to `scan`:
 *          their number, the bytes that they take in *used, and where they are fewer than `most`, how much of
 *          the next frame need not be searched again, its `resume`, in *searched
 * unstuff  makes the payload of the bytes from scan.start to scan.stop, scan.plain bytes of it
 * stuff    makes the body of a payload, wrapped.body_size bytes of it
 * Bytes that another thread changes meanwhile make another payload, or a fault, but nothing beside its place. */
typedef struct sf_kind {
    const char *name;
    int (*scan)(const sf_framing *framing, const uint8_t *data, uint64_t size, sf_scan *scan);
    int (*wrap)(const sf_framing *framing, const uint8_t *payload, uint64_t size, sf_wrapped *out);
    int (*skip)(const sf_framing *framing, const uint8_t *data, uint64_t size, sf_scan *scan);
    size_t (*frames)(const sf_framing *framing, const uint8_t *data, uint64_t size, sf_span *spans, size_t most,
                     uint64_t *used, uint64_t *searched);
    void (*unstuff)(const uint8_t *data, uint64_t size, uint8_t *payload, uint64_t plain);
    void (*stuff)(const uint8_t *payload, uint64_t size, uint8_t *body, uint64_t body_size);
} sf_kind;

/* The table of all kinds, ended by NULL; and the one of that name, or NULL. */
extern const sf_kind *const sf_kinds[];
const sf_kind *sf_kind_named(const char *name);

/* What a fault is, in a few words: one of enum sf_fault. */
const char *sf_fault_text(int fault);

/* Make ready for the first byte of a frame. */
static inline void sf_scan_begin(sf_scan *scan) { scan->ended = 0; scan->resume = 0; }

/* Look for one frame at data[0]: one of enum sf_status. */
static inline int sf_scan_frame(const sf_framing *framing, const uint8_t *data, uint64_t size, sf_scan *scan)
{
    return framing->kind->scan(framing, data, size, scan);
}

/* Pass over the frame for which SF_LONG came: give it the bytes from there on, with the scan as it was left.
 * SF_NEED: the first scan.size bytes are done with; SF_FRAME: the frame ends behind them; or SF_FAULT. */
static inline int sf_skip_frame(const uint8_t *data, uint64_t size, sf_scan *scan)
{
    return scan->by->kind->skip(scan->by, data, size, scan);
}

/* Make the payload of a frame whose scan.by is set: scan.plain bytes. */
static inline void sf_unstuff(const sf_scan *scan, const uint8_t *data, uint8_t *payload)
{
    scan->by->kind->unstuff(data + scan->start, scan->stop - scan->start, payload, scan->plain);
}

/* Make what goes around a payload: 0, or SF_FAULT with out->fault; the frame on the wire is header, body,
 * trailer. */
static inline int sf_wrap_frame(const sf_framing *framing, const uint8_t *payload, uint64_t size, sf_wrapped *out)
{
    out->header_size = out->trailer_size = 0;
    out->replaced = 0;
    out->body = NULL;
    out->by = NULL;
    out->object = NULL;
    out->last = 0;
    int status = framing->kind->wrap(framing, payload, size, out);
    if (status < 0)
        return status;
    if (!out->body) {
        out->body = payload + out->replaced;
        if (!out->by)
            out->body_size = size - out->replaced;
    }
    return 0;
}

/* Make the body of a payload whose wrapped.by is set: body_size bytes. */
static inline void sf_stuff(const sf_wrapped *wrapped, const uint8_t *payload, uint64_t size, uint8_t *body)
{
    wrapped->by->kind->stuff(payload, size, body, wrapped->body_size);
}

/* Wrap payloads one behind the other, until the frames have `enough` bytes or more: how many of the `count` it did, and
 * in *used the bytes of their frames. It stops in front of a payload that sf_wrap_frame refuses, or says to be the last
 * of its stream, and of a frame that is larger than `largest`. At `target` there is room for enough + largest + 8 bytes;
 * where it is NULL the payloads are only looked at, whatever size their frames have. */
size_t sf_wrap_many(const sf_framing *framing, const sf_text *payloads, size_t count, uint64_t largest,
                    uint64_t enough, uint8_t *target, uint64_t *used);

#ifdef __cplusplus
}
#endif
#endif
