//! Messages for `dv-member`.

use crossbeam_channel::Sender;

use super::manager_status::ManagerMachineStatus;
use crate::error::Result;
use crate::machine::manager::ManagerInput;
use crate::store::{Bucket, Watch};

/// Messages for `dv-member` (everyone -> `dv-member`). The channel is bounded; senders wait for a
/// place, which is soon free since `dv-member` waits for nobody.
pub(super) enum ToMember {
    /// Something happened.
    ManagerInput(ManagerInput),
    /// ManagerWatches were opened, or could not be (`dv-io` -> `dv-member`).
    Opened(Vec<Opened>),
    /// Somebody wants to know (handle -> `dv-member`).
    Status(Sender<ManagerMachineStatus>),
}

/// A watch that was opened, or why it could not be.
pub(super) struct Opened {
    pub bucket: Bucket,
    pub key: String,
    pub watch: Result<Watch>,
}
