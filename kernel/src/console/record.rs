//! Records: results for the program that watches the console, one JSON object per line.
//!
//! A line that starts with the byte 0x1e (RFC 7464's record separator) is a record; every other line is text for people.

use core::fmt::{self, Display, Formatter, Write};

/// A value in a record.
pub trait Json {
    /// Writes the value as JSON.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    fn write_json(&self, out: &mut dyn Write) -> fmt::Result;
}

/// Implements [`Json`] for types whose [`Display`] is JSON.
macro_rules! display_is_json {
    ($($t:ty),*) => {$(
        impl Json for $t {
            fn write_json(&self, out: &mut dyn Write) -> fmt::Result {
                write!(out, "{self}")
            }
        }
    )*};
}

display_is_json!(u8, u16, u32, u64, usize, i32, i64, bool);

impl Json for str {
    fn write_json(&self, out: &mut dyn Write) -> fmt::Result {
        Text(self).write_json(out)
    }
}

impl<T: Json + ?Sized> Json for &T {
    fn write_json(&self, out: &mut dyn Write) -> fmt::Result {
        (**self).write_json(out)
    }
}

impl<T: Json> Json for [T] {
    fn write_json(&self, out: &mut dyn Write) -> fmt::Result {
        out.write_char('[')?;
        for (index, value) in self.iter().enumerate() {
            if index != 0 {
                out.write_char(',')?;
            }
            value.write_json(out)?;
        }
        out.write_char(']')
    }
}

impl<T: Json> Json for Option<T> {
    fn write_json(&self, out: &mut dyn Write) -> fmt::Result {
        match self {
            Some(value) => value.write_json(out),
            None => out.write_str("null"),
        }
    }
}

/// A number as a string in hexadecimal: addresses do not fit in the numbers of many JSON readers.
#[derive(Clone, Copy, Debug)]
pub struct Hex(pub u64);

impl Json for Hex {
    fn write_json(&self, out: &mut dyn Write) -> fmt::Result {
        write!(out, "\"{:#x}\"", self.0)
    }
}

/// Anything with a [`Display`], as a string.
#[derive(Clone, Copy, Debug)]
pub struct Text<T>(pub T);

impl<T: Display> Json for Text<T> {
    fn write_json(&self, out: &mut dyn Write) -> fmt::Result {
        out.write_char('"')?;
        write!(Escaped(out), "{}", self.0)?;
        out.write_char('"')
    }
}

/// Escapes what is written through it for the inside of a JSON string (RFC 8259, section 7).
struct Escaped<'a>(&'a mut dyn Write);

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|char| match char {
            '"' | '\\' => write!(self.0, "\\{char}"),
            '\n' => self.0.write_str("\\n"),
            '\0'..'\x20' => write!(self.0, "\\u{:04x}", u32::from(char)),
            _ => self.0.write_char(char),
        })
    }
}

/// One record: its kind, and its fields in order.
pub struct Record<'a> {
    /// What the record is about; the value of its field "record".
    pub kind: &'a str,
    /// Names and values of the other fields.
    pub fields: &'a [(&'a str, &'a dyn Json)],
}

impl Display for Record<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("{\"record\":")?;
        self.kind.write_json(f)?;
        for (name, value) in self.fields {
            f.write_char(',')?;
            name.write_json(f)?;
            f.write_char(':')?;
            value.write_json(f)?;
        }
        f.write_char('}')
    }
}

/// Writes a record to the console: `record!("disk", "bytes" => length, "sha256" => text)`.
///
/// The values' types implement [`Json`].
#[macro_export]
macro_rules! record {
    ($kind:expr $(, $name:literal => $value:expr)* $(,)?) => {
        $crate::println!("\x1e{}", $crate::console::record::Record { kind: $kind, fields: &[$(($name, &$value)),*] })
    };
}
