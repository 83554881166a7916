/* An echo server and its clients, on epoll: many connections, one thread each side. */
#ifdef __linux__
#define _GNU_SOURCE
#include "floor.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define EVENTS 256

static int watch(int epoll, int how, int fd, uint32_t events, void *data)
{
    struct epoll_event event = {.events = events, .data.ptr = data};
    return epoll_ctl(epoll, how, fd, &event);
}

static void no_delay(int fd) { (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int)); }

/* ---- the server ---- */

/* A connection: what of a frame has come, and what of the replies is unsent; nothing while it is idle. */
typedef struct {
    int fd;
    uint8_t *rest, *unsent;
    size_t held, left;
} floor_client;

static uint8_t *keep(const uint8_t *data, size_t size)
{
    uint8_t *kept = size ? malloc(size) : NULL;
    if (kept)
        memcpy(kept, data, size);
    return kept;
}

/* Send, and keep what the socket does not take: 0, or -1. */
static int reply(int epoll, floor_client *client, const uint8_t *data, size_t size)
{
    uint8_t *old = client->unsent;
    ssize_t sent = send(client->fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && errno != EAGAIN)
        return -1;
    data += sent < 0 ? 0 : sent;
    client->left = size - (size_t)(sent < 0 ? 0 : sent);
    client->unsent = keep(data, client->left);
    free(old);
    if (!old != !client->unsent)
        return watch(epoll, EPOLL_CTL_MOD, client->fd, client->unsent ? EPOLLOUT : EPOLLIN, client);
    return 0;
}

typedef struct { uint8_t *data; size_t size, room; } floor_bytes;

static void reserve(floor_bytes *out, size_t more)
{
    if (out->room - out->size >= more)
        return;
    out->room = 2 * (out->room + more);
    if (!(out->data = realloc(out->data, out->room)))
        abort();
}

static void append(floor_bytes *out, const uint8_t *data, size_t size)
{
    reserve(out, size);
    memcpy(out->data + out->size, data, size);
    out->size += size;
}

/* The handler: answers with the payload itself. */
static void answer(const sf_framing *framing, const uint8_t *payload, uint64_t size, floor_bytes *out)
{
    sf_wrapped wrapped;
    if (sf_wrap_frame(framing, payload, size, &wrapped))
        abort();
    append(out, wrapped.header, wrapped.header_size);
    append(out, wrapped.body, wrapped.body_size);
    append(out, wrapped.trailer, wrapped.trailer_size);
}

/* Receive, decode and answer frame by frame: 0, or -1 where the connection is done with. */
static int serve_one(int epoll, const sf_framing *framing, floor_client *client, floor_bytes *in, floor_bytes *out)
{
    sf_scan scan;
    size_t at = 0;
    in->size = out->size = 0;
    if (client->rest)
        append(in, client->rest, client->held);
    free(client->rest);
    client->rest = NULL;
    reserve(in, PIECE);
    ssize_t got = recv(client->fd, in->data + in->size, in->room - in->size, MSG_DONTWAIT);
    if (got <= 0)
        return -1;
    in->size += (size_t)got;
    sf_scan_begin(&scan);
    while (sf_scan_frame(framing, in->data + at, in->size - at, &scan) == SF_FRAME) {
        answer(framing, in->data + at + scan.start, scan.stop - scan.start, out);
        at += scan.size;
        sf_scan_begin(&scan);
    }
    client->held = in->size - at;
    client->rest = keep(in->data + at, client->held);
    return out->size ? reply(epoll, client, out->data, out->size) : 0;
}

static void forget(floor_client *client)
{
    (void)close(client->fd);
    free(client->rest);
    free(client->unsent);
    free(client);
}

