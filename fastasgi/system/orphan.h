// The end of a process whose parent has died, whatever it is doing. Knows no Python.
#ifndef FASTASGI_ORPHAN_H
#define FASTASGI_ORPHAN_H

#ifdef __linux__

#ifndef _GNU_SOURCE
#define _GNU_SOURCE // sigaction
#endif

#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

static unsigned orphan_life_s;

static void on_parent_death(int number)
{
    (void)number;
    // The default action ends the process, even one whose interpreter never returns from a call
    signal(SIGALRM, SIG_DFL);
    alarm(orphan_life_s);
}

// Have the kernel end this process so many seconds after its parent's main thread has ended; a change of its
// user undoes that. Returns 0, or -1 where it can't.
static inline int end_after_parent(unsigned life_s)
{
    const int number = SIGRTMAX - 1;
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_parent_death;
    action.sa_flags = SA_RESTART;
    orphan_life_s = life_s;
    if (sigaction(number, &action, NULL) != 0)
        return -1;
    return prctl(PR_SET_PDEATHSIG, (unsigned long)number, 0UL, 0UL, 0UL);
}

#else

static inline int end_after_parent(unsigned life_s)
{
    (void)life_s;
    return -1;
}

#endif
#endif
