//! A guest's commands in a row: batches, waits, and where they stop.

use arrayvec::ArrayVec;

use super::command::{Request, for_stream};
use super::{CommandRefusal, RefusedCommand};
use crate::addr::{StreamId, Vmid};
use crate::arch::command::{Command, CommandError, Completion};
use crate::device::{DeviceError, Smmu};
use crate::platform::Platform;

/// Most commands that share a CMD_SYNC.
const BATCH: usize = 64;

/// A stream of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestStream {
    /// The StreamID that the guest knows.
    pub guest: StreamId,
    /// The StreamID that the SMMU knows.
    pub physical: StreamId,
}

/// A guest behind one SMMU, as far as its commands need the hypervisor.
pub trait Guest {
    /// Of the guest's streams behind this SMMU, the one with the least number that is not below `first`, by the guest's
    /// numbers.
    fn stream_from(&self, first: StreamId) -> Option<GuestStream>;

    /// The guest has changed a stream's entry, or says so: read it again, and have it take effect
    /// ([`NestedParent::entry`](super::NestedParent::entry), [`Smmu::replace_nested`]).
    ///
    /// # Errors
    ///
    /// Those of the SMMU: the guest's commands stop here. What is wrong with the entry is none.
    fn reload(&mut self, stream: GuestStream) -> Result<(), DeviceError>;

    /// All commands up to one of the guest's CMD_SYNCs are complete: signal that as it asks for.
    fn synced(&mut self, completion: Completion);

    /// The device did not obey a CMD_ATC_INV: its stream aborts. [`reload`](Self::reload) leaves it at that until the device has
    /// been reset: whoever gives it ATS again waits for it once more, and so does everybody who uses the SMMU.
    fn quarantined(&mut self, stream: StreamId);
}

impl<P: Platform> Smmu<P> {
    /// Carries out commands that a guest wrote into its command queue, 16 bytes each, lowest word first, and returns when they
    /// are complete.
    ///
    /// The guest's CMD_TLBI_NH_*, CMD_CFGI_CD*, CMD_ATC_INV, CMD_PRI_RESP, CMD_RESUME and CMD_STALL_TERM are sent on with its
    /// VMID and the numbers that the SMMU knows its streams by; CMD_TLBI_NSNH_ALL drops what is its own; CMD_CFGI_STE and its
    /// kin are the hypervisor's to carry out ([`Guest::reload`]). Hints and streams that the guest has not got are passed over.
    /// Bits that a command does not define do not reach the SMMU.
    ///
    /// The guest's CMD_SYNCs keep their order with everything else. Between two of them up to 64 commands go to the SMMU in one
    /// batch. How long it takes at most goes by how many commands there are and how many streams the guest has: the SMMU gets
    /// at most one command for each, for each stream that a CMD_CFGI_STE_RANGE names one, and a CMD_SYNC for each batch.
    ///
    /// # Errors
    ///
    /// [`RefusedCommand`]: the guest's queue stops at that command, as [`CommandRefusal::command_error`] says.
    pub fn forward(&self, guest: &mut impl Guest, vmid: Vmid, commands: &[[u64; 2]]) -> Result<(), RefusedCommand> {
        let mut forwarding =
            Forwarding { smmu: self, guest, index: 0, pending: ArrayVec::new(), since: 0, unanswered: false };
        for (index, words) in commands.iter().enumerate() {
            forwarding.index = index;
            match Request::new(&self.features, vmid, *words) {
                Ok(request) => forwarding.carry_out(request)?,
                Err(reason) => {
                    forwarding.end()?;
                    return forwarding.stop(reason);
                }
            }
        }
        forwarding.index = commands.len();
        forwarding.end()
    }
}

struct Forwarding<'a, P: Platform, G: Guest> {
    smmu: &'a Smmu<P>,
    guest: &'a mut G,
    /// Which of the guest's commands it is at.
    index: usize,
    /// What has not been sent yet.
    pending: ArrayVec<Command, BATCH>,
    /// Which of the guest's commands is the first of those.
    since: usize,
    /// Whether a device has not obeyed since the guest's last CMD_SYNC.
    unanswered: bool,
}

