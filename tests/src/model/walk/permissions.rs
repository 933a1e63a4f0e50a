//! Who may do what (Arm ARM, D8.4; IHI 0070, 13).

/// What a transaction wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Intent {
    pub(in super::super) reads: bool,
    pub(in super::super) writes: bool,
    pub(in super::super) privileged: bool,
    /// An instruction read. Writes are always data.
    pub(in super::super) instruction: bool,
}

impl Intent {
    /// What the SMMU itself wants of tables and CDs.
    pub(in super::super) const fn walk(writes: bool) -> Self {
        Self { reads: true, writes, privileged: false, instruction: false }
    }
}

/// What one privilege level may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Rights {
    pub(in super::super) read: bool,
    pub(in super::super) write: bool,
    pub(in super::super) execute: bool,
}

impl Rights {
    fn permit(self, intent: &Intent) -> bool {
        if intent.instruction && !intent.writes {
            return self.execute;
        }
        (self.read || !intent.reads) && (self.write || !intent.writes)
    }
}

/// What both privilege levels may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Permissions {
    pub(in super::super) privileged: Rights,
    pub(in super::super) unprivileged: Rights,
}

impl Permissions {
    /// What a stage permits that is not there.
    pub(in super::super) const ALL: Self = {
        let all = Rights { read: true, write: true, execute: true };
        Self { privileged: all, unprivileged: all }
    };

    pub(in super::super) fn permit(&self, intent: &Intent) -> bool {
        let rights = if intent.privileged { self.privileged } else { self.unprivileged };
        rights.permit(intent)
    }
}
