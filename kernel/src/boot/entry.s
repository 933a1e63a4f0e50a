// Image header, descent from EL2, and everything that has to happen before Rust can run: relocation, an empty .bss, stacks.
// MMU and caches are off throughout; boot/mod.rs turns them on.

// The address of a symbol, wherever the image was loaded.
.macro  address register, symbol
    adrp    \register, \symbol
    add     \register, \register, :lo12:\symbol
.endm

// Linux's boot protocol for arm64 (Documentation/arch/arm64/booting.rst): a loader that knows it passes the device tree in x0.
.section .head, "ax"
    b       entry
    .long   0
    .quad   0                       // text_offset: none, from a 2 MiB boundary
    .quad   IMAGE_SIZE              // bytes in memory, .bss, stacks and heap included
    .quad   0b1010                  // little-endian, 4 KiB pages, anywhere in memory
    .quad   0, 0, 0
    .ascii  "ARM\x64"
    .long   0

.section .text.entry, "ax"
.global entry
entry:
    msr     DAIFSet, #0xf
    mov     x19, x0                 // the device tree
    mrs     x0, CurrentEL
    cmp     x0, #(2 << 2)
    b.ne    at_el1

// At EL2: let EL1 use everything that it would have without a hypervisor, then drop to it.
    mov     x0, #(1 << 31)          // HCR_EL2.RW: EL1 is AArch64; no stage 2, no traps
    msr     HCR_EL2, x0
    isb
    mov     x0, #0x33ff             // CPTR_EL2: its RES1 bits, no traps of FP
    msr     CPTR_EL2, x0
    msr     HSTR_EL2, xzr
    mrs     x0, MDCR_EL2
    and     x0, x0, #0x1f           // MDCR_EL2.HPMN, all event counters for EL1, is right from reset; no traps
    msr     MDCR_EL2, x0
    mov     x0, #0b11               // CNTHCTL_EL2.EL1PCEN, EL1PCTEN: timer and counter
    msr     CNTHCTL_EL2, x0
    msr     CNTVOFF_EL2, xzr
    msr     VTTBR_EL2, xzr
    mrs     x0, MIDR_EL1
    msr     VPIDR_EL2, x0
    mrs     x0, MPIDR_EL1
    msr     VMPIDR_EL2, x0
    mrs     x0, ID_AA64PFR0_EL1
    tst     x0, #(0xf << 24)        // GIC: system registers present
    b.eq    1f
    mov     x0, #0b1001             // ICC_SRE_EL2.Enable, SRE
    msr     ICC_SRE_EL2, x0
    isb
    msr     ICH_HCR_EL2, xzr
1:  mov     x0, #0x3c5              // SPSR_EL2: DAIF masked, EL1h
    msr     SPSR_EL2, x0
    adr     x0, at_el1
    msr     ELR_EL2, x0
    eret

at_el1:
    ldr     x0, =0x30d00800         // SCTLR_EL1: its RES1 bits; MMU and caches off
    msr     SCTLR_EL1, x0
    msr     CPACR_EL1, xzr          // vector instructions trap: handlers do not save their registers
    isb
    address x20, image_start
    address x21, image_end

// The loader has cleaned what it loaded; what it has not may sit in a cache and would later hide the stores made below.
    mrs     x0, CTR_EL0
    ubfx    x0, x0, #16, #4         // DminLine, log2 of words
    mov     x1, #4
    lsl     x1, x1, x0
    mov     x0, x20
1:  dc      ivac, x0
    add     x0, x0, x1
    cmp     x0, x21
    b.lo    1b
    dsb     sy

    address x0, bss_start
    address x1, bss_end
1:  cmp     x0, x1
    b.hs    2f
    stp     xzr, xzr, [x0], #16
    b       1b
2:

// The image is position-independent: the only kind of relocation that it needs is R_AARCH64_RELATIVE (1027).
    ldr     x0, link_address
    sub     x0, x20, x0
    address x1, relocations_start
    address x2, relocations_end
1:  cmp     x1, x2
    b.hs    2f
    ldp     x3, x4, [x1], #16       // offset, type
    ldr     x5, [x1], #8            // addend
    cmp     x4, #1027
    b.ne    1b
    add     x5, x5, x0
    str     x5, [x3, x0]
    b       1b
2:

// The kernel runs on SP_EL0, exceptions run on SP_EL1: one that comes of a stack overflow still finds a stack.
    address x1, exception_vectors
    msr     VBAR_EL1, x1
    isb
    address x1, exception_stack_top
    mov     sp, x1
    msr     SPSel, #0
    address x1, main_stack_top
    mov     sp, x1
    mov     x29, xzr                // ends the chain of frame records
    mov     x30, xzr
    mov     x1, x0                  // how far the image was moved
    mov     x0, x19
    bl      {boot}

// Back to the entry point, with the device tree in x0: variables as they were loaded, and in memory, where they are found
// without caches; the rest of the image is what it was, or will be overwritten.
.global again
again:
    msr     DAIFSet, #0xf
    msr     SPSel, #1
    mov     x19, x0
    address x1, data_start
    address x2, data_end
    address x3, data_copy_start
1:  cmp     x1, x2
    b.hs    2f
    ldp     x4, x5, [x3], #16
    stp     x4, x5, [x1]
    dc      cvac, x1
    add     x1, x1, #16
    b       1b
2:  address x1, inheritance_start
    address x2, inheritance_end
3:  cmp     x1, x2
    b.hs    4f
    dc      cvac, x1
    add     x1, x1, #16             // no cache line is smaller
    b       3b
4:  dsb     sy
    ldr     x0, =0x30d00800         // SCTLR_EL1 as at entry
    msr     SCTLR_EL1, x0
    isb
    ic      iallu
    dsb     sy
    isb
    mov     x0, x19
    b       entry

.balign 8
link_address:
    .quad   LINK_ADDRESS
