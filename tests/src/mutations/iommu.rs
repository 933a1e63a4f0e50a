//! The ways to break the core: registration, binding, taking away, undoing.

use super::Mutation;

const ATTACHMENT: &str = "smmu/src/iommu/attachment.rs";
const GROUP: &str = "smmu/src/iommu/group.rs";
const LEAVING: &str = "smmu/src/iommu/leaving.rs";
const PROBE: &str = "smmu/src/iommu/probe.rs";
const RESERVED: &str = "smmu/src/iommu/reserved.rs";

pub(super) const IOMMU: &[Mutation] = &[
    Mutation {
        name: "ready-before-walk",
        breaks: "An instance is ready for everybody before those that waited for it have been probed",
        file: PROBE,
        edits: &[("enter(iommu, Instance::Registering(instance))", "enter(iommu, Instance::Ready(instance))")],
    },
    Mutation {
        name: "waiting-before-released",
        breaks: "A device whose probe failed can be probed again before its instances have forgotten it",
        file: PROBE,
        edits: &[(
            "release_ports(&ports);
            // Not before: whoever probes it next must not be released by this.
            self.registry.lock().settle(device, Probe::Waiting);",
            "self.registry.lock().settle(device, Probe::Waiting);
            release_ports(&ports);",
        )],
    },
    Mutation {
        name: "device-claim-forgotten",
        breaks: "Two CPUs may attach one device at once",
        file: ATTACHMENT,
        edits: &[("if !device.claim() {", "if !device.claim() && false {")],
    },
    Mutation {
        name: "check-under-claim-dropped",
        breaks: "Nobody looks under the group's claim whether the instances are still there",
        file: ATTACHMENT,
        edits: &[("self.check_current(device, &group, &ports)?;", "")],
    },
    Mutation {
        name: "gone-before-detached",
        breaks: "An instance is gone while another CPU has a device behind it in hand",
        file: LEAVING,
        edits: &[("!matches!(record.state, Probe::Waiting)", "matches!(record.state, Probe::Done(_))")],
    },
    Mutation {
        name: "detach-for-all",
        breaks: "A device that is detached takes a shared StreamID with it",
        file: GROUP,
        edits: &[("attached.users.retain(|&id| id != user.id());", "attached.users.clear();")],
    },
    Mutation {
        name: "left-in-the-new-domain",
        breaks: "A stream that cannot go back to its domain stays in one that goes",
        file: GROUP,
        edits: &[("let _ = self.move_one(index, from, &Domain::Blocked);", "")],
    },
    Mutation {
        name: "direct-mappings-left",
        breaks: "What was mapped for a device that is then refused stays mapped",
        file: RESERVED,
        edits: &[("for region in self.mapped.drain(..) {", "for region in self.mapped.drain(..).take(0) {")],
    },
];
