// The exception vectors (Arm ARM D1.3.1) and the way into and out of Rust.
//
// An exception leaves a Frame (exceptions/mod.rs) on SP_EL1's stack, with a frame record at its end, so that a backtrace
// goes on into the code that was interrupted.

.equ    FRAME_SIZE, 304
.equ    FRAME_SP, 31 * 8
.equ    FRAME_ELR, 32 * 8
.equ    FRAME_ESR, 34 * 8
.equ    FRAME_RECORD, 36 * 8

// From code on SP_EL0, which is the kernel proper.
.macro  from_main vector
.balign 128
    sub     sp, sp, #FRAME_SIZE
    stp     x0, x1, [sp]
    mrs     x0, SP_EL0
    mov     x1, #\vector
    b       enter
.endm

// From code on SP_EL1, which is an exception handler: never returns, and SP_EL1 itself may be what is wrong.
.macro  from_handler vector
.balign 128
    msr     TPIDR_EL1, x0
    mov     x0, sp
    msr     TPIDRRO_EL0, x0
    adrp    x0, emergency_stack_top
    add     x0, x0, :lo12:emergency_stack_top
    sub     sp, x0, #FRAME_SIZE
    mrs     x0, TPIDR_EL1
    stp     x0, x1, [sp]
    mrs     x0, TPIDRRO_EL0
    mov     x1, #\vector
    b       enter
.endm

.section .text.exception_vectors, "ax"
.balign 2048
.global exception_vectors
exception_vectors:
    from_main       0
    from_main       1
    from_main       2
    from_main       3
    from_handler    4
    from_handler    5
    from_handler    6
    from_handler    7
    // Nothing runs at EL0.
    from_handler    8
    from_handler    9
    from_handler    10
    from_handler    11
    from_handler    12
    from_handler    13
    from_handler    14
    from_handler    15

// x0: the interrupted stack pointer, x1: the vector's number; both are saved already.
.balign 128
enter:
    stp     x2, x3, [sp, #16]
    stp     x4, x5, [sp, #32]
    stp     x6, x7, [sp, #48]
    stp     x8, x9, [sp, #64]
    stp     x10, x11, [sp, #80]
    stp     x12, x13, [sp, #96]
    stp     x14, x15, [sp, #112]
    stp     x16, x17, [sp, #128]
    stp     x18, x19, [sp, #144]
    stp     x20, x21, [sp, #160]
    stp     x22, x23, [sp, #176]
    stp     x24, x25, [sp, #192]
    stp     x26, x27, [sp, #208]
    stp     x28, x29, [sp, #224]
    str     x30, [sp, #240]
    str     x0, [sp, #FRAME_SP]
    mrs     x2, ELR_EL1
    mrs     x3, SPSR_EL1
    stp     x2, x3, [sp, #FRAME_ELR]
    mrs     x4, ESR_EL1
    mrs     x5, FAR_EL1
    stp     x4, x5, [sp, #FRAME_ESR]
    stp     x29, x2, [sp, #FRAME_RECORD]
    add     x29, sp, #FRAME_RECORD
    mov     x0, sp
    bl      {handle}

    ldp     x2, x3, [sp, #FRAME_ELR]
    msr     ELR_EL1, x2
    msr     SPSR_EL1, x3
    ldp     x0, x1, [sp]
    ldp     x2, x3, [sp, #16]
    ldp     x4, x5, [sp, #32]
    ldp     x6, x7, [sp, #48]
    ldp     x8, x9, [sp, #64]
    ldp     x10, x11, [sp, #80]
    ldp     x12, x13, [sp, #96]
    ldp     x14, x15, [sp, #112]
    ldp     x16, x17, [sp, #128]
    ldp     x18, x19, [sp, #144]
    ldp     x20, x21, [sp, #160]
    ldp     x22, x23, [sp, #176]
    ldp     x24, x25, [sp, #192]
    ldp     x26, x27, [sp, #208]
    ldp     x28, x29, [sp, #224]
    ldr     x30, [sp, #240]
    add     sp, sp, #FRAME_SIZE
    eret
