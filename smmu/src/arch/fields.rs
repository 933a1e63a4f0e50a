//! Words of hardware for people: the fields in them, by name.

use core::fmt;

use tock_registers::debug::{FieldValueEnumSeq, RegisterDebugInfo};
use tock_registers::fields::Field;
use tock_registers::{LocalRegisterCopy, RegisterLongName, UIntLike};

/// The fields of a value that are not 0, each behind a space. A single bit shows as its name, others with their value, in
/// words where there are any. What is as wide as an address shows in place.
#[derive(Clone, Copy)]
pub struct Fields<T: UIntLike, R: RegisterLongName>(LocalRegisterCopy<T, R>);

impl<T: UIntLike, R: RegisterLongName> Fields<T, R> {
    /// The fields of a raw value.
    #[must_use]
    pub const fn new(raw: T) -> Self {
        Self(LocalRegisterCopy::new(raw))
    }
}

impl<T: UIntLike + Into<u64> + 'static, R: RegisterDebugInfo<T> + 'static> fmt::Display for Fields<T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let raw = self.0.get();
        let mut values = R::fields().iter().map(|field| field.read(raw));
        let mut named = R::field_names().iter().zip(R::fields());
        let mut result = Ok(());
        // Calls for the value of each field in turn, and then with it.
        R::FieldValueEnumTypes::recurse_try_from_value(&mut || values.next().unwrap_or(T::zero()), &mut |value| {
            if let Some((name, field)) = named.next().filter(|(_, field)| field.is_set(raw)) {
                result = result.and_then(|()| show(f, name, *field, raw, value));
            }
        });
        result
    }
}

fn show<T: UIntLike + Into<u64>, R: RegisterLongName>(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    field: Field<T, R>,
    raw: T,
    value: &dyn fmt::Debug,
) -> fmt::Result {
    let mask: u64 = field.mask.into();
    match mask.count_ones() {
        1 => write!(f, " {name}"),
        2..=32 => write!(f, " {name}={value:?}"),
        _ => write!(f, " {name}={:#x}", raw.into() & mask << field.shift),
    }
}

/// Writes the words of an entry that are not 0 on lines of their own, with the fields of those that `fields` knows.
pub(super) fn write_words<const N: usize>(
    f: &mut fmt::Formatter<'_>,
    words: [u64; N],
    fields: [&dyn fmt::Display; N],
) -> fmt::Result {
    for (index, (word, fields)) in words.into_iter().zip(fields).enumerate().filter(|(_, (word, _))| *word != 0) {
        write!(f, "\n  word {index} {word:#018x}{fields}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::string::ToString;

    use super::*;
    use crate::arch::registers::{CMDQ_BASE, CR0, CR1, GBPA, IDR0};

    #[test]
    fn fields_by_name_and_value() {
        assert_eq!(Fields::<u32, CR0::Register>::new(0).to_string(), "");
        assert_eq!(Fields::<u32, CR0::Register>::new(0x8d).to_string(), " SMMUEN EVENTQEN CMDQEN VMW=2");
        assert_eq!(
            Fields::<u32, CR1::Register>::new(0xd75).to_string(),
            " QUEUE_IC=WriteBack QUEUE_OC=WriteBack QUEUE_SH=InnerShareable TABLE_IC=WriteBack TABLE_OC=WriteBack TABLE_SH=InnerShareable"
        );
        assert_eq!(Fields::<u32, GBPA::Register>::new(0x8010_000f).to_string(), " MemAttr=15 ABORT UPDATE");
        let base = Fields::<u64, CMDQ_BASE::Register>::new(0x4000_0000_9000_1008);
        assert_eq!(base.to_string(), " LOG2SIZE=8 ADDR=0x90001000 RA");
        // A value without a name.
        assert_eq!(Fields::<u32, IDR0::Register>::new(3 << 24).to_string(), " STALL_MODEL=3");
    }
}
