//! Addresses of a backtrace turned into functions, files and lines.

use std::path::Path;

use addr2line::Loader;
use serde_json::Value;

/// The lines of a resolved backtrace: number, function, file and line, one line per frame, frames of inlined functions
/// among them. The first of `addresses` is where it happened, the others are return addresses. What `elf` does not
/// know stays an address.
pub fn resolve(elf: &Path, addresses: &[u64]) -> Vec<String> {
    let loader = Loader::new(elf).ok();
    let mut lines = Vec::new();
    for (index, &address) in addresses.iter().enumerate() {
        // A return address lies behind the call, perhaps already in another line or function.
        let probe = if index == 0 { address } else { address.saturating_sub(1) };
        let mut frames = loader.as_ref().map(|loader| frames_at(loader, probe)).unwrap_or_default();
        if frames.is_empty() {
            frames.push("unknown".to_owned());
        }
        lines.extend(frames.into_iter().map(|frame| format!("{index:3}: {address:#018x} {frame}")));
    }
    lines
}

/// The addresses in a record `{"record":"backtrace","addresses":["0x...", ...]}`; other members are left out.
pub fn addresses(record: &Value) -> Vec<u64> {
    let addresses = record["addresses"].as_array().map(Vec::as_slice).unwrap_or_default();
    let digits = addresses.iter().filter_map(|address| address.as_str()?.strip_prefix("0x"));
    digits.filter_map(|digits| u64::from_str_radix(digits, 16).ok()).collect()
}

fn frames_at(loader: &Loader, address: u64) -> Vec<String> {
    let mut frames = Vec::new();
    if let Ok(mut found) = loader.find_frames(address) {
        while let Ok(Some(frame)) = found.next() {
            let name = frame.function.as_ref().and_then(|function| function.demangle().ok().map(String::from));
            let location = frame.location.as_ref().and_then(|at| Some(format!("{}:{}", at.file?, at.line?)));
            if name.is_some() || location.is_some() {
                let name = name.as_deref().unwrap_or("unknown");
                frames.push(format!("{name} at {}", location.as_deref().unwrap_or("an unknown place")));
            }
        }
    }
    if frames.is_empty() {
        frames.extend(loader.find_symbol(address).map(str::to_owned));
    }
    frames
}

#[cfg(test)]
mod tests {
    use object::{Object as _, ObjectSymbol as _};
    use serde_json::json;

    use super::*;

    #[test]
    fn addresses_are_read_from_the_record() {
        let record = json!({"record": "backtrace", "addresses": ["0x40200000", "0xffff000000000010", "junk", 7]});
        assert_eq!(addresses(&record), [0x4020_0000, 0xffff_0000_0000_0010]);
        assert_eq!(addresses(&json!({"record": "backtrace"})), [0_u64; 0]);
    }

    #[test]
    fn a_function_of_this_executable_is_found() {
        let executable = std::env::current_exe().unwrap();
        let bytes = std::fs::read(&executable).unwrap();
        let file = object::File::parse(bytes.as_slice()).unwrap();
        let this_test = "a_function_of_this_executable_is_found";
        let symbol = file.symbols().find(|symbol| symbol.name().is_ok_and(|name| name.contains(this_test))).unwrap();
        let lines = resolve(&executable, &[symbol.address()]);
        assert!(lines[0].contains(this_test) && lines[0].contains("symbols.rs:"), "{lines:?}");
    }

    #[test]
    fn what_is_unknown_stays_an_address() {
        let lines = resolve(Path::new("/no/such/kernel"), &[0x1000, 0x2000]);
        assert_eq!(lines, ["  0: 0x0000000000001000 unknown", "  1: 0x0000000000002000 unknown"]);
    }
}
