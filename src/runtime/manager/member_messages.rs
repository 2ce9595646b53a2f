//! Messages for `dv-member`.

use crossbeam_channel::Sender;

use super::manager_status::ManagerMachineStatus;
use crate::error::Result;
use crate::machine::manager::ManagerInput;
use crate::store::{Bucket, Watch};

/// Messages for `dv-member` (everyone -> `dv-member`). The channel is bounded; senders wait for a
/// slot, which is soon free because `dv-member` never blocks.
pub(super) enum ToMember {
    /// Something happened.
    ManagerInput(ManagerInput),
    /// ManagerWatches were opened, or could not be (`dv-io` -> `dv-member`).
    Opened(Vec<Opened>),
    /// A request for the status (handle -> `dv-member`).
    Status(Sender<ManagerMachineStatus>),
}

/// A watch that was opened, or why it could not be.
pub(super) struct Opened {
    pub bucket: Bucket,
    pub key: String,
    pub watch: Result<Watch>,
}
