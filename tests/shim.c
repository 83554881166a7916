/* Preloaded (ld.so(8)): system calls on sockets that do the least they may, and fail for no reason now and then.
 *
 * SHIM is a list of a letter for each call in turn, over and over: a digit, so many bytes at most (0: all of them);
 * E, EINTR; A, EAGAIN though there is something, where the call may not wait; B, ENOBUFS; N, ENOMEM; R, ECONNRESET;
 * T, ETIMEDOUT; P, EPIPE, in sends alone; and of accept(), where it is R that is ECONNABORTED: F, EMFILE. poll, ppoll
 * and epoll_wait take letters of a list of their own, SHIM_POLL: E, EINTR; N, ENOMEM; R, "ready" at once, of one file;
 * 0, as it is.
 *
 * shim_begin() has lists of its own, once, for one socket, or for all whose own port is this; shim_calls() and
 * shim_polls() are how many calls there were since, shim_accepts() how many accept() in all.
 *
 * SHIM_CLOCK are seconds that the wall clock jumps by, more each time that it is asked for; shim_clock() is how often
 * that was. The monotonic clock goes on as it should.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

typedef struct {
    const char *variable;
    char list[4096];         /* in place of the variable's, where there is an aim */
    _Atomic unsigned turn;
} letters;

static letters calls = {.variable = "SHIM"}, polls = {.variable = "SHIM_POLL"};
static _Atomic unsigned accepts, walls;
static int aim_fd = -1, aim_port;

void shim_begin(const char *of_calls, const char *of_polls, int fd, int port)
{
    aim_fd = aim_port = -1; /* nothing, meanwhile */
    strncpy(calls.list, of_calls, sizeof calls.list - 1);
    strncpy(polls.list, of_polls, sizeof polls.list - 1);
    calls.turn = polls.turn = 0;
    aim_port = port;
    aim_fd = fd;
}

unsigned shim_calls(void) { return calls.turn; }
unsigned shim_polls(void) { return polls.turn; }
unsigned shim_accepts(void) { return accepts; }
unsigned shim_clock(void) { return walls; }

static int is_socket(int fd)
{
    int kind;
    socklen_t size = sizeof kind;
    return !getsockopt(fd, SOL_SOCKET, SO_TYPE, &kind, &size) && kind == SOCK_STREAM;
}

static int is_aimed_at(int fd)
{
    struct sockaddr_in name;
    socklen_t size = sizeof name;
    if (aim_port <= 0)
        return aim_fd == fd;
    return !getsockname(fd, (struct sockaddr *)&name, &size) && name.sin_family == AF_INET &&
           ntohs(name.sin_port) == aim_port;
}

static char next_of(letters *from, int fd)
{
    if (aim_fd >= 0 || aim_port > 0) {
        if (!is_aimed_at(fd))
            return '0';
        unsigned at = from->turn++;
        return at < strlen(from->list) ? from->list[at] : '0';
    }
    const char *list = aim_port ? NULL : getenv(from->variable);
    size_t size = list ? strlen(list) : 0;
    return size ? list[from->turn++ % size] : '0';
}

/* Whether the call fails, or else how many bytes it may move at most. */
static int fails(int fd, int flags, int sends, size_t *most)
{
    int saved = errno;
    char what = is_socket(fd) ? next_of(&calls, fd) : '0';
    errno = saved;
    *most = what > '0' && what <= '9' ? (size_t)(what - '0') : (size_t)-1;
    switch (what) {
    case 'E': errno = EINTR; return 1;
    case 'A': errno = EAGAIN; return flags & MSG_DONTWAIT || fcntl(fd, F_GETFL) & O_NONBLOCK;
    case 'B': errno = ENOBUFS; return 1;
    case 'N': errno = ENOMEM; return 1;
    case 'R': errno = ECONNRESET; return 1;
    case 'T': errno = ETIMEDOUT; return 1;
    case 'P': errno = EPIPE; return sends;
    default: return 0;
    }
}

