// Memory that events share holds one event's bytes for that event only. In a build for tests
// (FASTASGI_POISON) it can't be used outside: it is overwritten, and under AddressSanitizer each access is an
// error. Otherwise nothing happens here.
#ifndef FASTASGI_POISON_H
#define FASTASGI_POISON_H

#include <stddef.h>

#ifdef FASTASGI_POISON

#include <string.h>
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#endif

static inline void poison(void *p, size_t n)
{
    if (p != NULL) {
        ASAN_UNPOISON_MEMORY_REGION(p, n);
        memset(p, 0xdb, n);
        ASAN_POISON_MEMORY_REGION(p, n);
    }
}

static inline void unpoison(void *p, size_t n)
{
    if (p != NULL) {
        ASAN_UNPOISON_MEMORY_REGION(p, n);
    }
}

#else

static inline void poison(void *p, size_t n)
{
    (void)p, (void)n;
}

static inline void unpoison(void *p, size_t n)
{
    (void)p, (void)n;
}

#endif
#endif
