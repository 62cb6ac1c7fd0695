// Which of many sockets are ready, told once for each change: epoll with EPOLLET, elsewhere kqueue with
// EV_CLEAR. Knows no Python.
#ifndef FASTASGI_POLL_H
#define FASTASGI_POLL_H

#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE // CLOCK_MONOTONIC
#endif

#include <errno.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>

enum {
    READABLE = 1, // or the peer has ended or reset the connection
    WRITABLE = 2,
    ENDED = 4, // the peer sends nothing more, or there was an error: a read tells which
};

#ifdef __linux__

#include <sys/epoll.h>
#include <sys/timerfd.h>

#ifndef EPOLLRDHUP
#define EPOLLRDHUP 0x2000
#endif

typedef struct epoll_event ready_event;

static inline uint64_t ready_key(const ready_event *event)
{
    return event->data.u64;
}

static inline unsigned ready_what(const ready_event *event)
{
    unsigned what = 0;
    if (event->events & EPOLLIN) {
        what |= READABLE;
    }
    if (event->events & EPOLLOUT) {
        what |= WRITABLE;
    }
    if (event->events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) {
        what |= READABLE | ENDED;
    }
    return what;
}

// A descriptor of a set of sockets, or -1 with errno
static inline int poll_open(void)
{
    return epoll_create1(EPOLL_CLOEXEC);
}

static inline int poll_change(int poller, int operation, int fd, uint64_t key, int writes)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP | EPOLLET, .data = {.u64 = key}};
    if (writes) {
        event.events |= EPOLLOUT;
    }
    return epoll_ctl(poller, operation, fd, &event);
}

// Adds a socket to the set. Returns -1 with errno
static inline int poll_add(int poller, int fd, uint64_t key, int writes)
{
    return poll_change(poller, EPOLL_CTL_ADD, fd, key, writes);
}

// Has a socket of the set told as writable, too, from now on. Returns -1 with errno
static inline int poll_writes(int poller, int fd, uint64_t key)
{
    return poll_change(poller, EPOLL_CTL_MOD, fd, key, 1);
}

// Takes a socket out of the set that is not to be closed
static inline void poll_remove(int poller, int fd)
{
    (void)epoll_ctl(poller, EPOLL_CTL_DEL, fd, NULL);
}

// The events that have not been told, up to `most` of them, without waiting. Returns -1 with errno
static inline int poll_events(int poller, ready_event *events, int most)
{
    return epoll_wait(poller, events, most, 0);
}

// A descriptor that is readable once a time has passed; -1 if the system has none
static inline int timer_open(void)
{
    return timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
}

static inline void timer_start(int timer, long ns)
{
    struct itimerspec once = {.it_value = {.tv_nsec = ns}};
    (void)timerfd_settime(timer, 0, &once, NULL);
}

#else

#include <sys/types.h>
#include <sys/event.h>
#include <sys/time.h>
#include <fcntl.h>

typedef struct kevent ready_event;

static inline uint64_t ready_key(const ready_event *event)
{
    return (uint64_t)(uintptr_t)event->udata;
}

static inline unsigned ready_what(const ready_event *event)
{
    unsigned what = event->filter == EVFILT_WRITE ? WRITABLE : READABLE;
    return event->flags & (EV_EOF | EV_ERROR) ? what | READABLE | ENDED : what;
}

static inline int poll_open(void)
{
    int poller = kqueue();
    if (poller >= 0) {
        (void)fcntl(poller, F_SETFD, FD_CLOEXEC);
    }
    return poller;
}

static inline int poll_writes(int poller, int fd, uint64_t key)
{
    struct kevent change;
    EV_SET(&change, fd, EVFILT_WRITE, EV_ADD | EV_CLEAR, 0, 0, (void *)(uintptr_t)key);
    return kevent(poller, &change, 1, NULL, 0, NULL);
}

static inline int poll_add(int poller, int fd, uint64_t key, int writes)
{
    struct kevent change;
    EV_SET(&change, fd, EVFILT_READ, EV_ADD | EV_CLEAR, 0, 0, (void *)(uintptr_t)key);
    if (kevent(poller, &change, 1, NULL, 0, NULL) < 0) {
        return -1;
    }
    return writes ? poll_writes(poller, fd, key) : 0;
}

static inline void poll_remove(int poller, int fd)
{
    struct kevent change;
    EV_SET(&change, fd, EVFILT_READ, EV_DELETE, 0, 0, NULL);
    (void)kevent(poller, &change, 1, NULL, 0, NULL);
}

static inline int poll_events(int poller, ready_event *events, int most)
{
    struct timespec no_time = {0, 0};
    return kevent(poller, NULL, 0, events, most, &no_time);
}

static inline int timer_open(void)
{
    return -1;
}

static inline void timer_start(int timer, long ns)
{
    (void)timer, (void)ns;
}

#endif
#endif