ssize_t recv(int fd, void *data, size_t size, int flags)
{
    size_t most;
    return fails(fd, flags, 0, &most) ? -1 : REAL(recv)(fd, data, size < most ? size : most, flags);
}

ssize_t read(int fd, void *data, size_t size)
{
    size_t most;
    return fails(fd, 0, 0, &most) ? -1 : REAL(read)(fd, data, size < most ? size : most);
}

ssize_t send(int fd, const void *data, size_t size, int flags)
{
    size_t most;
    return fails(fd, flags, 1, &most) ? -1 : REAL(send)(fd, data, size < most ? size : most, flags);
}

ssize_t write(int fd, const void *data, size_t size)
{
    size_t most;
    return fails(fd, 0, 1, &most) ? -1 : REAL(write)(fd, data, size < most ? size : most);
}

/* The first piece of several that is not empty. */
static const struct iovec *first_of(const struct iovec *pieces, size_t count)
{
    while (count && !pieces->iov_len)
        pieces++, count--;
    return count ? pieces : NULL;
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    size_t most;
    if (fails(fd, flags, 1, &most))
        return -1;
    if (most == (size_t)-1)
        return REAL(sendmsg)(fd, message, flags);
    const struct iovec *piece = first_of(message->msg_iov, message->msg_iovlen);
    return piece ? REAL(send)(fd, piece->iov_base, piece->iov_len < most ? piece->iov_len : most, flags) : 0;
}

ssize_t writev(int fd, const struct iovec *pieces, int count)
{
    size_t most;
    if (fails(fd, 0, 1, &most))
        return -1;
    if (most == (size_t)-1)
        return REAL(writev)(fd, pieces, count);
    const struct iovec *piece = first_of(pieces, (size_t)count);
    return piece ? REAL(write)(fd, piece->iov_base, piece->iov_len < most ? piece->iov_len : most) : 0;
}

int accept4(int fd, struct sockaddr *address, socklen_t *size, int flags)
{
    accepts++;
    switch (next_of(&calls, fd)) {
    case 'E': errno = EINTR; return -1;
    case 'A': errno = EAGAIN; return -1;
    case 'B': errno = ENOBUFS; return -1;
    case 'N': errno = ENOMEM; return -1;
    case 'F': errno = EMFILE; return -1;
    case 'R': errno = ECONNABORTED; return -1;
    default: return REAL(accept4)(fd, address, size, flags);
    }
}

static int hurried(struct pollfd *fds, nfds_t count)
{
    nfds_t at = 0;
    while ((aim_fd >= 0 || aim_port > 0) && at < count && !is_aimed_at(fds[at].fd))
        at++;
    char what = at < count ? next_of(&polls, fds[at].fd) : '0';
    if (what == 'E' || what == 'N') {
        errno = what == 'E' ? EINTR : ENOMEM;
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

int epoll_wait(int fd, struct epoll_event *events, int most, int timeout)
{
    /* It may be for any socket, so whoever has an aim has this too. */
    unsigned at = polls.turn++;
    if ((aim_fd >= 0 || aim_port > 0) && at < strlen(polls.list) && polls.list[at] == 'E') {
        errno = EINTR;
        return -1;
    }
    return REAL(epoll_wait)(fd, events, most, timeout);
}

static time_t jumped(time_t seconds)
{
    const char *jump = getenv("SHIM_CLOCK");
    unsigned turn = ++walls;
    return jump ? seconds + (time_t)turn * atol(jump) : seconds;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int error = REAL(clock_gettime)(clock, now);
    if (!error && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec = jumped(now->tv_sec);
    return error;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    int error = ((int (*)(struct timeval *, void *))dlsym(RTLD_NEXT, "gettimeofday"))(now, zone);
    if (!error)
        now->tv_sec = jumped(now->tv_sec);
    return error;
}

time_t time(time_t *result)
{
    time_t now = jumped(((time_t (*)(time_t *))dlsym(RTLD_NEXT, "time"))(NULL));
    if (result)
        *result = now;
    return now;
}
