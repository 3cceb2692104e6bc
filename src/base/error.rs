use std::fmt;

/// The result of everything that can fail in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller can do about an [`Error`]. In JavaScript it is `error.kind`, in snake case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request is wrong: fix it. Repeating it unchanged fails again.
    InvalidArgument,
    /// What was named does not exist.
    NotFound,
    /// What should be created exists already: a collection of that name, a row of that primary key.
    AlreadyExists,
    /// What a write was conditional on is not so: read again, then decide again. Nothing was written.
    Conflict,
    /// What was asked for is no longer kept: ask for something newer.
    Gone,
    /// Who asks is not known, or not any more: come with a token that is valid.
    Unauthorized,
    /// Who asks may not do this. Repeating it with the same rights fails again.
    Forbidden,
    /// Another process or tab owns the store: close it there, or wait for it.
    Locked,
    /// The disk or the browser's quota is full: free some room, then retry. Nothing was half written.
    StorageFull,
    /// Bytes on disk or on the wire are not what was written: restore them from a replica or a backup.
    Corrupt,
    /// Written by, or speaking, another version: upgrade the older side.
    Unsupported,
    /// A passing failure of the network or of another process: retry.
    Unavailable,
    /// The handle was closed: open it again.
    Closed,
    /// The operating system refused an operation on the storage.
    Io,
    /// An invariant of this library does not hold: please report it.
    Internal,
}

impl ErrorKind {
    /// The stable name that JavaScript, HTTP and the sync protocol carry.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidArgument => "invalid_argument",
            Self::NotFound => "not_found",
            Self::AlreadyExists => "already_exists",
            Self::Conflict => "conflict",
            Self::Gone => "gone",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::Locked => "locked",
            Self::StorageFull => "storage_full",
            Self::Corrupt => "corrupt",
            Self::Unsupported => "unsupported",
            Self::Unavailable => "unavailable",
            Self::Closed => "closed",
            Self::Io => "io",
            Self::Internal => "internal",
        }
    }

    /// The kind with this stable name; an unknown name, as a newer peer may send, is [`ErrorKind::Internal`].
    pub fn from_name(name: &str) -> Self {
        [
            Self::InvalidArgument,
            Self::NotFound,
            Self::AlreadyExists,
            Self::Conflict,
            Self::Gone,
            Self::Unauthorized,
            Self::Forbidden,
            Self::Locked,
            Self::StorageFull,
            Self::Corrupt,
            Self::Unsupported,
            Self::Unavailable,
            Self::Closed,
            Self::Io,
        ]
        .into_iter()
        .find(|kind| kind.as_str() == name)
        .unwrap_or(Self::Internal)
    }
}

/// An error: a kind that prescribes, and a message that says what was got, what was expected and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    position: Option<usize>,
}

impl Error {
    /// An error of `kind` with `message`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), position: None }
    }

    /// The request is wrong.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidArgument, message)
    }

    /// What was named does not exist.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// Bytes are not what was written; the message names the file and the offset.
    pub fn corrupt(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Corrupt, message)
    }

    /// An invariant of this library does not hold.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// The same error, pointing at a character of the request's text (counted from 0, in characters).
    #[must_use]
    pub fn at(mut self, position: usize) -> Self {
        self.position = Some(position);
        self
    }

    /// The same error with `context` in front of its message: `context: message`.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }

    /// What the caller can do.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What was got, what was expected, and where.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The character of the request's text that the error points at, counted from 0.
    pub fn position(&self) -> Option<usize> {
        self.position
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
