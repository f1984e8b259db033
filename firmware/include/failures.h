/*
 * Failing on purpose, for the bad variants and for the console's commands.
 */
#ifndef FAILURES_H
#define FAILURES_H

/* Never come back; interrupts go on, the watchdog is not fed. */
_Noreturn void fail_by_hanging(void);

/* Execute an undefined instruction, which ends in the HardFault handler. */
_Noreturn void fail_by_hard_fault(void);

#endif
