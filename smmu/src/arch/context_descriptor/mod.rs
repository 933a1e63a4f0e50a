//! The context descriptor: one stage-1 address space of a stream (IHI 0070, 5.3 and 5.4).

mod upper_half;

#[cfg(test)]
mod tests;

use core::fmt;

use tock_registers::{LocalRegisterCopy, register_bitfields};

pub use self::upper_half::UpperHalf;
use super::attributes::{AddressSize, Granule, HardwareUpdate, Mair, WalkAttributes};
use super::entry_update::Entry;
use super::fields::{Fields, write_words};
use crate::addr::{Asid, PhysAddr};

register_bitfields! { u64,
    /// Bits 63:0 of a context descriptor.
    CD0 [
        T0SZ OFFSET(0) NUMBITS(6) [],
        TG0 OFFSET(6) NUMBITS(2) [],
        IR0 OFFSET(8) NUMBITS(2) [],
        OR0 OFFSET(10) NUMBITS(2) [],
        SH0 OFFSET(12) NUMBITS(2) [],
        EPD0 OFFSET(14) NUMBITS(1) [],
        T1SZ OFFSET(16) NUMBITS(6) [],
        TG1 OFFSET(22) NUMBITS(2) [],
        IR1 OFFSET(24) NUMBITS(2) [],
        OR1 OFFSET(26) NUMBITS(2) [],
        SH1 OFFSET(28) NUMBITS(2) [],
        EPD1 OFFSET(30) NUMBITS(1) [],
        V OFFSET(31) NUMBITS(1) [],
        IPS OFFSET(32) NUMBITS(3) [],
        AFFD OFFSET(35) NUMBITS(1) [],
        AA64 OFFSET(41) NUMBITS(1) [],
        HD OFFSET(42) NUMBITS(1) [],
        HA OFFSET(43) NUMBITS(1) [],
        S OFFSET(44) NUMBITS(1) [],
        R OFFSET(45) NUMBITS(1) [],
        A OFFSET(46) NUMBITS(1) [],
        ASET OFFSET(47) NUMBITS(1) [],
        ASID OFFSET(48) NUMBITS(16) []
    ],
    /// Bits 127:64.
    CD1 [
        /// In place: bits 55:4 of the address.
        TTB0 OFFSET(4) NUMBITS(52) []
    ],
    /// Bits 191:128.
    CD2 [
        /// In place: bits 55:4 of the address.
        TTB1 OFFSET(4) NUMBITS(52) []
    ],
    /// A level-1 context descriptor.
    L1CD [
        V OFFSET(0) NUMBITS(1) [],
        /// In place: bits 55:12 of the address.
        L2Ptr OFFSET(12) NUMBITS(44) []
    ]
}

/// A stage-1 address space, as the device sees it: the lower half of the address space and what both halves share. The upper
/// half is added by [`ContextDescriptor::with_upper_half`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage1Context {
    /// ASID: tags the translations in the TLB. At most 8 bits without IDR0.ASID16.
    pub asid: Asid,
    /// TG0.
    pub granule: Granule,
    /// T0SZ: 64 minus the bits of an input address, 16 to 39 (12 with IDR5.VAX and 64 KiB granule).
    pub t0sz: u8,
    /// TTB0: the start-level table, aligned to its size.
    pub table: PhysAddr,
    /// IPS: size of output addresses.
    pub output_size: AddressSize,
    /// IR0, OR0, SH0: how tables are walked.
    pub walk: WalkAttributes,
    /// MAIR0, MAIR1.
    pub mair: Mair,
    /// HA, HD.
    pub hardware_update: HardwareUpdate,
    /// AFFD: a clear Access flag is no fault.
    pub access_flag_fault_disabled: bool,
    /// S: faults stall until CMD_RESUME. Never for PCIe, nor where STE.S1STALLD is 1.
    pub stall: bool,
}

/// A context descriptor: 64 bytes, aligned to 64 (IHI 0070, 5.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContextDescriptor {
    words: [u64; 8],
}

impl ContextDescriptor {
    /// Size in bytes.
    pub const BYTES: usize = 64;

    /// All zero: transactions abort, and C_BAD_CD is recorded.
    pub const INVALID: Self = Self { words: [0; 8] };

    /// A valid VMSAv8-64 descriptor, without an upper half for now (EPD1). Faults are recorded (R) and abort (A) unless they
    /// stall; the ASID is not shared with CPUs (ASET).
    #[must_use]
    pub fn new(context: &Stage1Context) -> Self {
        let word0 = CD0::T0SZ.val(context.t0sz.into())
            + CD0::TG0.val(context.granule.tg0())
            + CD0::IR0.val(context.walk.inner.walk_code())
            + CD0::OR0.val(context.walk.outer.walk_code())
            + CD0::SH0.val(context.walk.shareability.code())
            + CD0::EPD1::SET
            + CD0::V::SET
            + CD0::IPS.val(context.output_size.code())
            + CD0::AFFD.val(context.access_flag_fault_disabled.into())
            + CD0::AA64::SET
            + CD0::HD.val(context.hardware_update.hd())
            + CD0::HA.val(context.hardware_update.ha())
            + CD0::S.val(context.stall.into())
            + CD0::R::SET
            + CD0::A::SET
            + CD0::ASET::SET
            + CD0::ASID.val(context.asid.get().into());
        let word1 = CD1::TTB0.val(context.table.get() >> 4);
        Self { words: [word0.value, word1.value, 0, context.mair.get(), 0, 0, 0, 0] }
    }

