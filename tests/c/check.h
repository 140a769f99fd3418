/* What the C test programs end with when a condition does not hold. */
#ifndef CHECK_H
#define CHECK_H

#include <lightgpt.h>

#include <stdio.h>
#include <stdlib.h>

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            printf("line %d: %s: %s\n", __LINE__, #condition, lightgpt_last_error());              \
            exit(EXIT_FAILURE);                                                                    \
        }                                                                                          \
    } while (0)

#endif
