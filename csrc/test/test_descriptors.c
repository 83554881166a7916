/* The system calls over socket pairs: short sends, deadlines, signals, closed peers, large descriptors. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../descriptors.h"

#define MS INT64_C(1000000)
#define LATE (2000 * MS) /* a loaded machine may be so late, and no later */

static unsigned long passed, failed;

#define CHECK(what)                                                                                                   \
    do {                                                                                                              \
        if (what) {                                                                                                   \
            passed++;                                                                                                 \
        } else {                                                                                                      \
            failed++;                                                                                                 \
            printf("%s:%d: not so: %s\n", __FILE__, __LINE__, #what);                                                 \
        }                                                                                                             \
    } while (0)

typedef struct { int here, there; } pair;

static void must(int fine, const char *what)
{
    if (fine)
        return;
    perror(what);
    exit(2);
}

static pair new_pair(void)
{
    int both[2];
    must(!socketpair(AF_UNIX, SOCK_STREAM, 0, both), "socketpair");
#ifdef SO_NOSIGPIPE
    int on = 1;
    must(!setsockopt(both[0], SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof on), "SO_NOSIGPIPE");
#endif
    return (pair){both[0], both[1]};
}

static void close_pair(pair both)
{
    (void)close(both.here);
    (void)close(both.there);
}

static void narrow(int fd)
{
    int size = 1; /* the kernel makes a few KiB of it */
    must(!setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size), "SO_SNDBUF");
}

static uint8_t letter(size_t at) { return (uint8_t)(at * 31 + at / 251); }

/* Many bytes in pieces: the first has `first` bytes, each next one `more` more, some have none. */
typedef struct { uint8_t *data; struct iovec *pieces; size_t size, count; } message;

static message new_message(size_t count, size_t first, size_t more)
{
    message one = {NULL, calloc(count, sizeof(struct iovec)), 0, count};
    for (size_t i = 0; i < count; i++)
        one.size += i % 7 == 3 ? 0 : first + i * more;
    one.data = malloc(one.size);
    must(one.data && one.pieces, "memory");
    for (size_t i = 0, at = 0; i < count; i++) {
        one.pieces[i].iov_base = one.data + at;
        one.pieces[i].iov_len = i % 7 == 3 ? 0 : first + i * more;
        at += one.pieces[i].iov_len;
    }
    for (size_t at = 0; at < one.size; at++)
        one.data[at] = letter(at);
    return one;
}

static sf_outgoing all_of(const message *one) { return (sf_outgoing){one->pieces, one->count, 0, 0}; }

static void free_message(message *one)
{
    free(one->data);
    free(one->pieces);
}

/* Receive what is here and compare it with the message from `got` on: how much there is now. */
static size_t drain(int fd, size_t got)
{
    uint8_t data[1000];
    int64_t size;
    while ((size = sf_receive(fd, data, sizeof data, SF_AT_ONCE)) > 0)
        for (int64_t i = 0; i < size; i++)
            if (data[i] != letter(got++))
                return SIZE_MAX;
    return size == -EAGAIN || size == 0 ? got : SIZE_MAX;
}

/* ---- signals ---- */

static volatile sig_atomic_t signals;

static void count_signal(int number)
{
    (void)number;
    signals++;
}

/* A signal every `ms` milliseconds; none with 0. */
static void ring(int ms)
{
    struct itimerval timer = {{ms / 1000, ms % 1000 * 1000}, {ms / 1000, ms % 1000 * 1000}};
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = count_signal;
    must(!sigaction(SIGALRM, &action, NULL), "sigaction");
    must(!setitimer(ITIMER_REAL, &timer, NULL), "setitimer");
}

static void sleep_ms(int ms)
{
    struct timespec span = {ms / 1000, ms % 1000 * 1000000L};
    while (nanosleep(&span, &span) && errno == EINTR)
        ;
}

/* ---- receiving ---- */

static void test_clock(void)
{
    int64_t before = sf_now();
    sleep_ms(5);
    CHECK(sf_now() >= before + 5 * MS);
    CHECK(before > 0);
}

