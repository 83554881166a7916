/* Send-all and receive over a stream socket's descriptor, with a deadline (POSIX).
 *
 * A deadline is a time of sf_now(), SF_NEVER, or SF_AT_ONCE (do not wait). Every function returns
 * a negative errno where it fails: -EAGAIN once the deadline has passed, -EINTR when a signal came in
 * (the caller runs its handlers and calls again: what was sent or received is accounted for). The
 * flag O_NONBLOCK is not trusted: it belongs to the file, which others may share. No SIGPIPE is raised.
 */
#ifndef SOCKFRAME_IO_H
#define SOCKFRAME_IO_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SF_NEVER INT64_MAX
#define SF_AT_ONCE 0

/* Nanoseconds on the monotonic clock. */
int64_t sf_now(void);

/* Receive what is here, at most `size` bytes (1 or more): their number, or 0 at the end of the stream. */
int64_t sf_receive(int fd, void *data, size_t size, int64_t deadline);

/* What remains to be sent: pieces[next ..count), and `sent` in all so far. */
typedef struct {
    struct iovec *pieces;
    size_t count, next;
    uint64_t sent;
} sf_outgoing;

/* Account for `size` bytes that were sent. */
void sf_advance(sf_outgoing *outgoing, size_t size);

/* Send all of it: 0, or a negative errno with `outgoing` saying what is left. Changes the pieces. */
int sf_send_all(int fd, sf_outgoing *outgoing, int64_t deadline);

#ifdef __cplusplus
}
#endif
#endif
