/* The system calls: each loop waits with poll() and goes on where it stopped. */
#define _GNU_SOURCE
#include "descriptors.h"

#include <errno.h>

void sf_advance(sf_outgoing *outgoing, size_t size)
{
    outgoing->sent += size;
    while (outgoing->next < outgoing->count) {
        struct iovec *piece = &outgoing->pieces[outgoing->next];
        if (size < piece->iov_len) {
            piece->iov_base = (char *)piece->iov_base + size;
            piece->iov_len -= size;
            return;
        }
        size -= piece->iov_len;
        outgoing->next++;
    }
}

#ifdef _WIN32

/* Nobody has a descriptor to call these with, nor a deadline by sf_now(). */

int64_t sf_now(void) { return SF_NEVER; }

int64_t sf_receive(int fd, void *data, size_t size, int64_t deadline)
{
    (void)fd, (void)data, (void)size, (void)deadline;
    return -ENOSYS;
}

int sf_send_all(int fd, sf_outgoing *outgoing, int64_t deadline)
{
    (void)fd, (void)outgoing, (void)deadline;
    return -ENOSYS;
}

int64_t sf_read(int fd, void *data, size_t size)
{
    (void)fd, (void)data, (void)size;
    return -ENOSYS;
}

int64_t sf_write(int fd, const struct iovec *pieces, int count)
{
    (void)fd, (void)pieces, (void)count;
    return -ENOSYS;
}

int sf_await_writable(int fd)
{
    (void)fd;
    return -ENOSYS;
}

#else

#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0 /* there, SO_NOSIGPIPE is for the socket's owner to set */
#endif

#define PIECES_A_CALL 1024          /* Linux IOV_MAX: more is EMSGSIZE */
#define BYTES_A_CALL ((size_t)1 << 30) /* Linux takes 0x7ffff000 at most */
#define WAIT_A_CALL (INT64_C(86400) * 1000000000) /* a time_t or an int may have 32 bits */

#ifdef __APPLE__
#define CLOCK CLOCK_UPTIME_RAW /* it stands still while the machine sleeps, as Python's does and CLOCK_MONOTONIC doesn't */
#else
#define CLOCK CLOCK_MONOTONIC
#endif

int64_t sf_now(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Wait until the descriptor can do `events`, or has failed: 0, or a negative errno. */
static int wait_for(int fd, short events, int64_t deadline)
{
    struct pollfd one = {.fd = fd, .events = events, .revents = 0};
    int ready;
    if (deadline == SF_NEVER) {
        ready = poll(&one, 1, -1);
    } else {
        int64_t left = deadline == SF_AT_ONCE ? 0 : deadline - sf_now();
        if (left <= 0)
            return -EAGAIN;
        if (left > WAIT_A_CALL)
            left = WAIT_A_CALL;
#ifdef __linux__
        struct timespec span = {.tv_sec = (time_t)(left / 1000000000), .tv_nsec = (long)(left % 1000000000)};
        ready = ppoll(&one, 1, &span, NULL);
#else
        ready = poll(&one, 1, (int)((left + 999999) / 1000000));
#endif
    }
    if (ready < 0)
        return -errno;
    if (one.revents & POLLNVAL)
        return -EBADF;
    return 0; /* ready, or the time is up, which the next round finds */
}

int64_t sf_receive(int fd, void *data, size_t size, int64_t deadline)
{
    /* A call that may wait for ever waits in the kernel: one system call instead of three. */
    int flags = deadline == SF_NEVER ? 0 : MSG_DONTWAIT;
    if (size > BYTES_A_CALL)
        size = BYTES_A_CALL;
    for (;;) {
        ssize_t got = recv(fd, data, size, flags);
        int error = errno;
        if (got >= 0)
            return got;
        if (error != EAGAIN && error != EWOULDBLOCK)
            return -error;
        flags = MSG_DONTWAIT;
        error = wait_for(fd, POLLIN, deadline);
        if (error < 0)
            return error;
    }
}

static ssize_t send_some(int fd, const sf_outgoing *outgoing, int flags)
{
    struct iovec *piece = &outgoing->pieces[outgoing->next];
    size_t count = outgoing->count - outgoing->next, size = 0, n = 0;
    if (count == 1)
        return send(fd, piece->iov_base, piece->iov_len < BYTES_A_CALL ? piece->iov_len : BYTES_A_CALL, flags);
    while (n < count && n < PIECES_A_CALL && piece[n].iov_len <= BYTES_A_CALL - size)
        size += piece[n++].iov_len;
    if (!n) /* one piece that is larger than a call can take */
        return send(fd, piece->iov_base, BYTES_A_CALL, flags);
    struct msghdr message;
    memset(&message, 0, sizeof message);
    message.msg_iov = piece;
    message.msg_iovlen = (uint16_t)n; /* PIECES_A_CALL at most: fits an int, as it is on musl, and a size_t */
    return sendmsg(fd, &message, flags);
}

int sf_send_all(int fd, sf_outgoing *outgoing, int64_t deadline)
{
    sf_advance(outgoing, 0); /* passes over empty pieces */
    while (outgoing->next < outgoing->count) {
        ssize_t sent = send_some(fd, outgoing, MSG_NOSIGNAL | MSG_DONTWAIT);
        int error = errno;
        if (sent >= 0) {
            sf_advance(outgoing, (size_t)sent);
            continue;
        }
        if (error != EAGAIN && error != EWOULDBLOCK)
            return -error;
        error = wait_for(fd, POLLOUT, deadline);
        if (error < 0)
            return error;
    }
    return 0;
}

int64_t sf_read(int fd, void *data, size_t size)
{
    ssize_t got = read(fd, data, size);
    return got < 0 ? -errno : got;
}

int64_t sf_write(int fd, const struct iovec *pieces, int count)
{
    ssize_t wrote = writev(fd, pieces, count);
    return wrote < 0 ? -errno : wrote;
}

int sf_await_writable(int fd) { return wait_for(fd, POLLOUT, SF_NEVER); }

#endif