static void test_receive(void)
{
    pair both = new_pair();
    char data[8] = "";
    CHECK(sf_receive(both.here, data, sizeof data, SF_AT_ONCE) == -EAGAIN);
    CHECK(write(both.there, "abcde", 5) == 5);
    CHECK(sf_receive(both.here, data, 2, SF_AT_ONCE) == 2 && !memcmp(data, "ab", 2));
    CHECK(sf_receive(both.here, data, 2, SF_NEVER) == 2 && !memcmp(data, "cd", 2));
    /* What is here is taken after the deadline too. */
    CHECK(sf_receive(both.here, data, sizeof data, sf_now() - 1000 * MS) == 1 && data[0] == 'e');
    CHECK(sf_receive(both.here, data, sizeof data, sf_now() - 1000 * MS) == -EAGAIN);
    close_pair(both);
}

/* Room for more than a call can bring. */
static void test_receive_beyond_a_call(void)
{
    size_t size = ((size_t)1 << 30) + 1;
    char *room = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    must(room != MAP_FAILED, "mmap");
    pair both = new_pair();
    CHECK(write(both.there, "abc", 3) == 3);
    CHECK(sf_receive(both.here, room, size, SF_AT_ONCE) == 3 && !memcmp(room, "abc", 3));
    close_pair(both);
    (void)munmap(room, size);
}

static void test_receive_to_the_end(void)
{
    pair both = new_pair();
    char data[8];
    CHECK(write(both.there, "abc", 3) == 3);
    CHECK(!close(both.there));
    CHECK(sf_receive(both.here, data, 2, SF_NEVER) == 2);
    CHECK(sf_receive(both.here, data, sizeof data, SF_AT_ONCE) == 1);
    CHECK(sf_receive(both.here, data, sizeof data, SF_NEVER) == 0);
    CHECK(sf_receive(both.here, data, sizeof data, SF_AT_ONCE) == 0);
    CHECK(sf_receive(both.here, data, sizeof data, sf_now() + 1000 * MS) == 0);
    CHECK(!close(both.here));
    /* The peer has closed its sending side only. */
    both = new_pair();
    CHECK(!shutdown(both.there, SHUT_WR));
    CHECK(sf_receive(both.here, data, sizeof data, SF_NEVER) == 0);
    CHECK(write(both.here, "x", 1) == 1);
    close_pair(both);
}

static void test_receive_deadline(void)
{
    pair both = new_pair();
    char data[8];
    int64_t begin = sf_now();
    CHECK(sf_receive(both.here, data, sizeof data, begin + 50 * MS) == -EAGAIN);
    CHECK(sf_now() >= begin + 50 * MS);
    CHECK(sf_now() < begin + 50 * MS + LATE);
    begin = sf_now();
    CHECK(sf_receive(both.here, data, sizeof data, begin + 1000) == -EAGAIN); /* one microsecond */
    CHECK(sf_now() < begin + LATE);
    close_pair(both);
}

/* Another process writes after 30 ms; the socket may have been made non-blocking by whoever shares it. */
static void test_receive_waits(int flags, int64_t span)
{
    pair both = new_pair();
    char data[8];
    CHECK(fcntl(both.here, F_SETFL, flags) == 0);
    int64_t begin = sf_now();
    pid_t child = fork();
    must(child >= 0, "fork");
    if (!child) {
        sleep_ms(30);
        _exit(write(both.there, "abc", 3) != 3);
    }
    CHECK(sf_receive(both.here, data, sizeof data, span ? begin + span : SF_NEVER) == 3);
    CHECK(sf_now() >= begin + 30 * MS);
    CHECK(waitpid(child, NULL, 0) == child);
    close_pair(both);
}

static void test_receive_interrupted(int flags)
{
    pair both = new_pair();
    char data[8];
    CHECK(fcntl(both.here, F_SETFL, flags) == 0);
    signals = 0;
    ring(20);
    CHECK(sf_receive(both.here, data, sizeof data, SF_NEVER) == -EINTR);
    CHECK(signals >= 1);
    /* The deadline is that of all calls together, however often a signal comes. */
    int64_t begin = sf_now(), deadline = begin + 110 * MS, got;
    int calls = 0;
    do {
        got = sf_receive(both.here, data, sizeof data, deadline);
        calls++;
    } while (got == -EINTR);
    ring(0);
    CHECK(got == -EAGAIN);
    CHECK(calls >= 2);
    CHECK(sf_now() >= deadline && sf_now() < deadline + LATE);
    CHECK(write(both.there, "abc", 3) == 3);
    CHECK(sf_receive(both.here, data, sizeof data, SF_NEVER) == 3);
    close_pair(both);
}

