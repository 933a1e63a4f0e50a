#!/bin/sh
# Stands in for QEMU. FAKE_QEMU says how the run ends; FAKE_QEMU_DEVICES, what `-device help` lists.

case "$*" in
*--version) echo "QEMU emulator version 99.0 (fake)"; exit 0 ;;
*"-machine help") echo "virt                 QEMU 99.0 ARM Virtual Machine"; exit 0 ;;
*"-device help") printf '%b' "$FAKE_QEMU_DEVICES"; exit 0 ;;
*"-device arm-smmuv3,help") exit 1 ;;
esac

if [ "$FAKE_QEMU" = refuse ]; then
    echo "qemu-system-aarch64: -device nonsense: no such thing" >&2
    exit 1
fi
echo "runstate_set current_run_state 6 (prelaunch) new_state 9 (running)" >&2
[ "$FAKE_QEMU" = silent ] && exit 1
echo "arguments: $*"
printf '\036{"record":"hello","number":1}\r\n'
case "$FAKE_QEMU" in
success) exit 0 ;;
failure) exit 1 ;;
panic) echo "panicked at line 1"; exit 101 ;;
disk) printf '\036{"record":"disk","sha256":"%s","bytes":3}\n' "$FAKE_QEMU_SHA256"; exit 0 ;;
crash) kill -SEGV $$ ;;
power-off) echo "runstate_set current_run_state 9 (running) new_state 11 (shutdown)" >&2; exit 0 ;;
hang) sleep 1000 ;; # A child of the shell's, which must end too.
esac
