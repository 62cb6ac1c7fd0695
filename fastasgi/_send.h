// One non-blocking write to a stream socket, without a signal. Knows no Python.
#ifndef FASTASGI_SEND_H
#define FASTASGI_SEND_H

#include <errno.h>
#include <stddef.h>

#ifdef _WIN32

// The transport does it there.
static inline ptrdiff_t send_now(int socket, const char *p, size_t n)
{
    (void)socket, (void)p, (void)n;
    return 0;
}

#else

#include <sys/socket.h>
#include <sys/types.h>

// macOS has no MSG_NOSIGNAL; CPython ignores SIGPIPE, so that its absence is no harm.
#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

// Bytes that the kernel has taken, 0 to n. An error counts as 0: whoever writes the rest will meet it again.
static inline ptrdiff_t send_now(int socket, const char *p, size_t n)
{
    ssize_t sent;
    do {
        sent = send(socket, p, n, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    return sent < 0 ? 0 : (ptrdiff_t)sent;
}

#endif
#endif
