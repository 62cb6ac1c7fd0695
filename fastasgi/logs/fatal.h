// What waits to be written when a signal ends the process. Knows no Python.
#ifndef FASTASGI_FATAL_H
#define FASTASGI_FATAL_H

#include <stddef.h>

#ifndef _WIN32

#ifndef _GNU_SOURCE
#define _GNU_SOURCE // sigaction
#endif

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

// Lines of one log, as their owner keeps them. They may change at any moment, and so are read once.
struct waiting_lines {
    char *const *lines;
    const ptrdiff_t *length; // bytes
    int descriptor;          // -1: none
    pid_t owner;             // a copy of that process leaves them to it
    struct waiting_lines *next;
};

enum {
    FATAL_SIGNALS = 32 // none of them has a higher number
};

static struct waiting_lines *waiting_lines_first;
static struct sigaction fatal_actions_before[FATAL_SIGNALS];
static char fatal_is_caught[FATAL_SIGNALS];

static void on_fatal_signal(int number)
{
    const int error_before = errno;
    const struct waiting_lines *each;
    for (each = waiting_lines_first; each != NULL; each = each->next) {
        const char *p = *each->lines;
        ptrdiff_t left = *each->length;
        while (each->descriptor >= 0 && each->owner == getpid() && left > 0) {
            const ssize_t n = write(each->descriptor, p, (size_t)left);
            if (n <= 0)
                break;
            p += n;
            left -= n;
        }
    }
    // As soon as this returns, with what was there before
    sigaction(number, &fatal_actions_before[number], NULL);
    raise(number);
    errno = error_before;
}

// Have lines written before this signal ends the process. One that the process survives is left alone: of
// crashes another handler, such as faulthandler's, comes after ours, of others only the default action.
static inline void catch_fatal_signal(int number, int is_crash)
{
    struct sigaction action;
    if (number >= FATAL_SIGNALS || fatal_is_caught[number])
        return;
    if (sigaction(number, NULL, &fatal_actions_before[number]) != 0)
        return;
    if (fatal_actions_before[number].sa_handler == SIG_IGN)
        return;
    if (!is_crash && fatal_actions_before[number].sa_handler != SIG_DFL)
        return;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_fatal_signal;
    action.sa_flags = SA_ONSTACK;
    fatal_is_caught[number] = sigaction(number, &action, NULL) == 0;
}

static inline void add_waiting_lines(struct waiting_lines *lines)
{
    lines->owner = getpid();
    lines->next = waiting_lines_first;
    waiting_lines_first = lines;
}

// Does nothing where they were not added. After the last ones, signals do what they did before.
static inline void remove_waiting_lines(const struct waiting_lines *lines)
{
    struct waiting_lines **place = &waiting_lines_first;
    int number;
    while (*place != NULL && *place != lines)
        place = &(*place)->next;
    if (*place == NULL)
        return;
    *place = lines->next;
    for (number = 1; number < FATAL_SIGNALS && waiting_lines_first == NULL; number++) {
        struct sigaction now;
        if (fatal_is_caught[number] && sigaction(number, NULL, &now) == 0 &&
            now.sa_handler == on_fatal_signal)
            sigaction(number, &fatal_actions_before[number], NULL);
        fatal_is_caught[number] = 0;
    }
}

#else

struct waiting_lines {
    char *const *lines;
    const ptrdiff_t *length;
    int descriptor;
};

static inline void catch_fatal_signal(int number, int is_crash)
{
    (void)number;
    (void)is_crash;
}

static inline void add_waiting_lines(struct waiting_lines *lines)
{
    (void)lines;
}

static inline void remove_waiting_lines(const struct waiting_lines *lines)
{
    (void)lines;
}

#endif
#endif