static void test_wrong_descriptors(void)
{
    char data[8] = "";
    int both[2];
    struct iovec piece = {data, 1};
    sf_outgoing one = {&piece, 1, 0, 0};
    must(!pipe(both), "pipe");
    CHECK(sf_receive(both[0], data, 1, SF_NEVER) == -ENOTSOCK);
    CHECK(sf_send_all(both[1], &one, SF_NEVER) == -ENOTSOCK);
    (void)close(both[0]);
    (void)close(both[1]);
    CHECK(sf_receive(both[0], data, 1, SF_NEVER) == -EBADF);
    CHECK(sf_receive(-1, data, 1, SF_AT_ONCE) == -EBADF);
    CHECK(sf_send_all(both[1], &one, sf_now() + 1000 * MS) == -EBADF);
    CHECK(one.sent == 0 && one.next == 0);
    int lonely = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(sf_receive(lonely, data, 1, SF_NEVER) == -ENOTCONN);
    (void)close(lonely);
}

/* ---- sending ---- */

/* For each k: after k bytes, the next byte to send is byte k, and no piece is passed over that has bytes left. */
static void test_advance(void)
{
    message one = new_message(10, 0, 3);
    for (size_t step = 0; step <= one.size; step++) {
        message fresh = new_message(10, 0, 3);
        sf_outgoing rest = all_of(&fresh);
        sf_advance(&rest, step);
        CHECK(rest.sent == step);
        size_t at = step;
        for (size_t i = rest.next; i < rest.count; i++)
            for (size_t j = 0; j < rest.pieces[i].iov_len; j++)
                if (((uint8_t *)rest.pieces[i].iov_base)[j] != letter(at++))
                    at = SIZE_MAX / 2;
        CHECK(at == one.size);
        CHECK(rest.next == rest.count || rest.pieces[rest.next].iov_len);
        sf_advance(&rest, one.size - step);
        CHECK(rest.next == rest.count && rest.sent == one.size);
        free_message(&fresh);
    }
    free_message(&one);
}

static void test_send(size_t count, size_t first, size_t more)
{
    pair both = new_pair();
    message one = new_message(count, first, more);
    sf_outgoing rest = all_of(&one);
    int status;
    size_t got = 0, rounds = 0;
    narrow(both.here);
    while ((status = sf_send_all(both.here, &rest, SF_AT_ONCE)) == -EAGAIN && rounds++ < one.size) {
        CHECK(rest.sent > got); /* no round without progress, since all was received */
        got = drain(both.there, got);
        CHECK(got == rest.sent);
    }
    CHECK(status == 0);
    CHECK(rest.sent == one.size && rest.next == rest.count);
    CHECK(drain(both.there, got) == one.size);
    CHECK(rounds > 0 || one.size < 100000);
    CHECK(sf_send_all(both.here, &rest, SF_AT_ONCE) == 0); /* nothing is left */
    CHECK(drain(both.there, one.size) == one.size);
    free_message(&one);
    close_pair(both);
}

static void test_send_nothing(void)
{
    pair both = new_pair();
    struct iovec pieces[2] = {{NULL, 0}, {NULL, 0}};
    sf_outgoing none = {NULL, 0, 0, 0}, empty = {pieces, 2, 0, 0};
    CHECK(sf_send_all(both.here, &none, SF_AT_ONCE) == 0);
    CHECK(sf_send_all(both.here, &empty, SF_AT_ONCE) == 0 && empty.sent == 0);
    CHECK(drain(both.there, 0) == 0);
    close_pair(both);
}

