/* Preloaded (ld.so(8)): system calls on sockets that do the least they may, and fail for no reason now and then.
 *
 * SHIM is a list of a letter for each call in turn, over and over: a digit, so many bytes at most (0: all of them);
 * E, EINTR; A, EAGAIN though there is something, where the call may not wait; B, ENOBUFS; N, ENOMEM. poll and ppoll take
 * letters of a list of their own, SHIM_POLL: E, EINTR; R, "ready" at once; 0, as it is.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

static char next_of(const char *name, _Atomic unsigned *turn)
{
    const char *list = getenv(name);
    size_t size = list ? strlen(list) : 0;
    return size ? list[(*turn)++ % size] : '0';
}

static _Atomic unsigned calls, polls;

/* Whether the call fails, or else how many bytes it may move at most. */
static int fails(int flags, size_t *most)
{
    char what = next_of("SHIM", &calls);
    if (what >= '0' && what <= '9') {
        *most = what == '0' ? (size_t)-1 : (size_t)(what - '0');
        return 0;
    }
    *most = (size_t)-1;
    if (what == 'A' && !(flags & MSG_DONTWAIT))
        return 0;
    errno = what == 'E' ? EINTR : what == 'A' ? EAGAIN : what == 'B' ? ENOBUFS : ENOMEM;
    return 1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t recv(int fd, void *data, size_t size, int flags)
{
    size_t most;
    return fails(flags, &most) ? -1 : REAL(recv)(fd, data, size < most ? size : most, flags);
}

ssize_t send(int fd, const void *data, size_t size, int flags)
{
    size_t most;
    return fails(flags, &most) ? -1 : REAL(send)(fd, data, size < most ? size : most, flags);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    size_t most, i;
    if (fails(flags, &most))
        return -1;
    if (most == (size_t)-1)
        return REAL(sendmsg)(fd, message, flags);
    for (i = 0; i < message->msg_iovlen && !message->msg_iov[i].iov_len; i++)
        ;
    if (i == message->msg_iovlen)
        return 0;
    size_t size = message->msg_iov[i].iov_len;
    return REAL(send)(fd, message->msg_iov[i].iov_base, size < most ? size : most, flags);
}

static int hurried(struct pollfd *fds, nfds_t count)
{
    char what = next_of("SHIM_POLL", &polls);
    if (what == 'E') {
        errno = EINTR;
        return -1;
    }
    if (what != 'R' || count != 1)
        return 0;
    fds[0].revents = fds[0].events;
    return 1;
}

int poll(struct pollfd *fds, nfds_t count, int timeout)
{
    int now = hurried(fds, count);
    return now ? now : REAL(poll)(fds, count, timeout);
}

int ppoll(struct pollfd *fds, nfds_t count, const struct timespec *timeout, const sigset_t *mask)
{
    int now = hurried(fds, count);
    return now ? now : REAL(ppoll)(fds, count, timeout, mask);
}
