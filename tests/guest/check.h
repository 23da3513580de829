// CHECK for test programs: says what does not hold, and counts it in `failures`.
#include <errno.h>
#include <stdio.h>

static int failures;

#define CHECK(what) \
    do { \
        if (!(what)) { \
            printf("%d: %s (errno %d)\n", __LINE__, #what, errno); \
            fflush(stdout); \
            failures++; \
        } \
    } while (0)
