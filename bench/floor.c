/* The kernel's share of a request: an epoll loop that answers fixed bytes to every blank line. floor PORT
 *
 * It parses nothing, so no server can be faster by much. It is one thread, level-triggered, one read and one
 * write for each event. A client that doesn't read its answers stalls it: it serves the bench only.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_EVENTS 256
#define READ_BYTES 65536
#define MAX_SOCKETS 65536

static const char RESPONSE[] = "HTTP/1.1 200 OK\r\nserver: floor\r\ndate: Sat, 21 Nov 2026 00:00:00 GMT\r\n"
                               "content-type: text/plain\r\ncontent-length: 13\r\n\r\nHello, World!";
enum { RESPONSE_BYTES = sizeof RESPONSE - 1 };

/* How many bytes of the blank line CR LF CR LF the last read of each descriptor ended with. */
static unsigned char seen[MAX_SOCKETS];

static _Noreturn void fail(const char *what)
{
    perror(what);
    exit(1);
}

static int count_blank_lines(int fd, const char *data, size_t size)
{
    static const char blank[] = "\r\n\r\n";
    int count = 0;
    unsigned state = seen[fd];
    for (const char *end = data + size; data < end;) {
        if (state == 0) {
            data = memchr(data, '\r', (size_t)(end - data));
            if (data == NULL) {
                break;
            }
        }
        state = *data == blank[state] ? state + 1 : *data == '\r';
        data++;
        if (state == 4) {
            count++;
            state = 0;
        }
    }
    seen[fd] = (unsigned char)state;
    return count;
}

static int send_all(int fd, const char *data, size_t size)
{
    while (size > 0) {
        ssize_t sent = send(fd, data, size, MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) {
            struct pollfd wait = {.fd = fd, .events = POLLOUT};
            poll(&wait, 1, -1);
        } else if (sent < 0) {
            return -1;
        } else {
            data += sent;
            size -= (size_t)sent;
        }
    }
    return 0;
}

static int answer(int fd, int count)
{
    static char out[256 * RESPONSE_BYTES];
    if (out[0] == 0) {
        for (int i = 0; i < 256; i++) {
            memcpy(out + i * RESPONSE_BYTES, RESPONSE, RESPONSE_BYTES);
        }
    }
    for (; count > 0; count -= 256) {
        int batch = count < 256 ? count : 256;
        if (send_all(fd, out, (size_t)batch * RESPONSE_BYTES) < 0) {
            return -1;
        }
    }
    return 0;
}

static void accept_all(int listener, int epoll)
{
    int fd;
    int on = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        if (fd >= MAX_SOCKETS) {
            close(fd);
            continue;
        }
        seen[fd] = 0;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
        epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
    }
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: floor PORT\n");
        return 2;
    }
    int on = 1;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(argv[1]))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0) {
        fail("bind");
    }
    if (listen(listener, 4096) < 0) {
        fail("listen");
    }
    int epoll = epoll_create1(0);
    struct epoll_event first = {.events = EPOLLIN, .data.fd = listener};
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &first);
    static char data[READ_BYTES];
    struct epoll_event events[MAX_EVENTS];
    for (;;) {
        int ready = epoll_wait(epoll, events, MAX_EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                accept_all(listener, epoll);
                continue;
            }
            ssize_t size = recv(fd, data, sizeof data, 0);
            if (size <= 0 || answer(fd, count_blank_lines(fd, data, (size_t)size)) < 0) {
                close(fd);
            }
        }
    }
}
