// Connections that wait at a listening socket, and the addresses of both ends.
// Knows no Python.
#ifndef FASTASGI_ACCEPT_H
#define FASTASGI_ACCEPT_H

#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE // accept4
#endif

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

typedef union {
    struct sockaddr any;
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
    struct sockaddr_storage storage;
} socket_address;

enum { ADDRESS_TEXT_SIZE = INET6_ADDRSTRLEN + IF_NAMESIZE + 1 };

// The next connection, which neither blocks nor is inherited, and its peer's address; -1 with errno.
static inline int accept_one(int listener, socket_address *peer)
{
    socklen_t size = sizeof *peer;
    int fd;
    peer->any.sa_family = AF_UNSPEC;
#ifdef __linux__
    fd = accept4(listener, &peer->any, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
#else
    fd = accept(listener, &peer->any, &size);
    if (fd >= 0) {
        int one = 1;
        (void)fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
        (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
        if (peer->any.sa_family != AF_UNIX) {
            (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        }
    }
#endif
    return fd;
}

// Whether a connection waits at a listening socket, or accept_one has an error to tell
static inline int is_anyone_waiting(int listener)
{
    struct pollfd readable = {.fd = listener, .events = POLLIN};
    return poll(&readable, 1, 0) != 0;
}

// How many connections wait at a listening TCP socket; 0 if the system does not tell
static inline int waiting_at(int listener)
{
#ifdef __linux__
    struct tcp_info info = {.tcpi_unacked = 0};
    socklen_t size = sizeof info;
    if (getsockopt(listener, IPPROTO_TCP, TCP_INFO, &info, &size) == 0) {
        return (int)info.tcpi_unacked;
    }
#else
    (void)listener;
#endif
    return 0;
}

enum { NOTHING_WAITS = 1, TRY_AGAIN, NO_MEMORY, NO_DESCRIPTORS, NO_LISTENER };

// What an error of accept_one means
static inline int accept_failure(int error)
{
    switch (error) {
    case EAGAIN:
#if EWOULDBLOCK != EAGAIN
    case EWOULDBLOCK:
#endif
        return NOTHING_WAITS;
    case EMFILE:
    case ENFILE:
        return NO_DESCRIPTORS;
    case ENOBUFS:
    case ENOMEM:
        return NO_MEMORY;
    case EBADF:
    case EINVAL: // it listens no more: another process has shut it down
    case ENOTSOCK:
    case EOPNOTSUPP:
    case EFAULT:
        return NO_LISTENER;
    default: // the connection that was next has failed by itself: accept(2)
        return TRY_AGAIN;
    }
}

// The number that the next descriptor will have; -1 if there is none
static inline int next_descriptor(int any)
{
    int fd = fcntl(any, F_DUPFD_CLOEXEC, 0);
    if (fd >= 0) {
        (void)close(fd);
    }
    return fd;
}

static inline int own_address(int fd, socket_address *own)
{
    socklen_t size = sizeof *own;
    own->any.sa_family = AF_UNSPEC;
    return getsockname(fd, &own->any, &size);
}

static inline int is_unix_address(const socket_address *address)
{
    return address->any.sa_family == AF_UNIX;
}

// Writes an Internet address as text, with the zone of a link-local one, and returns its port; -1 for other
// kinds.
static inline int put_address(const socket_address *address, char *text)
{
    if (address->any.sa_family == AF_INET) {
        inet_ntop(AF_INET, &address->in.sin_addr, text, ADDRESS_TEXT_SIZE);
        return ntohs(address->in.sin_port);
    }
    if (address->any.sa_family == AF_INET6) {
        char zone[IF_NAMESIZE];
        inet_ntop(AF_INET6, &address->in6.sin6_addr, text, ADDRESS_TEXT_SIZE);
        if (address->in6.sin6_scope_id != 0 && if_indextoname(address->in6.sin6_scope_id, zone) != NULL) {
            size_t n = strlen(text);
            (void)snprintf(text + n, ADDRESS_TEXT_SIZE - n, "%%%s", zone);
        }
        return ntohs(address->in6.sin6_port);
    }
    return -1;
}

#endif
