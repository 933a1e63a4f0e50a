//! Fields of registers, structures and commands by the bit numbers that the manuals print.

/// Bits `high` down to `low` of a word.
pub(super) const fn bits(value: u64, high: usize, low: usize) -> u64 {
    (value >> low) & (u64::MAX >> (63 - (high - low)))
}

/// Whether bit `position` of a word is set.
pub(super) const fn bit(value: u64, position: usize) -> bool {
    value >> position & 1 == 1
}

/// A mask of bits `high` down to `low`.
pub(super) const fn mask(high: usize, low: usize) -> u64 {
    (u64::MAX >> (63 - (high - low))) << low
}

/// Bits `high` down to `low` of a structure, numbered through all of its words. A field lies in one word.
pub(crate) fn field(words: &[u64], high: usize, low: usize) -> u64 {
    assert_eq!(high / 64, low / 64, "a field lies in one word");
    bits(words[low / 64], high % 64, low % 64)
}

/// Whether one bit of a structure is set, numbered through all of its words.
pub(crate) fn flag(words: &[u64], position: usize) -> bool {
    bit(words[position / 64], position % 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_numbered_through() {
        let words = [0, 0xabcd_0000_0000_0000];
        assert_eq!(field(&words, 127, 112), 0xabcd);
        assert!(flag(&words, 112) && !flag(&words, 113));
        assert_eq!(bits(u64::MAX, 63, 0), u64::MAX);
        assert_eq!(mask(7, 4), 0xf0);
    }
}
