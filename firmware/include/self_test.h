#ifndef SELF_TEST_H
#define SELF_TEST_H

/* Try what every application relies on; returns what failed, or a null pointer when all is well. */
const char *self_test(void);

#endif
