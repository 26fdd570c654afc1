//! Where a record that changes nothing points to, so that a reader need not walk through a long row of its like.

use types::{
    TimeStamp,
    codec::{DecodeError, Reader, Writer},
};

/// The version of a key that was the newest change of it when a record was written that changes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LastChange {
    /// Nobody looked.
    #[default]
    Unknown,
    /// There was no version that could have changed it.
    None,
    /// The put or the deletion with this commit timestamp.
    At(TimeStamp),
}

impl LastChange {
    /// The byte and, for [`LastChange::At`], the timestamp.
    pub(crate) fn write(self, out: &mut Writer) {
        match self {
            LastChange::Unknown => out.u8(0),
            LastChange::None => out.u8(1),
            LastChange::At(ts) => out.u8(2).u64(ts.0),
        };
    }

    /// Counterpart of [`write`](LastChange::write).
    pub(crate) fn read(from: &mut Reader<'_>) -> Result<LastChange, DecodeError> {
        match from.u8()? {
            0 => Ok(LastChange::Unknown),
            1 => Ok(LastChange::None),
            2 => Ok(LastChange::At(TimeStamp(from.u64()?))),
            _ => Err(DecodeError::Invalid("last change")),
        }
    }
}
