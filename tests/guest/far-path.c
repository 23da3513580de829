// Hands a call a path that stands in the middle of a megabyte of constants: further from
// whatever the program has looked at before than a page fault reads around itself.
#include <unistd.h>

#define MIDDLE (512 << 10)

static const struct {
    char before[MIDDLE];
    char path[MIDDLE];
} constants = {{1}, "/"};

int main(void) {
    return access(constants.path, F_OK) != 0;
}
