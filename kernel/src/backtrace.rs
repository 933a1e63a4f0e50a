//! Where the kernel was: the calls that led there, found through the chain of frame records (AAPCS64, section 6.4.6).

use core::ops::Range;

use crate::console::record::Hex;
use crate::memory::layout;
use crate::{println, record};

/// The most frames that are shown.
const MAX_FRAMES: usize = 48;

const INSTRUCTION_BYTES: usize = 4;

/// Prints the backtrace of code at `address` whose frame record is at `frame`, as text and as a record.
///
/// Each address is that of a call, but for the first; all are those of the ELF file's symbols, wherever the image runs.
pub(crate) fn print(address: usize, frame: usize) {
    let mut addresses = [Hex(0); MAX_FRAMES];
    let mut count = 0;
    println!("backtrace:");
    for (slot, address) in addresses.iter_mut().zip(core::iter::once(address).chain(Frames(frame))) {
        let address = layout::link_address(address);
        println!("  #{count:<2} {address:#018x}");
        *slot = Hex(address as u64);
        count += 1;
    }
    record!("backtrace", "addresses" => addresses.get(..count).unwrap_or_default());
}

/// The call instructions to which a chain of frame records leads back, innermost first. Holds the address of the next record.
struct Frames(usize);

impl Iterator for Frames {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let frame = self.0;
        let stack = stack_around(frame)?;
        // SAFETY: the record is aligned and lies whole inside a stack, which is mapped.
        let [next, return_address] = unsafe { (frame as *const [usize; 2]).read() };
        // Within one stack the chain only ever goes up; from the exception stack it may go over to another.
        self.0 = if next > frame || !stack.contains(&next) { next } else { 0 };
        // The return address itself may belong to the next function, if the call was to one that never returns.
        layout::text().contains(&return_address).then_some(return_address - INSTRUCTION_BYTES)
    }
}

/// The stack in which a whole frame record lies at `frame`.
fn stack_around(frame: usize) -> Option<Range<usize>> {
    let stacks = [layout::main_stack(), layout::exception_stack(), layout::emergency_stack()];
    let end = frame.checked_add(size_of::<[usize; 2]>())?;
    let found = stacks.into_iter().find(|stack| stack.contains(&frame) && end <= stack.end)?;
    frame.is_multiple_of(align_of::<usize>()).then_some(found)
}
