//! Why a write was not let through, in words that a metric may have: nothing of the object is in them.

/// The kind of a rule that is broken, or why a review could not be judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// `spec.taskId` is none.
    TaskId,
    /// `spec.serviceName` is none.
    ServiceName,
    /// `spec.agentName` is none.
    AgentName,
    /// `spec.taskId` or `spec.serviceName` was changed.
    Immutable,
    /// The name is not the task's own.
    Name,
    /// The annotation of an adopted Job cannot be read.
    Adoption,
    /// `spec.contextVersion` is not what it must be.
    Version,
    /// There is no markdown.
    NoFiles,
    /// There are too many files.
    TooManyFiles,
    /// A filename is bad.
    Filename,
    /// A filename is reserved.
    ReservedFilename,
    /// Two files have one name.
    DuplicateFilename,
    /// A file has no content.
    EmptyFile,
    /// The contents, or all of it, are too large to be stored.
    TooLarge,
    /// A variable is bad, or there are too many.
    Env,
    /// Not a `TaskRun`.
    WrongResource,
    /// Not a review that we can read.
    Unreadable,
    /// Judging it failed.
    Panic,
}

impl Reason {
    /// One word each, in their order.
    pub const WORDS: [&str; 18] = [
        "task_id",
        "service_name",
        "agent_name",
        "immutable",
        "name",
        "adoption",
        "version",
        "no_files",
        "too_many_files",
        "filename",
        "reserved_filename",
        "duplicate_filename",
        "empty_file",
        "too_large",
        "env",
        "wrong_resource",
        "unreadable",
        "panic",
    ];

    /// Those of a denial.
    pub const RULES: [Self; 16] = [
        Self::TaskId,
        Self::ServiceName,
        Self::AgentName,
        Self::Immutable,
        Self::Name,
        Self::Adoption,
        Self::Version,
        Self::NoFiles,
        Self::TooManyFiles,
        Self::Filename,
        Self::ReservedFilename,
        Self::DuplicateFilename,
        Self::EmptyFile,
        Self::TooLarge,
        Self::Env,
        Self::WrongResource,
    ];

    /// As a word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        Self::WORDS[self as usize]
    }
}
