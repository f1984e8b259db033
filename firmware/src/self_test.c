/*
 * Initialised and cleared memory, and the two exceptions that software itself raises.
 */
#include "self_test.h"

#include "stm32f405.h"

#define SVC_NUMBER 42

static volatile uint32_t initialised = 0x600DDA7AUL;
static volatile uint32_t cleared;
static volatile uint32_t pendsv_count;

struct exception_frame {
    uint32_t r0, r1, r2, r3, r12, lr, pc, xpsr;
};

/* Called by SVC_Handler: adds the SVC instruction's own number to the caller's r0. */
__attribute__((used)) void handle_svc(struct exception_frame *frame)
{
    uint8_t number = ((const uint8_t *) frame->pc)[-2];
    frame->r0 += number;
}

/* The stack pointer is the frame: there is one stack, and a naked function pushes nothing. */
__attribute__((naked)) void SVC_Handler(void)
{
    __asm volatile("mov r0, sp\n\tb handle_svc");
}

void PendSV_Handler(void)
{
    pendsv_count++;
}

static uint32_t call_supervisor(uint32_t value)
{
    register uint32_t r0 __asm("r0") = value;
    __asm volatile("svc %1" : "+r"(r0) : "i"(SVC_NUMBER) : "memory");
    return r0;
}

const char *self_test(void)
{
    if (initialised != 0x600DDA7AUL) {
        return "initialised data";
    }
    if (cleared != 0) {
        return "cleared data";
    }
    if (call_supervisor(1000) != 1000 + SVC_NUMBER) {
        return "SVC";
    }
    /* Lowest of all, as a scheduler's context switch has it, yet due at once: nothing else runs. */
    SCB_SHPR[EXCEPTION_PENDSV - 4] = 0xF0;
    SCB_ICSR = SCB_ICSR_PENDSVSET;
    __asm volatile("dsb\n\tisb" ::: "memory");
    if (pendsv_count != 1) {
        return "PendSV";
    }
    return 0;
}
