/* Send-all and receive over a stream socket's descriptor, with a deadline (POSIX; on Windows there is no descriptor to
 * call it with, and SF_DESCRIPTORS is 0).
 *
 * A deadline is a time of sf_now(), SF_NEVER, or SF_AT_ONCE (do not wait). Every function returns
 * a negative errno where it fails: -EAGAIN once the deadline has passed, -EINTR when a signal came in
 * (the caller runs its handlers and calls again: what was sent or received is accounted for). The
 * flag O_NONBLOCK is not trusted: it belongs to the file, which others may share. No SIGPIPE is raised.
 */
#ifndef SOCKFRAME_DESCRIPTORS_H
#define SOCKFRAME_DESCRIPTORS_H

#include <stddef.h>
#include <stdint.h>

/* Whether a socket has a descriptor for these calls; where it is 0, connections use their sockets' own methods.
 * -DSF_DESCRIPTORS=0 has them do so everywhere. */
#ifdef _WIN32
#define SF_DESCRIPTORS 0
struct iovec {
    void *iov_base;
    size_t iov_len;
};
#else
#include <sys/uio.h>
#ifndef SF_DESCRIPTORS
#define SF_DESCRIPTORS 1
#endif
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define SF_NEVER INT64_MAX
#define SF_AT_ONCE 0

/* Nanoseconds on the clock of Python's time.monotonic_ns(); on Windows that is not the same in all versions, and this
 * is not to be called. */
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

/* Read from any descriptor, and write pieces to it, once: the bytes read or written, or a negative errno. */
int64_t sf_read(int fd, void *data, size_t size);
int64_t sf_write(int fd, const struct iovec *pieces, int count);

/* Wait until any descriptor can be written to, or has failed: 0, or a negative errno. */
int sf_await_writable(int fd);

#ifdef __cplusplus
}
#endif
#endif
