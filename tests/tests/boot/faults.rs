//! The kernel's own mistakes: reported with all that is needed to find them, and never with exit status 0.

use qemu::machine::Machine;
use qemu::outcome::Outcome;
use qemu::symbols;

use crate::boot::{Boot, Booted, KERNEL};

fn boot(scenario: &str, outcome: Outcome) -> Booted {
    let booted = Boot::new(scenario, Machine::default()).run();
    booted.assert_outcome(outcome);
    booted
}

/// The dump is there, and the syndrome in words.
#[track_caller]
fn assert_dumped(booted: &Booted, source: &str, syndrome: &str) {
    booted.assert_shows(&format!("*** unhandled synchronous exception from {source}\n    {syndrome}\n"));
    for register in ["x0 ", "x30 ", "sp ", "elr ", "spsr ", "esr ", "far "] {
        booted.assert_shows(&format!("    {register}"));
    }
    let record = booted.record("exception");
    assert_eq!(record["kind"], "synchronous exception");
    assert_eq!(record["syndrome"], syndrome);
}

/// The backtrace names `functions`, in this order, innermost first.
#[track_caller]
fn assert_backtrace(booted: &Booted, functions: &[&str]) {
    let resolved = symbols::resolve(&KERNEL.elf, &symbols::addresses(booted.record("backtrace")));
    let mut lines = resolved.iter();
    for function in functions {
        if !lines.any(|line| line.contains(function)) {
            booted.fail(&format!("the backtrace does not go through {functions:?}:\n{}", resolved.join("\n")));
        }
    }
}

#[test]
fn an_unhandled_exception() {
    let booted = boot("exception", Outcome::Exception);
    assert_dumped(&booted, "the kernel", "data abort, read, translation fault at level 0");
    let record = booted.record("exception");
    assert_eq!((&record["esr"], &record["far"]), (&"0x96000004".into(), &"0xfffffffff000".into()));
    assert_backtrace(&booted, &["faults::exception", "kernel::main", "kernel::boot::boot"]);
}

#[test]
fn a_stack_overflow_meets_the_guard_page() {
    let booted = boot("guard-page", Outcome::Exception);
    assert_dumped(&booted, "the kernel", "data abort, write, translation fault at level 3");
    assert_backtrace(&booted, &["faults::recurse", "faults::recurse"]);
}

#[test]
fn code_cannot_be_written() {
    let booted = boot("write-text", Outcome::Exception);
    assert_dumped(&booted, "the kernel", "data abort, write, permission fault at level 3");
    assert_backtrace(&booted, &["faults::write_text", "kernel::main"]);
}

#[test]
fn data_cannot_be_executed() {
    let booted = boot("execute-data", Outcome::Exception);
    assert_dumped(&booted, "the kernel", "instruction abort, permission fault at level 3");
}

#[test]
fn a_fault_in_an_interrupt_handler() {
    let booted = boot("handler-fault", Outcome::Exception);
    assert_dumped(&booted, "an exception handler", "data abort, read, translation fault at level 0");
    assert_backtrace(&booted, &["faults::read_unmapped", "interrupts::handle", "faults::in_handler", "kernel::main"]);
}

#[test]
fn a_panic() {
    let booted = boot("panic", Outcome::Panicked);
    booted.assert_shows("a \"panic\" on purpose\n");
    let record = booted.record("panic");
    assert_eq!(record["message"], "a \"panic\" on purpose");
    assert!(record["location"].as_str().unwrap().starts_with("kernel/src/scenarios/faults.rs:"));
    assert_backtrace(&booted, &["rust_begin_unwind", "faults::panic", "kernel::main"]);
}
