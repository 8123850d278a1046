//! What people do with tasks: submit them, add to their context, read what became of them.
//!
//! The PM API and `kubectl taskrun` carry the same decisions: they stand here. Nothing in here may depend
//! on who asks; the API server's RBAC is the only judge of that.

mod context;
mod error;
mod history;
mod log;
mod name;
mod pm_task;
mod submission;
mod summary;
mod version;

pub use context::{Held, MAX_REQUEST_ID, Room, added_by, held, is_request_id, next_filename, room, version_of};
pub use error::{Code, Error};
pub use history::{Change, Files, changes, files_of, rollback, texts};
pub use log::{LogSource, latest_log, next_log};
pub use name::parse_name;
pub use pm_task::{PmTask, Subtask, parse_task_master};
pub use submission::{Submission, TITLE};
pub use summary::Summary;
pub use version::{Version, is_at_rest, versions};