/* Serve what a listening socket accepts, for ever. */
int echo_serve(int listener)
{
    int epoll = epoll_create1(0), fd;
    struct epoll_event ready[EVENTS];
    floor_bytes in = {NULL, 0, 0}, out = {NULL, 0, 0};
    sf_framing framing;
    floor_framing(&framing, 0);
    (void)fcntl(listener, F_SETFL, O_NONBLOCK);
    if (epoll < 0 || watch(epoll, EPOLL_CTL_ADD, listener, EPOLLIN, NULL) < 0)
        return -1;
    for (;;) {
        int count = epoll_wait(epoll, ready, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            floor_client *client = ready[i].data.ptr;
            if (client && ready[i].events & EPOLLOUT) {
                if (reply(epoll, client, client->unsent, client->left) < 0)
                    forget(client);
            } else if (client) {
                if (serve_one(epoll, &framing, client, &in, &out) < 0)
                    forget(client);
            }
            while (!client && (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                no_delay(fd);
                if (!(client = calloc(1, sizeof *client)))
                    abort();
                client->fd = fd;
                (void)watch(epoll, EPOLL_CTL_ADD, fd, EPOLLIN, client);
                client = NULL;
            }
        }
    }
}

/* ---- the clients ---- */

/* Send all and take as much back: 0, or -1 where other bytes come. */
static int exchange(int fd, const uint8_t *flight, size_t size)
{
    uint8_t buffer[PIECE];
    sf_outgoing outgoing = {&(struct iovec){(void *)flight, size}, 1, 0, 0};
    if (sf_send_all(fd, &outgoing, SF_NEVER) < 0)
        return -1;
    for (size_t at = 0; at < size;) {
        int64_t got = sf_receive(fd, buffer, size - at < PIECE ? size - at : PIECE, SF_NEVER);
        if (got <= 0 || memcmp(buffer, flight + at, (size_t)got))
            return -1;
        at += (size_t)got;
    }
    return 0;
}

/* Connect `count` clients to a port of this machine, one after the other; each sends `flight` and takes it back, so
 * that the server knows it. 0, or -1. */
int echo_connect(int port, int *fds, uint64_t count, const uint8_t *flight, size_t size)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (uint64_t i = 0; i < count; i++) {
        int fd = fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
            return -1;
        no_delay(fd);
        if (exchange(fd, flight, size) < 0)
            return -1;
    }
    return 0;
}

/* Each connection sends `flight` and, once all of it has come back, again: `flights` times. 0, or -1. */
int echo_fly(const int *fds, uint64_t count, const uint8_t *flight, size_t size, uint64_t flights)
{
    typedef struct { int fd; size_t here; uint64_t left; } connection;
    struct epoll_event ready[EVENTS];
    int epoll = epoll_create1(0), failed = epoll < 0;
    uint8_t *buffer = malloc(size);
    connection *all = calloc(count, sizeof *all);
    uint64_t flying = 0;
    for (; !failed && flying < count; flying++) {
        connection *one = &all[flying];
        *one = (connection){fds[flying], 0, flights};
        sf_outgoing outgoing = {&(struct iovec){(void *)flight, size}, 1, 0, 0};
        failed = watch(epoll, EPOLL_CTL_ADD, one->fd, EPOLLIN, one) < 0 ||
                 sf_send_all(one->fd, &outgoing, SF_NEVER) < 0;
    }
    while (!failed && flying) {
        int here = epoll_wait(epoll, ready, EVENTS, 60000);
        failed = here <= 0 && errno != EINTR;
        for (int i = 0; !failed && i < here; i++) {
            connection *one = ready[i].data.ptr;
            ssize_t got = recv(one->fd, buffer, size - one->here, MSG_DONTWAIT);
            failed = got <= 0 || memcmp(buffer, flight + one->here, (size_t)got);
            one->here += failed ? 0 : (size_t)got;
            if (failed || one->here < size)
                continue;
            one->here = 0;
            if (!--one->left) {
                failed = epoll_ctl(epoll, EPOLL_CTL_DEL, one->fd, NULL);
                flying--;
                continue;
            }
            sf_outgoing outgoing = {&(struct iovec){(void *)flight, size}, 1, 0, 0};
            failed = sf_send_all(one->fd, &outgoing, SF_NEVER) < 0;
        }
    }
    free(all);
    free(buffer);
    (void)close(epoll);
    return failed ? -1 : 0;
}
#endif
