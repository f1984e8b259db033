#include "failures.h"

#include "board.h"

_Noreturn void fail_by_hanging(void)
{
    for (;;) {
    }
}

_Noreturn void fail_by_hard_fault(void)
{
    __asm volatile("udf #0");
    fail_by_hanging();
}

/* Called by HardFault_Handler with the frame the exception pushed: its seventh word is the PC. */
__attribute__((used)) _Noreturn void report_hard_fault(const uint32_t *frame)
{
    board_write("hard fault at PC 0x");
    board_write_hex(frame[6], 8);
    board_write_character('\n');
    fail_by_hanging();
}

/* The stack pointer is the frame: there is one stack, and a naked function pushes nothing. */
__attribute__((naked)) void HardFault_Handler(void)
{
    __asm volatile("mov r0, sp\n\tb report_hard_fault");
}
