#ifndef CONSOLE_H
#define CONSOLE_H

/* Write "NAME VERSION (build BUILD_ID)", from the application descriptor. */
void console_write_version(void);

/* Echo what was received since the last turn, and obey each line that is complete. */
void console_turn(void);

#endif