impl<P: Platform, G: Guest> Forwarding<'_, P, G> {
    fn carry_out(&mut self, request: Request) -> Result<(), RefusedCommand> {
        match request {
            Request::None => Ok(()),
            Request::Send(command) => self.push(command),
            Request::SendFor(stream, command) => match self.find(stream) {
                Some(stream) if self.is_heeded(command, stream) => self.push(for_stream(command, stream)),
                _ => Ok(()),
            },
            Request::Reload(first, last) => self.reload(first, last),
            Request::Sync(completion) => {
                self.end()?;
                self.guest.synced(completion);
                Ok(())
            }
        }
    }

    fn stop(&self, reason: CommandRefusal) -> Result<(), RefusedCommand> {
        Err(RefusedCommand { index: self.index, reason })
    }

    fn find(&self, stream: StreamId) -> Option<StreamId> {
        self.guest.stream_from(stream).filter(|found| found.guest == stream).map(|found| found.physical)
    }

    /// Whether there is anybody to obey it. A device whose stream has no ATS has nothing to forget that it could use, and may
    /// be one that has been quarantined: nobody is to wait for it again.
    fn is_heeded(&self, command: Command, stream: StreamId) -> bool {
        let has_ats = || self.smmu.streams.load(stream).is_ok_and(|entry| entry.ats_enabled());
        !matches!(command, Command::AtcInv { .. }) || has_ats()
    }

    /// The hypervisor changes what has changed. What the SMMU knows of the contexts goes even if nothing has.
    fn reload(&mut self, first: StreamId, last: StreamId) -> Result<(), RefusedCommand> {
        let mut from = Some(first);
        while let Some(stream) = from.and_then(|from| self.guest.stream_from(from).filter(|next| next.guest >= from))
            && stream.guest <= last
        {
            match self.guest.reload(stream) {
                Ok(()) => {}
                // It aborts, and the guest hears of its device from its hypervisor.
                Err(DeviceError::Command(CommandError::AtcInvSync)) => self.guest.quarantined(stream.physical),
                Err(error) => {
                    self.end()?;
                    return self.stop(CommandRefusal::Device(error));
                }
            }
            self.push(Command::CfgiSte { stream: stream.physical, leaf: true })?;
            from = stream.guest.get().checked_add(1).map(StreamId::new);
        }
        Ok(())
    }

    fn push(&mut self, command: Command) -> Result<(), RefusedCommand> {
        // An answer is given once: not behind what may fail, and be repeated or not have been sent at all.
        let may_fail = |pending: &Command| matches!(pending, Command::AtcInv { .. });
        if self.pending.is_full() || is_answer(&command) && self.pending.iter().any(may_fail) {
            self.flush()?;
        }
        if self.pending.is_empty() {
            self.since = self.index;
        }
        // There is room.
        let _ = self.pending.try_push(command);
        Ok(())
    }

    /// Sends what is pending and waits for it.
    fn flush(&mut self) -> Result<(), RefusedCommand> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let result = match self.smmu.run_with_atcs(self.pending.iter().copied()) {
            Err(DeviceError::Command(CommandError::AtcInvSync)) => {
                self.unanswered = true;
                self.find_deaf()
            }
            result => result,
        };
        self.pending.clear();
        result.map_err(|error| RefusedCommand { index: self.since, reason: CommandRefusal::Device(error) })
    }

    /// Sends what is pending once more, since of several errors only one is told; each CMD_ATC_INV by itself.
    fn find_deaf(&mut self) -> Result<(), DeviceError> {
        let is_atc = |command: &&Command| matches!(command, Command::AtcInv { .. });
        let is_invalidation = |command: &&Command| !is_atc(command) && !is_answer(command);
        self.smmu.run_invalidations(self.pending.iter().filter(is_invalidation).copied())?;
        for &command in self.pending.iter().filter(is_atc) {
            if let Command::AtcInv { stream, .. } = command
                && self.is_heeded(command, stream)
            {
                self.smmu.run_or_quarantine(stream, [command], &mut |stream| self.guest.quarantined(stream))?;
            }
        }
        Ok(())
    }

    /// As at a CMD_SYNC of the guest, which fails if a device has not obeyed.
    fn end(&mut self) -> Result<(), RefusedCommand> {
        self.flush()?;
        if core::mem::take(&mut self.unanswered) { self.stop(CommandRefusal::AtcInvSync) } else { Ok(()) }
    }
}

/// Whether a device waits for it.
const fn is_answer(command: &Command) -> bool {
    matches!(command, Command::PriResp { .. } | Command::Resume { .. } | Command::StallTerm { .. })
}
