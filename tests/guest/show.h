// SHOW for test programs whose output is compared with Linux: an expression, its value, its error.
// Needs _GNU_SOURCE.
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define SHOW(e)                                                                     \
    do {                                                                            \
        errno = 0;                                                                  \
        long result = (long)(e);                                                    \
        printf("%s = %ld %s\n", #e, result, errno ? strerrorname_np(errno) : "");   \
    } while (0)
