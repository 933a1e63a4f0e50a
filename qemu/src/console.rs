//! The kernel's console: text for people, and between it records for programs.
//!
//! A record is one JSON object between the byte 0x1e (ASCII record separator) and the end of the line. Records are
//! kept out of the text.

use serde_json::Value;

/// The byte that opens a record.
pub const RECORD_SEPARATOR: u8 = 0x1e;

/// A longer record is given up, in bytes, so that a runaway kernel does not fill the host's memory.
const LONGEST_RECORD: usize = 1 << 20;

/// Takes the console apart as it arrives.
#[derive(Debug, Default)]
pub struct Splitter {
    record: Option<Vec<u8>>,
    /// The records so far, in order. One that is not valid JSON appears as a string.
    pub records: Vec<Value>,
}

impl Splitter {
    /// Takes the next bytes from the console and returns those that are text.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut text = Vec::with_capacity(bytes.len());
        for &byte in bytes {
            match &mut self.record {
                Some(_) if byte == b'\n' => self.finish(),
                Some(record) if record.len() < LONGEST_RECORD => record.push(byte),
                Some(_) => {}
                None if byte == RECORD_SEPARATOR => self.record = Some(Vec::new()),
                None => text.push(byte),
            }
        }
        text
    }

    /// Ends the console: what is left of an unfinished record becomes one.
    pub fn finish(&mut self) {
        if let Some(record) = self.record.take() {
            let text = String::from_utf8_lossy(&record);
            let value = serde_json::from_str(text.trim()).unwrap_or_else(|_| Value::String(text.into_owned()));
            self.records.push(value);
        }
    }
}

/// The records of kind `kind`: those whose member `record` says so.
pub fn of_kind<'a>(records: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    records.iter().filter(move |record| record["record"] == kind)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn split(pieces: &[&[u8]]) -> (String, Vec<Value>) {
        let mut splitter = Splitter::default();
        let text: Vec<u8> = pieces.iter().flat_map(|piece| splitter.push(piece)).collect();
        splitter.finish();
        (String::from_utf8(text).unwrap(), splitter.records)
    }

    #[test]
    fn records_are_kept_out_of_the_text() {
        let (text, records) = split(&[b"one\r\n\x1e{\"record\":\"disk\",\"bytes\":512}\r\ntwo\r\n"]);
        assert_eq!(text, "one\r\ntwo\r\n");
        assert_eq!(records, [json!({"record": "disk", "bytes": 512})]);
    }

    #[test]
    fn records_may_arrive_in_pieces() {
        let (text, records) = split(&[b"a\x1e", b"{\"record\"", b":\"end\"}", b"\nb"]);
        assert_eq!((text.as_str(), records), ("ab", vec![json!({"record": "end"})]));
    }

    #[test]
    fn text_is_passed_on_before_its_line_ends() {
        assert_eq!(Splitter::default().push(b"progress: 10 %"), b"progress: 10 %");
    }

    #[test]
    fn a_broken_or_unfinished_record_is_a_string() {
        assert_eq!(split(&[b"\x1e{oops\n"]).1, [json!("{oops")]);
        assert_eq!(split(&[b"\x1e{\"record\":"]).1, [json!("{\"record\":")]);
    }

    #[test]
    fn a_runaway_record_is_cut() {
        let (text, records) = split(&[b"\x1e", &vec![b'x'; LONGEST_RECORD + 5], b"\nafter"]);
        assert_eq!(text, "after");
        assert_eq!(records[0].as_str().map(str::len), Some(LONGEST_RECORD));
    }

    #[test]
    fn records_are_chosen_by_kind() {
        let records = [json!({"record": "a"}), json!("broken"), json!({"record": "b"}), json!({"record": "a", "n": 2})];
        assert_eq!(of_kind(&records, "a").count(), 2);
    }
}
