//! What the kernel was compiled to.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use qemu::image::LARGEST_BYTES;
use qemu::workspace;

use crate::boot::KERNEL;

/// Instructions between a barrier and the store that it is for, arithmetic on registers and the base address.
const NEARBY: usize = 8;

#[test]
fn the_image_is_small() {
    let bytes = fs::metadata(&KERNEL.image).unwrap().len();
    assert!((1..LARGEST_BYTES).contains(&bytes), "{bytes} bytes");
}

/// The trait in front of the registers costs nothing: commands are published by one store, without a call or a branch
/// after the barrier.
#[test]
fn commands_are_published_by_a_plain_store() {
    let listing = disassemble();
    let mut published = 0;
    for function in listing.split("\n\n") {
        let mut lines = function.lines();
        if !lines.next().is_some_and(|name| name.contains("command_queue") && name.contains("7send_at17h")) {
            continue;
        }
        let instructions: Vec<&str> = lines.filter_map(|line| line.split_once(':')).map(|it| it.1.trim()).collect();
        for (at, _) in instructions.iter().enumerate().filter(|(_, it)| it.starts_with("dsb\toshst")) {
            let after = instructions.iter().skip(at + 1).take(NEARBY).take_while(|it| !it.starts_with('b'));
            // CMDQ_PROD is at 0x98.
            let stores = after.filter(|it| it.starts_with("str\tw") && it.ends_with("#0x98]")).count();
            assert_eq!(stores, 1, "{:#?}", &instructions[at..at + NEARBY]);
            published += 1;
        }
    }
    assert_ne!(published, 0, "no function publishes commands any more, or it is called something else");
}

/// The kernel in words, as the toolchain's own llvm-objdump has them.
fn disassemble() -> String {
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).current_dir(workspace::root()).output().unwrap();
    let sysroot = PathBuf::from(String::from_utf8(sysroot.stdout).unwrap().trim());
    let hosts = fs::read_dir(sysroot.join("lib/rustlib")).unwrap().map(|host| host.unwrap().path());
    let objdump = hosts.map(|host| host.join("bin/llvm-objdump")).find(|path| path.exists());
    let objdump = objdump.expect("rust-toolchain.toml names llvm-tools");
    let listing =
        Command::new(objdump).args(["--disassemble", "--no-show-raw-insn"]).arg(&KERNEL.elf).output().unwrap();
    assert!(listing.status.success(), "{}", String::from_utf8_lossy(&listing.stderr));
    String::from_utf8(listing.stdout).unwrap()
}