    /// The same address space without walks (EPD0): what is not in the TLB faults with F_TRANSLATION. For an address space
    /// whose tables go before its device stops; CMD_TLBI_NH_ASID makes it final. Not for [`Strw::El2`], which has no EPD0.
    ///
    /// [`Strw::El2`]: super::stream_table::Strw::El2
    #[must_use]
    pub fn without_walks(mut self) -> Self {
        let [word0, ..] = &mut self.words;
        *word0 |= CD0::EPD0::SET.value;
        self
    }

    /// A descriptor as read from memory.
    #[must_use]
    pub const fn from_words(words: [u64; 8]) -> Self {
        Self { words }
    }

    /// The eight words, lowest first.
    #[must_use]
    pub const fn words(&self) -> [u64; 8] {
        self.words
    }

    fn word0(&self) -> LocalRegisterCopy<u64, CD0::Register> {
        LocalRegisterCopy::new(self.words[0])
    }

    /// V: the SMMU uses the descriptor.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.word0().is_set(CD0::V)
    }

    /// ASID.
    #[must_use]
    pub fn asid(&self) -> Asid {
        Asid::new(self.word0().read(CD0::ASID) as u16)
    }

    /// T0SZ: 64 minus the bits of an input address.
    #[must_use]
    pub fn t0sz(&self) -> u8 {
        self.word0().read(CD0::T0SZ) as u8
    }

    /// TTB0: the start-level table.
    #[must_use]
    pub fn table(&self) -> PhysAddr {
        PhysAddr::new(CD1::TTB0.read(self.words[1]) << 4)
    }

    /// S: faults stall.
    #[must_use]
    pub fn stalls(&self) -> bool {
        self.word0().is_set(CD0::S)
    }
}

/// What of a context descriptor counts (IHI 0070, 5.4 and 5.4.1).
impl Entry for ContextDescriptor {
    fn words(&self) -> [u64; 8] {
        self.words
    }

    /// A half without walks (EPDx) has no shape and no table.
    fn obeyed(&self) -> [u64; 8] {
        let mut obeyed = self.relevant();
        let [word0, word1, word2, ..] = &mut obeyed;
        if self.is_valid() && self.word0().is_set(CD0::EPD0) {
            *word0 &= !(CD0::T0SZ::SET + CD0::TG0::SET + CD0::IR0::SET + CD0::OR0::SET + CD0::SH0::SET).value;
            *word1 &= !CD1::TTB0::SET.value;
        }
        if self.is_valid() && self.word0().is_set(CD0::EPD1) {
            *word0 &= !(CD0::T1SZ::SET + CD0::TG1::SET + CD0::IR1::SET + CD0::OR1::SET + CD0::SH1::SET).value;
            *word2 &= !CD2::TTB1::SET.value;
        }
        obeyed
    }

    fn relevant(&self) -> [u64; 8] {
        if self.is_valid() { [u64::MAX; 8] } else { [CD0::V::SET.value, 0, 0, 0, 0, 0, 0, 0] }
    }
}

/// What the address space is; with `{:#}` also the words, field by field.
impl fmt::Display for ContextDescriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_valid() {
            let bits = 64 - self.t0sz();
            write!(f, "{bits}-bit addresses by table {}", self.table())?;
            if let Some(table) = self.upper_table() {
                write!(f, ", upper half by table {table}")?;
            }
            write!(f, ", ASID {}", self.asid().get())?;
        } else {
            f.write_str("invalid")?;
        }
        if !f.alternate() {
            return Ok(());
        }
        let [word0, word1, word2, ..] = self.words;
        let word0 = Fields::<u64, CD0::Register>::new(word0);
        let word1 = Fields::<u64, CD1::Register>::new(word1);
        let word2 = Fields::<u64, CD2::Register>::new(word2);
        write_words(f, self.words, [&word0, &word1, &word2, &" MAIR0 MAIR1", &"", &"", &"", &""])
    }
}

/// A level-1 context descriptor: where a leaf table of context descriptors is (IHI 0070, 5.3). 8 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct L1ContextDescriptor(u64);

impl L1ContextDescriptor {
    /// No leaf table: its substreams abort, C_BAD_SUBSTREAMID.
    pub const INVALID: Self = Self(0);

    /// The leaf table at `table`, which is aligned to its size (4 KiB or 64 KiB, by STE.S1Fmt).
    #[must_use]
    pub fn new(table: PhysAddr) -> Self {
        Self((L1CD::V::SET + L1CD::L2Ptr.val(table.get() >> 12)).value)
    }

    /// A descriptor as read from memory.
    #[must_use]
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// The word.
    #[must_use]
    pub const fn word(self) -> u64 {
        self.0
    }

    /// Where the leaf table is, or `None` if V is 0.
    #[must_use]
    pub fn decode(self) -> Option<PhysAddr> {
        L1CD::V.is_set(self.0).then(|| PhysAddr::new(L1CD::L2Ptr.read(self.0) << 12))
    }
}
