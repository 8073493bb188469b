//! A reading as a scraper gets it: each form of its text is made when it is first asked for, and once.

use std::io::{self, Write as _};
use std::sync::OnceLock;

use flate2::{Compression, write::GzEncoder};
use hyper::body::Bytes;

use crate::figures::Exposition;
use crate::prometheus::{Form, text};

/// The text of a reading in both forms, plain and compressed.
pub struct Page {
    exposition: Exposition,
    plain: [OnceLock<Bytes>; Form::ALL.len()],
    packed: [OnceLock<Bytes>; Form::ALL.len()],
}

impl Page {
    /// The page of a reading.
    pub fn of(exposition: Exposition) -> Self {
        Self { exposition, plain: Default::default(), packed: Default::default() }
    }

    /// Its series.
    pub const fn exposition(&self) -> &Exposition {
        &self.exposition
    }

    /// Its text.
    pub fn text(&self, form: Form) -> Bytes {
        self.plain[form as usize].get_or_init(|| text(&self.exposition, form).into()).clone()
    }

    /// Its text, compressed by gzip; `None` where that fails.
    pub fn packed(&self, form: Form) -> Option<Bytes> {
        let place = &self.packed[form as usize];
        if place.get().is_none() {
            let _made_meanwhile = place.set(pack(&self.text(form)).ok()?.into());
        }
        place.get().cloned()
    }
}

/// Bytes, compressed by gzip.
///
/// # Errors
///
/// None that memory has.
pub(crate) fn pack(text: &[u8]) -> io::Result<Vec<u8>> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(text)?;
    packed.finish()
}
