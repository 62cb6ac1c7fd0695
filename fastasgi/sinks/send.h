// Reads and writes of a stream socket that never block, resets, a look at peer and queue.
// Knows no Python.
#ifndef FASTASGI_SEND_H
#define FASTASGI_SEND_H

#ifdef __linux__
#ifndef _GNU_SOURCE
#define _GNU_SOURCE // POLLRDHUP, syscall
#endif
#endif

#include <errno.h>
#include <stddef.h>

#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#ifdef __linux__
#include <linux/sockios.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

// macOS has no MSG_NOSIGNAL; CPython ignores SIGPIPE, so that its absence is no harm.
#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

// glibc's send() and recv() are points where a thread may be cancelled, which costs two atomic operations in
// a process with several threads. Nobody cancels ours.
#if defined(__linux__) && defined(SYS_sendto) && defined(SYS_recvfrom) && defined(__LP64__)
#define SEND(socket, p, n, flags) ((ssize_t)syscall(SYS_sendto, (socket), (p), (n), (flags), NULL, 0))
#define RECEIVE(socket, p, n, flags) ((ssize_t)syscall(SYS_recvfrom, (socket), (p), (n), (flags), NULL, NULL))
#else
#define SEND(socket, p, n, flags) send((socket), (p), (n), (flags))
#define RECEIVE(socket, p, n, flags) recv((socket), (p), (n), (flags))
#endif

enum { WOULD_BLOCK = -1, BROKEN = -2 };

static inline ptrdiff_t result_of(ssize_t n)
{
    if (n >= 0) {
        return (ptrdiff_t)n;
    }
    return errno == EAGAIN || errno == EWOULDBLOCK ? WOULD_BLOCK : BROKEN;
}

// Bytes that have come, 0 at their end, WOULD_BLOCK, or BROKEN if the connection is.
static inline ptrdiff_t receive_now(int socket, char *p, size_t n)
{
    ssize_t got;
    do {
        got = RECEIVE(socket, p, n, MSG_DONTWAIT);
    } while (got < 0 && errno == EINTR);
    return result_of(got);
}

// Bytes that the kernel has taken, WOULD_BLOCK, or BROKEN if the connection is.
static inline ptrdiff_t send_now(int socket, const char *p, size_t n)
{
    ssize_t sent;
    do {
        sent = SEND(socket, p, n, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    return result_of(sent);
}

// The same for several pieces.
static inline ptrdiff_t send_pieces(int socket, struct iovec *pieces, int count)
{
    struct msghdr message = {.msg_iov = pieces, .msg_iovlen = (size_t)count};
    ssize_t sent;
    do {
        sent = sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    return result_of(sent);
}

// 1 where the peer has sent its FIN, 2 where it can't be reached any more, 0 otherwise.
// Linux tells of a FIN behind unread bytes; elsewhere only a reset or a whole close is seen.
#ifndef POLLRDHUP
#define POLLRDHUP 0
#endif

static inline int peer_end(int socket)
{
    struct pollfd one = {.fd = socket, .events = POLLRDHUP, .revents = 0};
    if (poll(&one, 1, 0) <= 0) {
        return 0;
    }
    return one.revents & (POLLHUP | POLLERR) ? 2 : (one.revents & POLLRDHUP) != 0;
}

// Whether bytes of the peer wait to be read
static inline int has_bytes(int socket)
{
    int n = 0;
    return ioctl(socket, FIONREAD, &n) == 0 && n > 0;
}

// Bytes that the kernel has taken and the peer hasn't yet; 0 where the system doesn't tell.
static inline int queued(int socket)
{
    int n = 0;
#if defined(SIOCOUTQ)
    if (ioctl(socket, SIOCOUTQ, &n) != 0) {
        return 0;
    }
#elif defined(SO_NWRITE)
    socklen_t size = sizeof n;
    if (getsockopt(socket, SOL_SOCKET, SO_NWRITE, &n, &size) != 0) {
        return 0;
    }
#else
    (void)socket;
#endif
    return n;
}

// Has close() send RST instead of FIN. Where the socket knows no such thing, it closes as ever.
static inline void reset_on_close(int socket)
{
    struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    (void)setsockopt(socket, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
}

#endif
