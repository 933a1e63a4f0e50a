//! A machine that waits for a debugger, and the debugger that can talk to it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Where QEMU's gdb stub listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stub {
    /// A TCP port of this machine alone.
    Port(u16),
    /// A Unix socket.
    Socket(PathBuf),
}

/// Debuggers for AArch64, the best first.
const DEBUGGERS: [&str; 4] = ["gdb-multiarch", "aarch64-linux-gnu-gdb", "aarch64-none-elf-gdb", "lldb"];

impl Stub {
    /// A port if `text` is a number from 1 to 65535, else a socket's path.
    ///
    /// # Errors
    ///
    /// If `text` is a number that is no port, or empty.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.parse::<u64>() {
            Ok(number) => match u16::try_from(number) {
                Ok(port @ 1..) => Ok(Self::Port(port)),
                _ => Err(format!("a port is a number from 1 to 65535, and {number} is not")),
            },
            Err(_) if text.is_empty() => Err("a port or a socket's path is wanted".to_owned()),
            Err(_) => Ok(Self::Socket(text.into())),
        }
    }

    /// The value of QEMU's option `-gdb`.
    pub fn qemu_argument(&self) -> String {
        match self {
            Self::Port(port) => format!("tcp:127.0.0.1:{port}"),
            Self::Socket(path) => format!("unix:{},server=on,wait=off", path.display().to_string().replace(',', ",,")),
        }
    }

    /// The command line, word for word, of a debugger that loads the symbols of `elf` and connects to this stub: the
    /// first debugger found on PATH, `gdb-multiarch` if there is none.
    pub fn debugger_command(&self, elf: &Path) -> Vec<OsString> {
        let found = DEBUGGERS.into_iter().find(|name| which::which(name).is_ok());
        let debugger = found.unwrap_or(DEBUGGERS[0]);
        let (option, connect) = match (debugger, self) {
            ("lldb", Self::Port(port)) => ("-o", format!("gdb-remote 127.0.0.1:{port}")),
            ("lldb", Self::Socket(path)) => ("-o", format!("process connect unix-connect://{}", path.display())),
            (_, Self::Port(port)) => ("-ex", format!("target remote 127.0.0.1:{port}")),
            (_, Self::Socket(path)) => ("-ex", format!("target remote {}", path.display())),
        };
        vec![debugger.into(), elf.into(), option.into(), connect.into()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_a_port_and_the_rest_a_socket() {
        assert_eq!(Stub::parse("1234"), Ok(Stub::Port(1234)));
        assert_eq!(Stub::parse("/tmp/a socket"), Ok(Stub::Socket("/tmp/a socket".into())));
        assert!(Stub::parse("0").is_err() && Stub::parse("65536").is_err() && Stub::parse("").is_err());
    }

    #[test]
    fn qemu_and_debugger_meet_at_the_same_place() {
        let stub = Stub::Socket("a,b".into());
        assert_eq!(stub.qemu_argument(), "unix:a,,b,server=on,wait=off");
        assert_eq!(Stub::Port(99).qemu_argument(), "tcp:127.0.0.1:99");
        let command = Stub::Port(99).debugger_command(Path::new("the kernel"));
        assert_eq!(command[1], "the kernel");
        assert!(command[3].to_string_lossy().ends_with("127.0.0.1:99"));
    }
}
