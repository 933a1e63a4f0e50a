//! Interrupts of an SMMU: all trouble with them is a warning, and leaves the SMMU usable.

use alloc::string::ToString;

use super::*;
use crate::firmware::SmmuInterrupts;
use crate::iommu::fwspec::Phandle;

const NO_EVENTQ: (&str, usize, Oddity) = ("interrupt-names", 0, Oddity::NoInterrupt { name: "eventq" });
const NO_GERROR: (&str, usize, Oddity) = ("interrupt-names", 0, Oddity::NoInterrupt { name: "gerror" });

/// The interrupts of the only SMMU, and what is odd about them.
fn read(smmu: Source) -> (SmmuInterrupts, Vec<(&'static str, usize, Oddity)>) {
    let smmu = smmus(&board().child(smmu)).remove(0).unwrap();
    (smmu.interrupts, oddities(&smmu.warnings))
}

fn numbers(interrupts: &SmmuInterrupts) -> [Option<u32>; 5] {
    let SmmuInterrupts { eventq, gerror, priq, cmdq_sync, combined } = interrupts;
    [eventq, gerror, priq, cmdq_sync, combined].map(|interrupt| interrupt.as_ref().map(|some| some.specifier[1]))
}

#[test]
fn fewer_names_or_fewer_interrupts() {
    let (interrupts, odd) = read(smmu0().strings("interrupt-names", &["eventq", "gerror"]));
    assert_eq!(numbers(&interrupts), [Some(74), Some(79), None, None, None]);
    assert_eq!(odd, [("interrupt-names", 0, Oddity::InterruptCount { interrupts: 4, names: 2 })]);
    let (interrupts, odd) = read(smmu0().cells("interrupts", &[0, 74, 1]));
    assert_eq!(numbers(&interrupts), [Some(74), None, None, None, None]);
    assert_eq!(odd, [("interrupt-names", 0, Oddity::InterruptCount { interrupts: 1, names: 4 }), NO_GERROR]);
}

#[test]
fn unknown_and_repeated_names_are_ignored() {
    let (interrupts, odd) = read(smmu0().strings("interrupt-names", &["eventq", "fancy", "gerror", "eventq"]));
    assert_eq!(numbers(&interrupts), [Some(74), Some(75), None, None, None]);
    let unknown = ("interrupt-names", 7, Oddity::UnknownInterrupt { name: "fancy".to_string() });
    let repeated = ("interrupt-names", 20, Oddity::RepeatedInterrupt { name: "eventq".to_string() });
    assert_eq!(odd, [unknown, repeated]);
}

#[test]
fn combined_wins() {
    let (interrupts, odd) = read(smmu0().strings("interrupt-names", &["eventq", "combined", "priq", "gerror"]));
    assert_eq!(numbers(&interrupts), [None, None, None, None, Some(79)]);
    assert_eq!(odd, [("interrupt-names", 0, Oddity::CombinedAmongOthers)]);
}

#[test]
fn without_interrupts_there_is_polling() {
    let none = smmu0().without("interrupts").without("interrupt-names");
    assert_eq!(read(none), (SmmuInterrupts::default(), [NO_EVENTQ, NO_GERROR].to_vec()));
}

#[test]
fn unreadable_interrupts_are_reported_and_not_used() {
    let phandle = Phandle::new(SMMU0);
    let no_controller = PropertyProblem::NotAnInterruptController { phandle, target: SMMU0_PATH.to_string() };
    let cases = [
        (
            smmu0().cells("interrupts", &[0, 74]),
            "interrupts",
            PropertyProblem::BadLength { length_bytes: 8, entry_bytes: 12 },
        ),
        (smmu0().without("interrupt-names"), "interrupt-names", PropertyProblem::Missing),
        (smmu0().bytes("interrupt-names", b"eventq"), "interrupt-names", PropertyProblem::NotText),
        (smmu0().bytes("interrupt-names", b"\xff\0"), "interrupt-names", PropertyProblem::NotText),
        (
            smmu0().cells("interrupt-parent", &[0x77]),
            "interrupt-parent",
            PropertyProblem::DanglingPhandle { phandle: Phandle::new(0x77) },
        ),
        (smmu0().cells("interrupt-parent", &[SMMU0]), "interrupt-parent", no_controller),
    ];
    for (smmu, property, problem) in cases {
        let (interrupts, odd) = read(smmu);
        assert_eq!(interrupts, SmmuInterrupts::default());
        assert_eq!(odd, [(property, 0, Oddity::UnusableInterrupts { problem }), NO_EVENTQ, NO_GERROR]);
    }
}

#[test]
fn extended_interrupts_name_a_controller_each() {
    let other = node("mbigen").cells("phandle", &[2]).cells("#interrupt-cells", &[2]);
    let smmu = smmu0()
        .cells("interrupts-extended", &[2, 9, 90, GIC, 0, 79, 1])
        .strings("interrupt-names", &["gerror", "eventq"]);
    let smmu = smmus(&board().child(other).child(smmu)).remove(0).unwrap();
    let parents = [smmu.interrupts.gerror, smmu.interrupts.eventq].map(|interrupt| interrupt.unwrap().parent);
    assert_eq!(parents, [Phandle::new(2), Phandle::new(GIC)]);
    assert!(smmu.warnings.is_empty());

    let (_, odd) = read(smmu0().cells("interrupts-extended", &[GIC, 0, 79, 1, GIC, 0]));
    let problem = PropertyProblem::Truncated { left_bytes: 0 };
    assert_eq!(odd[0], ("interrupts-extended", 24, Oddity::UnusableInterrupts { problem }));
}

#[test]
fn a_controller_without_cells_does_not_loop() {
    let gic = node("odd-intc").cells("phandle", &[2]).cells("#interrupt-cells", &[0]);
    let smmu = smmu0().cells("interrupt-parent", &[2]);
    let smmu = smmus(&board().child(gic).child(smmu)).remove(0).unwrap();
    let problem = PropertyProblem::UnsupportedCells { found: 0, smallest: 1, largest: 8 };
    assert_eq!(oddities(&smmu.warnings)[0], ("#interrupt-cells", 0, Oddity::UnusableInterrupts { problem }));
}