/* Nobody reads: what is sent until the deadline is known, and the rest can be sent later. */
static void test_send_deadline(void)
{
    pair both = new_pair();
    message one = new_message(5, 100000, 1);
    sf_outgoing rest = all_of(&one);
    narrow(both.here);
    int64_t begin = sf_now();
    CHECK(sf_send_all(both.here, &rest, begin + 50 * MS) == -EAGAIN);
    CHECK(sf_now() >= begin + 50 * MS && sf_now() < begin + 50 * MS + LATE);
    CHECK(rest.sent > 0 && rest.sent < one.size);
    uint64_t sent = rest.sent;
    CHECK(sf_send_all(both.here, &rest, SF_AT_ONCE) == -EAGAIN);
    CHECK(rest.sent == sent);
    size_t got = 0;
    while (sf_send_all(both.here, &rest, sf_now() + MS) == -EAGAIN)
        got = drain(both.there, got);
    CHECK(drain(both.there, got) == one.size);
    free_message(&one);
    close_pair(both);
}

/* Pieces that no one call takes, though they are here: a GiB and more of zeros, the same ones each time. */
static void test_send_beyond_a_call(size_t first, size_t count)
{
    size_t size = ((size_t)1 << 30) + 1;
    void *zeros = mmap(NULL, size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    must(zeros != MAP_FAILED, "mmap");
    pair both = new_pair();
    struct iovec pieces[4] = {{zeros, first}, {zeros, size}, {zeros, size}, {zeros, size}};
    sf_outgoing rest = {pieces, count, 0, 0};
    uint64_t got = 0;
    narrow(both.here);
    for (int round = 0; round < 3; round++) {
        char data[1000];
        int64_t more;
        CHECK(sf_send_all(both.here, &rest, SF_AT_ONCE) == -EAGAIN && rest.sent > got);
        while ((more = sf_receive(both.there, data, sizeof data, SF_AT_ONCE)) > 0)
            got += (uint64_t)more;
        CHECK(got == rest.sent);
    }
    CHECK(rest.next == (first < size) && pieces[rest.next].iov_len == size - (got - (first < size ? first : 0)));
    close_pair(both);
    (void)munmap(zeros, size);
}

/* Another process reads slowly; signals come in all the time. */
static void test_send_interrupted(int64_t span)
{
    pair both = new_pair();
    message one = new_message(40, 2000, 400);
    sf_outgoing rest = all_of(&one);
    narrow(both.here);
    pid_t child = fork();
    must(child >= 0, "fork");
    if (!child) {
        size_t got = 0;
        char data[30000];
        (void)close(both.here);
        while (got < one.size) {
            sleep_ms(3);
            ssize_t size = read(both.there, data, sizeof data);
            for (ssize_t i = 0; i < size; i++)
                if ((uint8_t)data[i] != letter(got++))
                    _exit(1);
            if (size <= 0)
                _exit(2);
        }
        _exit(0);
    }
    int status, interrupted = 0, how = -1;
    signals = 0;
    ring(2);
    int64_t deadline = span ? sf_now() + span : SF_NEVER;
    while ((status = sf_send_all(both.here, &rest, deadline)) == -EINTR)
        interrupted++;
    ring(0);
    CHECK(status == 0);
    CHECK(rest.sent == one.size);
    CHECK(interrupted > 0);
    CHECK(waitpid(child, &how, 0) == child && how == 0);
    free_message(&one);
    close_pair(both);
}

/* A signal while nobody reads: what was sent is accounted for. */
static void test_send_interrupted_and_retried(void)
{
    pair both = new_pair();
    message one = new_message(3, 200000, 0);
    sf_outgoing rest = all_of(&one);
    narrow(both.here);
    ring(20);
    CHECK(sf_send_all(both.here, &rest, SF_NEVER) == -EINTR);
    ring(0);
    CHECK(rest.sent > 0 && rest.sent < one.size);
    size_t got = drain(both.there, 0);
    CHECK(got == rest.sent);
    while (sf_send_all(both.here, &rest, SF_AT_ONCE) == -EAGAIN)
        got = drain(both.there, got);
    CHECK(drain(both.there, got) == one.size);
    free_message(&one);
    close_pair(both);
}

/* No SIGPIPE: it would end this program. */
static void test_send_to_a_closed_peer(void)
{
    pair both = new_pair();
    message one = new_message(3, 10, 0), large = new_message(3, 300000, 0);
    sf_outgoing rest = all_of(&one), more = all_of(&large);
    must(signal(SIGPIPE, SIG_DFL) != SIG_ERR, "signal");
    CHECK(!close(both.there));
    CHECK(sf_send_all(both.here, &rest, SF_NEVER) == -EPIPE);
    CHECK(sf_send_all(both.here, &rest, SF_AT_ONCE) == -EPIPE);
    CHECK(rest.sent == 0);
    CHECK(!close(both.here));
    both = new_pair();
    narrow(both.here);
    CHECK(sf_send_all(both.here, &more, SF_AT_ONCE) == -EAGAIN);
    CHECK(!close(both.there)); /* in the middle, with bytes unread */
    int status = sf_send_all(both.here, &more, SF_NEVER);
    CHECK(status == -EPIPE || status == -ECONNRESET);
    CHECK(more.sent > 0 && more.sent < large.size);
    CHECK(!close(both.here));
    both = new_pair();
    CHECK(!shutdown(both.here, SHUT_WR));
    CHECK(sf_send_all(both.here, &rest, SF_NEVER) == -EPIPE);
    close_pair(both);
    free_message(&one);
    free_message(&large);
}

/* A descriptor that select() could not take. */
static void test_large_descriptor(void)
{
    struct rlimit limit;
    char data[8];
    must(!getrlimit(RLIMIT_NOFILE, &limit), "getrlimit");
    if (limit.rlim_cur < 2000) {
        limit.rlim_cur = limit.rlim_max < 2000 ? limit.rlim_max : 2000;
        must(!setrlimit(RLIMIT_NOFILE, &limit), "setrlimit");
    }
    if (limit.rlim_cur < 2000) {
        printf("test_descriptors: not run: descriptors above 1024, this machine allows %llu\n",
               (unsigned long long)limit.rlim_cur);
        return;
    }
    pair both = new_pair();
    int large = fcntl(both.here, F_DUPFD, 1500);
    CHECK(large >= 1500);
    int64_t begin = sf_now();
    CHECK(sf_receive(large, data, sizeof data, begin + 20 * MS) == -EAGAIN);
    CHECK(sf_now() >= begin + 20 * MS);
    CHECK(write(both.there, "abc", 3) == 3);
    CHECK(sf_receive(large, data, sizeof data, begin + 1000 * MS) == 3);
    message one = new_message(5, 100000, 0);
    sf_outgoing rest = all_of(&one);
    narrow(large);
    CHECK(sf_send_all(large, &rest, sf_now() + 20 * MS) == -EAGAIN);
    CHECK(drain(both.there, 0) == rest.sent);
    free_message(&one);
    (void)close(large);
    close_pair(both);
}

int main(void)
{
    test_clock();
    test_receive();
    test_receive_beyond_a_call();
    test_receive_to_the_end();
    test_receive_deadline();
    test_receive_waits(0, 0);
    test_receive_waits(0, 10000 * MS);
    test_receive_waits(0, INT64_C(2500000000) * 1000 * MS); /* more seconds than a time_t of 32 bits has */
    test_receive_waits(O_NONBLOCK, 0);
    test_receive_waits(O_NONBLOCK, 10000 * MS);
    test_receive_interrupted(0);
    test_receive_interrupted(O_NONBLOCK);
    test_wrong_descriptors();
    test_advance();
    test_send(1, 10, 0);
    test_send(1, 300000, 0);
    test_send(5, 60000, 1000);
    test_send(5000, 3, 0);   /* more pieces than one call takes */
    test_send(3000, 0, 1);   /* and large ones, in a narrow buffer */
    test_send(1025, 1, 0);
    test_send(1024, 1, 0);
    test_send_nothing();
    test_send_deadline();
    test_send_beyond_a_call(((size_t)1 << 30) + 1, 1);
    test_send_beyond_a_call(((size_t)1 << 30) + 1, 4);
    test_send_beyond_a_call(7, 4);
    test_send_interrupted(0);
    test_send_interrupted(60000 * MS);
    test_send_interrupted_and_retried();
    test_send_to_a_closed_peer();
    test_large_descriptor();
    printf("test_descriptors: %lu passed, %lu failed\n", passed, failed);
    return failed || !passed;
}
